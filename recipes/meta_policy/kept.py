"""How much of what one policy per preference gains each row keeps, from the kept outcomes per prompt alone.

    python recipes/meta_policy/kept.py docs/results/data/meta_policy/two --against linear_slower

Writes `kept.csv` into the folder. For each task, budget and row: captured share, with its t-interval over instances;
the worst weight's share, a ratio of sums over instances; and the *kept gain*, the sum over instances and weights of
`J - J(base)` over that of the row it is held against, with the interval of a ratio of means, over the instances of both
(`kept_instances`). All of that over the weights of the grid; of weights that no method was given, beside it, how far
their shares are from the straight line between those of their neighbours on the grid, at most (two objectives only).

Writes `paired.csv` too: captured share of one row, `--row`, less that of every other at the same budget.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from paretune.core.errors import ParetuneError, RecordError
from paretune.core.preferences import das_dennis
from paretune.optimum.exact import Outcome, prompt_gains
from paretune.records.per_prompt import PerPrompt, read_per_prompt
from paretune.statistics.intervals import mean_interval
from paretune.statistics.paired import paired_difference, paired_p_value

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import text, write_lines  # type: ignore[import-not-found]  # one folder up

SAME = 0.02  # of captured share, between trainings of one row by code that rounds otherwise
FloatArray = NDArray[np.float64]
Key = tuple[str, int, str]  # task, budget, row


@dataclass(frozen=True)
class Gains:
    """What a row gained on one instance beside what was possible, for each weight `[M]`, all of them `[M, K]`."""

    gained: FloatArray
    possible: FloatArray
    costs: Mapping[str, float]
    preferences: FloatArray


def gains(blocks: Sequence[PerPrompt]) -> dict[Key, dict[int, Gains]]:
    """Return what each row gained on each instance, by task, budget and row.

    Of a row that several parts have, as they do the standing ones, the first stays.

    Raises:
        RecordError: If the best policies of a task are not known, or two parts have a row of one name that differs.
    """
    known = {(each.kind, each.task, each.seed): each for each in blocks if each.kind != "cell"}
    found: dict[Key, dict[int, Gains]] = defaultdict(dict)
    for cell in (each for each in blocks if each.kind == "cell"):
        if ("optimum", cell.task, cell.seed) not in known:
            raise RecordError(
                f"kept parts must be of tasks whose best policies are known, got '{cell.task}'. For others there is "
                "recipes/single_and_multi/summarise.py."
            )
        base, best = (known[kind, cell.task, cell.seed] for kind in ("base", "optimum"))
        wanted = cell.prompt_preferences  # [M, P, K], where the preference depends on the prompt
        if wanted is None:
            gained, possible = ((of.J - base.J) * cell.preferences for of in (cell, best))
        else:
            gained, possible = (
                prompt_gains(Outcome(of.rewards, of.kl), base.rewards[0], wanted, cell.beta)[:, None]
                for of in (cell, best)
            )
        row = found[cell.task, cell.budget_completions, cell.method]
        made = Gains(gained.sum(axis=1), possible.sum(axis=1), cell.costs or {}, cell.preferences)
        check_same_row(row.setdefault(cell.seed, made), made, f"'{cell.method}' of {cell.task}, instance {cell.seed},")
    return found


def check_same_row(one: Gains, other: Gains, name: str) -> None:
    """Check that two parts have the same row, up to how their code rounds; what is unknown in both is the same.

    Raises:
        RecordError: If they do not.
    """
    asked = [each.preferences.round(6).tolist() for each in (one, other)]
    if asked[0] != asked[1]:
        raise RecordError(
            f"rows of one name must be the same row, got {name} for {len(asked[0])} and {len(asked[1])} preferences in "
            "two parts, not the same ones. Keep one of them, or read them apart."
        )
    first, second = (shares({0: each})[0] for each in (one, other))
    if not (abs(first - second) <= SAME or (np.isnan(first) and np.isnan(second))):
        raise RecordError(
            f"rows of one name must be the same row, got {name} with {first:.3f} and {second:.3f} of the possible in "
            "two parts. Keep one of them, or read them apart."
        )


def read_gains(folder: Path) -> dict[Key, dict[int, Gains]]:
    """Return the gains of all kept parts below a folder.

    Raises:
        RecordError: If there is none.
    """
    files = sorted(folder.glob("**/per_prompt.parquet"))
    if not files:
        raise RecordError(f"folder must hold kept parts, got '{folder}'. Run recipes/keep_part.py first.")
    return gains([block for file in files for block in read_per_prompt(file)])


def ratio_interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of two sums over pairs, and its 95 % interval by the spread of what it leaves unexplained.

    Example:
        >>> [round(each, 3) for each in ratio_interval([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])]
        [0.5, 0.5, 0.5]
    """
    one, other = np.asarray(values), np.asarray(others)
    ratio, count = float(one.sum() / other.sum()), len(one)
    if count < 2:
        return ratio, float("nan"), float("nan")
    left = (one - ratio * other) / other.mean()
    half = float(stats.t.ppf(0.975, count - 1) * left.std(ddof=1) / np.sqrt(count))
    return ratio, ratio - half, ratio + half


def on_grid(preferences: FloatArray) -> NDArray[np.bool_]:
    """Return which preferences `[M, K]` are of the finest regular grid that is there as a whole, `[M]`.

    Example:
        >>> on_grid(np.asarray([[0.0, 1.0], [0.5, 0.5], [0.3, 0.7], [1.0, 0.0]])).tolist()
        [True, True, False, True]
    """
    count, objectives = preferences.shape
    fine = max(each for each in range(1, count) if math.comb(each + objectives - 1, each) <= count)
    for divisions in range(fine, 0, -1):
        grid = das_dennis(objectives, divisions)
        same = np.all(np.isclose(preferences[:, None], grid[None]), axis=2)  # [M, grid]
        if np.all(np.any(same, axis=0)):
            return np.asarray(np.any(same, axis=1))
    return np.zeros(count, dtype=np.bool_)


def of_grid(gains: Gains, grid: bool) -> Gains:
    """Return what was gained for the weights of the grid alone, or for the others."""
    rows = on_grid(gains.preferences) == grid
    return Gains(gains.gained[rows], gains.possible[rows], gains.costs, gains.preferences[rows])


def off_the_line(instances: Sequence[Gains]) -> float:
    """Return how far shares of weights off the grid are from the line between their neighbours' on it, at most.

    Shares are ratios of sums over instances; two objectives. NaN where there is no weight off the grid.
    """
    places, shares = [], []
    for grid in (True, False):
        each = [of_grid(one, grid) for one in instances]
        order = np.argsort(each[0].preferences[:, 0])
        places.append(each[0].preferences[order, 0])
        gained, possible = (np.sum([getattr(one, name) for one in each], axis=0) for name in ("gained", "possible"))
        shares.append((gained / possible)[order])
    if not len(places[1]) or instances[0].preferences.shape[1] != 2:
        return float("nan")
    return float(np.abs(shares[1] - np.interp(places[1], places[0], shares[0])).max())


def shares(seeds: Mapping[int, Gains]) -> list[float]:
    """Return the captured share of each instance, over the weights of the grid."""
    each = [of_grid(seeds[seed], True) for seed in sorted(seeds)]
    return [float(one.gained.sum() / one.possible.sum()) for one in each]


def lines_of(found: Mapping[Key, Mapping[int, Gains]], against: str, budget: int) -> list[dict[str, object]]:
    """Return one line for each task, budget and row."""
    lines: list[dict[str, object]] = []
    for (task, own, method), seeds in sorted(found.items()):
        whole = [seeds[seed] for seed in sorted(seeds)]
        each = [of_grid(one, True) for one in whole]
        share = mean_interval(shares(seeds))
        worst = sum(one.gained for one in each) / sum(one.possible for one in each)
        line: dict[str, object] = {
            "task": task, "budget": own, "method": method, "instances": len(each), "captured_share": share.mean,
            "low": share.low, "high": share.high, "worst_weight_share": float(np.min(worst)),
            "seconds": float(np.mean([one.costs.get("seconds", np.nan) for one in each])),
        }  # fmt: skip
        line["unseen_off"] = off_the_line(whole)
        rival = found.get((task, budget, against), {})
        common = sorted(set(rival) & set(seeds))
        if common:
            kept = ratio_interval(
                *([float(of_grid(row[seed], True).gained.sum()) for seed in common] for row in (seeds, rival))
            )
            line |= dict(zip(("kept", "kept_low", "kept_high"), kept, strict=True)) | {"kept_instances": len(common)}
        lines.append(line)
    return lines


def pairs_of(found: Mapping[Key, Mapping[int, Gains]], row: str) -> list[dict[str, object]]:
    """Return one line for each task, budget and other row: how much more share the one row has, paired by instance."""
    lines: list[dict[str, object]] = []
    for (task, budget, method), seeds in sorted(found.items()):
        own = found.get((task, budget, row), {})
        common = sorted(set(own) & set(seeds))
        if method == row or not common:
            continue
        one, other = (shares({seed: of[seed] for seed in common}) for of in (own, seeds))
        apart, chance = paired_difference(one, other), paired_p_value(one, other)
        lines.append(
            {
                "task": task, "budget": budget, "row": row, "rival": method, "instances": len(common),
                "difference": apart.mean, "low": apart.low, "high": apart.high, "p": chance,
            }
        )  # fmt: skip
    return lines


def main() -> int:
    """Read all kept parts below a folder, write the tables and print them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the kept parts, or of a study's report")
    parser.add_argument("--against", default="linear_slower", help="row that gains are held against")
    parser.add_argument("--budget", type=int, default=45056, help="budget of that row in completions")
    parser.add_argument("--row", default="mixture_of_experts", help="row that all others are held against, in pairs")
    arguments = parser.parse_args()
    try:
        found = read_gains(arguments.folder)
    except ParetuneError as error:
        print(f"kept: {error}", file=sys.stderr)
        return 2
    lines = lines_of(found, arguments.against, arguments.budget)
    pairs = pairs_of(found, arguments.row)
    write_lines(lines, arguments.folder / "kept.csv")
    write_lines(pairs, arguments.folder / "paired.csv")
    for line in (*lines, *pairs):
        print(*(text(value) if isinstance(value, float) else f"{text(value):<24}" for value in line.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
