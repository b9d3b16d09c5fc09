"""Captured share against completions, before and after epochs and averages: the table and the picture of curve.yaml.

paretune run recipes/learner/curve.yaml -o curve
python recipes/learner/draw_curve.py curve docs/results
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

from paretune.metrics import measure_all
from paretune.records.reading import read_study
from paretune.report.tables import Value, csv_text

POLICIES = 3  # of each cell: two corners and the centre
COLOURS = {"before": "#777777", "after": "#0072b2"}


def main() -> int:
    """Write `data/learner/curve.csv` and `learner_curve.png`; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the study")
    parser.add_argument("output", type=Path, help="where table and picture go")
    arguments = parser.parse_args()
    rows = measure_all(read_study(arguments.folder), ["captured_share"])
    table = arguments.output / "data" / "learner" / "curve.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    curves: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    lines: list[tuple[Value, ...]] = [("task", "method", "completions_each", "policy", "captured_share", "low", "high")]
    for row in rows:
        policy = row.label.removeprefix("preference: ")
        if policy in ("seen", "unseen") or row.value.value is None or row.method not in COLOURS:
            continue
        each = row.budget_completions // POLICIES
        lines.append((row.task, row.method, each, policy or "all", row.value.value, row.value.low, row.value.high))
        curves[row.task, "centre" if "," in policy else "corner" if policy else "", row.method].append(
            (each, row.value.value)
        )
    table.write_text(csv_text(lines), encoding="utf-8")
    tasks, places = list(dict.fromkeys(key[0] for key in curves)), ("corner", "centre")
    figure, axes = plt.subplots(2, len(tasks), figsize=(3 * len(tasks), 5.4), sharex=True, sharey=True, squeeze=False)
    for (task, place, method), points in curves.items():
        if place:
            axis = axes[places.index(place), tasks.index(task)]
            lengths = sorted({each for each, _ in points})
            means = [
                sum(share for at, share in points if at == each) / sum(at == each for at, _ in points)
                for each in lengths
            ]
            axis.plot(lengths, means, "o-", color=COLOURS[method], label=method)
            axis.set_title(f"{task.removeprefix('controlled-')}, {place}", fontsize=9)
            axis.set_xscale("log", base=2)
            axis.set_xticks(lengths, [f"{each:,}" for each in lengths], fontsize=8)
            axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("captured share")
    for axis in axes[-1]:
        axis.set_xlabel("completions of each policy")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(arguments.output / "learner_curve.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
