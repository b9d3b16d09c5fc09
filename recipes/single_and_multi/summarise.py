"""Tables and pictures of the study, from the kept outcomes per prompt alone.

    python recipes/single_and_multi/summarise.py docs/results/data/single_and_multi

Of every row, kind of task and budget: captured share (over instances, with its t-interval), the worst preference's
share, share of the possible Chebyshev utility, KL and cost; and differences to `linear` and, for a dynamic method, to
its control, paired by instance.
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

from paretune.pareto.scalarisation import best_chebyshev, chebyshev_utility
from paretune.records.per_prompt import PerPrompt, read_per_prompt
from paretune.statistics.intervals import mean_interval
from paretune.statistics.paired import paired_difference

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Gains:
    """What a row gained on one instance, beside what was possible.

    Attributes:
        gained: `J_w - J_w(base)` for each preference, `[M]`.
        possible: The same of the best policies, `[M]`.
        own: Gain in Chebyshev utility for each preference, `[M]`.
        own_possible: The most that mixtures of the best policies of the eleven preferences gain, `[M]`; on the tuning
            instance 10,000 this is .2 % below what any policy gains, at most.
        kl: Mean over preferences, nats.
        costs: Of the cell.
    """

    gained: FloatArray
    possible: FloatArray
    own: FloatArray
    own_possible: FloatArray
    kl: float
    costs: Mapping[str, float]


def gains(blocks: Sequence[PerPrompt]) -> dict[tuple[str, int, str], dict[int, Gains]]:
    """Return by task, budget and row what was gained on each instance."""
    known = {(each.kind, each.task, each.seed): each for each in blocks if each.kind != "cell"}
    bounds: dict[tuple[str, int], tuple[FloatArray, FloatArray]] = {}
    found: dict[tuple[str, int, str], dict[int, Gains]] = defaultdict(dict)
    for cell in (each for each in blocks if each.kind == "cell"):
        wanted, place = cell.preferences, (cell.task, cell.seed)
        best, base = known["optimum", *place], known["base", *place]
        reference = base.J.mean(axis=0)
        ideal, nadir = np.ones(len(cell.objectives)), np.zeros(len(cell.objectives))
        if place not in bounds:
            start = np.array([chebyshev_utility(reference, row, ideal, nadir) for row in wanted])
            most = np.array([best_chebyshev(best.J, row, ideal, nadir) for row in wanted])
            bounds[place] = start, most - start
        start, own_possible = bounds[place]
        own = np.array([chebyshev_utility(score, row, ideal, nadir) for score, row in zip(cell.J, wanted, strict=True)])
        found[cell.task, cell.budget_completions, cell.method][cell.seed] = Gains(
            (wanted * (cell.J - reference)).sum(axis=1), (wanted * (best.J - reference)).sum(axis=1),
            own - start, own_possible, float(cell.kl.mean()), cell.costs or {},
        )  # fmt: skip
    return found


def share(each: Gains) -> float:
    """Return the captured share of one instance."""
    return float(each.gained.sum() / each.possible.sum())


def rows(found: Mapping[tuple[str, int, str], Mapping[int, Gains]]) -> list[dict[str, object]]:
    """Return one line of the table for each task, budget and row."""
    lines: list[dict[str, object]] = []
    for (task, budget, method), seeds in found.items():
        each = [seeds[seed] for seed in sorted(seeds)]
        captured = mean_interval([share(one) for one in each])
        worst = sum(one.gained for one in each) / sum(one.possible for one in each)
        line: dict[str, object] = {
            "task": task, "budget": budget, "method": method, "instances": len(each),
            "captured_share": captured.mean, "low": captured.low, "high": captured.high,
            "worst_preference_share": float(np.min(worst)),
            "chebyshev_share": sum(one.own.sum() for one in each) / sum(one.own_possible.sum() for one in each),
            "kl": float(np.mean([one.kl for one in each])),
            "completions": float(np.mean([one.costs.get("completions", 0) for one in each])),
            "seconds": float(np.mean([one.costs.get("seconds", 0) for one in each])),
        }  # fmt: skip
        for name, other in (("linear", "linear"), ("control", f"{method}_shuffled")):
            rival = found.get((task, budget, other), {})
            common = sorted(set(rival) & set(seeds))
            if other != method and len(common) > 1:
                gap = paired_difference([share(seeds[s]) for s in common], [share(rival[s]) for s in common])
                line |= {f"minus_{name}": gap.mean, f"minus_{name}_low": gap.low, f"minus_{name}_high": gap.high}
        lines.append(line)
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
    """Read all kept parts below a folder and write `shares.csv` beside them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the kept parts")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("**/per_prompt*.parquet"))
    if not files:
        print(
            f"folder must hold kept parts, got '{arguments.folder}'. Run recipes/keep_part.py first.", file=sys.stderr
        )
        return 2
    found: dict[tuple[str, int, str], dict[int, Gains]] = {}
    for file in files:
        for key, seeds in gains(read_per_prompt(file)).items():
            found.setdefault(key, {}).update(seeds)
    lines = rows(found)
    write(lines, arguments.folder / "shares.csv")
    for line in sorted(
        lines, key=lambda line: (str(line["task"]), str(line["budget"]), -float(str(line["captured_share"])))
    ):
        print(
            f"{line['task']:28} {line['budget']:>6} {line['method']:28} {line['captured_share']:.3f} "
            f"[{line['low']:.3f}, {line['high']:.3f}] worst {line['worst_preference_share']:.3f} "
            f"Chebyshev {line['chebyshev_share']:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
