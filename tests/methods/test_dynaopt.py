from __future__ import annotations

import importlib
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.bandits.exp3 import probabilities
from paretune.core.errors import BudgetError, ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.experts import EXPERT_VERSION
from paretune.methods.pulls import PAYOFFS, SHUFFLED_VERSION
from paretune.methods.single_policy.dynaopt import DynaOpt, DynaOptSettings, NestedBandits
from paretune.methods.single_policy.linear import Linear, LinearSettings
from paretune.rl.weighting import Seen, check_weights, resolve_weighting

NAN = float("nan")
UNIT = [[0.0, 1.0], [0.0, 1.0]]
FIRST, SECOND, NONE = (
    0.1,
    0.5,
    0.9,
)  # uniform numbers that draw these of three arms while their chances are near a third


class Uniform:
    """A generator that returns one number, so that a test knows what is drawn."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def bandits(mode: str, preference: Sequence[float] = (0.5, 0.5), ranges: Any = UNIT, **settings: Any) -> NestedBandits:
    made = vars(DynaOptSettings(mode=mode, **settings))
    return NestedBandits(np.asarray(preference), made, np.asarray(ranges))


def seen(update: int, development: Any = None, draws: Any = NONE) -> Seen:
    generator = Uniform(draws) if isinstance(draws, float) else draws
    rewards = None if development is None else np.asarray(development, dtype=np.float64)
    return Seen(update, np.full(2, 0.5), np.zeros(2), 0.0, None, rewards, cast(np.random.Generator, generator))


# As published


def test_published_measurements_come_after_every_ten_updates_and_not_before_the_first() -> None:
    published = bandits("faithful", updates_per_pull=10, measured_each=200)
    assert [update for update in range(31) if published.measured(update)] == [10, 20, 30]
    assert published.measured(10) == 200


def test_published_weights_sum_to_k_until_something_is_raised_and_to_1_from_then_on() -> None:
    published = bandits("faithful")
    assert published.weigh(seen(0, draws=NONE)).tolist() == [1, 1]
    assert published.weigh(seen(1)).tolist() == [1, 1]
    # p = 1/2: omega_0 <- exp(.07 * 1 / (2 * 1/2)) = 1.0725; 1.0725 / 2.0725 = .51749
    raised = published.weigh(seen(4, [[0.5, 0.5]], FIRST))
    np.testing.assert_allclose(raised, [0.51749, 0.48251], atol=5e-6)
    assert published.weigh(seen(5, draws=SECOND)).tolist() == raised.tolist()  # nothing is drawn between pulls
    assert published.weigh(seen(8, [[0.5, 0.5]], NONE)).tolist() == raised.tolist()


def test_the_second_published_raise_counts_the_chance_that_the_first_one_made() -> None:
    published = bandits("faithful")
    published.weigh(seen(0, draws=FIRST))
    published.weigh(seen(4, [[0.5, 0.5]], SECOND))
    # p_1 = .93 * .48251 + .035 = .48373: omega_1 <- exp(.07 / (2 * .48373)) = exp(.072354)
    np.testing.assert_allclose(published.factors.logs, [0.07, 0.072354], atol=5e-7)


def test_the_published_payoff_is_the_mean_gain_over_the_stored_scores_and_0_at_first() -> None:
    published = bandits("faithful", ranges=[[0, 1], [0, 10]])
    published.weigh(seen(0, draws=FIRST))
    published.weigh(seen(4, [[0.2, 4.0], [0.4, 4.0]], NONE))
    assert published.arms.tolist() == [0, 0, 0]  # nothing to compare with: exp(0) = 1
    # means (.5, .3) against (.3, .4): x = (.2 - .1)/2 = .05 for the arm that raises nothing; .07 * .05 / (3 * 1/3)
    published.weigh(seen(8, [[0.5, 3.0]], SECOND))
    np.testing.assert_allclose(published.arms, [0, 0, 0.0035], atol=1e-15)
    # against (.2 + .4 + .5)/3, (.4 + .4 + .3)/3: gains of 0 and 1e-4 are clipped: x = (1e-4 + 1e-4)/2 - 1.1/3
    published.weigh(seen(12, [[0.0, 0.0]], NONE))
    chance = 0.93 / (2 + math.exp(0.0035)) + 0.07 / 3
    np.testing.assert_allclose(published.arms[1], 0.07 * (1e-4 - 1.1 / 3) / (3 * chance), rtol=1e-12)


def test_a_payoff_is_told_from_the_last_stored_scores_only() -> None:
    published = bandits("faithful", history=2)
    for update, score in ((0, None), (4, 0.9), (8, 0.2), (12, 0.4)):
        published.weigh(seen(update, None if score is None else [[score, score]]))
    before = published.arms[2]
    published.weigh(seen(16, [[0.5, 0.5]]))  # .5 against (.2 + .4)/2, the .9 is forgotten
    chance = probabilities(np.asarray([0, 0, before]), 0.07)[2]
    assert published.arms[2] - before == pytest.approx(0.07 * 0.2 / (3 * chance))
    assert published.pulls.scores == [[0.4, 0.4], [0.5, 0.5]]


def test_the_preference_is_ignored_as_published() -> None:
    one, other = bandits("faithful", (0.9, 0.1)), bandits("faithful", (0.0, 1.0))
    for update, development in ((0, None), (4, [[0.3, 0.8]]), (8, [[0.5, 0.2]])):
        at = seen(update, development, SECOND)
        assert one.weigh(at).tolist() == other.weigh(at).tolist()
    assert one.state() == other.state()


# Repaired


def test_repaired_measurements_begin_before_the_first_update_and_a_corner_needs_none() -> None:
    repaired = bandits("repaired", updates_per_pull=3, measured_each=16)
    assert [repaired.measured(update) for update in range(7)] == [16, 0, 0, 16, 0, 0, 16]
    corner = bandits("repaired", (0.0, 1.0))
    assert {corner.measured(update) for update in range(20)} == {0}
    assert [corner.weigh(seen(update, draws=FIRST)).tolist() for update in range(9)] == [[0, 1]] * 9  # linear's


def test_a_repaired_raise_multiplies_the_preference_and_fades() -> None:
    repaired = bandits("repaired", (0.25, 0.75))
    # factors (e^.2, 1): .25 * 1.221403 / (.25 * 1.221403 + .75) = .289336
    np.testing.assert_allclose(repaired.weigh(seen(0, [[0, 0]], FIRST)), [0.289336, 0.710664], atol=5e-7)
    # .2 * .8 = .16: .25 * 1.173511 / 1.043378 = .281181
    np.testing.assert_allclose(repaired.weigh(seen(4, [[0, 0]], NONE)), [0.281181, 0.718819], atol=5e-7)
    # .16 * .8 = .128 and .2: .25 * 1.136553 / (.25 * 1.136553 + .75 * 1.221403) = .236744
    np.testing.assert_allclose(repaired.weigh(seen(8, [[0, 0]], SECOND)), [0.236744, 0.763256], atol=5e-7)


def test_a_repaired_payoff_is_the_gain_of_the_utility_among_past_ones() -> None:
    repaired = bandits("repaired", (0.25, 0.75), history=1)
    for update, scores in enumerate(([0.0, 0.0], [0.4, 0.0], [0.4, 0.4])):
        repaired.weigh(seen(4 * update, [scores], FIRST))
    assert repaired.pulls.payoffs == pytest.approx([0.25 * 0.4, 0.75 * 0.4])
    assert repaired.arms.tolist() == [0, 0, 0]  # one past payoff or none tells no low from high
    # .25 * .6 = .15; quantiles of .1 and .3: .14 and .26, so 1/12 of the way: 1 * (1/12 - 1/2) / (3 * 1/3)
    repaired.weigh(seen(12, [[1.0, 0.4]], NONE))
    np.testing.assert_allclose(repaired.arms, [1 / 12 - 1 / 2, 0, 0], atol=1e-12)
    assert repaired.pulls.payoffs == pytest.approx([0.1, 0.3, 0.15])


def test_an_objective_that_is_not_wanted_has_no_arm() -> None:
    repaired = bandits("repaired", (0.4, 0.0, 0.6), ranges=[[0, 1]] * 3)
    assert len(repaired.arms) == 3
    weights = repaired.weigh(seen(0, [[0, NAN, 0]], SECOND))  # the second of those that are wanted is the third
    # .6 * 1.221403 / (.4 + .6 * 1.221403) = .646906
    np.testing.assert_allclose(weights, [0.353094, 0, 0.646906], atol=5e-7)
    repaired.weigh(seen(4, [[0.1, NAN, 0.1]], SECOND))
    assert repaired.pulls.payoffs == pytest.approx([0.1])  # a score that does not count may be missing


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=4).filter(lambda row: sum(row) > 0.1),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40),
    st.integers(0, 10**6),
)
def test_repaired_weights_stay_on_the_simplex_around_the_preference(
    row: list[float], draws: list[float], seed: int
) -> None:
    preference = np.asarray(row) / sum(row)
    repaired = bandits("repaired", preference.tolist(), ranges=[[0, 1]] * len(row), updates_per_pull=1)
    scores = np.random.default_rng(seed)
    for update, number in enumerate(draws):
        weights = repaired.weigh(seen(update, scores.normal(size=(3, len(row))), number))
        check_weights(weights, len(row))
        assert weights.sum() == pytest.approx(1)
        assert ((weights == 0) == (preference == 0)).all()
        wanted = preference > 0
        ratio = weights[wanted] / preference[wanted]
        assert ratio.max() / ratio.min() <= math.e * (1 + 1e-9)  # step / (1 - fading) = 1
        assert len(repaired.pulls.payoffs) <= PAYOFFS


def test_a_repaired_weight_falls_as_well_as_it_rises() -> None:
    repaired = bandits("repaired")
    first = [repaired.weigh(seen(4 * pull, [[0, 0]], FIRST if pull < 4 else SECOND))[0] for pull in range(8)]
    assert all(later > earlier for earlier, later in itertools.pairwise(first[:4]))
    assert all(later < earlier for earlier, later in itertools.pairwise(first[3:]))
    assert first[3] > 0.5 > first[7]


def chance_of_the_best(mode: str, run: int, **settings: Any) -> float:
    """Return the chance of the arm whose pulls gain .05 more, noise .02, after 99 pulls: the first of four."""
    made, generator = bandits(mode, (1 / 3,) * 3, [[0.0, 1.0]] * 3, **settings), np.random.default_rng(run)
    made.weigh(seen(0, None, generator))
    for update in range(1, 100):
        made.pulls.scores = [[0.5] * 3]  # every pull starts from the same level: 99 gains do not fit into [0, 1]
        score = 0.5 + 0.05 * (made.drawn == 0) + 0.02 * generator.normal()
        made.weigh(seen(update, [[score] * 3], generator))
    return float(probabilities(made.arms, 0.07)[0])


def test_the_repaired_bandit_finds_what_pays_and_the_published_one_does_not() -> None:
    """Published: .266 +- .003 for one of four, by 300 runs of another program."""
    published, repaired = ([chance_of_the_best(mode, run) for run in range(20)] for mode in ("faithful", "repaired"))
    assert np.mean(published) == pytest.approx(0.266, abs=0.006)
    assert np.mean(repaired) > 0.85


# Both


@pytest.mark.parametrize("mode", ["faithful", "repaired"])
def test_a_pull_without_a_score_that_counts_is_not_paid_but_drawn(mode: str) -> None:
    made = bandits(mode)
    made.weigh(seen(0, [[0.5, 0.5]], FIRST))
    for pull in range(1, 5):  # enough that a payoff would count where repaired
        made.weigh(seen(4 * pull, [[0.9, NAN], [0.7, NAN]], SECOND))
    assert not made.arms.any()
    assert made.pulls.payoffs == []
    assert made.drawn == 1
    assert made.pulls.scores[-1] == [0.7, None]
    made.weigh(seen(20, [[0.9, 0.3], [NAN, 0.5]], NONE))
    gains = [0.9 - (0.5 + 8 * 0.8) / 9, 0.4 - 0.5]  # each over what was there
    if mode == "faithful":
        assert made.arms[1] == pytest.approx(0.07 * sum(gains) / 2)
    else:
        assert made.pulls.payoffs == pytest.approx([sum(gains) / 2])


@pytest.mark.parametrize("mode", ["faithful", "repaired"])
@given(seed=st.integers(0, 10**6), stop=st.integers(0, 30))
def test_going_on_from_a_state_is_going_on(mode: str, seed: int, stop: int) -> None:
    def trajectory(made: NestedBandits, updates: range) -> list[list[float]]:
        weights = []
        for update in updates:
            generator = np.random.default_rng([seed, update])
            count = made.measured(update)
            development = generator.uniform(size=(count, 2)) if count else None
            if development is not None:
                development[generator.random(development.shape) < 0.1] = NAN
            weights.append(made.weigh(seen(update, development, generator)).tolist())
        return weights

    settings: dict[str, Any] = {"updates_per_pull": 2, "measured_each": 8, "history": 20, "preference": (0.3, 0.7)}
    whole, part = bandits(mode, **settings), bandits(mode, **settings)
    expected = trajectory(whole, range(30))
    found = trajectory(part, range(stop))
    text = json.dumps(part.state(), allow_nan=False)  # as a checkpoint keeps it
    resumed = bandits(mode, **settings)
    resumed.load(json.loads(text))
    assert found + trajectory(resumed, range(stop, 30)) == expected
    assert resumed.state() == whole.state()
    assert json.dumps(part.state()) == text  # what goes on from a state leaves the one it was taken from alone


@pytest.mark.parametrize("mode", ["faithful", "repaired"])
def test_shuffled_feedback_costs_the_same_and_pays_earlier_payoffs(mode: str) -> None:
    made = bandits(mode, feedback="shuffled")
    assert [made.measured(update) for update in range(9)] == [bandits(mode).measured(update) for update in range(9)]
    for update, score in enumerate((0.1, 0.3, 0.4)):
        made.weigh(seen(4 * update, [[score, score]], FIRST))
    assert made.pulls.payoffs == pytest.approx([0.2, 0.2])  # of the third: .4 - (.1 + .3)/2
    before = made.arms.copy()
    made.weigh(seen(12, [[0.9, 0.9]], FIRST))  # a gain of .9 - .8/3, and what is told is the first, .2
    chance = probabilities(before, 0.07)[0]
    expected = before[0] + 0.07 * 0.2 / (3 * chance) if mode == "faithful" else 0.0  # .2 among .2 and .2 says nothing
    assert made.arms[0] == pytest.approx(expected)
    assert made.pulls.payoffs[-1] == pytest.approx(0.9 - 0.8 / 3)


def test_the_repaired_bandit_learns_nothing_where_feedback_is_shuffled() -> None:
    assert np.mean([chance_of_the_best("repaired", run, feedback="shuffled") for run in range(40)]) < 0.45


# The method


def test_training_told_shuffled_feedback_has_a_version_of_its_own(task: Task) -> None:
    """Kept results are found by it: it is written down, and no sum that another change could reach."""
    told, control = (
        DynaOpt(DynaOptSettings(feedback=feedback)).stages(task, das_dennis(2, 2), 4500, 0)
        for feedback in ("measured", "shuffled")
    )
    assert {stage.version for stage in told} == {EXPERT_VERSION} == {2}
    assert {stage.version for stage in control} == {SHUFFLED_VERSION} == {3}


def trained(settings: Any, task: Task, wanted: Any, budget: int) -> list[Any]:
    method = DynaOpt(settings) if isinstance(settings, DynaOptSettings) else Linear(settings)
    return [(stage.member, stage.completions, stage.seed) for stage in method.stages(task, wanted, budget, 3)]


@pytest.mark.parametrize("budget", [100, 330, 2000])
def test_repaired_trains_the_policies_that_linear_trains(task: Task, budget: int) -> None:
    wanted = das_dennis(2, 4)
    repaired = DynaOptSettings(completions_each=100)
    assert trained(repaired, task, wanted, budget) == trained(
        LinearSettings(completions_each=100), task, wanted, budget
    )


def test_faithful_trains_one_policy_for_equal_weights_whatever_is_wanted(task: Task, finish: Any) -> None:
    method = DynaOpt(DynaOptSettings(mode="faithful", completions_each=100))
    stages = method.stages(task, das_dennis(2, 2), 1003, 3)
    assert [(stage.member["objective_weights"], stage.completions) for stage in stages] == [([0.5, 0.5], 1000)]
    assert stages == method.stages(task, np.asarray([[0.1, 0.9]]), 1003, 3)
    assembly = method.assemble(task, das_dennis(2, 2), finish(stages))
    weights, answers = assembly.answer.weights(das_dennis(2, 2))
    assert weights.tolist() == [[1]] * 3
    assert answers == ["nearest", "nearest", "exact"]


@pytest.mark.parametrize("mode", ["faithful", "repaired"])
def test_stages_name_what_trains_them_and_carry_its_settings(task: Task, mode: str) -> None:
    stage = DynaOpt(DynaOptSettings(mode=mode, gamma=0.1)).stages(task, np.asarray([[0.5, 0.5]]), 640, 0)[0]
    weighting = resolve_weighting(str(stage.settings["weighting"]))
    made = weighting(np.asarray([0.5, 0.5]), stage.settings, np.asarray(UNIT))
    assert isinstance(made, NestedBandits)
    assert made.settings["gamma"] == 0.1
    assert "completions_each" not in stage.settings  # the same policy in a plan of more or fewer
    named = [str(stage.settings.get(part, "")) for part in ("advantages", "shaping")]
    if mode == "repaired":
        assert named == ["leave_one_out", ""]
        return
    assert named[0] == "k_sample_mean"
    module, _, function = named[1].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_other_advantages_than_the_published_ones_are_refused_where_they_are_followed() -> None:
    with pytest.raises(ConfigError, match="advantages must be left out in mode 'faithful', got 'grpo'"):
        DynaOptSettings(mode="faithful", advantages="grpo")


def test_what_the_published_way_does_not_read_is_refused_in_one_sentence_but_a_split_that_studies_sweep_over() -> None:
    for name in ("step", "fading", "arm_learning_rate"):
        with pytest.raises(ConfigError, match=rf"^{name} must be left out in mode 'faithful', got 0\.5\."):
            DynaOptSettings(mode="faithful", **{name: 0.5})  # type: ignore[arg-type]  # numbers all
        assert getattr(DynaOptSettings(**{name: 0.5}), name) == 0.5  # type: ignore[arg-type]  # numbers all
    with pytest.raises(ConfigError, match=r"^step and fading must be left out in mode 'faithful', got 0\.5 and 0\.1\."):
        DynaOptSettings(mode="faithful", step=0.5, fading=0.1)
    assert DynaOptSettings(mode="faithful", completions_each=1488).completions_each == 1488


def test_a_policy_that_could_only_be_measured_is_refused(task: Task) -> None:
    method = DynaOpt(DynaOptSettings(measured_each=64, completions_each=64))
    with pytest.raises(BudgetError, match="each of 3 policies a measurement and a group, 72 completions, got 200"):
        method.stages(task, das_dennis(2, 2), 200, 0)
    assert method.stages(task, das_dennis(2, 2), 216, 0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"mode": "fixed"}, UnknownNameError, "mode must be one of faithful, repaired, got 'fixed'"),
        ({"updates_per_pull": 0}, ConfigError, "updates_per_pull and history must be at least 1, got 0 and 200"),
        ({"history": 0}, ConfigError, "updates_per_pull and history must be at least 1, got 4 and 0"),
        ({"measured_each": 0}, ConfigError, r"measured_each must be a positive multiple of group_size \(8\).*got 0"),
        ({"measured_each": 20}, ConfigError, r"measured_each must be a positive multiple .*got 20\. Try 32"),
        ({"gamma": 0.0}, ConfigError, "gamma must be above 0 and at most 1, got 0.0"),
        ({"gamma": 1.5}, ConfigError, "gamma must be above 0 and at most 1, got 1.5"),
        ({"gamma": NAN}, ConfigError, "gamma must be above 0 and at most 1, got nan"),
        ({"arm_learning_rate": 0.0}, ConfigError, "arm_learning_rate must be positive, got 0.0"),
        ({"step": -0.1}, ConfigError, "step must be positive, got -0.1"),
        ({"feedback": "shufled"}, UnknownNameError, "feedback must be one of measured, shuffled, got 'shufled'"),
        ({"fading": 1.0}, ConfigError, "fading must be at least 0 and below 1, got 1.0"),
        ({"completions_each": 7}, ConfigError, "completions_each must be at least one group of 8, got 7"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DynaOptSettings(**settings)
