from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.interaction import interaction


def test_the_share_of_crossing_methods_is_known_on_paper() -> None:
    """Two methods, two kinds, two instances each; differences +2, +2 and -2, -2: kinds explain all of it."""
    found = interaction([[[1.0, -1.0], [3.0, 1.0]], [[0.0, 2.0], [-5.0, -3.0]]])
    assert found.share == pytest.approx(1.0)
    # of the 6 ways to deal four instances out to two kinds, 2 are as extreme: the true one and its mirror image
    assert found.p_value == pytest.approx(1 / 3, abs=0.02)


def test_a_half_explained_variance_is_half() -> None:
    """Half differences within instances of kinds: 2, 0 and 0, -2; mean 0, kinds' means 1 and -1: 4 of 8."""
    found = interaction([[[2.0, -2.0], [0.0, 0.0]], [[0.0, 0.0], [-2.0, 2.0]]])
    assert found.share == pytest.approx(0.5)


def test_hard_instances_do_not_count() -> None:
    kinds = [np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.5]]), np.array([[1.0, 2.5, 3.0], [0.0, 1.0, 2.0]])]
    shifted = [kinds[0] + [[100.0], [-7.0]], kinds[1]]
    assert interaction(shifted).share == pytest.approx(interaction(kinds).share)
    assert interaction(shifted).p_value == pytest.approx(interaction(kinds).p_value)


def test_without_an_interaction_p_values_are_uniform_and_with_one_they_are_small() -> None:
    generator = np.random.default_rng(0)
    none, some = [], []
    for draw in range(60):
        kinds = [generator.normal([0, 1, 2, 3], 1, (5, 4)) for _ in range(3)]
        none.append(interaction(kinds, 199, draw).p_value)
        some.append(interaction([kinds[0], kinds[1], kinds[2] + [3, 0, 0, -3]], 199, draw).p_value)
    assert 0.0 < np.mean(np.array(none, float) <= 0.25) < 0.45  # 15 of 60 expected, standard deviation 3.4
    assert np.mean(np.array(some, float) <= 0.05) > 0.9


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ([[[1.0, 2.0], [2.0, 1.0]]], "two kinds of task"),
        ([[[1.0], [2.0]], [[1.0], [2.0]]], "two methods"),
        ([[[1.0, 2.0]], [[2.0, 1.0]]], "one instance of each kind"),
        ([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [0.0, 1.0]]], "by the same amount"),
    ],
)
def test_what_cannot_be_tested_has_a_reason(kinds: list[list[list[float]]], reason: str) -> None:
    found = interaction(kinds)
    assert found.p_value is None
    assert reason in found.reason


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="the same methods"):
        interaction([[[1.0, 2.0]], [[1.0, 2.0, 3.0]]])
    with pytest.raises(NonFiniteError, match="must be finite"):
        interaction([[[1.0, float("nan")]], [[1.0, 2.0]]])
