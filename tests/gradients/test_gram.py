from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import ConfigError, NonFiniteError, PreferenceError, ShapeError
from paretune.gradients.gram import ZERO, prepare


def drawn(objectives: int, parameters: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((objectives, parameters))


def test_root_and_norms_give_the_gram_matrix_back() -> None:
    jacobian = drawn(4, 7) * np.array([1.0, 1e-4, 3.0, 20.0])[:, None]
    gram = jacobian @ jacobian.T
    prepared = prepare(gram)
    columns = prepared.root * prepared.norms
    np.testing.assert_allclose(columns.T @ columns, gram, rtol=1e-9, atol=1e-15 * 400)  # the largest is about 400 x 7
    np.testing.assert_allclose(np.linalg.norm(prepared.root, axis=0), 1)


def test_columns_of_length_one_keep_the_digits_of_a_short_gradient() -> None:
    # (1, 0) and 1e-5 (3, 4) / 5: their cosine is 3 / 5
    gram = np.array([[1.0, 0.6e-5], [0.6e-5, 1e-10]])
    prepared = prepare(gram)
    assert prepared.root[:, 0] @ prepared.root[:, 1] == pytest.approx(0.6, rel=1e-12)
    assert prepared.norms[1] == pytest.approx(1e-5, rel=1e-12)


@pytest.mark.parametrize(("power", "norms", "factors"), [(0, [2, 4], [1, 1]), (1, [1, 1], [1 / 2, 1 / 4]),
                                                         (2, [1 / 2, 1 / 4], [1 / 4, 1 / 16])])  # fmt: skip
def test_norms_are_divided_out_to_a_power(power: int, norms: list[float], factors: list[float]) -> None:
    prepared = prepare(np.diag([4.0, 16.0]), norm_power=power)  # norms 2 and 4
    np.testing.assert_allclose(prepared.norms, norms)
    np.testing.assert_allclose(prepared.factors, factors)
    np.testing.assert_allclose(prepared.on_raw_gradients(np.array([0.5, 2.0])), np.array(factors) * [0.5, 2.0])


@pytest.mark.parametrize(("power", "factors"), [(1, [0.25, 0.75, 0.0]), (-1, [4.0, 4 / 3, 0.0]), (0, [1.0, 1.0, 0.0])])
def test_preference_multiplies_or_divides_and_zero_leaves_out(power: int, factors: list[float]) -> None:
    prepared = prepare(np.eye(3), preference=[0.25, 0.75, 0.0], preference_power=power)
    np.testing.assert_allclose(prepared.factors, factors)
    assert prepared.kept.tolist() == [True, True, False]
    assert prepared.on_raw_gradients(np.ones(2))[2] == 0


def test_gradients_that_vanish_are_left_out() -> None:
    prepared = prepare(np.diag([0.0, 1.0, ZERO * 0.9, ZERO * 1.1]))
    assert prepared.kept.tolist() == [False, True, False, True]
    assert len(prepared.norms) == prepared.root.shape[0] == 2
    assert not prepare(np.zeros((3, 3))).kept.any()


def test_a_gram_matrix_with_negative_eigenvalues_of_rounding_has_a_root() -> None:
    jacobian = np.repeat(drawn(1, 5), 3, axis=0)
    gram = jacobian @ jacobian.T + 1e-9 * np.array([[0, 1, -1], [1, 0, 1], [-1, 1, 0]])
    assert np.linalg.eigvalsh(gram).min() < 0
    assert np.isfinite(prepare(gram).root).all()


@pytest.mark.parametrize(
    ("gram", "settings", "error", "message"),
    [
        (np.ones((2, 3)), {}, ShapeError, r"gram must be \[K, K\], got shape \[2, 3\]"),
        (np.ones((0, 0)), {}, ShapeError, r"gram must be \[K, K\], got shape \[0, 0\]"),
        (np.array([[1.0, 0.5], [-0.5, 1.0]]), {}, ShapeError, "gram must be symmetric"),
        (np.diag([1.0, -1.0]), {}, ShapeError, "gram must have squared norms on its diagonal, got -1.0"),
        (np.diag([1.0, np.nan]), {}, NonFiniteError, "gram must be finite"),
        (np.eye(2), {"norm_power": 3}, ConfigError, "norm_power must be one of 0, 1, 2, got 3"),
        (np.eye(2), {"preference_power": 2}, ConfigError, "preference_power must be one of -1, 0, 1, got 2"),
        (np.eye(2), {"preference": [0.5, -0.6]}, PreferenceError, "must be finite and non-negative"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(gram: np.ndarray, settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(gram, **settings)
