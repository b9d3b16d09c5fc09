from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from paretune.attribution.faithfulness import pooled_rank_correlation, rank_correlation
from paretune.core.errors import ShapeError


def test_correlation_is_scipys_with_and_without_ties() -> None:
    generator = np.random.default_rng(0)
    for size in (2, 3, 5, 12):
        for values in (generator.normal(size=(2, size)), generator.integers(0, 4, (2, size)).astype(float)):
            if np.ptp(values, axis=1).min() > 0:
                found = rank_correlation(*values)
                assert found == pytest.approx(stats.spearmanr(*values).statistic)


@pytest.mark.parametrize("first", [[1.0], [2.0, 2.0], [np.nan, 1.0], [1.0, 1.0 + 1e-13], []])
def test_numbers_that_rank_nothing_have_no_correlation(first: list[float]) -> None:
    assert rank_correlation(first, list(range(len(first)))) is None


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"lists of equally many numbers, got \[2\] and \[3\]"):
        rank_correlation([1, 2], [1, 2, 3])


def test_ranks_are_pooled_within_groups() -> None:
    """Within both groups the order is reversed; taken together, the level of the second would look like agreement."""
    low, high = ([1, 2], [2, 1]), ([101, 102], [102, 101])
    assert pooled_rank_correlation([low, high]) == -1
    together = rank_correlation([1, 2, 101, 102], [2, 1, 102, 101])
    assert together == pytest.approx(0.6)


def test_groups_count_by_their_size_and_those_that_rank_nothing_do_not() -> None:
    # 1 of two parts, -1 of four: (1 - 3) / 4
    groups = [([1, 2], [1, 2]), ([1, 2, 3, 4], [4, 3, 2, 1]), ([5, 5], [1, 2]), ([1], [1])]
    assert pooled_rank_correlation(groups) == pytest.approx(-0.5)
    assert pooled_rank_correlation(groups[2:]) is None
    assert pooled_rank_correlation([]) is None
