"""Regret: what users lose against the best policy there is, or against the best that anybody has found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.by_preference import Figures, figures, mean_of, without, worst_of
from paretune.metrics.exact import ExactScores, exact_scores
from paretune.metrics.seeds import Group, joined, objectives_wanted, span
from paretune.records.evaluation import EvaluationRecord, utility
from paretune.records.study import CellRecord, StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
NOTHING = 1e-9  # of the largest possible gain: a preference with less has nothing to gain but rounding
LOWER = "(lower is better)"


class Known(NamedTuple):
    """The best that the policies of a study reach on one task instance at one budget.

    Attributes:
        worth: For each preference of the task, `[M]`; -inf where nothing is known.
        methods: How many methods have policies among them.
    """

    worth: FloatArray
    methods: int


class BestKnown:
    """What the best known policy is worth for each preference, found once for all methods of a study.

    Known are the policies that answer any preference of the task, of any method with the same seed and budget, and the
    base model. Worth is what the task is judged on, utility or J. Where what users want depends on the prompt, only
    those that answer the preference itself: others are not valued for it.
    """

    def __init__(self, study: StudyRecords) -> None:
        self.study = study
        self._found: dict[tuple[str, int, int], Known] = {}

    def of(self, task: TaskInfo, budget: int, seed: int) -> Known:
        """Return what is known of a task instance at a budget."""
        key = (task.name, budget, seed)
        if key not in self._found:
            self._found[key] = self._search(*key)
        return self._found[key]

    def _search(self, name: str, budget: int, seed: int) -> Known:
        task = self.study.tasks[name]
        wanted = (name, budget, seed, "done")
        cells = [
            each for each in self.study.cells if (each.task, each.budget_completions, each.seed, each.state) == wanted
        ]
        base = [self.study.base_utility(name, seed, preference) for preference in task.preferences]
        rows = [np.array(base)]  # its KL is 0
        if task.contextual:
            rows += [worth(self.study, cell, task).values for cell in cells]
        else:
            records = [each for cell in cells for each in map(cell.evaluation, task.preferences) if each is not None]
            paid = (_price(self.study, task, seed) or 0.0) * np.array([each.kl for each in records])
            scores = np.array([each.scores for each in records]).reshape(len(records), task.preferences.shape[1])
            rows += list(np.stack([utility(scores, preference) - paid for preference in task.preferences], axis=1))
        known = np.stack(rows)
        return Known(np.where(np.isnan(known), -np.inf, known).max(axis=0), len({cell.method for cell in cells}))


def regret_rows(metric: str, group: Group, study: StudyRecords, known: BestKnown) -> Iterator[MetricRow]:
    """Yield how the user of the worst preference fares, and what users lose on average and at the worst.

    By label: `worst preference`, where completions can be listed the lowest captured share of any preference, elsewhere
    the lowest difference to the base model in what the task is judged on; `regret to the optimum: ...`, in J, where
    completions can be listed, elsewhere `regret to the best known: ...`, in what the task is judged on; each `all`, the
    mean over preferences, and `worst`, the highest.
    """
    task, done = group.task, group.done.values()
    if task.listed:
        exact = {cell.seed: exact_scores(study, cell, task) for cell in done}
        shares = {seed: _shares(each, task) for seed, each in exact.items()}
        worst = worst_of(group, shares, note=joined("captured share", _possible(exact, task)))
        regrets = {seed: _to_optimum(each, task) for seed, each in exact.items()}
        title, note = "regret to the optimum", "in J"
    else:
        reached = {cell.seed: worth(study, cell, task) for cell in done}
        gains = {cell.seed: above_base(study, cell, reached[cell.seed]) for cell in done}
        worst = worst_of(group, gains, note=f"gain in {task.judged_on} over the base model")
        best = {cell.seed: known.of(task, group.budget_completions, cell.seed) for cell in done}
        regrets = {seed: _to_known(each, best[seed]) for seed, each in reached.items()}
        title, note = "regret to the best known", f"in {task.judged_on}; {_known_from(best)}" if best else ""
    yield group.row(metric, "worst preference", worst)
    found = {"all": mean_of(group, regrets, note=note, within=(0, np.inf))}
    found["worst"] = worst_of(group, regrets, highest=True, note=note, within=(0, np.inf))
    for part, value in found.items():
        yield group.row(metric, f"{title}: {part} {LOWER}", value)


def above_base(study: StudyRecords, cell: CellRecord, reached: Figures) -> Figures:
    """Return by how much utility or J of the policies of a finished cell exceed the base model's, whose KL is 0."""
    task = study.tasks[cell.task]
    if (cell.task, cell.seed) not in study.references:
        return without(task, "has no evaluation of the base model")
    base = np.array([study.base_utility(cell.task, cell.seed, preference) for preference in task.preferences])
    lacking = ["has an objective without any reward of the base model" * bool(each) for each in np.isnan(base)]
    reasons = (reason or other for reason, other in zip(reached.reasons, lacking, strict=True))
    return Figures(reached.values - base, tuple(reasons))


def achieved_utility(cell: CellRecord, task: TaskInfo) -> Figures:
    """Return the utility that a finished cell achieves for each preference."""
    return figures(cell, task, _utility)


def worth(study: StudyRecords, cell: CellRecord, task: TaskInfo) -> Figures:
    """Return what the task is judged on, of the policy of a finished cell that answers each preference."""
    price = _price(study, task, cell.seed)
    if price is None:
        return without(task, "has no record of its task instance's beta")

    def figure(record: EvaluationRecord, preference: FloatArray) -> float | str:
        achieved = _utility(record, preference)
        if isinstance(achieved, str) or not price:
            return achieved
        return achieved - price * record.kl if np.isfinite(record.kl) else "KL"

    return figures(cell, task, figure)


def _utility(record: EvaluationRecord, preference: FloatArray) -> float | str:
    wanted = objectives_wanted(record, preference)
    lost = np.flatnonzero(wanted & np.isnan(record.scores))
    return f"{record.objectives[lost[0]]} reward" if len(lost) else record.utility(preference)


def _price(study: StudyRecords, task: TaskInfo, seed: int) -> float | None:
    """Return what a nat of KL costs in what the task is judged on."""
    return study.beta(task.name, seed) if task.judged_on == "J" else 0.0


def _to_known(own: Figures, best: Known) -> Figures:
    lost = best.worth - own.values
    return Figures(np.maximum(lost, 0.0), own.reasons)  # below 0 by rounding only: it is among the known


def _known_from(best: dict[int, Known]) -> str:
    counts = sorted({each.methods for each in best.values()})
    methods = f"{span(counts)} method{'s' * (counts[-1] > 1)}"
    return f"the best known of {methods} of the study and the base model"


def _to_optimum(scored: ExactScores | str, task: TaskInfo) -> Figures:
    if isinstance(scored, str):
        return without(task, scored)
    gained, possible = scored.gains(task.preferences, np.ones(len(task.preferences), dtype=np.bool_))
    return Figures(possible - gained, ("",) * len(possible))


def _shares(scored: ExactScores | str, task: TaskInfo) -> Figures:
    if isinstance(scored, str):
        return without(task, scored)
    gained, possible = scored.gains(task.preferences, np.ones(len(task.preferences), dtype=np.bool_))
    some = possible > NOTHING * max(possible.max(), 0.0)
    shares = np.divide(gained, possible, out=np.full(possible.shape, np.nan), where=some)
    return Figures(shares, ("",) * len(possible))


def _possible(exact: dict[int, ExactScores | str], task: TaskInfo) -> str:
    """Say how much there is to gain at the worst preference, which a share alone does not tell."""
    found = []
    for scored in exact.values():
        place = _shares(scored, task).worst()
        if not isinstance(scored, str) and not isinstance(place, str):
            found.append(scored.gains(task.preferences, np.eye(len(task.preferences), dtype=np.bool_)[place])[1][0])
    return f"possible gain there {np.mean(found):.3g} in J" if found else ""
