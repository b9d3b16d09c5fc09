"""Where the files of a study lie. Pure names: nothing is read or written here."""

from __future__ import annotations

from pathlib import Path

from paretune.core.errors import RecordError

EVALUATION, OUTCOMES, TRUTH, TIMING = "evaluation.parquet", "outcomes.json", "truth.json", "timing.json"  # files
RELATIONS = "relations.json"  # another one
MEASURED = ("adaptation", "scaling", "attribution")  # tables of a cell that are made on request, `<name>.json` each
EVALUATIONS = "evaluations"  # folder in a cell's
TABLES = ("runs", "tuning", "references", "truths", "relations", "timing")  # folders of a study that tables lie below


def lock_path(study: Path) -> Path:
    """Return the file with the resolved study, its tasks and planned cells."""
    return study / "study.lock.json"


def stage_folder(study: Path, key: str) -> Path:
    """Return the folder of a stage, named by its digest."""
    return study / "stages" / _file_name("stage", key)


def given_path(study: Path, digest: str) -> Path:
    """Return where something lies that a call has brought along, named by the digest of its content."""
    return study / "given" / _file_name("what was given", digest)


def cell_folder(study: Path, cell: str) -> Path:
    """Return the folder of a cell."""
    return study / "runs" / _file_name("cell", cell)


def evaluations_folder(study: Path, cell: str) -> Path:
    """Return the evaluations of a cell, one for each preference of its task, in order."""
    return cell_folder(study, cell) / EVALUATIONS


def evaluation_path(folder: Path, index: int) -> Path:
    """Return the evaluation for preference number `index` in a folder of them."""
    return folder / f"{index:03d}.parquet"


def outcomes_folder(study: Path, cell: str) -> Path:
    """Return what the policies of a cell do at every scale of their experts' weights."""
    return cell_folder(study, cell) / "outcomes"


def tuning_folder(study: Path, cell: str) -> Path:
    """Return the folder of a cell of the sweep over settings."""
    return study / "tuning" / _file_name("cell", cell)


def reference_folder(study: Path, task: str, seed: int) -> Path:
    """Return the evaluation of the base model on the test prompts of a task instance."""
    return study / "references" / f"{_file_name('task', task)}-{seed}"


def truth_folder(study: Path, task: str, seed: int) -> Path:
    """Return what can be reached on a task instance whose completions can be listed."""
    return study / "truths" / f"{_file_name('task', task)}-{seed}"


def relations_folder(study: Path, task: str, seed: int) -> Path:
    """Return how the objectives of a task instance relate under its base model."""
    return study / "relations" / f"{_file_name('task', task)}-{seed}"


def timing_folder(study: Path, task: str, method: str) -> Path:
    """Return the decoding times of a method on a task."""
    return study / "timing" / f"{_file_name('task', task)}-{_file_name('method', method)}"


def _file_name(kind: str, name: str) -> str:
    if not name or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|\0\n'):
        raise RecordError(f"{kind} must have a name that can be a file name, got '{name}'. Rename it.")
    return name
