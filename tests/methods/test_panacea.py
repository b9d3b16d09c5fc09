from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from paretune.core.errors import ConfigError, ShapeError
from paretune.core.task import Task
from paretune.methods.meta_policy.panacea import PanaceaSettings, shared_and_own
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.training.train import train

SMALL = {"rank": 3, "group_size": 4, "completions_per_update": 16, "learning_rate": 2e-2, "weight_decay": 0.01}


def test_the_shared_expert_counts_one_whatever_is_preferred() -> None:
    weights = np.asarray([[0.2, 0.3, 0.5], [1, 0, 0]]) @ shared_and_own(3)
    np.testing.assert_allclose(weights, [[1, 0.2, 0.3, 0.5], [1, 1, 0, 0]], rtol=1e-12)


def test_a_policy_is_the_singular_value_form_with_the_preference_among_the_values(base: BaseModel) -> None:
    """U diag(s1, s2, s w1, s w2) V^T, as written in the paper, against the bank's sum for w = (.25, .75)."""
    bank = ExpertBank(base, 3, rank=2, alpha=2.0)  # scale 1
    layer = next(iter(bank.layers.values()))
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(size, 4, generator=generator) for size in (layer.out_features, layer.in_features))
    sigma, s, w = torch.tensor([1.5, 0.5]), 0.7, torch.tensor([0.25, 0.75])
    wanted = u @ torch.diag(torch.cat([sigma, s * w])) @ v.T
    with torch.no_grad():
        layer.A[0], layer.B[0] = v[:, :2].T, u[:, :2] * sigma
        for objective in range(2):
            layer.A[1 + objective, 0], layer.B[1 + objective, :, 0] = v[:, 2 + objective], s * u[:, 2 + objective]
    g = w.numpy() @ shared_and_own(2)
    made = sum(float(g[expert]) * layer.B[expert] @ layer.A[expert] for expert in range(3))
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("preference_rank", [1, 5])
def test_experts_are_all_trained_and_keep_their_rank_in_training_and_on_disk(
    task: Task, tmp_path: Path, preference_rank: int
) -> None:
    given = {**SMALL, "preference_rank": preference_rank}
    made = train("panacea", task, 160, settings=given, output=tmp_path / "out")
    assert made.bank is not None
    assert made.bank.scales.tolist() == pytest.approx([16 / 3] * 3)  # alpha over the rank of what all share
    written = [json.loads((expert / "adapter_config.json").read_text()) for expert in made.experts]
    ranks = [3, preference_rank, preference_rank]
    assert [each["r"] for each in written] == ranks
    assert [each["lora_alpha"] / each["r"] for each in written] == pytest.approx([16 / 3] * 3)
    for layer in made.bank.layers.values():
        assert (layer.B[:, :, 0] != 0).any(dim=1).all()  # B starts at 0: each expert has learned, the shared one too
        for expert, rank in enumerate(ranks):
            assert torch.linalg.matrix_rank(layer.B[expert] @ layer.A[expert]) <= rank
    assert made.policy_for([0.25, 0.75]).expert_weights.tolist() == [[1, 0.25, 0.75]]


def test_what_is_beyond_an_experts_rank_gets_no_gradient(base: BaseModel) -> None:
    from paretune.models.mixing import Mixing

    bank = ExpertBank(base, 2, rank=3)
    bank.initialise([0, 1], [3, 1])
    with torch.no_grad():
        for layer in bank.layers.values():
            layer.B[0], layer.B[1, :, 0] = 0.1, 0.1
    with bank.using(Mixing.of_rows(torch.tensor([[1.0, 0.5]]))):
        base.model(torch.tensor([[1, 2, 3]])).logits.square().sum().backward()
    for layer in bank.layers.values():
        for factor, beyond in ((layer.A, layer.A.grad[1, 1:]), (layer.B, layer.B.grad[1, :, 1:])):
            assert not beyond.any()
            assert bool(factor.grad[1].any())
    bank.take_gradients()


def test_ranks_that_cannot_be_are_refused(base: BaseModel) -> None:
    with pytest.raises(ConfigError, match="preference_rank must be at least 1"):
        PanaceaSettings(preference_rank=0)
    bank = ExpertBank(base, 2, rank=2)
    for ranks in ([2], [2, 3], [0, 1]):
        with pytest.raises(ShapeError, match="ranks must be one per expert"):
            bank.initialise([0, 1], ranks)
