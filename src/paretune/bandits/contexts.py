"""What a bandit knows before it chooses: a prompt's states in few numbers, the preference, and products of both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import FloatArray

MOST_FEATURES = 32  # more would take thousands of pulls to learn
FLAT = 1e-6  # of the largest deviation: directions in which prompts do not differ


class Compression(NamedTuple):
    """How states become few numbers, `(states - mean) @ axes`: mean 0 and variance 1 over the prompts it was made of.

    Attributes:
        mean: `[D]`.
        axes: Principal axes, each divided by the standard deviation along it, `[D, q]`; 0 where there is none.
    """

    mean: FloatArray
    axes: FloatArray


def compression(states: FloatArray, features: int) -> Compression:
    """Fit principal components to states of prompts `[P, D]`.

    Prompts that do not differ, as a gate that is blind sees them, leave axes of 0: features that say nothing.

    Args:
        states: Of training prompts.
        features: Number of components q, at most `MOST_FEATURES`.

    Raises:
        ConfigError: If the number of features is out of range.
        ShapeError: If there are no prompts.

    Source:
        Principal components, divided by their deviations (whitening); their signs, and 0 for what is flat, are ours.
    """
    check_context(features, 0)
    if states.ndim != 2 or not len(states):
        raise ShapeError(f"states must be [P, D] of at least one prompt, got shape {list(states.shape)}.")
    mean = states.mean(axis=0)
    _, sizes, directions = np.linalg.svd(states - mean, full_matrices=False)
    deviations = sizes / np.sqrt(len(states))
    axes = np.zeros((states.shape[1], features))
    for place, (deviation, direction) in enumerate(zip(deviations[:features], directions, strict=False)):
        if deviation > FLAT * max(float(deviations[0]), FLAT):
            sign = np.sign(direction[np.abs(direction).argmax()])  # else it is the library's choice
            axes[:, place] = sign * direction / deviation
    return Compression(mean, axes)


def compressed(how: Compression, states: FloatArray) -> FloatArray:
    """Return states `[N, D]` in few numbers, `[N, q]`."""
    return np.asarray((states - how.mean) @ how.axes)


def check_context(features: int, products: int) -> None:
    """Check what a context is made of.

    Args:
        features: Number of components of a prompt's states.
        products: How many of them are multiplied with the preference.

    Raises:
        ConfigError: If either is out of range.
    """
    if not 1 <= features <= MOST_FEATURES:
        raise ConfigError(f"features must be between 1 and {MOST_FEATURES}, got {features}. Try 8.")
    if products < 0:
        raise ConfigError(f"products must not be negative, got {products}. Write 0 for none.")
    if products > features:
        raise ConfigError(
            f"products must be at most the number of features ({features}), got {products}. Write products: {features} "
            "for products with all of them, or raise features."
        )


def context_rows(prompts: FloatArray, preferences: FloatArray, products: int) -> FloatArray:
    """Return contexts, `[N, d]`: 1, the prompt, the preference, and products of the preference with the prompt.

    Products take the first components alone (low rank). A preference has K - 1 numbers, standardised for preferences
    drawn uniformly from the simplex.

    Args:
        prompts: Compressed states, `[N, q]`.
        preferences: `[N, K]`.
        products: How many of the q components are multiplied.

    Raises:
        ShapeError: If there are fewer components.

    Source:
        Ours.

    Example:
        >>> context_rows(np.asarray([[2.0, 3.0]]), np.asarray([[1.0, 0.0]]), 1).round(3).tolist()
        [[1.0, 2.0, 3.0, 1.732, 3.464]]
    """
    objectives = preferences.shape[1]
    if products > prompts.shape[1]:
        raise ShapeError(
            f"prompts must have a component for each of {products} products, got {prompts.shape[1]}. Compress states "
            "to more features, or take fewer products."
        )
    deviation = np.sqrt(max(objectives - 1, 1) / (objectives**2 * (objectives + 1)))  # of Dirichlet(1)
    wanted = (preferences[:, :-1] - 1 / objectives) / deviation
    both = prompts[:, :products, None] * wanted[:, None]  # [N, products, K - 1]
    both = both.reshape(len(prompts), both.shape[1] * both.shape[2])
    return np.concatenate([np.ones((len(prompts), 1)), prompts, wanted, both], axis=1)


def context_size(features: int, objectives: int, products: int) -> int:
    """Return the number d of entries of a context, see `context_rows`."""
    return 1 + features + (objectives - 1) * (1 + products)
