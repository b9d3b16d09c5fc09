from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paretune.models.merged_linear import merged_linear

SHAPE = {"x": (2, 5, 4), "down": (2, 4, 2), "up": (2, 2, 3)}  # two experts, five rows, from four numbers to three


def _parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rows, first factors and second factors, which learn, and a frozen weight `[out, in]`, in fp64."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in (*SHAPE.values(), (3, 4))]
    x, down, up = (each.requires_grad_() for each in drawn[:3])
    return x, down, up, drawn[3]


@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_the_sum_of_two_products(with_bias: bool) -> None:
    x, down, up, weight = _parts()
    bias = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) if with_bias else None
    merged = (weight.mT + down @ up).mT.detach()
    expected = torch.nn.functional.linear(x, weight, bias) + x @ down @ up
    made = merged_linear(x, merged, bias, down, up, None, 0)
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)  # fp64: about 1e-16 a sum of four
    outer = torch.arange(30, dtype=torch.float64).view(2, 5, 3).sin()
    found = torch.autograd.grad(made, (x, down, up), outer)
    for own, wanted in zip(found, torch.autograd.grad(expected, (x, down, up), outer), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)


def test_rows_that_do_not_learn_get_no_gradient() -> None:
    x, down, up, weight = _parts()
    merged = (weight.mT + down @ up).mT.detach()
    merged_linear(x.detach(), merged, None, down, up, None, 0).sum().backward()
    assert x.grad is None
    assert down.grad is not None
    assert up.grad is not None
