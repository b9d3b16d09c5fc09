from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from conflicting_gradients import drawn, heard
from paretune.core.errors import PreferenceError, ShapeError
from paretune.gradients.upgrad import upgrad

FILE = Path(__file__).with_name("torchjd.json")  # written by torchjd_cases.py
ROOT = 1e-7  # a Gram matrix in doubles knows lengths to 1e-8 of what is added up


@pytest.mark.parametrize("objectives", [2, 3, 4, 6, 8])
def test_no_objective_gets_worse_whatever_the_gradients(objectives: int) -> None:
    rng, conflicts = np.random.default_rng(objectives), 0
    for _ in range(600):
        jacobian, wanted = drawn(rng, objectives), rng.dirichlet(np.ones(objectives))
        gram, norms = jacobian @ jacobian.T, np.linalg.norm(jacobian, axis=1)
        conflicts += bool((gram < 0).any())
        weights = upgrad(gram, wanted)
        combined, kept, added = weights @ jacobian, heard(jacobian), weights @ norms
        assert (weights >= 0).all()
        assert not weights[~kept].any()
        assert ((jacobian @ combined)[kept] >= -ROOT * norms[kept] * added).all()
        assert np.linalg.norm(combined) <= wanted @ norms + ROOT * added
    assert conflicts > 200


def projected(jacobian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return the nearest direction that turns against no row, by a general solver."""
    found = minimize(
        lambda d: ((d - gradient) ** 2).sum(), gradient, jac=lambda d: 2 * (d - gradient), method="SLSQP",
        constraints={"type": "ineq", "fun": lambda d: jacobian @ d, "jac": lambda d: jacobian},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return np.asarray(found.x)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_each_gradient_is_projected_on_the_cone_as_a_general_solver_does(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(25):
        jacobian, wanted = rng.standard_normal((objectives, 4)), rng.dirichlet(np.ones(objectives))
        projections = [projected(jacobian, own) for own in jacobian]
        assert_allclose(upgrad(jacobian @ jacobian.T, wanted) @ jacobian, wanted @ np.stack(projections), atol=1e-6)


@pytest.mark.parametrize("objectives", [2, 3])
def test_no_weights_of_a_grid_bring_a_gradient_nearer_to_the_cone(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 3, 61)] * objectives), axis=-1).reshape(-1, objectives)
    for _ in range(20):
        jacobian = rng.standard_normal((objectives, 5))
        gram, corner = jacobian @ jacobian.T, np.eye(objectives)[0]
        weights = upgrad(gram, (corner + 1e-9) / (corner + 1e-9).sum())  # of the first gradient, with all in the cone
        inside = grid[(grid @ gram >= 0).all(axis=1)]
        distances = np.einsum("nk,kl,nl->n", inside - corner, gram, inside - corner)
        assert (weights - corner) @ gram @ (weights - corner) <= distances.min(initial=np.inf) + 1e-6


def test_what_does_not_conflict_keeps_the_preference() -> None:
    gram = [[1.0, 0.2, 0.0], [0.2, 4.0, 0.1], [0.0, 0.1, 9.0]]
    assert_allclose(upgrad(gram, [0.2, 0.3, 0.5]), [0.2, 0.3, 0.5], rtol=1e-14)
    assert_allclose(upgrad(gram), [1 / 3] * 3, rtol=1e-14)
    assert upgrad([[3.0]]).tolist() == [1]


def test_two_conflicting_gradients_on_paper() -> None:
    # the nearest point to g1 with <g2, d> >= 0 is g1 - <g1, g2> / |g2|^2 g2: g1 + g2 / 4, and g2 + g1; the mean
    assert_allclose(upgrad([[1.0, -1.0], [-1.0, 4.0]]), [1.0, 0.625])


def test_objectives_in_another_order_have_their_own_weights_and_scale_is_theirs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        jacobian, wanted = rng.standard_normal((4, 9)), rng.dirichlet(np.ones(4))
        gram, order = jacobian @ jacobian.T, rng.permutation(4)
        expected = upgrad(gram, wanted)
        assert_allclose(upgrad(gram[np.ix_(order, order)], wanted[order]), expected[order], atol=1e-10)
        assert_allclose(upgrad(1e-10 * gram, wanted), expected, rtol=1e-9)
        scaled = 4 * wanted * upgrad(np.outer(wanted, wanted) * gram)  # losses times preferences are the same
        assert_allclose(scaled, expected, atol=1e-10)


def test_opposite_gradients_give_no_step_and_identical_ones_the_plain_gradient() -> None:
    gradient = np.array([3.0, -1.0, 2.0])
    opposite = np.stack([gradient, -2 * gradient])
    assert_allclose(upgrad(opposite @ opposite.T) @ opposite, 0, atol=1e-14)
    same = np.stack([gradient] * 4)
    assert_allclose(upgrad(same @ same.T) @ same, gradient, rtol=1e-12)


def test_gradients_that_vanish_or_do_not_count_get_no_weight_and_hold_nobody_up() -> None:
    weights = upgrad([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 4.0]], [0.5, 0.0, 0.5])
    assert_allclose(weights, [1.0, 0.0, 0.625])
    assert upgrad(np.zeros((2, 2))).tolist() == [0, 0]
    assert_allclose(upgrad([[1.0, -1.0], [-1.0, 4.0]], [1.0, 0.0]), [1, 0])


def test_what_is_no_gram_matrix_or_preference_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"gram must be \[K, K\]"):
        upgrad(np.ones((2, 3)))
    with pytest.raises(PreferenceError):
        upgrad(np.eye(2), [0.7, -0.7])


def test_torchjd_gives_about_the_same() -> None:
    for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]:
        jacobian, wanted = np.asarray(case["jacobian"]), np.asarray(case["preference"])
        ours = upgrad(jacobian @ jacobian.T, wanted) @ jacobian
        assert_allclose(ours, case["upgrad"], atol=0.01)  # theirs is regularised
