from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.low_rank import average_deltas, average_experts


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_experts_that_share_a_are_averaged_exactly_and_keep_it() -> None:
    down, ups = drawn(1, 2, 5).expand(2, -1, -1), drawn(2, 4, 2, seed=1)
    new_down, new_up, energy, lost = average_deltas(down, ups)
    assert new_down.equal(down[0])
    torch.testing.assert_close(new_up, ups.mean(dim=0))
    assert lost == 0.0
    assert energy == pytest.approx(float((new_up @ new_down).square().sum()))


def test_an_average_of_low_enough_rank_is_exact() -> None:
    """Two experts of rank 2 whose second direction is unused: their average has rank 2."""
    downs, ups = drawn(2, 2, 5), drawn(2, 4, 2, seed=1)
    ups[:, :, 1] = 0
    down, up, energy, lost = average_deltas(downs, ups)
    torch.testing.assert_close(up @ down, (ups @ downs).mean(dim=0), atol=1e-6, rtol=1e-5)  # fp32 factors
    assert lost == pytest.approx(0, abs=1e-12 * energy)


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 7), (3, 9), (9, 3), (2, 2)])
def test_otherwise_it_is_the_nearest_of_the_rank_and_the_loss_is_told(outputs: int, inputs: int) -> None:
    downs, ups = drawn(2, 2, inputs), drawn(2, outputs, 2, seed=1)
    wanted = (ups @ downs).mean(dim=0).double()
    down, up, energy, lost = average_deltas(downs, ups)
    values = torch.linalg.svdvals(wanted)
    assert energy == pytest.approx(float(values.square().sum()), rel=1e-6)
    assert lost == pytest.approx(float(values[2:].square().sum()), rel=1e-6, abs=1e-9)
    assert float(((up @ down).double() - wanted).square().sum()) == pytest.approx(lost, rel=1e-3, abs=1e-9)
    gram = down @ down.mT
    torch.testing.assert_close(gram, downs.norm(dim=2).mean().square() * torch.eye(2), atol=1e-5, rtol=1e-5)


def test_an_unused_direction_can_learn_on() -> None:
    downs, ups = drawn(2, 2, 5), torch.zeros(2, 4, 2)
    down, up, energy, lost = average_deltas(downs, ups)
    assert (energy, lost) == (0.0, 0.0)
    assert not up.any()
    assert (down.norm(dim=1) > 0.5).all()


def test_an_average_of_bank_rows_is_the_average_of_what_they_add(micro: ExpertBank) -> None:
    layers = [(layer.in_features, layer.out_features) for layer in micro.layers.values()]
    row, lost = average_experts(micro.flat[:2], layers, micro.rank)
    deltas = [(layer.B @ layer.A).detach().clone() for layer in micro.layers.values()]
    energy = sum(float(each[:2].mean(dim=0).square().sum()) for each in deltas)
    micro.flat[0].copy_(row)
    gone = sum(
        float(((layer.B @ layer.A)[0] - before[:2].mean(dim=0)).detach().square().sum())
        for layer, before in zip(micro.layers.values(), deltas, strict=True)
    )
    assert 0.01 < lost < 0.99
    assert gone / energy == pytest.approx(lost, rel=1e-3)
    same, nothing = average_experts(micro.flat[1:2].repeat(2, 1), layers, micro.rank)
    assert same.equal(micro.flat[1])
    assert nothing == 0.0
    with pytest.raises(ShapeError, match="rows must be experts of"):
        average_experts(micro.flat[:, 1:], layers, micro.rank)


@pytest.fixture
def micro(tmp_path_factory: pytest.TempPathFactory) -> ExpertBank:
    from paretune.models.loading import load_base

    folder = micro_task.save_model(tmp_path_factory.mktemp("model"))
    bank = ExpertBank(load_base(folder), 2, rank=2)
    return micro_task.perturb(bank)
