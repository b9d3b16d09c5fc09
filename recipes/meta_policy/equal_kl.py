"""What each row of a finished part reaches at equal distance from the base model, paired with one row.

    python recipes/meta_policy/equal_kl.py results/meta-policy-levels competing_from_0 --row log_probs -o equal_kl.csv

Weights of experts are scaled from 0 to 1, as `kl_matched` does, and each curve of mean utility against mean KL is read
at a quarter, a half and three quarters of the mean KL of the best policies of the same instance. The figure is the gain
in utility over the base model as a share of what the best policies gain in all; beside it that of `--row` less it,
paired by instance. A row that ends before a KL on one instance has no figure there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from paretune.benchmark.plan import pairs_of
from paretune.benchmark.study import load_study
from paretune.core.errors import ParetuneError, RecordError
from paretune.metrics.kl_matched import Curve, curve, utility_at
from paretune.records.per_prompt import PerPrompt, part_of, read_per_prompt, write_per_prompt
from paretune.records.reading import read_study
from paretune.records.study import StudyRecords
from paretune.statistics.intervals import mean_interval
from paretune.statistics.paired import paired_difference

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

QUARTERS = (0.25, 0.5, 0.75)
Shares = dict[tuple[str, str, float], dict[int, float]]  # by task, row and share of the KL: by instance


def share_at(found: Curve, quarter: float, best: PerPrompt, base: PerPrompt) -> float:
    """Return the gain in utility at a share of the best policies' KL, as a share of their gain; NaN beyond the curve.

    Args:
        found: Utility against KL, means over the preferences of `best`.
        quarter: Share of the best policies' mean KL.
        best: The best policies of the instance.
        base: Its base model.
    """
    reference = float((best.preferences * base.scores).sum(axis=1).mean())
    reached = utility_at(found, quarter * float(best.kl.mean()))
    return (reached - reference) / (float(best.utilities.mean()) - reference)


def shares(records: StudyRecords) -> Shares:
    """Return the figure of every finished cell.

    Raises:
        RecordError: If a cell has no curve, or its task no best policies.
    """
    with tempfile.TemporaryDirectory() as folder:
        blocks = read_per_prompt(write_per_prompt(records, Path(folder) / "per_prompt.parquet"))
    known = {(each.kind, each.task, each.seed): each for each in blocks if each.kind != "cell"}
    found: Shares = {}
    for cell in (each for each in records.cells if each.state == "done" and each.method != "base"):
        each = curve(cell, records.tasks[cell.task])
        pair = (cell.task, cell.seed)
        if isinstance(each, str) or ("optimum", *pair) not in known:
            why = each if isinstance(each, str) else "is of a task whose best policies are not known"
            raise RecordError(f"cell must have a curve and best policies, got '{cell.cell}', which {why}.")
        for quarter in QUARTERS:
            share = share_at(each, quarter, known["optimum", *pair], known["base", *pair])
            found.setdefault((cell.task, cell.method, quarter), {})[cell.seed] = share
    return found


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
        found = shares(part_of(read_study(arguments.folder), pairs))
    except ParetuneError as error:
        print(f"equal_kl: {error}", file=sys.stderr)
        return 2
    lines: list[dict[str, object]] = []
    for (task, method, quarter), by_seed in found.items():
        values = [by_seed[seed] for seed in sorted(by_seed)]
        line: dict[str, object] = {"task": task, "method": method, "kl_share": quarter, "instances": len(values)}
        against = found.get((task, arguments.row, quarter), {})
        theirs = [against.get(seed, np.nan) for seed in sorted(by_seed)]
        if np.isfinite(values).all():
            mean = mean_interval(values)
            line |= {"gain_share": mean.mean, "low": mean.low, "high": mean.high}
            if method != arguments.row and len(values) > 1 and np.isfinite(theirs).all():
                less = paired_difference(theirs, values)
                line |= {"row_minus": less.mean, "minus_low": less.low, "minus_high": less.high}
        lines.append(line)
    write_lines(lines, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
