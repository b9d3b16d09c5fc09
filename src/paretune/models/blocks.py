"""The transformer blocks of a base model: each opens its gate, or takes its own mixing, before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from paretune.core.errors import ModelError
from paretune.models.banked_linear import Pin, Pinned


def find_blocks(model: nn.Module, paths: Iterable[str], name: str) -> list[nn.Module]:
    """Return the transformer blocks that hold some layers, in order.

    Args:
        model: The base model.
        paths: Of the layers.
        name: Of the base model, for the error.

    Raises:
        ModelError: If the layers do not lie in one list of blocks.
    """
    found: nn.ModuleList | None = None
    for path in paths:
        holder = _outermost_list(model, path)
        found = found or holder
        if holder is None or holder is not found:
            raise ModelError(
                f"wrapped layers must lie in one list of transformer blocks to be gated, got '{path}' outside it in "
                f"'{name}'. Name layers of the blocks alone in `targets`, or mix without a gate."
            )
    return list(found or [])


def _outermost_list(model: nn.Module, path: str) -> nn.ModuleList | None:
    """Return the first list of modules on the way to a layer: inside a block there may be others, as of experts."""
    module = model
    for name in path.split("."):
        module = module.get_submodule(name)
        if isinstance(module, nn.ModuleList):
            return module
    return None


@contextmanager
def gated(blocks: Sequence[nn.Module], pinned: Pinned, pin: Pin) -> Iterator[None]:
    """Let every block begin by opening its gate, in the forward pass and where checkpointing recomputes it."""
    try:
        with _entered(blocks, partial(_open, pinned, pin), partial(_checkpointed_if_pinned, pinned, pin)):
            yield
    finally:
        pin.forget()


@contextmanager
def pinned_by_block(blocks: Sequence[nn.Module], pinned: Pinned, pins: Sequence[Pin]) -> Iterator[None]:
    """Let every block begin by taking its own pin, in the forward pass and where checkpointing recomputes it."""

    def take(number: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pinned.pin = pins[number]

    def checkpointed(number: int, *rest: Any) -> Any:
        return _checkpointed(pinned, pins[number], number, *rest)

    with _entered(blocks, take, checkpointed):
        yield


@contextmanager
def _entered(
    blocks: Sequence[nn.Module], enter: Callable[..., None], checkpointed: Callable[..., Any]
) -> Iterator[None]:
    """Call `enter(number, block, args, kwargs)` before each block.

    Where a block is checkpointed, `checkpointed(number, checkpoint, run, *args)` stands for `checkpoint(run, *args)`:
    transformers recomputes a block without its hooks.
    """
    hooks: list[Any] = []
    checkpoints: list[tuple[Any, Callable[..., Any]]] = []
    for number, block in enumerate(blocks):
        hooks.append(block.register_forward_pre_hook(partial(enter, number), with_kwargs=True))
        if getattr(block, "gradient_checkpointing", False):
            owner: Any = block
            original = owner._gradient_checkpointing_func
            checkpoints.append((owner, original))
            owner._gradient_checkpointing_func = partial(checkpointed, number, original)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for owner, original in checkpoints:
            owner._gradient_checkpointing_func = original


def _open(
    pinned: Pinned, pin: Pin, number: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Open the gate of a block, unless another mixing is pinned inside, or its checkpoint does so."""
    if pinned.pin is pin and not (block.training and getattr(block, "gradient_checkpointing", False)):
        pin.open_gate(number, args[0] if args else kwargs["hidden_states"])


def _checkpointed_if_pinned(
    pinned: Pinned, pin: Pin, number: int, checkpoint: Callable[..., Any], run: Callable[..., Any], *args: Any
) -> Any:
    if pinned.pin is not pin:
        return checkpoint(run, *args)
    return _checkpointed(pinned, pin, number, checkpoint, run, *args)


def _checkpointed(
    pinned: Pinned, pin: Pin, number: int, checkpoint: Callable[..., Any], run: Callable[..., Any], *args: Any
) -> Any:
    """Checkpoint a block together with its pin and its gate.

    During the backward pass another mixing may be pinned, or the same with other gated tokens than in the forward
    pass: so both belong to what is recomputed. Weights that the block does not choose are an argument, so that
    gradients find their way back to where they were chosen.
    """

    def under(carried: Tensor | None, hidden: Tensor, *rest: Any) -> Any:
        before, pinned.pin = pinned.pin, pin
        if carried is None:
            pin.open_gate(number, hidden)
        else:
            pin.gate = carried
        try:
            return run(hidden, *rest)
        finally:
            pinned.pin = before
            pin.close_gate()

    return checkpoint(under, pin.carry(number, args[0]), *args)
