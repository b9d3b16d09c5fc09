"""KL-matched utility: what methods reach at the same distance from the base model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import FAMILIES, MetricRow
from paretune.metrics.judged import mean_range
from paretune.metrics.seeds import Group, Measure, groups, over_seeds
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
QUARTERS = (0.25, 0.5, 0.75, 1.0)


class Curve(NamedTuple):
    """What one cell reaches as the weights of its experts are scaled from 0 to 1, averaged over preferences.

    Attributes:
        kl: KL to the base model in nats, `[S]`; starts near 0.
        utilities: Mean over preferences of `preference . E r`, `[S]`.
    """

    kl: FloatArray
    utilities: FloatArray

    @property
    def reach(self) -> float:
        """The largest KL on it."""
        return float(self.kl.max())


class KlMatched:
    """Utility at common KL levels, from policies scaled towards the base model without further training.

    A policy that drifts further from the base model has more room to gain utility; only at equal KL does one method's
    lead say that it spends its KL better. Each cell's curve of mean utility against mean KL is read between its scales
    by straight lines. The levels are quarters of the smallest reach of all methods and seeds at a task and budget, the
    ceiling's aside, so that no seed drops out of a mean; a level beyond the reach of one of a method's seeds has no
    value for the method.

    Rows by label: `utility at KL ...` in nats; where scores are exact, `J at KL ...` too, `utility - beta KL`.

    Source:
        Gao et al. 2023, Scaling laws for reward model overoptimization, for utility against KL; the scaling is ours.
    """

    name = "kl_matched"
    title = "Utility at equal KL"
    unit = "reward"
    higher_is_better = True
    needs = ("outcomes",)

    def __init__(self, levels: Sequence[float] | None = None) -> None:
        self.levels = levels

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget; one only where no policy was scaled."""
        every = list(groups(study))
        found = {
            (group.task.name, group.method, group.budget_completions): {
                cell.seed: curve(cell, group.task) for cell in group.cells if cell.state == "done"
            }
            for group in every
        }
        rows = []
        for group in every:
            key = (group.task.name, group.budget_completions)
            alike = [
                each
                for other in every
                if (other.task.name, other.budget_completions) == key and other.cells[0].family in FAMILIES
                for each in found[other.task.name, other.method, other.budget_completions].values()
            ]
            levels = common_levels(alike) if self.levels is None else tuple(self.levels)
            rows += self._rows(study, group, found[group.task.name, group.method, group.budget_completions], levels)
        return rows

    def _rows(
        self, study: StudyRecords, group: Group, found: dict[int, Curve | str], levels: Sequence[float]
    ) -> list[MetricRow]:
        if not levels:
            nothing = over_seeds(group.cells, _without(found))
            return [group.row(self.name, "", nothing)]
        exact = any(cell.outcomes is not None and cell.outcomes.exact for cell in group.cells)
        reach = min((each.reach for each in found.values() if not isinstance(each, str)), default=np.inf)
        rows = []
        free = {cell.seed: 0.0 for cell in group.cells}
        for prefix, prices in (("utility", free), *((("J", _betas(study, group)),) if exact else ())):
            ends = mean_range(group.task) if prefix == "utility" else (-np.inf, mean_range(group.task)[1])
            for level in levels:
                measure = _at(found, level, reach, prices)
                rows.append(
                    group.row(self.name, f"{prefix} at KL {level:.3g}", over_seeds(group.cells, measure, within=ends))
                )
        return rows


class Scaled(NamedTuple):
    """What the policies of one cell reach, one a preference, as the weights of their experts are scaled.

    Attributes:
        kl: KL to the base model in nats, `[M, S]`.
        utilities: For the user of the preference, `[M, S]`.
    """

    kl: FloatArray
    utilities: FloatArray


def curve(cell: CellRecord, task: TaskInfo) -> Curve | str:
    """Return a finished cell's curve, or why it has none."""
    found = scaled(cell, task)
    return found if isinstance(found, str) else Curve(found.kl.mean(axis=0), found.utilities.mean(axis=0))


def scaled(cell: CellRecord, task: TaskInfo) -> Scaled | str:
    """Return what each policy of a finished cell reaches at every scale, or why that is not known."""
    record = cell.outcomes
    if record is None:
        return "has no policies scored at several scales (evaluation: kl_matched)"
    if not np.isfinite(record.kl).all():
        return f"has no KL ({record.reason or 'its policy can only be sampled'})"
    whole = np.isfinite(record.rewards).all(axis=(0, 1, 3))  # a prompt without a reward is left out at every scale
    if not whole.any():
        return "has no prompt with all rewards at every scale"
    if task.contextual:
        evaluated = [cell.evaluation(preference) for preference in record.preferences]
        wanted = [each.prompt_preferences for each in evaluated if each and each.prompt_preferences is not None]
        if len(wanted) < len(evaluated):
            return "has no evaluation that says what users want of each prompt"
        utilities = np.einsum("mpk,mspk->ms", np.stack(wanted)[:, whole], record.rewards[:, :, whole])
    else:
        utilities = np.einsum("mk,mspk->ms", record.preferences, record.rewards[:, :, whole])
    return Scaled(record.kl[:, :, whole].mean(axis=2), utilities / whole.sum())


def common_levels(found: Iterable[Curve | str]) -> tuple[float, ...]:
    """Return quarters of the smallest reach; none where nothing has a reach."""
    reaches = [each.reach for each in found if not isinstance(each, str)]
    smallest = min(reaches, default=0.0)
    return tuple(share * smallest for share in QUARTERS) if smallest > 0 else ()


def utility_at(found: Curve, level: float) -> float:
    """Return the utility where a curve first reaches a KL, on the straight line between two scales; NaN beyond it.

    Example:
        >>> utility_at(Curve(np.array([0.0, 1.0, 4.0]), np.array([0.5, 0.75, 0.875])), 2.5)
        0.8125
    """
    after = np.flatnonzero(found.kl >= level)
    if len(after) == 0:
        return float("nan")
    right = int(after[0])
    if right == 0:
        return float(found.utilities[0])
    left = right - 1
    share = (level - found.kl[left]) / (found.kl[right] - found.kl[left])
    return float(found.utilities[left] + share * (found.utilities[right] - found.utilities[left]))


def _without(found: dict[int, Curve | str]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        each = found[cell.seed]
        return each if isinstance(each, str) else "stays at the base model, or a method of the study does"

    return measure


def _betas(study: StudyRecords, group: Group) -> dict[int, float]:
    """Return beta by seed: that of the task's instance, which differs between the instances of a controlled task."""
    truths = ((seed, study.truths.get((group.task.name, seed))) for seed in (cell.seed for cell in group.cells))
    return {seed: truth.beta for seed, truth in truths if truth is not None}


def _at(found: dict[int, Curve | str], level: float, reach: float, prices: Mapping[int, float]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        each = found[cell.seed]
        if isinstance(each, str):
            return each
        if level > each.reach:
            return f"ends at KL {each.reach:.3g}"
        if level > reach:  # of the method: a mean of only those that go so far would choose among seeds
            return "is left out, since another seed ends before"
        if cell.seed not in prices:
            return "has no record of its task instance's beta"
        return utility_at(each, level) - prices[cell.seed] * level

    return measure
