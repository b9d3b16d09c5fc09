"""Draw what one policy for all preferences keeps of the gain of one policy for each, along its budget.

    python recipes/meta_policy/draw_kept.py docs/results/data/meta_policy/two docs/results

Reads `kept.csv`, which `kept.py` left in the folder. One panel a task, one line a row with several budgets. Bars are
95 % intervals over instances. Writes `meta_policy_kept.png` into the other folder.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

YARDSTICK = 45056  # completions of one policy of 4,096 for each of eleven preferences
ROWS = {
    "mixture_of_experts": ("mixture_of_experts", "#d62728"),
    "preference_conditioned": ("preference_conditioned", "#1f77b4"),
    "gate_blind": ("its gate reads no prompt", "#ff9896"),
    "gate_shuffled": ("its gate reads another prompt", "#c49c94"),
}  # names of rows, as shown, and their colours
RELATIONS = {-1: "competing", 0: "independent", 1: "correlated"}  # by the sign of rho
Line = Mapping[str, str]


def numbers(task: str) -> list[float]:
    """Return the numbers in a task's name, by which competing objectives come first: rho, h, context."""
    return [float(each) for each in re.findall(r"[-+]?\d+(?:\.\d+)?", task)]


def title(task: str) -> str:
    """Return a task's name as the page writes it.

    Example:
        >>> title("controlled-rho-0.8-h0.5-c0.6")
        'rho -.8 (competing), h .5, context .6'
    """
    rho, *others = numbers(task)
    figures = [re.sub(r"^(-?)0\.", r"\1.", f"{each:g}") for each in (rho, *others)]
    named = [f"{name} {each}" for name, each in zip(("rho", "h", "context"), figures)]
    named[0] += f" ({RELATIONS[(rho > 0) - (rho < 0)]})"
    return ", ".join(named)


def read(file: Path) -> dict[str, dict[str, list[Line]]]:
    """Return lines by task and row, in the order of budgets, without the yardstick and rows without a colour."""
    found: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    with file.open(encoding="utf-8", newline="") as handle:
        for line in csv.DictReader(handle):
            if line.get("kept") and line["method"] in ROWS and int(line["budget"]) < YARDSTICK:
                found[line["task"]][line["method"]].append(line)
    for rows in found.values():
        for lines in rows.values():
            lines.sort(key=lambda line: int(line["budget"]))
    return found


def panel(axes: Axes, rows: Mapping[str, Sequence[Line]]) -> None:
    """Draw the rows of one task."""
    for row, (name, colour) in ROWS.items():
        lines = rows.get(row, ())
        if not lines:
            continue
        costs = [int(line["budget"]) / YARDSTICK for line in lines]
        kept, low, high = ([float(line[each]) for line in lines] for each in ("kept", "kept_low", "kept_high"))
        reach = [[max(k - v, 0) for k, v in zip(kept, low)], [max(v - k, 0) for k, v in zip(kept, high)]]
        axes.errorbar(costs, kept, yerr=reach, color=colour, label=name, marker="o", ms=4, lw=1.3, elinewidth=0.7)
    axes.axhline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.05, 0.1, 0.2, 0.4], [".05", ".1", ".2", ".4"])
    axes.minorticks_off()
    axes.grid(lw=0.3)


def legend(figure: Figure, columns: int) -> None:
    """Name what is drawn in any panel, once, below all of them."""
    names = {name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def main() -> int:
    """Read the table and draw; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of kept.csv")
    parser.add_argument("output", type=Path, help="folder of the figure")
    arguments = parser.parse_args()
    if not (arguments.folder / "kept.csv").is_file():
        print(f"folder must hold kept.csv, got '{arguments.folder}'. Run kept.py first.", file=sys.stderr)
        return 2
    found = read(arguments.folder / "kept.csv")
    wide = -(-len(found) // 2)
    figure, panels = plt.subplots(2, wide, figsize=(4 * wide, 7), squeeze=False, layout="constrained", sharex=True)
    for axes, task in zip(panels.T.flatten(), sorted(found, key=numbers), strict=False):
        panel(axes, found[task])
        axes.set_title(title(task), fontsize=10)
    for axes in panels[1]:
        axes.set_xlabel(f"completions, as a share of {YARDSTICK:,}", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("kept gain", fontsize=9)
    legend(figure, 4)
    figure.savefig(arguments.output / "meta_policy_kept.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
