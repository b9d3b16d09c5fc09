from __future__ import annotations

import numpy as np
import pytest

from paretune.core.adapted import Adapted
from paretune.core.answers import Combined, answer_from_plain, answer_to_plain
from paretune.core.errors import RecordError, ShapeError

SOUP = answer_to_plain(Combined(np.eye(2)))


def test_an_adapted_preference_has_an_expert_of_its_own_and_others_are_answered_as_before() -> None:
    answer = Adapted(SOUP, np.asarray([[0.25, 0.75]]))
    weights, words = answer.weights(np.asarray([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]))
    assert weights.tolist() == [[0, 0, 1], [1, 0, 0], [0.5, 0.5, 0]]
    assert words == ["exact", "combined", "combined"]


def test_a_preference_that_was_adapted_to_twice_is_answered_by_the_later_expert() -> None:
    once = Adapted(SOUP, np.asarray([[0.25, 0.75]]))
    twice = Adapted(answer_to_plain(once), np.asarray([[0.25, 0.75]]))
    assert twice.weights(np.asarray([[0.25, 0.75]]))[0].tolist() == [[0, 0, 0, 1]]
    again = answer_from_plain(answer_to_plain(twice))
    assert again.weights(np.asarray([[0.25, 0.75], [0, 1]]))[0].tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert (again.objectives, again.experts) == (2, 4)


def test_an_adapted_preference_may_have_several_experts_with_weights_of_their_own() -> None:
    answer = Adapted(SOUP, np.asarray([[0.25, 0.75], [1.0, 0.0]]), np.asarray([[0.2, 0.9], [1.5, -0.5]]))
    weights, words = answer.weights(np.asarray([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]))
    assert weights.tolist() == [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 1.5, -0.5], [0, 0, 0.2, 0.9, 0, 0]]
    assert (words, answer.experts) == (["combined", "exact", "exact"], 6)
    again = answer_from_plain(answer_to_plain(answer))
    assert again.weights(np.asarray([[1.0, 0.0]]))[0].tolist() == [[0, 0, 0, 0, 1.5, -0.5]]
    with pytest.raises(ShapeError, match="own must be finite weights"):
        Adapted(SOUP, np.asarray([[0.25, 0.75]]), np.ones((2, 2)))


def test_preferences_of_other_objectives_and_an_answer_that_is_none_are_refused() -> None:
    with pytest.raises(ShapeError, match="adapted must be preferences of 2 objectives"):
        Adapted(SOUP, np.eye(3))
    with pytest.raises(RecordError, match="answer must name its class"):
        Adapted({}, np.eye(2))
