"""Records of finished studies that ship with the package: methods to compare with, without training them again."""

from __future__ import annotations

from pathlib import Path

from paretune.core.checks import check_choice, user_path
from paretune.core.errors import RecordError
from paretune.records.compact import CompactStudy, compact, read_compact
from paretune.records.per_prompt import FILE
from paretune.records.reading import read_study

FOLDER = Path(__file__).resolve().parent
MOST_BYTES = 2_000_000  # of a file that ships with the package, see recipes/keep_baseline.py


def built_in_baselines(folder: Path = FOLDER) -> dict[str, Path]:
    """Return the records that ship with the package, name -> file."""
    return {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def load_records(source: str | Path, built_in: bool = False) -> CompactStudy:
    """Read what a study found, without its texts.

    Args:
        source: Folder of a study, a merged report's folder, or a file of records, `report/per_prompt.parquet`.
        built_in: Whether it may be the name of records that ship with the package; that goes first.

    Raises:
        UnknownNameError: If it is neither a path nor such a name.
        RecordError: If there is nothing of the kind, it is damaged, or a name is given where no records ship.
    """
    if built_in and str(source) in built_in_baselines():
        return read_compact(built_in_baselines()[str(source)])
    path = user_path(str(source))
    if path.is_file():
        return read_compact(path)
    merged = path / "report" / FILE
    if path.is_dir() and merged.is_file() and not (path / "study.lock.json").exists():
        return read_compact(merged)
    if path.is_dir():
        return compact(read_study(path))
    if built_in and not built_in_baselines():
        raise RecordError(
            f"records to compare with must be the folder of a study or a file of its records, got '{source}', and no "
            "records ship with this copy of paretune. Make them with `paretune run controlled`, and name the folder "
            "that it writes, results/controlled."
        )
    if built_in:
        check_choice("records to compare with", str(source), built_in_baselines())
    raise RecordError(
        f"'{source}' must be the folder of a study or a file of its records, got no such path. Give the folder that "
        "`paretune run` wrote, such as results/NAME, or its report/per_prompt.parquet."
    )
