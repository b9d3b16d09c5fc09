"""Reptile: a start from which a few updates lead to a good policy for any preference, then one policy for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.seeds import generator, stream_key
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, ExpertSettings, expert_settings, expert_stage, settings_of, split_budget
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, planned_policies
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.rl.rollouts import Environment


@dataclass(frozen=True)
class StartSettings:
    """How the start is found."""

    tasks: int  # preferences drawn for an outer step
    inner_updates: int  # of training for each of them
    outer_rate: float  # share of the way to the mean of what they become

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.inner_updates < 1:
            raise ConfigError(
                f"tasks and inner_updates must be at least 1, got {self.tasks} and {self.inner_updates}. Try 4 and 4."
            )
        if not 0 < self.outer_rate <= 1:
            raise ConfigError(f"outer_rate must be above 0 and at most 1, got {self.outer_rate}. Try 0.5.")


@dataclass(frozen=True)
class ReptileSettings(PerPreferenceSettings):
    """Settings of `Reptile`, beside those of one policy per preference. Untuned; docs/papers.md."""

    meta_share: float = field(default=0.5, metadata=PLANNING)  # of the budget, for the start
    tasks: int = field(default=4, metadata=PLANNING)  # preferences drawn for an outer step
    inner_updates: int = field(default=4, metadata=PLANNING)  # of training for each of them
    outer_rate: float = field(default=0.5, metadata=PLANNING)  # share of the way to the mean of what they become

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.meta_share < 1:
            raise ConfigError(f"meta_share must lie between 0 and 1, got {self.meta_share}. Try 0.5.")
        self.start()

    def start(self) -> StartSettings:
        """Return how the start is found."""
        return StartSettings(self.tasks, self.inner_updates, self.outer_rate)


@method("reptile", "meta-policy")
class Reptile:
    """Meta-train a start over drawn preferences, then fine-tune it for each wanted one.

    An outer step draws preferences uniformly from the simplex, trains the start theta for each of them by a few
    updates, and moves it towards what they become: `theta <- theta + epsilon mean_i(theta_i - theta)`. The rest of the
    budget adapts that start to the wanted preferences, one policy for each that the budget affords.

    Source:
        Nichol et al. 2018, Reptile; preferences as its tasks, as in Kong et al. 2025.

    Departures:
        - theta are the factors of a low-rank expert, averaged as such: within an outer step all come from one start.
        - Each inner training has an Adam of its own that starts anew; epsilon is constant, so that longer runs extend
          shorter ones. The last parameters count, not their average.
        - What outer steps leave of the share for the start is one more step with shorter trainings.
    """

    settings: ReptileSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the start and the policies that are adapted from it.

        Raises:
            BudgetError: If not even one group is left for the start and for a policy.
        """
        settings = self.settings
        if budget < 2 * settings.group_size:
            raise BudgetError(
                f"budget must give the start and a policy a group of {settings.group_size} completions each, "
                f"{2 * settings.group_size}, got {budget}. Raise it."
            )
        share = max(settings.group_size, round(settings.meta_share * budget))
        (length,) = split_budget(min(share, budget - settings.group_size), 1, settings.group_size)
        known = {**expert_settings(settings), **asdict(settings.start())}
        start = Stage("reptile", "paretune.methods.meta_policy.reptile:train_start", known, {}, (), length, seed)
        planned = planned_policies(settings, preferences, budget - length)
        return (start, *(expert_stage(settings, row, each, seed, start_from=start) for row, each in planned))

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer an adapted preference with its own policy, any other with the one estimated best for it."""
        return best_trained(task, {key: each for key, each in results.items() if each.stage.kind == "expert"})


def train_start(context: StageContext) -> None:
    """Meta-train a start for each trajectory, leaving it as `adapter` at every length.

    Whole outer steps are made once and stay: a longer run goes on with the next one.
    """
    from paretune.methods.training import STATE, trajectories
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.rl.checkpoints import read_state, save_state

    task = context.task
    for stages in trajectories(context):
        steps, ledger = _Steps(context, stages[-1]), context.ledger(stages[-1])
        due = {stage.completions: stage.completions // steps.size for stage in stages}
        checkpoint = context.checkpoint_folder() / f"{stages[0].trajectory_key(task)}.safetensors"
        begun = None if checkpoint.exists() else context.start_folder(stages[0])
        path = checkpoint if begun is None else begun / STATE
        theta, first = steps.first(), 0
        if path.exists():
            tensors, plain = read_state(path)
            theta, first = tensors["start"], plain["steps"]
            ledger.resume(plain["ledger"])
        for number in range(first, max(due.values()) + 1):
            spent = ledger.state()
            state = {"start": theta}, {"steps": number, "ledger": spent}
            save_state(checkpoint, *state)
            for stage in (each for each in stages if due[each.completions] == number):
                save_state(context.end_folder(stage) / STATE, *state)
                left = stage.completions - ledger.completions
                last = steps.make(theta, number, left) if left else theta
                bank = ExpertBank(steps.base, 1, steps.shape.rank, steps.shape.alpha)
                try:
                    bank.flat[0] = last.to(bank.flat.device)
                    save_adapter(bank, 0, context.artefact(stage, "adapter"))
                finally:
                    bank.unwrap()
                context.seal(stage, {"steps": number})
                if stage is not stages[-1]:
                    ledger.resume(spent)
            if number < max(due.values()):
                theta = steps.make(theta, number, steps.size)


class _Steps:
    """Makes outer steps of one trajectory; every draw is a function of its seed and the step."""

    def __init__(self, context: StageContext, stage: Stage) -> None:
        from paretune.methods.training import environment
        from paretune.models.base import load_base

        self.context, self.stage = context, stage
        self.shape, self.own = settings_of(ExpertSettings, stage), settings_of(StartSettings, stage)
        self.learning = replace(settings_of(LearnerSettings, stage), average_decay=0.0)
        self.size = self.own.tasks * self.own.inner_updates * self.learning.completions_per_update
        self.base = load_base(context.task.model)
        self.environment: Environment = environment(self.base, context.task)

    def first(self) -> Tensor:
        """Return the parameters of an expert that is the base model yet, `[P]`."""
        from paretune.models.bank import ExpertBank

        bank = ExpertBank(self.base, 1, self.shape.rank, self.shape.alpha)
        try:
            bank.initialise([self.stage.seed])
            return bank.flat[0].detach().cpu().clone()
        finally:
            bank.unwrap()

    def make(self, theta: Tensor, number: int, completions: int) -> Tensor:
        """Return the start after outer step `number`, made of so many completions."""
        from paretune.models.bank import ExpertBank
        from paretune.rl.learner import Learner
        from paretune.rl.trainees import Member, Population

        seed, group = self.stage.seed, self.learning.group_size
        count, objectives = min(self.own.tasks, completions // group), len(self.context.task.objectives)
        rows = generator(seed, "reptile", number).dirichlet(np.ones(objectives), size=self.own.tasks)[:count]
        ledger, key = self.context.ledger(self.stage), self.stage.trajectory_key(self.context.task)
        members = [
            Member(row, stream_key(seed, "reptile", number, place), (length,), ledger)
            for place, (row, length) in enumerate(zip(rows, split_budget(completions, count, group), strict=True))
        ]
        bank = ExpertBank(self.base, count, self.shape.rank, self.shape.alpha)
        trained: dict[int, Tensor] = {}

        def hand_over(index: int, length: int) -> None:
            trained[index] = bank.flat[index].detach().cpu().clone()

        def on_update(event: Mapping[str, Any]) -> None:
            self.context.log({**event, "step": number, "trajectory": key})
            self.context.progress(int(event["completions"]) + event["measured"] + event.get("greedy", 0))

        try:
            bank.flat.copy_(theta.to(bank.flat.device).expand_as(bank.flat))
            Learner(Population(bank, members), self.environment, self.learning).train(hand_over, on_update)
        finally:
            bank.unwrap()
        return outer_step(theta, [trained[index] for index in range(count)], self.own.outer_rate)


def outer_step(theta: Tensor, trained: list[Tensor], rate: float) -> Tensor:
    """Return `theta + rate mean_i(theta_i - theta)`.

    Example:
        >>> import torch
        >>> outer_step(torch.tensor([0.0, 2.0]), [torch.tensor([2.0, 2.0]), torch.tensor([4.0, 0.0])], 0.5)
        tensor([1.5000, 1.5000])
    """
    mean = sum(trained[1:], trained[0]) / len(trained)
    return theta + rate * (mean - theta)
