from __future__ import annotations

import pytest
import torch

from paretune.core.errors import ShapeError
from paretune.models.low_rank import nearest_factors
from paretune.models.ties import merge_signs, trim_threshold

HALF = torch.tensor([0.5, 0.5])


def test_the_largest_entries_of_all_layers_together_are_kept() -> None:
    layers = [torch.tensor([[1.0, -5.0]]), torch.tensor([[3.0], [-2.0]])]
    assert trim_threshold(layers, 0.5) == 3.0  # two of four: -5 and 3
    assert trim_threshold(layers, 1.0) == 1.0
    assert trim_threshold(layers, 0.01) == 5.0  # at least one


def test_signs_are_elected_by_weight_and_only_what_agrees_is_averaged() -> None:
    deltas = torch.tensor([[[4.0, 4.0, 4.0, 0.5]], [[2.0, -2.0, -6.0, 0.5]]])
    none, two = torch.zeros(2), torch.tensor([1.0, 1.0])
    # agree: (4 + 2) / 2; 4 outweighs -2: 4 alone; -6 outweighs 4: -6 alone
    assert merge_signs(deltas, HALF, none).tolist() == [[3.0, 4.0, -6.0, 0.5]]
    # by .9 and .1: (3.6 + .2) / 1; 3.6 - .2 > 0: 4; 3.6 - .6 > 0: 4; what both trim is 0
    torch.testing.assert_close(merge_signs(deltas, torch.tensor([0.9, 0.1]), two), torch.tensor([[3.8, 4.0, 4.0, 0.0]]))
    assert merge_signs(deltas, torch.tensor([0.0, 1.0]), none).tolist() == deltas[1].tolist()  # a corner is its expert
    assert merge_signs(torch.tensor([[[2.0]], [[-2.0]]]), HALF, none).tolist() == [[2.0]]  # a tie is positive


def test_with_equal_weights_it_is_what_peft_merges() -> None:
    from peft.utils.merge_utils import ties

    deltas = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    thresholds = torch.tensor([trim_threshold([delta], 0.4) for delta in deltas])
    expected = ties(list(deltas), torch.ones(3), 0.4)
    torch.testing.assert_close(merge_signs(deltas, torch.full((3,), 1 / 3), thresholds), expected)


def test_weights_that_are_negative_or_too_few_are_refused() -> None:
    with pytest.raises(ShapeError, match="weights must be non-negative, one with a threshold for each of 2 deltas"):
        merge_signs(torch.zeros(2, 1, 1), torch.tensor([1.5, -0.5]), torch.zeros(2))
    with pytest.raises(ShapeError, match="weights must be non-negative, one with a threshold for each of 2 deltas"):
        merge_signs(torch.zeros(2, 1, 1), torch.ones(1), torch.zeros(2))


def test_factors_are_exact_where_the_rank_is_there_and_else_lose_the_least_singular_values() -> None:
    delta = torch.diag(torch.tensor([3.0, 2.0, 1.0]))[:, :2] + 0.0  # [3, 2], singular values 3 and 2
    down, up, energy, lost = nearest_factors(delta, 4)
    assert (down.shape, up.shape, energy, lost) == ((4, 2), (3, 4), 13.0, 0.0)
    torch.testing.assert_close(up @ down, delta)
    down, up, energy, lost = nearest_factors(delta, 1)
    assert lost == pytest.approx(4.0)
    torch.testing.assert_close(up @ down, torch.diag(torch.tensor([3.0, 0.0, 0.0]))[:, :2])
