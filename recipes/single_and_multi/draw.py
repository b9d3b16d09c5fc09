"""Draw the study from its table of shares: every row on each kind of task, and how shares grow with the budget.

    python recipes/single_and_multi/draw.py docs/results/data/single_and_multi/shares.csv docs/results

Writes `single_and_multi_rows.png` and, where there are several budgets, `single_and_multi_budgets.png`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

KINDS = {
    "controlled-rho-0.8-h0": "competing", "controlled-rho+0-h0": "independent", "controlled-rho+0.8-h0": "correlated",
    "controlled-rho-0.8-h0.5": "mixed",
}  # fmt: skip
LEAST = -0.15  # of a share that is drawn; lower ones are marked at the edge
Rows = dict[tuple[str, str, int], dict[str, str]]  # by row, task and budget


def read(path: Path) -> Rows:
    """Return the lines of the table that `summarise.py` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(each["method"], each["task"], int(each["budget"])): each for each in csv.DictReader(file)}


def draw_rows(found: Rows, budget: int, path: Path) -> None:
    """Draw captured share with its interval, and the worst preference's share, of every row on each kind of task."""
    names = list(dict.fromkeys(name for name, _, each in found if each == budget and name != "base"))
    names.sort(key=lambda name: sum(float(found[name, task, budget]["captured_share"]) for task in KINDS))
    figure, panels = plt.subplots(
        1, len(KINDS), figsize=(12, 0.24 * len(names) + 1.2), sharey=True, layout="constrained"
    )
    for axes, (task, kind) in zip(panels, KINDS.items(), strict=True):
        for place, name in enumerate(names):
            line = found[name, task, budget]
            share, low, high = (float(line[key]) for key in ("captured_share", "low", "high"))
            worst = float(line["worst_preference_share"])
            control = name.endswith("_shuffled")
            colour = "#888888" if control else "#1f5fa8"
            if share < LEAST:
                axes.plot(LEAST, place, "<", color=colour, ms=5)
                continue
            axes.plot([max(low, LEAST), min(high, 1.0)], [place, place], "-", color=colour, lw=1)
            axes.plot(share, place, "o", color=colour, ms=4)
            axes.plot(
                max(worst, LEAST), place, "|" if worst >= LEAST else "<", color="#c0392b", ms=7 if worst >= LEAST else 4
            )
        axes.axvline(float(found["linear", task, budget]["captured_share"]), color="#1f5fa8", lw=0.6, ls=":")
        axes.set_title(kind, fontsize=10)
        axes.set_xlim(LEAST - 0.04, 1.02)
        axes.grid(axis="x", lw=0.3)
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    figure.supxlabel(
        "share of the possible gain in J: dot and 95 % interval over five instances (dotted: linear; grey: shuffled "
        "controls); red: worst preference; arrows: off the scale", fontsize=8,
    )  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_budgets(found: Rows, budgets: list[int], path: Path) -> None:
    """Draw captured share over completions, of the rows that were run with every budget."""
    names = [name for name in dict.fromkeys(name for name, _, _ in found) if name != "base"]
    names = [name for name in names if all((name, task, budget) in found for task in KINDS for budget in budgets)]
    figure, panels = plt.subplots(1, len(KINDS), figsize=(12, 3.4), sharex=True, layout="constrained")
    for axes, (task, kind) in zip(panels, KINDS.items(), strict=True):
        for number, name in enumerate(names):
            lines = [found[name, task, budget] for budget in budgets]
            shares = [float(line["captured_share"]) for line in lines]
            reach = [float(line["high"]) - share for line, share in zip(lines, shares, strict=True)]
            axes.errorbar(budgets, shares, yerr=reach, fmt="o-", ms=3, lw=1, capsize=2, color=f"C{number}", label=name)
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{each:,}" for each in budgets], fontsize=7)
        axes.minorticks_off()
        axes.set_title(kind, fontsize=10)
        axes.grid(axis="y", lw=0.3)
    panels[0].set_ylabel("share of the possible gain in J")
    figure.supxlabel("completions of a row; 95 % intervals over five instances", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="shares.csv")
    parser.add_argument("output", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    found = read(arguments.table)
    budgets = sorted({budget for name, _, budget in found if name == "linear"})
    full = max(budgets, key=lambda budget: sum(each == budget for _, _, each in found))
    draw_rows(found, full, arguments.output / "single_and_multi_rows.png")
    if len(budgets) > 1:
        draw_budgets(found, budgets, arguments.output / "single_and_multi_budgets.png")


if __name__ == "__main__":
    main()
