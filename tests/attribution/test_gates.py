from __future__ import annotations

import math

import numpy as np
import pytest

from paretune.attribution.gates import gate_use, position_bins
from paretune.core.errors import ShapeError


def test_weights_are_averaged_over_the_tokens_that_there_are() -> None:
    """Two completions of 3 tokens and 1, one block, two experts: token means by hand."""
    weights = np.full((2, 3, 1, 2), np.nan)
    weights[0, :, 0] = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    weights[1, 0, 0] = [0.5, -0.5]
    found = gate_use(weights, np.array([0, 1]))
    np.testing.assert_allclose(found.mean, [0.5, 0.25])  # (1 + .5 + 0 + .5) / 4, (0 + .5 + 1 - .5) / 4
    np.testing.assert_allclose(found.by_block, [[0.5, 0.25]])
    assert found.positions == ((1, 1), (2, 2), (3, 4))
    np.testing.assert_allclose(found.by_position, [[0.75, -0.25], [0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(found.by_prompt, [[0.5, 0.5], [0.5, -0.5]])
    np.testing.assert_allclose(found.spread, [0.0, math.sqrt(0.5)])
    assert found.entropy == pytest.approx(0.5)  # 0, 1, 0 and 1: the sign of a weight is no matter


def test_blocks_are_kept_apart() -> None:
    weights = np.zeros((1, 2, 2, 2))
    weights[:, :, 0, 0] = 1.0
    weights[:, :, 1, 1] = 0.5
    found = gate_use(weights, np.array([0]))
    np.testing.assert_allclose(found.by_block, [[1, 0], [0, 0.5]])
    assert found.entropy == 0
    assert np.isnan(found.spread).all()


def test_one_expert_or_no_weight_at_all_has_no_entropy() -> None:
    assert math.isnan(gate_use(np.ones((1, 1, 1, 1)), np.array([0])).entropy)
    assert math.isnan(gate_use(np.zeros((1, 1, 1, 2)), np.array([0])).entropy)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 17, 64])
def test_bins_hold_every_position_once(tokens: int) -> None:
    bins = position_bins(tokens)
    held = [place for low, high in bins for place in range(low, high + 1)]
    assert held == list(range(1, len(held) + 1))
    assert bins[-1][0] <= tokens <= bins[-1][1]


def test_weights_of_no_token_or_of_other_completions_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least one token, got none"):
        gate_use(np.full((1, 2, 1, 2), np.nan), np.array([0]))
    with pytest.raises(ShapeError, match=r"\[N, T, L, E\] with one prompt for each of N, got \[2, 1, 1, 2\] and \[1\]"):
        gate_use(np.ones((2, 1, 1, 2)), np.array([0]))
