"""Merged soups: controls that merge experts as published code does, in the place of the exact average of deltas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from paretune.core.answers import Answer, Nearest, check_columns, number_table
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.settings import check_read
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING, adapters_of, settings_of, weighed
from paretune.methods.meta_policy.lower_level.averaged import AveragedSettings

Merge = Literal["factors", "peft_linear", "ties"]
NEGATIVE = 1e-12  # above what an inverse matrix leaves of a weight of 0


@dataclass(frozen=True, eq=False)
class Products:
    """Cross experts `B_i A_j` are weighed by products of the experts' weights g = w @ prior: `combined`.

    Attributes:
        prior: Expert weights at each corner of the simplex, `[K, E]`.
        rule: `factors`: `g_i g_j`; `peft_linear`: `sqrt(|g_i g_j|)`, with the sign of `g_j`.
    """

    prior: FloatArray
    rule: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", number_table("prior", self.prior))
        check_choice("rule of products", self.rule, ("factors", "peft_linear"))

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return len(self.prior)

    @property
    def experts(self) -> int:
        """Number of cross experts, E^2: those of `B_1` first."""
        return int(self.prior.shape[1]) ** 2

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with the weights of the cross experts, `[M, E^2]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        ups = downs = preferences @ self.prior
        if self.rule == "peft_linear":
            root = np.sqrt(np.abs(ups))
            ups, downs = root, np.sign(ups) * root
        table = ups[:, :, None] * downs[:, None, :]  # [M, E, E]
        return np.asarray(table.reshape(len(preferences), -1)), ["combined"] * len(preferences)


class MergedFor(Nearest):
    """What was merged for the nearest preference answers: `combined` for that preference itself, else `nearest`.

    Attributes:
        trained: Preferences that experts were merged for, `[M, K]`.
    """

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with one-hot weights of what was merged."""
        weights, words = super().weights(preferences)
        return weights, ["combined" if word == "exact" else word for word in words]


@dataclass(frozen=True)
class TiesSettings:
    """Settings of a merge by TIES."""

    weights: list[list[float]]  # of the experts, a row for each preference
    density: float
    merged_rank: int


@dataclass(frozen=True)
class MergedSoupsSettings(AveragedSettings):
    """Settings of `MergedSoups`, beside those of its experts."""

    merge: Merge = field(default="factors", metadata=PLANNING)
    density: float = field(default=0.2, metadata=PLANNING)  # ties: share of an expert's delta that is kept; published
    merged_rank: int = field(default=64, metadata=PLANNING)  # ties: of what comes out; smaller layers are exact

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("merge", self.merge, get_args(Merge))
        if not 0 < self.density <= 1:
            raise ConfigError(f"density must be above 0 and at most 1, got {self.density}. Try 0.2, as published.")
        if self.merged_rank < 1:
            raise ConfigError(f"merged_rank must be at least 1, got {self.merged_rank}. Try 64.")
        check_read(self, "merge", {"density": ("ties",), "merged_rank": ("ties",)})


@method("merged_soups", "meta-policy")
class MergedSoups:
    """Merge the experts of rewarded soups as published code does: a control, not a method to choose.

    - `factors` averages A and B apart. With weights g that is `(sum_i g_i B_i)(sum_j g_j A_j)`, the exact average of
      E^2 cross experts `B_i A_j` with weights `g_i g_j`: what an expert adds shrinks from g to g^2, and cross terms of
      factors that never learned together are added.
    - `peft_linear` does the same with square roots of weights, so that what an expert adds keeps its weight. Cross
      terms have the weight `sqrt(g_i g_j)`: n equal experts come out n times as large as one.
    - `ties` trims each expert's delta to its largest entries, elects a sign for every parameter and averages what
      agrees. That is not linear in the weights, so it is done for each wanted preference; any other gets the nearest.

    Source:
        Factors: code of Ramé et al. 2023, Jang et al. 2023 and Huang et al. 2023. `linear`: PEFT, add_weighted_adapter.
        TIES: Yadav et al. 2023.

    Departures:
        See docs/papers.md.
    """

    settings: MergedSoupsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts and the merge, which costs no completion.

        Raises:
            BudgetError: If an expert would get less than one group.
            ConfigError: If experts that are subtracted for a preference are to be merged by their signs.
        """
        settings = self.settings
        experts = settings.expert_stages(task, budget, seed)
        if settings.merge != "ties":
            run = "paretune.methods.meta_policy.merged_soups:write_cross_experts"
            return (*experts, Stage("merge", run, {}, needs=experts, seed=seed))
        weights = weighed(preferences, settings.expert_kind.prior(len(task.objectives)))
        if (weights < -NEGATIVE).any():
            raise ConfigError(
                f"experts to be merged by ties must have weights of 0 or more for every preference, got "
                f"{weights.min():.3g}. Choose a kind of experts whose prior stays on the simplex, such as "
                "single_objective."
            )
        own = TiesSettings(np.maximum(weights, 0).tolist(), settings.density, settings.merged_rank)
        run = "paretune.methods.meta_policy.merged_soups:merge_by_signs"
        return (*experts, Stage("merge", run, asdict(own), needs=experts, seed=seed))

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with what was merged: cross experts, or one adapter for each wanted preference."""
        merged = next(result for result in results.values() if result.stage.kind == "merge")
        if self.settings.merge == "ties":
            return Assembly(adapters_of([merged]), MergedFor(preferences), notes={"merge": dict(merged.values)})
        prior = self.settings.expert_kind.prior(len(task.objectives))
        answer: Answer = Products(prior, self.settings.merge)
        return Assembly(adapters_of([merged]), answer)


def write_cross_experts(context: StageContext) -> None:
    """Write the E^2 adapters `B_i A_j`, `experts/000` and so on: those of the first B first."""
    from paretune.models.adapters import load_bank, save_factors
    from paretune.models.loading import load_base, unwrap

    for stage in context.stages:
        base = load_base(context.task.model)
        try:
            bank = load_bank(base, _adapters(context, stage))
            pairs = [(up, down) for up in range(bank.experts) for down in range(bank.experts)]
            factors = {
                path: [(layer.A[down].detach(), layer.B[up].detach()) for up, down in pairs]
                for path, layer in bank.layers.items()
            }
            scales = bank.scales.tolist()  # PEFT: the root of an expert's scale in either factor
            own = [(scales[up] * scales[down]) ** 0.5 for up, down in pairs]
            save_factors(bank, factors, own, _folders(context, stage, len(pairs)))
        finally:
            unwrap(base)
        context.seal(stage, {})


def merge_by_signs(context: StageContext) -> None:
    """Write one adapter for each preference, `experts/000` and so on.

    It seals their `rank`, and as `discarded_energy` the share of the squared norm of each that this rank lost, `[M]`.
    """
    import torch

    from paretune.models.adapters import load_bank, save_factors
    from paretune.models.loading import load_base, unwrap
    from paretune.models.low_rank import nearest_factors
    from paretune.models.ties import merge_signs, trim_threshold

    for stage in context.stages:
        settings, base = settings_of(TiesSettings, stage), load_base(context.task.model)
        try:
            bank = load_bank(base, _adapters(context, stage))
            layers, scales = bank.layers, bank.scales
            rank = min(settings.merged_rank, max(min(each.in_features, each.out_features) for each in layers.values()))
            with torch.no_grad():
                thresholds = torch.tensor(
                    [
                        trim_threshold(
                            [scales[e] * (each.B[e] @ each.A[e]) for each in layers.values()], settings.density
                        )
                        for e in range(bank.experts)
                    ],
                    device=base.device,
                )
                energies, factors = np.zeros((len(settings.weights), 2)), {}
                for path, each in layers.items():
                    deltas, made = scales[:, None, None] * (each.B @ each.A), []
                    for place, row in enumerate(settings.weights):
                        merged = merge_signs(deltas, torch.tensor(row, device=base.device), thresholds)
                        down, up, *energy = nearest_factors(merged, rank)
                        made.append((down, up))
                        energies[place] += energy
                    factors[path] = made
            count = len(settings.weights)
            save_factors(bank, factors, [1.0] * count, _folders(context, stage, count))
        finally:
            unwrap(base)
        lost = energies[:, 1] / np.where(energies[:, 0] > 0, energies[:, 0], 1)
        context.seal(stage, {"rank": rank, "discarded_energy": lost.tolist()})


def _adapters(context: StageContext, stage: Stage) -> tuple[Path, ...]:
    return adapters_of(context.result(need) for need in stage.needs)


def _folders(context: StageContext, stage: Stage, count: int) -> list[Path]:
    return [context.artefact(stage, f"experts/{number:03d}") for number in range(count)]
