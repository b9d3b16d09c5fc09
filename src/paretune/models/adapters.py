"""PEFT adapter folders, in and out: the format in which experts live on disk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from paretune.core.digests import digest, file_digest, model_digest
from paretune.core.errors import AdapterError, ModelError
from paretune.models.adapter_config import CONFIG, AdapterConfig, read_config
from paretune.models.bank import ExpertBank, linear_layers
from paretune.models.base import BaseModel
from paretune.models.loading import unwrap
from paretune.models.tensor_files import write_tensors

TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's name for the model an adapter wraps
BASE_DIGEST = "paretune_base_digest"  # metadata of the tensor file


@dataclass(frozen=True, eq=False)
class Adapter:
    """One low-rank expert as read from a folder.

    Attributes:
        folder: Where it lies.
        factors: Layer path -> (A `[r, in]`, B `[out, r]`).
        config: What its configuration says.
        base_digest: Digest of the base model it was trained on; empty when the folder does not say.
    """

    folder: Path
    factors: Mapping[str, tuple[Tensor, Tensor]]
    config: AdapterConfig
    base_digest: str


def save_adapter(bank: ExpertBank, expert: int, folder: Path, rank: int | None = None) -> None:
    """Write one expert of a bank as a PEFT adapter folder.

    Args:
        bank: The bank.
        expert: Which of its experts.
        folder: Where to.
        rank: The expert's own, where it is lower than the bank's: what lies beyond is zero, and left out.
    """
    kept = bank.rank if rank is None else rank
    tensors: dict[str, Tensor] = {}
    for path, layer in bank.layers.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = layer.A[expert, :kept]
        tensors[f"{PREFIX}{path}.lora_B.weight"] = layer.B[expert, :, :kept]
    alpha = float(bank.alphas[expert]) * kept / bank.rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": bank.base.name,
        "r": kept,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": _target_modules(bank),
        "fan_in_fan_out": any(type(layer.original).__name__ == "Conv1D" for layer in bank.layers.values()),
        "bias": "none",
        "inference_mode": True,
    }
    write_tensors(folder / TENSORS, tensors, {"format": "pt", BASE_DIGEST: bank.base.digest})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def save_factors(
    bank: ExpertBank, factors: Mapping[str, Sequence[tuple[Tensor, Tensor]]], scales: Sequence[float],
    folders: Sequence[Path],
) -> None:  # fmt: skip
    """Write other experts of the layers of a bank as PEFT adapter folders; the bank is unwrapped.

    Args:
        bank: It says which layers of which base model.
        factors: Layer path -> for each expert A `[r, in]` and B `[out, r]`, all of one rank.
        scales: What each expert's `B A` is multiplied by.
        folders: One for each expert.
    """
    rank, targets = len(next(iter(factors.values()))[0][0]), sorted({path.rpartition(".")[2] for path in bank.layers})
    bank.unwrap()
    made = ExpertBank(bank.base, len(folders), rank, targets=targets)
    made.alphas = torch.tensor([scale * rank for scale in scales])
    with torch.no_grad():
        for path, pairs in factors.items():
            for expert, (down, up) in enumerate(pairs):
                made.layers[path].A[expert], made.layers[path].B[expert] = down, up
    for expert, folder in enumerate(folders):
        save_adapter(made, expert, folder)
    made.unwrap()


def _target_modules(bank: ExpertBank) -> list[str]:
    """Name the wrapped layers by their last part where that means just them, else by their whole path."""
    short = {path.rpartition(".")[2] for path in bank.layers}
    wrapped = tuple(f"{path}." for path in bank.layers)
    for path, _ in bank.base.model.named_modules():
        if path.rpartition(".")[2] in short and path not in bank.layers and not path.startswith(wrapped):
            return sorted(bank.layers)
    return sorted(short)


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder written by this library or by PEFT itself.

    Raises:
        AdapterError: If files are missing or damaged, its configuration holds what is not understood, or its tensors
            are not the factors that the configuration speaks of.
    """
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise AdapterError(
                f"an adapter must be a folder with {CONFIG} and {TENSORS}, got '{folder}' without {name}. "
                "Save it with PEFT's save_pretrained, which writes safetensors."
            )
    config = read_config(folder)
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only keys()
            metadata = file.metadata() or {}
    except (ValueError, SafetensorError, OSError) as error:
        raise AdapterError(f"adapter '{folder}' must be readable, got: {error}. Copy or train it again.") from error
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
        if part not in ("A.weight", "B.weight") or not name.startswith(PREFIX):
            raise AdapterError(
                f"adapter '{folder}' must hold LoRA factors only, got '{name}'. Export it without trained modules."
            )
        _check_tensor(tensor, f"'{name}' of adapter '{folder}'", config.rank, 0 if part == "A.weight" else 1)
        pair = f"{PREFIX}{path}.lora_A.weight", f"{PREFIX}{path}.lora_B.weight"
        for other in pair:
            if other not in tensors:
                raise AdapterError(
                    f"adapter '{folder}' must have A and B for each layer, got no {other}. Copy or train it again."
                )
        factors[path] = tensors[pair[0]].float(), tensors[pair[1]].float()
    if not factors:
        raise AdapterError(f"adapter '{folder}' must hold at least one pair of LoRA factors, got none. Train it again.")
    return Adapter(folder, factors, config, metadata.get(BASE_DIGEST, ""))


def adapter_digest(folder: Path) -> str:
    """Digest what an adapter adds to its base model: its tensors, and what its configuration makes of them.

    Where it lies plays no part, nor where its base model does.

    Raises:
        AdapterError: If its configuration cannot be read.
    """
    said = asdict(read_config(folder))
    del said["base"]
    return digest({"tensors": file_digest(folder / TENSORS), "config": said})


def _check_tensor(tensor: Tensor, name: str, rank: int, side: int) -> None:
    """Check that a factor is a matrix of finite numbers of the rank that the configuration says."""
    if not tensor.is_floating_point() or tensor.ndim != 2 or tensor.shape[side] != rank:
        shape = f"[{rank}, in]" if side == 0 else f"[out, {rank}]"
        raise AdapterError(
            f"{name} must be a matrix {shape} of floating-point numbers, got {list(tensor.shape)} of "
            f"{str(tensor.dtype).removeprefix('torch.')}. Copy or train it again."
        )
    if not bool(tensor.float().isfinite().all()):
        raise AdapterError(f"{name} must be finite, got NaN or infinity. Train it again.")


def load_bank(base: BaseModel, folders: Sequence[Path]) -> ExpertBank:
    """Stack adapter folders into a bank; smaller ranks are filled up with zeros.

    Raises:
        AdapterError: If an adapter was trained on another base model or does not fit this one's layers.
    """
    adapters = [read_adapter(Path(folder)) for folder in folders]
    if not adapters:
        raise AdapterError("a bank must have at least one adapter folder, got none. Name the experts.")
    for adapter in adapters:
        _check_base(adapter, base)
    unwrap(base)
    modules, linear = [path for path, _ in base.model.named_modules()], dict(linear_layers(base.model, None))
    rank = max(adapter.config.rank for adapter in adapters)
    paths = sorted({path for adapter in adapters for path in adapter.factors})
    try:
        bank = ExpertBank(base, len(adapters), rank=rank, targets=sorted({path.rpartition(".")[2] for path in paths}))
    except ModelError as error:
        raise AdapterError(_misfit(adapters[0], base, next(iter(adapters[0].factors)))) from error
    bank.alphas = torch.tensor([adapter.config.scale * rank for adapter in adapters])
    try:
        for number, adapter in enumerate(adapters):
            _fill(bank, number, adapter)
            _check_layers(adapter, modules, list(linear))
    except AdapterError:
        bank.unwrap()
        raise
    return bank


@torch.no_grad()
def start_as(bank: ExpertBank, adapter: Adapter) -> None:
    """Let all experts of an initialised bank start as an adapter: what it adds, at its own scale.

    Rank that the bank has beyond the adapter's keeps its random A and a B of zero: it adds nothing yet, and learns.

    Raises:
        AdapterError: If the adapter was trained on another base model, does not fit its layers, or has a higher rank.
    """
    _check_base(adapter, bank.base)
    if adapter.config.rank > bank.rank:
        raise AdapterError(
            f"adapter '{adapter.folder}' must have at most the rank of the bank that starts as it ({bank.rank}), got "
            f"{adapter.config.rank}. Raise rank."
        )
    for expert in range(bank.experts):
        _fill(bank, expert, adapter)
    bank.alphas = torch.full_like(bank.alphas, adapter.config.scale * bank.rank)


def _check_base(adapter: Adapter, base: BaseModel) -> None:
    """Check that an adapter belongs to a base model, by its digest or, where it has none, by a name that is known."""
    trained_on = adapter.base_digest
    name = adapter.config.base
    if not trained_on and name and (Path(name).is_dir() or not (Path(base.name).is_dir() or Path(name).is_absolute())):
        with contextlib.suppress(ModelError):  # a folder that is no model, or no longer, tells nothing
            trained_on = model_digest(name)
    if trained_on and trained_on != base.digest:
        raise AdapterError(
            f"adapter '{adapter.folder}' must belong to base model '{base.name}' ({base.digest}), got one trained on "
            f"{trained_on}{f' ({name!r})' if name else ''}. Load the base model it was trained on."
        )


def _check_layers(adapter: Adapter, modules: Sequence[str], linear: Sequence[str]) -> None:
    """Check that an adapter has factors of just the layers that PEFT adapts by its configuration."""
    try:
        odd = sorted(adapter.config.adapted(modules, linear) ^ set(adapter.factors))
    except AdapterError as error:
        raise AdapterError(f"adapter '{adapter.folder}': {error}") from error
    if odd:
        got = "factors" if odd[0] in adapter.factors else "no factors"
        raise AdapterError(
            f"adapter '{adapter.folder}' must hold factors of just the layers that its {CONFIG} names, got {got} of "
            f"'{odd[0]}'. Copy or train it again."
        )


@torch.no_grad()
def _fill(bank: ExpertBank, expert: int, adapter: Adapter) -> None:
    """Copy an adapter's factors into one expert of a fresh bank; what it has no factors for stays as it is."""
    for path, (down, up) in adapter.factors.items():
        layer = bank.layers.get(path)
        if layer is None:
            raise AdapterError(_misfit(adapter, bank.base, path))
        if down.shape[1] != layer.in_features or up.shape[0] != layer.out_features or down.shape[0] != up.shape[1]:
            raise AdapterError(
                f"adapter '{adapter.folder}' must have factors of [r, {layer.in_features}] and "
                f"[{layer.out_features}, r] for '{path}', got {list(down.shape)} and {list(up.shape)}. "
                "Load the base model it was trained on."
            )
        layer.A[expert, : down.shape[0]] = down.to(layer.A.device)
        layer.B[expert, :, : up.shape[1]] = up.to(layer.B.device)


def _misfit(adapter: Adapter, base: BaseModel, path: str) -> str:
    there = any(name == path for name, _ in base.model.named_modules())
    return (
        f"adapter '{adapter.folder}' must fit base model '{base.name}', got a layer '{path}' that "
        + ("is its output head or no linear layer. " if there else "it does not have. ")
        + ("Train it without that layer." if there else "Load the base model it was trained on.")
    )
