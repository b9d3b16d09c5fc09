import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.distance import additive_epsilon, igd_plus

sizes = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 5), st.integers(1, 3))


def draw(size):
    seed, count, references, objectives = size
    generator = np.random.default_rng(seed)  # rounded to a lattice: ties and duplicates are common
    return generator.normal(size=(count, objectives)).round(1), generator.normal(size=(references, objectives)).round(1)


def test_only_what_a_solution_lacks_counts():
    # To (1, 1): (0, 3) lacks (1, 0), distance 1; (-2, 0.5) lacks more. To (0, 2): nothing. Mean 1/2.
    assert igd_plus([[0, 3], [-2, 0.5]], [[1, 1], [0, 2]]) == 0.5
    # Adding e: (0, 3) reaches (1, 1) with e = 1, and (0, 2) with e = -0. The larger is 1.
    assert additive_epsilon([[0, 3], [-2, 0.5]], [[1, 1], [0, 2]]) == 1.0


def test_straight_line_in_between():
    # (.5, .5) lacks (.5, 0) to (1, 0) and (0, .5) to (0, 1), hence .5 each; and .5 must be added for either.
    assert igd_plus([[0.5, 0.5]], [[1, 0], [0, 1]]) == 0.5
    assert additive_epsilon([[0.5, 0.5]], [[1, 0], [0, 1]]) == 0.5


@given(sizes)
def test_igd_plus_agrees_with_the_definition(size):
    scores, references = draw(size)
    gaps = [min(math.hypot(*np.maximum(reference - score, 0)) for score in scores) for reference in references]
    assert igd_plus(scores, references) == pytest.approx(np.mean(gaps), abs=1e-12)


@given(sizes)
def test_epsilon_agrees_with_the_definition(size):
    scores, references = draw(size)
    gaps = [min(max(reference - score) for score in scores) for reference in references]
    assert additive_epsilon(scores, references) == pytest.approx(max(gaps), abs=1e-12)


@given(sizes)
def test_with_epsilon_added_the_set_weakly_dominates_and_with_less_it_does_not(size):
    scores, references = draw(size)
    epsilon = additive_epsilon(scores, references)

    def dominates(raised):
        return all(any((score >= reference).all() for score in raised) for reference in references)

    assert dominates(scores + epsilon + 1e-9)
    assert not dominates(scores + epsilon - 1e-9)


@given(sizes)
def test_a_further_solution_never_harms(size):
    scores, references = draw(size)
    assert igd_plus(scores, references) <= igd_plus(scores[:1], references) + 1e-12
    assert additive_epsilon(scores, references) <= additive_epsilon(scores[:1], references) + 1e-12


def test_a_dominating_set_is_at_no_distance():
    references = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert igd_plus(references, references) == 0.0
    assert additive_epsilon(references, references) == 0.0
    assert igd_plus([[2.0, 2.0]], references) == 0.0
    assert additive_epsilon([[2.0, 2.0]], references) == -1.0


def test_one_objective_is_the_difference_of_the_maxima():
    assert igd_plus([[0.25], [0.5]], [[1.0]]) == 0.5
    assert additive_epsilon([[0.25], [0.5]], [[1.0], [0.75]]) == 0.5


@pytest.mark.parametrize("distance", [igd_plus, additive_epsilon])
def test_empty_sets_wrong_shapes_and_values_are_refused(distance):
    with pytest.raises(ShapeError, match="scores must have at least one row"):
        distance(np.zeros((0, 2)), [[1, 1]])
    with pytest.raises(ShapeError, match="reference_set must have at least one row"):
        distance([[1, 1]], np.zeros((0, 2)))
    with pytest.raises(ShapeError, match=r"reference_set must have one column per objective \(2\), got 1"):
        distance([[1, 1]], [[1]])
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        distance([[1, float("nan")]], [[1, 1]])
    with pytest.raises(NonFiniteError, match=r"reference_set must be finite, got .* in row 1"):
        distance([[1, 1]], [[1, 1], [float("inf"), 0]])
