"""Selecting a member after training: by any utility, and what the choice is worth without the luck of the chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from paretune.core.answers import Selected
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.task import Task
from paretune.core.utilities import UTILITIES
from paretune.methods.experts import PLANNING, ExpertSettings
from paretune.pareto.chosen_value import chosen_values

SELECTIONS = (*UTILITIES, "J")


@dataclass(frozen=True)
class SelectSettings(ExpertSettings):
    """How a member is selected, beside the settings of the experts."""

    select: str = field(default="linear", metadata=PLANNING)  # or J, chebyshev, thresholds: what answers a preference
    select_point: tuple[float, ...] = field(default=(), metadata=PLANNING)  # thresholds, or the ideal of chebyshev

    def __post_init__(self) -> None:
        super().__post_init__()
        check_selection(self.select, self.select_point)


@dataclass(frozen=True, eq=False)
class MeasuredSet:
    """What the members of a set measured on development prompts.

    Attributes:
        scores: As the task judges them, `[N, K]`.
        kl: In nats, `[N]`.
        folds: Scores on each fold of the prompts, `[N, F, K]`; NaN where there are none.
        fold_kl: `[N, F]`.
        fold_counts: Completions behind each of `folds`, `[N, F, K]`; 1 each where that is not known.
    """

    scores: FloatArray
    kl: FloatArray
    folds: FloatArray
    fold_kl: FloatArray
    fold_counts: FloatArray


def check_selection(select: str, select_point: Sequence[float]) -> None:
    """Refuse a selection that cannot be made.

    Args:
        select: One of `SELECTIONS`.
        select_point: Thresholds, or the ideal of `chebyshev`.

    Raises:
        UnknownNameError: If there is no such selection.
        ConfigError: If thresholds are missing, or a point is given where nothing reads it.
    """
    check_choice("select", select, SELECTIONS)
    if select == "thresholds" and not select_point:
        raise ConfigError(
            "select_point must be a threshold for each objective where select is 'thresholds', got none. For two "
            "objectives write select_point: [0.5, 0.4]."
        )
    if select_point and select not in ("thresholds", "chebyshev"):
        raise ConfigError(
            f"select_point must be left out where select is '{select}', got {list(select_point)}. Try chebyshev."
        )


def selected(
    task: Task,
    select: str,
    select_point: Sequence[float],
    measured: MeasuredSet,
    served: Sequence[int],
    wanted: FloatArray,
) -> tuple[Selected, dict[str, object]]:
    """Return what answers preferences with one of the served members, and notes on what its choices are worth.

    Args:
        task: Says what policies are judged on.
        select: `linear`, `w . s` with scores as the task judges them; `J`, the same with `r - beta KL` in any case;
            `chebyshev` or `thresholds`, see `core.utilities`.
        select_point: For these two, `[K]`; an ideal that is not given is the highest reward of each objective.
        measured: All members that were measured.
        served: Which of them can be chosen: the experts of the answer, in their order.
        wanted: Preferences whose choices are valued, `[M, K]`.

    Raises:
        ConfigError: If the point is not one number for each objective.
    """
    count = measured.scores.shape[1]
    if select_point and len(select_point) != count:
        raise ConfigError(
            f"select_point must have a number for each objective ({count}), got {list(select_point)}. Give each one."
        )
    penalty = task.beta if select == "J" and task.judged_on != "J" else 0.0
    own = list(served)
    scores = measured.scores[own] - penalty * measured.kl[own, None]
    folds = measured.folds[own] - penalty * measured.fold_kl[own, :, None]
    utility = "linear" if select == "J" else select
    low, high = np.asarray([each.range for each in task.objectives], dtype=np.float64).T
    given = high if utility == "chebyshev" and not select_point else np.asarray(select_point, dtype=np.float64)
    widths = high - low if given.size else given
    answer = Selected(scores, utility, given, widths)
    known = ~np.isnan(folds).any(axis=(0, 2))
    notes: dict[str, object] = {"by": select, "preferences": wanted.tolist(), "folds": int(known.sum())}
    if known.any():
        at, wide = (given, widths) if given.size else (None, None)
        counts = measured.fold_counts[own][:, known]
        found = chosen_values(folds[:, known], wanted, utility, at, wide, counts, scores)
        fair = None if found.cross_fitted is None else found.cross_fitted.tolist()
        notes |= {"naive": found.naive.tolist(), "cross_fitted": fair}
    return answer, {"selection": notes}
