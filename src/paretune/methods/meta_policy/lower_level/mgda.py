"""Experts of multiple-gradient descent: each step of each turns against no objective."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, centre, das_dennis
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.gradients.mgda import mgda
from paretune.methods.experts import ExpertSettings
from paretune.methods.gradient_weights import GradientWeights, rescaling
from paretune.methods.meta_policy.lower_level.trained_for import experts_for, least_norm_prior
from paretune.rl.gradient_step import GradientStep


class MGDAExpertWeights(GradientWeights):
    """Weights of the shortest vector in the hull of the objectives' gradients, rescaled by an expert's preference."""

    def of_gram(self, gram: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return the weights, scaled to sum 1: rescaled gradients give them any scale, and it would be the step's."""
        weights = mgda(gram, **rescaling(self.preference, self.settings))
        return np.asarray(weights / (weights.sum() or 1.0))


@dataclass(frozen=True)
class MGDAExperts:
    """Experts that each descend for all objectives, for their own preference, and never at the cost of one of them.

    Preferences are a regular grid moved towards its centre, as at a corner no other objective would be heard: the K
    corners by default, or every point of a grid of more `divisions`. A preference is answered by the shortest expert
    weights whose mean of the experts' preferences it is.

    Source:
        Désidéri 2012, Sener and Koltun 2018 (MGDA); as the lower level of a meta-policy, Kong et al. 2025.

    Departures:
        `preference: shared`, the default, divides each gradient by its weight before the shortest vector is taken, so
        gains go with preferences. The usual form, `scaled`, multiplies losses by weights, under which the objective
        preferred least gains most: an expert that is to be good at one objective wants the other form.
    """

    divisions: int = 1  # of the grid, which has binomial(divisions + K - 1, K - 1) experts; for K = 2 one more
    towards_centre: float = 0.3  # share of the way that each point of the grid is moved
    normalise: int = 1  # each gradient is divided by its norm to this power first: 0, 1 or 2
    preference: str = "shared"  # or scaled
    metric: str = "optimiser"  # of the inner products, see `GradientStep`; plain: as published
    optimiser: str = "adamw"  # or sgd

    def __post_init__(self) -> None:
        GradientStep(self.metric, self.optimiser)
        check_choice("normalise", str(self.normalise), ("0", "1", "2"))
        check_choice("preference of MGDA experts", self.preference, ("shared", "scaled"))
        if self.divisions < 1:
            raise ConfigError(f"divisions must be at least 1, got {self.divisions}. Write 1 for one expert a corner.")
        if not 0 < self.towards_centre < 1:
            raise ConfigError(
                f"towards_centre must lie between 0 and 1, got {self.towards_centre}: at 0 experts of the corners hear "
                "one objective alone, at 1 all are the same. Try 0.3."
            )

    def trained(self, objectives: int) -> FloatArray:
        """Return the preferences of the experts, `[E, K]`."""
        grid = das_dennis(objectives, self.divisions)
        return np.asarray((1 - self.towards_centre) * grid + self.towards_centre * centre(objectives))

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert for each preference of the grid."""
        experts = experts_for(
            settings, self.trained(len(task.objectives)), budget, seed, where_found(MGDAExpertWeights)
        )
        read = ("normalise", "preference", "metric", "optimiser")  # by the weights, from the stage
        own = {name: value for name, value in asdict(self).items() if name in read}
        return tuple(replace(each, settings={**each.settings, **own}) for each in experts)

    def prior(self, objectives: int) -> FloatArray:
        """Return the least-norm weights at each corner, `[K, E]`."""
        return least_norm_prior(self.trained(objectives))
