import numpy as np
import pytest
from scipy import stats

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.relations.gradients import gradient_relations, gram_blocks

BATCHES, PARAMETERS = 24, 100


def sample(cosine, seed, noise=0.1, shared=0.0, batches=BATCHES, length=1.0):
    """Draw two gradients per batch around expected ones of norms `length` and 1 and this cosine, `[N, 2, D]`.

    `shared` is the correlation of their noise: gradients of one batch come from the same completions.
    """
    generator = np.random.default_rng(seed)
    expected = np.zeros((2, PARAMETERS))
    expected[0, 0] = length
    expected[1, :2] = cosine, np.sqrt(1 - cosine**2)
    own, common = generator.normal(size=(batches, 2, PARAMETERS)), generator.normal(size=(batches, 1, PARAMETERS))
    return expected + noise * (
        np.sqrt(1 - abs(shared)) * own + np.sqrt(abs(shared)) * common * [[[1], [np.sign(shared)]]]
    )


def relations(gradients, **settings):
    return gradient_relations(gram_blocks(gradients), **settings)


def test_blocks_are_inner_products():
    gradients = sample(0.5, seed=0, batches=4)
    blocks = gram_blocks(gradients)
    assert blocks.shape == (4, 4, 2, 2)
    assert blocks[1, 3, 0, 1] == pytest.approx(gradients[1, 0] @ gradients[3, 1], rel=1e-9)  # rounding


def test_cosine_of_gradients_without_noise_is_exact():
    pairs = relations(sample(-0.6, seed=0, noise=0.0)).cosines
    for ends in (pairs.values, pairs.low, pairs.high):
        assert ends == pytest.approx(np.array([[1, -0.6], [-0.6, 1]]), abs=1e-9)  # rounding
    assert pairs.labels() == (("correlated", "competing"), ("competing", "correlated"))


def test_cosine_and_interval_match_leaving_batches_out_by_hand():
    gradients = sample(0.4, seed=1, batches=6)

    def cosine(rows):
        products = [[rows[a, i] @ rows[b, j] for a in range(len(rows)) for b in range(len(rows)) if a != b]
                    for i, j in ((0, 1), (0, 0), (1, 1))]  # fmt: skip
        cross, first, second = (np.mean(each) for each in products)
        return cross / np.sqrt(first * second)

    without = np.array([cosine(np.delete(gradients, batch, axis=0)) for batch in range(6)])
    centre = 6 * cosine(gradients) - 5 * without.mean()
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * np.sum((without - without.mean()) ** 2))
    pairs = relations(gradients).cosines
    assert pairs.values[0, 1] == pytest.approx(centre, rel=1e-9)  # same formula, other rounding
    assert pairs.low[0, 1] == pytest.approx(centre - half, rel=1e-9)
    assert pairs.high[0, 1] == pytest.approx(centre + half, rel=1e-9)


@pytest.mark.parametrize("shared", [0.9, -0.9])
def test_noise_that_gradients_of_a_batch_share_does_not_bias_the_cosine(shared):
    # Noise has squared norm .1^2 x 100 = 1, as much as the expected gradients, so within batches the cosine would be
    # about (0 +- .9) / 2 = +-.45. Of 8 batches an inner product has a standard error of about
    # sqrt(2 x .01 / 8 + .01^2 x 100 / 56) = .05, a mean of 50 draws .007; four of them.
    draws = [sample(0.0, seed, shared=shared, batches=8) for seed in range(50)]
    within = [np.mean([g[0] @ g[1] for g in rows]) / 2 for rows in draws]
    assert np.mean(within) == pytest.approx(shared / 2, abs=0.05)
    assert np.mean([relations(rows).cosines.values[0, 1] for rows in draws]) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("cosine", [0.0, 0.5, -0.9])
def test_interval_covers_the_true_cosine(cosine):
    # 200 draws: standard error of the coverage .0154; three of them is .046. It may cover too often: for noisy
    # gradients the jackknife errs on the wide side.
    pairs = [relations(sample(cosine, seed, shared=0.5)).cosines for seed in range(200)]
    assert np.mean([each.low[0, 1] <= cosine <= each.high[0, 1] for each in pairs]) >= 0.95 - 0.046


def test_gradient_that_cannot_be_told_from_zero_has_no_cosine():
    missing = [relations(sample(0.5, seed, length=0.0)).cosines for seed in range(40)]
    # under no gradient at all, the lower end is above 0 in 2.5 % of draws or fewer: 5 of 40 would be 4 too many
    assert sum(np.isnan(each.values[0, 1]) for each in missing) >= 36
    example = missing[0]
    assert example.reasons[0][1] == example.reasons[0][0] == "the gradient of objective 0 cannot be told from zero"
    assert example.labels()[0] == (None, None)
    assert example.labels()[1][1] == "correlated"


def test_a_norm_that_one_batch_alone_holds_up_is_told_from_zero_at_no_confidence():
    # Products of different batches of 4, 1, 1, -1 have the mean (5^2 - 19) / 12 = .5, and (1^2 - 3) / 6 = -1/3 without
    # the first. At confidence .1 the interval, .5 -+ .137 x 2.5, lies above 0, and yet there is a root of -1/3.
    gradients = np.ones((4, 2, 1))
    gradients[:, 0, 0] = 4.0, 1.0, 1.0, -1.0
    pairs = relations(gradients, confidence=0.1).cosines
    assert pairs.reasons[0] == ("the gradient of objective 0 cannot be told from zero",) * 2
    assert pairs.values[1, 1] == 1


def test_share_of_conflicts_is_counted_within_batches():
    # 2 of 8 batches conflict; Wilson at 95 %: centre (.25 + 3.8415/16) / (1 + 3.8415/8) = .33111,
    # half sqrt(3.8415 x (.1875/8 + 3.8415/256)) / 1.48018 = .25962
    gradients = np.ones((8, 2, 1))
    gradients[:2, 1] = -3.0
    pairs = relations(gradients).conflicts
    assert pairs.values.tolist() == [[0, 0.25], [0.25, 0]]
    assert pairs.low[0, 1] == pytest.approx(0.33111 - 0.25962, abs=2e-5)  # five decimals of each term
    assert pairs.high[0, 1] == pytest.approx(0.33111 + 0.25962, abs=2e-5)


def test_batches_without_a_gradient_are_left_out_of_the_share():
    gradients = np.ones((8, 2, 1))
    gradients[:4, 1] = 0.0
    gradients[4, 1] = -1.0
    pairs = relations(gradients).conflicts
    assert pairs.values[0, 1] == 0.25
    gradients[:, 1] = 0.0
    pairs = relations(gradients).conflicts
    assert np.isnan(pairs.values[0, 1])
    assert pairs.reasons[0][1] == "in every batch the gradient of objective 0 or objective 1 is zero"


def test_order_of_objectives_scale_and_sign():
    gradients = sample(0.5, seed=2, shared=0.3)
    before, swapped, turned = (relations(each) for each in (gradients, gradients[::-1, ::-1], gradients * [[1], [-5]]))
    for name in ("values", "low", "high"):
        one, other = (getattr(each.cosines, name) for each in (before, swapped))
        assert other == pytest.approx(one[::-1, ::-1], abs=1e-9)  # sums in another order
    assert turned.cosines.values[0, 1] == pytest.approx(-before.cosines.values[0, 1], abs=1e-9)
    assert turned.cosines.low[0, 1] == pytest.approx(-before.cosines.high[0, 1], abs=1e-9)
    assert turned.conflicts.values[0, 1] == pytest.approx(1 - before.conflicts.values[0, 1])
    assert (before.cosines.labels()[0][1], turned.cosines.labels()[0][1]) == ("correlated", "competing")


def test_one_objective_is_correlated_with_itself():
    assert relations(sample(0.5, seed=3)[:, :1]).cosines.values.tolist() == [[1.0]]


def test_wrong_arrays_are_refused():
    with pytest.raises(ShapeError, match="Flatten the parameters"):
        gram_blocks(np.zeros((3, 2, 4, 4)))
    with pytest.raises(ShapeError, match="Build it with gram_blocks"):
        gradient_relations(np.zeros((4, 5, 2, 2)))
    with pytest.raises(ShapeError, match=r"at least 4 batches, got 3\. Take more batches"):
        relations(sample(0.5, seed=0, batches=3))
    with pytest.raises(NonFiniteError, match="gram must be finite"):
        relations(np.full((4, 2, 1), np.nan))
    with pytest.raises(ConfigError, match="confidence must lie between 0 and 1"):
        relations(sample(0.5, seed=0), confidence=1.0)
