"""The best policy for several objectives where a policy's distance to the reference is an f-divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paretune.core.errors import NonFiniteError, ShapeError

Terms = Callable[[Tensor], tuple[Tensor, Tensor]]

STEPS = 100  # of the root finding; about ten are taken
CLOSE = 1e-10  # of the logarithm of a sum of probabilities to 0; below, digits of float64 are lost
NORMALISED = 1e-3  # what float32 leaves of a sum of 150,000 probabilities
# how far from 0 a root may be found: in float64 a hundred steps end below CLOSE, or at 2e-8 for an alpha of 1e-8
FOUND = {torch.float64: 1e-6, torch.float32: NORMALISED}
LARGEST = 700.0  # exponent: exp(709) is the largest number in float64


def reverse_kl(expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor) -> Tensor:
    """Mix by `f(x) = x ln x`: `p = prod_e p_e^{w_e} p_ref^{1 - sum w} / Z`, the normalised geometric mean.

    Each function here returns `argmax_p sum_y p(y) sum_e w_e r_e(y) - sum_y p_ref(y) f(p(y) / p_ref(y))`, where `p_e`
    is the best policy for the reward `r_e` alone: `r_e = f'(p_e / p_ref)` up to a constant. That is
    `p = p_ref (f')^{-1}(sum_e w_e f'(p_e / p_ref) - Z)`, and f'(1) is a constant, so that the reference always has
    what weights leave of one.

    Args:
        expert_log_probs: `[E, ..., V]`, normalised.
        reference_log_probs: `[..., V]`, normalised.
        expert_weights: `[E]`, or `[E, ...]`, weights for each distribution; any numbers.

    Returns:
        Log-probabilities `[..., V]`, normalised, in the number format of the experts'. Differentiable.

    Raises:
        ShapeError: If the arguments disagree on a dimension, or are no normalised and finite log-probabilities.

    Source:
        Shi et al. 2024 (MOD), theorem for strong barrier functions.

    Example:
        >>> half = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log()
        >>> reverse_kl(half, torch.tensor([0.5, 0.5]).log(), torch.tensor([0.5, 0.5])).exp()
        tensor([0.5000, 0.5000])
    """
    experts, reference, weights = _checked(expert_log_probs, reference_log_probs, expert_weights)
    mixed = (weights * experts).sum(dim=0) + (1 - weights.sum(dim=0)) * reference
    return mixed.log_softmax(dim=-1).to(expert_log_probs.dtype)


def forward_kl(expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor) -> Tensor:
    """Mix by `f(x) = -ln x`: `p = 1 / (Z / p_ref + sum_e w_e / p_e)`, see `reverse_kl`.

    Departures:
        Z is found; published code leaves it out and normalises the weighted harmonic mean in its place, which solves
        another problem as soon as experts differ.
    """
    return alpha_divergence(expert_log_probs, reference_log_probs, expert_weights, 1.0)


def alpha_divergence(
    expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor, alpha: float
) -> Tensor:
    """Mix by `f(x) = (x^{1 - a} - (1 - a) x - a) / (a (a - 1))`, see `reverse_kl`.

    From `f'(x) = (1 - x^{-a}) / a` comes `p = p_ref (z + sum_e w_e (p_e / p_ref)^{-a})^{-1/a}`, z such that p sums to
    one. a = 1 is the forward KL, and a -> 0 the reverse KL.

    Args:
        expert_log_probs: `[E, ..., V]`, normalised.
        reference_log_probs: `[..., V]`, normalised.
        expert_weights: `[E]`, or `[E, ...]`.
        alpha: Above 0.

    Departures:
        z is found; published code leaves it out.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ShapeError(f"alpha must be above 0, got {alpha}. The limit 0 is reverse_kl.")
    experts, reference, weights = _checked(expert_log_probs, reference_log_probs, expert_weights)
    # beyond LARGEST the token has a probability of 0 either way
    inverse = (alpha * (reference - experts)).clamp(max=LARGEST).exp()
    sums = (weights * inverse).sum(dim=0)
    least, place = sums.min(dim=-1, keepdim=True)
    above = sums - least  # z = t - least, t > 0

    def terms(log_t: Tensor) -> tuple[Tensor, Tensor]:
        whole = log_t.exp()[..., None] + above
        return reference - whole.log() / alpha, -log_t.exp()[..., None] / whole / alpha

    # the token of the least sum has at most all probability, t^(-1/a) p_ref <= 1; with all sums like it, t is 1
    low = alpha * reference.gather(-1, place)[..., 0].detach()
    return _normalised(terms, low, torch.zeros_like(low), rises=False).to(expert_log_probs.dtype)


def jensen_shannon(expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor) -> Tensor:
    """Mix by `f(x) = x ln x - (x + 1) ln((x + 1) / 2)`, see `reverse_kl`.

    From `f'(x) = ln(2 x / (1 + x))` comes `p / (p + p_ref) = c prod_e (p_e / (p_e + p_ref))^{w_e}`, c such that p sums
    to one.

    Departures:
        Published code takes the geometric mean of the experts, which is the answer for the reverse KL.
    """
    experts, reference, weights = _checked(expert_log_probs, reference_log_probs, expert_weights)
    product = (weights * (experts - torch.logaddexp(experts, reference))).sum(dim=0)
    most, place = product.max(dim=-1, keepdim=True)
    log_q = product - most  # p / (p + p_ref) = C q, 0 < C < 1

    def terms(log_odds: Tensor) -> tuple[Tensor, Tensor]:
        odds = log_odds[..., None]
        rest = torch.sigmoid(-odds) - torch.sigmoid(odds) * torch.expm1(log_q)  # 1 - C q, without cancellation
        return reference + torch.nn.functional.logsigmoid(odds) + log_q - rest.log(), torch.sigmoid(-odds) / rest

    # the largest ratio, C / (1 - C), belongs to one token, p_ref C / (1 - C) <= 1; were it that of all, it were 1
    high = -reference.gather(-1, place)[..., 0].detach()
    return _normalised(terms, torch.zeros_like(high), high, rises=True).to(expert_log_probs.dtype)


DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "reverse_kl": reverse_kl, "forward_kl": forward_kl, "jensen_shannon": jensen_shannon,
}  # fmt: skip  # what a mixer may name; alpha_divergence needs a number beside the name


def _checked(
    expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return all three in float64, weights `[E, ..., 1]`."""
    shape = expert_log_probs.shape
    if expert_log_probs.ndim < 2 or reference_log_probs.shape != shape[1:]:
        raise ShapeError(
            f"expert_log_probs must be [E, ..., V] and reference_log_probs [..., V], got shapes {list(shape)} and "
            f"{list(reference_log_probs.shape)}. Give every expert the tokens of the reference."
        )
    if expert_weights.shape not in (shape[:1], shape[:-1]):
        raise ShapeError(
            f"expert_weights must be [{shape[0]}], one for each expert, or {list(shape[:-1])}, got shape "
            f"{list(expert_weights.shape)}. Weigh every expert."
        )
    wide = torch.float32 if expert_log_probs.device.type == "mps" else torch.float64
    experts, reference, weights = (
        each.to(expert_log_probs.device, wide) for each in (expert_log_probs, reference_log_probs, expert_weights)
    )
    for name, table in (("expert_log_probs", experts), ("reference_log_probs", reference), ("", weights)):
        if not bool(torch.isfinite(table).all()):
            raise ShapeError(f"{name or 'expert_weights'} must be finite, got NaN or infinity. Mask no token.")
        if name and bool((table.logsumexp(dim=-1).abs() > NORMALISED).any()):
            raise ShapeError(f"{name} must be normalised, got other numbers. Apply log_softmax to logits.")
    return experts, reference, weights.reshape(*weights.shape, *[1] * (len(shape) - weights.ndim))


def _normalised(terms: Terms, low: Tensor, high: Tensor, rises: bool) -> Tensor:
    """Return the log-probabilities that sum to one, `[..., V]`.

    Newton's method on the logarithm of the sum, kept between two bounds and halving them where it would leave them. A
    last step is differentiable: its derivative is that of the root.

    Args:
        terms: From a number for each distribution, `[...]`, to log-probabilities `[..., V]` and their derivatives.
        low: Where the sum is not above one, or, if it falls, not below, `[...]`.
        high: The other bound.
        rises: Whether the sum rises with the number.

    Raises:
        NonFiniteError: If a sum is not finite, or none of one is found.
    """
    with torch.no_grad():
        root = (low + high) / 2
        for step in range(STEPS):
            logs, slopes = terms(root)
            total = logs.logsumexp(dim=-1)
            if not bool(torch.isfinite(total).all()):
                raise NonFiniteError("a normaliser must be finite, got NaN or infinity. Take weights nearer to one.")
            done = total.abs() <= CLOSE
            if bool(done.all()):
                break
            right = (total > 0) == rises  # of the root
            low, high = torch.where(right, low, root), torch.where(right, root, high)
            newton = root - total / (logs.softmax(dim=-1) * slopes).sum(dim=-1)
            good = (newton >= low) & (newton <= high)
            # every third step halves: Newton alone may creep along one bound
            step_to = torch.where(good, newton, (low + high) / 2) if step % 3 < 2 else (low + high) / 2
            root = torch.where(done, root, step_to)
    logs, slopes = terms(root)
    away = float(logs.detach().logsumexp(dim=-1).abs().max()) if logs.numel() else 0.0
    if not away <= FOUND[logs.dtype]:  # the step below takes care of what is left
        raise NonFiniteError(
            f"a normaliser must be found in {STEPS} steps, got probabilities whose sum is off by {away:.3g} in its "
            "logarithm. Take weights nearer to one."
        )
    slope = (logs.softmax(dim=-1) * slopes).sum(dim=-1).detach()
    logs, _ = terms(root - logs.logsumexp(dim=-1) / slope)
    return logs.log_softmax(dim=-1)
