"""What each row of a finished part captures at equal distance from the base model, paired with one row.

    python recipes/meta_policy/equal_kl.py results/meta-policy-levels competing_from_0 --row log_probs -o equal_kl.csv

Weights of experts are scaled from 0 to 1, as `kl_matched` does, and each curve of mean utility against mean KL is read
at a quarter, a half and three quarters of the mean KL of the best policies of the same instance. The figure is J there
over the base model's, as a share of what the best policies gain in J; means are over the preferences of the grid.
Beside it that of `--row` less it, paired by instance. A row that ends before a KL on one instance has no figure there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from paretune.benchmark.plan import pairs_of
from paretune.benchmark.study import load_study
from paretune.core.checks import check_choice
from paretune.core.errors import ParetuneError, RecordError
from paretune.metrics.kl_matched import Curve, curve, utility_at
from paretune.records.outcomes import TruthRecord
from paretune.records.per_prompt import part_of
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords
from paretune.statistics.intervals import mean_interval
from paretune.statistics.paired import paired_difference

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up
from keep_part import check_finished  # type: ignore[import-not-found]
from kept import on_grid  # type: ignore[import-not-found]  # beside this file

QUARTERS = (0.25, 0.5, 0.75)
Shares = dict[tuple[str, str, float], dict[int, float]]  # by task, row and share of the KL: by instance


def share_at(found: Curve, quarter: float, best: TruthRecord) -> float:
    """Return J gained at a share of the best policies' KL, as a share of what they gain; NaN beyond the curve.

    Args:
        found: Utility against KL, means over the preferences of the grid.
        quarter: Share of the best policies' mean KL.
        best: What can be reached.
    """
    grid = on_grid(best.preferences)
    level = quarter * float(best.kl[grid].mean())
    reference = float((best.preferences[grid] @ best.reference_scores).mean())
    possible = float((best.preferences * best.scores).sum(axis=1)[grid].mean()) - reference
    return (utility_at(found, level) - best.beta * level - reference) / possible


def of_grid(cell: CellRecord) -> CellRecord:
    """Return a cell with the outcomes of the preferences of the grid alone."""
    if cell.outcomes is None:
        return cell
    grid, of = on_grid(cell.outcomes.preferences), cell.outcomes
    return replace(
        cell, outcomes=replace(of, preferences=of.preferences[grid], rewards=of.rewards[grid], kl=of.kl[grid])
    )


def shares(records: StudyRecords) -> Shares:
    """Return the figure of every cell but those of the base model.

    Raises:
        RecordError: If a cell has no curve, its task no best policies, or a preference that depends on the prompt.
    """
    found: Shares = {}
    for cell in (each for each in records.cells if each.method != "base"):
        each, best = curve(of_grid(cell), records.tasks[cell.task]), records.truths.get((cell.task, cell.seed))
        why = "is of a task whose best policies are not known" if best is None else ""
        if best is not None and best.prompt_preferences is not None:
            why = "is of a task where the preference depends on the prompt"
        if isinstance(each, str) or best is None or why:
            why = each if isinstance(each, str) else why
            raise RecordError(f"cells must have a curve and best policies, got '{cell.cell}', which {why}.")
        for quarter in QUARTERS:
            found.setdefault((cell.task, cell.method, quarter), {})[cell.seed] = share_at(each, quarter, best)
    return found


def lines_of(found: Shares, row: str) -> list[dict[str, object]]:
    """Return one line for each task, row and share of the KL; without figures where an instance ends before it."""
    lines: list[dict[str, object]] = []
    for (task, method, quarter), by_seed in found.items():
        values = [by_seed[seed] for seed in sorted(by_seed)]
        line: dict[str, object] = {"task": task, "method": method, "kl_share": quarter, "instances": len(values)}
        theirs = [found[task, row, quarter][seed] for seed in sorted(by_seed)]
        if np.isfinite(values).all():
            mean = mean_interval(values)
            line |= {"captured_share": mean.mean, "low": mean.low, "high": mean.high}
            if method != row and len(values) > 1 and np.isfinite(theirs).all():
                less = paired_difference(theirs, values)
                line |= {"row_minus": less.mean, "minus_low": less.low, "minus_high": less.high}
        lines.append(line)
    return lines


def main() -> int:
    """Read the study's folder and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the study's folder")
    parser.add_argument("part", help="name of a finished part")
    parser.add_argument("--row", required=True, help="the row that others are held against")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table, a CSV file")
    arguments = parser.parse_args()
    try:
        pairs = pairs_of(load_study(arguments.folder / "study.yaml"), arguments.part)
        records = read_study(arguments.folder)
        check_finished(arguments.folder, records, arguments.part, pairs)
        found = shares(part_of(records, pairs))
        check_choice("--row", arguments.row, sorted({method for _, method, _ in found}))
    except ParetuneError as error:
        print(f"equal_kl: {error}", file=sys.stderr)
        return 2
    write_lines(lines_of(found, arguments.row), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
