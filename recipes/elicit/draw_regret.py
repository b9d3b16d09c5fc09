"""Table and figure of elicitation, from the files that `regret.py` left.

    python recipes/elicit/draw_regret.py docs/results/data/elicitation docs/results

Writes `regret.csv` (mean regret by task, users, strategy and number of questions, with a 95 % interval over instances:
Student's t), `sweep.csv` (what a nat of information counts in the choice of a question, tuning instances) beside the
files, and `elicitation.png` into the other folder.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from paretune.statistics.intervals import mean_interval

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

LIMIT = 0.05  # of J*(w) - J_ref(w), to be reached after ten questions
LOOKS = {  # strategy, users -> colour, style, name
    ("nothing", "all"): ("#777777", "--", "nothing asked"),
    ("random", "noisy"): ("#d55e00", "-", "random questions"),
    ("asked", "noisy"): ("#0072b2", "-", "chosen questions"),
    ("asked", "exact"): ("#0072b2", ":", "chosen questions, replies without noise"),
}
TASKS = tuple(
    f"{count}-{relation}" for count in ("two", "three") for relation in ("competing", "independent", "correlated")
)
Line = dict[str, str]
PARTS = {  # which regret is drawn, and what is chosen from
    "front": ("regret", "the best policies"), "trained": ("regret_to_offered", "a method's policies"),
}  # fmt: skip


def read(folder: Path, parts: Iterable[str]) -> list[Line]:
    """Return the lines of all files of some parts."""
    files = sorted(file for part in parts for file in folder.glob(f"{part}-*-[0-9]*.csv"))
    lines: list[Line] = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as handle:
            lines += csv.DictReader(handle)
    return lines


def summary(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return a line for each part, task, users, strategy and number of questions, over instances."""
    groups: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        groups[tuple(line[name] for name in ("part", "task", "users", "strategy", "questions"))].append(line)
    return [
        {
            **dict(zip(("part", "task", "users", "strategy", "questions"), key, strict=True)), "instances": len(group),
            **_interval("regret", group), **_interval("regret_to_offered", group),
            "worst": max(float(line["worst"]) for line in group),
            "regret_of_sums": _mean("regret_of_sums", group), "inside_interval": _mean("inside_interval", group),
        }
        for key, group in groups.items()
    ]  # fmt: skip


def _interval(name: str, group: list[Line]) -> dict[str, object]:
    found = mean_interval([float(line[name]) for line in group])
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _mean(name: str, group: list[Line]) -> float | None:
    values = [float(line[name]) for line in group if line[name]]
    return float(np.mean(values)) if values else None


def sweep(lines: list[Line]) -> list[dict[str, Any]]:
    """Return mean regret to the best policy offered after 5, 10 and 15 questions, by what information counts."""
    chosen = [line for line in lines if line["questions"] in ("5", "10", "15")]
    groups: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in chosen:
        groups[line["users"], line["strategy"]][line["questions"]].append(float(line["regret_to_offered"]))
    return [
        {
            "users": users,
            "strategy": strategy,
            "files": len(by["10"]),
            **{f"after_{n}": float(np.mean(by[n])) for n in by},
        }
        for (users, strategy), by in groups.items()
    ]


def draw(table: list[dict[str, Any]], file: Path) -> None:
    """Draw regret by the number of questions: a column a task, a row a part."""
    parts = [part for part in PARTS if any(line["part"] == part for line in table)]
    tasks = [task for task in TASKS if any(line["task"] == task for line in table)]
    figure, panels = plt.subplots(
        len(parts), len(tasks), figsize=(2.4 * len(tasks), 2.9 * len(parts)), squeeze=False, layout="constrained",
        sharex=True, sharey="row",
    )  # fmt: skip
    for row, part in zip(panels, parts, strict=True):
        for axes, task in zip(row, tasks, strict=True):
            for (strategy, users), (colour, style, name) in LOOKS.items():
                own = [
                    line for line in table
                    if (line["part"], line["task"], line["strategy"], line["users"]) == (part, task, strategy, users)
                ]  # fmt: skip
                if not own:
                    continue
                own.sort(key=lambda line: int(str(line["questions"] or 0)))
                asked = [int(str(line["questions"] or 0)) for line in own]
                measure = PARTS[part][0]
                means, low, high = ([line[f"{measure}{end}"] for line in own] for end in ("", "_low", "_high"))
                if strategy == "nothing":
                    axes.axhline(means[0], color=colour, ls=style, lw=1.2, label=name)
                    continue
                axes.plot(asked, means, color=colour, ls=style, lw=1.4, label=name)
                if style == "-" and None not in low:  # of one instance there is none
                    axes.fill_between(asked, np.maximum(low, 0), high, color=colour, alpha=0.15, lw=0)
            axes.axhline(LIMIT, color="black", lw=0.6)
            axes.axvline(10, color="black", lw=0.3)
            axes.set_ylim(0, None)
            axes.set_title(task.replace("-", ", "), fontsize=10)
            axes.grid(lw=0.3)
            axes.tick_params(labelsize=8)
        row[0].set_ylabel(f"{PARTS[part][1]}:\nregret, share of what can be gained", fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("questions", fontsize=8)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> int:
    """Read the files and write tables and figure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the files that regret.py left")
    parser.add_argument("output", type=Path, help="folder of the figure")
    arguments = parser.parse_args()
    lines = read(arguments.folder, PARTS)
    if not lines:
        print(f"folder must hold PART-TASK-INSTANCE.csv, got '{arguments.folder}'. Run regret.py.", file=sys.stderr)
        return 2
    table = summary(lines)
    write_lines(table, arguments.folder / "regret.csv")
    write_lines(sweep(read(arguments.folder, ["tune"])), arguments.folder / "sweep.csv")
    for line in table:
        if line["questions"] in ("", "0", "10"):
            print(*(f"{each:.3f}" if isinstance(each, float) else f"{each!s:16}" for each in line.values()))
    draw(table, arguments.output / "elicitation.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
