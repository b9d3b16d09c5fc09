from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from conflicting_gradients import drawn, heard
from paretune.core.errors import ConfigError, PreferenceError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.gradients.cagrad import cagrad
from paretune.gradients.mgda import mgda

FILE = Path(__file__).with_name("torchjd.json")  # written by torchjd_cases.py
GAP = 1e-4  # of the longest possible improvement: nearly opposite gradients cost ten of a double's digits, and more


def bound(jacobian: np.ndarray, middle: np.ndarray, radius: float, shares: np.ndarray) -> float:
    """Return the dual at a point of the simplex: no d within the radius improves the least improved by more."""
    mixed = shares @ jacobian
    return float(mixed @ middle + radius * np.linalg.norm(mixed))


@pytest.mark.parametrize("objectives", [2, 3, 4, 6, 8])
@pytest.mark.parametrize(("norm_power", "power"), [(0, None), (0, 1), (1, -1), (2, 1)])
def test_no_direction_within_the_radius_spares_the_least_improved_more(
    objectives: int, norm_power: int, power: int | None
) -> None:
    rng = np.random.default_rng([objectives, norm_power])
    for _ in range(150):
        jacobian, c = drawn(rng, objectives), float(rng.choice([0.1, 0.4, 0.9, 3.0]))
        kept, norms = heard(jacobian), np.linalg.norm(jacobian, axis=1)
        wanted = np.full(objectives, 1 / objectives) if power is None else rng.dirichlet(np.ones(objectives))
        given = {} if power is None else {"preference": wanted, "preference_power": power}
        weights = cagrad(jacobian @ jacobian.T, c, norm_power, **given)
        wanted, factors = wanted[kept], wanted[kept] ** (power or 0) * norms[kept] ** -float(norm_power)
        rescaled, middle, combined = (
            jacobian[kept] * factors[:, None],
            wanted @ jacobian[kept],
            weights @ jacobian * (1 + c),
        )
        radius, added = c * np.linalg.norm(middle), (weights[kept] * (1 + c) - wanted) / factors
        assert (weights >= 0).all()
        assert not weights[~kept].any()
        assert np.linalg.norm(combined - middle) <= radius * (1 + GAP)
        # a point of the simplex proves that it is the best: that of the weights, or of a hull that holds 0
        proofs = [mgda(rescaled @ rescaled.T), added.clip(0) / max(added.clip(0).sum(), 1e-300)]
        least = min(bound(rescaled, middle, radius, proof) for proof in proofs)
        longest = np.linalg.norm(rescaled, axis=1).max() * np.linalg.norm(middle) * (1 + c)
        assert (rescaled @ combined).min() >= least - GAP * longest


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_dual_on_a_grid_bounds_it_from_above_and_comes_near(objectives: int) -> None:
    rng, grid = np.random.default_rng(objectives), das_dennis(objectives, {2: 2000, 3: 150}[objectives])
    for _ in range(30):
        jacobian, c = rng.standard_normal((objectives, 6)), rng.uniform(0.1, 0.9)
        middle = jacobian.mean(axis=0)
        radius = c * np.linalg.norm(middle)
        mixed = grid @ jacobian
        least = (mixed @ middle + radius * np.linalg.norm(mixed, axis=1)).min()
        got = (1 + c) * (jacobian @ (cagrad(jacobian @ jacobian.T, c) @ jacobian)).min()
        assert got <= least + 1e-9
        assert got >= least - {2: 1e-4, 3: 0.02}[objectives]  # the grid's own width


def solved(jacobian: np.ndarray, c: float) -> float:
    """Return the largest least improvement within the radius, by a general solver in d and that improvement."""
    middle = jacobian.mean(axis=0)
    radius = c * np.linalg.norm(middle)
    found = minimize(
        lambda x: -x[-1], np.append(middle, (jacobian @ middle).min()), method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda x: jacobian @ x[:-1] - x[-1]},
            {"type": "ineq", "fun": lambda x: radius**2 - ((x[:-1] - middle) ** 2).sum()},
        ],
        options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    return float(found.x[-1])


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_a_general_solver_finds_no_better_direction(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(20):
        jacobian = rng.standard_normal((objectives, 6))
        got = 1.5 * (jacobian @ (cagrad(jacobian @ jacobian.T, 0.5) @ jacobian)).min()
        assert got == pytest.approx(solved(jacobian, 0.5), abs=1e-6)


def test_two_orthogonal_gradients_on_paper() -> None:
    # e1 and e2, g0 = (.5, .5), |g0| = sqrt(.5): the least of d1, d2 rises most along (1, 1): d = (1 + c) g0, over 1 + c
    assert_allclose(cagrad(np.eye(2), 0.5), [0.5, 0.5], rtol=1e-9)
    # 2 e1 and e2, g0 = (1, .5), c |g0| = .5: <h, d> = 2 d1 and d2. e = (0, .5) makes d2 = 1 the least still: all of it
    c = 0.5 / np.sqrt(1.25)
    assert_allclose(cagrad(np.diag([4.0, 1.0]), c), np.array([0.5, 1.0]) / (1 + c), rtol=1e-9)


def test_without_radius_it_is_the_preference_and_with_a_large_one_mgda() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        jacobian, wanted = rng.standard_normal((3, 8)), rng.dirichlet(np.ones(3))
        gram = jacobian @ jacobian.T
        assert_allclose(cagrad(gram, 0.0, preference=wanted), wanted)
        far, shortest = cagrad(gram, 1e5) @ jacobian, mgda(gram) @ jacobian
        cosine = far @ shortest / np.linalg.norm(far) / np.linalg.norm(shortest)
        assert cosine == pytest.approx(1, abs=1e-6)


def test_training_still_ends_where_the_preference_ends() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        jacobian, wanted = drawn(rng, 4), rng.dirichlet(np.ones(4))
        middle = (wanted * heard(jacobian)) @ jacobian
        combined = cagrad(jacobian @ jacobian.T, 0.4, 1, wanted, -1) @ jacobian
        assert middle @ combined >= (0.6 / 1.4 - GAP) * (middle @ middle)


def test_objectives_in_another_order_have_their_own_weights_and_scale_has_no_effect() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        jacobian, wanted = rng.standard_normal((4, 9)), rng.dirichlet(np.ones(4))
        gram, order = jacobian @ jacobian.T, rng.permutation(4)
        expected = cagrad(gram, 0.4, 0, wanted)
        assert_allclose(cagrad(gram[np.ix_(order, order)], 0.4, 0, wanted[order]), expected[order], atol=1e-8)
        assert_allclose(cagrad(1e-12 * gram, 0.4, 0, wanted), expected, atol=1e-8)


def test_identical_and_opposite_gradients_leave_weights_within_bounds() -> None:
    gradient = np.array([3.0, -1.0, 2.0])
    same = np.stack([gradient] * 3)
    assert_allclose(cagrad(same @ same.T, 0.4) @ same, gradient, rtol=1e-9)
    # g and -2 g: the mean is -g / 2, and the best within .4 of it still helps the second: -.3 g
    opposite = np.stack([gradient, -2 * gradient])
    weights = cagrad(opposite @ opposite.T, 0.4)
    assert_allclose(weights @ opposite, -0.3 / 1.4 * gradient, rtol=1e-4)
    assert weights.sum() < 2


def test_gradients_that_vanish_or_do_not_count_get_no_weight_and_hold_nobody_up() -> None:
    weights = cagrad(np.diag([1.0, 0.0, 1.0]), 0.5, preference=[0.5, 0.0, 0.5])
    assert_allclose(weights, [0.5, 0.0, 0.5], rtol=1e-9)
    assert cagrad(np.diag([1.0, 0.0]), 0.4).tolist()[1] == 0
    assert cagrad(np.zeros((2, 2)), 0.4).tolist() == [0, 0]
    assert cagrad([[4.0]], 0.4).tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("c", [-0.1, float("nan"), float("inf")])
def test_a_radius_out_of_range_is_refused(c: float) -> None:
    with pytest.raises(ConfigError, match="c must be at least 0 and finite, got"):
        cagrad(np.eye(2), c)


def test_what_is_no_gram_matrix_or_preference_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"gram must be \[K, K\]"):
        cagrad(np.ones((2, 3)), 0.4)
    with pytest.raises(PreferenceError):
        cagrad(np.eye(2), 0.4, preference=[0.7, -0.7])


def test_torchjd_gives_about_the_same() -> None:
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    for case in kept["cases"]:
        jacobian = np.asarray(case["jacobian"])
        ours = (1 + kept["c"]) * cagrad(jacobian @ jacobian.T, kept["c"]) @ jacobian  # theirs adds to |g_w|
        assert_allclose(ours, case["cagrad"], atol=0.02)
