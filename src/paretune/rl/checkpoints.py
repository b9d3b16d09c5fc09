"""A learner's state as one safetensors file: tensors by name, and plain data beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from paretune.core.errors import RecordError
from paretune.core.ledger import EARLIER, MEASURED
from paretune.core.text_files import parsed_json
from paretune.models.tensor_files import write_tensors
from paretune.records.files import replacing
from paretune.records.states import DIGEST, UNSEALED, read_measured, seal_state, state_trouble, write_measured

State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, plain data
LOST = {"seconds": {}, "cpu_seconds": {}, "peak_memory_bytes": 0, "attempts": {EARLIER: {}}}


def save_state(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write a state with its digest, all or nothing; equal states of equal runs are equal files.

    What ledgers measured lies in a file beside it.

    Raises:
        RecordError: If the disk is full; the former state is still there then.
    """
    kept = json.loads(json.dumps(plain, allow_nan=False))
    measured = [{name: ledger.pop(name) for name in MEASURED} for ledger in _ledgers(kept)]
    write_measured(path, measured)  # first: it counts nothing, and a kill in between leaves it a little ahead
    with replacing(path) as temporary:
        write_tensors(temporary, tensors, {"state": json.dumps(kept), DIGEST: UNSEALED})
        seal_state(temporary)


def read_state(path: Path) -> State:
    """Read a state; what its ledgers measured starts at nothing where the file beside it is gone.

    Raises:
        RecordError: If a file is damaged.
    """
    trouble = state_trouble(path)
    if trouble:
        raise RecordError(f"checkpoint must be as it was written, got '{path}', which {trouble}. Remove it, run again.")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors, plain = {name: file.get_tensor(name) for name in names}, parsed_json(file.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"checkpoint must be readable, got '{path}' ({error}). Delete it and run again.") from error
    ledgers = list(_ledgers(plain))
    measured = read_measured(path) or [LOST] * len(ledgers)
    for ledger, values in zip(ledgers, measured, strict=True):
        ledger.update(values)
    return tensors, plain


def _ledgers(plain: object) -> Iterator[dict[str, Any]]:
    """Yield the states of ledgers in plain data, in order."""
    if isinstance(plain, dict) and "budget_completions" in plain:
        yield plain
    elif isinstance(plain, (dict, list)):
        for each in plain.values() if isinstance(plain, dict) else plain:
            yield from _ledgers(each)
