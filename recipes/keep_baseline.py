"""Keep the records of a finished study in the package, for `paretune compare --with NAME`.

    python recipes/keep_baseline.py results/controlled controlled

Writes `src/paretune/benchmark/baselines/NAME.parquet`: what every policy did on every test prompt, what it cost, and
the digests that say what it may be compared with. Texts stay in the study's folder. Refuses a study that is not whole.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.baselines import FOLDER, MOST_BYTES
from paretune.core.errors import ParetuneError, RecordError
from paretune.records.compact import read_compact
from paretune.records.files import replacing
from paretune.records.per_prompt import write_per_prompt
from paretune.records.reading import read_study


def main(arguments: Sequence[str] | None = None, target: Path = FOLDER) -> int:
    """Read the study's folder and write its records; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the study's folder")
    parser.add_argument("name", help="what the records are called")
    given = parser.parse_args(arguments)
    try:
        path = keep(given.folder, target / f"{given.name}.parquet")
    except ParetuneError as error:
        print(f"keep_baseline: {error}", file=sys.stderr)
        return 2
    found = read_compact(path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {len(found.cells)} cells of {', '.join(found.tasks)}")
    return 0


def keep(folder: Path, path: Path) -> Path:
    """Write the records of a study.

    Raises:
        RecordError: If a cell or a table is missing, a cell does not say what it is made of, or the file is too large.
    """
    study = read_study(folder)
    missing = {cell.cell: cell.message or cell.state for cell in study.cells if cell.state != "done"} | dict(
        study.missing
    )
    done = [cell for cell in study.cells if cell.state == "done"]
    missing |= {cell.cell: "does not say what it is made of" for cell in done if not cell.made_of}
    if missing:
        name, why = next(iter(missing.items()))
        raise RecordError(
            f"'{folder}' must be whole, got {len(missing)} missing, the first {name} ({why}). Run the study once more."
        )
    with replacing(path) as fresh:  # an earlier file stays until there is one to take its place
        size = write_per_prompt(study, fresh).stat().st_size
        if size > MOST_BYTES:
            raise RecordError(
                f"records of '{folder}' must take at most {MOST_BYTES:,} bytes in the package, got {size:,}. Keep "
                "fewer methods, seeds or preferences."
            )
    return path


if __name__ == "__main__":
    sys.exit(main())
