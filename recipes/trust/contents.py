"""What the folder of a study holds, apart from what takes its value from the clock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

OF_THE_CLOCK = ("latency_seconds", "seconds", "peak_memory_bytes", "repeated", "environment", "companions")


def results(study: Path) -> dict[str, str]:
    """Return a digest of each result of a study: tensors, records, charged counts, answers.

    Two runs that did the same have the same results, whatever time they took and however often they began.
    """
    found: dict[str, Any] = {}
    for folder in ("stages", "runs", "references", "tuning"):
        for file in sorted((study / folder).rglob("*")):
            name = file.relative_to(study).as_posix()
            if not file.is_file() or any(part == "checkpoint" or part.startswith(".") for part in Path(name).parts):
                continue
            try:
                found |= _content(file, name)
            except Exception as error:  # noqa: BLE001  # libraries raise what they like for damaged files
                found[name] = f"unreadable: {type(error).__name__}"
    return {name: hashlib.sha256(repr(value).encode()).hexdigest()[:16] for name, value in found.items()}


def _content(file: Path, name: str) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return {name: _tensors(file)}
    if file.suffix == ".parquet":
        return {name: _records(file)}
    if file.name == "ledger.json":
        counts = json.loads(file.read_bytes())["counts"]
        return {f"{name}: counts.{count}": number for count, number in counts.items()}
    if file.name in ("solution.json", "stage.json", "cell.json", "outcomes.json"):
        return {name: _timeless(json.loads(file.read_bytes()))}
    return {}


def _tensors(file: Path) -> list[tuple[str, str, bytes]]:
    from safetensors.numpy import load_file

    return [(name, str(tensor.shape), tensor.tobytes()) for name, tensor in sorted(load_file(file).items())]


def _records(file: Path) -> list[tuple[str, object]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read(use_threads=False)
    return [(name, table.column(name).to_pylist()) for name in table.column_names if name not in OF_THE_CLOCK]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in sorted(value.items()) if key not in OF_THE_CLOCK}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def sealed(study: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of last change of each file that a marker seals, and of the markers."""
    found = {}
    for marker in study.glob("*/*/DONE.json"):
        try:
            names = json.loads(marker.read_bytes())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for file in (marker, *(marker.parent / name for name in names)):
            if file.is_file():
                about = file.stat()
                found[file.relative_to(study).as_posix()] = (about.st_size, about.st_mtime_ns)
    return found


def names(study: Path) -> set[str]:
    """Return the names of all files of a study but logs, hidden ones included."""
    paths = (path.relative_to(study) for path in study.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != "logs"}
