"""Rewards of a controlled task: random fields over completions, correlated to measure.

A *field* gives every completion a number, the sum of positional, neighbour and long-range terms. Every objective is a
shared field plus, for each feature of the prompt, a field weighted by the feature. A feature is a number, the mean of a
code over the letters of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import TaskError

FloatArray = NDArray[np.float64]
TERM_SHARES = (
    0.5,
    0.3,
    0.2,
)  # of a field's variance: a letter at its place, neighbouring letters, first and last letter
FEATURES = 1  # of a prompt; what experts learn of two from 16 prompts does not carry over to others (docs/log.md)
CORNER_KL = 1.5  # nats between the base and the optimum for one objective alone, mean over training prompts
RHO_TOLERANCE = 0.05  # each pair's realised rank correlation from rho
CORRECTIONS = 10  # at most, of pairs beyond it


@dataclass(frozen=True)
class Fields:
    """Parameters of the rewards of one instance, Y completions, F features, A letters, K objectives.

    Attributes:
        shared: The same for every prompt, `[Y, K]`.
        by_feature: Weighted by each feature of the prompt, `[F, Y, K]`.
        codes: What each letter of a prompt adds to a feature, `[F, A]`.
        scale: Reward per unit of a field. It is also the task's beta: at beta = scale the optimum for one objective
            alone is `CORNER_KL` nats from the base.
        offset: Reward of a field of 0, `[K]`.
    """

    shared: FloatArray
    by_feature: FloatArray
    codes: FloatArray
    scale: float
    offset: FloatArray

    def rewards(self, prompts: NDArray[np.int64]) -> FloatArray:
        """Return the rewards of all completions `[P, Y, K]` of prompts given as letters `[P, letters]`."""
        fields = self.shared + np.tensordot(features(self.codes, prompts), self.by_feature, axes=1)
        # prompts outside the three splits may go slightly beyond the range that the splits span
        return np.asarray(np.clip(self.offset + self.scale * fields, 0.0, 1.0))


def features(codes: FloatArray, prompts: NDArray[np.int64]) -> FloatArray:
    """Return the features of prompts, `[P, F]`: the mean of each code `[F, A]` over the prompt's letters."""
    return np.asarray(codes[:, prompts].mean(axis=2).T)


def all_completions(alphabet: int, length: int) -> NDArray[np.int64]:
    """List all completions, `[A^L, L]`, the last letter changing fastest.

    Example:
        >>> all_completions(2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.stack(np.unravel_index(np.arange(alphabet**length), (alphabet,) * length), axis=1)


def random_field(completions: NDArray[np.int64], alphabet: int, random: np.random.Generator) -> FloatArray:
    """Draw a field over completions `[Y, L]`: mean 0 and variance 1 over them, `[Y]`."""
    length = completions.shape[1]
    places = random.standard_normal((length, alphabet))
    pairs = random.standard_normal((alphabet, alphabet))
    ends = random.standard_normal((alphabet, alphabet))
    terms = [places[np.arange(length), completions].sum(axis=1)]
    if length > 1:
        terms.append(pairs[completions[:, :-1], completions[:, 1:]].sum(axis=1))
    if length > 2:  # with two letters the ends are neighbours
        terms.append(ends[completions[:, 0], completions[:, -1]])
    field = np.zeros(len(completions))
    for share, term in zip(TERM_SHARES, terms, strict=False):
        field += np.sqrt(share) * (term - term.mean()) / term.std()
    return np.asarray((field - field.mean()) / field.std())


def make_fields(
    rho: float,
    heterogeneity: float,
    completions: NDArray[np.int64],
    prompts: NDArray[np.int64],
    train: int,
    log_reference: FloatArray,
    alphabet: int,
    objectives: int,
    random: np.random.Generator,
) -> Fields:
    """Draw the rewards of an instance.

    Args:
        rho: Wanted rank correlation of any two objectives within prompts, under the base model.
        heterogeneity: Share of variance that depends on the prompt.
        completions: All completions `[Y, L]`.
        prompts: Letters of the prompts of all splits `[P, letters]`, the training prompts first.
        train: Number of training prompts; everything is calibrated on them.
        log_reference: Log-probabilities of all completions of the training prompts under the base, `[train, Y]`.
        alphabet: Number of letters A.
        objectives: Number of objectives K.
        random: Source of the draws.

    Raises:
        TaskError: If the correlation cannot be reached within its tolerance, or there are too few completions for an
            optimum that far from the base.
    """

    def draw() -> FloatArray:
        return np.stack([random_field(completions, alphabet, random) for _ in range(objectives)], axis=1)

    shared = draw()
    by_feature = np.stack([draw() for _ in range(FEATURES)])
    codes = random.standard_normal((FEATURES, alphabet))
    drawn = features(codes, prompts[:train])
    codes = (codes - drawn.mean(axis=0)[:, None]) / drawn.std(axis=0)[:, None]  # so the shared field is the mean
    drawn = features(codes, prompts[:train])
    probabilities = np.exp(log_reference)
    shared = shared @ _whitening(covariance(np.broadcast_to(shared, (train, *shared.shape)), probabilities))
    own = np.tensordot(drawn, by_feature, axes=1)  # [train, Y, K]
    by_feature = by_feature @ _whitening(covariance(own, probabilities))
    shared, by_feature = np.sqrt(1 - heterogeneity) * shared, np.sqrt(heterogeneity) * by_feature
    plain = shared + np.tensordot(drawn, by_feature, axes=1)
    whiten = _whitening(covariance(plain, probabilities))
    mixing = whiten @ _correlating(rho, plain @ whiten, probabilities)
    shared, by_feature = shared @ mixing, by_feature @ mixing
    everything = shared + np.tensordot(features(codes, prompts), by_feature, axes=1)
    mean = (probabilities[:, :, None] * everything[:train]).sum(axis=1).mean(axis=0)
    temperatures = _temperatures(log_reference, everything[:train])
    scale = 0.5 / float((np.abs(everything - mean) / temperatures).max())
    # beta is part of every key, and processors differ in its eighth digit; down, so that no reward leaves [0, 1]
    scale = float(Context(prec=5, rounding=ROUND_DOWN).create_decimal_from_float(scale))
    return Fields(shared / temperatures, by_feature / temperatures, codes, scale, 0.5 - scale * mean / temperatures)


def covariance(values: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Return the mean over prompts of the covariance within a prompt, `[K, K]`.

    Args:
        values: `[P, Y, K]`.
        probabilities: Of the completions of each prompt, `[P, Y]`.
    """
    centred = values - (probabilities[:, :, None] * values).sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("py,pyk,pyl->kl", probabilities, centred, centred) / len(values))


def rank_correlations(values: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Return Spearman's correlation of each pair of objectives within prompts, averaged over prompts, `[K, K]`.

    Args:
        values: `[P, Y, K]`.
        probabilities: Of the completions of each prompt, `[P, Y]`.
    """
    ranks = np.empty_like(values)
    for prompt, column in np.ndindex(values.shape[0], values.shape[2]):
        distinct, where = np.unique(values[prompt, :, column], return_inverse=True)
        mass = np.bincount(where, weights=probabilities[prompt], minlength=len(distinct))
        ranks[prompt, :, column] = (mass.cumsum() - mass / 2)[where]  # ties share the middle of their mass
    total = np.zeros((values.shape[2], values.shape[2]))
    for prompt in range(len(values)):
        moments = covariance(ranks[prompt : prompt + 1], probabilities[prompt : prompt + 1])
        deviation = np.sqrt(np.diag(moments))
        total += moments / np.outer(deviation, deviation)
    return total / len(values)


def _whitening(moments: FloatArray) -> FloatArray:
    """Return M such that values @ M have the identity as covariance."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(moments)).T)


def _correlating(rho: float, white: FloatArray, probabilities: FloatArray) -> FloatArray:
    """Return M such that the rank correlation of the columns of white @ M is rho, by bisection over Pearson's."""
    objectives = white.shape[2]
    pairs = np.triu_indices(objectives, k=1)

    def equal(pearson: float) -> FloatArray:
        return np.where(np.eye(objectives, dtype=bool), 1.0, pearson)

    def realised(wanted: FloatArray) -> FloatArray:
        return rank_correlations(white @ _root(wanted), probabilities)

    def off(found: FloatArray) -> float:
        return float(np.abs(found[pairs] - rho).max())

    low, high = -1.0 / (objectives - 1), 1.0
    for _ in range(16):  # 2 / 2^16 is far below the tolerance
        middle = (low + high) / 2
        if realised(equal(middle))[pairs].mean() < rho:
            low = middle
        else:
            high = middle
    ends = (-1.0 / (objectives - 1), 1.0)
    best = min((*ends, (low + high) / 2), key=lambda pearson: abs(realised(equal(pearson))[pairs].mean() - rho))
    wanted = equal(best)
    found = realised(wanted)
    for _ in range(CORRECTIONS):  # of three objectives or more, pairs may need Pearson correlations of their own
        if off(found) <= RHO_TOLERANCE:
            break
        wanted = _root(wanted + equal(rho) - np.where(np.eye(objectives, dtype=bool), 1.0, found))
        wanted = wanted @ wanted
        wanted = wanted / np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
        found = realised(wanted)
    if off(found) > RHO_TOLERANCE:
        raise TaskError(
            f"rho of a controlled task must be reached within {RHO_TOLERANCE}, got a pair {off(found):.3f} away from "
            f"{rho}. Choose another seed, a longer completion or a larger alphabet."
        )
    return _root(wanted)


def _root(wanted: FloatArray) -> FloatArray:
    """Return the symmetric root of the nearest matrix without negative eigenvalues, `[K, K]`."""
    values, vectors = np.linalg.eigh(wanted)
    return np.asarray((vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T)


def _temperatures(log_reference: FloatArray, fields: FloatArray) -> FloatArray:
    """Return what to divide each field by so that its optimum at beta 1 is `CORNER_KL` nats from the base, `[K]`."""
    low, high = np.full(fields.shape[2], 1e-4), np.full(fields.shape[2], 1e4)
    for _ in range(60):
        middle = np.sqrt(low * high)
        far = corner_kl(log_reference, fields / middle, 1.0) > CORNER_KL
        low, high = np.where(far, middle, low), np.where(far, high, middle)
    temperatures = np.asarray(np.sqrt(low * high))
    reached = corner_kl(log_reference, fields / temperatures, 1.0).min()
    if reached < CORNER_KL - 0.01:  # even the best completion alone is nearer
        raise TaskError(
            f"alphabet and length of a controlled task must leave room for an optimum {CORNER_KL} nats from the base, "
            f"got {fields.shape[1]} completions, {reached:.2f} nats. Raise one of them."
        )
    return temperatures


def corner_kl(log_reference: FloatArray, rewards: FloatArray, beta: float) -> FloatArray:
    """Return the KL between the base and the optimum for each objective alone, averaged over prompts, `[K]` nats."""
    log_optimum = log_reference[:, :, None] + rewards / beta
    log_optimum = log_optimum - np.logaddexp.reduce(log_optimum, axis=1, keepdims=True)
    return np.asarray((np.exp(log_optimum) * (log_optimum - log_reference[:, :, None])).sum(axis=1).mean(axis=0))
