"""Regret: what users lose against the best policy there is, or against the best that anybody has found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import CEILING, FAMILIES, MetricRow
from paretune.metrics.by_preference import Figures, mean_of, none_because, worst_of
from paretune.metrics.exact import ExactScores, exact_scores
from paretune.metrics.judged import above_base, achieved, less_price, price_of_kl, utility_ranges
from paretune.metrics.seeds import Group, joined, span
from paretune.records.evaluation import utility
from paretune.records.study import StudyRecords, TaskInfo

FloatArray = NDArray[np.float64]
NOTHING = 1e-9  # of the largest possible gain: a preference with less has nothing to gain but rounding
ROUNDING = 1e-12  # of a value
LOWER = "(lower is better)"


class Known(NamedTuple):
    """The best that the policies of a study reach on one task instance at one budget.

    Attributes:
        best: What it is worth for each preference of the task, `[M]`; -inf where nothing is known.
        methods: How many methods have policies among them; base model and ceilings are none.
    """

    best: FloatArray
    methods: int


class BestKnown:
    """What the best known policy is worth for each preference, found once for all methods of a study.

    Known are the policies that answer any preference of the task, of any method with the same seed and budget, and the
    base model; not those of a ceiling, which is no method. They are valued by what the task is judged on, utility or J.
    Where what users want depends on the prompt, only those that answer the preference itself: others are not valued for
    it.
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
            each
            for each in self.study.cells
            if (each.task, each.budget_completions, each.seed, each.state) == wanted and each.family != CEILING
        ]
        base = [self.study.base_utility(name, seed, preference) for preference in task.preferences]
        rows = [np.array(base)]  # its KL is 0
        if task.contextual:
            rows += [achieved(self.study, cell).values for cell in cells]
        elif (price := price_of_kl(self.study, task, seed, task.judged_on)) is not None:
            records = [each for cell in cells for each in map(cell.evaluation, task.preferences) if each is not None]
            kl = np.array([each.kl for each in records])
            scores = np.array([each.scores for each in records]).reshape(len(records), task.preferences.shape[1])
            rows += list(np.stack([less_price(utility(scores, each), kl, price) for each in task.preferences], axis=1))
        known = np.stack(rows)
        methods = len({cell.method for cell in cells if cell.family in FAMILIES})
        return Known(np.where(np.isnan(known), -np.inf, known).max(axis=0), methods)


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
        worst = worst_of(group, shares, note=joined("captured share", _possible(exact, task)), within=(-np.inf, 1))
        regrets = {seed: _to_optimum(each, task) for seed, each in exact.items()}
        title, note = "regret to the optimum", "in J"
    else:
        reached = {cell.seed: achieved(study, cell) for cell in done}
        gains = {cell.seed: above_base(study, cell, reached[cell.seed]) for cell in done}
        width = float(np.ptp(utility_ranges(task), axis=1).max())
        ends = (-np.inf if task.judged_on == "J" else -width, width)
        worst = worst_of(group, gains, note=f"gain in {task.judged_on} over the base model", within=ends)
        best = {cell.seed: known.of(task, group.budget_completions, cell.seed) for cell in done}
        regrets = {seed: _to_known(each, best[seed]) for seed, each in reached.items()}
        title, note = "regret to the best known", f"in {task.judged_on}; {_known_from(best)}" if best else ""
    yield group.row(metric, "worst preference", worst)
    found = {"all": mean_of(group, regrets, note=note, within=(0, np.inf))}
    found["worst"] = worst_of(group, regrets, highest=True, note=note, within=(0, np.inf))
    for part, value in found.items():
        yield group.row(metric, f"{title}: {part} {LOWER}", value)


def _to_known(own: Figures, best: Known) -> Figures:
    lost = best.best - own.values
    rounding = ROUNDING * np.abs(own.values)  # a method's own policies are among the known, summed in another order
    return Figures(np.where(np.abs(lost) <= rounding, 0.0, lost), own.reasons)


def _known_from(best: dict[int, Known]) -> str:
    counts = sorted({each.methods for each in best.values()})
    methods = f"{span(counts)} method{'s' * (counts[-1] > 1)}"
    return f"the best known of {methods} of the study and the base model"


def _to_optimum(scored: ExactScores | str, task: TaskInfo) -> Figures:
    if isinstance(scored, str):
        return none_because(task, scored)
    gained, possible = scored.gains(task.preferences, np.ones(len(task.preferences), dtype=np.bool_))
    return Figures(possible - gained, ("",) * len(possible))


def _shares(scored: ExactScores | str, task: TaskInfo) -> Figures:
    if isinstance(scored, str):
        return none_because(task, scored)
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
