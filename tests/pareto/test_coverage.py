import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.pareto.coverage import Coverage, coverage
from paretune.pareto.front import front


def test_precision_recall_and_f1_of_a_small_case():
    # Of three points of the front, two lie within .1 of (1, 0); of four reference points, one is recovered. 2/3 and
    # 1/4: F1 = 2 x 2/3 x 1/4 / (2/3 + 1/4) = 4/11
    found = coverage([[1.05, 0], [1, 0.05], [0.5, 0.5]], [[1, 0], [0, 1], [0.8, 0.2], [0.2, 0.8]], tolerance=0.1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == 0.25
    assert found.f1 == pytest.approx(4 / 11)
    assert found.tolerance == (0.1, 0.1)


def test_dominated_solutions_recover_nothing():
    assert coverage([[1, 1], [0, 0.5]], [[0, 0.5]], tolerance=0).recall == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3))
def test_coverage_agrees_with_the_definition(seed, count, objectives):
    generator = np.random.default_rng(seed)
    scores, references = generator.uniform(size=(count, objectives)), generator.uniform(size=(4, objectives))
    found, points = coverage(scores, references, 0.25), front(scores)
    hits = [[max(abs(point - reference)) <= 0.25 for reference in references] for point in points]
    assert found.precision == pytest.approx(np.mean([any(row) for row in hits]))
    assert found.recall == pytest.approx(np.mean([any(column) for column in zip(*hits)]))


def test_tolerance_reaches_its_own_length_in_each_objective_and_no_further():
    assert coverage([[0.4, 5.0]], [[0.3, 7.0]], tolerance=[0.1, 2.0]).f1 == 1.0  # .4 - .3 > .1 in the last bit
    assert coverage([[0.4, 5.0]], [[0.3, 7.0]], tolerance=[0.0999, 2.0]).f1 == 0.0
    assert coverage([[0.4, 5.0]], [[0.3, 7.0]], tolerance=[0.1, 1.999]).f1 == 0.0


def test_a_set_covers_itself_without_tolerance():
    scores = np.array([[0.1 + 0.2, 0.0], [0.0, 1.0]])
    assert coverage(scores, [[0.3, 0.0], [0.0, 1.0]], tolerance=0) == Coverage(1.0, 1.0, 1.0, (0.0, 0.0))


def test_one_objective_has_one_point():
    assert coverage([[0.2], [0.9]], [[1.0]], tolerance=0.1).f1 == 1.0


def test_an_empty_front_recovers_nothing_and_has_no_precision():
    assert coverage(np.zeros((0, 2)), [[1, 1]], tolerance=0.1) == Coverage(None, 0.0, 0.0, (0.1, 0.1))


def test_wrong_shapes_values_and_tolerances_are_refused():
    with pytest.raises(ShapeError, match="reference_set must have at least one row"):
        coverage([[1, 1]], np.zeros((0, 2)), tolerance=0.1)
    with pytest.raises(ShapeError, match=r"scores must have one column per objective \(2\), got 1"):
        coverage([[1]], [[1, 1]], tolerance=0.1)
    with pytest.raises(NonFiniteError, match="scores must be finite"):
        coverage([[1, float("nan")]], [[1, 1]], tolerance=0.1)
    for tolerance in (-0.1, float("nan"), [0.1, 0.1, 0.1], [0.1, -0.1]):
        with pytest.raises(ConfigError, match="tolerance must be one number or one per objective"):
            coverage([[1, 1]], [[1, 1]], tolerance)
