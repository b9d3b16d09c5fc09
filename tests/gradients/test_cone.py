from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from conflicting_gradients import drawn, heard
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.gradients.cone import cone
from paretune.gradients.upgrad import upgrad

ROOT = 1e-7  # a Gram matrix in doubles knows lengths to 1e-8 of what is added up


@pytest.mark.parametrize("objectives", [2, 3, 4, 6])
@pytest.mark.parametrize("eps", [0.0, 0.2, 0.5])
def test_no_other_objective_is_harmed_by_more_than_is_allowed(objectives: int, eps: float) -> None:
    rng, bound = np.random.default_rng(objectives), 0
    for _ in range(200):
        jacobian = drawn(rng, objectives)
        own, norms, kept = int(rng.integers(objectives)), np.linalg.norm(jacobian, axis=1), heard(jacobian)
        weights = cone(jacobian @ jacobian.T, own, eps)
        if not kept[own]:
            assert not weights[own] or norms[own] > 0  # at the edge of what is masked
            continue
        combined, added = weights @ jacobian, weights @ norms
        assert (weights >= 0).all()
        assert weights[own] == 1
        allowed = -eps * norms[own] * norms
        assert ((jacobian @ combined)[kept] >= (allowed - ROOT * norms * added)[kept]).all()
        assert combined @ jacobian[own] >= combined @ combined - ROOT * added**2  # it is improved
        assert np.linalg.norm(combined) <= norms[own] + ROOT * added
        bound += bool(np.delete(weights, own).any())
    assert bound > 40


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_it_is_the_nearest_such_direction_as_a_general_solver_finds_it(objectives: int, eps: float) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(15):
        jacobian = rng.standard_normal((objectives, 4))
        norms = np.linalg.norm(jacobian, axis=1)
        harm = eps * norms[0] * norms[1:]
        found = minimize(
            lambda d, own: ((d - own) ** 2).sum(), jacobian[0], (jacobian[0],), jac=lambda d, own: 2 * (d - own),
            method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
            constraints={
                "type": "ineq", "fun": lambda d, rows, harm: rows @ d + harm, "jac": lambda d, rows, harm: rows,
                "args": (jacobian[1:], harm),
            },
        )  # fmt: skip
        assert_allclose(cone(jacobian @ jacobian.T, 0, eps) @ jacobian, found.x, atol=1e-6)


def test_two_conflicting_gradients_on_paper() -> None:
    # d = g1 + s g2 with <d, g2> = -1 + 4 s >= -eps |g1| |g2| = -2 eps: s = (1 - 2 eps) / 4, until eps is their cosine
    gram = [[1.0, -1.0], [-1.0, 4.0]]
    assert_allclose(cone(gram, 0), [1, 0.25])
    assert_allclose(cone(gram, 0, 0.2), [1, 0.15])
    assert cone(gram, 0, 0.5).tolist() == [1, 0]
    assert_allclose(cone(gram, 1), [1, 1])  # <g2 + s g1, g1> = -1 + s: more than 1 where the other one is short
    assert_allclose(cone([[100.0, -1.0], [-1.0, 0.04]], 0), [1, 25])


def test_opposite_gradients_leave_no_step_or_what_is_allowed() -> None:
    gradient = np.array([3.0, -1.0, 2.0])
    opposite = np.stack([gradient, -2 * gradient])
    gram = opposite @ opposite.T  # singular
    assert_allclose(cone(gram, 0) @ opposite, 0, atol=1e-12)
    # <d, u2> >= -eps |g1| with d = (1 - t) g1: a share eps of the gradient is left
    assert_allclose(cone(gram, 0, 0.2) @ opposite, 0.2 * gradient, rtol=1e-12)


def test_all_harm_allowed_is_the_gradient_itself_and_so_is_what_conflicts_with_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        jacobian = drawn(rng, 4, spread=0.0)
        for eps in (1.0, math.inf):
            assert cone(jacobian @ jacobian.T, 0, eps).tolist() == [1, 0, 0, 0]
    assert cone([[1.0, 0.2], [0.2, 4.0]], 1).tolist() == [0, 1]
    assert cone([[3.0]], 0).tolist() == [1]


def test_without_allowance_it_is_the_projection_whose_mean_upgrad_takes() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        jacobian, wanted = rng.standard_normal((3, 5)), rng.dirichlet(np.ones(3))
        gram = jacobian @ jacobian.T
        mean = sum(weight * cone(gram, own) for own, weight in enumerate(wanted))
        assert_allclose(mean @ jacobian, upgrad(gram, wanted) @ jacobian, atol=1e-7)


def test_gradients_that_vanish_hold_nobody_up_and_have_no_direction() -> None:
    gram = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 4.0]]
    assert_allclose(cone(gram, 0), [1, 0, 0.25])
    assert_allclose(cone(gram, 2), [1, 0, 1])
    assert cone(gram, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("gram", "objective", "eps", "error", "message"),
    [
        (np.ones((2, 3)), 0, 0.0, ShapeError, r"gram must be \[K, K\]"),
        (np.eye(2), 2, 0.0, ShapeError, "objective must be one of those of the gram matrix, 0 to 1, got 2"),
        (np.eye(2), -1, 0.0, ShapeError, "objective must be one of those"),
        (np.eye(2), 0, -0.1, ConfigError, "eps must be at least 0, got -0.1"),
        (np.eye(2), 0, math.nan, ConfigError, "eps must be at least 0, got nan"),
        (np.full((2, 2), np.nan), 0, 0.0, NonFiniteError, "gram must be finite"),
    ],
)
def test_what_cannot_be_projected_is_refused(
    gram: np.ndarray, objective: int, eps: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cone(gram, objective, eps)
