"""One policy answered one preference: prompts, completions, log-probabilities and a vector of rewards for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ShapeError

RewardStatus = Literal["ok", "missing", "wrong_length", "not_finite", "out_of_range", "raised"]


@dataclass(frozen=True)
class EvaluationRecord:
    """N completions of one policy for one preference.

    Attributes:
        split: `test`, or `development` where a method measured for itself.
        preference: The preference answered, `[K]`; all NaN for the reference policy, which answers none.
        answer: `exact`, `nearest`, `selected`, `combined`, a word of a method's own, or `reference` for the base model
            itself.
        expert_weights: Weights of the experts behind the answer, `[E]`; empty for the reference policy.
        identity: Digest of what tells the policy from others of its solution set: equal digests, one policy.
        objectives: Names of the K objectives.
        audit: Names of the objectives scored beside them.
        prompt_ids: `[N]`.
        samples: Index of the sample of its prompt, `[N]`.
        prompts: `[N]`.
        completions: `[N]`.
        token_ids: Token ids of each completion, end-of-text included where it was sampled, `[N]`.
        finish: `stop` (end-of-text) or `length`, `[N]`.
        log_probs: Log-probability of each completion under the policy, in nats, `[N]`.
        reference_log_probs: The same under the base model, `[N]`.
        rewards: `[N, K + audit]`; NaN where there is none.
        statuses: Why a reward is what it is, `[N, K + audit]` of `RewardStatus`.
        latency_seconds: Seconds from the start of its batch until its last token, `[N]`.
        exact_rewards: Expected rewards `[P, K]`, summed over all completions; a row for each prompt, in the order in
            which `prompt_ids` names them first. None where samples are all there is.
        exact_kl: KL to the base model of each prompt in nats, `[P]`, likewise.
        prompt_preferences: What the user of the preference wants of each prompt, `[P, K]`, likewise; None where that is
            the preference itself.
    """

    split: str
    preference: NDArray[np.float64]
    answer: str
    expert_weights: NDArray[np.float64]
    identity: str
    objectives: tuple[str, ...]
    audit: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    samples: NDArray[np.int64]
    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    finish: tuple[str, ...]
    log_probs: NDArray[np.float64]
    reference_log_probs: NDArray[np.float64]
    rewards: NDArray[np.float64]
    statuses: NDArray[np.str_]
    latency_seconds: NDArray[np.float64]
    exact_rewards: NDArray[np.float64] | None = None
    exact_kl: NDArray[np.float64] | None = None
    prompt_preferences: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        rows = len(self.prompt_ids)
        columns = len(self.objectives) + len(self.audit)
        if self.rewards.shape != (rows, columns):
            raise ShapeError(
                f"rewards must have one row per completion and one column per objective ({rows} x {columns}), "
                f"got {self.rewards.shape}."
            )
        prompts = len(set(self.prompt_ids))
        if self.exact_kl is not None and self.exact_kl.shape != (prompts,):
            raise ShapeError(f"exact_kl must have one entry per prompt ({prompts}), got {self.exact_kl.shape}.")
        wanted = (prompts, len(self.objectives))
        for name in ("exact_rewards", "prompt_preferences"):
            rows_of_prompts = getattr(self, name)
            if rows_of_prompts is not None and rows_of_prompts.shape != wanted:
                raise ShapeError(
                    f"{name} must have one row per prompt and one column per objective ({wanted[0]} x {wanted[1]}), "
                    f"got {rows_of_prompts.shape}."
                )

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Mean reward of each of the K objectives over prompts, `[K]`.

        Exact where that is known. Else a mean over samples, missing rewards left out (NaN if all miss).
        """
        if self.exact_rewards is not None:
            return np.asarray(self.exact_rewards.mean(axis=0))
        return _means(self.rewards[:, : len(self.objectives)])

    @cached_property
    def audit_scores(self) -> NDArray[np.float64]:
        """Mean reward of each audit objective."""
        return _means(self.rewards[:, len(self.objectives) :])

    @property
    def kl(self) -> float:
        """Sequence-level KL to the base model in nats: exact, or estimated from the sampled completions (k1)."""
        if self.exact_kl is not None:
            return float(self.exact_kl.mean())
        return float(np.mean(self.log_probs - self.reference_log_probs))

    def utility(self, preference: NDArray[np.float64]) -> float:
        """Return what the user of a preference `[K]` gets, mean over prompts; NaN where it cannot be told.

        The preference is the record's own; where its user wants something else of each prompt, that counts.
        """
        if self.prompt_preferences is None:
            return float(utility(self.scores, preference))
        return self.utility_by(self.prompt_preferences)

    def utility_by(self, prompt_preferences: NDArray[np.float64]) -> float:
        """Return the mean utility over prompts of who wants `[P, K]` of them; NaN where it cannot be told."""
        if self.exact_rewards is not None:
            pairs = zip(self.exact_rewards, prompt_preferences, strict=True)
            return float(np.mean([utility(*each) for each in pairs]))
        values = self.utilities_of(prompt_preferences)
        return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else float("nan")

    def utilities_of(self, prompt_preferences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each completion is worth to who wants `[P, K]` of the prompts, `[N]`; NaN where not known."""
        return weighed_sum(self.rewards[:, : len(self.objectives)], self._by_row(prompt_preferences))

    def counts(self, preference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which objectives count for the user of a preference `[K]`, of each completion, `[N, K]`.

        The preference is the record's own; where its user wants something else of each prompt, that counts.
        """
        if self.prompt_preferences is None:
            return np.tile(preference > 0, (len(self.prompt_ids), 1))
        return np.asarray(self._by_row(self.prompt_preferences) > 0)

    def _by_row(self, by_prompt: NDArray[np.float64]) -> NDArray[np.float64]:
        place = {name: index for index, name in enumerate(dict.fromkeys(self.prompt_ids))}
        return by_prompt[[place[name] for name in self.prompt_ids]]


def utility(scores: NDArray[np.float64], preference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh scores `[..., K]` by a preference `[K]`; it needs those objectives only that the preference weighs.

    Returns:
        Utilities `[...]`; NaN where an objective of positive weight has no score.

    Example:
        >>> utility(np.array([[0.5, np.nan], [0.5, 0.25]]), np.array([1.0, 0.0])).tolist()
        [0.5, 0.5]
    """
    weighed = preference > 0
    return np.asarray(scores[..., weighed] @ preference[weighed])


def weighed_sum(rewards: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `sum_k wanted_k rewards_k` of `[..., K]` each, over those objectives that are wanted.

    Returns:
        `[...]`; NaN where a wanted one has no reward.

    Example:
        >>> weighed_sum(np.array([[0.5, np.nan], [0.5, np.nan]]), np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
        [0.5, nan]
    """
    return np.asarray(np.where(wanted > 0, wanted * rewards, 0.0).sum(axis=-1))


def _means(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    present = ~np.isnan(rewards)
    count = present.sum(axis=0)
    total = np.where(present, rewards, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
