import math

import numpy as np
import pytest

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.relations.outcomes import outcome_relations


def trained(changes, base=0.5, prompts=1):
    """Return scores `[K, S, P, K]` given changes `[K, S, K]`."""
    return base + np.repeat(np.asarray(changes, dtype=float)[:, :, None, :], prompts, axis=2)


def noisy(matrix, seed, seeds=5, noise=0.02):
    """Draw changes `[K, S, K]` around this matrix."""
    generator = np.random.default_rng(seed)
    shape = (len(matrix), seeds, len(matrix))
    return np.asarray(matrix)[:, None, :] + noise * generator.normal(size=shape)


def test_changes_have_student_intervals_over_seeds():
    # changes of objective 1 under policy 0: 1, 2, 3 hundredths, mean .02, standard error .01 / sqrt 3, t = 4.302653;
    # three prompts that say the same do not make it surer
    changes = [[[0.3, 0.01], [0.3, 0.02], [0.3, 0.03]], [[0, 0.2]] * 3]
    pairs = outcome_relations([0.5, 0.5], trained(changes, prompts=3)).changes
    assert pairs.values == pytest.approx(np.array([[0.3, 0.02], [0, 0.2]]), abs=1e-12)  # rounding
    assert pairs.high[0, 1] == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3), abs=1e-7)  # table's decimals
    assert pairs.low[0, 1] == pytest.approx(0.02 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-7)


def test_change_per_gain_is_the_ratio_with_fiellers_interval():
    # Gain .2 in every seed: no uncertainty below the line, so Fieller's interval is that of the change, divided by .2.
    changes = [[[0.2, -0.01], [0.2, -0.02], [0.2, -0.03]], [[0, 0.2]] * 3]
    result = outcome_relations([0.5, 0.5], trained(changes))
    assert result.per_gain.values[0, 1] == pytest.approx(-0.1, abs=1e-9)
    assert result.per_gain.low[0, 1] == pytest.approx(result.changes.low[0, 1] / 0.2, abs=1e-9)
    assert result.per_gain.high[0, 1] == pytest.approx(result.changes.high[0, 1] / 0.2, abs=1e-9)
    assert result.per_gain.values[0, 0] == result.per_gain.low[0, 0] == result.per_gain.high[0, 0] == 1


def test_ends_of_the_ratio_are_where_change_minus_ratio_times_gain_may_just_be_zero():
    changes = noisy([[0.2, 0.1], [-0.1, 0.3]], seed=0)
    pairs = outcome_relations([0.5, 0.5], trained(changes)).per_gain
    for end in (pairs.low[0, 1], pairs.high[0, 1]):
        rest = changes[0, :, 1] - end * changes[0, :, 0]
        statistic = rest.mean() / (rest.std(ddof=1) / math.sqrt(5))
        assert abs(statistic) == pytest.approx(2.776445, abs=1e-5)  # t for 4 degrees of freedom, six decimals


def test_interval_covers_the_true_ratio_as_often_as_it_promises():
    # 400 draws: standard error of the coverage .0109; three of them is .033
    matrix = [[0.2, -0.1], [0.06, 0.3]]
    covered = []
    for seed in range(400):
        pairs = outcome_relations([0.5, 0.5], trained(noisy(matrix, seed, noise=0.05))).per_gain
        covered += [pairs.low[0, 1] <= -0.5 <= pairs.high[0, 1]] if pairs.reasons[0][1] == "" else []
    assert len(covered) > 390
    assert abs(np.mean(covered) - 0.95) <= 0.033


def test_labels_say_what_training_for_one_does_to_the_others():
    matrix = [[0.2, 0.1, 0.0], [-0.1, 0.2, 0.0], [0.0, 0.0, 0.2]]
    labels = outcome_relations(np.full(3, 0.5), trained(noisy(matrix, seed=1, noise=0.005))).per_gain.labels()
    assert labels == (
        ("correlated", "correlated", "independent"),
        ("competing", "correlated", "independent"),
        ("independent", "independent", "correlated"),
    )


def test_base_of_the_same_seed_and_prompt_is_subtracted():
    generator = np.random.default_rng(2)
    base = generator.uniform(size=(3, 4, 2))  # seeds and prompts differ far more than training changes them
    changes = noisy([[0.2, 0.1], [0.0, 0.3]], seed=3, seeds=3)
    scores = base + changes[:, :, None, :]
    paired = outcome_relations(base, scores).changes
    assert paired.values == pytest.approx(changes.mean(axis=1), abs=1e-12)  # rounding
    unpaired = outcome_relations(base.mean(axis=(0, 1)), scores).changes
    assert unpaired.high[0, 0] - unpaired.low[0, 0] > 2 * (paired.high[0, 0] - paired.low[0, 0])
    per_prompt = outcome_relations(base[0], np.stack([scores[:, 0]] * 2, axis=1)).changes
    assert per_prompt.values == pytest.approx(changes[:, 0], abs=1e-12)


def test_every_prompt_counts():
    scores = trained([[[0.0, 0.0]] * 2] * 2, prompts=4)
    scores[0, :, 2:, 0] += 0.4
    assert outcome_relations([0.5, 0.5], scores).changes.values[0, 0] == pytest.approx(0.2)


def test_order_of_objectives_changes_nothing_and_a_turned_objective_turns_its_column():
    changes = noisy([[0.2, 0.1, 0], [0, 0.3, -0.2], [0.1, 0, 0.2]], seed=4)
    before = outcome_relations(np.full(3, 0.5), trained(changes)).per_gain
    order = [1, 2, 0]
    after = outcome_relations(np.full(3, 0.5), trained(changes[order][:, :, order])).per_gain
    assert after.low == pytest.approx(before.low[np.ix_(order, order)], abs=1e-9)
    turned = outcome_relations(np.full(3, 0.5), trained(changes * [1, 1, -1])).per_gain
    assert turned.low[0, 2] == pytest.approx(-before.high[0, 2], abs=1e-9)
    assert turned.low[0, 1] == pytest.approx(before.low[0, 1], abs=1e-9)


def test_training_that_did_not_help_its_own_objective_has_no_ratio():
    changes = noisy([[0.0, 0.1], [0.1, -0.3]], seed=5)
    assert changes[0, :, 0].mean() > 0  # by chance
    result = outcome_relations([0.5, 0.5], trained(changes))
    assert result.per_gain.reasons == (
        ("training for objective 0 did not clearly raise it",) * 2,
        ("training for objective 1 did not raise it",) * 2,
    )
    assert result.per_gain.labels() == ((None, None), (None, None))
    assert np.isfinite(result.changes.low).all()


def test_one_seed_has_values_and_no_intervals():
    result = outcome_relations([0.5, 0.5], trained([[[0.2, 0.1]], [[0.1, 0.2]]]))
    assert result.per_gain.values[0, 1] == pytest.approx(0.5)
    assert result.changes.reasons[0][1] == result.per_gain.reasons[0][1] == "one seed: no interval"
    assert result.per_gain.labels() == ((None, None), (None, None))


@pytest.mark.parametrize("gain", [0.0, -0.2])
def test_one_seed_whose_training_did_not_help_says_so(gain):
    result = outcome_relations([0.5, 0.5], trained([[[gain, 0.1]], [[0.1, 0.2]]]))
    assert result.per_gain.reasons[0] == ("training for objective 0 did not raise it",) * 2
    assert np.isnan(result.per_gain.values[0]).all()
    assert result.per_gain.reasons[1] == ("one seed: no interval",) * 2


def test_seeds_without_a_score_are_left_out_where_it_matters():
    changes = noisy([[0.2, 0.1], [0.0, 0.3]], seed=6)
    scores = trained(changes, prompts=2)
    scores[0, 0, 1, 1] = np.nan
    scores[1, :, 0, 0] = np.nan
    result = outcome_relations([0.5, 0.5], scores)
    assert result.changes.values[0, 1] == pytest.approx(changes[0, 1:, 1].mean())
    assert result.changes.values[0, 0] == pytest.approx(changes[0, :, 0].mean())
    assert result.per_gain.values[0, 1] == pytest.approx(changes[0, 1:, 1].mean() / changes[0, 1:, 0].mean())
    assert result.changes.reasons[1][0] == result.per_gain.reasons[1][0] == "no seed has the scores of both policies"
    # of 5 seeds, policy 0 lacks one score in objective 1, policy 1 all scores in objective 0
    assert result.seeds.tolist() == [[5, 4], [0, 5]]


def test_a_seed_without_the_gain_counts_for_no_change_per_gain():
    scores = trained(noisy([[0.2, 0.1], [0.0, 0.3]], seed=7))
    scores[0, :2, :, 0] = np.nan
    result = outcome_relations([0.5, 0.5], scores)
    assert result.seeds.tolist() == [[3, 3], [5, 5]]
    assert result.changes.values[0, 1] == pytest.approx((scores[0, :, 0, 1] - 0.5).mean())  # all five


@pytest.mark.parametrize("wrong", [np.inf, -np.inf])
def test_an_infinite_score_is_refused_and_not_taken_for_a_missing_one(wrong):
    scores = trained(noisy([[0.2, 0.1], [0.0, 0.3]], seed=8))
    with pytest.raises(NonFiniteError, match=r"base must be finite or NaN, got an infinity\. Write a missing score"):
        outcome_relations([0.5, wrong], scores)
    scores[1, 2, 0, 1] = wrong
    with pytest.raises(NonFiniteError, match=r"trained must be finite or NaN, got an infinity\. Write a missing score"):
        outcome_relations([0.5, 0.5], scores)


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="Give one policy per objective"):
        outcome_relations([0.5, 0.5], np.zeros((3, 2, 1, 2)))
    with pytest.raises(ShapeError, match=r"got shape \[4, 2\]\. Score the base model on the same prompts"):
        outcome_relations(np.zeros((4, 2)), np.zeros((2, 5, 3, 2)))
    with pytest.raises(ConfigError, match="confidence must lie between 0 and 1"):
        outcome_relations([0.5, 0.5], np.zeros((2, 5, 3, 2)), confidence=0)
