"""Table and figure of the ladder, from the files that `ladder.py` left.

    python recipes/meta_policy/draw_ladder.py docs/results/data/meta_policy/ladder docs/results

Writes `rungs.csv` (captured share of every rung: a ratio of sums over instances and preferences) and `split.csv` (the
gap to the best policy, split over what closes it: signed steps that add up to it) beside the files, and
`meta_policy_ladder.png` into the other folder.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

RUNGS = {  # in the order of bars: what it is called, colour
    "preference": ("g = w", "#444444"),
    "fixed_simplex_train": ("fixed, simplex, training prompts", "#9ecae1"),
    "fixed_free_train": ("fixed, free, training prompts", "#3182bd"),
    "fixed_simplex_test": ("fixed, simplex, test prompts", "#a1d99b"),
    "fixed_free_test": ("fixed, free, test prompts", "#31a354"),
    "prompt_simplex_test": ("each prompt, simplex", "#fdae6b"),
    "prompt_free_test": ("each prompt, free", "#e6550d"),
}
STEPS = {  # from rung to rung; what is left after the last, nothing of this kind closes
    "fixed_on_simplex": ("preference", "fixed_simplex_train"),
    "leaving_simplex": ("fixed_simplex_train", "fixed_free_train"),
    "test_for_training_prompts": ("fixed_free_train", "fixed_free_test"),
    "each_prompt": ("fixed_free_test", "prompt_free_test"),
}
Place = tuple[str, str, str]  # part, experts, level
Sums = dict[
    tuple[Place, str], dict[int, tuple[float, float, int]]
]  # by rung and instance: gained, possible, evaluations


def read(folder: Path) -> Sums:
    """Return what every rung gained on each instance, and what could be, summed over preferences."""
    found: Sums = defaultdict(dict)
    for file in sorted(folder.glob("*-[0-9]*.csv")):
        with file.open(encoding="utf-8", newline="") as handle:
            for line in csv.DictReader(handle):
                key, instance = ((line["part"], line["experts"], line["level"]), line["rung"]), int(line["instance"])
                gained, possible, most = found[key].get(instance, (0.0, 0.0, 0))
                found[key][instance] = (
                    gained + float(line["J"]) - float(line["base"]),
                    possible + float(line["optimum"]) - float(line["base"]),
                    max(most, int(line["evaluations"])),
                )
    return found


def share(each: Mapping[int, tuple[float, float, int]]) -> float:
    """Return the captured share: a ratio of sums over instances."""
    return sum(gained for gained, _, _ in each.values()) / sum(possible for _, possible, _ in each.values())


def rungs(found: Sums) -> list[dict[str, object]]:
    """Return one line for each rung, with the shares of single instances."""
    return [
        {
            "part": part, "experts": experts, "level": level, "rung": rung, "instances": len(each),
            "share": share(each), "least": min(gained / possible for gained, possible, _ in each.values()),
            "most": max(gained / possible for gained, possible, _ in each.values()),
            "evaluations": max(evaluations for _, _, evaluations in each.values()),
        }
        for ((part, experts, level), rung), each in found.items()
    ]  # fmt: skip


def split(found: Sums) -> list[dict[str, object]]:
    """Return the gap of `g = w` to the best policy, and its steps, for each kind of experts and level."""
    lines: list[dict[str, object]] = []
    for place in dict.fromkeys(place for place, _ in found):
        shares = {rung: share(found[place, rung]) for rung in RUNGS}
        steps = {name: shares[after] - shares[before] for name, (before, after) in STEPS.items()}
        part, experts, level = place
        lines.append({
            "part": part, "experts": experts, "level": level, "instances": len(found[place, "preference"]),
            "gap": 1 - shares["preference"], **steps, "beyond_weights": 1 - shares["prompt_free_test"],
        })  # fmt: skip
    return lines


def draw(found: Sums, file: Path) -> None:
    """Draw one bar a rung, a panel a part; whiskers from the least to the most of the instances."""
    parts = list(dict.fromkeys(place[0] for place, _ in found))
    figure, panels = plt.subplots(len(parts), 1, figsize=(12, 2.6 * len(parts)), squeeze=False, layout="constrained")
    for axes, part in zip(panels[:, 0], parts, strict=True):
        places = list(dict.fromkeys(place for place, _ in found if place[0] == part))
        for number, (rung, (name, colour)) in enumerate(RUNGS.items()):
            shares = [share(found[place, rung]) for place in places]
            ends = [[gained / possible for gained, possible, _ in found[place, rung].values()] for place in places]
            reach = [[s - min(e) for s, e in zip(shares, ends)], [max(e) - s for s, e in zip(shares, ends)]]
            middles = [place + (number - 3) * 0.11 for place in range(len(places))]
            reach = [[max(each, 0.0) for each in side] for side in reach]  # of one instance, rounding
            axes.bar(middles, shares, 0.1, color=colour, label=name, yerr=reach, error_kw={"lw": 0.6})
        lowest = min(share(found[place, rung]) for place in places for rung in RUNGS)
        axes.set_ylim(max(lowest - 0.15, 0.0) if lowest > 0 else lowest - 0.1, 1.03)
        axes.axhline(1, color="black", lw=0.6)
        axes.set_xticks(range(len(places)), [f"{experts}\n{level}" for _, experts, level in places], fontsize=8)
        count = len(found[places[0], "preference"])
        axes.set_title(f"{part.replace('_', ', ')} ({count} instance{'s' if count > 1 else ''})", fontsize=10)
        axes.set_ylabel("captured share", fontsize=8)
        axes.grid(axis="y", lw=0.3)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> int:
    """Read the files and write tables and figure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the files that ladder.py left")
    parser.add_argument("output", type=Path, help="folder of the figure")
    arguments = parser.parse_args()
    found = read(arguments.folder)
    if not found:
        print(f"folder must hold PART-INSTANCE.csv, got '{arguments.folder}'. Run ladder.py first.", file=sys.stderr)
        return 2
    write_lines(rungs(found), arguments.folder / "rungs.csv")
    lines = split(found)
    write_lines(lines, arguments.folder / "split.csv")
    for line in lines:
        print(*(f"{each:+.3f}" if isinstance(each, float) else f"{each:16}" for each in line.values()))
    draw(found, arguments.output / "meta_policy_ladder.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
