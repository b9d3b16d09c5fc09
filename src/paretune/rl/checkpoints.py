"""A learner's state as one safetensors file: tensors by name, and plain data beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from paretune.core.errors import RecordError
from paretune.models.tensor_files import write_tensors

State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, plain data
MEASURED = ("seconds", "peak_memory_bytes")  # of a ledger: they differ between equal runs, so they lie in a file beside


def save_state(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write a state, all or nothing; equal states of equal runs are equal files."""
    kept = json.loads(json.dumps(plain, allow_nan=False))
    measured = [{name: ledger.pop(name) for name in MEASURED} for ledger in _ledgers(kept)]
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(measured))
    temporary.replace(measured_file(path))  # first: it counts nothing, and a kill in between leaves it a little ahead
    write_tensors(temporary, tensors, {"state": json.dumps(kept)})
    temporary.replace(path)


def read_state(path: Path) -> State:
    """Read a state.

    Raises:
        RecordError: If a file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors, plain = {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["state"])
        for ledger, measured in zip(_ledgers(plain), json.loads(measured_file(path).read_text()), strict=True):
            ledger.update(measured)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"checkpoint must be readable, got '{path}' ({error}). Delete it and run again.") from error
    return tensors, plain


def measured_file(path: Path) -> Path:
    """Return the file beside a state that holds what was measured, not computed."""
    return path.with_suffix(".measured.json")


def _ledgers(plain: object) -> Iterator[dict[str, Any]]:
    """Yield the states of ledgers in plain data, in order."""
    if isinstance(plain, dict) and "budget_completions" in plain:
        yield plain
    elif isinstance(plain, (dict, list)):
        for each in plain.values() if isinstance(plain, dict) else plain:
            yield from _ledgers(each)
