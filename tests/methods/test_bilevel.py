from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conflicting_gradients import SEEN, drawn
from paretune.core.errors import ConfigError, NonFiniteError
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.meta_policy.bilevel import Bilevel, BilevelSettings, BilevelStep, min_norm_step, split_step
from paretune.methods.meta_policy.starts import InnerLevel, OuterSettings

ROUNDING = 1e-12  # of the product of two lengths: doubles


def of_policies(rng: np.random.Generator, jacobian: np.ndarray, policies: int) -> Tensor:
    """Return gradients `[K, M, P]` of policies that disagree, whose mean is `jacobian` `[K, P]`."""
    apart = rng.standard_normal((len(jacobian), policies, jacobian.shape[1])) * np.abs(jacobian).mean()
    return torch.tensor(jacobian[:, None] + apart - apart.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("objectives", [2, 3, 5])
@pytest.mark.parametrize("policies", [1, 4])
def test_the_applied_step_raises_no_loss_to_first_order(objectives: int, policies: int) -> None:
    """Of 300 hard cases: `<g_k, step> <= -|step|^2 / length` in the metric of the step, for every objective heard."""
    rng = np.random.default_rng(objectives)
    moving = 0
    for _ in range(300):
        gradients, length = of_policies(rng, drawn(rng, objectives), policies), float(rng.uniform(0.01, 10))
        theta = torch.zeros(gradients.shape[2], dtype=torch.float64)
        moved, weights = min_norm_step(theta, gradients, length)
        means, step = gradients.mean(dim=1), (moved - theta) / length
        spread = gradients.square().mean(dim=(0, 1)).sqrt() + 1e-8
        norms = (means / spread.sqrt()).norm(dim=1)  # in the metric of the step
        heard, long = norms > SEEN * norms.max(), (step * spread.sqrt()).norm()
        falls = -(means @ step)
        assert (falls[heard] >= long**2 - ROUNDING * norms[heard] * norms.max()).all()
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        moving += int(long > 1e-3 * norms.max())
    assert moving > 100  # the promise would hold of steps of length 0


def test_weights_and_step_are_of_the_same_gradients() -> None:
    """Whatever their lengths, the step is the metric times the sum of the very gradients that were weighed."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        gradients = of_policies(rng, drawn(rng, 3), 4)
        theta = torch.tensor(rng.standard_normal(gradients.shape[2]))
        moved, weights = min_norm_step(theta, gradients, 0.5)
        summed = sum(weight * gradient for weight, gradient in zip(weights, gradients.mean(dim=1), strict=True))
        spread = gradients.square().mean(dim=(0, 1)).sqrt() + 1e-8
        torch.testing.assert_close(moved, theta - 0.5 * summed / spread, rtol=1e-9, atol=1e-12)
        assert float((moved - theta).abs().max()) <= 0.5 * 3**0.5 + 1e-9


def test_weights_are_solved_in_the_metric_of_the_step() -> None:
    """Gradients (3, 0) and (0, 1): root mean squares 3 / sqrt 2 and 1 / sqrt 2, so P is sqrt 2 times (1 / 3, 1).

    Squared norms 9 sqrt 2 / 3 = 3 sqrt 2 and sqrt 2: weights (1, 3) / 4, where plain ones would give (1, 9) / 10. Their
    sum is (.75, .75), the step -.1 sqrt 2 (.25, .75).
    """
    moved, weights = min_norm_step(torch.zeros(2), torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]]), 0.1)
    assert weights.tolist() == pytest.approx([0.25, 0.75])
    assert moved.tolist() == pytest.approx([-0.1 * 2**0.5 * 0.25, -0.1 * 2**0.5 * 0.75])


def test_no_weight_is_held_away_from_an_end() -> None:
    """Of parallel gradients the shorter one is the shortest vector: its weight is 1, not .999."""
    _, weights = min_norm_step(torch.zeros(2), torch.tensor([[[3.0, 3.0]], [[1.0, 1.0]]]), 0.1)
    assert weights.tolist() == [0.0, 1.0]


def test_what_nobody_can_gain_from_moves_nothing() -> None:
    theta = torch.tensor([1.0, -2.0])
    for gradients in (
        torch.zeros(2, 3, 2),
        torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 2.0], [0.0, -2.0]]]),  # policies that cancel
        torch.tensor([[[1.0, 0.5]], [[-2.0, -1.0]]]),  # objectives that do
    ):
        moved, _ = min_norm_step(theta, gradients, 0.1)
        torch.testing.assert_close(moved, theta, atol=1e-8, rtol=0)
    moved, weights = min_norm_step(theta, torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]), 0.1)  # one says nothing
    assert weights.tolist() == [0.0, 1.0]
    assert moved.tolist() == pytest.approx([1.0, -2.0 - 0.1 * 2**0.5])
    with pytest.raises(NonFiniteError, match="inner products of gradients must be finite"):
        min_norm_step(theta, torch.tensor([[[torch.nan, 0.0]], [[0.0, 1.0]]]), 0.1)


def test_a_step_is_parted_in_whole_groups() -> None:
    outer = OuterSettings(tasks=3, inner_updates=2)
    # a whole one: two updates of 16, and a batch as large
    assert split_step(3 * 3 * 16, outer, 4) == ([32, 32, 32], 16)
    assert split_step(4, outer, 4) == ([0], 4)
    assert split_step(8, outer, 4) == ([4], 4)
    for groups in range(1, 40):
        lengths, validation = split_step(4 * groups, outer, 4)
        assert sum(lengths) + validation * len(lengths) == 4 * groups
        assert validation >= 4
        assert all(length % 4 == 0 for length in [*lengths, validation])
        assert min(lengths) >= 4 or groups == 1


class Context:
    """All of a context that an outer step asks for."""

    def __init__(self, task: Task) -> None:
        self.task, self.own, self.events, self.made = task, Ledger(), list[Any](), 0

    def ledger(self, stage: object) -> Ledger:
        return self.own

    def log(self, event: object) -> None:
        self.events.append(event)

    def progress(self, completions: int) -> None:
        self.made += completions


@pytest.fixture
def step(task: Task) -> BilevelStep:
    settings = BilevelSettings(
        rank=2, group_size=4, completions_per_update=16, learning_rate=3e-2, tasks=2, inner_updates=1, outer_length=2.0
    )
    start, *_ = Bilevel(settings).stages(task, das_dennis(2, 2), 256, 0)
    return BilevelStep(InnerLevel(Context(task), start))  # type: ignore[arg-type]  # all that it asks for


def test_an_outer_step_follows_fresh_gradients_of_adapted_policies(
    step: BilevelStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, taking_part = [], []
    gradients, members = step.gradients, step.inner.members

    def watched(adapted: Tensor, number: int, size: int) -> Tensor:
        seen.append((adapted, size, gradients(adapted, number, size)))
        return seen[-1][2]

    def heard(*given: Any) -> Any:
        taking_part.append(members(*given))
        return taking_part[-1]

    monkeypatch.setattr(step, "gradients", watched)
    monkeypatch.setattr(step.inner, "members", heard)
    theta = step.inner.first()
    moved = step.make(theta, 0, step.size)
    inner, fresh = taking_part
    assert [each.objective_weights.tolist() for each in inner] == [each.objective_weights.tolist() for each in fresh]
    assert len({each.seed for each in [*inner, *fresh]}) == 4  # no batch is learned from and judged by
    monkeypatch.undo()
    ((adapted, size, found),) = seen
    assert (step.size, size, found.shape) == (2 * 2 * 16, 16, (2, 2, len(theta)))
    torch.testing.assert_close(adapted, step.inner.train(theta, 0, [16, 16]), rtol=0, atol=0)
    assert bool((adapted != theta).any(dim=1).all())
    expected, weights = min_norm_step(theta, found, 2.0 * 3e-2)
    assert moved.equal(expected)
    context: Any = step.inner.context
    assert weights.tolist() in [event.get("objective_weights") for event in context.events]


def test_all_that_a_step_samples_is_charged_and_reported(step: BilevelStep) -> None:
    for completions in (step.size, 36, 4):
        context: Any = step.inner.context
        before, made = context.own.completions, context.made
        step.make(step.inner.first(), 0, completions)
        assert context.own.completions - before == context.made - made == completions


def test_a_step_of_half_the_completions_is_half_as_long(step: BilevelStep, monkeypatch: pytest.MonkeyPatch) -> None:
    theta = step.inner.first()
    given = torch.tensor(np.random.default_rng(0).standard_normal((2, 2, len(theta))))
    monkeypatch.setattr(step, "gradients", lambda adapted, number, size: given)
    whole, half = (step.make(theta, 0, completions) - theta for completions in (step.size, step.size // 2))
    torch.testing.assert_close(half, whole / 2, rtol=1e-3, atol=1e-6)  # fp32 beside parameters of up to 1


def test_what_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"outer_length must be positive, got 0\.0"):
        BilevelSettings(outer_length=0.0)
    with pytest.raises(ConfigError, match="target_kl must be 0 for bilevel"):
        BilevelSettings(target_kl=1.0)
