from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torchjd.aggregation import PCGrad

from conflicting_gradients import drawn
from paretune.core.errors import PreferenceError, ShapeError
from paretune.gradients.pcgrad import pcgrad


def surgery(jacobian: np.ndarray, preference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return algorithm 1 of the paper, on the gradients themselves, in the orders that `pcgrad` draws."""
    total = np.zeros(jacobian.shape[1])
    for place, gradient in enumerate(jacobian):
        moved = gradient.copy()
        for other in rng.permutation(len(jacobian)):
            inner = moved @ jacobian[other]
            if other != place and inner < 0:
                moved -= inner / (jacobian[other] @ jacobian[other]) * jacobian[other]
        total += preference[place] * moved
    return total


@pytest.mark.parametrize("objectives", [2, 3, 5, 8])
def test_it_is_the_papers_algorithm_on_the_gradients_themselves(objectives: int) -> None:
    rng, conflicts = np.random.default_rng(objectives), 0
    for case in range(300):
        jacobian, wanted = rng.standard_normal((objectives, 12)), rng.dirichlet(np.ones(objectives))
        jacobian *= np.exp(rng.standard_normal(objectives))[:, None]
        gram = jacobian @ jacobian.T
        conflicts += bool((gram < 0).any())
        got = pcgrad(gram, np.random.default_rng(case), wanted) @ jacobian
        scale = np.linalg.norm(jacobian)
        assert_allclose(got, surgery(jacobian, wanted, np.random.default_rng(case)), atol=1e-12 * scale)
    assert conflicts > 100


def test_two_objectives_get_no_worse_whatever_their_gradients() -> None:
    rng = np.random.default_rng(0)
    for case in range(2000):
        jacobian, wanted = drawn(rng, 2), rng.dirichlet(np.ones(2))
        weights = pcgrad(jacobian @ jacobian.T, np.random.default_rng(case), wanted)
        norms = np.linalg.norm(jacobian, axis=1)
        assert (weights >= 0).all()
        assert (jacobian @ (weights @ jacobian) >= -1e-13 * norms * (wanted @ norms)).all()
        assert np.linalg.norm(weights @ jacobian) <= wanted @ norms * (1 + 1e-9)


def test_three_objectives_may_get_worse_which_the_docstring_says() -> None:
    rng = np.random.default_rng(0)
    worse = 0
    for case in range(300):
        jacobian = drawn(rng, 3, 0.7)
        combined = pcgrad(jacobian @ jacobian.T, np.random.default_rng(case)) @ jacobian
        worse += bool((jacobian @ combined < -0.01 * np.linalg.norm(jacobian, axis=1) * np.linalg.norm(jacobian)).any())
    assert worse > 0


def test_what_does_not_conflict_keeps_the_preference() -> None:
    gram = [[1.0, 0.2, 0.0], [0.2, 4.0, 0.1], [0.0, 0.1, 9.0]]
    assert_allclose(pcgrad(gram, np.random.default_rng(0), [0.2, 0.3, 0.5]), [0.2, 0.3, 0.5], rtol=1e-14)
    assert_allclose(pcgrad(gram, np.random.default_rng(0)), [1 / 3] * 3, rtol=1e-14)


def test_two_conflicting_gradients_on_paper() -> None:
    # g1 - <g1, g2> / |g2|^2 g2 with <g1, g2> = -1, |g1|^2 = 1, |g2|^2 = 4: g1 + g2 / 4 and g2 + g1; the mean
    assert_allclose(pcgrad([[1.0, -1.0], [-1.0, 4.0]], np.random.default_rng(0)), [1.0, 0.625])


def test_preference_scales_losses_and_zero_leaves_out() -> None:
    gram = np.array([[1.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 1.0]])
    assert pcgrad(gram, np.random.default_rng(0), [0.0, 0.5, 0.5])[0] == 0
    wanted = np.array([0.2, 0.3, 0.5])
    scaled = pcgrad(np.outer(wanted, wanted) * gram, np.random.default_rng(3)) * 3 * wanted
    assert_allclose(pcgrad(gram, np.random.default_rng(3), wanted), scaled, rtol=1e-12)


def test_gradients_that_vanish_get_no_weight_and_change_nothing() -> None:
    weights = pcgrad([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 4.0]], np.random.default_rng(0), [0.5, 0.0, 0.5])
    assert_allclose(weights, [1.0, 0.0, 0.625])
    assert pcgrad(np.zeros((2, 2)), np.random.default_rng(0)).tolist() == [0, 0]
    assert pcgrad([[3.0]], np.random.default_rng(0)).tolist() == [1]


def test_orders_are_the_generators() -> None:
    gram = np.array([[4.0, -1, -1, -1], [-1, 3, -1, 1], [-1, -1, 2, -1], [-1, 1, -1, 5]])
    one, same, other = (pcgrad(gram, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()


def test_what_is_no_gram_matrix_or_preference_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"gram must be \[K, K\]"):
        pcgrad(np.ones((2, 3)), np.random.default_rng(0))
    with pytest.raises(PreferenceError):
        pcgrad(np.eye(2), np.random.default_rng(0), [0.7, -0.7])


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_torchjd_gives_the_same_for_two_objectives(scale: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        jacobian = rng.standard_normal((2, 8)) * scale
        theirs = PCGrad()(torch.tensor(jacobian)).numpy()  # the sum
        ours = 2 * pcgrad(jacobian @ jacobian.T, rng) @ jacobian
        assert_allclose(ours, theirs, atol=1e-9 * scale)
