"""Panacea: one low-rank policy, some of whose singular values are the preference itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.banks import BankSettings
from paretune.methods.experts import adapters_of, expert_settings, settings_of, split_budget


@dataclass(frozen=True)
class PreferenceRanks:
    """How much rank the preference has, beside what all preferences share."""

    preference_rank: int = 1  # singular values that are one objective's weight, published

    def __post_init__(self) -> None:
        if self.preference_rank < 1:
            raise ConfigError(f"preference_rank must be at least 1, got {self.preference_rank}. Try 1.")


@dataclass(frozen=True)
class PanaceaSettings(BankSettings):
    """Settings of `Panacea`: those of its bank, whose `rank` is that of the part that all preferences share."""

    preference_rank: int = PreferenceRanks.preference_rank  # singular values that are one objective's weight, published

    def __post_init__(self) -> None:
        super().__post_init__()
        PreferenceRanks(self.preference_rank)


@method("panacea", "meta-policy")
class Panacea:
    """Train `W = W_0 + U diag(sigma_1 .. sigma_k, s w_1 .. s w_K) V^T` on prompts that each draw a preference w.

    The first k singular values are learned and the same for everybody; the last K are the preference, times a learned
    scale. In a bank of experts that is one expert of rank k with weight 1, and one of rank 1 for each objective with
    its weight: `W_0 + B_0 A_0 + sum_i w_i B_i A_i`.

    Source:
        Zhong et al. 2024, Panacea.

    Departures:
        - sigma and s are not parameters of their own: they are the lengths of the factors' columns. The policies that
          can be expressed are the same or more: s may differ between objectives.
        - Nothing keeps U and V orthonormal; docs/papers.md.
        - On-policy REINFORCE with the learner all methods share, one preference a prompt.
    """

    settings: PanaceaSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of all factors; `preferences` play no part in training."""
        (length,) = split_budget(budget, 1, self.settings.group_size)
        run = "paretune.methods.meta_policy.panacea:train_shared"
        return (Stage("bank", run, expert_settings(self.settings), completions=length, seed=seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the shared expert and the preference as weights of the others."""
        return Assembly(adapters_of(results.values()), Combined(shared_and_own(len(task.objectives))))


def shared_and_own(objectives: int) -> FloatArray:
    """Return expert weights at each corner, `[K, 1 + K]`: the first expert always counts 1, the others the preference.

    Example:
        >>> (np.asarray([[0.25, 0.75]]) @ shared_and_own(2)).tolist()
        [[1.0, 0.25, 0.75]]
    """
    return np.hstack([np.ones((objectives, 1)), np.eye(objectives)])


def train_shared(context: StageContext) -> None:
    """Train a shared expert and one of a low rank for each objective as one policy, on preferences drawn by prompt.

    It leaves `experts/000`, the shared one, and the others behind it, each at its own rank.
    """
    from paretune.core.seeds import stream_key
    from paretune.methods.training import Run, train, trajectories
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.rl.trainees import Conditioned

    task = context.task
    base, objectives = load_base(task.model), len(task.objectives)
    shape, own = settings_of(BankSettings, context.stages[0]), settings_of(PreferenceRanks, context.stages[0])
    ranks = [shape.rank, *[own.preference_rank] * objectives]
    for stages in trajectories(context):
        seed, lengths = stages[0].seed, tuple(stage.completions for stage in stages)
        try:
            bank = ExpertBank(base, len(ranks), max(ranks), shape.alpha / shape.rank * max(ranks))
            bank.initialise([stream_key(seed, "expert", expert) for expert in range(len(ranks))], ranks)
            trainee = Conditioned(bank, None, shared_and_own(objectives), seed, lengths, context.ledger(stages[-1]))

            def save(stage: Stage, bank: ExpertBank = bank) -> None:
                for expert, rank in enumerate(ranks):
                    save_adapter(bank, expert, context.artefact(stage, f"experts/{expert:03d}"), rank)

            train(context, trainee, [Run(stages, save)], name=stages[0].trajectory_key(task))
        finally:
            unwrap(base)
