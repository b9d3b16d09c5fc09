import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.front import front, non_dominated

# a small integer lattice makes ties and duplicates common
points = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, 3), min_size=count, max_size=count), min_size=1, max_size=9)
)


def test_higher_is_better():
    assert non_dominated([[1, 1], [2, 2], [3, 0], [0, 3]]).tolist() == [False, True, True, True]


def test_equal_in_one_objective_and_lower_in_the_other_is_dominated():
    assert non_dominated([[1, 2], [1, 1], [0, 2]]).tolist() == [True, False, False]


def test_duplicates_are_kept_all_or_none():
    assert non_dominated([[1, 0], [0, 1], [1, 0], [0, 0], [0, 0]]).tolist() == [True, True, True, False, False]


def test_one_objective_keeps_its_maxima():
    assert non_dominated([[1], [3], [2], [3]]).tolist() == [False, True, False, True]


def test_nothing_has_an_empty_front():
    assert non_dominated(np.zeros((0, 3))).tolist() == []
    assert front(np.zeros((0, 3))).shape == (0, 3)


@given(points)
def test_filter_agrees_with_the_definition(rows):
    matrix = np.array(rows)
    expected = [not any((other >= row).all() and (other > row).any() for other in matrix) for row in matrix]
    assert non_dominated(matrix).tolist() == expected


@given(points, st.randoms())
def test_order_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert sorted(front(rows).tolist()) == sorted(front(shuffled).tolist())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused_with_their_row(value):
    with pytest.raises(NonFiniteError, match="in row 1"):
        non_dominated([[0.0, 1.0], [0.5, value]])


@pytest.mark.parametrize("scores", [[1.0, 2.0], 1.0, np.zeros((3, 0))])
def test_wrong_shapes_are_refused(scores):
    with pytest.raises(ShapeError, match=r"one row a solution.* Write a single solution as"):
        front(scores)
