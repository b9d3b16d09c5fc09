from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.models.mixing import Mixing


def test_the_three_layouts_write_out_their_weights() -> None:
    rows = torch.tensor([[0.2, 0.8], [1.5, -0.5]])
    assert Mixing.of_rows(rows).dense().equal(rows)
    assert Mixing.population(2, 2).dense().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert Mixing.population(3, 1, members=(2, 0)).dense().tolist() == [[0, 0, 1], [1, 0, 0]]
    assert Mixing.reference(4).is_reference


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


class AnyGate:
    """A gate of two experts and three objectives; here it only has to be carried along."""

    experts, objectives, blocks = 2, 3, 2

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        raise NotImplementedError


class AnyRowGate:
    experts, objectives = 2, 3

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        raise NotImplementedError


def test_a_gated_mixing_takes_everything_of_its_rows_along() -> None:
    prior, preferences, scale, gate = torch.rand(4, 2), torch.rand(4, 3), torch.rand(4), AnyGate()
    mixing = Mixing.gated(prior, gate, preferences, scale)
    assert mixing.keep(torch.tensor([False, True, False, True])).tolist() == [1, 3]
    index = torch.tensor([3, 0, 0])
    some = mixing.rows(index)
    assert (some.batch, some.gate) == (3, gate)
    for mine, whole in ((some.expert_weights, prior), (some.preferences, preferences), (some.scale, scale)):
        assert mine is not None
        assert mine.equal(whole[index])
    assert mixing.dense().equal(prior * scale[:, None])  # what tokens before the gate use
    assert Mixing.gated(prior, gate, preferences).rows(index).scale is None


def test_rows_of_a_gate_share_what_is_before_it_and_nothing_more() -> None:
    prior = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 1.0], [0.2, 0.8]])
    preferences = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    scale = torch.tensor([1.0, 1.0, 1.0, 0.5, 1.0])
    mixing = Mixing.gated(prior, AnyGate(), preferences, scale)
    one, again, preferring, scaled, other = mixing.group_keys(gated=False)
    assert one == again == preferring == scaled != other  # 1.0 of half the scale is 0.5
    keys = mixing.group_keys()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_rows_share_nothing_that_is_gated_where_their_gates_are_shown_other_states() -> None:
    prior, preferences = torch.full((3, 2), 0.5), torch.full((3, 3), 1 / 3)
    shown = torch.tensor([1.0, 2.0, 1.0])[:, None, None].expand(3, AnyGate.blocks, 4)
    mixing = Mixing.gated(prior, AnyGate(), preferences, shown=shown)
    one, other, again = mixing.group_keys()
    assert one == again != other
    assert len(set(mixing.group_keys(gated=False))) == 1
    waiting = Mixing.by_prompt(prior, AnyRowGate(), preferences, shown[:, 0])  # its gate weighs all tokens
    for gated in (True, False):
        one, other, again = waiting.group_keys(gated=gated)
        assert one == again != other


def test_states_shown_to_a_gate_are_of_all_its_blocks_and_finite() -> None:
    prior, preferences, blocks = torch.rand(4, 2), torch.rand(4, 3), AnyGate.blocks
    broken = torch.zeros(4, blocks, 5)
    broken[1, 0, 2] = torch.nan
    for shown in (torch.rand(3, blocks, 5), torch.rand(4, blocks - 1, 5), torch.rand(4, blocks), broken):
        with pytest.raises(ShapeError, match=rf"shown must be finite and \[4, {blocks}, H\], one row for each"):
            Mixing.gated(prior, AnyGate(), preferences, shown=shown)


def test_a_gated_mixing_whose_parts_disagree_is_refused() -> None:
    prior, preferences = torch.rand(4, 2), torch.rand(4, 3)
    with pytest.raises(ShapeError, match="one column for each of the gate's 2 experts, got 3"):
        Mixing.gated(torch.rand(4, 3), AnyGate(), preferences)
    for broken in (torch.rand(4, 2), torch.rand(3, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(ShapeError, match=r"preferences must be finite and \[4, 3\], one row for each"):
            Mixing.gated(prior, AnyGate(), broken)
    for scale in (torch.rand(3), torch.rand(4, 1), torch.full((4,), torch.inf)):
        with pytest.raises(
            ShapeError, match=r"scale must be finite, one per row \(4\), or one per row and expert, got"
        ):
            Mixing.gated(prior, AnyGate(), preferences, scale)


def test_weights_that_are_no_matrix_or_not_finite_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"must be \[B, E\], got shape \[3\]"):
        Mixing.of_rows(torch.ones(3))
    with pytest.raises(ShapeError, match="must be finite, got NaN or infinity"):
        Mixing.of_rows(torch.tensor([[0.5, torch.nan]]))


@pytest.mark.parametrize("members", [(0, 3), (-1,), (1, 1)])
def test_members_that_the_bank_does_not_have_or_has_once_are_refused(members: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"members must be different experts in 0\.\.2, got"):
        Mixing.population(3, 2, members)
