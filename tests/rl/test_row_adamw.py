from __future__ import annotations

import pytest
import torch

from paretune.core.errors import ShapeError
from paretune.rl.row_adamw import RowAdamW, clip_rows

ROWS, SIZE, STEPS = 3, 40, 25


def gradients(seed: int = 0) -> torch.Tensor:
    draws = torch.randn(STEPS, ROWS, SIZE, generator=torch.Generator().manual_seed(seed))
    return draws * 10.0 ** torch.arange(-3, SIZE - 3).remainder(6)  # very small and very large ones


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99)])
def test_it_is_the_adamw_of_torch(weight_decay: float, betas: tuple[float, float]) -> None:
    start = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(1))
    mine, theirs = start.clone(), torch.nn.Parameter(start.clone())
    own = RowAdamW.like(mine, 1e-2, betas, weight_decay)
    torchs = torch.optim.AdamW([theirs], lr=1e-2, betas=betas, eps=1e-8, weight_decay=weight_decay)
    for gradient in gradients():
        own.step(mine, gradient, range(ROWS))
        theirs.grad = gradient.clone()
        torchs.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-6, atol=1e-6)  # fp32 steps of 1e-2
    assert (mine - start).abs().max() > 0.05


def test_a_row_depends_on_its_own_gradients_only() -> None:
    parameters, alone = torch.zeros(ROWS, SIZE), torch.zeros(1, SIZE)
    many, one = (RowAdamW.like(each, 1e-2, (0.9, 0.99), 0.1) for each in (parameters, alone))
    for step, gradient in enumerate(gradients()):
        rows = [2, 1] if step % 3 else [1]  # rows in any order, and none of row 0
        many.step(parameters, gradient[rows], rows)
        one.step(alone, gradient[1:2], [0])
    assert parameters[1].equal(alone[0])
    assert not parameters[0].any()
    assert many.steps.tolist() == [0, 25, 16]


def test_the_learning_rate_rises_linearly_and_then_stays() -> None:
    parameters = torch.zeros(1, 1)
    optimiser = RowAdamW.like(parameters, 0.1, (0.9, 0.99), 0.0)
    moves = []
    for _ in range(6):
        before = float(parameters)
        optimiser.step(parameters, torch.ones(1, 1), [0], warmup_steps=4)
        moves.append(before - float(parameters))
    # equal gradients: every step of Adam is the learning rate, to epsilon and fp32
    assert moves == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], abs=1e-6)


def test_each_row_is_clipped_by_its_own_norm() -> None:
    clipped = clip_rows(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), 1.0)
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_the_average_begins_with_the_last_parameters_and_slows_down() -> None:
    """Gradients all 1 move Adam by its rate: p = -s. Decay (s + 1) / (s + 10): 2/11, 3/12, then at most .3.

    a1 = 9/11 * -1; a2 = a1 / 4 - 2 * 3/4; a3 = .3 a2 - 3 * .7.
    """
    parameters = torch.zeros(2, 1)
    optimiser = RowAdamW.like(parameters, 1.0, (0.9, 0.99), 0.0, average_decay=0.3)
    assert optimiser.average is not None
    expected = [-9 / 11, -9 / 44 - 1.5, 0.3 * (-9 / 44 - 1.5) - 2.1]
    for value in expected:
        optimiser.step(parameters, torch.ones(1, 1), [1])
        assert float(optimiser.average[1]) == pytest.approx(value, rel=1e-5)
    assert float(optimiser.average[0]) == 0


def test_objectives_weighed_by_constant_weights_take_the_steps_of_adam() -> None:
    weights = torch.tensor([0.25, 0.75])
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    plain, apart = start.clone(), start.clone()
    one = RowAdamW.like(plain, 1e-2, (0.9, 0.99), 0.1)
    other = RowAdamW.like(apart, 1e-2, (0.9, 0.99), 0.1, objectives=2)
    rows = [2, 0]
    for number in range(6):
        gradients = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(number))
        combined = torch.einsum("k,krp->rp", weights, gradients)
        one.step(plain, combined, rows, warmup_steps=3)
        means, diagonal = other.observe(gradients, combined, rows)
        other.apply(apart, torch.einsum("k,krp->rp", weights, means), diagonal, rows, warmup_steps=3)
    torch.testing.assert_close(apart, plain)
    assert apart[1].equal(start[1])


def test_gradients_of_other_objectives_than_it_was_made_for_are_refused() -> None:
    optimiser = RowAdamW.like(torch.zeros(1, 4), 1e-2, (0.9, 0.99), 0.0)
    with pytest.raises(ShapeError, match=r"of the 0 objectives .* got 2\. Make it with objectives=2"):
        optimiser.observe(torch.ones(2, 1, 4), torch.ones(1, 4), [0])
    assert "objective_means" not in optimiser.state()
    assert float(optimiser.steps[0]) == 0


def test_a_row_goes_on_from_its_state_in_another_optimiser() -> None:
    parameters = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    options = {"average_decay": 0.9, "objectives": 2}
    one = RowAdamW.like(parameters, 1e-2, (0.9, 0.99), 0.0, **options)  # type: ignore[arg-type]  # an int and a float
    one.observe(torch.ones(2, 1, 4), torch.ones(1, 4), [2])
    other = RowAdamW.like(torch.zeros(1, 4), 1e-2, (0.9, 0.99), 0.0, **options)  # type: ignore[arg-type]
    other.load_row(0, one.row_state(2))
    assert all(tensor.equal(one.row_state(2)[name]) for name, tensor in other.row_state(0).items())
    assert float(other.steps[0]) == 1
