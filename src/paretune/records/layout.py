"""Where the files of a study lie. Pure names: nothing is read or written here."""

from __future__ import annotations

from pathlib import Path

from paretune.core.errors import RecordError


def lock_path(study: Path) -> Path:
    """Return the file with the resolved study, its tasks and planned cells."""
    return study / "study.lock.json"


def timing_path(study: Path) -> Path:
    """Return the file with the decoding times."""
    return study / "timing.json"


def stage_folder(study: Path, key: str) -> Path:
    """Return the folder of a stage, named by its digest."""
    return study / "stages" / _file_name("stage", key)


def cell_folder(study: Path, cell: str) -> Path:
    """Return the folder of a cell."""
    return study / "runs" / _file_name("cell", cell)


def evaluation_path(study: Path, cell: str, index: int) -> Path:
    """Return the evaluation of a cell for preference number `index` of its task."""
    return cell_folder(study, cell) / "evaluations" / f"{index:03d}.parquet"


def tuning_folder(study: Path, cell: str) -> Path:
    """Return the folder of a cell of the sweep over settings."""
    return study / "tuning" / _file_name("cell", cell)


def reference_path(study: Path, task: str, seed: int) -> Path:
    """Return the evaluation of the base model on the test prompts of a task instance."""
    return study / "references" / f"{_file_name('task', task)}-{seed}.parquet"


def outcome_path(study: Path, cell: str) -> Path:
    """Return what the policies of a cell do at every scale of their experts' weights."""
    return cell_folder(study, cell) / "outcomes.json"


def truth_path(study: Path, task: str, seed: int) -> Path:
    """Return what can be reached on a task instance whose completions can be listed."""
    return study / "references" / f"{_file_name('task', task)}-{seed}.truth.json"


def _file_name(kind: str, name: str) -> str:
    if not name or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|\0\n'):
        raise RecordError(f"{kind} must have a name that can be a file name, got '{name}'. Rename it.")
    return name
