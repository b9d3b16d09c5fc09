from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, PreferenceError, ShapeError
from paretune.pareto.chosen_value import chosen_values
from paretune.pareto.cross_fitting import prompt_halves


def test_equal_policies_are_worth_what_they_are_only_when_cross_fitted() -> None:
    """Twelve equal policies worth .5, standard errors .1: the highest of twelve lies 1.63 of them above."""
    draws = np.random.default_rng(0)
    naive, fair = [], []
    for _ in range(300):
        found = chosen_values(0.5 + 0.1 * np.sqrt(8) * draws.standard_normal((12, 8, 2)), [[1.0, 0.0]])
        naive.append(found.naive[0])
        assert found.cross_fitted is not None
        fair.append(found.cross_fitted[0])
    assert np.mean(naive) == pytest.approx(0.5 + 0.163, abs=0.02)  # 300 runs: standard error below .005
    assert np.mean(fair) == pytest.approx(0.5, abs=0.03)


def test_without_noise_the_two_agree_for_every_utility() -> None:
    scores = np.repeat(np.asarray([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]])[:, None], 4, axis=1)
    for utility, points in (("linear", None), ("chebyshev", np.ones(2)), ("thresholds", np.asarray([0.3, 0.3]))):
        found = chosen_values(scores, [[0.5, 0.5], [1, 0]], utility, points)
        np.testing.assert_allclose(found.cross_fitted, found.naive)
    assert chosen_values(scores, [[1, 0]], "thresholds", np.asarray([0.3, 0.3])).naive.tolist() == [0.4]


def test_folds_count_for_as_many_completions_as_they_are_of() -> None:
    """Nine completions of .9 and one of 0 against .8 for all: .81 is above .8, though .45 is the mean of the folds."""
    folds = np.asarray([[[0.9], [0.0]], [[0.8], [0.8]]])
    counts = np.asarray([[[9], [1]]] * 2)
    found = chosen_values(folds, [[1.0]], counts=counts)
    np.testing.assert_allclose(found.naive, [0.81])
    np.testing.assert_allclose(chosen_values(folds, [[1.0]]).naive, [0.8])
    # a half of the one fold is 0 on the other, the other way round .8 stays .8
    np.testing.assert_allclose(found.cross_fitted, [0.4])


def test_halves_weigh_folds_by_their_completions_too() -> None:
    """One policy, so that both halves say the same: three folds of 1, 2 and 5 completions in all ways to halve them."""
    counts, scores = np.asarray([1.0, 2.0, 5.0]), np.asarray([0.0, 0.5, 1.0])
    found = chosen_values(scores[None, :, None], [[1.0]], counts=counts[None, :, None])
    parts = [part for half in prompt_halves(3) for part in (half, ~half)]
    means = [(counts * scores)[part].sum() / counts[part].sum() for part in parts]
    np.testing.assert_allclose(found.cross_fitted, [np.mean(means)])


def test_the_naive_value_is_that_of_the_means_where_they_are_given() -> None:
    found = chosen_values([[[0.9], [0.1]], [[0.2], [0.2]]], [[1.0]], means=np.asarray([[0.3], [0.6]]))
    assert found.naive.tolist() == [0.6]


def test_one_fold_has_no_cross_fitted_value() -> None:
    assert chosen_values([[[1.0, 0.0]]], [[0.5, 0.5]]).cross_fitted is None


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="prompt_scores must be finite"):
        chosen_values([[[np.nan, 0.0]]], [[0.5, 0.5]])
    with pytest.raises(PreferenceError, match="non-negative"):
        chosen_values([[[1.0, 0.0]]], [[0.5, -0.6]])
    with pytest.raises(ShapeError, match=r"counts must have one entry for each score \[1, 1, 2\], got shape \[1, 1\]"):
        chosen_values([[[1.0, 0.0]]], [[0.5, 0.5]], counts=np.ones((1, 1)))
