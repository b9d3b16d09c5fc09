"""Loading a base model: once for each process, whole, frozen, and checked."""

from __future__ import annotations

from functools import lru_cache
from weakref import WeakSet

import torch

from paretune.core.checks import user_path
from paretune.core.digests import model_digest
from paretune.core.model_config import is_small
from paretune.models.base import BaseModel, freeze
from paretune.models.soundness import check_once, check_stateless
from paretune.models.whole import load_whole

KIND = "causal language model"  # what a folder must hold, for messages


def default_device() -> str:
    """Return `cuda` when there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str, model: str) -> torch.dtype:
    """Return bf16 for a model on a GPU, fp32 on a CPU.

    A small model is fp32 on a GPU too: it gains no speed from bf16, and enumerated probabilities need the digits.
    """
    return torch.bfloat16 if device.startswith("cuda") and not is_small(model) else torch.float32


def load_base(model: str, device: str | None = None, dtype: torch.dtype | None = None) -> BaseModel:
    """Load a base model once per process and freeze it.

    Args:
        model: Local folder or hub id of a decoder-only model.
        device: `cpu` or `cuda`; by default a GPU when there is one.
        dtype: Number format; by default see `default_dtype`.

    Raises:
        ModelError: If the folder or hub id cannot be loaded whole as a causal language model, or is of a kind that
            cannot be read row by row, see `models.soundness`.
    """
    device, name = device or default_device(), _name(model)
    return _load_once(name, model_digest(name), device, dtype or default_dtype(device, name))


def loaded_dtypes(model: str) -> list[str]:
    """Return the number formats in which a base model is loaded in this process, `float32` for example."""
    return sorted({str(base.dtype).removeprefix("torch.") for base in _loaded if base.name == _name(model)})


def _name(model: str) -> str:
    return str(user_path(model).resolve()) if user_path(model).exists() else model


def look_at_base(folder: str) -> None:
    """Check what names and shapes of a base model's parameters tell, in a moment at any size.

    Raises:
        ModelError: If they are not those of a whole model of a kind that works.
    """
    from transformers import AutoModelForCausalLM

    model, _ = load_whole(AutoModelForCausalLM, folder, torch.float32, "model", KIND, look=True)
    check_stateless(model, folder)


_loaded: WeakSet[BaseModel] = WeakSet()


@lru_cache(maxsize=4)
def _load_once(name: str, digest: str, device: str, dtype: torch.dtype) -> BaseModel:
    from transformers import AutoModelForCausalLM

    model, tokenizer = load_whole(AutoModelForCausalLM, name, dtype, "model", KIND)
    base = freeze(BaseModel(name=name, digest=digest, model=model.to(device), tokenizer=tokenizer))
    check_once(base)
    _loaded.add(base)
    return base


def unwrap(base: BaseModel) -> None:
    """Put back the original layers of a base model, whatever bank wraps it, a half-made one too."""
    bank = getattr(base.model, "_paretune_bank", None)
    if bank is not None:
        bank.unwrap()


def unwrap_all() -> None:
    """Put back the original layers of every base model that was loaded in this process."""
    for base in _loaded:
        unwrap(base)
