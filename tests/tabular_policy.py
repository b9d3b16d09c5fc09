"""Policies that are tables of probabilities, and policies that can only be sampled: `import tabular_policy`."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import EnumerationError
from paretune.core.preferences import FloatArray
from paretune.core.task import Row, Task
from paretune.models.loading import load_base
from paretune.models.policy import Policy


class TabularPolicy(Policy):
    """Says each completion of each prompt with the log-probability of a table.

    Between the base and the table lies `base^(1 - scale) * table^scale`, normalised: for an optimum, the optimum for
    another beta.

    Args:
        task: A controlled task.
        rows: P prompts.
        log_reference: All completions under the base model `[P, Y]`.
        log_probs: Of each of M preferences, `[M, P, Y]`.
        preferences: `[M, K]`.
    """

    def __init__(
        self, task: Task, rows: Sequence[Row], log_reference: FloatArray, log_probs: FloatArray, preferences: FloatArray
    ) -> None:
        super().__init__(
            load_base(task.model), None, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            np.asarray(preferences, dtype=np.float64), ["exact"] * len(preferences), np.eye(len(preferences)),
        )  # fmt: skip
        self.places = {str(row["prompt"]): place for place, row in enumerate(rows)}
        self.log_reference, self.log_tables = log_reference, log_probs

    def scaled(self, scales: Sequence[float]) -> Policy:
        made = copy.copy(self)
        for name in ("preferences", "expert_weights"):
            setattr(made, name, np.repeat(getattr(self, name), len(scales), axis=0))
        made.answers = tuple(np.repeat(self.answers, len(scales)))
        factors = np.asarray(scales)[:, None, None]
        mixed = (1 - factors) * self.log_reference + factors * self.log_tables[:, None]
        mixed = mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True)
        made.log_tables = mixed.reshape(-1, *self.log_reference.shape)
        return made

    def identity(self, index: int) -> bytes:
        return bytes(self.log_tables[index].tobytes())

    def completion_table(
        self, prompts: Sequence[str], token_ids: Sequence[int], length: int, policy_index: Sequence[int] | None = None
    ) -> Tensor:
        rows = zip(policy_index or [0] * len(prompts), prompts, strict=True)
        return torch.from_numpy(np.stack([self.log_tables[index, self.places[prompt]] for index, prompt in rows]))


class SampledPolicy(Policy):
    """A policy of expert weights that nobody can ask for probabilities, as one that searches would be."""

    def completion_table(
        self, prompts: Sequence[str], token_ids: Sequence[int], length: int, policy_index: Sequence[int] | None = None
    ) -> Tensor:
        raise EnumerationError("policy must be sampled, it searches.")


def sampled(policy: Policy) -> SampledPolicy:
    """Return the same policy without its probabilities."""
    return SampledPolicy(
        policy.base, policy.bank, policy.prompt_format, policy.max_prompt_tokens, policy.max_completion_tokens,
        policy.preferences, policy.answers, policy.expert_weights,
    )  # fmt: skip
