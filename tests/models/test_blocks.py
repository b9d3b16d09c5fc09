from __future__ import annotations

import pytest
from torch import nn

from paretune.core.errors import ModelError
from paretune.models.blocks import find_blocks


def model_with_experts() -> nn.Module:
    """Two blocks, the second of which holds a list of its own, and a layer beside them."""
    model = nn.Module()
    model.body = nn.Module()
    first, second = nn.Module(), nn.Module()
    first.up = nn.Linear(2, 2)
    second.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.body.layers = nn.ModuleList([first, second])
    model.bridge = nn.Linear(2, 2)
    model.towers = nn.ModuleList([nn.Linear(2, 2)])
    return model


def test_the_blocks_are_the_outermost_list_around_the_layers() -> None:
    model = model_with_experts()
    layers = ["body.layers.0.up", "body.layers.1.experts.0", "body.layers.1.experts.1"]
    assert find_blocks(model, layers, "mine") == list(model.body.layers)
    assert find_blocks(model, layers[1:], "mine") == list(model.body.layers)  # a block without a layer counts as one


@pytest.mark.parametrize("outside", ["bridge", "towers.0"])
@pytest.mark.parametrize("first", [True, False])
def test_layers_outside_one_list_are_refused(outside: str, first: bool) -> None:
    layers = [outside, "body.layers.0.up"] if first else ["body.layers.0.up", outside]
    with pytest.raises(ModelError, match=r"one list of transformer blocks to be gated, got '.*' outside it in 'mine'"):
        find_blocks(model_with_experts(), layers, "mine")
