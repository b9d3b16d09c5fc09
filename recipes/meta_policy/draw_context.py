"""Draw what prompts are worth where the preference depends on them, and where it does not.

    python recipes/meta_policy/draw_context.py docs/results/data/meta_policy/context docs/results

Reads the kept parts below the first folder. One row of panels for each class of feedback, one column a task; captured
share against completions, means over instances, bars from the least to the most; what lies below -.1 is cut. A method
that is told everything (`oracle`) stands in both rows, dotted: it is of another class. Writes
`meta_policy_context.png` into the other folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from paretune.core.errors import ParetuneError

sys.path.insert(0, str(Path(__file__).parent))
from draw_kept import legend, numbers, title  # type: ignore[import-not-found]  # beside this file
from kept import read_gains, shares  # type: ignore[import-not-found]

CLASSES = {"told": "rewards and w", "utility": "a scalar utility per completion"}
ORACLE = "linear_oracle_slower"
ROWS = {
    "joint_prompt": ("mixture, prompt gate", "#ff7f0e"),
    "joint_prompt_blind": ("prompt gate that reads no prompt", "#ff7f0e"),
    "joint_block": ("mixture, block gate", "#d62728"),
    "joint_block_blind": ("block gate that reads no prompt", "#d62728"),
    "joint_none": ("mixture, no gate", "#1f77b4"),
    "split_gate": ("experts of halves, prompt gate", "#2ca02c"),
    "split_gate_blind": ("experts of halves, gate that reads no prompt", "#2ca02c"),
    "split_bandit": ("experts of halves, bandit", "#9467bd"),
    "split_bandit_blind": ("experts of halves, bandit that reads no prompt", "#9467bd"),
    "split_none": ("experts of halves, averaged", "#8c564b"),
    "linear_slower": ("linear, learning rate .01", "#444444"),
}  # names of rows, as shown, and their colours; what reads no prompt is dashed
LOWEST = -0.1  # what lies below is not drawn


def panel(axes: Axes, rows: Mapping[str, Mapping[int, list[float]]], feedback: str) -> None:
    """Draw the rows of one task and one class, each by budget."""
    styles = {f"{row}_{feedback}": (*shown, "--" if row.endswith("_blind") else "-") for row, shown in ROWS.items()}
    for row, (name, colour, style) in {**styles, ORACLE: ("linear, told w(x)", "black", ":")}.items():
        budgets = sorted(rows.get(row, {}))
        if not budgets:
            continue
        each = [rows[row][budget] for budget in budgets]
        mean = np.array([np.mean(values) for values in each])
        reach = np.array([[m - min(v) for m, v in zip(mean, each)], [max(v) - m for m, v in zip(mean, each)]])
        axes.errorbar(
            budgets, mean, yerr=reach, color=colour, ls=style, label=name, marker="o", ms=3.5, lw=1.3, elinewidth=0.6
        )
    axes.set_xscale("log")
    budgets = sorted({budget for row in rows.values() for budget in row})
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.minorticks_off()
    axes.set_ylim(bottom=LOWEST)
    axes.grid(lw=0.3)


def main() -> int:
    """Read the kept parts and draw; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of kept parts")
    parser.add_argument("output", type=Path, help="folder of the figure")
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    try:
        for (task, budget, row), seeds in read_gains(arguments.folder).items():
            found.setdefault(task, {}).setdefault(row, {})[budget] = shares(seeds)
    except ParetuneError as error:
        print(f"draw_context: {error}", file=sys.stderr)
        return 2
    figure, panels = plt.subplots(
        len(CLASSES),
        len(found),
        figsize=(5 * len(found), 7),
        squeeze=False,
        layout="constrained",
        sharex=True,
        sharey=True,
    )
    for line, (feedback, said) in zip(panels, CLASSES.items(), strict=True):
        for axes, task in zip(line, sorted(found, key=numbers), strict=True):
            panel(axes, found[task], feedback)
            axes.set_title(f"{title(task)}\nlearns from {said}", fontsize=9)
        line[0].set_ylabel("captured share", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("completions", fontsize=9)
    legend(figure, 3)
    figure.savefig(arguments.output / "meta_policy_context.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
