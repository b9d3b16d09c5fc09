"""Iterative soups: experts trained in rounds; after each they are averaged, and all go on from the average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, corners
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.estimators_asked import check_without_greedy
from paretune.methods.experts import PLANNING, ExpertSettings, adapters_of, expert_settings, settings_of, split_budget
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from paretune.rl.merging import MergingLearner


@dataclass(frozen=True)
class RoundSettings:
    """How long a round of training is."""

    merge_every: int  # updates; experts are averaged and all go on from the average

    def __post_init__(self) -> None:
        if self.merge_every < 1:
            raise ConfigError(f"merge_every must be at least 1 update, got {self.merge_every}. Try 8.")


@dataclass(frozen=True)
class IterativeSoupsSettings(ExpertSettings):
    """Settings of `IterativeSoups`, beside those of its experts."""

    merge_every: int = field(default=8, metadata=PLANNING)  # updates; published best are 4, 8 and 40

    def __post_init__(self) -> None:
        super().__post_init__()
        RoundSettings(self.merge_every)


@method("iterative_soups", "meta-policy")
class IterativeSoups:
    """Train one expert per objective in rounds of `merge_every` updates, and average them between rounds.

    The last round's experts are not averaged: the preference weighs them, as in rewarded soups. With rounds as long as
    the training this *is* rewarded soups, expert by expert.

    Source:
        Pouyamghari et al. 2025, IterativeRS.

    Departures:
        - The average of deltas has up to K times the rank; it is brought back to the experts' rank by its largest
          singular values in every layer. What that discards is sealed, `discarded_energy`.
        - Optimisers start anew in each round: their moments belong to factors that are no longer there.
        - All experts have equal lengths: what is left of the budget is less than one group for each.
    """

    settings: IterativeSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of all experts; `preferences` play no part in training.

        Raises:
            BudgetError: If an expert would get less than one group.
            ConfigError: If advantages are made with greedy completions, which rounds of updates do not plan.
        """
        check_without_greedy(self.settings.advantages, "in rounds")
        objectives = len(task.objectives)
        length = min(split_budget(budget, objectives, self.settings.group_size))
        settings = {**expert_settings(self.settings), "merge_every": self.settings.merge_every}
        run = "paretune.methods.meta_policy.iterative_soups:train_rounds"
        return (Stage("soup", run, settings, completions=length * objectives, seed=seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the average of the experts, the preference as weights."""
        return Assembly(adapters_of(results.values()), Combined(np.eye(len(task.objectives))))


def train_rounds(context: StageContext) -> None:
    """Train the experts of all objectives in rounds; it leaves them, `experts/000` and so on, at every length."""
    from paretune.methods.training import STATE, environment, trajectories
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.rl.checkpoints import read_state
    from paretune.rl.merging import MergingLearner
    from paretune.rl.trainees import Member, Population

    task, first = context.task, context.stages[0]
    base, rows = load_base(task.model), corners(len(task.objectives))
    shape, rounds = settings_of(ExpertSettings, first), settings_of(RoundSettings, first)
    learning = settings_of(LearnerSettings, first)
    for stages in trajectories(context):
        seed, ledger, key = stages[0].seed, context.ledger(stages[-1]), stages[0].trajectory_key(task)
        by_length = {stage.completions // len(rows): stage for stage in stages}
        try:
            bank = ExpertBank(base, len(rows), shape.rank, shape.alpha)
            bank.initialise([seed] * len(rows))
            members = [Member(row, seed, tuple(by_length), ledger) for row in rows]
            trainee, made = Population(bank, members), environment(base, task)
            learner = MergingLearner(trainee, made, learning, rounds.merge_every)
            checkpoint, start = context.checkpoint_folder() / f"{key}.safetensors", context.start_folder(stages[0])
            if checkpoint.exists():
                learner.load_state(*read_state(checkpoint))
            elif start is not None and (start / STATE).exists():
                learner.load_whole_state(*read_state(start / STATE))
            _train(context, learner, by_length, checkpoint, key)
        finally:
            unwrap(base)


def _train(
    context: StageContext, learner: MergingLearner, by_length: Mapping[int, Stage], checkpoint: Path, key: str
) -> None:
    """Train to all lengths, see `training.learn`."""
    from paretune.methods.training import STATE, learn
    from paretune.models.adapters import save_adapter
    from paretune.rl.checkpoints import save_state

    bank, handed = learner.trainee.bank, list[int]()

    def hand_over(index: int, length: int) -> None:
        stage = by_length[length]
        save_adapter(bank, index, context.artefact(stage, f"experts/{index:03d}"))
        handed.append(index)
        if len(handed) == bank.experts:  # all members reach a length in one go
            handed.clear()
            save_state(context.end_folder(stage) / STATE, *learner.whole_state())
            context.seal(stage, {"discarded_energy": learner.discarded})

    learn(context, learner, hand_over, checkpoint, [key] * bank.experts)
