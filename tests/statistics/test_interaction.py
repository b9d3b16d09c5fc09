from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.statistics.interaction import interaction


def test_the_share_of_crossing_methods_is_known_on_paper() -> None:
    """Two methods, two kinds, two instances each; differences +2, +2 and -2, -2: kinds explain all of it."""
    found = interaction([[[1.0, -1.0], [3.0, 1.0]], [[0.0, 2.0], [-5.0, -3.0]]])
    assert found.share == pytest.approx(1.0)
    # of the 6 ways to deal four instances out to two kinds, 2 are as extreme: the true one and its mirror image
    assert found.p_value == pytest.approx(1 / 3, abs=0.02)
    assert found.least == pytest.approx(1 / 3)


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
        none.append(interaction(kinds, permutations=199, seed=draw).p_value)
        apart = [kinds[0], kinds[1], kinds[2] + [3, 0, 0, -3]]
        some.append(interaction(apart, permutations=199, seed=draw).p_value)
    assert 0.0 < np.mean(np.array(none, float) <= 0.25) < 0.45  # 15 of 60 expected, standard deviation 3.4
    assert np.mean(np.array(some, float) <= 0.05) > 0.9


def test_what_a_block_does_to_methods_is_no_difference_between_kinds() -> None:
    """Half differences 6, -4 and 4, -6: blocks are +5 and -5 on both kinds, and within a block kinds are +1 and -1."""
    kinds = [[[6.0, -6.0], [-4.0, 4.0]], [[4.0, -4.0], [-6.0, 6.0]]]
    found = interaction(kinds, [["first", "second"], ["first", "second"]])
    assert found.share == pytest.approx(1.0)
    assert found.p_value == pytest.approx(1 / 2, abs=0.02)  # of 4 labels, the true ones and their mirror image
    assert found.least == pytest.approx(1 / 2)
    assert interaction(kinds).share == pytest.approx(4 / 104)  # of squares 36 + 16 + 16 + 36, means 1 and -1


def test_blocks_need_not_stand_in_the_same_order_on_every_kind() -> None:
    kinds = [[[6.0, -6.0], [-4.0, 4.0]], [[-6.0, 6.0], [4.0, -4.0]]]
    assert interaction(kinds, [[0, 1], [1, 0]]).share == pytest.approx(1.0)


def test_within_blocks_p_values_are_uniform_without_an_interaction_and_small_with_one() -> None:
    """Five seeds of five kinds, six methods; a seed suits methods by far more than kinds do."""
    generator = np.random.default_rng(0)
    blocks, none, some, free = [list(range(5))] * 5, [], [], []
    for draw in range(60):
        suits = generator.normal(0, 1, (5, 6))
        kinds = [suits + generator.normal(0, 0.5, (5, 6)) for _ in range(5)]
        apart = [each + generator.normal(0, 0.35, 6) for each in kinds]
        none.append(interaction(kinds, blocks, 199, draw).p_value)
        some.append(interaction(apart, blocks, 199, draw).p_value)
        free.append(interaction(apart, None, 199, draw).p_value)
    assert 0.0 < np.mean(np.array(none, float) <= 0.25) < 0.45  # 15 of 60 expected, standard deviation 3.4
    assert np.mean(np.array(some, float) <= 0.05) > 0.85
    assert np.mean(np.array(free, float) <= 0.05) < 0.2  # what was lost as long as blocks were not told


def test_a_kind_that_shares_no_block_takes_no_part_and_is_named() -> None:
    generator = np.random.default_rng(1)
    first, second, text = (generator.normal(0, 1, (3, 4)) for _ in range(3))
    blocks = [[0, 1, 2], [0, 1, 2], ["text 0", "text 1", "text 2"]]
    found = interaction([first, second, text], blocks)
    assert found.left_out == (2,)
    assert found.share == pytest.approx(interaction([first, second], blocks[:2]).share)
    assert found.p_value == interaction([first, second], blocks[:2]).p_value


def test_a_seed_that_one_kind_lacks_counts_on_the_others() -> None:
    """Blocks 0 and 1 of kinds a, b, c; c lacks 1. Half differences a: 1, 1; b: -1, -1; c: 3.

    Less block means (1, 0): a 0, 1; b -2, -1; c 2, total 10. Fitted with one number a kind, a = b + 2 and c = b + 4
    explain all of it.
    """
    kinds = [[[1.0, -1.0], [1.0, -1.0]], [[-1.0, 1.0], [-1.0, 1.0]], [[3.0, -3.0]]]
    found = interaction(kinds, [[0, 1], [0, 1], [0]])
    assert found.share == pytest.approx(1.0)
    assert found.least == pytest.approx(2 / 12)  # 3! x 2! labels; a and b may change names, c stands in one block alone


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ([[[1.0, 2.0], [2.0, 1.0]]], "two kinds of task"),
        ([[[1.0], [2.0]], [[1.0], [2.0]]], "two methods"),
        ([[[1.0, 2.0]], [[2.0, 1.0]]], "one instance of each kind"),
        ([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [0.0, 1.0]]], "by the same amount"),
        ([np.zeros((0, 2)), [[1.0, 2.0], [2.0, 1.0]]], "a kind of task has no instance"),
    ],
)
def test_what_cannot_be_tested_has_a_reason(kinds: Sequence[ArrayLike], reason: str) -> None:
    found = interaction(kinds)
    assert found.p_value is None
    assert reason in found.reason


def test_kinds_that_share_no_block_cannot_be_compared() -> None:
    found = interaction([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 1.5]]], [[0, 1], [2, 3]])
    assert (found.p_value, found.left_out) == (None, (0, 1))
    assert found.reason == "no block has instances of two kinds"


def test_one_shared_seed_tells_nothing() -> None:
    found = interaction([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 1.5]]], [[0, 1], [0, 2]])
    assert found.p_value is None
    assert "nothing tells kinds from chance" in found.reason


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"one block for each instance, \[2, 1\] of them, got \[1, 1\]"):
        interaction([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 2.0]]], [[0], [0]])
    with pytest.raises(ShapeError, match="the same methods"):
        interaction([[[1.0, 2.0]], [[1.0, 2.0, 3.0]]])
    with pytest.raises(NonFiniteError, match="must be finite"):
        interaction([[[1.0, float("nan")]], [[1.0, 2.0]]])
