from __future__ import annotations

import numpy as np
import pytest

from paretune.core.answers import AnswerRule
from paretune.core.errors import ShapeError, UnknownNameError

TRAINED = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])


def test_the_nearest_policy_answers_and_says_whether_it_is_exact() -> None:
    weights, answers = AnswerRule("nearest", TRAINED).answer(np.asarray([[0.0, 1.0], [0.9, 0.1], [0.6, 0.4]]))
    assert weights.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert answers == ["exact", "nearest", "nearest"]


def test_the_first_of_two_equally_near_policies_answers() -> None:
    weights, answers = AnswerRule("nearest", TRAINED).answer(np.asarray([[0.75, 0.25], [0.25, 0.75]]))
    assert weights.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert answers == ["nearest", "nearest"]


def test_the_policy_of_the_highest_measured_utility_is_selected() -> None:
    scores = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.6, 0.6]])
    # .8 .2: .74, .32, .60; .5 .5: .5, .5, .6; 0 1: .1, .8, .6
    weights, answers = AnswerRule("selected", scores).answer(np.asarray([[0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]))
    assert weights.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert answers == ["selected"] * 3


def test_the_first_of_equal_utilities_is_selected_whatever_the_last_bit() -> None:
    scores = np.asarray([[0.3, 0.6], [0.1 + 0.2, 0.6], [0.6, 0.3]])
    weights, _ = AnswerRule("selected", scores).answer(np.asarray([[0.5, 0.5]]))
    assert weights.tolist() == [[1, 0, 0]]


def test_combined_weights_are_linear_in_the_preference() -> None:
    table = np.asarray([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])  # [K, E]
    rule = AnswerRule("combined", table)
    weights, answers = rule.answer(np.asarray([[0.7, 0.3], [1.0, 0.0]]))
    np.testing.assert_allclose(weights, [[0.7, 0.15, 0.15], [1, 0, 0]], atol=1e-15)  # one rounding
    assert answers == ["combined", "combined"]
    assert rule.experts == 3


def test_one_expert_answers_everything() -> None:
    for kind in ("nearest", "selected"):
        weights, _ = AnswerRule(kind, np.asarray([[0.5, 0.5]])).answer(TRAINED)  # type: ignore[arg-type]  # of RuleKind
        assert weights.tolist() == [[1]] * 3


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        UnknownNameError, match=r"one of combined, nearest, selected, got 'nearst'\. Did you mean 'near"
    ):
        AnswerRule("nearst", TRAINED)  # type: ignore[arg-type]  # the point of the test


def test_a_table_of_one_dimension_is_refused() -> None:
    with pytest.raises(ShapeError, match="two dimensions, got 1"):
        AnswerRule("selected", np.ones(3))


def test_preferences_of_another_number_of_objectives_are_refused() -> None:
    for kind, table in (("nearest", TRAINED), ("selected", TRAINED), ("combined", np.eye(2))):
        with pytest.raises(ShapeError, match=r"one column per objective \(2\), got 3"):
            AnswerRule(kind, table).answer(np.eye(3))  # type: ignore[arg-type]  # of RuleKind
