"""Steps whose objective weights are chosen from the gradients of the objectives themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ShapeError
from paretune.core.preferences import FloatArray
from paretune.models.mixing import Mixing
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.objective_gradients import PopulationGradients, gram_in_metric, population_gradients
from paretune.rl.parameter_groups import ParameterGroups, check_finite
from paretune.rl.rollout import Batch
from paretune.rl.settings import LearnerSettings
from paretune.rl.token_terms import TokenTerms
from paretune.rl.trainees import Trainee


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step was.

    Attributes:
        norms: Gradient norm of each member under its preference, before clipping.
        moved: Whether each member had anything to learn from.
        objective_weights: Of each member, `[R, K]`.
    """

    norms: list[float]
    moved: list[bool]
    objective_weights: FloatArray


class ObjectiveSteps:
    """Takes steps along `sum_k weights_k m_k` in the optimiser's metric, m_k the smoothed gradient of objective k.

    Weights are chosen from the inner products of the smoothed gradients in the metric of the very step they are for:
    what holds of the combined direction, such as that it turns against no objective, holds of what is applied.

    Departures:
        Published strategies choose weights from raw gradients and hand the sum to Adam, whose momentum and metric
        turn most common descent directions into steps that are none.
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

    def take(
        self, active: Sequence[int], gradients: Tensor, moving: Sequence[bool], objective_weights: FloatArray | None
    ) -> StepReport:
        """Take one step of the active members.

        Args:
            active: R members.
            gradients: Of each objective `[K, R, P]`.
            moving: Whether each of them has anything to learn from: else it stays where it is.
            objective_weights: Of each member `[R, K]`; None asks their weightings.

        Raises:
            NonFiniteError: If a gradient is not finite.
        """
        wanted = np.stack([self.trainee.members[index].objective_weights for index in active])  # [R, K]
        combined = torch.einsum("rk,krp->rp", _like(wanted, gradients), gradients)
        check_finite(combined)
        norms = combined.norm(dim=1)
        scale = (self.settings.max_grad_norm / norms.clamp(min=self.settings.max_grad_norm))[:, None]
        chosen = wanted if objective_weights is None else objective_weights
        taken = [place for place, moves in enumerate(moving) if moves]
        if taken:
            chosen = self._move(active, taken, gradients * scale, combined * scale, chosen, objective_weights is None)
        return StepReport(norms.tolist(), list(moving), chosen)

    def _move(
        self, active: Sequence[int], taken: Sequence[int], gradients: Tensor, combined: Tensor, weights: FloatArray,
        ask: bool,
    ) -> FloatArray:  # fmt: skip
        """Step the members at the places `taken` and return the weights of all, `[R, K]`."""
        optimiser, parameters = self.parameter_groups.optimisers["experts"], self.parameter_groups.parameters["experts"]
        members = [active[place] for place in taken]
        smoothed, diagonal = optimiser.observe(gradients[:, taken], combined[taken], members)
        if ask:
            weights = weights.copy()
            weights[taken] = self.weightings.weigh(members, gram_in_metric(smoothed, diagonal))
        direction = torch.einsum("rk,krp->rp", _like(weights[taken], smoothed), smoothed)
        optimiser.apply(parameters, direction, diagonal, members, self.settings.warmup_steps)
        return weights


def _like(array: FloatArray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor)
