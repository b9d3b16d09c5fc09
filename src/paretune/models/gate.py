"""Gates: expert weights that a trained network chooses, from what the model has computed so far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from paretune.core.digests import canonical_json, digest
from paretune.core.errors import AdapterError, ConfigError, MixingError, ShapeError
from paretune.core.imports import import_name
from paretune.core.seeds import stream_key
from paretune.core.text_files import parsed_json
from paretune.models.bank import ExpertBank
from paretune.models.foreign_context import exchanged
from paretune.models.gate_checks import checked_shapes, checked_start, hidden_size_of
from paretune.models.mixing import Mixing
from paretune.models.prompt_states import PARTS, block_inputs, prompt_states
from paretune.models.tensor_files import write_tensors

GateLevel = Literal["block", "token", "prompt"]
FLOOR = 0.01  # of a prior in the softmax form: what an expert of no weight starts with
WIDTH = 32  # hidden units of a gate; the prototype's
OF_ALL = ("context", "context_prompts", "form", "gate_scale", "top_1")  # settings that all gates keep
SIZES = ("experts", "objectives", "hidden_size", "blocks")  # in the file's metadata, beside class and settings


class TrainedGate:
    """A gate with parameters: what a method's own gate inherits. It says their shapes, and what it makes of them.

    Parameters are kept in fp32, each network's after the other's.

    Attributes:
        level: What weights are chosen for: `block`, each token in each block, by the block's own input and a network of
            its own; `token`, each token, by the input of one block and one network, for the blocks from there on, see
            `weights`; `prompt`, each row, by its prompt and one network, see `row_weights`.
        experts: Number of experts E.
        objectives: Number of objectives K.
        hidden_size: Size H of a block's input.
        blocks: Number of transformer blocks.
        settings: Plain data that says how large it is; saved with it.
        base_digest: Digest of the base model it reads.
        flat: All parameters in one row, `[1, G]`; those of the networks are views of it. Change it in place.
        networks: Parameters of each network, one a block or one alone, of the shapes that `shapes` says.
    """

    level: ClassVar[GateLevel] = "block"

    def __init__(self, bank: ExpertBank, objectives: int, seed: int, settings: Mapping[str, Any] | None = None) -> None:
        """Make an untrained gate for the experts of a bank.

        Args:
            bank: The bank, which says how many experts, blocks and hidden states there are.
            objectives: Number of objectives K.
            seed: Of what `start` draws.
            settings: Of the method's settings those that the gate reads.

        Raises:
            ShapeError: If there is not at least one objective, a shape is empty, or `start` returns others.
            ModelError: If the wrapped layers do not lie in one list of blocks, or the model names no hidden size.
        """
        if objectives < 1:
            raise ShapeError(f"a gate must have at least one objective, got {objectives}. Name what it weighs.")
        self.experts, self.objectives = bank.experts, objectives
        self.hidden_size, self.blocks = hidden_size_of(bank), len(bank.blocks)
        names = dict.fromkeys((*self.reads, *OF_ALL))
        self.settings = {name: (settings or {})[name] for name in names if name in (settings or {})}
        self.base, self.base_digest = bank.base, bank.base.digest
        shapes = checked_shapes(type(self).__name__, self.shapes())
        sizes = [math.prod(shape) for shape in shapes]
        count = self.blocks if self.level == "block" else 1
        self.flat = torch.zeros(1, count * sum(sizes), device=bank.base.device)
        parts = iter(self.flat[0].split(sizes * count))
        self.networks = [[nn.Parameter(next(parts).view(shape)) for shape in shapes] for _ in range(count)]
        with torch.no_grad():
            for block, network in enumerate(self.networks):
                generator = torch.Generator().manual_seed(stream_key(seed, "gate", block) % 2**63)
                values = checked_start(type(self).__name__, self.start(generator), shapes)
                for parameter, each in zip(network, values, strict=True):
                    parameter.copy_(each)

    reads: ClassVar[tuple[str, ...]] = ()  # names of the settings that it reads

    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Return the shapes of one network's parameters."""
        raise NotImplementedError(f"{type(self).__name__} must say the shapes of its parameters: def shapes(self)")

    def start(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Return the first values of one network's parameters; zeros unless overridden."""
        del generator
        return [torch.zeros(shape) for shape in self.shapes()]

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for the tokens of one block, `[B, T, E]`; see `Gate.weights`."""
        raise NotImplementedError(f"{type(self).__name__} must weigh experts: def weights(self, block, hidden, ...)")

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for rows, `[B, E]`, of a gate at the level of prompts; see `RowGate.row_weights`."""
        raise NotImplementedError(f"{type(self).__name__} must weigh experts: def row_weights(self, context, ...)")

    @property
    def context_size(self) -> int:
        """How much of a prompt or token the gate reads: D of the prompt's states, or the size H of a block's input."""
        return PARTS * self.hidden_size if self.level == "prompt" else self.hidden_size

    @property
    def context(self) -> str:
        """What it is shown: its `own` context, none at all (`blind`), or one of another prompt (`shuffled`)."""
        return str(self.settings.get("context", "own"))

    @property
    def form(self) -> str:
        """Whether weights are `free`, or probabilities times `gate_scale` (`softmax`)."""
        return str(self.settings.get("form", "free"))

    @property
    def scale(self) -> float:
        """What the weights of the softmax form sum to."""
        scale: Any = self.settings.get("gate_scale", 1.0)
        return float(scale)

    @property
    def reads_block(self) -> int | None:
        """Number of the one block whose input it reads, at the level of tokens; else None."""
        return 0 if self.level == "token" else None

    @property
    def reads_prompts(self) -> bool:
        """Whether it must be given the prompts of the rows that it weighs."""
        return self.prompt_passes > 0

    @property
    def prompt_passes(self) -> int:
        """How often the base model alone reads each prompt for it."""
        return int(self.context == "shuffled" or (self.level == "prompt" and self.context == "own"))

    def selected(self, weights: Tensor) -> Tensor:
        """Return what is mixed of weights `[..., E]`: with `top_1` the largest alone, which gets the sum of all.

        Its gradient is that of the weights themselves, straight through the selection.
        """
        if not self.settings.get("top_1"):
            return weights
        best = F.one_hot(weights.argmax(dim=-1), self.experts) * weights.sum(dim=-1, keepdim=True)
        return best.detach() + (weights - weights.detach())

    def mixing(
        self,
        prior: Tensor,
        preferences: Tensor,
        prompts: Sequence[Sequence[int]] | None = None,
        scale: Tensor | None = None,
    ) -> Mixing:
        """Return the mixing of some rows under the gate.

        Args:
            prior: Expert weights of the rows without it, `[B, E]`.
            preferences: Of the rows, `[B, K]`.
            prompts: Token ids of the rows' prompts; needed where `reads_prompts`.
            scale: What multiplies all weights of a row, `[B]`, or each of them, `[B, E]`.

        Raises:
            ShapeError: If the prompts are needed and are not there, one for each row.
        """
        if self.reads_prompts and (prompts is None or len(prompts) != len(prior)):
            got = "none" if prompts is None else str(len(prompts))
            raise ShapeError(
                f"prompts must be one for each of the {len(prior)} rows that {type(self).__name__} weighs, got {got}. "
                "Pass the token ids of each row's prompt."
            )
        context = None
        if prompts is not None and self.reads_prompts:
            context = self.context_of(prompts)
        elif self.context == "blind":
            size = (self.context_size,) if self.level == "prompt" else (self.blocks, self.hidden_size)
            context = torch.zeros(len(prior), *size, device=prior.device)
        if self.level == "prompt" and context is not None:
            return Mixing.by_prompt(prior, self, preferences, context, scale)
        return Mixing.gated(prior, self, preferences, scale, context)

    def context_of(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return what it reads of prompts alone: at their level `[B, D]`, else for each block, `[B, blocks, H]`."""
        if self.context == "shuffled":
            pool: Any = self.settings.get("context_prompts", ())
            prompts = exchanged(prompts, pool)
        return prompt_states(self.base, prompts) if self.level == "prompt" else block_inputs(self.base, prompts)

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all blocks in the order of `flat`."""
        return [parameter for network in self.networks for parameter in network]

    def check_context(self, context: Tensor) -> None:
        """Check states of prompts `[B, D]` that a gate of prompts is given.

        Raises:
            MixingError: If they are not of the size that it reads.
        """
        if context.shape[1] != self.context_size:
            raise MixingError(
                f"states of prompts must be of size {self.context_size}, which the gate reads, got {context.shape[1]}. "
                "Use the base model that the gate was made for."
            )

    def take_gradients(self) -> Tensor:
        """Return what backward passes have added up since the last call, `[1, G]`, and start again from zero."""
        parts = []
        for parameter in self.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts.append(gradient.flatten())
            parameter.grad = None
        return torch.cat(parts)[None]

    @property
    def sizes(self) -> dict[str, int]:
        """What the gate was made for, by name."""
        return {name: int(getattr(self, name)) for name in SIZES}

    def _described(self) -> dict[str, str]:
        sizes = {name: str(size) for name, size in self.sizes.items()}
        where = f"{type(self).__module__}:{type(self).__qualname__}"
        return {**sizes, "class": where, "settings": canonical_json(self.settings), "base_digest": self.base_digest}

    @property
    def digest(self) -> str:
        """Digest of its content: class, settings, sizes, base model and parameters."""
        parameters = hashlib.sha256(self.flat.detach().cpu().numpy().tobytes()).hexdigest()
        return digest({**self._described(), "parameters": parameters})

    def save(self, path: Path) -> None:
        """Write the gate as one safetensors file."""
        metadata = {"format": "pt", **self._described(), "digest": self.digest}
        write_tensors(path, {"flat": self.flat}, metadata)


def resolve_gate(name: str) -> type[TrainedGate]:
    """Return the class of a gate by `module:Class`.

    Raises:
        ConfigError: If it cannot be imported, does not inherit `TrainedGate`, or has no shapes or weights of its own.
    """
    found = import_name("gate", name)
    if not (isinstance(found, type) and issubclass(found, TrainedGate)):
        raise ConfigError(
            f"gate must be a class that inherits TrainedGate, got '{name}'. See docs/your_method.md for a complete one."
        )
    weighs = "row_weights" if found.level == "prompt" else "weights"
    left_out = [part for part in ("shapes", weighs) if getattr(found, part) is getattr(TrainedGate, part)]
    if left_out:
        raise ConfigError(
            f"gate '{name}' must be a class with shapes, {weighs} of its own, got one without {', '.join(left_out)}. "
            "See docs/your_method.md for a complete one."
        )
    return found


def load_gate(bank: ExpertBank, path: Path) -> TrainedGate:
    """Read a gate that `TrainedGate.save` wrote, for the bank whose experts it weighs.

    Raises:
        AdapterError: If the file is missing, damaged, no gate, or made for another base model or for another number of
            experts, or its class cannot be found.
    """
    if not path.is_file():
        raise AdapterError(f"gate '{path}' must be a safetensors file, got none. Train it again, or name its file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            flat = file.get_tensor("flat")
        sizes = {name: int(metadata[name]) for name in SIZES}
        settings, name = parsed_json(metadata["settings"]), metadata["class"]
    except KeyError as error:
        raise AdapterError(f"gate '{path}' must be a gate's file, got no {error} in it. Name its file.") from error
    except (ValueError, SafetensorError, OSError) as error:
        raise AdapterError(f"gate '{path}' must be readable, got: {error}. Copy or train it again.") from error
    try:
        found = resolve_gate(name)  # nothing else is called for a file's sake
    except ConfigError as error:
        raise AdapterError(f"gate '{path}': {error}") from error
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
    if min(sizes.values()) < 1 or not isinstance(settings, dict):
        raise broken
    try:
        gate = found(bank, sizes["objectives"], 0, settings)
    except (ShapeError, TypeError, ValueError) as error:  # settings that are none
        raise broken from error
    if gate.sizes != sizes or flat.shape != gate.flat.shape or flat.dtype != gate.flat.dtype:
        raise broken
    gate.flat.copy_(flat)
    if gate.digest != metadata.get("digest"):
        raise broken
    return gate


class SmallNetwork(TrainedGate):
    """A gate whose networks have one hidden layer of SiLU units over context and preference, the last layer zero.

    The context is normalised and projected in its own number format, as the experts' factors are: it is the one product
    whose cost grows with H, and a sum over H is kept in fp32 inside it. All behind it (the preference, the units, the
    last layer, the prior) is fp32, and rounded once, where it multiplies the experts.

    Attributes:
        width: Hidden units of each network.
    """

    reads: ClassVar[tuple[str, ...]] = ("width", "gate_temperature")

    @property
    def width(self) -> int:
        """Hidden units of each network."""
        return int(self.settings.get("width", WIDTH))

    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Return the shapes of two layers, weight and bias in turn."""
        inputs = self.context_size + self.objectives
        return (self.width, inputs), (self.width,), (self.experts, self.width), (self.experts,)

    def start(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Draw the first layer as `torch.nn.Linear` does (Kaiming), and leave the last one zero."""
        bound = 1 / math.sqrt(self.context_size + self.objectives)  # kaiming_uniform_, a = sqrt(5), weight and bias
        first, bias, *last = self.shapes()
        drawn = [(torch.rand(shape, generator=generator) * 2 - 1) * bound for shape in (first, bias)]
        return [*drawn, *(torch.zeros(shape) for shape in last)]

    def offset(self, network: int, context: Tensor, preferences: Tensor) -> Tensor:
        """Return what one network makes of contexts `[B, T, D]` and preferences `[B, K]`, `[B, T, E]`."""
        size = context.shape[-1]
        first, first_bias, last, last_bias = self.networks[network]
        precise = torch.promote_types(context.dtype, torch.float32)
        units = F.linear(context, first[:, :size].to(context.dtype)).to(precise)
        wanted = F.linear(preferences.to(precise), first[:, size:].to(precise), first_bias.to(precise))
        return F.linear(F.silu(units + wanted[:, None]), last.to(precise), last_bias.to(precise))

    def combined(self, prior: Tensor, offset: Tensor) -> Tensor:
        """Return weights of a prior and what a network says, `[..., E]` both.

        The free form is their sum. The softmax form is `scale * softmax(offset / temperature + log(prior + FLOOR))`,
        which lets an expert be recruited that has no weight there. Where offsets are zero it is next to the prior: for
        E experts and a prior w on the simplex `scale (w + FLOOR) / (1 + FLOOR E)`.
        """
        if self.form == "free":
            return prior + offset
        temperature: Any = self.settings.get("gate_temperature", 1.0)
        return self.scale * (offset / float(temperature) + (prior.clamp(min=0) + FLOOR).log()).softmax(dim=-1)


class BlockGate(SmallNetwork):
    """One small network a transformer block: `g_b = prior + MLP_b([layernorm(block input), preference])`.

    The last layer starts at zero, so that an untrained gate is its prior exactly; in the softmax form next to it, see
    `SmallNetwork.combined`. What comes out of the free form need not be on the simplex. The layer norm has no
    parameters.
    """

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
        return self.combined(prior[:, None], self.offset(block, normalised(hidden, self.hidden_size), preferences))


def normalised(hidden: Tensor, size: int) -> Tensor:
    """Return hidden states `[B, T, H]` layer-normed, without parameters.

    Raises:
        MixingError: If they are not of the size that a gate reads.
    """
    got = hidden.shape[-1]
    if got != size:
        raise MixingError(
            f"hidden states must be of size {size}, which the gate reads, got {got}. "
            "Use the base model that the gate was made for."
        )
    return F.layer_norm(hidden, (size,))
