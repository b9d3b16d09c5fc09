"""Draw what each row captures for each preference at one budget: who is left behind.

    python recipes/meta_policy/draw_weights.py docs/results/data/meta_policy/two 9008 docs/results

Reads the kept parts below the first folder. One panel a task on which rivals were run; a point is a ratio of sums over
instances, the band goes from the least to the most of them. Writes `meta_policy_weights.png` into the other folder.
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
from kept import Gains, of_grid, read_gains  # type: ignore[import-not-found]

FIRST = "mixture_of_experts"
ROWS = {
    FIRST: (FIRST, "#d62728"),
    "preference_conditioned": ("preference_conditioned", "#1f77b4"),
    "mod_slower": ("mod", "#2ca02c"),
    "rewarded_soups_slower": ("rewarded_soups", "#8c6d31"),
    "weight_grid_slower": ("weight_grid", "#9467bd"),
    "linear_slower": ("linear", "#444444"),
    "one_policy_tuned": ("one_policy", "#999999"),
}  # names of rows, as shown, and their colours
LOWEST = -0.25  # what lies below is not drawn


def panel(axes: Axes, rows: Mapping[str, Mapping[int, Gains]]) -> None:
    """Draw the rows of one task."""
    for row, (name, colour) in ROWS.items():
        each = [of_grid(gains, True) for gains in rows.get(row, {}).values()]
        if not each:
            continue
        order = np.argsort(each[0].preferences[:, 0])
        weights = each[0].preferences[order, 0]
        apart = np.stack([one.gained / one.possible for one in each])[:, order]
        whole = (sum(one.gained for one in each) / sum(one.possible for one in each))[order]
        axes.fill_between(weights, apart.min(axis=0), apart.max(axis=0), color=colour, alpha=0.12, lw=0)
        first, style = row == FIRST, "--" if row == "preference_conditioned" else "-"  # the two often coincide
        axes.plot(weights, whole, style, color=colour, label=name, marker="o", ms=3.5, lw=1.4, zorder=3 if first else 4)
    axes.set_ylim(LOWEST, 1.03)
    axes.axhline(0, color="black", lw=0.8)
    axes.grid(lw=0.3)
    axes.set_xlabel("weight of the first objective", fontsize=9)


def main() -> int:
    """Read the kept parts and draw; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of kept parts")
    parser.add_argument("budget", type=int, help="completions of each row")
    parser.add_argument("output", type=Path, help="folder of the figure")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Mapping[int, Gains]]] = {}
    try:
        for (task, budget, row), seeds in read_gains(arguments.folder).items():
            if budget == arguments.budget and row in ROWS:
                found.setdefault(task, {})[row] = seeds
    except ParetuneError as error:
        print(f"draw_weights: {error}", file=sys.stderr)
        return 2
    compared = {task: rows for task, rows in found.items() if len(rows) > 2}  # not the two of the main study alone
    if not compared:
        print(
            f"draw_weights: folder must hold kept parts with rivals at {arguments.budget:,} completions, got "
            f"'{arguments.folder}'. Run equal.yaml and recipes/keep_part.py first.",
            file=sys.stderr,
        )
        return 2
    high = -(-len(compared) // 2)
    figure, panels = plt.subplots(high, 2, figsize=(9, 3.6 * high), squeeze=False, layout="constrained", sharey=True)
    for axes, task in zip(panels.flatten(), sorted(compared, key=numbers), strict=False):
        panel(axes, compared[task])
        axes.set_title(title(task), fontsize=10)
    for axes in panels.flatten()[len(compared) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("captured share", fontsize=9)
    legend(figure, 4)
    figure.savefig(arguments.output / "meta_policy_weights.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
