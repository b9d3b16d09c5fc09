"""Which two options to show next: those whose comparison helps most to choose well."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.elicitation.answering import chance_of_a
from paretune.elicitation.belief import Belief

Pair = tuple[int, int]
MOST_PAIRS = 200  # looked at for a question, at random where there are more
MOST_POINTS = 256  # of a belief, for the same reason: a question must come at once
INFORMATION = 2.0  # of a nat, in units of the regret that is left: least regret after ten questions on tuning instances


def expected_regret(belief: Belief, options: FloatArray) -> float:
    """Return how much worse the option that is best on average is expected to be than the best for who answers.

    Args:
        belief: What is believed.
        options: `[N, K]`.
    """
    utilities = belief.preferences @ options.T  # [P, N]
    return float(utilities.max(axis=1).mean() - utilities.mean(axis=0).max())


def next_question(
    belief: Belief,
    options: FloatArray,
    asked: Collection[Pair],
    generator: np.random.Generator,
    information: float = INFORMATION,
) -> Pair | None:
    """Return two options to compare, or None where each pair has been compared.

    A pair is worth the regret that its reply is expected to save, as a share of what is left, and `information` times
    what the reply is expected to say about the preference, in nats: where no single reply would change the choice,
    which two might, the second decides.

    Args:
        belief: What is believed.
        options: `[N, K]`.
        asked: Pairs that have been compared, the lower number first.
        generator: Draws the pairs and points that are looked at, and which option of a pair is A.
        information: See above.

    Source:
        Viappiani and Boutilier 2010 (expected value of information for recommending); Houlsby et al. 2011
        (information).
    """
    pairs = np.asarray([each for each in itertools.combinations(range(len(options)), 2) if each not in asked])
    if not len(pairs):
        return None
    pairs = generator.permutation(pairs)[:MOST_PAIRS]
    chosen = slice(None, None, max(len(belief.preferences) // MOST_POINTS, 1))
    preferences, noise = belief.preferences[chosen], np.exp(belief.log_noise[chosen])
    gaps = preferences @ (options[pairs[:, 0]] - options[pairs[:, 1]]).T  # [P, Q]
    worth = _worth(preferences, options, chance_of_a(gaps, noise[:, None]), information)
    first, second = pairs[int(np.argmax(worth))].tolist()
    return (first, second) if generator.random() < 0.5 else (second, first)


def _worth(preferences: FloatArray, options: FloatArray, chances: FloatArray, information: float) -> FloatArray:
    """Return what each of Q questions is worth, whose chances of A are `[P, Q]`."""
    utilities = preferences @ options.T
    now, most = utilities.mean(axis=0).max(), utilities.max(axis=1).mean()
    with_a = chances.T @ preferences / len(preferences)  # E[preference; reply a], [Q, K]
    with_b = preferences.mean(axis=0) - with_a
    then = (with_a @ options.T).max(axis=1) + (with_b @ options.T).max(axis=1)  # the best option after either reply
    saved = (then - now) / max(most - now, np.finfo(float).tiny)
    told = _entropies(chances.mean(axis=0)) - _entropies(chances).mean(axis=0)
    return np.asarray(saved + information * told)


def _entropies(chances: FloatArray) -> FloatArray:
    """Return how open questions of two replies are, in nats."""
    return np.asarray(-chances * np.log(chances) - (1 - chances) * np.log1p(-chances))
