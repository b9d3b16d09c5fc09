"""Checks of what a gate's class says of its parameters, and of the model that it is to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

from torch import Tensor

from paretune.core.errors import ModelError, ShapeError
from paretune.core.user_calls import shown
from paretune.models.bank import ExpertBank


def checked_shapes(name: str, shapes: Any) -> list[tuple[int, ...]]:
    """Return the shapes of a network's parameters.

    Raises:
        ShapeError: If they are no shapes, or one is empty.
    """
    whole = isinstance(shapes, (list, tuple)) and all(
        isinstance(shape, (list, tuple)) and all(isinstance(size, SupportsIndex) and int(size) > 0 for size in shape)
        for shape in shapes
    )
    if not whole or not shapes:
        raise ShapeError(
            f"shapes of {name} must return a tuple of shapes with at least one parameter each, got "
            f"{shown(shapes)}. Return ((rows, columns), ...)."
        )
    return [tuple(shape) for shape in shapes]


def checked_start(name: str, values: Any, shapes: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Return the first values of a network's parameters.

    Raises:
        ShapeError: If they are not one tensor for each shape.
    """
    are_tensors = isinstance(values, (list, tuple)) and all(isinstance(each, Tensor) for each in values)
    got = str([tuple(each.shape) for each in values]) if are_tensors else shown(values)
    if not are_tensors or [tuple(each.shape) for each in values] != list(shapes):
        raise ShapeError(
            f"start of {name} must return one tensor for each shape {list(shapes)}, got {got}. "
            "Return them in the order of shapes()."
        )
    found: Sequence[Tensor] = values
    return found


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
