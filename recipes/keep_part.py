"""Keep what a finished part of a study found: its tables, and the digests that say what it was made of.

    python recipes/keep_part.py results/controlled-full competing docs/results/data/controlled-full
    python recipes/keep_part.py results/pair_reflection/study whole docs/results/data/pair   # of a study without parts

Writes `per_prompt.parquet` (what every policy did on every test prompt, and its cost), `tables.csv`, `tables/*.csv`,
`captured_share_paired.csv` and `digests.json` into a folder of the part's name.
The runs themselves stay where they are; the same command as before repeats them, and their digests say whether it made
the same.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from paretune.benchmark.plan import pairs_of
from paretune.benchmark.study import load_study
from paretune.core.errors import ParetuneError, RecordError
from paretune.metrics import measure_all
from paretune.records.files import read_json, read_marker, write_json
from paretune.records.layout import cell_folder, evaluations_folder
from paretune.records.per_prompt import FILE, part_of
from paretune.records.reading import read_study
from paretune.records.study import StudyRecords
from paretune.report import write_report
from paretune.report.tables import Value, csv_text
from paretune.statistics.paired import paired_difference

TABLES = "tables.csv"
WHOLE = "whole"
KEPT = (FILE, TABLES, "tables/controlled.csv", "tables/costs.csv", "tables/seeds.csv")


def main() -> int:
    """Read the study's folder and write the part's tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the study's folder")
    parser.add_argument("part", help=f"name of a finished part; '{WHOLE}' where the study has none")
    parser.add_argument("output", type=Path, help="folder of the kept parts")
    parser.add_argument("--small", action="store_true", help=f"without {TABLES}, which {FILE} tells too")
    arguments = parser.parse_args()
    kept = [name for name in KEPT if not (arguments.small and name == TABLES)]
    try:
        keep(arguments.folder, arguments.part, arguments.output / arguments.part, kept)
    except ParetuneError as error:
        print(f"keep_part: {error}", file=sys.stderr)
        return 2
    return 0


def keep(folder: Path, part: str, output: Path, names: Sequence[str] = KEPT) -> None:
    """Write what a part found, of the files of its report those of some names.

    Raises:
        RecordError: If a cell of the part, or what is measured of one, is not finished.
    """
    records = read_study(folder)
    study = load_study(folder / "study.yaml")
    pairs = pairs_of(study, None if part == WHOLE and not study.parts else part)
    check_finished(folder, records, part, pairs)
    kept = part_of(records, pairs)
    cells = kept.cells
    with tempfile.TemporaryDirectory() as scratch:
        write_report(Path(scratch), kept)
        for name in KEPT:
            file = Path(scratch) / "report" / name
            (output / name).unlink(missing_ok=True)  # of an earlier time
            if name in names and file.is_file():
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, output / name)
    write_pairs(kept, output / "captured_share_paired.csv")
    digests = {}
    for cell in cells:
        plain = read_json(cell_folder(folder, cell.cell) / "cell.json")
        sealed = read_marker(evaluations_folder(folder, cell.cell))["values"]
        digests[cell.cell] = {
            "training_key": plain["training_key"], "evaluation_key": sealed["key"], "stages": plain["stages"]
        }  # fmt: skip
    environment = {key: value for key, value in records.environment.items() if isinstance(value, (str, int, float))}
    write_json(output / "digests.json", {"study": records.name, "part": part, "environment": environment, **digests})


def check_finished(folder: Path, records: StudyRecords, part: str, pairs: Collection[tuple[str, int]]) -> None:
    """Check that all of a part is there: its pairs of task and seed, evaluated and measured.

    Raises:
        RecordError: If something is not; the message says what, and why.
    """
    unfinished = {
        f"cell {cell.cell}": cell.message or cell.state
        for cell in records.cells if (cell.task, cell.seed) in pairs and cell.state != "done"
    } or {
        table.folder: records.missing[table.folder]
        for table in records.tables if table.folder in records.missing and (table.task, table.seed) in pairs
    }  # fmt: skip  # a cell is done once it is evaluated; what its scores are held against may still be on its way
    if unfinished:
        name, why = next(iter(unfinished.items()))
        raise RecordError(
            f"part '{part}' must be finished, got {len(unfinished)} unfinished, the first {name} ({why}). Run "
            f"`paretune run {folder / 'study.yaml'}{'' if part == WHOLE else f' --part {part}'} -o {folder}`."
        )


def write_pairs(records: StudyRecords, path: Path) -> None:
    """Write the differences in captured share of all pairs of methods, paired by seed; nothing where none is known."""
    lines: list[tuple[Value, ...]] = [("task", "first", "second", "difference", "low", "high", "seeds")]
    shares = {
        (row.task, row.method): row.value.per_seed
        for row in measure_all(records, ["captured_share"])
        if not row.label and row.value.value is not None
    }
    for (task, first), (other, second) in itertools.combinations(shares, 2):
        seeds = sorted(shares[task, first].keys() & shares[other, second].keys())
        if task == other and len(seeds) > 1:
            mine, theirs = ([shares[task, name][seed] for seed in seeds] for name in (first, second))
            found = paired_difference(mine, theirs)
            rounded = (f"{each:.4f}" for each in (found.mean, found.low, found.high))
            lines.append((task, first, second, *rounded, len(seeds)))
    path.unlink(missing_ok=True)
    if len(lines) > 1:
        path.write_text(csv_text(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
