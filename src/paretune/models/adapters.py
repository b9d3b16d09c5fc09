"""PEFT adapter folders, in and out: the format in which experts live on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paretune.core.errors import AdapterError, ModelError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's name for the model an adapter wraps
OTHER_VARIANTS = ("use_dora", "use_qalora", "alora_invocation_tokens", "layer_replication")  # not y = W x + s B A x
BASE_DIGEST = "paretune_base_digest"  # metadata of the tensor file


@dataclass(frozen=True, eq=False)
class Adapter:
    """One low-rank expert as read from a folder.

    Attributes:
        folder: Where it lies.
        factors: Layer path -> (A `[r, in]`, B `[out, r]`).
        scale: What its product B A is multiplied by.
        base_digest: Digest of the base model it was trained on; empty when the folder does not say.
    """

    folder: Path
    factors: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    base_digest: str

    @property
    def rank(self) -> int:
        """Largest rank of its factors."""
        return max(down.shape[0] for down, _ in self.factors.values())


def save_adapter(bank: ExpertBank, expert: int, folder: Path) -> None:
    """Write one expert of a bank as a PEFT adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, layer in bank.layers.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = layer.A[expert].detach().cpu().contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = layer.B[expert].detach().cpu().contiguous()
    alpha = float(bank.alphas[expert])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": bank.base.name,
        "r": bank.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": _target_modules(bank),
        "fan_in_fan_out": any(type(layer.original).__name__ == "Conv1D" for layer in bank.layers.values()),
        "bias": "none",
        "inference_mode": True,
    }
    save_file(tensors, folder / TENSORS, metadata={"format": "pt", BASE_DIGEST: bank.base.digest})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


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
        AdapterError: If files are missing or damaged, or the adapter uses what the bank cannot express (DoRA, biases,
            fully trained modules, ranks or scales that differ between layers).
    """
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise AdapterError(
                f"an adapter must be a folder with {CONFIG} and {TENSORS}, got '{folder}' without {name}. "
                "Save it with PEFT's save_pretrained, which writes safetensors."
            )
    try:
        config = json.loads((folder / CONFIG).read_text())
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only keys()
            metadata = file.metadata() or {}
    except (ValueError, SafetensorError, OSError) as error:  # no JSON, and no UTF-8, are both a ValueError
        raise AdapterError(f"adapter '{folder}' must be readable, got: {error}. Copy or train it again.") from error
    if not isinstance(config, dict):
        raise AdapterError(
            f"adapter '{folder}' must be readable, got: {CONFIG} without keys and values. Copy it again."
        )
    _refuse_unsupported(config, folder)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name in tensors:
        path, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
        if part not in ("A.weight", "B.weight"):
            raise AdapterError(
                f"adapter '{folder}' must hold LoRA factors only, got '{name}'. Export it without trained modules."
            )
        pair = f"{PREFIX}{path}.lora_A.weight", f"{PREFIX}{path}.lora_B.weight"
        for other in pair:
            if other not in tensors:
                raise AdapterError(f"adapter '{folder}' must have A and B for each layer, got no {other}.")
        factors[path] = tensors[pair[0]].float(), tensors[pair[1]].float()
    if not factors:
        raise AdapterError(f"adapter '{folder}' must hold at least one pair of LoRA factors, got none.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, (int, float)) or rank < 1:
        raise AdapterError(f"adapter '{folder}' must name its rank r and lora_alpha, got {rank!r} and {alpha!r}.")
    scale = float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(folder, factors, scale, metadata.get(BASE_DIGEST, ""))


def _refuse_unsupported(config: Mapping[str, object], folder: Path) -> None:
    problems = {
        "peft_type other than LORA": config.get("peft_type") != "LORA",
        **{name: bool(config.get(name)) for name in OTHER_VARIANTS},
        "a trained bias": config.get("bias", "none") != "none",
        "modules_to_save": bool(config.get("modules_to_save")),
        "rank_pattern or alpha_pattern": bool(config.get("rank_pattern")) or bool(config.get("alpha_pattern")),
    }
    for problem, present in problems.items():
        if present:
            raise AdapterError(f"adapter '{folder}' must be plain LoRA, got {problem}. Train it without.")


def load_bank(base: BaseModel, folders: Sequence[Path]) -> ExpertBank:
    """Stack adapter folders into a bank; smaller ranks are filled up with zeros.

    Raises:
        AdapterError: If an adapter was trained on another base model or does not fit this one's layers.
    """
    adapters = [read_adapter(Path(folder)) for folder in folders]
    if not adapters:
        raise AdapterError("a bank must have at least one adapter folder, got none. Name the experts.")
    for adapter in adapters:
        if adapter.base_digest and adapter.base_digest != base.digest:
            raise AdapterError(
                f"adapter '{adapter.folder}' must belong to base model '{base.name}' ({base.digest}), got one trained "
                f"on {adapter.base_digest}. Load the base model it was trained on."
            )
    rank = max(adapter.rank for adapter in adapters)
    paths = sorted({path for adapter in adapters for path in adapter.factors})
    try:
        bank = ExpertBank(base, len(adapters), rank=rank, targets=sorted({path.rpartition(".")[2] for path in paths}))
    except ModelError as error:
        raise AdapterError(_misfit(adapters[0], base, next(iter(adapters[0].factors)))) from error
    bank.alphas = torch.tensor([adapter.scale * rank for adapter in adapters])
    try:
        for number, adapter in enumerate(adapters):
            _fill(bank, number, adapter)
    except AdapterError:
        bank.unwrap()
        raise
    return bank


@torch.no_grad()
def _fill(bank: ExpertBank, expert: int, adapter: Adapter) -> None:
    """Copy an adapter's factors into one expert of a fresh bank; what it has no factors for stays zero, no change."""
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
    return (
        f"adapter '{adapter.folder}' must fit base model '{base.name}', got a layer '{path}' that it does not have. "
        "Load the base model it was trained on."
    )
