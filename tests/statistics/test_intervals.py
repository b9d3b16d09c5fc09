import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.intervals import mean_interval, wilson_interval

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def test_interval_of_three_values_matches_the_table():
    # mean 2, sd 1, standard error 1/sqrt(3); t for 2 degrees of freedom and 95 % is 4.302653 in every table
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)  # six decimals of the table
    assert interval.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert (interval.count, interval.reason) == (3, "")


def test_two_values_reach_far():
    # sd of (0, 1) is sqrt(.5), standard error 1/2, t for 1 degree of freedom tan(.475 pi) = 12.7062
    assert mean_interval([0.0, 1.0]).high == pytest.approx(0.5 + 12.7062 / 2, abs=1e-4)


def test_one_value_has_no_interval_and_says_why():
    interval = mean_interval([0.3])
    assert (interval.mean, interval.low, interval.high) == (0.3, None, None)
    assert interval.reason == "one seed: no interval"


def test_equal_values_give_an_interval_of_no_width():
    interval = mean_interval([0.25, 0.25, 0.25])
    assert interval.low == interval.mean == interval.high == 0.25


@given(values)
def test_interval_agrees_with_scipy(sample):
    interval = mean_interval(sample)
    error = float(np.std(sample, ddof=1)) / math.sqrt(len(sample))
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(sample) - 1, loc=np.mean(sample), scale=error)
        assert interval.low == pytest.approx(low, rel=1e-9, abs=1e-9)  # same formula, other rounding
        assert interval.high == pytest.approx(high, rel=1e-9, abs=1e-9)


@given(values, st.randoms())
def test_order_of_seeds_does_not_matter(sample, random):
    shuffled = random.sample(sample, len(sample))
    first, second = mean_interval(sample), mean_interval(shuffled)
    assert first.low == pytest.approx(second.low, rel=1e-9, abs=1e-7)  # sums of up to 8 values of 1e3
    assert first.mean == pytest.approx(second.mean, rel=1e-9, abs=1e-9)


def test_number_of_seeds_decides_the_rule_and_the_interval_says_which():
    assert mean_interval(np.arange(3.0)).method == "Student-t over 3 values"
    assert mean_interval(np.arange(25.0)).method == "Student-t over 25 values"
    assert mean_interval(np.ones((19, 4))).method == "Student-t over 19 seed means"
    assert mean_interval(np.ones((20, 4))).method == "nested bootstrap over 20 seeds and 4 prompts"
    assert mean_interval([[0.5, 0.6]]).method == ""


def test_prompts_of_few_seeds_are_averaged_first():
    # seed means 1, 2, 3, whatever their prompts do
    interval = mean_interval([[0.0, 2.0], [-8.0, 12.0], [3.0, 3.0]])
    assert interval.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert interval.count == 3


def test_every_prompt_counts():
    # Powers of 2 give every subset of prompts another mean. Seeds that agree on every prompt leave no doubt.
    values = np.tile(2.0 ** np.arange(10), (20, 1))
    assert mean_interval(values[:3]).mean == pytest.approx(102.3)
    many = mean_interval(values)
    assert many.mean == pytest.approx(102.3)
    assert (many.low, many.high) == pytest.approx((102.3, 102.3))


def test_one_seed_with_prompts_has_no_interval():
    interval = mean_interval([[0.25, 0.75]])
    assert (interval.mean, interval.low, interval.count) == (0.5, None, 1)
    assert interval.reason == "one seed: no interval"


def test_bootstrap_repeats_itself_unless_given_a_generator():
    values = np.random.default_rng(0).normal(size=(20, 5))
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, generator=np.random.default_rng(1))


def test_twenty_seeds_give_about_the_interval_that_nineteen_did():
    # Changing the rule must not change the answer: normal values, prompts noisier than seeds. Student-t on 20 seed
    # means is the truth here; 4,000 resamples place each end within about 2 % of the width, skewness of 20 draws adds
    # some.
    values = 0.5 + np.random.default_rng(5).normal(0, 0.05, (20, 1)) + np.random.default_rng(6).normal(0, 0.3, (20, 12))
    nested, student = mean_interval(values), mean_interval(values.mean(axis=1))
    assert nested.method != student.method
    assert nested.high - nested.low == pytest.approx(student.high - student.low, rel=0.12)


@pytest.mark.parametrize("sample", [[0.1, float("nan")], [float("inf"), 0.0]])
def test_values_that_are_no_numbers_are_refused(sample):
    with pytest.raises(NonFiniteError, match="values must be finite"):
        mean_interval(sample)


@pytest.mark.parametrize("sample", [[], 0.5, np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2))])
def test_what_is_no_list_of_numbers_is_refused(sample):
    with pytest.raises(ShapeError, match=r"at least one number.*\. (Give one number a seed|Leave out empty seeds)"):
        mean_interval(sample)


def test_a_prompt_without_a_number_is_refused_with_its_seed():
    with pytest.raises(NonFiniteError, match=r"for seed 1\. Leave that prompt out of all"):
        mean_interval([[0.1, 0.2], [0.1, float("nan")]])


def test_confidence_in_percent_is_refused():
    with pytest.raises(ConfigError, match=r"got 95.*Write 95 % as 0.95"):
        mean_interval([0.1, 0.2], confidence=95)
    with pytest.raises(ConfigError, match=r"got 95.*Write 95 % as 0.95"):
        wilson_interval(0.5, 10, confidence=95)


@given(st.integers(1, 30).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_interval_of_a_share_agrees_with_scipy(draws):
    above, count = draws
    low, high = wilson_interval(above / count, count, 0.9)
    expected = stats.binomtest(above, count).proportion_ci(0.9, method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= high <= 1


def test_half_a_draw_solves_the_equation_of_wilson():
    # ends solve (p - theta)^2 = z^2 theta (1 - theta) / n; z = 1.959964, and n need not be whole
    for theta in wilson_interval([0.3, 1.0], [2.5, 7.5])[0]:
        share, count = (0.3, 2.5) if theta < 0.3 else (1.0, 7.5)
        assert (share - theta) ** 2 == pytest.approx(1.959964**2 * theta * (1 - theta) / count, rel=1e-6)
