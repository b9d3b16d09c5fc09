"""A learner's state as one safetensors file: tensors by name, and plain data beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paretune.core.errors import RecordError
from paretune.records.files import replacing
from paretune.records.states import DIGEST, UNSEALED, seal_state, state_trouble

State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, plain data


def save_state(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write a state with its digest, all or nothing.

    Raises:
        RecordError: If the disk is full; the former state is still there then.
    """
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(cpu, temporary, metadata={"state": json.dumps(plain, allow_nan=False), DIGEST: UNSEALED})
        seal_state(temporary)


def read_state(path: Path) -> State:
    """Read a state.

    Raises:
        RecordError: If the file is damaged.
    """
    trouble = state_trouble(path)
    if trouble:
        raise RecordError(f"checkpoint must be as it was written, got '{path}', which {trouble}. Remove it, run again.")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise RecordError(f"checkpoint must be readable, got '{path}' ({error}). Delete it and run again.") from error
