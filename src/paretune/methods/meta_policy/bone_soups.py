"""Bone soups: experts of mixed rewards, averaged with weights that undo the mixing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, grid_preferences
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_unread
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import JudgedOn, Task
from paretune.methods.experts import (
    LATER,
    PLANNING,
    ExpertSettings,
    adapters_of,
    chosen_expert_stage,
    left_by,
    settings_of,
    split_budget,
    whole_passes,
)
from paretune.methods.judging import judged_scores
from paretune.methods.meta_policy.lower_level.mixed_reward import MixedReward
from paretune.methods.meta_policy.lower_level.trained_for import experts_for

BETAS = (0.6, 0.7, 0.8)  # of pilots; published
DIVISIONS = 2  # of the grid of preferences that pilots are measured for: corners, edges' middles, and the centre


@dataclass(frozen=True)
class BoneSoupsSettings(ExpertSettings):
    """Settings of `BoneSoups`, beside those of its experts."""

    beta: float = field(default=MixedReward.beta, metadata=PLANNING)  # weight of an expert's own objective; published
    extrapolation: float = field(default=MixedReward.extrapolation, metadata=PLANNING)  # beyond the mixture, 0: none
    # of the budget, for pilots that choose beta; 0: none. Published: .375, three of them, each a fifth of the training
    pilot_share: float = field(default=0.0, metadata=LATER)
    pilot_measured_each: int = field(default=64, metadata=LATER)  # completions of each of their mixtures; untuned

    def __post_init__(self) -> None:
        super().__post_init__()
        MixedReward(self.beta, self.extrapolation)
        if not 0 <= self.pilot_share < 1:
            raise ConfigError(
                f"pilot_share must be at least 0 and below 1, got {self.pilot_share}. Try 0.375, as published."
            )
        if self.pilot_measured_each < 1:
            raise ConfigError(f"pilot_measured_each must be at least 1, got {self.pilot_measured_each}. Leave it out.")
        if self.pilot_share:
            check_unread(self, ("beta",), "where pilots choose it", "Remove it, or write pilot_share: 0.")
        else:
            check_unread(self, ("pilot_measured_each",), "without pilots", "Remove it, or give pilot_share.")

    @property
    def expert_kind(self) -> MixedReward:
        """The experts that are averaged where nothing is tried before."""
        return MixedReward(self.beta, self.extrapolation)


@dataclass(frozen=True)
class ChoiceSettings:
    """Settings of the choice among pilots."""

    betas: list[float]  # of the pilots, who come beta by beta
    extrapolation: float
    preferences: list[list[float]]  # that each beta's average is measured for
    completions_each: int  # of each such mixture, on development prompts
    judged_on: JudgedOn  # what the scores are
    reference_point: list[float]  # above which their hypervolume lies


@method("bone_soups", "meta-policy")
class BoneSoups:
    """Train each expert for a mixture of all objectives, and average deltas with weights `B^-1 w` for preference w.

    B holds what each expert was trained for, so the experts' objective weights, averaged, are the preference. Near the
    corners some weights are negative and others above 1. With `pilot_share` short runs choose B among three before: the
    one whose averages have the largest hypervolume.

    Source:
        Xie et al. 2025, Bone soups: a seek-and-soup model merging approach for controllable multi-objective generation.

    Departures:
        See docs/papers.md, and `MixedReward`, whose experts these are.
    """

    settings: BoneSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per objective, behind pilots where some are asked for; `preferences` play no part.

        Raises:
            BudgetError: If an expert or a pilot would get less than one group.
        """
        own, objectives = self.settings, len(task.objectives)
        if not own.pilot_share:
            return own.expert_kind.stages(own, task, budget, seed)
        wanted = grid_preferences(objectives, DIVISIONS)
        each = whole_passes(own.pilot_measured_each, len(task.development_rows()))
        measured = len(BETAS) * len(wanted) * each
        mixed = np.vstack([MixedReward(beta).mixing(objectives) for beta in BETAS])
        given = int(own.pilot_share * budget)
        with left_by("pilot_measured_each", given - measured, given, given_by="pilot_share"):
            pilots = experts_for(own, mixed, given - measured, seed)
        asked = ChoiceSettings(
            list(BETAS), own.extrapolation, wanted.tolist(), each, task.judged_on, list(task.reference_point)
        )
        run = "paretune.methods.meta_policy.bone_soups:choose_beta"
        choice = Stage("choice", run, asdict(asked), needs=pilots, completions=measured, seed=seed)
        left = budget - measured - sum(pilot.completions for pilot in pilots)
        with left_by("pilot_share", left, budget):
            lengths = split_budget(left, objectives, own.group_size)
        experts = (chosen_expert_stage(own, choice, row, length, seed) for row, length in enumerate(lengths))
        return (*pilots, choice, *experts)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the average of the experts under weights that undo the mixing of rewards."""
        objectives, kind, finished = len(task.objectives), self.settings.expert_kind, [*results.values()]
        if not self.settings.pilot_share:
            return Assembly(adapters_of(finished), Combined(kind.prior(objectives)))
        (choice,) = (each for each in finished if each.stage.kind == "choice")
        chosen = MixedReward(float(str(choice.values["beta"])), self.settings.extrapolation)
        experts = [each for each in finished if "chosen" in each.stage.member]
        return Assembly(adapters_of(experts), Combined(chosen.prior(objectives)), notes={"pilots": dict(choice.values)})


def choose_beta(context: StageContext) -> None:
    """Measure the averages of each beta's pilots, and choose the beta of the largest hypervolume.

    It seals `beta`, its `objective_weights` B `[K, K]`, and `hypervolumes`, one for each beta in their order.
    """
    from paretune.methods.searches import measure
    from paretune.pareto.hypervolume import hypervolume

    task, objectives = context.task, len(context.task.objectives)
    for stage in context.stages:
        own = settings_of(ChoiceSettings, stage)
        candidates = pilot_mixtures(own, objectives)
        judged = judged_scores(task, *measure(context, stage, candidates, own.completions_each))
        fronts = judged.reshape(len(own.betas), -1, objectives)
        volumes = [hypervolume(front, own.reference_point) for front in fronts]
        beta = own.betas[int(np.argmax(volumes))]
        weights = MixedReward(beta).mixing(objectives).tolist()
        context.seal(stage, {"beta": beta, "objective_weights": weights, "hypervolumes": volumes})


def pilot_mixtures(settings: ChoiceSettings, objectives: int) -> FloatArray:
    """Return the weights of all pilots in what is measured, beta by beta and preference by preference, `[C, E]`."""
    wanted, count = np.asarray(settings.preferences), len(settings.betas)
    rows = []
    for place, beta in enumerate(settings.betas):
        weights = np.zeros((len(wanted), count, objectives))
        weights[:, place] = wanted @ MixedReward(beta, settings.extrapolation).prior(objectives)
        rows.append(weights.reshape(len(wanted), -1))
    return np.vstack(rows)
