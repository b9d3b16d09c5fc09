import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.profiles import performance_profile

scores = st.lists(st.integers(0, 8), min_size=1, max_size=12)
THRESHOLDS = np.arange(-1, 10) / 1.0


def test_share_of_runs_strictly_above():
    profile = performance_profile([[0.2, 0.5], [0.5, 0.9]], [0.1, 0.2, 0.5, 0.9])
    assert profile.share.tolist() == [1.0, 0.75, 0.25, 0.0]
    assert profile.runs == 4
    assert profile.method == "Wilson interval over 4 runs, pointwise"


def test_interval_of_half_of_ten_runs_matches_wilson():
    # p = .5, n = 10, z = 1.959964: (p + z^2/20) / (1 + z^2/10) = .5; half width z sqrt(.025 + z^2/400) / (1 + z^2/10) =
    # .26341
    profile = performance_profile(range(10), [4])
    assert profile.share.tolist() == [0.5]
    assert (profile.low[0], profile.high[0]) == pytest.approx((0.23659, 0.76341), abs=1e-5)


@given(scores)
def test_intervals_agree_with_scipy(sample):
    profile = performance_profile(sample, THRESHOLDS)
    for place, threshold in enumerate(THRESHOLDS):
        above = sum(score > threshold for score in sample)
        expected = stats.binomtest(above, len(sample)).proportion_ci(method="wilson")
        assert profile.share[place] == above / len(sample)
        assert (profile.low[place], profile.high[place]) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(scores)
def test_profile_falls_from_one_to_zero(sample):
    profile = performance_profile(sample, THRESHOLDS)
    assert (np.diff(profile.share) <= 0).all()
    assert (profile.share[0], profile.share[-1]) == (1.0, 0.0)
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()


def test_one_run_leaves_almost_everything_open():
    profile = performance_profile([0.5], [0.4, 0.6])
    assert profile.low[0] < 0.21
    assert profile.high[1] > 0.79


@pytest.mark.parametrize("count", [10, 20])
def test_interval_covers_the_true_share(count):
    # Exact, without draws: of `count` runs, k are above with the binomial probability. Coverage swings with the share,
    # by about .04 at 10 runs; Wilson's interval promises 95 % on average over shares, and 92 % at each of these.
    profile = performance_profile(np.arange(count), np.arange(-1, count) + 0.0)  # shares count/count, ..., 1/count, 0
    true = np.linspace(0.15, 0.85, 71)
    chances = stats.binom.pmf(np.round(profile.share * count)[:, None], count, true)  # [k, share]
    coverage = (chances * ((profile.low[:, None] <= true) & (true <= profile.high[:, None]))).sum(axis=0)
    print(f"{count} runs: {coverage.min():.1%} at worst, {coverage.mean():.1%} on average")
    assert coverage.mean() == pytest.approx(0.95, abs=0.015)
    assert coverage.min() > 0.919


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ShapeError, match="got 0 runs"):
        performance_profile([], [0.5])
    with pytest.raises(ShapeError, match=r"thresholds must be a list.* write one threshold as"):
        performance_profile([0.5], 0.5)
    with pytest.raises(NonFiniteError, match="Leave out runs without a score"):
        performance_profile([float("nan")], [0.5])
    with pytest.raises(ConfigError, match="got 95"):
        performance_profile([0.5], [0.5], confidence=95)
