from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, PreferenceError
from paretune.pareto.chosen_value import chosen_values


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


def test_one_fold_has_no_cross_fitted_value() -> None:
    assert chosen_values([[[1.0, 0.0]]], [[0.5, 0.5]]).cross_fitted is None


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="prompt_scores must be finite"):
        chosen_values([[[np.nan, 0.0]]], [[0.5, 0.5]])
    with pytest.raises(PreferenceError, match="non-negative"):
        chosen_values([[[1.0, 0.0]]], [[0.5, -0.6]])
