from __future__ import annotations

import tracemalloc
from math import erf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.bandits.policies import EXPLORATION, answers, drawn, greedy, probabilities, square_cb, thompson
from paretune.bandits.ridge import coefficients, fresh, noise, predicted, residuals, updated, widths
from paretune.core.errors import ConfigError, NonFiniteError, UnknownNameError


@given(st.sampled_from(sorted(EXPLORATION)), st.integers(0, 10**6), st.integers(1, 7), st.floats(0, 1))
def test_chances_sum_to_one_and_keep_the_floor(algorithm: str, seed: int, arms: int, floor: float) -> None:
    generator = np.random.default_rng(seed)
    means, deviations = generator.normal(size=(5, arms)), generator.uniform(0, 2, size=(5, arms))
    found = probabilities(algorithm, means, deviations, np.full(5, 0.5), 100, floor=floor)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.min() >= floor / arms - 1e-12
    if floor < 1 and algorithm != "linucb":
        own, best = found[np.arange(5), means.argmax(axis=1)], found.max(axis=1)
        spread = np.ptp(deviations, axis=1) if algorithm == "thompson" else np.zeros(5)
        assert ((own == best) | (spread > 0)).all()  # the best has most, where all are known equally well


def test_each_policy_by_hand() -> None:
    means, deviations, noise_of = np.asarray([[1.0, 0.5]]), np.asarray([[0.1, 0.4]]), np.asarray([0.25])

    def of(algorithm: str, exploration: float, floor: float = 0.0) -> list[float]:
        return probabilities(algorithm, means, deviations, noise_of, 16, exploration, floor)[0].tolist()

    assert of("greedy", 0) == [1, 0]
    assert of("greedy", 0, 0.2) == pytest.approx([0.9, 0.1])
    assert of("epsilon_greedy", 0.2) == pytest.approx([0.9, 0.1])
    assert of("linucb", 1) == [1, 0]  # 1.1 to .9
    assert of("linucb", 2) == [0, 1]  # 1.2 to 1.3
    # gamma is 2 * sqrt(16) / .25 = 32: 1 / (2 + 32 * .5)
    assert of("squarecb", 2) == pytest.approx([17 / 18, 1 / 18])
    # the difference of two Gaussians has mean .5 and variance .17
    first = 0.5 + erf(0.5 / np.sqrt(0.34)) / 2
    assert of("thompson", 1) == pytest.approx([first, 1 - first], abs=2e-4)  # quadrature; deviations are 1 to 4
    assert of("thompson", 0) == [1, 0]


def test_chances_of_thompson_are_how_often_its_draws_are_best() -> None:
    means, deviations = np.asarray([[0.3, 0.0, 0.2, -0.5]]), np.asarray([[0.1, 0.5, 0.3, 0.6]])
    draws = means + deviations * np.random.default_rng(0).normal(size=(200_000, 4))
    often = np.bincount(draws.argmax(axis=1), minlength=4) / 200_000
    np.testing.assert_allclose(thompson(means, deviations)[0], often, atol=5e-3)  # standard error .001, and quadrature


def test_chances_of_two_arms_miss_the_truth_by_what_their_deviations_differ() -> None:
    """The difference of two Gaussians is one: the second is best with chance `Phi(mean / root of the variances)`."""
    means = np.linspace(-4, 4, 161)
    for factor, miss in ((1, 1e-12), (3, 1e-5), (4, 2e-4), (10, 0.02), (1000, 0.06)):
        found = thompson(np.stack([0 * means, means], axis=1), np.tile([1, 1 / factor], (161, 1)))[:, 1]
        truth = 0.5 + np.asarray([erf(each / np.sqrt(2 + 2 / factor**2)) for each in means]) / 2
        np.testing.assert_allclose(found, truth, rtol=0, atol=miss)
        assert np.abs(found - truth).max() > miss / 5 or factor == 1  # the docstring claims no more than it must
    assert thompson(np.asarray([[0.0, 0.2]]), np.asarray([[1.0, 0.01]]))[0, 1] == pytest.approx(0.537, abs=5e-4)


def test_memory_of_thompson_grows_with_arms_and_not_with_their_square() -> None:
    means = np.random.default_rng(0).normal(size=(4, 100))
    tracemalloc.start()
    thompson(means, np.ones_like(means))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (4 * 100 * 48) * 8  # eight arrays [N, A, Q] of float64; one [N, A, A, Q] would be a hundred


def test_arms_that_tie_share_and_a_first_round_is_uniform() -> None:
    assert greedy(np.asarray([[1.0, 0.0, 1.0]])).tolist() == [[0.5, 0, 0.5]]
    known, contexts = fresh(4, 3, 2, 10.0), np.ones((2, 3))
    means = predicted(coefficients(known), contexts) @ np.asarray([1.0, -0.1])
    for algorithm in EXPLORATION:
        chances = probabilities(
            algorithm, means, widths(known.inverses, contexts), noise(residuals(known), np.ones((2, 2))), 0
        )
        np.testing.assert_allclose(chances, 0.25)


def test_an_answer_leaves_the_first_arm_for_what_is_known_to_be_better() -> None:
    means, deviations = np.asarray([[1.0, 1.5, 1.8, 0.9]]), np.asarray([[0.3, 0.4, 1.0, 0.1]])
    # gains .5, .8 and -.1; deviations of the differences .5, 1.044 and .316
    for caution, wanted in ((0.0, 2), (0.5, 2), (0.7, 1), (0.99, 1), (1.01, 0)):
        assert answers(means, deviations, caution).tolist() == [wanted]
    assert answers(np.zeros((2, 3)), np.zeros((2, 3)), 0.0).tolist() == [0, 0]


def test_draws_follow_the_chances() -> None:
    chances = np.asarray([[0.2, 0.0, 0.8]])
    assert drawn(np.tile(chances, (4, 1)), np.asarray([0.0, 0.19, 0.2, 0.999])).tolist() == [0, 0, 2, 2]
    assert drawn(np.asarray([[0.5, 0.5 - 1e-17]]), np.asarray([1 - 1e-17])).tolist() == [1]


@pytest.mark.parametrize("algorithm", sorted(EXPLORATION))
def test_payoffs_that_are_no_numbers_choose_no_arm(algorithm: str) -> None:
    known = {"means": np.zeros((2, 3)), "deviations": np.ones((2, 3)), "noise": np.ones(2)}
    for name, wrong in (("means", np.nan), ("deviations", np.inf), ("noise", np.nan)):
        given = {each: values.copy() for each, values in known.items()}
        given[name].flat[1] = wrong
        with pytest.raises(NonFiniteError, match=f"{name} of payoffs must be finite, got NaN or infinity"):
            probabilities(algorithm, **given, pulls=3)


@pytest.mark.parametrize("row", [[np.nan, 0.5, 0.5], [0.5, 0.4, 0.0], [1.2, -0.2, 0.0]])
def test_nothing_is_drawn_from_what_is_no_distribution(row: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"chances must be non-negative and sum to 1 in every row, got .* in row 1"):
        drawn(np.asarray([[0.2, 0.2, 0.6], row]), np.asarray([0.5, 0.5]))


def regret(algorithm: str, seed: int, read: bool = True) -> tuple[float, float]:
    """Return mean regret of the first and the last of ten rounds of 50: two objectives, five arms, noise .3."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=(5, 3, 2)) / 2
    known, lost = fresh(5, 3, 2, 1.0), []
    for _ in range(10):
        contexts, preferences = generator.normal(size=(50, 3)), generator.dirichlet(np.ones(2), size=50)
        contexts[:, 0] = 1.0
        seen = contexts if read else contexts * np.asarray([1.0, 0.0, 0.0])
        means = np.einsum("nao,no->na", predicted(coefficients(known), seen), preferences)
        spread = noise(residuals(known), preferences)
        deviations = spread[:, None] * widths(known.inverses, seen)
        chances = probabilities(algorithm, means, deviations, spread, int(known.counts.sum()), floor=0.05)
        arms = drawn(chances, generator.random(50))
        outputs = predicted(truth, contexts)
        payoffs = np.einsum("nao,no->na", outputs, preferences)
        lost.append((payoffs.max(axis=1) - payoffs[np.arange(50), arms]).mean())
        known = updated(known, arms, seen, outputs[np.arange(50), arms] + 0.3 * generator.normal(size=(50, 2)))
    return float(lost[0]), float(lost[-1])


@pytest.mark.parametrize("algorithm", sorted(EXPLORATION))
def test_where_the_best_arm_depends_on_the_context_it_is_found_and_blind_it_is_not(algorithm: str) -> None:
    own = np.asarray([regret(algorithm, seed) for seed in range(6)]).mean(axis=0)
    blind = np.asarray([regret(algorithm, seed, read=False) for seed in range(6)]).mean(axis=0)
    assert own[1] < 0.35 * own[0]  # a first round is uniform
    assert own[1] < 0.5 * blind[1]


def test_what_is_no_policy_is_refused() -> None:
    means = np.zeros((1, 2))
    with pytest.raises(UnknownNameError, match=r"algorithm must be one of .*got 'linucp'"):
        probabilities("linucp", means, means, np.ones(1), 0)
    with pytest.raises(ConfigError, match="exploration must be finite, not negative for linucb, got -1"):
        probabilities("linucb", means, means, np.ones(1), 0, exploration=-1)
    with pytest.raises(ConfigError, match="at most 1 for epsilon_greedy, got 2"):
        probabilities("epsilon_greedy", means, means, np.ones(1), 0, exploration=2)
    with pytest.raises(ConfigError, match=r"floor must be a share between 0 and 1, got 1\.5"):
        probabilities("greedy", means, means, np.ones(1), 0, floor=1.5)
    assert square_cb(means, np.zeros(1)).tolist() == [[0.5, 0.5]]
