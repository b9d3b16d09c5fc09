import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.statistics.paired import paired_p_value
from paretune.statistics.ties import holm, holm_adjusted, tie_groups

matrices = st.integers(1, 5).flatmap(
    lambda seeds: st.lists(st.lists(st.integers(0, 9), min_size=seeds, max_size=seeds), min_size=1, max_size=6)
)


def test_methods_that_seeds_cannot_tell_apart_share_a_group():
    # Row 1 leads (mean .81). Row 0 differs from it by .31, .29, .30: t = .30 / (.01/sqrt 3) = 52, far above 4.3.
    # Row 2 differs by .01, -.01, .03: mean .01, standard error .0115, t = .87: tied.
    groups = tie_groups([[0.50, 0.51, 0.52], [0.81, 0.80, 0.82], [0.80, 0.81, 0.79]])
    assert groups.groups == ((1, 2), (0,))
    assert groups.ranks == (3, 1, 1)
    assert groups.reason == ""


def test_groups_are_anchored_at_their_leader():
    # Neighbours are tied: row 0 - row 1 = .01, -.01, .03 (mean .01, standard error .0115) and row 1 - row 2 = .01, .03,
    # -.011 (mean .0097, standard error .0118). The ends are not: .02, .02, .019, t = 59, p = .0003 <= .05 / 2.
    groups = tie_groups([[0.90, 0.90, 0.90], [0.89, 0.91, 0.87], [0.88, 0.88, 0.881]])
    assert groups.groups == ((0, 1), (2,))


def test_holm_correction_keeps_a_lucky_difference_from_counting():
    # Differences to the leader .1, .2, .3 give p = 1 - sqrt(12/14) = .074 for each row: none at 95 %, but one at
    # 90 % when it is the only comparison (.074 <= .10) and none when there are two (.074 > .10 / 2).
    leader, other = [1.0, 1.0, 1.0], [0.9, 0.8, 0.7]
    assert tie_groups([leader, other], 0.90).groups == ((0,), (1,))
    assert tie_groups([leader, other, other], 0.90).groups == ((0, 1, 2),)


def test_a_noisy_method_ties_with_the_leader_below_a_steady_one_that_does_not():
    # Leader - row 1 = .10, .11, .09: t = .10 / (.01 / sqrt 3) = 17.3, p = .0033 <= .05 / 2. Leader - row 2 = .6, -.2,
    # .5: mean .3, sd .436, t = 1.19: cannot be told apart, although its mean is lower than row 1's.
    groups = tie_groups([[0.90, 0.90, 0.90], [0.80, 0.79, 0.81], [0.30, 1.10, 0.40]])
    assert groups.groups == ((0, 2), (1,))
    assert groups.ranks == (1, 3, 1)


def test_the_best_of_the_rest_leads_the_next_group():
    # Steps of .3 between three pairs of methods, .001 to .003 within each pair: (0, 1), (2, 3), (4, 5).
    wobble = [[0.000, 0.002, 0.001], [0.001, 0.000, 0.001]]
    rows = [[level + step for step in row] for level in (0.9, 0.6, 0.3) for row in wobble]
    assert [set(group) for group in tie_groups(rows).groups] == [{0, 1}, {2, 3}, {4, 5}]


def test_pairing_tells_apart_what_pooled_seeds_cannot():
    # Seeds differ by .3 and more, methods by .01 to .03 within each: paired t = .02 / (.01 / sqrt 3) = 3.46, p = .074;
    # two-sample t = .02 / .25 is nothing. At 90 % the pairs tell them apart.
    assert tie_groups([[0.21, 0.52, 0.83], [0.20, 0.50, 0.80]], 0.90).groups == ((0,), (1,))


def test_scores_that_differ_in_the_last_bit_are_tied():
    assert tie_groups([[0.1 + 0.2, 0.1 + 0.7], [0.3, 0.8]]).groups == ((0, 1),)


@settings(max_examples=60)
@given(matrices, st.sampled_from([0.5, 0.9, 0.95]))
def test_groups_agree_with_the_definition(rows, confidence):
    if len(rows[0]) == 1:
        return
    left = sorted(range(len(rows)), key=lambda method: -np.mean(rows[method]))
    for group in tie_groups(rows, confidence).groups:
        leader = left[0]
        tested = sorted((paired_p_value(rows[leader], rows[other]), other) for other in left[1:])
        beaten = set()
        for place, (p_value, other) in enumerate(tested):
            if p_value > (1 - confidence) / (len(tested) - place):
                break
            beaten.add(other)
        assert list(group) == [method for method in left if method not in beaten]
        left = [method for method in left if method in beaten]


@pytest.mark.parametrize("wrong", [[0.5, float("nan")], [1.5], [-0.1]])
def test_p_values_that_are_none_are_refused(wrong):
    with pytest.raises(NonFiniteError, match=r"between 0 and 1, got .*Write 1 where no test was made"):
        holm(wrong, 0.05)


def test_holm_steps_down():
    # .01 <= .05/3, .02 <= .05/2, .04 <= .05: all; with .03 in place of .02: .03 > .05/2 stops .04 as well
    assert holm([0.04, 0.01, 0.02], 0.05).tolist() == [True, True, True]
    assert holm([0.04, 0.01, 0.03], 0.05).tolist() == [False, True, False]
    assert holm([], 0.05).tolist() == []


def test_one_seed_is_one_group_and_the_reason():
    groups = tie_groups([[0.1], [0.9], [0.5]])
    assert groups.groups == ((1, 2, 0),)
    assert groups.reason == "one seed: no difference can be told from chance"
    assert groups.ranks == (1, 1, 1)


def test_constant_difference_is_a_difference_and_equal_rows_are_tied():
    assert tie_groups([[0.5, 0.75], [0.25, 0.5]]).groups == ((0,), (1,))
    assert tie_groups([[0.5, 0.75], [0.5, 0.75]]).groups == ((0, 1),)


@settings(max_examples=60)
@given(matrices)
def test_groups_are_a_partition_whose_leaders_and_members_fall(rows):
    groups, means = tie_groups(rows).groups, np.mean(rows, axis=1)
    assert sorted(method for group in groups for method in group) == list(range(len(rows)))
    for ordered in (*groups, [group[0] for group in groups]):
        assert (np.diff(means[list(ordered)]) <= 1e-12).all()


@settings(max_examples=60)
@given(matrices)
def test_order_of_seeds_does_not_matter(rows):
    matrix = np.array(rows, dtype=float)
    assert tie_groups(matrix).ranks == tie_groups(matrix[:, ::-1]).ranks


def test_no_methods_give_no_groups():
    assert tie_groups(np.zeros((0, 3))).groups == ()


def test_missing_values_and_wrong_shapes_are_refused():
    with pytest.raises(NonFiniteError, match="Keep the seeds that every method has"):
        tie_groups([[0.1, float("nan")]])
    for wrong in ([0.1, 0.2], np.zeros((2, 0))):
        with pytest.raises(ShapeError, match=r"one row a method.*\. Give each method its value for every seed"):
            tie_groups(wrong)


def test_confidence_in_percent_is_refused():
    with pytest.raises(ConfigError, match=r"got 95.*Write 95 % as 0.95"):
        tie_groups([[0.1, 0.2], [0.8, 0.9]], confidence=95)


def test_adjusted_p_values_are_multiplied_by_what_is_left_and_never_fall():
    # sorted .01, .02, .03, .5 times 4, 3, 2, 1: .04, .06, .06, .5
    assert holm_adjusted([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm_adjusted([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm_adjusted([]).tolist() == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_an_adjusted_p_value_is_at_most_the_level_where_holm_rejects(p_values, level):
    assert (holm_adjusted(p_values) <= level).tolist() == holm(p_values, level).tolist()


def test_an_adjusted_p_value_of_no_probability_is_refused():
    with pytest.raises(NonFiniteError, match="Write 1 where no test was made"):
        holm_adjusted([0.5, float("nan")])
