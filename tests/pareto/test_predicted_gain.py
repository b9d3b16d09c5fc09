from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.predicted_gain import FEWEST, choose_pairs, fit_gains


def transitions(
    count: int, draws: np.random.Generator, noise: float = 0.01, useful: bool = True
) -> tuple[np.ndarray, ...]:
    """Return transitions in which an objective gains the more, the higher its weight and the lower its score."""
    before, weights = draws.random((count, 2)), draws.dirichlet(np.ones(2), count)
    true = 0.3 * weights * (1 - before) if useful else np.zeros((count, 2))
    return before, weights, true + noise * draws.standard_normal((count, 2)), np.full((count, 2), noise**2)


def test_gains_that_follow_weights_and_scores_are_predicted() -> None:
    draws = np.random.default_rng(0)
    model = fit_gains(*transitions(40, draws))
    assert model.trusted
    assert model.error < 0.1 * model.unchanged_error
    before, weights, gains, _ = transitions(200, draws, noise=0.0)
    means, deviations = model.predict(before, weights)
    assert np.sqrt(((means - gains) ** 2).mean()) < 0.02  # gains have a root mean square of .1
    inside = np.abs(means - gains) <= 3 * deviations + 1e-3
    assert inside.mean() > 0.95


def test_noise_alone_is_not_trusted_more_often_than_luck_explains() -> None:
    draws = np.random.default_rng(1)
    trusted = [fit_gains(*transitions(12, draws, 0.05, useful=False)).trusted for _ in range(60)]
    assert np.mean(trusted) < 0.3  # a standard error is exceeded by luck in 16 %, and the length is chosen
    useful = [fit_gains(*transitions(12, draws, 0.05)).trusted for _ in range(60)]
    assert np.mean(useful) > 0.9


def test_few_transitions_are_never_trusted() -> None:
    model = fit_gains(*transitions(FEWEST - 1, np.random.default_rng(2), 0.0001))
    assert not model.trusted


def test_left_out_errors_are_those_of_fits_without_the_transition() -> None:
    """Equation 5.12 against doing it: the same signal and length, one row gone."""
    from dataclasses import replace

    before, weights, gains, noise = transitions(7, np.random.default_rng(3))
    model = fit_gains(before, weights, gains, noise)
    squares = []
    for row in range(7):
        rest = np.arange(7) != row
        less = replace(model, inputs=model.inputs[rest], gains=gains[rest], noise=noise[rest])
        squares.append((less.predict(before[[row]], weights[[row]])[0][0] - gains[row]) ** 2)
    assert model.error == pytest.approx(np.mean(squares), rel=1e-6)


def test_far_from_what_was_seen_nothing_is_expected_and_all_is_possible() -> None:
    model = fit_gains(*transitions(10, np.random.default_rng(4)))
    means, deviations = model.predict([[100.0, 100.0]], [[0.5, 0.5]])
    np.testing.assert_allclose(means, 0, atol=1e-12)
    np.testing.assert_allclose(deviations[0], np.sqrt(model.signal))


def test_pairs_are_chosen_by_what_they_add_together() -> None:
    """Two policies, two weights. The first gains most; its twin adds nothing to it, so the other end comes second."""
    scores = np.asarray([[0.6, 0.2], [0.2, 0.6]])
    means = np.asarray([[[0.3, 0.0], [0.29, 0.0]], [[0.0, 0.25], [0.0, 0.1]]])
    nothing = np.zeros_like(means)
    assert choose_pairs(scores, means, nothing, 2, np.zeros((1, 2))) == [(0, 0), (1, 0)]
    every = choose_pairs(scores, means, nothing, 4, np.zeros((1, 2)))
    assert sorted(every) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_of_equal_means_the_less_known_gain_is_worth_more() -> None:
    """What may also fall short costs nothing: the old policy stays."""
    scores = np.asarray([[0.5, 0.5], [0.5, 0.5]])
    means = np.full((2, 1, 2), 0.01)
    deviations = np.stack([np.full((1, 2), 0.001), np.full((1, 2), 0.1)])
    draws = np.random.default_rng(5).standard_normal((32, 2))
    assert choose_pairs(scores, means, deviations, 1, draws) == [(1, 0)]


def test_what_cannot_be_fitted_or_chosen_is_refused() -> None:
    with pytest.raises(ShapeError, match="before, objective_weights, gains and noise must have one shape"):
        fit_gains([[0.5, 0.5]], [[0.5, 0.5]], [[0.1]], [[0.1]])
    with pytest.raises(NonFiniteError, match="gains must be finite"):
        fit_gains([[0.5]], [[1.0]], [[np.nan]], [[0.1]])
    with pytest.raises(ShapeError, match="count must be at most 1, the number of pairs, got 2"):
        choose_pairs([[0.5]], np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), 2, np.zeros((1, 1)))
