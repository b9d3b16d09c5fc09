"""One policy per preference: which preferences get a policy of their own within a budget, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paretune.core.answers import Estimated, Nearest
from paretune.core.errors import ConfigError
from paretune.core.preferences import SAME_PREFERENCE, FloatArray, add_points, centre, corners
from paretune.core.protocols import Assembly
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.methods.experts import (
    EXPERT_VERSION,
    PLANNING,
    ExpertSettings,
    adapters_of,
    expert_stage,
    split_budget,
    trained_weights,
)
from paretune.methods.judging import judged_scores
from paretune.rl.recent import RECENT


@dataclass(frozen=True)
class PerPreferenceSettings(ExpertSettings):
    """Settings of a method that trains one policy per preference, beside those of its experts."""

    # fewer would compare half-trained policies; measured on the embedded task
    completions_each: int = field(default=1500, metadata=PLANNING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.completions_each < self.group_size:
            raise ConfigError(
                f"completions_each must be at least one group of {self.group_size}, got {self.completions_each}. "
                "Try 1500."
            )


def check_beta_stays(target_kl: float, where: str) -> None:
    """Refuse to steer beta where a method takes the task's into a utility of `E r_k - beta KL`.

    Args:
        target_kl: Of the settings.
        where: What has such a utility, for the message.

    Raises:
        ConfigError: If beta is steered: the utility would pay for the KL with one beta, the gradients with another.
    """
    if target_kl:
        raise ConfigError(
            f"target_kl must be 0 {where}, got {target_kl}: the utility pays for the KL with the task's beta, and "
            "steering would make gradients pay with another. Write target_kl: 0, and choose the task's beta instead."
        )


def trained_preferences(preferences: FloatArray, affordable: int) -> FloatArray:
    """Return the preferences that get a policy of their own, `[N, K]`.

    Args:
        preferences: Wanted ones, `[M, K]`.
        affordable: How many policies there may be, at least 1.

    Returns:
        All that are wanted, if they are not more. Else corners and centre first, of those that are wanted, then the
        others as given; with fewer policies than objectives the centre before the corners, as it serves everybody.

    Example:
        >>> from paretune.core.preferences import das_dennis
        >>> trained_preferences(das_dennis(2, 4), affordable=3).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    if len(preferences) <= affordable:
        return preferences
    objectives = preferences.shape[1]
    ends, middle = corners(objectives), centre(objectives)[None]
    first = add_points(middle, ends) if affordable < objectives else add_points(ends, middle)
    wanted = np.abs(first[:, None] - preferences).max(axis=2).min(axis=1) <= SAME_PREFERENCE
    return add_points(first[wanted], preferences)[:affordable]


@dataclass(frozen=True, eq=False)
class TrainedUtility:
    """What a policy is worth to the user of a preference, where that is no weighted sum of scores as they are judged.

    Attributes:
        scores: From mean rewards `[E, K]` and KL `[E]` to the scores that the utility is of, `[E, K]`.
        utility: One of `core.utilities.UTILITIES`.
        points: What that needs beside the preference, `[K]`; empty for `linear`.
        widths: Widths that it counts in, `[K]`; empty for `linear`.
    """

    scores: Callable[[FloatArray, FloatArray], FloatArray]
    utility: str = "linear"
    points: Sequence[float] = ()
    widths: Sequence[float] = ()


def best_trained(task: Task, results: Mapping[str, StageResult], trained_for: TrainedUtility | None = None) -> Assembly:
    """Answer a trained preference with its own policy, any other with the one of the highest estimated worth.

    Worth is what the task is judged on, or the utility that a method trains for, estimated from each policy's own last
    training completions, which cost nothing more. Those were sampled by the policy of its last updates, not by the one
    that is handed over, see `rl.recent.Recent.estimate`. Where a policy has fewer than `RECENT` of them, or no reward
    of an objective, policies cannot be compared fairly: then the one trained for the nearest preference answers.
    """
    experts = tuple(results.values())
    trained, estimates = trained_weights(experts), [_estimate(expert) for expert in experts]
    known = [each for each in estimates if each is not None]
    if len(known) < len(experts) or len(experts) == 1:  # one leaves nothing to choose
        return Assembly(adapters_of(experts), Nearest(trained))
    table = np.asarray(known)  # [E, K + 1]
    scores, kl = table[:, :-1], table[:, -1]
    notes = {"estimated_returns": scores.tolist(), "estimated_kl": kl.tolist()}
    if trained_for is None:
        return Assembly(adapters_of(experts), Estimated(trained, judged_scores(task, scores, kl)), notes=notes)
    points, widths = (np.asarray(each, np.float64) for each in (trained_for.points, trained_for.widths))
    answer = Estimated(trained, trained_for.scores(scores, kl), trained_for.utility, points, widths)
    return Assembly(adapters_of(experts), answer, notes=notes)


def nearest_trained(results: Mapping[str, StageResult]) -> Assembly:
    """Answer every preference with the policy trained for the nearest one.

    For methods that train for another utility than a weighted sum that mean returns do not tell: by the sum the wrong
    policy would be worth most.
    """
    experts = tuple(results.values())
    return Assembly(adapters_of(experts), Nearest(trained_weights(experts)))


def _estimate(expert: StageResult) -> list[float] | None:
    """Return mean rewards and KL of a policy's last completions, `[K + 1]`; None where they are too few."""
    values: Any = expert.values
    if values.get("counted", 0) < RECENT or None in values["returns"]:
        return None
    return [*values["returns"], values["kl"]]


def planned_policies(
    settings: PerPreferenceSettings, preferences: FloatArray, budget: int
) -> list[tuple[FloatArray, int]]:
    """Return the preference `[K]` and the completions of each policy that a budget trains for wanted `[M, K]`.

    Raises:
        BudgetError: If a policy would get less than one group.
    """
    trained = trained_preferences(preferences, max(1, budget // settings.completions_each))
    return list(zip(trained, split_budget(budget, len(trained), settings.group_size), strict=True))


def planned_experts(
    settings: PerPreferenceSettings, preferences: FloatArray, budget: int, seed: int,
    weighting: type | str = "", shaping: type | str = "", version: int = EXPERT_VERSION, **known: Any,
) -> tuple[Stage, ...]:  # fmt: skip
    """Describe one expert for each preference that gets a policy of its own, see `planned_policies`.

    Args:
        settings: Of the method.
        preferences: Wanted ones, `[M, K]`.
        budget: Of all of them, in completions.
        seed: Of the training.
        weighting: What changes the weights, a class or its `module:Class`; else they stay the preference.
        shaping: What shapes rewards, a class or its `module:name`; else they are taken as they are.
        version: Of what the training leaves, see `expert_stage`.
        known: What weighting or shaping must know of the task, beside the settings.

    Raises:
        BudgetError: If a policy would get less than one group.
    """
    change, shape = (each if isinstance(each, str) else where_found(each) for each in (weighting, shaping))
    experts = (
        expert_stage(settings, row, length, seed, weighting=change, shaping=shape, version=version)
        for row, length in planned_policies(settings, preferences, budget)
    )
    return tuple(replace(each, settings={**each.settings, **known}) for each in experts)
