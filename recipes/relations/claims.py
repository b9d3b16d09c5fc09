"""What a study says of five claims of the paper: each supported, refuted or open, with the figures that decide.

    python recipes/relations/claims.py results/relations docs/results/data/relations
    python recipes/relations/claims.py part_1 part_2 ... docs/results/data/relations   # parts, then where to write

Writes `claims.csv` (a line for each comparison: gains over the base model as shares of the best method's on the task,
paired by seed, with a 95 % interval, and p-values corrected after Holm over all comparisons of a claim) and prints a
verdict a claim. The rules were written down before the study was run:

- *averaging*: averaged experts (`rewarded_soups`) do as well as one policy a preference (`weight_grid`) where
  objectives agree, and worse where they compete. Supported if they are nowhere below at a correlation above 0, and
  below at every correlation under 0; refuted if they are below somewhere above 0, or within .05 or above wherever
  objectives compete.
- *level*: mixing hidden states beats mixing logits (`hidden_mixing` less `mod`). Supported if above on some task and
  below on none, refuted if below on some task and above on none.
- *linear*: scores are no linear function of the weights trained with. For `linear`, the score of each objective with
  equal weights less the mean over policies for one objective alone, as a share of how far these lie apart. Supported
  if some interval leaves 0 out, refuted if all lie within .05 of 0.
- *dynamic*: dynamic weights promise no gain over fixed ones (`dynaopt` less `linear`). Supported if on some task they
  are below or gain less than .05, refuted if above on every task.
- *meta*: every meta-policy stays behind one policy a preference (each less `weight_grid`). Supported if each is below
  on some task and above on none; refuted if one is above somewhere and below nowhere.

"Below" and "above" say that the corrected p-value is under .05; "within .05" and "less than .05" are of the interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.core.errors import ParetuneError, RecordError
from paretune.core.preferences import FloatArray, centre, corners
from paretune.core.protocols import FAMILIES
from paretune.metrics.judged import gain
from paretune.metrics.seeds import groups
from paretune.records.merging import merged
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords
from paretune.statistics.intervals import Interval, mean_interval
from paretune.statistics.paired import paired_p_value
from paretune.statistics.ties import holm_adjusted

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

LEVEL = 0.05
SMALL = 0.05  # of the best method's gain, or of the distance between scores: what no user would notice
SOUPS, ONE_A_PREFERENCE = "rewarded_soups", "weight_grid"
SUPPORTED, REFUTED, OPEN = "supported", "refuted", "open"
BySeed = Mapping[int, float]
Gains = Mapping[tuple[str, str], BySeed]  # of a task and a method


@dataclass(frozen=True)
class Comparison:
    """One number that speaks for or against a claim.

    Attributes:
        claim: Its name.
        task: The task.
        what: What is compared.
        correlation: Mean correlation of the task's objectives, NaN where it was not measured.
        found: The mean over seeds with its interval.
        p_value: Of a mean of 0, corrected over the comparisons of the claim; None with one seed.
    """

    claim: str
    task: str
    what: str
    correlation: float
    found: Interval
    p_value: float | None

    @property
    def sign(self) -> int:
        """1 or -1 where it can be told apart from 0, else 0."""
        clear = self.p_value is not None and self.p_value < LEVEL
        return int(np.sign(self.found.mean)) if clear else 0

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; everything where there is none."""
        low, high = self.found.low, self.found.high
        return (-np.inf if low is None else low), (np.inf if high is None else high)

    def line(self) -> dict[str, object]:
        """Return a line of the table."""
        return {
            "claim": self.claim, "task": self.task, "what": self.what,
            "correlation": None if np.isnan(self.correlation) else self.correlation,
            "mean": self.found.mean, "low": self.found.low, "high": self.found.high, "seeds": self.found.count,
            "p_value": self.p_value,
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="the study's folder, or those of its parts")
    parser.add_argument("output", type=Path, help="where claims.csv goes")
    given = parser.parse_args(arguments)
    try:
        found = compare(merged([read_study(folder) for folder in given.folders]))
    except ParetuneError as error:
        print(f"claims: {error}", file=sys.stderr)
        return 2
    write_lines([each.line() for each in found], given.output / "claims.csv")
    for claim in dict.fromkeys(each.claim for each in found):
        own = [each for each in found if each.claim == claim]
        print(f"{claim}: {RULES[claim](own)} ({len(own)} comparisons)")
    return 0


def compare(study: StudyRecords) -> list[Comparison]:
    """Return the comparisons of all claims that the study has the methods for, p-values corrected claim by claim.

    Raises:
        RecordError: If it has several budgets.
    """
    budgets = sorted({each.budget_completions for each in study.cells})
    if len(budgets) > 1:
        raise RecordError(f"study must have one budget, got {', '.join(map(str, budgets))}. Name a study of one.")
    gains = relative_gains(study)
    tasks = list(dict.fromkeys(task for task, _ in gains))
    meta = [each.method for each in groups(study) if next(iter(each.cells)).family == "meta-policy"]
    pairs = [
        ("averaging", SOUPS, ONE_A_PREFERENCE), ("level", "hidden_mixing", "mod"), ("dynamic", "dynaopt", "linear"),
        *(("meta", method, ONE_A_PREFERENCE) for method in dict.fromkeys(meta)),
    ]  # fmt: skip
    values = [
        (claim, task, f"{first} less {second}", _less(gains[task, first], gains[task, second]))
        for claim, first, second in pairs
        for task in tasks
        if (task, first) in gains and (task, second) in gains
    ]
    values += [("linear", task, what, by_seed) for task in tasks for what, by_seed in bends(study, task)]
    found = []
    for claim in dict.fromkeys(claim for claim, *_ in values):
        own = [(task, what, list(by_seed.values())) for name, task, what, by_seed in values if name == claim]
        p_values = [paired_p_value(each, np.zeros(len(each))) for *_, each in own]
        known = iter(holm_adjusted([each for each in p_values if each is not None]).tolist())
        found += [
            Comparison(
                claim, task, what, correlation(study, task), mean_interval(each),
                None if p_value is None else next(known),
            )
            for (task, what, each), p_value in zip(own, p_values, strict=True)
        ]  # fmt: skip
    return found


def relative_gains(study: StudyRecords) -> dict[tuple[str, str], BySeed]:
    """Return gains over the base model as shares of the best method's mean gain on the task; empty without a gain."""
    gains: dict[tuple[str, str], dict[int, float]] = {}
    for group in groups(study):
        measure = gain(study, group.task)
        if next(iter(group.cells)).family in FAMILIES:
            made = {seed: _mean(measure(cell)) for seed, cell in group.done.items()}
            gains[group.task.name, group.method] = {seed: each for seed, each in made.items() if np.isfinite(each)}
    best: dict[str, float] = {}
    for (task, _), by_seed in gains.items():
        if by_seed:
            best[task] = max(best.get(task, 0.0), float(np.mean(list(by_seed.values()))))
    return {
        (task, method): {seed: each / best[task] for seed, each in by_seed.items()}
        for (task, method), by_seed in gains.items()
        if by_seed and best[task] > 0
    }


def _mean(value: float | FloatArray | str) -> float:
    return np.nan if isinstance(value, str) else float(np.mean(value))


def _less(first: BySeed, second: BySeed) -> BySeed:
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def bends(study: StudyRecords, task: str, method: str = "linear") -> Iterator[tuple[str, BySeed]]:
    """Yield, for each objective, how far equal weights are from the mean over corners, by seed.

    As a share of the distance between the policy for the objective alone and the mean of those for the others alone.
    """
    objectives = study.tasks[task].trained
    cells = [each for each in study.cells if (each.task, each.method, each.state) == (task, method, "done")]
    scores = {cell.seed: made for cell in cells if (made := _scores(cell, len(objectives))) is not None}
    for k, objective in enumerate(objectives):
        by_seed = {}
        for seed, (even, alone) in scores.items():
            reach = alone[k, k] - np.delete(alone[:, k], k).mean()
            if reach > 0:
                by_seed[seed] = float((even[k] - alone[:, k].mean()) / reach)
        if by_seed:
            yield f"{method}: {objective.name} with equal weights less the mean over corners", by_seed


def _scores(cell: CellRecord, objectives: int) -> tuple[FloatArray, FloatArray] | None:
    """Return the scores for equal weights `[K]` and for the corners `[K, K]`; None where one was not evaluated."""
    found = [cell.evaluation(point) for point in (centre(objectives), *corners(objectives))]
    known = [each.scores for each in found if each is not None]
    return (known[0], np.stack(known[1:])) if len(known) == 1 + objectives else None


def correlation(study: StudyRecords, task: str) -> float:
    """Return the mean correlation of every two objectives' rewards, of the first seed where it was measured."""
    found = [table for (name, _), table in sorted(study.relations.items()) if name == task]
    if not found:
        return float("nan")
    values = np.array(found[0]["rewards"]["values"], float)  # None becomes NaN
    return float(np.nanmean(values[np.triu_indices(len(values), 1)]))


def averaging(found: Sequence[Comparison]) -> str:
    """Judge the claim on averaging."""
    agreeing = [each.sign for each in found if each.correlation > 0]
    competing = [each for each in found if each.correlation < 0]
    if -1 in agreeing or (competing and all(each.ends[0] > -SMALL for each in competing)):
        return REFUTED
    return SUPPORTED if agreeing and competing and all(each.sign == -1 for each in competing) else OPEN


def level(found: Sequence[Comparison]) -> str:
    """Judge the claim on hidden states and logits."""
    signs = {each.sign for each in found}
    return SUPPORTED if 1 in signs and -1 not in signs else REFUTED if -1 in signs and 1 not in signs else OPEN


def linear(found: Sequence[Comparison]) -> str:
    """Judge the claim on weights and scores."""
    if any(each.sign for each in found):
        return SUPPORTED
    return REFUTED if all(each.ends[0] > -SMALL and each.ends[1] < SMALL for each in found) else OPEN


def dynamic(found: Sequence[Comparison]) -> str:
    """Judge the claim on dynamic weights."""
    if any(each.sign == -1 or each.ends[1] < SMALL for each in found):
        return SUPPORTED
    return REFUTED if all(each.sign == 1 for each in found) else OPEN


def meta(found: Sequence[Comparison]) -> str:
    """Judge the claim on meta-policies."""
    by_method: dict[str, set[int]] = {}
    for each in found:
        by_method.setdefault(each.what, set()).add(each.sign)
    if any(1 in signs and -1 not in signs for signs in by_method.values()):
        return REFUTED
    return SUPPORTED if all(-1 in signs and 1 not in signs for signs in by_method.values()) else OPEN


RULES = {"averaging": averaging, "level": level, "linear": linear, "dynamic": dynamic, "meta": meta}

if __name__ == "__main__":
    sys.exit(main())
