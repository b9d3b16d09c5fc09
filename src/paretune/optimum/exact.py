"""The best policy for a preference where all completions can be listed: `pi* ~ pi_ref exp(w.r / beta)`.

`J_w = w . E r - beta KL(pi, pi_ref)` is what training optimises; per objective, `J_k = E r_k - beta KL`, and as a
preference sums to 1, `J_w = w . J`. In these coordinates the attainable set is convex and the optima are its front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ConfigError, ShapeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What policies do on P prompts, exactly or by estimate.

    Attributes:
        rewards: Expected reward of each objective, `[..., P, K]`.
        kl: KL to the base model in nats, `[..., P]`.
    """

    rewards: FloatArray
    kl: FloatArray

    def scores(self, beta: float) -> FloatArray:
        """Return `J_k = E r_k - beta KL`, averaged over prompts, `[..., K]`."""
        return np.asarray((self.rewards - beta * self.kl[..., None]).mean(axis=-2))


def outcome(log_probs: FloatArray, log_reference: FloatArray, rewards: FloatArray) -> Outcome:
    """Return the exact outcome of policies.

    Args:
        log_probs: Log-probabilities of all completions, `[..., P, Y]`.
        log_reference: The same under the base model, `[P, Y]`.
        rewards: `[P, Y, K]`.

    Raises:
        ShapeError: If the shapes disagree.
    """
    if log_probs.shape[-2:] != log_reference.shape or rewards.shape[:2] != log_reference.shape:
        raise ShapeError(
            "log_probs, log_reference and rewards must agree on prompts and completions, got "
            f"{log_probs.shape}, {log_reference.shape} and {rewards.shape}. List the same completions for all three."
        )
    probabilities = np.exp(log_probs)
    ratios = np.zeros(log_probs.shape)  # what is never said adds nothing: p log p goes to 0 with p
    np.subtract(log_probs, log_reference, out=ratios, where=probabilities > 0)
    return Outcome(
        np.einsum("...py,pyk->...pk", probabilities, rewards),
        np.sum(probabilities * ratios, axis=-1),
    )


def log_optimum(log_reference: FloatArray, rewards: FloatArray, preference: FloatArray, beta: float) -> FloatArray:
    """Return the log-probabilities of the best policy for one preference, `[P, Y]`.

    Where what its user wants depends on the prompt, the best policy is that of each prompt for what is wanted of it.

    Args:
        log_reference: Log-probabilities of all completions under the base model, `[P, Y]`.
        rewards: `[P, Y, K]`.
        preference: `[K]`, or of each prompt `[P, K]`.
        beta: What a nat of KL costs, in units of reward.

    Raises:
        ShapeError: If the shapes disagree.
        ConfigError: If `beta` is not positive.

    Source:
        Korbak et al. 2022; the KL-regularised optimum in closed form.
    """
    of_prompts = (*log_reference.shape[:1], *preference.shape[-1:])
    if (
        log_reference.ndim != 2
        or rewards.shape != (*log_reference.shape, *preference.shape[-1:])
        or preference.shape not in (of_prompts[1:], of_prompts)
    ):
        raise ShapeError(
            "log_reference, rewards and preference must have shapes [P, Y], [P, Y, K] and [K] or [P, K], got "
            f"{log_reference.shape}, {rewards.shape} and {preference.shape}. List the same completions for both, and "
            "give one weight per objective."
        )
    check_beta(beta)
    utilities = rewards @ preference if preference.ndim == 1 else np.einsum("pyk,pk->py", rewards, preference)
    tilted = log_reference + utilities / beta
    return np.asarray(tilted - np.logaddexp.reduce(tilted, axis=-1, keepdims=True))


def check_beta(beta: float) -> None:
    """Check that a nat of KL costs something.

    Raises:
        ConfigError: If `beta` is not finite and positive: at 0 the best policy leaves the base model altogether.
    """
    if not (np.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta must be finite and positive, got {beta}. Give what a nat of KL costs, such as 0.05.")


def optimal_outcome(log_reference: FloatArray, rewards: FloatArray, preferences: FloatArray, beta: float) -> Outcome:
    """Return the outcome of the best policy for each preference: rewards `[M, P, K]`, KL `[M, P]`.

    Args:
        log_reference: Log-probabilities of all completions under the base model, `[P, Y]`.
        rewards: `[P, Y, K]`.
        preferences: At least one, `[M, K]`; or what is wanted of each prompt, `[M, P, K]`.
        beta: What a nat of KL costs, in units of reward.

    Raises:
        ShapeError: If the shapes disagree, or there is no preference.
        ConfigError: If `beta` is not positive.
    """
    if preferences.ndim not in (2, 3) or len(preferences) == 0:
        raise ShapeError(
            f"preferences must have shape [M, K] or [M, P, K], got {preferences.shape}. Give one row per preference."
        )
    found = [
        outcome(log_optimum(log_reference, rewards, preference, beta), log_reference, rewards)
        for preference in preferences
    ]
    return Outcome(np.stack([each.rewards for each in found]), np.stack([each.kl for each in found]))


def captured_share(
    scores: FloatArray, reference_scores: FloatArray, optimum_scores: FloatArray, preferences: FloatArray
) -> float:
    """Return how much of what could be gained was gained: a ratio of sums over preferences.

    `sum_w (J_w - J_ref,w) / sum_w (J*_w - J_ref,w)`: 0 for the base model, 1 for the optimum, negative below the base.

    Args:
        scores: `J_k` of the policy assigned to each preference, `[M, K]`.
        reference_scores: `J_k` of the base model, `[K]`.
        optimum_scores: `J_k` of each preference's optimum, `[M, K]`.
        preferences: `[M, K]`.

    Returns:
        The share; NaN where nothing can be gained, which `gains` tells beforehand and the metric says in words.

    Raises:
        ShapeError: If the shapes disagree.
    """
    gained, possible = gains(scores, reference_scores, optimum_scores, preferences)
    return float(gained.sum() / possible.sum()) if possible.sum() > 0 else math.nan


def prompt_gains(
    found: Outcome, reference_rewards: FloatArray, prompt_preferences: FloatArray, beta: float
) -> FloatArray:
    """Return the gain in `J_w = E_x[w(x) . E r - beta KL]` above the base, `[M]`, where preferences depend on prompts.

    Args:
        found: Of the policy for each preference: rewards `[M, P, K]`, KL `[M, P]`.
        reference_rewards: Of the base model, whose KL is 0, `[P, K]`.
        prompt_preferences: What users want of each prompt, `w(x)`, `[M, P, K]`.
        beta: What a nat of KL costs, in units of reward.

    Raises:
        ShapeError: If the shapes disagree.
    """
    shapes = [np.shape(each) for each in (found.rewards, found.kl, reference_rewards, prompt_preferences)]
    if len(shapes[3]) != 3 or shapes != [shapes[3], shapes[3][:2], shapes[3][1:], shapes[3]]:
        raise ShapeError(
            "rewards, kl, reference_rewards and prompt_preferences must have shapes [M, P, K], [M, P], [P, K] and "
            f"[M, P, K], got {', '.join(map(str, shapes))}. Score the same preferences and prompts in all of them."
        )
    worth = np.einsum("mpk,mpk->mp", prompt_preferences, found.rewards - reference_rewards)
    return np.asarray((worth - beta * found.kl).mean(axis=1))


def gains(
    scores: FloatArray, reference_scores: FloatArray, optimum_scores: FloatArray, preferences: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return gained and possible `J` above the base for each preference, `[M]` and `[M]`.

    Args:
        scores: See `captured_share`, as are the others.
        reference_scores: `[K]`.
        optimum_scores: `[M, K]`.
        preferences: `[M, K]`.

    Raises:
        ShapeError: If the shapes disagree.
    """
    shapes = [np.shape(each) for each in (scores, reference_scores, optimum_scores, preferences)]
    if len(shapes[3]) != 2 or shapes != [shapes[3], shapes[3][1:], shapes[3], shapes[3]]:
        raise ShapeError(
            "scores, reference_scores, optimum_scores and preferences must have shapes [M, K], [K], [M, K] and "
            f"[M, K], got {', '.join(map(str, shapes))}. Score the same preferences and objectives in all of them."
        )
    gained = np.einsum("mk,mk->m", preferences, scores - reference_scores)
    possible = np.einsum("mk,mk->m", preferences, optimum_scores - reference_scores)
    return gained, possible
