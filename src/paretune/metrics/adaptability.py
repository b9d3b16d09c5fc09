"""Adaptability: what some more training for a preference that nobody had in mind is worth, by how much of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.protocols import REFERENCE, MetricRow, MetricValue
from paretune.metrics.judged import utility_ranges
from paretune.metrics.seeds import ANYWHERE, Group, NoValueError, groups, not_measured, over_seeds
from paretune.records.outcomes import TruthRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
LENGTHS = (0, 64, 256, 1024)  # completions of adaptation that have rows; what the measurement `adaptation` makes
UNIT = 64  # completions that move a point by one doubling along the axis of the area, an update's
REACHED = 0.95  # share of the single-policy result's gain over the base model
Value = Callable[[CellRecord], float]  # of a finished cell
Curve = Mapping[int, Mapping[str, Any]]  # what there is at each length, by the completions asked for
Curves = list[Curve]  # one for each preference
Scratch = Mapping[tuple[str, int], Curves]  # by task and seed


class Adaptability:
    """Utility, and `J = utility - beta KL`, of users whose preference no method was given, after training for it.

    What answers the preference is trained on (`paretune.adapt`) and scored on the test prompts after 0, 64, 256 and
    1,024 completions: a learning curve from a method's own start. The curve *from scratch* is that of one new policy on
    the base model, with the same learning, prompts and noise; so methods of a task and seed share it. Values are means
    over the unseen preferences that were adapted to, the first two of a study.

    Unit: that of rewards; completions where a label says so. Direction: higher is better, but for completions and
    regret. Interval: Student-t over seeds.

    No value: where the policy cannot be adapted, at any length but 0 (what mixes hidden states or log-probabilities of
    several experts is no one policy to train on); J, where a policy can only be sampled and has no KL.

    Rows by label, each for what the task is judged on and for the other of `J` and `utility`: `J after N completions`,
    and `... from scratch`; `gain of the start, J`, at 0 completions above the base model; `area under the curve, J`,
    and `... from scratch`, the mean of the curve over `log2(1 + completions / 64)`, by straight lines between its
    points; `completions to 95 % of the single-policy result, J`. The single-policy result is what training from scratch
    for the preference reaches with all completions of a cell's budget; the target is the base model and 95 % of that
    gain. It is read on the same straight lines, 0 where the start is there already. Missing where a seed does not reach
    it within 1,024 completions, for a mean over the others would choose among seeds. Where the best policy is known:
    `regret to the optimum after N completions`, of J.

    Source:
        Kong et al. 2025, adaptability; the definitions are ours.
    """

    name = "adaptability"
    title = "Adaptability"
    unit = "as labelled"
    higher_is_better = True
    needs = ("adaptation", "truth")

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        scratch = from_scratch(study)
        return [row for group in groups(study) for row in self._rows(group, study, scratch)]

    def _rows(self, group: Group, study: StudyRecords, scratch: Scratch) -> list[MetricRow]:
        cells, task, rows = group.cells, group.task, []
        low, high = _utilities(task)
        own, ground = partial(own_curves, scratch), partial(scratch_curves, scratch)
        for noun in ("J", "utility") if task.judged_on == "J" else ("utility", "J"):
            ends = (-np.inf if noun == "J" else low, high)
            for origin, curves in (("", own), (" from scratch", ground)):
                for length in LENGTHS:
                    label = f"{noun} after {length:,} completions{origin}"
                    rows.append((label, over_seeds(cells, _mean(curves, partial(_at, length, noun)), within=ends)))
                label = f"area under the curve{origin}, {noun}"
                rows.append((label, over_seeds(cells, _mean(curves, partial(_area, noun)), within=ends)))
            rows.append((f"gain of the start, {noun}", over_seeds(cells, partial(_start, scratch, noun))))
            label = f"completions to 95 % of the single-policy result, {noun}"
            rows.append((label, _completions(group, scratch, noun)))
        for length in LENGTHS:
            label = f"regret to the optimum after {length:,} completions"
            rows.append((label, over_seeds(cells, partial(_regret, study, scratch, length), within=(0, np.inf))))
        return [group.row(self.name, label, value) for label, value in rows]


def from_scratch(study: StudyRecords) -> Scratch:
    """Return the curves of one policy from scratch: those of the row `base`, once a task instance."""
    return {
        (each.task, each.seed): _curves(each.measured["adaptation"])
        for each in study.cells
        if each.family == REFERENCE and "adaptation" in each.measured
    }


def own_curves(scratch: Scratch, cell: CellRecord) -> Curves:
    """Return the curve of each preference that a cell was adapted to.

    Raises:
        NoValueError: If there is none.
    """
    if cell.family == REFERENCE:
        return scratch_curves(scratch, cell)  # its cells of all budgets share one table
    if "adaptation" not in cell.measured:
        raise NoValueError(not_measured("adaptation"))
    return _curves(cell.measured["adaptation"])


def scratch_curves(scratch: Scratch, cell: CellRecord) -> Curves:
    """Return the curves of one policy from scratch, on the task and seed of a cell.

    Raises:
        NoValueError: If there are none.
    """
    if (cell.task, cell.seed) not in scratch:
        raise NoValueError(f"{not_measured('adaptation')} of the row 'base', which is training from scratch")
    return scratch[cell.task, cell.seed]


def single_policy_result(scratch: Scratch, cell: CellRecord, noun: str, preference: ArrayLike) -> tuple[float, float]:
    """Return what the base model has, and what one policy has that is trained with the whole budget of a cell.

    Args:
        scratch: See `from_scratch`.
        cell: Says task, seed and budget.
        noun: `J` or `utility`.
        preference: Whose, `[K]`.

    Raises:
        NoValueError: If they are not known.
    """
    wanted = np.asarray(preference, dtype=np.float64)
    for curve in scratch_curves(scratch, cell):
        of = np.asarray(curve[0]["of"])
        if of.shape == wanted.shape and np.abs(of - wanted).max() <= SAME_PREFERENCE:
            try:
                return _at(0, noun, curve), _at(cell.budget_completions, noun, curve)
            except NoValueError as why:
                raise NoValueError(f"has no single-policy result: {why}") from why
    raise NoValueError("has no single-policy result for this preference: other ones were adapted to")


def _curves(table: Mapping[str, Any]) -> Curves:
    return [
        {int(point["asked"]): {**point, "reason": each["reason"], "of": each["preference"]} for point in each["curve"]}
        for each in table["preferences"]
    ]


def _utilities(task: TaskInfo) -> tuple[float, float]:
    """Return the lowest and the highest possible utility of an unseen preference."""
    ranges = utility_ranges(task)[task.unseen]
    return (float(ranges[:, 0].min()), float(ranges[:, 1].max())) if len(ranges) else ANYWHERE


def _at(asked: int, noun: str, curve: Curve) -> float:
    point = curve.get(asked)
    if point is None:
        why = curve[0]["reason"] or "that length was not trained"
        raise NoValueError(f"has no policy after {asked:,} completions ({why})")
    if point[noun] is None:
        raise NoValueError(f"has no {noun} after {asked:,} completions")
    return float(point[noun])


def _line(curve: Curve, noun: str) -> tuple[FloatArray, FloatArray]:
    """Return a curve's points, `log2(1 + completions / 64)` and values."""
    values = [_at(asked, noun, curve) for asked in LENGTHS]
    spent = np.asarray([curve[asked]["completions"] for asked in LENGTHS], dtype=np.float64)
    return np.log2(1 + spent / UNIT), np.asarray(values, dtype=np.float64)


def _area(noun: str, curve: Curve) -> float:
    places, heights = _line(curve, noun)
    return float(np.trapezoid(heights, places) / places[-1])


def _mean(curves: Callable[[CellRecord], Curves], value: Callable[[Curve], float]) -> Value:
    return lambda cell: float(np.mean([value(curve) for curve in curves(cell)]))


def _start(scratch: Scratch, noun: str, cell: CellRecord) -> float:
    start, base = ([_at(0, noun, each) for each in curves(scratch, cell)] for curves in (own_curves, scratch_curves))
    return float(np.mean(start) - np.mean(base))


def _completions(group: Group, scratch: Scratch, noun: str) -> MetricValue:
    """Return the mean over seeds, or none where a finished seed never reaches the target."""
    late = []

    def measure(cell: CellRecord) -> float:
        found = []
        for curve in own_curves(scratch, cell):
            base, single = single_policy_result(scratch, cell, noun, curve[0]["of"])
            if not single > base:
                raise NoValueError(
                    f"has a single-policy result of {single:.3g}, no gain over the base model's {base:.3g}"
                )
            found.append(reached(*_line(curve, noun), base + REACHED * (single - base)))
        if None in found:
            late.append(cell.seed)
            raise NoValueError(f"does not reach it within {LENGTHS[-1]:,} completions")
        return float(np.mean([each for each in found if each is not None]))

    value = over_seeds(group.cells, measure, within=(0, np.inf))
    if not late:
        return value
    others = ", ".join(f"seed {seed}: {made:,.0f}" for seed, made in value.per_seed.items())
    return MetricValue(None, reason=f"{value.reason}{others and f'; the others do ({others})'}")


def reached(places: FloatArray, values: FloatArray, target: float) -> float | None:
    """Return the completions after which a curve first is at a target, on straight lines; None where it never is.

    Args:
        places: `log2(1 + completions / 64)` of its points, rising.
        values: Of its points.
        target: What is to be reached.

    Example:
        >>> reached(np.asarray([0.0, 1.0]), np.asarray([0.0, 1.0]), 1.0)
        64.0
    """
    above = np.flatnonzero(values >= target)
    if not len(above):
        return None
    first = int(above[0])
    if first == 0:
        return 0.0
    (left, right), (low, high) = places[first - 1 : first + 1], values[first - 1 : first + 1]
    place = left + (right - left) * (target - low) / (high - low)
    return float(UNIT * (2.0**place - 1))


def _regret(study: StudyRecords, scratch: Scratch, asked: int, cell: CellRecord) -> float:
    truth = study.truths.get((cell.task, cell.seed))
    if truth is None:
        raise NoValueError("has no known optimum")
    curves = own_curves(scratch, cell)
    return float(np.mean([_optimum(truth, np.asarray(each[0]["of"])) - _at(asked, "J", each) for each in curves]))


def _optimum(truth: TruthRecord, preference: FloatArray) -> float:
    """Return J of the best policy for a preference `[K]`."""
    same = np.flatnonzero(np.abs(truth.preferences - preference).max(axis=1) <= SAME_PREFERENCE)
    if not len(same):
        raise NoValueError("has no known optimum for a preference")
    place = int(same[0])
    wanted = preference if truth.prompt_preferences is None else truth.prompt_preferences[place]
    return float(((wanted * truth.rewards[place]).sum(axis=1) - truth.beta * truth.kl[place]).mean())
