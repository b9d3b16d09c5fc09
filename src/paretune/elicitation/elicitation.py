"""Asking somebody which of two options is better, until it is known well enough what they want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator
from paretune.elicitation.answering import REPLIES, VOTES, Reply, votes
from paretune.elicitation.belief import first_belief, updated
from paretune.elicitation.questions import INFORMATION, Pair, expected_regret, next_question

MOST_OBJECTIVES = 6  # beyond, ten replies say too little, and 512 points stand for too much


@dataclass(frozen=True)
class Answered:
    """A question and its reply.

    Attributes:
        first: Number of the option that was shown as A.
        second: Of that shown as B.
        reply: `a`, `b`, or `=` for no preference.
    """

    first: int
    second: int
    reply: Reply


@dataclass(frozen=True, eq=False)
class Inferred:
    """What is believed of a preference.

    Attributes:
        preference: Mean, `[K]`; who has it is best served by the option with most of `preference . scores`.
        low: Lower ends of 95 % intervals of the weights, `[K]`.
        high: Upper ends, `[K]`.
        best: Number of the option that is best on average over what is believed.
        expected_regret: How much better, on average, the option would be that is best for the very preference; in units
            of the objectives.
        contradicted: How many replies prefer an option that the mean preference does not.
    """

    preference: FloatArray
    low: FloatArray
    high: FloatArray
    best: int
    expected_regret: float
    contradicted: int


class Elicitation:
    """A conversation: `question()`, `hear(...)`, as often as wanted, and `inferred()` at any time.

    Equal options, seed and replies give equal questions and an equal result, also where it goes on from replies that
    were given before.

    Args:
        scores: What is chosen from, N options with K scores each, `[N, K]`.
        units: What a user reads each score in, such as the width of its range, `[K]`; 1 each unless given. Before any
            reply, all weights of scores *in these units* are equally likely. Preferences are returned for scores as
            they are.
        seed: Names the randomness.
        information: See `next_question`.

    Raises:
        ShapeError: If scores are no finite `[N, K]` of K from 2 to 6, or units not one positive number each.
        ConfigError: If no two options differ.

    Example:
        >>> conversation = Elicitation([[0.9, 0.2], [0.6, 0.6], [0.2, 0.9]])
        >>> first, second = conversation.question()
        >>> conversation.hear(first, second, "a" if first < second else "b")  # wants more of the first objective
        >>> bool(conversation.inferred().preference[0] > 0.5)
        True
    """

    def __init__(
        self, scores: ArrayLike, units: ArrayLike | None = None, seed: int = 0, information: float = INFORMATION
    ) -> None:
        options = np.asarray(scores, dtype=np.float64)
        if options.ndim != 2 or not 2 <= options.shape[1] <= MOST_OBJECTIVES or not np.isfinite(options).all():
            raise ShapeError(
                f"scores must be finite, one row per option and one column per objective (2 to {MOST_OBJECTIVES}), got "
                f"shape {list(options.shape)}{'' if np.isfinite(options).all() else ' with numbers that are not'}. "
                "Leave out options without scores."
            )
        self._units = np.ones(options.shape[1]) if units is None else np.asarray(units, dtype=np.float64)
        if self._units.shape != options.shape[1:] or not (np.isfinite(self._units) & (self._units > 0)).all():
            raise ShapeError(f"units must be one positive number per objective, got {self._units.tolist()}.")
        self._options = options / self._units
        if not len(options) or not np.ptp(self._options, axis=0).any():
            raise ConfigError(
                f"options must differ, got {len(options)} with the same scores. Ask about policies that score "
                "differently."
            )
        self._seed, self._information = seed, information
        self._belief = first_belief(self._options, generator("elicitation", seed))
        self._answered: list[Answered] = []

    @property
    def answered(self) -> tuple[Answered, ...]:
        """All questions that were answered, in order."""
        return tuple(self._answered)

    def question(self) -> Pair | None:
        """Return the options to show as A and B, or None where each pair has been compared."""
        asked = {(min(each.first, each.second), max(each.first, each.second)) for each in self._answered}
        drawn = generator("elicitation", self._seed, len(self._answered), "question")
        return next_question(self._belief, self._options, asked, drawn, self._information)

    def hear(self, first: int, second: int, reply: Reply) -> None:
        """Take in a reply.

        Args:
            first: Option that was shown as A.
            second: Option that was shown as B.
            reply: `a`, `b` or `=`.

        Raises:
            UnknownNameError: If the reply is something else.
            ShapeError: If the options are not two of those there are.
        """
        check_choice("reply", reply, REPLIES)
        if not {first, second} <= set(range(len(self._options))) or first == second:
            raise ShapeError(
                f"options compared must be two of {len(self._options)}, got {first} and {second}. Pass on what "
                "question() returned."
            )
        self._answered.append(Answered(first, second, reply))
        drawn = generator("elicitation", self._seed, len(self._answered), "reply")
        replies = [each.reply for each in self._answered]
        self._belief = updated(self._belief, *votes(self._differences(), replies), len(VOTES[reply]), drawn)

    def inferred(self) -> Inferred:
        """Return what is believed of the preference by now."""
        preferences = self._belief.preferences / self._units  # so that preference . score is the same utility
        preferences /= preferences.sum(axis=1, keepdims=True)
        low, high = np.quantile(preferences, [0.025, 0.975], axis=0)
        mean = self._belief.mean  # of weights in units: utilities in units are what is compared
        as_they_are = mean / self._units
        cast, shares = votes(self._differences(), [each.reply for each in self._answered])
        return Inferred(
            preference=as_they_are / as_they_are.sum(),
            low=low,
            high=high,
            best=int((self._options @ mean).argmax()),
            expected_regret=expected_regret(self._belief, self._options),
            contradicted=int(((cast @ mean < 0) & (shares == 1)).sum()),
        )

    def _differences(self) -> FloatArray:
        if not self._answered:
            return np.zeros((0, self._options.shape[1]))
        return np.stack([self._options[each.first] - self._options[each.second] for each in self._answered])
