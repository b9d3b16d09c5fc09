import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.interquartile import interquartile_mean

values = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


def test_a_quarter_is_left_out_at_either_end():
    assert interquartile_mean([9.0, 1.0, 2.0, 0.0]) == 1.5  # sorted 0 1 2 9
    assert interquartile_mean([[7, 1, 3, 5], [100, -100, 4, 6]]) == (3 + 4 + 5 + 6) / 4


def test_scores_at_the_edges_count_in_part():
    # n = 5: [1.25, 3.75] takes 3/4 of the second and of the fourth and all of the third: (.75 + 2 + 2.25) / 2.5 of 1,
    # 2, 3
    assert interquartile_mean([0, 1, 2, 3, 100]) == pytest.approx(2.0)
    assert interquartile_mean([0, 1, 2, 7, 100]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 7) / 2.5)
    # n = 3: [.75, 2.25] takes 1/4, 1, 1/4; n = 2: half of either; n = 1: the one
    assert interquartile_mean([0, 1, 8]) == pytest.approx((0 + 1 + 0.25 * 8) / 1.5)
    assert interquartile_mean([0, 4]) == 2.0
    assert interquartile_mean([0.3]) == pytest.approx(0.3)


def test_collapsed_runs_do_not_move_it():
    assert interquartile_mean([0.5, 0.6, 0.7, 0.8]) == interquartile_mean([-99, 0.6, 0.7, 0.8])


@given(values)
def test_repeating_every_run_changes_nothing_and_a_multiple_of_four_agrees_with_scipy(sample):
    # Four copies of each run make n / 4 whole, where plain trimming is exact; fractional weights must agree with it.
    assert interquartile_mean(sample) == pytest.approx(stats.trim_mean(sample * 4, 0.25), rel=1e-9, abs=1e-9)


@given(values)
def test_shift_and_scale_carry_over_and_order_does_not_matter(sample):
    expected = interquartile_mean(sample)
    shifted = interquartile_mean(3 - 2 * np.array(sample)[::-1])
    assert shifted == pytest.approx(3 - 2 * expected, rel=1e-9, abs=1e-9)


def test_no_runs_and_missing_scores_are_refused():
    with pytest.raises(ShapeError, match="at least one number"):
        interquartile_mean([])
    with pytest.raises(NonFiniteError, match="Leave out runs without a score"):
        interquartile_mean([0.1, float("nan")])
