import numpy as np
import pytest
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.relations.rewards import reward_relations

PROMPTS, SAMPLES = 16, 64
MIRROR = {"correlated": "competing", "competing": "correlated"}


def copula(rho, seed, prompts=PROMPTS, samples=SAMPLES, objectives=2):
    """Draw rewards whose ranks are those of a normal with equal correlations, and whose values are skewed."""
    generator = np.random.default_rng([seed, round(100 * rho) + 100])
    covariance = np.full((objectives, objectives), rho) + (1 - rho) * np.eye(objectives)
    normal = generator.multivariate_normal(np.zeros(objectives), covariance, size=(prompts, samples))
    return stats.norm.cdf(normal) ** 3


def brute_force(first, second):
    """Return Spearman's correlation and its jackknife variance, with scipy and one completion left out at a time."""
    count = len(first)
    kept = [np.arange(count) != left_out for left_out in range(count)]
    without = [stats.spearmanr(first[rows], second[rows]).statistic for rows in kept]
    return stats.spearmanr(first, second).statistic, (count - 1) / count * np.sum((without - np.mean(without)) ** 2)


def test_correlation_of_one_prompt_matches_paper():
    # ranks 1 to 8 and 2 1 4 3 6 5 7 8: six squared differences of 1, so 1 - 6 x 6 / (8 x 63) = 13 / 14
    rewards = np.stack([np.arange(8.0) ** 2, [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 7.0, 9.0]], axis=1)[None]
    assert reward_relations(rewards).correlations.values[0, 1] == pytest.approx(13 / 14, abs=1e-12)  # rounding


def test_correlation_and_interval_are_the_mean_over_prompts_of_the_jackknife():
    rewards = np.random.default_rng(0).integers(0, 4, (3, 9, 2)).astype(float)  # many ties
    rows = [brute_force(prompt[:, 0], prompt[:, 1]) for prompt in rewards]
    values, variances = np.array(rows).T
    error = np.sqrt(variances.sum()) / 3
    freedom = variances.sum() ** 2 / (variances**2 / 8).sum()
    pairs = reward_relations(rewards).correlations
    assert pairs.values[0, 1] == pytest.approx(values.mean(), rel=1e-9)  # same formula, other rounding
    assert pairs.high[0, 1] == pytest.approx(values.mean() + stats.t.ppf(0.975, freedom) * error, rel=1e-9)
    assert pairs.low[0, 1] == pytest.approx(values.mean() - stats.t.ppf(0.975, freedom) * error, rel=1e-9)


@pytest.mark.parametrize(
    ("rho", "right"),
    [
        (0.8, {"correlated"}),
        (0.2, {"correlated", "undetermined"}),
        (0.0, {"independent"}),
        (-0.2, {"competing", "undetermined"}),
        (-0.8, {"competing"}),
    ],
)
def test_label_is_right_in_19_of_20_seeds(rho, right):
    labels = [reward_relations(copula(rho, seed)).correlations.labels()[0][1] for seed in range(20)]
    assert sum(label in right for label in labels) >= 19, labels


def test_interval_covers_the_true_correlation_as_often_as_it_promises():
    # 300 draws: standard error of the coverage sqrt(.95 x .05 / 300) = .0126; three of them is .038. Spearman's
    # correlation of a normal is 6 / pi asin(rho / 2)
    truth = 6 / np.pi * np.arcsin(0.25)
    pairs = [reward_relations(copula(0.5, seed, prompts=4, samples=48)).correlations for seed in range(300)]
    covered = np.mean([each.low[0, 1] <= truth <= each.high[0, 1] for each in pairs])
    assert abs(covered - 0.95) <= 0.038


def unrelated(kind, seed, prompts, samples):
    """Draw rewards of two objectives that have nothing to do with each other."""
    normal = np.random.default_rng([seed, prompts, samples]).normal(size=(prompts, samples, 2))
    return {"continuous": normal, "binary": (normal > 0) * 1.0, "rare": (normal > 0.84) * 1.0}[kind]


@pytest.mark.parametrize("kind", ["continuous", "binary", "rare"])
@pytest.mark.parametrize(("prompts", "samples"), [(1, 4), (4, 4), (1, 8), (1, 12), (2, 8)])
def test_unrelated_rewards_of_few_completions_are_hardly_ever_labelled_related(kind, prompts, samples):
    # 300 draws at the promised 5 %: standard error .0126; three of them is .038. One prompt of 4 gave 17 % when it had
    # a label
    labels = [
        reward_relations(unrelated(kind, seed, prompts, samples)).correlations.labels()[0][1] for seed in range(300)
    ]
    wrong = sum(label in ("correlated", "competing") for label in labels)
    assert wrong <= (0.05 + 0.038) * max(sum(label is not None for label in labels), 30), wrong


def test_perfect_agreement_of_few_completions_has_a_value_and_no_interval():
    ranks = np.arange(11.0)
    pairs = reward_relations(np.stack([ranks, -ranks], axis=1)[None]).correlations
    assert pairs.values[0, 1] == -1
    assert np.isnan([pairs.low[0, 1], pairs.high[0, 1]]).all()
    assert pairs.reasons[0][1] == "11 completions that tell, fewer than 12: no interval"
    assert pairs.labels()[0][1] is None
    two_prompts = np.stack([ranks, -ranks], axis=1)[None, :8].repeat(2, axis=0)  # 16 completions together
    assert reward_relations(two_prompts).correlations.labels()[0][1] == "competing"


def test_prompts_that_are_easy_in_both_objectives_do_not_correlate_them():
    rewards = copula(0.0, seed=1) + 10 * np.arange(PROMPTS)[:, None, None]
    pooled = stats.spearmanr(rewards[:, :, 0].ravel(), rewards[:, :, 1].ravel()).statistic
    assert pooled > 0.95
    assert reward_relations(rewards).correlations.labels()[0][1] == "independent"


def test_every_prompt_counts_the_same():
    # eight prompts in which the two agree, then eight in which they do not: mean 0 on the nose
    ranks = np.tile(np.arange(8.0), (PROMPTS, 1))
    rewards = np.stack([ranks, ranks * np.repeat([1, -1], 8)[:, None]], axis=2)
    relations = reward_relations(rewards)
    assert relations.correlations.values[0, 1] == 0
    assert relations.prompts.tolist() == [[16, 16], [16, 16]]


def test_objective_with_itself_is_correlated_for_certain():
    pairs = reward_relations(copula(0.0, seed=2, objectives=3)).correlations
    for ends in (pairs.values, pairs.low, pairs.high):
        assert np.diag(ends).tolist() == [1, 1, 1]
    assert np.array_equal(pairs.values, pairs.values.T)
    assert np.array_equal(pairs.low, pairs.low.T)
    assert reward_relations(copula(0.0, seed=2)[:, :, :1]).correlations.values.tolist() == [[1.0]]  # K = 1


def test_order_of_objectives_and_prompts_and_monotone_scales_change_nothing():
    rewards = copula(0.3, seed=3, prompts=5, samples=20, objectives=3)
    rewards[0, :2, 1] = np.nan
    before = reward_relations(rewards)
    order = [2, 0, 1]
    after = reward_relations(rewards[::-1, :, order])
    stretched = reward_relations(np.stack([np.exp(rewards[..., 0]), rewards[..., 1] ** 3, 7 * rewards[..., 2]], axis=2))
    for name in ("values", "low", "high"):
        one, other, third = (getattr(each.correlations, name) for each in (before, after, stretched))
        assert other == pytest.approx(one[np.ix_(order, order)], abs=1e-12)  # sums in another order
        assert np.array_equal(third, one)
    assert np.array_equal(after.left_out, before.left_out[np.ix_(order, order)])


def test_turning_an_objective_round_turns_its_relations():
    rewards = copula(0.5, seed=4, prompts=6, samples=20, objectives=3)
    before = reward_relations(rewards).correlations
    after = reward_relations(rewards * [1, -1, 1]).correlations
    signs = np.outer([1, -1, 1], [1, -1, 1])
    assert after.values == pytest.approx(signs * before.values, abs=1e-12)  # rounding
    assert after.low[0, 1] == pytest.approx(-before.high[0, 1], abs=1e-12)
    assert after.low[0, 2] == pytest.approx(before.low[0, 2], abs=1e-12)
    assert after.labels()[0][1] == MIRROR[before.labels()[0][1]]


def test_missing_rewards_are_left_out_pair_by_pair_and_counted():
    rewards = copula(0.5, seed=5, prompts=3, samples=12, objectives=3)
    rewards[0, :4, 0] = np.nan
    rewards[1, 3, 1] = np.nan
    relations = reward_relations(rewards)
    assert relations.left_out.tolist() == [[4, 5, 4], [5, 1, 1], [4, 1, 0]]
    expected = np.mean(
        [
            stats.spearmanr(rewards[0, 4:, 0], rewards[0, 4:, 1]).statistic,
            stats.spearmanr(np.delete(rewards[1, :, 0], 3), np.delete(rewards[1, :, 1], 3)).statistic,
            stats.spearmanr(rewards[2, :, 0], rewards[2, :, 1]).statistic,
        ]
    )
    assert relations.correlations.values[0, 1] == pytest.approx(expected, rel=1e-9)


def test_constant_rewards_are_missing_with_the_reason():
    rewards = copula(0.5, seed=6, prompts=3, samples=12, objectives=3)
    rewards[:, :, 2] = [[0.1], [0.2], [0.3]]
    rewards[:, :, 1] = np.nan
    relations = reward_relations(rewards)
    assert relations.correlations.labels()[0] == ("correlated", None, None)
    assert relations.correlations.reasons[0] == (
        "",
        "objective 1 has no reward",
        "objective 2 is constant within every prompt",
    )
    assert np.isnan(relations.correlations.values[2]).all()
    assert relations.prompts[0].tolist() == [3, 0, 0]


def test_a_prompt_on_which_hardly_anything_varies_is_left_out():
    rewards = copula(0.5, seed=7, prompts=3, samples=12)
    whole = reward_relations(rewards[1:]).correlations
    rewards[0, :, 1] = 0.0
    rewards[0, 3, 1] = 1.0  # without this completion the reward is constant
    relations = reward_relations(rewards)
    assert relations.prompts[0].tolist() == [3, 2]
    assert relations.correlations.values[0, 1] == whole.values[0, 1]


def test_too_few_completions_are_missing_with_the_reason():
    relations = reward_relations(copula(0.5, seed=8, samples=7))
    assert relations.correlations.reasons[0][1] == "no prompt has 8 completions with both rewards, on which both vary"
    rewards = copula(0.5, seed=8, prompts=3, samples=12)
    rewards[0, :5, 0] = np.nan  # seven remain
    assert reward_relations(rewards).prompts[0, 1] == 2


@pytest.mark.parametrize("wrong", [np.inf, -np.inf])
def test_an_infinite_reward_is_refused_and_not_taken_for_a_missing_one(wrong):
    rewards = copula(0.5, seed=9)
    rewards[1, 2, 0] = wrong
    with pytest.raises(
        NonFiniteError, match=r"rewards must be finite or NaN, got an infinity\. Write a missing reward"
    ):
        reward_relations(rewards)


def test_wrong_shapes_and_confidences_are_refused():
    with pytest.raises(ShapeError, match=r"prompts, completions and objectives, got shape \[4, 2\]\. Group"):
        reward_relations(np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="confidence must lie between 0 and 1, got 95"):
        reward_relations(copula(0.5, seed=9), confidence=95)
