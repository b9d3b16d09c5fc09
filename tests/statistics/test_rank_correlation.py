from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.rank_correlation import mid_ranks, pooled_rank_correlation, rank_correlation


def test_ranks_alone_count() -> None:
    # ranks 1 2 3 4 and 1 2 4 3: 1 - 6 * 2 / (4 * 15) = .8
    assert rank_correlation([1, 2, 3, 400], [0.1, 0.2, 0.9, 0.3]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0


def test_ties_share_their_ranks() -> None:
    assert mid_ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_it_is_what_scipy_computes(seed: int, count: int) -> None:
    first, second = np.random.default_rng(seed).integers(0, 5, size=(2, count)).astype(float)
    found = rank_correlation(first, second)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found == "one of the two is constant"
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_two_points_tell_nothing_and_a_constant_neither() -> None:
    assert rank_correlation([1, 2], [1, 2]) == "fewer than 3 points"
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == "one of the two is constant"


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="first and second must be of the same points, got 3 and 2"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(NonFiniteError, match="second must be finite"):
        rank_correlation([1, 2, 3], [1, 2, np.nan])


def test_ranks_are_pooled_within_groups() -> None:
    """Within both groups the order is reversed; taken together, the level of the second would look like agreement."""
    low, high = ([1, 2, 3], [3, 2, 1]), ([101, 102, 103], [103, 102, 101])
    assert pooled_rank_correlation([low, high]) == -1
    together = rank_correlation([*low[0], *high[0]], [*low[1], *high[1]])
    assert isinstance(together, float)
    assert together > 0


def test_groups_count_by_their_size_and_those_that_rank_nothing_do_not() -> None:
    # 1 of three points, -1 of five: (2 - 4) / 6
    groups = [([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])]
    nothing = [([5, 5, 5], [1, 2, 3]), ([1, 2], [1, 2]), ([1, 2, np.nan], [1, 2, 3])]
    assert pooled_rank_correlation([*nothing, *groups]) == pytest.approx(-1 / 3)
    assert pooled_rank_correlation(nothing) == "one of the two is constant"
    assert pooled_rank_correlation(nothing[1:]) == "fewer than 3 points"
    assert pooled_rank_correlation(nothing[2:]) == "a value is missing"
    assert pooled_rank_correlation([]) == "nothing to rank"


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_rounding_is_not_ranked_in_any_unit(unit: float) -> None:
    first = unit * np.array([1.0, 1.0 + 1e-13, 2.0])
    # ranks 1.5 1.5 3 against 1 2 3: (.5 + 0 + 1) / sqrt(1.5 x 2)
    assert pooled_rank_correlation([(first, [1, 2, 3])]) == pytest.approx(0.75**0.5)
