"""Products of experts where all completions can be listed: of whole completions, and of one token after the other.

Experts are given by what they say of every completion, `[E, P, Y]`. Weights may lie outside the simplex: what they
leave of one, or exceed it by, is the base model's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import NonFiniteError, ShapeError

FloatArray = NDArray[np.float64]


def product_log_probs(
    expert_log_probs: FloatArray, log_reference: FloatArray, expert_weights: FloatArray
) -> FloatArray:
    """Multiply experts as wholes: `log pi = sum_e g_e log pi_e + (1 - sum_e g_e) log pi_ref - log Z`.

    With exact experts of equal beta and g = w this is the best policy for the preference w (docs/theory.md).

    Args:
        expert_log_probs: Log-probabilities of all completions under each expert, `[E, P, Y]`.
        log_reference: The same under the base model, `[P, Y]`.
        expert_weights: g, any real numbers: the same for all prompts, `[E]` or `[..., 1, E]`, or one vector for each
            prompt, `[..., P, E]`.

    Returns:
        Log-probabilities, `[..., P, Y]`; each row sums to one.

    Raises:
        ShapeError: If the shapes disagree.
        NonFiniteError: If a log-probability or a weight is not finite.

    Source:
        Hinton 2002 (products of experts); Liu et al. 2024 (decoding-time realignment), for
        weights that do not sum to one.

    Example:
        >>> experts = np.log([[[0.8, 0.2]], [[0.2, 0.8]]])
        >>> np.exp(product_log_probs(experts, np.log([[0.5, 0.5]]), np.asarray([0.5, 0.5])))
        array([[0.5, 0.5]])
    """
    weights = _checked(expert_log_probs, log_reference, expert_weights)
    mixed = _weighted(expert_log_probs, log_reference, weights)
    return np.asarray(mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True))


def token_product_log_probs(
    expert_log_probs: FloatArray, log_reference: FloatArray, expert_weights: FloatArray, alphabet: int
) -> FloatArray:
    """Multiply experts token by token: what mixing their next-token log-probabilities samples from.

    `log pi(y) = sum_t [sum_e g_e log pi_e(y_t | y_<t) + (1 - sum_e g_e) log pi_ref(y_t | y_<t) - log Z_t(y_<t)]`.
    Conditionals come from the experts' tables by summing over what may follow a prefix.

    Args:
        expert_log_probs: See `product_log_probs`, as are the next two.
        log_reference: `[P, Y]`.
        expert_weights: `[E]`, `[..., 1, E]` or `[..., P, E]`.
        alphabet: A, the number of tokens; completions are in lexicographic order, the last token changing fastest.

    Returns:
        Log-probabilities, `[..., P, Y]`; each row sums to one.

    Raises:
        ShapeError: If the shapes disagree, or Y is no power of A.
        NonFiniteError: If a log-probability or a weight is not finite.

    Source:
        Shi et al. 2024 (MOD), for the reverse KL.
    """
    return _token_product(expert_log_probs, log_reference, expert_weights, alphabet)[0]


def local_normalisers(
    expert_log_probs: FloatArray, log_reference: FloatArray, expert_weights: FloatArray, alphabet: int
) -> FloatArray:
    """Return what mixing token by token divides by: `sum_t log Z_t(y_<t)` of every completion, `[..., P, Y]`.

    The product of whole completions is that of tokens times `exp` of this, normalised: these are the log importance
    weights that turn one into the other. `mod` with `correction: importance` computes its own while it decodes; tests
    and docs/theory.md use these, where all completions are listed.

    Args:
        expert_log_probs: See `token_product_log_probs`, as are the others.
        log_reference: `[P, Y]`.
        expert_weights: `[E]`, `[..., 1, E]` or `[..., P, E]`.
        alphabet: A.

    Raises:
        ShapeError: If the shapes disagree, or Y is no power of A.
        NonFiniteError: If a log-probability or a weight is not finite.
    """
    return _token_product(expert_log_probs, log_reference, expert_weights, alphabet)[1]


def prefix_conditionals(log_probs: FloatArray, alphabet: int) -> list[FloatArray]:
    """Return log-probabilities of every next token after every prefix, of a table of all completions.

    Args:
        log_probs: `[..., Y]`, completions of L tokens in lexicographic order.
        alphabet: A.

    Returns:
        L arrays: the t-th of shape `[..., A^t, A]`, for prefixes of t tokens.

    Raises:
        ShapeError: If Y is no power of A.
    """
    length = _length(log_probs.shape[-1], alphabet)
    whole = np.asarray(log_probs, dtype=np.float64)
    found: list[FloatArray] = []
    for _ in range(length):
        whole = whole.reshape(*whole.shape[:-1], -1, alphabet)
        shorter = np.logaddexp.reduce(whole, axis=-1)  # probability of the prefix: all that may follow it
        found.append(np.asarray(whole - shorter[..., None]))
        whole = shorter
    return found[::-1]


def _token_product(
    experts: FloatArray, reference: FloatArray, expert_weights: FloatArray, alphabet: int
) -> tuple[FloatArray, FloatArray]:
    """Return log-probabilities and summed log local normalisers of every completion, `[..., P, Y]` each."""
    weights = _checked(experts, reference, expert_weights)
    rows = np.broadcast_shapes(weights.shape[:-1], reference.shape[:1])
    total, divided = np.zeros((*rows, 1)), np.zeros((*rows, 1))
    both = zip(prefix_conditionals(experts, alphabet), prefix_conditionals(reference, alphabet), strict=True)
    for of_experts, of_reference in both:  # [E, P, A^t, A] and [P, A^t, A]
        flat = of_experts.reshape(*of_experts.shape[:2], -1), of_reference.reshape(len(of_reference), -1)
        mixed = _weighted(*flat, weights).reshape(*rows, *of_reference.shape[1:])
        log_z = np.logaddexp.reduce(mixed, axis=-1)  # [..., P, A^t]
        total = (total[..., None] + mixed - log_z[..., None]).reshape(*rows, -1)
        divided = np.repeat(divided + log_z, alphabet, axis=-1)
    return total, divided


def _weighted(experts: FloatArray, reference: FloatArray, weights: FloatArray) -> FloatArray:
    """Return `log pi_ref + sum_e g_e (log pi_e - log pi_ref)`, `[..., P, Y]`."""
    ratios = np.moveaxis(experts - reference, 0, 1)  # [P, E, Y]
    return np.asarray(reference + np.matmul(weights[..., None, :], ratios)[..., 0, :])


def _checked(experts: FloatArray, reference: FloatArray, expert_weights: FloatArray) -> FloatArray:
    """Return expert weights as `[..., 1 or P, E]`."""
    if experts.ndim != 3 or experts.shape[1:] != reference.shape:
        raise ShapeError(
            "expert_log_probs and log_reference must have shapes [E, P, Y] and [P, Y], got "
            f"{experts.shape} and {reference.shape}. List the same prompts and completions for both."
        )
    weights = np.asarray(expert_weights, dtype=np.float64)
    if weights.ndim == 1:
        weights = weights[None]
    if weights.ndim < 2 or weights.shape[-1] != len(experts) or weights.shape[-2] not in (1, len(reference)):
        raise ShapeError(
            f"expert_weights must have shape [E], [..., 1, E] or [..., P, E] with E = {len(experts)} and P = "
            f"{len(reference)}, got {np.shape(expert_weights)}. Write several weights for all prompts as [M, 1, E]."
        )
    for name, array in (("expert_log_probs", experts), ("log_reference", reference), ("expert_weights", weights)):
        if not np.isfinite(array).all():
            raise NonFiniteError(
                f"{name} must be finite, got NaN or infinity. Leave out completions that are never said."
            )
    return weights


def _length(completions: int, alphabet: int) -> int:
    """Return how many tokens a completion has."""
    length, size = 0, 1
    while alphabet > 1 and size < completions:
        length, size = length + 1, size * alphabet
    if size != completions or length < 1:
        raise ShapeError(
            f"completions must be all A^L sequences of L tokens, got {completions} for A = {alphabet}. Give the "
            "number of tokens that the completions were listed with."
        )
    return length
