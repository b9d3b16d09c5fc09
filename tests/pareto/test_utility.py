import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, PreferenceError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.pareto.cross_fitting import prompt_halves
from paretune.pareto.front import front
from paretune.pareto.utility import expected_utility, expected_utility_pair, maximum_utility_loss

sizes = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3))


def by_loops(scores, preferences):
    return [max(sum(w * f for w, f in zip(preference, row)) for row in scores) for preference in preferences]


def test_expected_utility_takes_the_best_for_each_preference():
    # w = (1, 0): max(3, 1) = 3; (0, 1): max(0, 2) = 2; (.5, .5): max(1.5, 1.5) = 1.5; mean 6.5 / 3
    assert expected_utility([[3, 0], [1, 2]], [[1, 0], [0, 1], [0.5, 0.5]]) == pytest.approx(6.5 / 3)


def test_one_objective_has_one_preference():
    assert expected_utility([[0.25], [0.75]], [[1.0]]) == 0.75
    assert maximum_utility_loss([[0.25]], [[0.75]], [[1.0]]) == 0.5


@given(sizes)
def test_utilities_agree_with_the_definition(size):
    seed, count, objectives = size
    generator = np.random.default_rng(seed)
    scores, references = generator.normal(size=(count, objectives)), generator.normal(size=(4, objectives))
    preferences = das_dennis(objectives, 3)
    best, reference = by_loops(scores, preferences), by_loops(references, preferences)
    assert expected_utility(scores, preferences) == pytest.approx(np.mean(best), abs=1e-12)
    loss = max(there - here for here, there in zip(best, reference))
    assert maximum_utility_loss(scores, references, preferences) == pytest.approx(loss, abs=1e-12)


@given(sizes)
def test_dominated_solutions_duplicates_and_order_do_not_matter(size):
    seed, count, objectives = size
    scores, preferences = np.random.default_rng(seed).normal(size=(count, objectives)), das_dennis(objectives, 4)
    expected = expected_utility(scores, preferences)
    assert expected_utility(front(scores), preferences) == pytest.approx(expected, abs=1e-12)
    assert expected_utility(np.concatenate([scores[::-1], scores]), preferences) == pytest.approx(expected, abs=1e-12)


def test_loss_is_nothing_to_itself_and_negative_above():
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert maximum_utility_loss(scores, scores, das_dennis(2, 4)) == 0.0
    assert maximum_utility_loss(scores + 0.25, scores, das_dennis(2, 4)) == -0.25


def test_a_single_lost_preference_is_found():
    # Without (0, 1), a user of (0, 1) falls to 0, one of (.5, .5) from .5 to .5, one of (1, 0) loses nothing.
    assert maximum_utility_loss([[1, 0]], [[1, 0], [0, 1]], [[0.5, 0.5], [1, 0]]) == 0.0
    assert maximum_utility_loss([[1, 0]], [[1, 0], [0, 1]], [[0.5, 0.5], [1, 0], [0, 1]]) == 1.0


def test_cross_fitted_choice_is_made_on_one_half_and_valued_on_the_other():
    # Half A is prompt 0, half B prompt 1. w = (1, 0): A chooses candidate 0 (4 > 1), worth 0 on B; B chooses 1 (3 > 0),
    # worth 1 on A. w = (0, 1): A chooses 1 (2 > 1), worth 0 on B; B chooses 0 (5 > 0), worth 1 on A.
    # Mean of 0, 1, 0, 1 is .5. Naive: means (2, 3) and (2, 1): 2 for the first, 3 for the second preference: 2.5.
    scores = [[[4.0, 1.0], [0.0, 5.0]], [[1.0, 2.0], [3.0, 0.0]]]
    pair = expected_utility_pair(scores, [[1, 0], [0, 1]], halves=[[True, False]])
    assert pair.naive == 2.5
    assert pair.cross_fitted == 0.5
    assert (pair.candidates, pair.prompts) == (2, 2)


@given(sizes)
def test_cross_fitted_choice_agrees_with_the_definition(size):
    seed, count, objectives = size
    scores = np.random.default_rng(seed).normal(size=(count, 5, objectives))
    preferences, halves = das_dennis(objectives, 2), prompt_halves(5, 3)
    values = []
    for half in halves:
        for chooser, judge in ((half, ~half), (~half, half)):
            for preference in preferences:
                choice = max(range(count), key=lambda n: float(scores[n, chooser].mean(axis=0) @ preference))
                values.append(float(scores[choice, judge].mean(axis=0) @ preference))
    assert expected_utility_pair(scores, preferences, halves).cross_fitted == pytest.approx(np.mean(values), abs=1e-12)


def test_every_prompt_counts():
    scores = 2.0 ** np.arange(10).reshape(1, 10, 1)
    pair = expected_utility_pair(scores, [[1.0]])
    assert (pair.naive, pair.cross_fitted) == (pytest.approx(102.3), pytest.approx(102.3))


def test_noise_raises_the_naive_utility_of_equal_policies_and_not_the_cross_fitted_one():
    # The maximum of 50 normal variables is 2.25 sd above their mean, and so is the naive figure at the corners, where a
    # utility has the sd of one score, .05: .1125; at the centre of two objectives .1125 / sqrt(2). Cross-fitted figures
    # are unbiased: 100 repeats, each with an sd of at most .05 sqrt(2), have a standard error of .007; three are .021.
    generator, preferences = np.random.default_rng(8), [[1, 0], [0, 1], [0.5, 0.5]]
    pairs = [
        expected_utility_pair(
            generator.normal(0.5, 0.05 * 20**0.5, size=(50, 20, 2)), preferences, prompt_halves(20, 1)
        )
        for _ in range(100)
    ]
    naive, cross_fitted = (np.mean([getattr(pair, kind) for pair in pairs]) for kind in ("naive", "cross_fitted"))
    print(f"utility .5, evaluation sd .05: naive {naive / 0.5 - 1:+.1%}, cross-fitted {cross_fitted / 0.5 - 1:+.1%}")
    assert naive == pytest.approx(0.5 + 0.1125 * (2 + 0.5**0.5) / 3, abs=0.01)
    assert cross_fitted == pytest.approx(0.5, abs=0.021)


def test_one_prompt_has_no_halves():
    pair = expected_utility_pair([[[0.25, 0.5]]], [[0, 1]])
    assert (pair.naive, pair.cross_fitted, pair.evaluation_sd) == (0.5, None, None)
    assert "one prompt" in pair.reason


def test_empty_sets_wrong_shapes_and_values_are_refused():
    with pytest.raises(ShapeError, match="scores must have at least one row"):
        expected_utility(np.zeros((0, 2)), [[1, 0]])
    with pytest.raises(ShapeError, match="scores must have at least one row"):
        expected_utility_pair(np.zeros((0, 4, 2)), [[1, 0]])
    with pytest.raises(ShapeError, match=r"reference_set must have one column per objective \(2\), got 3"):
        maximum_utility_loss([[1, 0]], [[1, 0, 0]], [[1, 0]])
    with pytest.raises(NonFiniteError, match="reference_set must be finite"):
        maximum_utility_loss([[1, 0]], [[1, float("nan")]], [[1, 0]])
    with pytest.raises(PreferenceError, match="non-negative"):
        expected_utility([[1, 0]], [[0.7, -0.7]])
