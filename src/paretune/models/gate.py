"""Gates: expert weights that a trained network chooses for each token, from what the model has computed so far."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from paretune.core.digests import digest
from paretune.core.errors import AdapterError, MixingError, ModelError, ShapeError
from paretune.core.seeds import stream_key

if TYPE_CHECKING:
    from paretune.models.bank import ExpertBank

KIND = "block_gate"  # in the file's metadata
SIZES = ("experts", "objectives", "hidden_size", "width", "blocks")


class Gate(Protocol):
    """What a mixing asks for the expert weights of its gated tokens.

    A gate must read nothing but what it is given: then one pass over a whole sequence agrees with cached decoding.

    Attributes:
        experts: Number of experts E that it weighs.
        objectives: Number of objectives K of a preference.
        blocks: Number of transformer blocks of the base model that it was made for.
    """

    experts: int
    objectives: int
    blocks: int

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens of one block, `[B, T, E]`, any real numbers.

        Args:
            block: Number of the transformer block.
            hidden: The block's own input at the gated tokens, `[B, T, H]`.
            prior: Expert weights of the rows without the gate, `[B, E]`.
            preferences: Of the rows, `[B, K]`.
        """
        ...  # fmt: skip


class BlockGate:
    """One small network a transformer block: `g_b = prior + MLP_b([layernorm(block input), preference])`.

    The last layer starts at zero, so that an untrained gate is its prior exactly. What comes out need not be on the
    simplex. The layer norm has no parameters.

    Parameters are kept in fp32. The block's input is normalised and projected in the base model's number format, as
    the experts' factors are: it is the one product whose cost grows with H, and a sum over H is kept in fp32 inside it.
    All behind it (the preference, the units, the last layer, the prior) is fp32, and rounded once, where it multiplies
    the experts.

    Attributes:
        experts: Number of experts E.
        objectives: Number of objectives K.
        hidden_size: Size H of a block's input.
        width: Hidden units of each network.
        blocks: Number of transformer blocks.
        base_digest: Digest of the base model it reads.
        flat: All parameters in one row, `[1, G]`; those of the networks are views of it. Change it in place.
    """

    def __init__(self, bank: ExpertBank, objectives: int, seed: int, width: int = 32) -> None:
        """Make an untrained gate for the experts of a bank.

        Args:
            bank: The bank, which says how many experts, blocks and hidden states there are.
            objectives: Number of objectives K.
            seed: Of the first layers, drawn as in `torch.nn.Linear` (Kaiming); last layers are zero.
            width: Hidden units of each network.

        Raises:
            ShapeError: If there is not at least one objective and one unit.
            ModelError: If the wrapped layers do not lie in one list of blocks, or the model names no hidden size.
        """
        if objectives < 1 or width < 1:
            raise ShapeError(f"a gate must have at least one objective and one unit, got {objectives} and {width}.")
        self.experts, self.objectives, self.width = bank.experts, objectives, width
        self.hidden_size, self.blocks = hidden_size_of(bank), len(bank.blocks)
        self.base_digest = bank.base.digest
        inputs = self.hidden_size + objectives
        self._shapes = ((width, inputs), (width,), (self.experts, width), (self.experts,))
        each = sum(math.prod(shape) for shape in self._shapes)
        self.flat = torch.zeros(1, self.blocks * each, device=bank.base.device)
        bound = 1 / math.sqrt(inputs)  # kaiming_uniform_ with a = sqrt(5), of weight and bias
        for block in range(self.blocks):
            generator = torch.Generator().manual_seed(stream_key(seed, "gate", block) % 2**63)
            draws = torch.rand(width * inputs + width, generator=generator)
            self.flat[0, block * each : block * each + len(draws)] = (draws * 2 - 1) * bound
        self.networks: list[list[nn.Parameter]] = []
        parts = iter(self.flat[0].split([math.prod(shape) for shape in self._shapes] * self.blocks))
        for _ in range(self.blocks):
            self.networks.append([nn.Parameter(next(parts).view(shape)) for shape in self._shapes])

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all networks in the order of `flat`: two layers each, weight and bias in turn."""
        return [parameter for network in self.networks for parameter in network]

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens of one block, `[B, T, E]`.

        Args:
            block: Number of the transformer block.
            hidden: The block's own input, `[B, T, H]`.
            prior: Expert weights of the rows without the gate, `[B, E]`.
            preferences: Of the rows, `[B, K]`.

        Raises:
            MixingError: If the hidden states are not of the size that the gate reads.
        """
        size = hidden.shape[-1]
        if size != self.hidden_size:
            raise MixingError(
                f"hidden states must be of size {self.hidden_size}, which the gate reads, got {size}. "
                "Use the base model that the gate was made for."
            )
        first, first_bias, last, last_bias = self.networks[block]
        precise = torch.promote_types(hidden.dtype, torch.float32)
        units = F.linear(F.layer_norm(hidden, (size,)), first[:, :size].to(hidden.dtype)).to(precise)
        wanted = F.linear(preferences.to(precise), first[:, size:].to(precise), first_bias.to(precise))
        offset = F.linear(F.silu(units + wanted[:, None]), last.to(precise), last_bias.to(precise))
        return prior[:, None] + offset

    def take_gradients(self) -> Tensor:
        """Return what backward passes have added up since the last call, `[1, G]`, and start again from zero."""
        parts = []
        for parameter in self.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts.append(gradient.flatten())
            parameter.grad = None
        return torch.cat(parts)[None]

    def _sizes(self) -> dict[str, int]:
        return {name: int(getattr(self, name)) for name in SIZES}

    @property
    def digest(self) -> str:
        """Digest of its content: kind, sizes, base model and parameters."""
        parameters = hashlib.sha256(self.flat.detach().cpu().numpy().tobytes()).hexdigest()
        return digest({"kind": KIND, **self._sizes(), "base": self.base_digest, "parameters": parameters})

    def save(self, path: Path) -> None:
        """Write the gate as one safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        sizes = {name: str(size) for name, size in self._sizes().items()}
        metadata = {"format": "pt", "kind": KIND, **sizes, "base_digest": self.base_digest, "digest": self.digest}
        save_file({"flat": self.flat.detach().cpu().contiguous()}, path, metadata=metadata)

    @classmethod
    def load(cls, bank: ExpertBank, path: Path) -> BlockGate:
        """Read a gate that `save` wrote, for the bank whose experts it weighs.

        Raises:
            AdapterError: If the file is missing, damaged, no block gate, or made for another base model or for another
                number of experts.
        """
        if not path.is_file():
            raise AdapterError(f"gate '{path}' must be a safetensors file, got none. Train it again, or name its file.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                flat = file.get_tensor("flat")
            sizes = {name: int(metadata[name]) for name in SIZES}
        except KeyError as error:
            raise AdapterError(f"gate '{path}' must be a gate's file, got no {error} in it. Name its file.") from error
        except (ValueError, SafetensorError, OSError) as error:
            raise AdapterError(f"gate '{path}' must be readable, got: {error}. Copy or train it again.") from error
        if metadata.get("kind") != KIND:
            raise AdapterError(f"gate '{path}' must be of kind '{KIND}', got '{metadata.get('kind')}'. Name its file.")
        if metadata.get("base_digest") != bank.base.digest:
            raise AdapterError(
                f"gate '{path}' must belong to base model '{bank.base.name}' ({bank.base.digest}), got one trained on "
                f"{metadata.get('base_digest')}. Load the base model it was trained on."
            )
        if sizes["experts"] != bank.experts:
            raise AdapterError(
                f"gate '{path}' must weigh the {bank.experts} experts of the bank, got one for {sizes['experts']}. "
                "Load the experts it was trained with."
            )
        broken = AdapterError(f"gate '{path}' must hold what was saved, got other content. Copy or train it again.")
        if min(sizes.values()) < 1:
            raise broken
        gate = cls(bank, sizes["objectives"], 0, sizes["width"])
        if flat.shape != gate.flat.shape or flat.dtype != gate.flat.dtype:
            raise broken
        gate.flat.copy_(flat)
        if gate._sizes() != sizes or gate.digest != metadata.get("digest"):
            raise broken
        return gate


def hidden_size_of(bank: ExpertBank) -> int:
    """Return the size H of a block's input.

    Raises:
        ModelError: If the model's configuration does not name it.
    """
    size = getattr(bank.base.model.config.get_text_config(), "hidden_size", None)
    if not isinstance(size, int):
        raise ModelError(
            f"model must name its hidden size to be gated, got none in the config.json of '{bank.base.name}'. "
            "Set hidden_size there, or mix without a gate."
        )
    return size
