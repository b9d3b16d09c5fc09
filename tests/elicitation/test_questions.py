from __future__ import annotations

import itertools

import numpy as np
import pytest

from paretune.elicitation.belief import Belief, first_belief
from paretune.elicitation.questions import expected_regret, next_question

BOUNDS = (-5.0, 0.0)


def sure(first_weights: list[float]) -> Belief:
    """Return a belief of equally likely weights of the first of two objectives, and hardly any noise."""
    first = np.asarray(first_weights)
    return Belief(np.stack([first, 1 - first], axis=1), np.full(len(first), -5.0), BOUNDS)


def test_expected_regret_is_what_the_best_guess_loses() -> None:
    # weights .1 and .9 of the first objective; options worth .9 and .1 to either: a guess has .5, who knows has .9
    belief, options = sure([0.1, 0.9]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_regret(belief, options) == pytest.approx(0.4)
    # a compromise of .6 each is worth .6 to both: the best guess, which loses .3
    assert expected_regret(belief, np.array([*options, [0.6, 0.6]])) == pytest.approx(0.3)
    assert expected_regret(sure([0.7]), options) == 0


def test_the_question_is_the_one_whose_reply_changes_the_choice() -> None:
    """Of users who weigh the first objective .1 or .9, only the reply to the two extremes tells which."""
    options = np.array([[1.0, 0.0], [0.0, 1.0], [0.01, 0.01], [0.02, 0.02]])  # the last are worth the same to both
    for seed in range(5):
        pair = next_question(sure([0.1, 0.9]), options, (), np.random.default_rng(seed))
        assert pair is not None
        assert set(pair) == {0, 1}


def test_where_no_reply_changes_the_choice_the_one_that_says_most_is_asked() -> None:
    # weights .1, .2, .8, .9: option 4 is best for all, so nothing is saved, and the pair 0, 1 halves them
    options = np.array([[1.0, 0.0], [0.0, 1.0], [0.02, 0.0], [0.0, 0.01], [5.0, 5.0]])
    pair = next_question(sure([0.1, 0.2, 0.8, 0.9]), options, (), np.random.default_rng(0))
    assert pair is not None
    assert set(pair) == {0, 1}


def test_no_pair_is_asked_twice_and_the_last_one_ends_it() -> None:
    options, asked = np.random.default_rng(0).uniform(size=(4, 3)), set[tuple[int, int]]()
    belief = first_belief(options, np.random.default_rng(0))
    for number in range(6):
        pair = next_question(belief, options, asked, np.random.default_rng(number))
        assert pair is not None
        assert (min(pair), max(pair)) not in asked
        asked.add((min(pair), max(pair)))
    assert asked == set(itertools.combinations(range(4), 2))
    assert next_question(belief, options, asked, np.random.default_rng(0)) is None


def test_which_of_a_pair_is_shown_first_is_left_to_chance() -> None:
    options = np.array([[1.0, 0.0], [0.0, 1.0]])
    drawn = {next_question(sure([0.1, 0.9]), options, (), np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {(0, 1), (1, 0)}
