from __future__ import annotations

import pytest
import torch

from paretune.core.errors import MixingError, ShapeError
from paretune.models.mixing import Mixing


def test_the_three_layouts_write_out_their_weights() -> None:
    rows = torch.tensor([[0.2, 0.8], [1.5, -0.5]])
    assert Mixing.of_rows(rows).dense().equal(rows)
    assert Mixing.population(2, 2).dense().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert Mixing.population(3, 1, members=(2, 0)).dense().tolist() == [[0, 0, 1], [1, 0, 0]]
    assert Mixing.reference(4).is_reference


def test_a_block_is_given_the_weights_of_its_rows() -> None:
    mixing = Mixing.population(2, 1)
    assert mixing.at(0, torch.zeros(2, 5, 4)).tolist() == [[1, 0], [0, 1]]
    assert mixing.at(0, torch.zeros(2, 5, 4, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(MixingError, match="the 2 rows of its mixing, got 3"):
        mixing.at(0, torch.zeros(3, 5, 4))


def test_rows_may_be_dropped_repeated_and_reordered_in_every_layout() -> None:
    index = torch.tensor([3, 0, 0])
    for mixing in (Mixing.of_rows(torch.rand(4, 3)), Mixing.population(2, 2), Mixing.population(3, 2, (2, 0))):
        assert mixing.rows(index).dense().equal(mixing.dense()[index])
    assert Mixing.reference(4).rows(index).batch == 3


def test_a_population_stays_one_only_when_every_member_keeps_as_many_rows_in_order() -> None:
    mixing = Mixing.population(3, 4, (2, 0))
    assert mixing.rows(torch.tensor([1, 3, 4, 7])).rows_each == 2
    for broken in ([4, 7, 1, 3], [1, 4], [0, 1, 2, 4]):
        assert mixing.rows(torch.tensor(broken)).is_population == (broken == [1, 4])


def test_rows_to_keep_hold_all_that_are_alive_and_preserve_the_layout() -> None:
    alive = torch.tensor([0, 1, 0, 1, 0, 0, 0, 1], dtype=torch.bool)
    assert Mixing.of_rows(torch.rand(8, 2)).keep(alive).tolist() == [1, 3, 7]
    assert Mixing.reference(8).keep(alive).tolist() == [1, 3, 7]
    kept = Mixing.population(2, 4).keep(alive)  # the second member has one alive and keeps one that has finished
    assert kept.tolist() == [1, 3, 4, 7]
    assert Mixing.population(2, 4).rows(kept).is_population


def test_rows_of_equal_weights_have_equal_keys() -> None:
    one, two, three = Mixing.of_rows(torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.4999]])).group_keys()
    assert one == two != three
    assert Mixing.population(2, 2).group_keys() == [b"0", b"0", b"1", b"1"]
    assert Mixing.reference(2).group_keys() == [b"", b""]


def test_weights_that_are_no_matrix_or_not_finite_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"must be \[B, E\], got shape \[3\]"):
        Mixing.of_rows(torch.ones(3))
    with pytest.raises(ShapeError, match="must be finite, got NaN or infinity"):
        Mixing.of_rows(torch.tensor([[0.5, torch.nan]]))


@pytest.mark.parametrize("members", [(0, 3), (-1,), (1, 1)])
def test_members_that_the_bank_does_not_have_or_has_once_are_refused(members: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"members must be different experts in 0\.\.2, got"):
        Mixing.population(3, 2, members)
