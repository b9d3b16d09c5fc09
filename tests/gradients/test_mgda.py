from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchjd.aggregation import MGDA

from conflicting_gradients import drawn, heard
from paretune.gradients.mgda import mgda, shortest_in_hull

GAP = 1e-10  # of |g_k| min |g|: doubles have 16 digits, near-cancelling gradients at norm ratios of 100 cost some


def conflicting(rng: np.random.Generator, objectives: int, spread: float) -> np.ndarray:
    """Draw gradients of different length, the last of which nearly cancels the others: late training, the hard case."""
    jacobian = rng.standard_normal((objectives, int(rng.integers(1, objectives + 4))))
    jacobian *= np.exp(spread * rng.standard_normal(objectives))[:, None]
    if objectives > 1 and rng.random() < 0.7:
        jacobian[-1] = -jacobian[:-1].sum(axis=0) * rng.uniform(0.2, 2) + 1e-3 * jacobian[-1]
    return jacobian


def shortest_by_faces(jacobian: np.ndarray) -> float:
    """Return the least squared length in the hull, by looking at every face: `|d|^2` at the stationary points."""
    best = np.inf
    for size in range(1, len(jacobian) + 1):
        for face in itertools.combinations(range(len(jacobian)), size):
            rows = jacobian[list(face)]
            system = np.block([[rows @ rows.T, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            solution = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0][:size]
            if (solution >= -1e-12).all():
                best = min(best, float(np.sum((solution @ rows) ** 2)))
    return best


@pytest.mark.parametrize("spread", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 6, 10])
def test_combined_gradient_conflicts_with_no_objective(objectives: int, spread: float) -> None:
    rng = np.random.default_rng([objectives, round(10 * spread)])
    conflicts = 0
    for _ in range(300):
        jacobian = conflicting(rng, objectives, spread)
        gram = jacobian @ jacobian.T
        conflicts += bool((gram < 0).any())
        weights = mgda(gram)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        combined, norms = weights @ jacobian, np.linalg.norm(jacobian, axis=1)
        slack = jacobian @ combined - combined @ combined  # KKT: none negative, and 0 where there is weight
        tolerance = GAP * norms * norms.min()
        assert (slack >= -tolerance).all()
        assert (np.abs(weights * slack) <= tolerance).all()
    assert conflicts > 100 or objectives == 1


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("objectives", [2, 3, 4, 6, 8])
def test_nearly_parallel_opposite_and_vanishing_gradients_of_any_scale_are_no_exception(
    objectives: int, power: int
) -> None:
    rng = np.random.default_rng([objectives, power])
    for _ in range(200):
        jacobian = drawn(rng, objectives)
        kept, norms = heard(jacobian), np.linalg.norm(jacobian, axis=1)
        weights = mgda(jacobian @ jacobian.T, power)
        rescaled = jacobian[kept] * norms[kept, None] ** -float(power)
        lengths = np.linalg.norm(rescaled, axis=1)
        assert not weights[~kept].any()
        combined = weights @ jacobian
        # nearly opposite gradients: a Gram matrix in doubles knows lengths to 1e-8 of the longest that has weight
        assert (rescaled @ combined - combined @ combined >= -1e-7 * lengths * (weights @ norms)).all()


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_no_face_of_the_hull_holds_a_shorter_vector(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(100):
        jacobian = conflicting(rng, objectives, 0.7)
        combined = mgda(jacobian @ jacobian.T) @ jacobian
        norms = np.linalg.norm(jacobian, axis=1)
        assert combined @ combined <= shortest_by_faces(jacobian) + GAP * norms.min() ** 2


@pytest.mark.parametrize(
    ("gram", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.5),
        ([[1.0, 0.0], [0.0, 3.0]], 0.75),
        ([[1.0, -0.5], [-0.5, 4.0]], 0.75),
        ([[1.0, 1.5], [1.5, 4.0]], 1.0),
        ([[4.0, 1.5], [1.5, 1.0]], 0.0),
    ],
)
def test_two_objectives_have_a_closed_form(gram: list[list[float]], expected: float) -> None:
    # |c g1 + (1 - c) g2|^2 = c^2 G11 + 2 c (1 - c) G12 + (1 - c)^2 G22; its derivative in c is zero where
    # c (G11 - 2 G12 + G22) = G22 - G12, so c = (G22 - G12) / (G11 + G22 - 2 G12), cut to [0, 1]:
    # (1 - 0) / 2 = .5; 3 / 4 = .75; 4.5 / 6 = .75; 2.5 / 2 -> 1; -.5 / 2 -> 0
    np.testing.assert_allclose(mgda(gram), [expected, 1 - expected], atol=1e-14)


def test_one_objective_has_all_the_weight() -> None:
    assert mgda([[7.0]]).tolist() == [1.0]


def test_identical_objectives_give_the_plain_gradient() -> None:
    gradient = np.array([3.0, -1.0, 2.0])
    jacobian = np.stack([gradient] * 4)
    np.testing.assert_allclose(mgda(jacobian @ jacobian.T) @ jacobian, gradient, rtol=1e-12)


def test_an_objective_given_twice_changes_no_direction() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        jacobian = conflicting(rng, 3, 0.7)
        twice = jacobian[[0, 1, 1, 2]]
        expected, got = mgda(jacobian @ jacobian.T) @ jacobian, mgda(twice @ twice.T) @ twice
        np.testing.assert_allclose(got, expected, atol=1e-7 * np.linalg.norm(jacobian))  # the root of |d|^2's accuracy


def test_objectives_in_another_order_have_their_own_weights() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        jacobian = rng.standard_normal((4, 9))  # more parameters than objectives: the weights are unique
        gram, order = jacobian @ jacobian.T, rng.permutation(4)
        np.testing.assert_allclose(mgda(gram[np.ix_(order, order)]), mgda(gram)[order], atol=1e-10)


def test_gradients_that_vanish_do_not_stop_the_others() -> None:
    jacobian = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    # of the two that are left: 4 / (1 + 4) = .8 on the first
    np.testing.assert_allclose(mgda(jacobian @ jacobian.T), [0.8, 0, 0.2, 0], atol=1e-14)
    assert mgda(np.zeros((3, 3))).tolist() == [0, 0, 0]
    assert mgda(np.diag([0.0, 1.0]), preference=[1.0, 0.0]).tolist() == [0, 0]


@pytest.mark.parametrize(("power", "expected"), [(0, [16, 1]), (1, [4, 1]), (2, [1, 1])])
def test_norms_change_how_much_long_gradients_count(power: int, expected: list[float]) -> None:
    # orthogonal gradients of norms 1 and 4, divided by norm^p: lengths 1 and 4^(1 - p). The shortest vector weighs
    # them by 1 / length^2, and the raw gradients by that over norm^p: 1 and 4^(-2 (1 - p)) 4^-p = 4^(p - 2)
    weights = mgda(np.diag([1.0, 16.0]), norm_power=power)
    np.testing.assert_allclose(weights / weights[1], np.array(expected) / expected[1])


@pytest.mark.parametrize("power", [0, 1, 2])
def test_normalised_weights_conflict_with_no_objective_either(power: int) -> None:
    rng = np.random.default_rng(power)
    for _ in range(300):
        jacobian = conflicting(rng, 4, 1.0)
        combined = mgda(jacobian @ jacobian.T, norm_power=power) @ jacobian
        norms = np.linalg.norm(jacobian, axis=1)
        shortest = combined @ combined
        rescaled = norms**-power
        gap = GAP * (norms * rescaled).min() * norms * rescaled
        assert ((jacobian @ combined) * rescaled - shortest >= -gap).all()


def test_equal_lengths_leave_the_scale_of_an_objective_without_effect() -> None:
    jacobian = np.random.default_rng(0).standard_normal((3, 8))
    larger = jacobian * np.array([1.0, 50.0, 0.1])[:, None]
    expected = mgda(jacobian @ jacobian.T, norm_power=1) @ jacobian
    np.testing.assert_allclose(mgda(larger @ larger.T, norm_power=1) @ larger, expected, rtol=1e-9)


def test_preference_divides_gains_one_way_or_the_other() -> None:
    # gradients p_k^q e_k: weights go with p_k^(-2 q), on the raw gradients with p_k^-q
    preference = np.array([0.2, 0.3, 0.5])
    inverse = mgda(np.eye(3), preference=preference)
    np.testing.assert_allclose(inverse / inverse.sum(), (1 / preference) / (1 / preference).sum())
    proportional = mgda(np.eye(3), preference=preference, preference_power=-1)
    np.testing.assert_allclose(proportional / proportional.sum(), preference)


def test_gains_are_at_least_in_proportion_to_preferences() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        jacobian, preference = conflicting(rng, 4, 0.7), rng.dirichlet(np.ones(4))
        combined = mgda(jacobian @ jacobian.T, preference=preference, preference_power=-1) @ jacobian
        norms = np.linalg.norm(jacobian, axis=1)
        gap = GAP * (norms / preference).min() * norms
        assert (jacobian @ combined - preference * (combined @ combined) >= -gap).all()


def test_a_gram_matrix_made_in_bf16_gives_common_descent() -> None:
    torch = pytest.importorskip("torch")
    rng, worst = np.random.default_rng(0), 1.0
    for _ in range(200):
        jacobian = rng.standard_normal((4, 64)) + 0.3
        rounded = torch.tensor(jacobian @ jacobian.T).to(torch.bfloat16).double().numpy()
        combined = mgda(rounded) @ jacobian
        norms = np.linalg.norm(jacobian, axis=1) * np.linalg.norm(combined)
        worst = min(worst, float((jacobian @ combined / norms).min()))
    assert worst > -0.02


def test_weights_do_not_depend_on_how_long_the_vectors_are() -> None:
    # directions at a right angle, lengths 1e-8 and 1e-11: 1e-22 / (1e-16 + 1e-22) on the first
    weights = shortest_in_hull(np.eye(2), np.array([1e-8, 1e-11]))
    np.testing.assert_allclose(weights, [1e-22 / (1e-16 + 1e-22), 1 / (1 + 1e-6)], rtol=1e-12)


def test_torchjd_finds_no_shorter_vector() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        jacobian = rng.standard_normal((3, 8))
        theirs = MGDA(epsilon=1e-6, max_iters=3000)(torch.tensor(jacobian)).numpy()
        ours = mgda(jacobian @ jacobian.T) @ jacobian
        assert ours @ ours <= theirs @ theirs * (1 + 1e-9)
        np.testing.assert_allclose(theirs, ours, atol=0.05)  # Frank-Wolfe steps end near, not at, the shortest
