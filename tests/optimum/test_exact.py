from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import das_dennis, random_preferences
from paretune.optimum.exact import (
    Outcome,
    captured_share,
    gains,
    log_optimum,
    optimal_outcome,
    outcome,
    prompt_gains,
)
from paretune.pareto.front import non_dominated

BETA = micro_task.BETA


def random_tables(seed: int = 0, prompts: int = 3, completions: int = 57) -> Any:
    """Return log-probabilities of a base model, its prompts as unlike as they come, and of another policy."""
    random = np.random.default_rng(seed)
    tables = random.normal(size=(2, prompts, completions)) * 2
    return tables - np.logaddexp.reduce(tables, axis=-1, keepdims=True)


def rewards(prompts: int = 3) -> Any:
    return np.stack([micro_task.rewards()] * prompts)


def test_the_outcome_of_a_coin_is_what_paper_says() -> None:
    """Base 1/2, 1/2; policy 3/4, 1/4. E r = 3/4 * 1 + 1/4 * 0.2; KL = 3/4 ln 3/2 + 1/4 ln 1/2."""
    made = outcome(np.log([[0.75, 0.25]]), np.log([[0.5, 0.5]]), np.asarray([[[1.0], [0.2]]]))
    assert made.rewards.tolist() == [[pytest.approx(0.8)]]
    assert made.kl.tolist() == [pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))]
    assert made.scores(2.0).tolist() == [pytest.approx(0.8 - 2 * float(made.kl[0]))]


def test_scores_are_means_over_prompts() -> None:
    made = Outcome(np.asarray([[1.0, 0.0], [0.0, 0.5]]), np.asarray([1.0, 3.0]))
    assert made.scores(0.1).tolist() == pytest.approx([0.5 - 0.2, 0.25 - 0.2])


def test_what_a_policy_never_says_adds_nothing() -> None:
    """A policy that always says one thing: KL = -ln pi_ref of it, as 0 ln 0 is 0."""
    log_reference = np.log([[0.2, 0.3, 0.5]])
    greedy = np.asarray([[-np.inf, -np.inf, 0.0]])
    made = outcome(greedy, log_reference, np.asarray([[[1.0], [1.0], [0.25]]]))
    assert made.rewards.tolist() == [[0.25]]
    assert made.kl.tolist() == [pytest.approx(math.log(2))]


def test_the_base_model_is_no_nats_from_itself() -> None:
    reference, _ = random_tables()
    made = outcome(reference, reference, rewards())
    assert made.kl.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_has_the_value_of_the_partition_function(seed: int) -> None:
    import torch

    reference, _ = random_tables(seed)
    for preference in random_preferences(2, 4, np.random.default_rng(seed)):
        best = optimal_outcome(reference, rewards(), preference[None], BETA)
        found = float(preference @ best.scores(BETA)[0])
        expected = [micro_task.best_value(torch.tensor(row), preference.tolist()) for row in reference]
        assert found == pytest.approx(np.mean(expected), abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_a_policy_falls_short_of_the_optimum_by_beta_times_its_kl_to_it(seed: int) -> None:
    """J* - J = beta KL(pi, pi*), for every policy: the one identity all of this rests on."""
    reference, policy = random_tables(seed)
    (preference,) = random_preferences(2, 1, np.random.default_rng(seed))
    best = log_optimum(reference, rewards(), preference, BETA)
    assert np.exp(best).sum(axis=1) == pytest.approx(1.0)  # of each prompt by itself
    values = [preference @ outcome(table, reference, rewards()).scores(BETA) for table in (best, policy)]
    away = outcome(policy, best, rewards()).kl.mean()
    assert values[0] - values[1] == pytest.approx(BETA * away, rel=1e-9)
    assert away > 0.5


def test_at_a_high_price_the_optimum_is_the_base_and_at_a_low_one_the_best_completion() -> None:
    reference, _ = random_tables()
    preference = np.asarray([0.9, 0.1])  # "a a" alone is best
    assert log_optimum(reference, rewards(), preference, 1e9) == pytest.approx(reference, abs=1e-6)
    greedy = np.exp(log_optimum(reference, rewards(), preference, 1e-3))
    assert greedy.argmax(axis=1).tolist() == (rewards() @ preference).argmax(axis=1).tolist()
    assert greedy.max(axis=1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("objectives", [1, 3])
def test_any_number_of_objectives_and_a_single_completion_have_an_optimum(objectives: int) -> None:
    reference = np.zeros((2, 1))
    made = optimal_outcome(reference, np.full((2, 1, objectives), 0.4), np.eye(objectives), BETA)
    assert made.rewards.shape == (objectives, 2, objectives)
    assert made.scores(BETA) == pytest.approx(0.4)
    assert made.kl == pytest.approx(0.0)


def test_optima_form_a_front_along_which_each_score_goes_one_way() -> None:
    reference, _ = random_tables(3)
    points = das_dennis(2, 20)
    points = points[points[:, 0].argsort()]
    scores = optimal_outcome(reference, rewards(), points, BETA).scores(BETA)
    assert non_dominated(scores).all()
    assert (np.diff(scores[:, 0]) > 0).all()
    assert (np.diff(scores[:, 1]) < 0).all()
    values = points @ scores.T  # [preference, optimum]
    assert values.argmax(axis=1).tolist() == list(range(21))  # each optimum is best for its own preference


def test_the_captured_share_is_a_ratio_of_sums_and_not_a_mean_of_ratios() -> None:
    """Base (1, 1). Optima gain 1 and 3, policies 1 and 0: (1 + 0) / (1 + 3), where ratios would average to 1/2."""
    preferences, base = np.eye(2), np.asarray([1.0, 1.0])
    optima, policies = np.asarray([[2.0, 9.0], [9.0, 4.0]]), np.asarray([[2.0, -9.0], [-9.0, 1.0]])
    assert captured_share(policies, base, optima, preferences) == 0.25
    assert captured_share(optima, base, optima, preferences) == 1
    assert captured_share(np.asarray([base, base]), base, optima, preferences) == 0
    assert captured_share(2 * np.asarray([base, base]) - optima, base, optima, preferences) == -1


def test_gains_weigh_objectives_by_the_preference() -> None:
    """0.25 * (3 - 1) + 0.75 * (1 - 1) = 0.5, and of the optimum 0.25 * 4 + 0.75 * 4 = 4."""
    gained, possible = gains(
        np.asarray([[3.0, 1.0]]), np.asarray([1.0, 1.0]), np.asarray([[5.0, 5.0]]), np.asarray([[0.25, 0.75]])
    )
    assert gained.tolist() == [0.5]
    assert possible.tolist() == [4.0]


@pytest.mark.parametrize("wrong", [(2, 57), (3, 56), (57,)])
def test_tables_of_other_prompts_or_completions_are_refused(wrong: tuple[int, ...]) -> None:
    reference, _ = random_tables()
    with pytest.raises(ShapeError, match=r"must agree on prompts and completions, got \(.*\. List the same"):
        outcome(np.zeros(wrong), reference, rewards())
    with pytest.raises(ShapeError, match=r"must agree on prompts and completions, got \(.*\. List the same"):
        outcome(reference, reference, rewards(2))


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_has_no_best_policy_is_refused(beta: float) -> None:
    reference, _ = random_tables()
    with pytest.raises(ConfigError, match=r"beta must be finite and positive, got .*\. Give what a nat of KL costs"):
        log_optimum(reference, rewards(), np.asarray([1.0, 0.0]), beta)
    with pytest.raises(ConfigError, match="beta must be finite and positive"):
        optimal_outcome(reference, rewards(), np.eye(2), beta)


def test_an_optimum_of_arrays_that_do_not_fit_is_refused() -> None:
    reference, _ = random_tables()
    point = np.asarray([1.0, 0.0])
    for arrays in (
        (reference[0], rewards()[0], point),
        (reference, rewards(2), point),
        (reference, rewards(), np.ones(3) / 3),
        (reference, rewards(), np.eye(2)),
    ):
        with pytest.raises(
            ShapeError, match=r"must have shapes \[P, Y\], \[P, Y, K\] and \[K\] or \[P, K\], got .* List the same"
        ):
            log_optimum(*arrays, BETA)
    for preferences in (point, np.zeros((0, 2))):
        with pytest.raises(
            ShapeError, match=r"preferences must have shape \[M, K\] or \[M, P, K\], got .* Give one row"
        ):
            optimal_outcome(reference, rewards(), preferences, BETA)


@pytest.mark.parametrize("wrong", range(4))
def test_gains_of_other_preferences_or_objectives_are_refused(wrong: int) -> None:
    arrays = [np.ones((3, 2)), np.ones(2), np.ones((3, 2)), np.ones((3, 2))]
    arrays[wrong] = np.ones((4, 2)) if wrong != 1 else np.ones(1)  # one number would be taken for every objective
    for function in (gains, captured_share):
        with pytest.raises(ShapeError, match=r"must have shapes \[M, K\], \[K\], \[M, K\] and \[M, K\], got .* Score"):
            function(*arrays)


def test_nothing_to_gain_is_no_number() -> None:
    point = np.ones((1, 2))
    assert math.isnan(captured_share(point, np.ones(2), point, np.asarray([[0.5, 0.5]])))


def test_the_optimum_of_what_each_prompt_is_wanted_for_is_what_paper_says() -> None:
    """Two prompts, base 1/2, 1/2, rewards (1, 0) of one completion and (0, 1) of the other, beta 1.

    On the first prompt w(x) = (1, 0): J* = ln((e + 1) / 2). On the second w(x) = (1/2, 1/2): both are worth 1/2, so the
    base is best and J* = 1/2. The base has J 1/2 on both; the gain is (ln((e + 1) / 2) - 1/2) / 2.
    """
    log_reference, rewards = np.log(np.full((2, 2), 0.5)), np.stack([np.eye(2)] * 2)
    wanted = np.asarray([[[1.0, 0.0], [0.5, 0.5]]])
    best = optimal_outcome(log_reference, rewards, wanted, 1.0)
    base = outcome(log_reference, log_reference, rewards)
    gain = (math.log((math.e + 1) / 2) - 0.5) / 2
    assert prompt_gains(best, base.rewards, wanted, 1.0).tolist() == [pytest.approx(gain)]
    at_base = Outcome(base.rewards[None], base.kl[None])
    assert prompt_gains(at_base, base.rewards, wanted, 1.0).tolist() == [0.0]
    assert best.rewards[0, 0].tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])


def test_wishes_that_are_the_preference_have_its_optimum_and_its_gains() -> None:
    reference, _ = random_tables()
    points = das_dennis(2, 2)
    wanted = points[:, None].repeat(3, axis=1)
    one, same = (optimal_outcome(reference, rewards(), each, BETA) for each in (points, wanted))
    np.testing.assert_allclose(one.rewards, same.rewards, atol=1e-12)
    base = outcome(reference, reference, rewards())
    gained, _ = gains(one.scores(BETA), base.scores(BETA), one.scores(BETA), points)
    np.testing.assert_allclose(prompt_gains(same, base.rewards, wanted, BETA), gained, atol=1e-12)


def test_no_policy_gains_more_than_the_optimum_of_each_prompt() -> None:
    reference, other = random_tables(1)
    wanted = random_preferences(2, 6, np.random.default_rng(0)).reshape(2, 3, 2)
    base, best = outcome(reference, reference, rewards()), optimal_outcome(reference, rewards(), wanted, BETA)
    most = prompt_gains(best, base.rewards, wanted, BETA)
    for table in (other, *(log_optimum(reference, rewards(), each, BETA) for each in das_dennis(2, 4))):
        made = outcome(table, reference, rewards())
        both = Outcome(np.stack([made.rewards] * 2), np.stack([made.kl] * 2))
        assert (prompt_gains(both, base.rewards, wanted, BETA) < most).all()


def test_wishes_of_other_prompts_are_refused() -> None:
    reference, _ = random_tables()
    with pytest.raises(ShapeError, match=r"\[K\] or \[P, K\]"):
        log_optimum(reference, rewards(), np.full((2, 2), 0.5), BETA)
    with pytest.raises(ShapeError, match="prompt_preferences must have shapes"):
        prompt_gains(
            optimal_outcome(reference, rewards(), das_dennis(2, 2), BETA), np.zeros((3, 2)), np.ones((2, 2)), 1
        )
