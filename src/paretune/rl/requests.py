"""Which policy answers each prompt for each preference, where that is not the same policy for all prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray
from paretune.models.policy import Policy

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet

BY_PROMPT = "by prompt"  # how a preference is answered whose prompts are answered in several ways


@dataclass(frozen=True, eq=False)
class Requests:
    """M preferences, and the policy that answers each of P prompts for their users.

    Attributes:
        policy: All policies that answer.
        preferences: `[M, K]`.
        places: Which policy answers, `[M, P]`.
    """

    policy: Policy
    preferences: FloatArray
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.preferences)

    @classmethod
    def of(cls, asked: Policy | Requests, prompts: int) -> Requests:
        """Return requests; for those of a policy of M preferences, each answers all of P prompts.

        Raises:
            ShapeError: If requests are of another number of prompts.
        """
        if isinstance(asked, Policy):
            places = np.tile(np.arange(len(asked))[:, None], (1, prompts))
            return cls(asked, asked.preferences, places)
        if asked.places.shape[1] != prompts:
            raise ShapeError(
                f"requests must be of as many prompts as are evaluated ({prompts}), got {asked.places.shape[1]}. Make "
                "them for these prompts."
            )
        return asked

    def scaled(self, scales: Sequence[float]) -> Requests:
        """Return the same with expert weights multiplied by each of S scales: M blocks of S, see `Policy.scaled`."""
        count = len(scales)
        places = self.places[:, None] * count + np.arange(count)[:, None]  # [M, S, P]
        return Requests(
            self.policy.scaled(scales), np.repeat(self.preferences, count, axis=0), places.reshape(-1, places.shape[2])
        )

    def keeping(self, index: Sequence[int], kept: NDArray[np.bool_]) -> Requests:
        """Return R requests, each one of these answered with some of the experts alone, see `Policy.keeping`.

        Args:
            index: Which of the M preferences, R of them.
            kept: Which experts stay, `[R, E]`.
        """
        pairs = [(place, row) for row, each in enumerate(index) for place in dict.fromkeys(self.places[each].tolist())]
        number = {pair: place for place, pair in enumerate(pairs)}
        places = [[number[place, row] for place in self.places[each].tolist()] for row, each in enumerate(index)]
        policy = self.policy.keeping([place for place, _ in pairs], kept[[row for _, row in pairs]])
        return Requests(policy, self.preferences[list(index)], np.asarray(places, dtype=np.int64))

    def identity(self, index: int) -> bytes:
        """Return what tells how one preference is answered from others: equal bytes, scored once."""
        found = [self.policy.identity(place) for place in self.places[index].tolist()]
        if len(set(found)) == 1:
            return found[0]
        return b"".join(len(each).to_bytes(4, "big") + each for each in found)

    def answer(self, index: int) -> str:
        """Return how one preference is answered."""
        words = {self.policy.answers[place] for place in self.places[index].tolist()}
        return words.pop() if len(words) == 1 else BY_PROMPT

    def expert_weights(self, index: int) -> FloatArray:
        """Return the expert weights of one preference, mean over prompts where they differ, `[E]`."""
        rows = self.policy.expert_weights[self.places[index]]
        return np.asarray(rows[0] if (rows == rows[0]).all() else rows.mean(axis=0))


def requests_for(solutions: SolutionSet, preferences: FloatArray, prompt_preferences: FloatArray) -> Requests:
    """Return requests that say of each prompt what the user wants of it.

    Args:
        solutions: What answers.
        preferences: Of the users, `[M, K]`.
        prompt_preferences: What they want of each prompt, `[M, P, K]`.
    """
    users, prompts, objectives = prompt_preferences.shape
    distinct, places = np.unique(prompt_preferences.reshape(-1, objectives), axis=0, return_inverse=True)
    return Requests(solutions.policies_for(distinct), preferences, places.reshape(users, prompts))
