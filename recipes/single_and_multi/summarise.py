"""Tables and pictures of the study, from the kept outcomes per prompt alone.

    python recipes/single_and_multi/summarise.py docs/results/data/single_and_multi

Where the best policies are known, `shares.csv` has of every row, kind of task and budget: captured share (over
instances, with its t-interval), the worst preference's share, shares of the possible Chebyshev and threshold utility,
the least expected reward of the first objective, KL and cost; elsewhere `utilities.csv` has utility, KL, J, audit and
cost. Both have differences to `linear` and, for a dynamic method, to its control, paired by seed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paretune.pareto.scalarisation import best_chebyshev, best_threshold, chebyshev_utility, threshold_utility
from paretune.records.per_prompt import PerPrompt, read_per_prompt
from paretune.statistics.intervals import mean_interval
from paretune.statistics.paired import paired_difference

FloatArray = NDArray[np.float64]
Key = tuple[str, int, str]  # task, budget, row
Lines = list[dict[str, object]]
IDEAL, NADIR, ENOUGH = np.ones(2), np.zeros(2), np.full(2, 0.5)  # ends and middle of the two controlled rewards' ranges
MORE = ("worst_preference_share", "chebyshev_share", "thresholds_share")  # printed beside the captured share
BEYOND = 0.1  # of a gain above a threshold, the default of `thresholds`


@dataclass(frozen=True)
class Gains:
    """What a row gained on one instance, beside what was possible.

    Attributes:
        gained: `J_w - J_w(base)` for each preference, `[M]`.
        possible: The same of the best policies, `[M]`.
        own: Gain in Chebyshev and in threshold utility for each preference, `[2, M]`.
        own_possible: The most that mixtures of the best policies of the eleven preferences gain, `[2, M]`; on the
            tuning instance 10,000 this is .2 % below what any policy gains of the first, at most.
        first: Expected reward of the first objective, `[M]`.
        kl: Mean over preferences, nats.
        costs: Of the cell.
    """

    gained: FloatArray
    possible: FloatArray
    own: FloatArray
    own_possible: FloatArray
    first: FloatArray
    kl: float
    costs: Mapping[str, float]


def gains(blocks: Sequence[PerPrompt]) -> dict[Key, dict[int, Gains]]:
    """Return what each row gained on each instance, by task, budget and row, where the best policies are known."""
    known = {(each.kind, each.task, each.seed): each for each in blocks if each.kind != "cell"}
    most: dict[tuple[str, int], FloatArray] = {}
    found: dict[Key, dict[int, Gains]] = defaultdict(dict)
    for cell in (each for each in blocks if each.kind == "cell" and ("optimum", each.task, each.seed) in known):
        wanted, place = cell.preferences, (cell.task, cell.seed)
        best, reference = known["optimum", *place].J, known["base", *place].J.mean(axis=0)
        if place not in most:
            most[place] = best_own(best, wanted)
        start = own(np.tile(reference, (len(wanted), 1)), wanted)
        found[cell.task, cell.budget_completions, cell.method][cell.seed] = Gains(
            (wanted * (cell.J - reference)).sum(axis=1), (wanted * (best - reference)).sum(axis=1),
            own(cell.J, wanted) - start, most[place] - start, cell.scores[:, 0], float(cell.kl.mean()),
            cell.costs or {},
        )  # fmt: skip
    return found


def own(scores: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return the Chebyshev and the threshold utility of scores `[M, 2]` for preferences `[M, 2]`, `[2, M]`."""
    pairs = list(zip(scores, wanted, strict=True))
    chebyshev = [float(chebyshev_utility(score, row, IDEAL, NADIR)) for score, row in pairs]
    return np.array([chebyshev, [float(threshold_utility(score, row, ENOUGH, BEYOND)) for score, row in pairs]])


def best_own(front: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return the highest of both that mixtures of points `[N, 2]` of the front have, `[2, M]`."""
    chebyshev = [best_chebyshev(front, row, IDEAL, NADIR) for row in wanted]
    return np.array([chebyshev, [best_threshold(front, row, ENOUGH, BEYOND) for row in wanted]])


def share(each: Gains) -> float:
    """Return the captured share of one instance."""
    return float(each.gained.sum() / each.possible.sum())


def rows(found: Mapping[Key, Mapping[int, Gains]]) -> Lines:
    """Return one line of the table of shares for each task, budget and row."""
    lines: Lines = []
    shares = {key: {seed: share(one) for seed, one in sorted(seeds.items())} for key, seeds in found.items()}
    for key, seeds in found.items():
        each = [seeds[seed] for seed in sorted(seeds)]
        captured = mean_interval(list(shares[key].values()))
        worst = sum(one.gained for one in each) / sum(one.possible for one in each)
        others = sum(one.own.sum(axis=1) for one in each) / sum(one.own_possible.sum(axis=1) for one in each)
        lines.append({
            "task": key[0], "budget": key[1], "method": key[2], "instances": len(each),
            "captured_share": captured.mean, "low": captured.low, "high": captured.high,
            "worst_preference_share": float(np.min(worst)),
            "chebyshev_share": float(others[0]), "thresholds_share": float(others[1]),
            "least_first_reward": float(np.mean([one.first for one in each], axis=0).min()),
            "kl": float(np.mean([one.kl for one in each])), **mean_costs([one.costs for one in each]),
            **differences(key, shares),
        })  # fmt: skip
    return lines


def differences(key: Key, values: Mapping[Key, Mapping[int, float]]) -> dict[str, object]:
    """Return by how much a row is above `linear` and above its control, by seed, where there are two seeds."""
    (task, budget, method), line = key, dict[str, object]()
    for name, other in (("linear", "linear"), ("control", f"{method}_shuffled")):
        rival = values.get((task, budget, other), {})
        common = sorted(set(rival) & set(values[key]))
        if other != method and len(common) > 1:
            gap = paired_difference([values[key][seed] for seed in common], [rival[seed] for seed in common])
            line |= {f"minus_{name}": gap.mean, f"minus_{name}_low": gap.low, f"minus_{name}_high": gap.high}
    return line


def mean_costs(costs: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Return mean completions and seconds."""
    return {name: float(np.mean([each.get(name, 0) for each in costs])) for name in ("completions", "seconds")}


def utility_rows(blocks: Sequence[PerPrompt]) -> Lines:
    """Return one line for each task, budget and row where the best policies are not known."""
    listed = {each.task for each in blocks if each.kind == "optimum"}
    found: dict[Key, dict[int, PerPrompt]] = defaultdict(dict)
    for cell in (each for each in blocks if each.kind == "cell" and each.task not in listed):
        found[cell.task, cell.budget_completions, cell.method][cell.seed] = cell
    values = {
        key: {seed: float(cell.utilities.mean()) for seed, cell in sorted(cells.items())}
        for key, cells in found.items()
    }
    lines: Lines = []
    for key, cells in found.items():
        each, utility = list(cells.values()), mean_interval(list(values[key].values()))
        audit = np.mean([np.nanmean(cell.audit_rewards, axis=(0, 1)) for cell in each], axis=0)
        lines.append({
            "task": key[0], "budget": key[1], "method": key[2], "seeds": len(each),
            "utility": utility.mean, "low": utility.low, "high": utility.high,
            "worst_preference_utility": float(np.mean([cell.utilities for cell in each], axis=0).min()),
            "kl": float(np.mean([cell.kl.mean() for cell in each])),
            "J": float(np.mean([(cell.utilities - cell.beta * cell.kl.mean(axis=1)).mean() for cell in each])),
            **{f"audit_{name}": float(value) for name, value in zip(each[0].audit, audit, strict=True)},
            **mean_costs([cell.costs or {} for cell in each]), **differences(key, values),
        })  # fmt: skip
    return lines


def write(lines: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write lines as comma-separated values, numbers to four decimals."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({n: f"{v:.4f}" if isinstance(v, float) else v for n, v in line.items()})


def main() -> int:
    """Read all kept parts below a folder and write the tables beside them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the kept parts")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("**/per_prompt*.parquet"))
    if not files:
        print(
            f"folder must hold kept parts, got '{arguments.folder}'. Run recipes/keep_part.py first.", file=sys.stderr
        )
        return 2
    blocks = [block for file in files for block in read_per_prompt(file)]
    for name, lines in (("shares", rows(gains(blocks))), ("utilities", utility_rows(blocks))):
        if not lines:
            continue
        write(lines, arguments.folder / f"{name}.csv")
        score, *more = ("captured_share", *MORE) if name == "shares" else ("utility",)
        lines.sort(key=lambda line: (str(line["task"]), int(str(line["budget"])), -float(str(line[score]))))
        for line in lines:
            said = f"{line['task']:28} {line['budget']:>6} {line['method']:28} {line[score]:.3f}"
            print(said, f"[{line['low']:.3f}, {line['high']:.3f}]", *(f"{each} {line[each]:.3f}" for each in more))
    return 0


if __name__ == "__main__":
    sys.exit(main())
