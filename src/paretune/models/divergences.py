"""The best policy for several objectives where a policy's distance to the reference is an f-divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError

Terms = Callable[[Tensor], tuple[Tensor, Tensor]]

STEPS = 100  # of the root finding; about ten are taken
CLOSE = 1e-10  # of the logarithm of a sum of probabilities to 0; below, digits of float64 are lost
NORMALISED = 1e-3  # what float32 leaves of a sum of 150,000 probabilities
# how far from 0 a root may be found: in float64 a hundred steps end below CLOSE, or at 2e-8 for an alpha of 1e-8
FOUND = {torch.float64: 1e-6, torch.float32: NORMALISED}


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

    Raises:
        ShapeError: See `reverse_kl`.
        NonFiniteError: See `alpha_divergence`.

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

    Raises:
        ConfigError: If alpha is not finite and above 0.
        ShapeError: See `reverse_kl`.
        NonFiniteError: If no normaliser is found: weights are too far from one for what float64 can hold.

    Departures:
        z is found; published code leaves it out.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha must be finite and above 0, got {alpha}. The limit 0 is reverse_kl.")
    experts, reference, weights = _checked(expert_log_probs, reference_log_probs, expert_weights)
    place, log_scale, above = _above_least(alpha * (reference - experts), weights)

    def terms(log_t: Tensor) -> tuple[Tensor, Tensor]:  # z = t - least, t > 0
        whole, share = _log_sum(log_t[..., None], above, log_scale)
        return reference - whole / alpha, -share / alpha

    # the token of the least sum has at most all probability, t^(-1/a) p_ref <= 1; with all sums like it, t is 1
    low = alpha * reference.gather(-1, place)[..., 0].detach()
    return _normalised(terms, low, torch.zeros_like(low), rises=False).to(expert_log_probs.dtype)


def jensen_shannon(expert_log_probs: Tensor, reference_log_probs: Tensor, expert_weights: Tensor) -> Tensor:
    """Mix by `f(x) = x ln x - (x + 1) ln((x + 1) / 2)`, see `reverse_kl`.

    From `f'(x) = ln(2 x / (1 + x))` comes `p / (p + p_ref) = c prod_e (p_e / (p_e + p_ref))^{w_e}`, c such that p sums
    to one.

    Raises:
        ShapeError: See `reverse_kl`.
        NonFiniteError: See `alpha_divergence`.

    Departures:
        Published code takes the geometric mean of the experts, which is the answer for the reverse KL.
    """
    experts, reference, weights = _checked(expert_log_probs, reference_log_probs, expert_weights)
    # p / (p + p_ref) = C q, 0 < C < 1, -ln q = sum_e w_e ln((p_e + p_ref) / p_e), less the least of it
    place, log_scale, above = _above_least(_log_softplus(reference - experts), weights)
    log_q = -above * log_scale.exp()
    tiny = log_q > -1e-8  # digits of 1 - e^x would be lost: the first terms of (1 - e^x) / x
    wide = log_q.where(~tiny, torch.full_like(log_q, -1.0))
    rest = above * (1 + log_q / 2).where(tiny, torch.expm1(wide) / wide)  # 1 - q, over e^scale

    def terms(log_odds: Tensor) -> tuple[Tensor, Tensor]:
        log_c, log_left = (F.logsigmoid(sign * log_odds[..., None]) for sign in (1, -1))
        whole, share = _log_sum(log_left, rest, log_c + log_scale)  # 1 - C q = (1 - C) + C (1 - q)
        return reference + log_c + log_q - whole, share

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


def _above_least(exponents: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which token has the least `sum_e w_e e^{x_e}`, and how far above it the others are, `e^scale above`.

    The exponents may be of any size: where experts are hundreds of nats apart, neither the sums nor their differences
    can be held in float64.

    Args:
        exponents: x, `[E, ..., V]`.
        weights: w, `[E, ..., 1]`, any numbers.

    Returns:
        The token, `[..., 1]`, scale `[..., V]`, without a gradient, and above `[..., V]`, which is not negative.
    """
    largest = (exponents + weights.abs().log()).detach().amax(dim=0)  # of experts with a weight
    largest = largest.where(largest.isfinite(), torch.zeros_like(largest))
    sums = (weights * _exp(exponents - largest)).sum(dim=0)  # times e^largest
    logs = largest + sums.detach().abs().log()
    known = logs.where(sums != 0, torch.full_like(logs, torch.inf)).amin(dim=-1, keepdim=True)
    # rises with the sum: sign times how far the logarithm is above the lowest; 0 where the sum is 0
    rank = (sums.detach().sign() * (logs - known + 1)).where(sums != 0, torch.zeros_like(logs))
    place = rank.argmin(dim=-1, keepdim=True)
    least, of_least = sums.gather(-1, place), largest.gather(-1, place)
    scale = torch.maximum(largest, of_least)
    above = sums * (largest - scale).exp() - least * (of_least - scale).exp()
    above = above + (-above.detach()).clamp(min=0)  # rounding, where sums are all but equal; they keep their gradients
    return place, scale, above.scatter(-1, place, 0.0)


def _exp(values: Tensor) -> Tensor:
    """Return `e^x`, and a number in the place of infinity, so that 0 times it is 0."""
    return values.clamp(max=math.log(torch.finfo(values.dtype).max) - 1).exp()


def _log_softplus(values: Tensor) -> Tensor:
    """Return `log(log(1 + e^x))`, which is x where that is below what float64 tells from it."""
    low = values < -40
    return values.where(low, F.softplus(values.where(~low, torch.zeros_like(values))).log())


def _log_sum(log_first: Tensor, factor: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Return `log(e^first + factor e^exponent)` for a factor that is not negative, and the share of the first.

    A factor of 0 has its gradient: equal tokens move apart when their experts do.
    """
    largest = torch.maximum(log_first, exponent + factor.detach().log()).detach()
    first = (log_first - largest).exp()
    whole = first + factor * _exp(exponent - largest)
    return largest + whole.log(), first / whole


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
    last = logs.logsumexp(dim=-1) / slope.where(slope != 0, torch.full_like(slope, torch.inf))
    # where all but a tail is right whatever the number, the slope is rounding, and no step but its derivative is taken
    astray = ((root - last < low) | (root - last > high)).detach()
    logs, _ = terms(root - last + last.detach().where(astray, torch.zeros_like(root)))
    return logs.log_softmax(dim=-1)
