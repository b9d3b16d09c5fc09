"""Scalability: what one objective more, and one preference more, cost, and what they cost the users there were."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.adaptability import Scratch, from_scratch, single_policy_result
from paretune.metrics.seeds import ANYWHERE, Group, NoValueError, groups, not_measured, over_seeds
from paretune.records.study import CellRecord, StudyRecords

HALF = 0.5  # of a cell's budget: retraining for at most that much is a point
NOTHING, LITTLE = 0.02, 0.2  # shares of a gain over the base model: losing at most that much is two points, or one
MOST = 4.0  # the best grade
FloatArray = NDArray[np.float64]
Value = Callable[[CellRecord], float]  # of a finished cell


class Scalability:
    """Two changes made for real: an objective is added (`paretune.add_objective`), and a new preference is answered.

    *New objective*: where a method has an expert for each objective, one more is trained, with a K-th of the cell's
    budget; any other method trains all again, with the whole budget. The users that there were are those of each old
    objective alone and of equal weights on all of them. *New preference*: an unseen one. A single-policy method that
    trains for the preferences it is given trains one policy more, as long as its longest; any other method answers as
    it is, and nothing is trained.

    Unit: as labelled; changes, gains and losses are in rewards. Direction: a grade, a gain and a change are better when
    higher, all else when lower. Interval: Student-t over the seeds that were measured, the first three of a study; that
    of a grade within 0 and 4.

    No value: the new objective, where a task has none to add, or a budget is too small to train for one more; the new
    preference's loss and grade, where the measurement `adaptation` of that preference is missing, which has the
    single-policy result that they are held against (see `Adaptability`); a share, where there was no gain to lose.

    Rows by label, each after `new objective: ` or `new preference: `: `grade`; `experts trained`; `completions`; `share
    of the budget`; `seconds`; `parameters trained`. Of an objective also: `experts kept`, of the old ones; `change on
    the old objectives, J` (and `utility`), mean over those users, negative for a loss; `share of the old gain lost`, a
    ratio of sums; `gain on the new objective, J`, above the base model, for who wants nothing else. Of a preference
    also: `loss without training, J`, what answers it at first below the single-policy result; `loss, J`, after what the
    method does; `share of the single-policy gain lost`, after it.

    The grade adds two parts of 0 to 2. *Cost*: 2 where no expert that there was is trained again (objective), or
    nothing is trained at all (preference); 1 where the training takes at most half the cell's budget; else 0. *Loss*: 2
    where the share lost is at most .02; 1 where it is at most .2; else 0. Shares are of what the task is judged on. The
    grade of an objective is 0 where nothing is gained on it. So 4 is: nothing retrained and nothing lost.

    Source:
        Kong et al. 2025, scalability; the definitions and the rule are ours.
    """

    name = "scalability"
    title = "Scalability"
    unit = "as labelled"
    higher_is_better = False
    needs = ("scaling", "adaptation")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        asked = {cell for table in study.tables if table.measurement == "scaling" for cell in table.cells}
        scratch = from_scratch(study)
        return [row for group in groups(study) for row in self._rows(group, scratch, asked)]

    def _rows(self, group: Group, scratch: Scratch, asked: Collection[str]) -> list[MetricRow]:
        judged = group.task.judged_on
        nouns = (judged, "utility" if judged == "J" else "J")
        measures: dict[str, Value] = {"new objective: grade": partial(_objective_grade, judged)}
        for label, name in COSTS.items():
            measures[f"new objective: {label}"] = partial(_cost, "objective", name)
        measures["new objective: experts kept"] = partial(_cost, "objective", "kept")
        for noun in nouns:
            measures[f"new objective: change on the old objectives, {noun}"] = partial(_change, noun)
            measures[f"new objective: gain on the new objective, {noun}"] = partial(_gain, noun)
        measures["new objective: share of the old gain lost"] = partial(_lost, judged)
        measures["new preference: grade"] = partial(_preference_grade, scratch, judged)
        for label, name in COSTS.items():
            measures[f"new preference: {label}"] = partial(_cost, "preference", name)
        for noun in nouns:
            measures[f"new preference: loss without training, {noun}"] = partial(_below_single, scratch, noun, "before")
            measures[f"new preference: loss, {noun}"] = partial(_below_single, scratch, noun, "after")
        measures["new preference: share of the single-policy gain lost"] = partial(_single_lost, scratch, judged)
        cells = [each for each in group.cells if each.cell in asked] or group.cells  # not all seeds are measured
        return [
            group.row(self.name, label, over_seeds(cells, measure, within=_ends(label.partition(": ")[2])))
            for label, measure in measures.items()
        ]


COSTS = {
    "experts trained": "trained", "completions": "completions", "share of the budget": "share", "seconds": "seconds",
    "parameters trained": "parameters",
}  # fmt: skip


def grade(retrained: bool, share_of_budget: float, share_lost: float) -> int:
    """Return a grade of 0 to 4 by the rule of `Scalability`.

    Args:
        retrained: Whether something was trained that a modular method leaves as it is.
        share_of_budget: Completions that were trained, of the cell's budget.
        share_lost: Of a gain over the base model.

    Example:
        >>> grade(False, 0.5, 0.0), grade(True, 1.0, 0.1)
        (4, 1)
    """
    cost = 2 if not retrained else int(share_of_budget <= HALF)
    loss = 2 if share_lost <= NOTHING else int(share_lost <= LITTLE)
    return cost + loss


def _ends(part: str) -> tuple[float, float]:
    """Return what is possible of a part: grades end, and nothing is spent or kept below 0."""
    if part == "grade":
        return 0, MOST
    return (0, np.inf) if part in COSTS or part == "experts kept" else ANYWHERE


def _part(cell: CellRecord, change: str) -> Mapping[str, Any]:
    """Return what was measured of a change."""
    table = cell.measured.get("scaling")
    if table is None:
        raise NoValueError(not_measured("scaling"))
    part: Mapping[str, Any] = table[change]
    if part["reason"]:
        raise NoValueError(f"has no new {change} ({part['reason']})")
    return part


def _cost(change: str, name: str, cell: CellRecord) -> float:
    part = _part(cell, change)
    return float(part["completions"] / cell.budget_completions if name == "share" else part[name])


def _users(cell: CellRecord, noun: str) -> FloatArray:
    """Return what each user of the old objectives has of the base model, before and after, `[N, 3]`."""
    values = [[user[when][noun] for when in ("base", "before", "after")] for user in _part(cell, "objective")["old"]]
    if any(value is None for row in values for value in row):
        raise NoValueError(f"has no {noun} for a preference")
    return np.asarray(values, dtype=np.float64)


def _change(noun: str, cell: CellRecord) -> float:
    users = _users(cell, noun)
    return float((users[:, 2] - users[:, 1]).mean())


def _lost(noun: str, cell: CellRecord) -> float:
    base, before, after = _users(cell, noun).sum(axis=0)
    if not before > base:
        raise NoValueError("has no gain over the base model to lose")
    return float((before - after) / (before - base))


def _gain(noun: str, cell: CellRecord) -> float:
    new = _part(cell, "objective")["new"]
    base, after = new["base"][noun], new["after"][noun]
    if base is None or after is None:
        raise NoValueError(f"has no {noun} for the new objective")
    return float(after - base)


def _single(scratch: Scratch, cell: CellRecord, noun: str) -> tuple[float, float]:
    """Return what the base model and a single policy have for the preference that was new to the method."""
    return single_policy_result(scratch, cell, noun, _part(cell, "preference")["before"]["preference"])


def _below_single(scratch: Scratch, noun: str, when: str, cell: CellRecord) -> float:
    value = _part(cell, "preference")[when][noun]
    if value is None:
        raise NoValueError(f"has no {noun} for the new preference")
    return float(_single(scratch, cell, noun)[1] - value)


def _single_lost(scratch: Scratch, noun: str, cell: CellRecord) -> float:
    base, single = _single(scratch, cell, noun)
    if not single > base:
        raise NoValueError("has a single-policy result without gain over the base model")
    return _below_single(scratch, noun, "after", cell) / (single - base)


def _objective_grade(noun: str, cell: CellRecord) -> float:
    part, lost = _part(cell, "objective"), _lost(noun, cell)
    if _gain(noun, cell) <= 0:
        return 0.0
    return float(grade(part["kept"] < part["experts"], part["completions"] / cell.budget_completions, lost))


def _preference_grade(scratch: Scratch, noun: str, cell: CellRecord) -> float:
    part, lost = _part(cell, "preference"), _single_lost(scratch, noun, cell)
    return float(grade(part["trained"] > 0, part["completions"] / cell.budget_completions, lost))
