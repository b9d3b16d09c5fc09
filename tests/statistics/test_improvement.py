import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.improvement import probability_of_improvement

runs = st.lists(st.integers(0, 5), min_size=1, max_size=7)


def test_ties_count_half():
    # 2 beats 1 and ties 2; 1 ties 1 and loses to 2: (1 + .5 + .5 + 0) / 4
    assert probability_of_improvement([2, 1], [1, 2]).mean == 0.5
    assert probability_of_improvement([3, 2], [1, 2]).mean == (1 + 1 + 1 + 0.5) / 4


def test_tasks_count_the_same():
    # 1 on the first task, 0 on the second, 1/2 on the third
    assert probability_of_improvement([[3, 4], [1, 2], [1, 1]], [[1, 2], [3, 4], [1, 1]]).mean == 0.5


@given(runs, runs)
def test_value_agrees_with_mann_whitney(first, second):
    expected = (
        stats.mannwhitneyu(first, second, method="asymptotic").statistic if len(set(first + second)) > 1 else None
    )
    found = probability_of_improvement(first, second).mean
    assert found == pytest.approx(0.5 if expected is None else expected / len(first) / len(second), abs=1e-12)


@given(runs, runs)
def test_exchanging_the_methods_mirrors_the_interval(first, second):
    there, back = probability_of_improvement(first, second), probability_of_improvement(second, first)
    assert back.mean == pytest.approx(1 - there.mean, abs=1e-12)
    assert back.low == pytest.approx(1 - there.high, abs=1e-9)
    assert back.high == pytest.approx(1 - there.low, abs=1e-9)
    assert 0 <= there.low <= there.mean <= there.high <= 1


def test_ends_solve_their_equation():
    # 5 against 5, 1 + 3 + 4 + 5 + 5 = 18 of 25 pairs won; V(theta) = theta (1 - theta) (1 + 4 ((1 - theta)/(2 - theta)
    # + theta/(1 + theta))) / 25 and t for 8 degrees of freedom is 2.306004: an end is |18/25 - theta| = 2.306004
    # sqrt(V(theta)).
    interval = probability_of_improvement([1, 3, 5, 6, 9], [0, 2, 2.5, 4, 5.5])
    assert interval.mean == 0.72
    for theta in (interval.low, interval.high):
        variance = theta * (1 - theta) * (1 + 4 * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / 25
        assert abs(0.72 - theta) == pytest.approx(2.306004 * variance**0.5, abs=1e-6)
    assert interval.low < 0.72 < interval.high
    assert interval.count == 10
    assert interval.method == "Mann-Whitney score interval over 1 task, 5 against 5 runs each"


def test_winning_every_pair_still_leaves_doubt_which_more_runs_remove():
    few = probability_of_improvement([2, 2, 2], [1, 1, 1])
    many = probability_of_improvement(np.full(40, 2), np.full(40, 1))
    assert (few.mean, few.high, many.high) == (1.0, 1.0, 1.0)
    assert few.low < 0.5  # 3 against 3 separate by chance in 2 of 20 cases
    assert 0.9 < many.low < 1


def test_more_tasks_do_not_make_a_clean_sweep_surer():
    # nothing shows whether tasks go together: the seeds that win may be lucky on all of them
    one, four = (probability_of_improvement(np.full((t, 5), 2), np.full((t, 5), 1)) for t in (1, 4))
    assert four.low == one.low
    assert probability_of_improvement(np.full((4, 5), 1), np.full((4, 5), 2)).high == pytest.approx(1 - one.low)


def test_nearly_all_wins_are_no_surer_than_all():
    first = np.full((4, 5), 2.0)
    first[0, 0] = 0.0
    nearly, every = (probability_of_improvement(scores, np.full((4, 5), 1)) for scores in (first, np.full((4, 5), 2)))
    assert nearly.mean == 0.95
    assert nearly.low <= every.low


def test_tasks_that_repeat_each_other_count_as_the_seeds_vary():
    # 2, 4, 6 against 1, 3, 5 on both tasks: runs of the first win 1/3, 2/3 and all, theta = 2/3. Over seeds the share
    # varies by (1/9) / 3 for each method, together 2/27; one task alone has V(2/3) = 2/9 (1 + 2 (1/4 + 2/5)) / 9 =
    # .0567901, so that two tasks count as .766667. t for 4 degrees of freedom is 2.776445.
    interval = probability_of_improvement([[2, 4, 6]] * 2, [[1, 3, 5]] * 2)
    for theta in (interval.low, interval.high):
        variance = theta * (1 - theta) * (1 + 2 * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / 9
        assert abs(2 / 3 - theta) == pytest.approx(2.776445 * (variance / 0.766667) ** 0.5, abs=1e-5)
    assert interval.low < 2 / 3 < interval.high
    assert (
        interval.method == "Mann-Whitney score interval over 2 tasks, 3 against 3 runs each, tasks of one seed together"
    )


def test_one_seed_of_a_method_shows_nothing_of_how_tasks_go_together():
    # it wins half of the pairs on each of four tasks: as surely as on one
    one, four = (probability_of_improvement([[5]] * tasks, [[1, 2, 8, 9]] * tasks) for tasks in (1, 4))
    assert (four.mean, four.low, four.high) == (one.mean, one.low, one.high) == (0.5, one.low, one.high)


def test_independent_tasks_count_each():
    # each seed wins two of four pairs on either task, so that seeds do not differ: two tasks, t for 2 degrees 4.302653
    interval = probability_of_improvement([[0, 2], [2, 0]], [[1, 1], [1, 1]])
    theta = interval.low
    variance = theta * (1 - theta) * (1 + (1 - theta) / (2 - theta) + theta / (1 + theta)) / 4
    assert 0.5 - theta == pytest.approx(4.302653 * (variance / 2) ** 0.5, abs=1e-5)


def test_one_run_each_says_next_to_nothing():
    interval = probability_of_improvement([1], [0])
    assert interval.low < 0.05
    assert interval.high == 1.0


@pytest.mark.parametrize(("tasks", "together"), [(1, 0.0), (3, 0.0), (3, 0.6), (8, 0.9)])
@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_interval_covers_the_true_probability(tasks, together, count, shift):
    # Two normal methods whose means differ by `shift` sd: the first wins with chance Phi(shift / sqrt 2). Runs of one
    # seed on two tasks have correlation `together`. 300 draws have a standard error of .0126 at 95 %, and few runs take
    # few values, so that coverage moves in steps: .92 at least, .91 with one task. Taking tasks as independent covers
    # 80 to 91 % of three that have correlation .6, and fewer of eight.
    generator, true = np.random.default_rng(11), stats.norm.cdf(shift / 2**0.5)

    def scores():
        seeds, own = generator.normal(size=(1, count)), generator.normal(size=(tasks, count))
        return together**0.5 * seeds + (1 - together) ** 0.5 * own

    intervals = [probability_of_improvement(shift + scores(), scores()) for _ in range(300)]
    share = np.mean([interval.low <= true <= interval.high for interval in intervals])
    print(f"{tasks} tasks, correlation {together}, {count} runs, probability {true:.2f}: {share:.1%}")
    assert share >= (0.91 if tasks == 1 else 0.92)


def test_many_seeds_and_tasks_that_do_not_go_together_narrow_the_interval():
    # the price of not knowing how tasks go together must not be the whole gain of having four of them: half the width
    # for independent tasks, and a little more for what is not known
    generator = np.random.default_rng(12)
    pairs = [generator.normal(0, 1, (2, 4, 20)) for _ in range(50)]
    four, one = (
        np.mean([each.high - each.low for each in (probability_of_improvement(a[:t], b[:t]) for a, b in pairs)])
        for t in (4, 1)
    )
    assert four < 0.6 * one


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ShapeError, match=r"row for each of the same tasks, got 2 and 1\. Leave out tasks"):
        probability_of_improvement([[1, 2], [1, 2]], [[1, 2]])
    with pytest.raises(ShapeError, match=r"second must be at least one run.* leave out methods"):
        probability_of_improvement([1], [])
    with pytest.raises(NonFiniteError, match="first must be finite"):
        probability_of_improvement([float("nan")], [1])
    with pytest.raises(ConfigError, match="got 95"):
        probability_of_improvement([1], [1], confidence=95)
