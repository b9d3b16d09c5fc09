"""Steps whose objective weights are chosen from the gradients of the objectives themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray
from paretune.models.mixing import Mixing
from paretune.rl.conflicts import Conflicts
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.objective_gradients import PopulationGradients, gram_in_metric, population_gradients
from paretune.rl.parameter_groups import ParameterGroups, check_finite
from paretune.rl.rollout import Batch
from paretune.rl.row_adamw import clip_rows
from paretune.rl.settings import LearnerSettings
from paretune.rl.token_terms import TokenTerms
from paretune.rl.trainees import Trainee

RIGHT_ANGLE = 1e-3  # cosine: below, a sum of fp32 gradients that nearly cancel is rounding


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step was.

    Attributes:
        norms: Gradient norm of each member under its preference, before clipping.
        moved: Whether each member had anything to learn from.
        objective_weights: Of each member, `[R, K]`.
        against: Which objectives the step turned against, by their plain gradients, `[R, K]`; none where nothing moved.
    """

    norms: list[float]
    moved: list[bool]
    objective_weights: FloatArray
    against: NDArray[np.bool_]


class ObjectiveSteps:
    """Takes steps along `sum_k weights_k m_k` in the optimiser's metric, m_k the smoothed gradient of objective k.

    Weights are chosen from the inner products of the smoothed gradients in the metric of the very step they are for:
    what holds of the combined direction, such as that it turns against no objective, holds of what is applied. They
    are chosen anew for every step. See `GradientStep` for the other kinds.

    Attributes:
        conflicts: How many steps turned against an objective by the gradients of their own completions. Smoothed
            gradients have more in them, so the share is not 0 for strategies that turn against none of those.

    Departures:
        Published strategies choose weights from raw gradients and hand the sum to Adam, whose momentum and metric
        turn most common descent directions into steps that are none: `metric: plain`.
    """

    def __init__(
        self,
        trainee: Trainee,
        settings: LearnerSettings,
        parameter_groups: ParameterGroups,
        weightings: MemberWeightings,
    ) -> None:
        """Prepare steps of a population.

        Raises:
            ShapeError: If the trainee has other parameters than its experts.
        """
        if list(trainee.parameters) != ["experts"]:
            raise ShapeError(
                "weights must be chosen from gradients of experts alone, got parameters "
                f"{', '.join(trainee.parameters)}. Train a population with them."
            )
        self.trainee, self.settings = trainee, settings
        self.parameter_groups, self.weightings = parameter_groups, weightings
        self.conflicts = Conflicts(np.stack([member.objective_weights for member in trainee.members]))

    def gradients(
        self, batch: Batch, mixing: Mixing, coefficients: Tensor, size: int, token_factors: Tensor | None = None,
        terms: TokenTerms | None = None,
    ) -> PopulationGradients:  # fmt: skip
        """Return the gradients of the objectives, and what they were made of; nothing moves yet.

        Args:
            batch: Completions of R members, B rows.
            mixing: Of the rows.
            coefficients: What each completion counts in the gradient of each objective `[B, K]`.
            size: Completions of each member.
            token_factors: What each token counts beside that, `[B, T]`; all 1 when left out.
            terms: What is added to the loss of every objective.

        Raises:
            NonFiniteError: If a gradient is not finite.
        """
        return population_gradients(
            self.trainee.bank, mixing, batch.prompt_ids, batch.token_ids, batch.lengths, coefficients, size,
            micro_batch=self.settings.micro_batch, token_factors=token_factors, terms=terms,
        )  # fmt: skip

    def take(self, active: Sequence[int], gradients: Tensor, moving: Sequence[bool]) -> StepReport:
        """Take one step of the active members, under weights that their weightings choose for it.

        Args:
            active: R members.
            gradients: Of each objective `[K, R, P]`.
            moving: Whether each of them has anything to learn from: else it stays where it is.

        Raises:
            NonFiniteError: If a gradient is not finite.
        """
        wanted = np.stack([self.trainee.members[index].objective_weights for index in active])  # [R, K]
        combined = torch.einsum("rk,krp->rp", _like(wanted, gradients), gradients)
        check_finite(combined)
        norms = combined.norm(dim=1)
        chosen, against = wanted.copy(), np.zeros(wanted.shape, dtype=np.bool_)
        taken = [place for place, moves in enumerate(moving) if moves]
        if taken:
            members = [active[place] for place in taken]
            move = self._smoothed if self.weightings.step_rule.smoothed else self._plain
            chosen[taken], direction = move(members, gradients[:, taken], combined[taken])
            against[taken] = turned_against(gradients[:, taken], direction)
            self.conflicts.add(members, against[taken])
        return StepReport(norms.tolist(), list(moving), chosen, against)

    def _smoothed(self, members: Sequence[int], gradients: Tensor, combined: Tensor) -> tuple[FloatArray, Tensor]:
        """Step members along their smoothed gradients; return weights `[R, K]`, and the direction moved against."""
        optimiser, parameters = self.parameter_groups.optimisers["experts"], self.parameter_groups.parameters["experts"]
        limit = self.settings.max_grad_norm
        scale = limit / combined.norm(dim=1, keepdim=True).clamp(min=limit)
        smoothed, diagonal = optimiser.observe(gradients * scale, combined * scale, members)
        weights = self.weightings.weigh(members, gram_in_metric(smoothed, diagonal))
        direction = torch.einsum("rk,krp->rp", _like(weights, smoothed), smoothed)
        optimiser.apply(parameters, direction, diagonal, members, self.settings.warmup_steps)
        return weights, direction * diagonal

    def _plain(self, members: Sequence[int], gradients: Tensor, combined: Tensor) -> tuple[FloatArray, Tensor]:
        """The same by gradients as they are; `combined`, their sum under the preference, has no part in it."""
        optimiser, parameters = self.parameter_groups.optimisers["experts"], self.parameter_groups.parameters["experts"]
        ones, warmup = torch.ones_like(combined), self.settings.warmup_steps
        weights = self.weightings.weigh(members, gram_in_metric(gradients, ones))
        summed = torch.einsum("rk,krp->rp", _like(weights, gradients), gradients)
        clipped = clip_rows(summed, self.settings.max_grad_norm)
        if self.weightings.step_rule.optimiser == "adamw":
            return weights, optimiser.step(parameters, clipped, members, warmup)
        optimiser.begin(members)
        optimiser.apply(parameters, clipped, ones, members, warmup)
        return weights, clipped


def turned_against(gradients: Tensor, direction: Tensor) -> NDArray[np.bool_]:
    """Return which losses, of gradients `[K, R, P]`, rise along a step against a direction `[R, P]`, `[R, K]`."""
    inner = torch.einsum("krp,rp->rk", gradients, direction)
    lengths = gradients.norm(dim=2).T * direction.norm(dim=1)[:, None]
    return np.asarray((inner < -RIGHT_ANGLE * lengths).cpu().numpy())


def _like(array: FloatArray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor)
