"""Policies that correct a product of experts, taken token by token, towards the product over whole completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from paretune.core.checks import check_texts
from paretune.core.errors import ConfigError, EnumerationError, MixingError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Mixer
from paretune.core.seeds import prompt_key, row_keys, stream_key, uniforms
from paretune.models.completions import Asked, Completions, joined
from paretune.models.mixing import WHOLE, Mixing
from paretune.models.policy import Policy
from paretune.models.tree import tree_log_probs

RESAMPLING = stream_key("resampling")  # in the place of a training step: noise of its own
SMALLEST = 300.0  # of a log weight below the largest: e^-300 of it is never drawn beside it
STEP = 0.25  # of the logarithm of the integration variable: leaves e^(-pi^2 / .25), less than float64 does
LISTED = 1e-3  # by which fp32 lets the probabilities of all completions miss one


class ResampledPolicy(Policy):
    """For each completion, sample N from the local product of the experts and draw one of them by its weight.

    The optimum for a preference, where experts are exact, is their product over whole completions,
    `prod_e p_e(y)^{g_e} / Z`. Token by token, each factor is normalised for itself, and a completion is sampled with
    `q(y) = prod_e p_e(y)^{g_e} / prod_t Z_t`: it lacks the weight `prod_t Z_t`, the product of the local normalisers,
    which decoding computes anyway. One of N completions, drawn in proportion to these weights, is nearer to the optimum
    the larger N is, and is it in the limit.

    A row that one expert, or the base model, answers alone has nothing to correct: it is sampled once.

    Particles are independent until the draw, rather than resampled token by token (sequential Monte Carlo). So the
    noise of each is that of a row of its own, whatever is in the batch; and the probability of what is returned is an
    integral over one variable, see `resampled_law`. Sequential resampling keeps more particles apart from zero weight
    on long completions; there, N has to grow instead.

    Source:
        Shi et al. 2024 (MOD), for the local product; sampling importance resampling, Rubin 1988.
    """

    resamples = True

    def draws(self, index: int) -> int:
        """Return how many completions are sampled for each one that a policy returns."""
        weights = self.expert_weights[index]
        parts = np.append(weights, 1 - weights.sum())
        return 1 if (np.abs(parts) > WHOLE).sum() == 1 else self.mixer.particles

    def mixing(self, policy_index: Sequence[int], prompts: Sequence[Sequence[int]] | None = None) -> Mixing:
        """Return the mixing for rows answered by the given policies; their log weights are asked for."""
        mixing = super().mixing(policy_index, prompts)
        return replace(mixing, weighed=True) if mixing.level == "log_probs" else mixing

    def sampled(self, asked: Asked) -> Completions:
        """Sample completions as `Policy.sampled` does, each the one drawn of `draws` that were sampled.

        The log-probabilities of rows that were drawn are NaN: no sum of few terms says them. A row's latency is that of
        the last of its particles in its batch.

        Raises:
            ConfigError: If temperature or top-p of a row that is corrected is not 1: its weights are for the policy
                itself.
            ShapeError: If a prompt is too long or empty.
        """
        every = [self.draws(owner) for owner in asked.owners]
        for name, values in (("temperature", asked.temperatures), ("top_p", asked.masses)):
            wrong = [value for value, draws in zip(values, every, strict=True) if draws > 1 and value != 1]
            if wrong:
                raise ConfigError(
                    f"{name} must be 1 where completions are resampled, got {wrong[0]}. Leave it out, or mix with one "
                    "particle."
                )
        parts = []
        for draws in sorted({*every}):
            rows = [row for row, own in enumerate(every) if own == draws]
            part = asked.of(rows)
            made = super().sampled(
                replace(part, samples=asked.samples * draws, reference=asked.reference and draws == 1)
            )
            if draws > 1:
                made = self._drawn(made, part, draws)
            ids = tuple((owner, rows[prompt], number) for owner, prompt, number in made.row_ids)
            parts.append(replace(made, row_ids=ids, log_weights=None))
        return joined(parts, self.base.pad_id)

    def _drawn(self, made: Completions, asked: Asked, draws: int) -> Completions:
        """Draw one of `draws` completions by weight, for each prompt and sample."""
        samples, seeds, plain = asked.samples, asked.seeds, self.encode(asked.prompts)
        groups = len(seeds) * samples
        if made.log_weights is None:
            raise MixingError("completions must be sampled with their weights, got no bank. Load the experts to mix.")
        chances = made.log_weights.double().view(groups, draws).softmax(dim=1).numpy()
        firsts = [prompt_key(ids) for ids in plain]  # as the noise of each particle: whatever is said in front of it
        keys = row_keys(
            np.repeat(np.asarray(seeds, dtype=object), samples), RESAMPLING,
            np.repeat(np.asarray(firsts, dtype=object), samples), np.tile(np.arange(samples), len(seeds)),
        )  # fmt: skip
        below = chances.cumsum(axis=1) < uniforms(keys, 0, 1)
        place = np.minimum(below.sum(axis=1), draws - 1)
        rows = [int(row) for row in np.arange(groups) * draws + place]
        kept = made.take(rows)
        owners = [(owner, prompt, number // draws) for owner, prompt, number in kept.row_ids]
        scored = kept.reference_log_probs
        if asked.reference:
            scored = self._reference([plain[row // samples] for row in range(groups)], kept)
        return replace(
            kept, row_ids=tuple(owners), log_probs=torch.full_like(kept.log_probs, torch.nan),
            reference_log_probs=scored, latency_seconds=made.latency_seconds.reshape(groups, draws).max(axis=1),
            dropped_tokens=int(made.lengths.sum() - kept.lengths.sum()),
        )  # fmt: skip

    def log_probs(self, completions: Completions) -> Tensor:
        """Return the log-probability of every sampled token, `[B, T]`, of rows that are not corrected.

        Raises:
            EnumerationError: If a row is.
        """
        self._check_known([owner for owner, _, _ in completions.row_ids])
        return super().log_probs(completions)

    def next_token_log_probs(
        self, prompts: Sequence[str], prefixes: Sequence[Sequence[int]], policy_index: Sequence[int] | None = None
    ) -> Tensor:
        """Return the log-probabilities of every next token, `[B, V]`, of rows that are not corrected.

        Raises:
            EnumerationError: If a row is.
        """
        self._check_known(self._owners(policy_index, len(prompts)))
        return super().next_token_log_probs(prompts, prefixes, policy_index)

    def _check_known(self, owners: Sequence[int]) -> None:
        drawn = sorted({owner for owner in owners if self.draws(owner) > 1})
        if drawn:
            raise EnumerationError(
                f"policy must say the probability of a token, got one that draws its completions out of "
                f"{self.mixer.particles} by weight (preference {drawn[0]}). It can be sampled, and asked for all "
                "completions where they can be listed; or mix with one particle."
            )

    @torch.no_grad()
    def completion_table(
        self, prompts: Sequence[str], token_ids: Sequence[int], length: int, policy_index: Sequence[int] | None = None
    ) -> Tensor:
        """Return the log-probability of every completion of fixed length, the draw included, `[B, A^length]`.

        Raises:
            EnumerationError: If the policy may also say something else: all weights must be known.
            ModelError: If the base model cannot read a tree.
        """
        prompts = check_texts("prompts", prompts)
        owners = self._owners(policy_index, len(prompts))
        local = super().completion_table(prompts, token_ids, length, owners).double()
        if all(self.draws(owner) == 1 for owner in owners):
            return local
        read = self.told(prompts, owners)
        product = tree_log_probs(
            self.base, self.bank, self.mixing(owners, read), read, token_ids, length, normalised=False
        ).cpu()
        rows = zip(owners, local.numpy(), (product.double() - local).numpy(), strict=True)
        made = [resampled_law(own, weights, self.draws(owner)) for owner, own, weights in rows]
        return torch.from_numpy(np.stack(made))

    def _is_plain(self) -> bool:
        return type(self) is ResampledPolicy


def policy_class(mixer: Mixer) -> type[Policy]:
    """Return the class of policies that a mixer asks for."""
    return ResampledPolicy if mixer.particles > 1 else Policy


def resampled_law(log_proposal: FloatArray, log_weights: FloatArray, particles: int) -> FloatArray:
    """Return the log-probability of each outcome where N are drawn from q, and one of them by weight, `[Y]`.

    `P(y) = N q(y) w(y) E[1 / (w(y) + w(Y_2) + ... + w(Y_N))]`, and since `1 / a = int_0^inf e^{-a t} dt`,
    `P(y) = N q(y) w(y) int_0^inf e^{-t w(y)} phi(t)^{N - 1} dt` with `phi(t) = sum_y q(y) e^{-t w(y)}`. The integral is
    a sum over equal steps of log t, which for such functions is exact to all digits.

    Args:
        log_proposal: Log-probabilities q of all Y outcomes, `[Y]`.
        log_weights: Their log weights, up to a constant, `[Y]`.
        particles: N; 1 returns q.

    Raises:
        EnumerationError: If the probabilities do not sum to one: then some outcome's weight is not known.

    Example:
        >>> even = np.log([0.5, 0.5])
        >>> np.exp(resampled_law(even, np.log([3.0, 1.0]), 2)).round(4).tolist()  # 1/4 + 1/2 * 3/4
        [0.625, 0.375]
    """
    total = float(np.logaddexp.reduce(log_proposal))
    if not abs(total) <= LISTED:
        raise EnumerationError(
            f"all completions must be listed to tell the probability of one that is drawn by weight, got a sum of "
            f"{math.exp(total):.4g}. List every token, or estimate from samples."
        )
    log_q = log_proposal - total
    if particles == 1:
        return np.asarray(log_q)
    log_w = np.maximum(log_weights - log_weights[np.isfinite(log_q)].max(), -SMALLEST)
    # t from where 1e-16 of the integral, at least 1 / N, lies below, to where e^(-t w) of the least weight is 1e-22
    grid = np.arange(math.log(1e-16 / particles), math.log(50) - log_w.min() + STEP, STEP)
    exponents = -np.exp(grid)[:, None] * np.exp(log_w)  # [U, Y]
    log_phi = _log_sum(log_q + exponents, 1)
    terms = grid[:, None] + exponents + (particles - 1) * log_phi[:, None]
    integral = _log_sum(terms, 0) + math.log(STEP)
    return np.asarray(math.log(particles) + log_q + log_w + integral)


def _log_sum(table: FloatArray, axis: int) -> FloatArray:
    """Return `log sum exp`; numpy's `logaddexp.reduce` takes several times as long."""
    most = table.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(table - most).sum(axis=axis)) + most.squeeze(axis))
