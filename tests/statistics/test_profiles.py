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
    for scores in ([0.2, 0.5, 0.5, 0.9], [[0.2, 0.5], [0.5, 0.9]]):
        profile = performance_profile(scores, [0.1, 0.2, 0.5, 0.9])
        assert profile.share.tolist() == [1.0, 0.75, 0.25, 0.0]
        assert profile.runs == 4


def test_interval_says_whether_it_rests_on_runs_or_on_seeds():
    assert performance_profile(range(4), [1]).method == "Wilson interval over 4 runs, pointwise"
    assert performance_profile([range(4)], [1]).method == "Wilson interval over 4 runs, pointwise"
    assert performance_profile([[1, 2, 3]] * 2, [1]).method == "Wilson interval over 3 seeds of 2 tasks each, pointwise"
    assert performance_profile([[1]] * 2, [1]).method == "Wilson interval over 1 seed of 2 tasks each, pointwise"


def test_interval_over_tasks_counts_as_many_runs_as_vary_like_the_seeds():
    # Seeds are above on 2, 2, 1 and 0 of 2 tasks: share .625, variance of its seeds .229167 / 4; a run's is .625 x .375
    # = .234375, so that 8 runs count as 4.0909. t for 3 degrees of freedom is 3.182446, k = t^2 / 4.0909 = 2.475724:
    # centre (.625 + k/2) / (1 + k) = .535964, half sqrt(.234375 k + k^2/4) / (1 + k) = .418175.
    profile = performance_profile([[1, 1, 1, 0], [1, 1, 0, 0]], [0.5])
    assert (profile.low[0], profile.high[0]) == pytest.approx((0.117789, 0.954139), abs=2e-5)


def test_seeds_that_hardly_differ_count_every_run_and_no_more():
    # 20 seeds are above on one of 2 tasks each: 40 runs. t for 19 degrees of freedom is 2.093024, k = t^2 / 40 =
    # .109519: the lower end is .5 - sqrt(k/4 + k^2/4) / (1 + k) = .342910.
    profile = performance_profile([[0, 1] * 10, [1, 0] * 10], [0.5])
    assert profile.low[0] == pytest.approx(0.342910, abs=2e-5)
    # One is above on both: share .525, and its variance over seeds .0125 / 20 would be that of 399 runs. 40 again:
    # (.525 + k/2) / (1 + k) - sqrt(.249375 k + k^2/4) / (1 + k) = .522532 - .156912.
    profile = performance_profile([[1, 1] + [0, 1] * 9, [1, 0] + [1, 0] * 9], [0.5])
    assert profile.low[0] == pytest.approx(0.365620, abs=2e-5)


def test_interval_where_all_runs_are_above_rests_on_the_seeds_alone():
    # t for 4 degrees of freedom is 2.776445: the lower end of 5 of 5 is 1 / (1 + t^2 / 5) = .393433, whatever the tasks
    for tasks in (2, 6):
        profile = performance_profile(np.ones((tasks, 5)), [0.0, 2.0])
        assert (profile.low[0], profile.high[0]) == (pytest.approx(0.393433, abs=1e-6), 1.0)
        assert (profile.low[1], profile.high[1]) == (0.0, pytest.approx(1 - 0.393433, abs=1e-6))


@given(st.lists(st.lists(st.integers(0, 8), min_size=4, max_size=4), min_size=2, max_size=5))
def test_interval_over_tasks_stays_around_the_share_and_never_ends_nearer_to_an_edge_than_there(sample):
    profile = performance_profile(sample, THRESHOLDS)
    assert (profile.low >= 0).all()
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()
    assert (profile.high <= 1).all()
    assert (profile.low <= profile.low[0]).all()
    assert (profile.high >= profile.high[-1]).all()


def test_one_seed_says_next_to_nothing_whatever_its_tasks():
    profile = performance_profile([[value] for value in range(30)], [14])
    assert profile.low[0] < 0.01
    assert profile.high[0] > 0.99


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


@pytest.mark.parametrize(("tasks", "together"), [(3, 0.0), (3, 0.6), (8, 0.9)])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_interval_over_tasks_covers_the_true_share(tasks, together, seeds):
    # Runs of one seed have correlation `together` between tasks. 500 draws: standard error .0097 at 95 %. Wilson's
    # interval over all runs covers 80 to 90 % of three tasks at correlation .6, and fewer of eight.
    generator, true = np.random.default_rng(13), np.array([0.5, 0.7, 0.9])
    thresholds, held = stats.norm.isf(true), []
    for _ in range(500):
        common, own = generator.normal(size=(1, seeds)), generator.normal(size=(tasks, seeds))
        profile = performance_profile(together**0.5 * common + (1 - together) ** 0.5 * own, thresholds)
        held.append((profile.low <= true) & (true <= profile.high))
    coverage = np.mean(held, axis=0)
    print(f"{tasks} tasks, correlation {together}, {seeds} seeds, shares {true}: {coverage}")
    assert coverage.min() >= 0.92


def test_many_seeds_and_tasks_that_do_not_go_together_narrow_the_interval():
    # half the width for four independent tasks, and a little more for what is not known about them
    scores = np.random.default_rng(14).normal(size=(50, 4, 20))
    four, one = (
        np.mean([each.high - each.low for each in (performance_profile(runs[:t], [0.0]) for runs in scores)])
        for t in (4, 1)
    )
    assert four < 0.7 * one


def test_wrong_shapes_and_values_are_refused():
    for wrong in ([], np.zeros((2, 0)), 0.5, np.zeros((2, 2, 2))):
        with pytest.raises(ShapeError, match=r"scores must be at least one run.* leave out methods without a run"):
            performance_profile(wrong, [0.5])
    with pytest.raises(ShapeError, match=r"thresholds must be a list.* Write one threshold as"):
        performance_profile([0.5], 0.5)
    with pytest.raises(NonFiniteError, match="Leave out runs without a score"):
        performance_profile([float("nan")], [0.5])
    with pytest.raises(ConfigError, match="got 95"):
        performance_profile([0.5], [0.5], confidence=95)
