from __future__ import annotations

import pytest
import torch

from paretune.core.errors import ConfigError
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.meta_policy.reptile import Reptile, ReptileSettings, ReptileStep, outer_step
from paretune.methods.meta_policy.starts import InnerLevel
from paretune.training.train import train

pytestmark = pytest.mark.usefixtures("base")  # training wraps it
SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
    "completions_each": 32,
}  # fmt: skip


class Context:
    """What an inner level asks of a stage's context."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def ledger(self, stage: object) -> Ledger:
        return Ledger()

    def log(self, event: object) -> None: ...

    def progress(self, completions: int) -> None: ...


def test_the_start_moves_a_share_of_the_way_to_the_mean() -> None:
    """theta + .25 ((2, 0) + (4, 8)) / 2 - theta) from (1, 0): (1 + .25 * 2, 0 + .25 * 4)."""
    made = outer_step(torch.tensor([1.0, 0.0]), [torch.tensor([2.0, 0.0]), torch.tensor([4.0, 8.0])], 0.25)
    assert made.tolist() == [1.5, 1.0]
    theta = torch.randn(5)
    torch.testing.assert_close(outer_step(theta, [theta, theta], 1.0), theta)


def test_one_task_and_a_rate_of_one_are_plain_training(task: Task) -> None:
    """Outer step 0 of one task: an expert trained for its preference, from the same start, under its own noise."""
    from paretune.core.preferences import FloatArray
    from paretune.core.seeds import generator, stream_key
    from paretune.methods.training import environment
    from paretune.models.bank import ExpertBank
    from paretune.rl.learner import Learner
    from paretune.rl.trainees import Member, Population

    settings = ReptileSettings(
        rank=2, group_size=4, completions_per_update=16, learning_rate=3e-2, tasks=1, inner_updates=2, outer_rate=1.0
    )
    start, *_ = Reptile(settings).stages(task, das_dennis(2, 2), 64, 0)

    inner = InnerLevel(Context(task), start)  # type: ignore[arg-type]  # all of a context that it asks for
    found = ReptileStep(inner).make(inner.first(), 0, 32)
    weights: FloatArray = generator(0, "reptile", 0).dirichlet([1.0, 1.0])
    bank = ExpertBank(inner.base, 1, 2)
    bank.initialise([0])
    member = Member(weights, stream_key(0, "reptile", 0, 0), (32,), Ledger())
    Learner(Population(bank, [member]), environment(inner.base, task), inner.learning).train(lambda *reached: None)
    torch.testing.assert_close(found, bank.flat[0], atol=1e-6, rtol=0)  # theta + (theta_0 - theta), in fp32
    assert bool((found != inner.first()).any())


def test_adapted_policies_start_from_what_was_found(task: Task) -> None:
    """A start of many updates and an adaptation of one group: the policy is near the start, far from the base model."""
    settings = {**SMALL, "meta_share": 0.95, "tasks": 2, "inner_updates": 2, "outer_rate": 1.0}
    solutions = train("reptile", task, 320, settings=settings)
    assert solutions.bank is not None
    moved = max(float(layer.B.detach().abs().max()) for layer in solutions.bank.layers.values())
    assert moved > 0.06  # one update of Adam at .03 moves no parameter by more than .03


def test_a_step_goes_its_rate_of_the_way_for_preferences_of_its_own(task: Task) -> None:
    settings = ReptileSettings(
        rank=2, group_size=4, completions_per_update=16, learning_rate=3e-2, tasks=2, inner_updates=1, outer_rate=0.5
    )
    start, *_ = Reptile(settings).stages(task, das_dennis(2, 2), 128, 0)
    inner = InnerLevel(Context(task), start)  # type: ignore[arg-type]  # all of a context that it asks for
    theta = inner.first()
    mean = inner.train(theta, 0, [16, 16]).mean(dim=0)
    torch.testing.assert_close(ReptileStep(inner).make(theta, 0, 32), (theta + mean) / 2, atol=1e-6, rtol=0)
    drawn = [[member.objective_weights.tolist() for member in inner.members(number, [16, 16])] for number in range(2)]
    assert drawn[0] != drawn[1]


def test_beta_is_not_steered_within_outer_steps() -> None:
    with pytest.raises(ConfigError, match="target_kl must be 0 for reptile, got 2"):
        ReptileSettings(target_kl=2.0)


def test_a_rate_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="outer_rate must be above 0"):
        ReptileSettings(outer_rate=0.0)
