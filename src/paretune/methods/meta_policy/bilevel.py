"""Bi-level: a start whose adapted policies improve in all objectives at once, by min-norm outer steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.gradients.mgda import mgda
from paretune.methods.experts import PLANNING, settings_of, split_budget
from paretune.methods.meta_policy.starts import (
    InnerLevel,
    OuterSettings,
    StartSettings,
    best_adapted,
    find_start,
    planned_start,
)
from paretune.methods.per_preference import check_beta_stays

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-8  # added to a parameter's spread before dividing by it, as Adam's epsilon


@dataclass(frozen=True)
class BilevelOuter(OuterSettings):
    """What an outer step is."""

    outer_length: float  # in learning rates

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outer_length > 0:
            raise ConfigError(f"outer_length must be positive, got {self.outer_length}. Try 4.")


@dataclass(frozen=True)
class BilevelSettings(StartSettings):
    """Settings of `Bilevel`, beside those of a start and of one policy per preference; docs/papers.md for defaults."""

    inner_updates: int = field(default=1, metadata=PLANNING)  # of training for each task: of few steps, as in MAML
    outer_length: float = field(default=4.0, metadata=PLANNING)  # of an outer step, in learning rates: as an update

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta_stays(self.target_kl, "for bilevel")

    def outer(self) -> BilevelOuter:
        """Return what reaches the stage of the start beside the settings of its expert."""
        return BilevelOuter(self.tasks, self.inner_updates, self.outer_length)


@method("bilevel", "meta-policy")
class Bilevel:
    """Find a start by two levels of training, the upper one for all objectives at once, then adapt it.

    The lower level trains copies of the start for preferences that an outer step draws uniformly from the simplex. The
    upper level moves the start so that what they become gets better in every objective: fresh completions of each
    adapted policy give the gradients of all K `J_k = E r_k - beta KL`; averaged over the policies and combined by the
    min-norm weights they are a direction in which no objective gets worse. The rest of the budget adapts the start to
    the wanted preferences, one policy for each that the budget affords.

    Source:
        Ye et al. 2021, Multi-Objective Meta Learning (MOML), with a start as the upper level's variable and
        preferences as tasks, as in Kong et al. 2025. Désidéri 2012 for the weights.

    Departures:
        - First order: the gradient at adapted parameters stands for that at the start, as in Finn et al. 2017
          (first-order MAML); MOML goes back through the inner training.
        - Weights are exact for any number of objectives, and solved on the very gradients that are applied, in the
          metric of the step. Published code solves on normalised gradients, applies the weights to raw ones, and keeps
          each of two weights between .001 and .999.
        - The step is divided, parameter by parameter, by the root mean square of the gradients that it is made from: of
          the size of Adam's, but nothing is remembered from one step to the next, and a longer run extends a shorter
          one. What whole steps leave of the share for the start is one more step, as much shorter as it has fewer
          completions.
    """

    settings: BilevelSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the start and the policies that are adapted from it."""
        return planned_start("bilevel", train_start, self.settings, preferences, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer an adapted preference with its own policy, any other with the one estimated best for it."""
        return best_adapted(task, results)


def train_start(context: StageContext) -> None:
    """Find a start for each trajectory, leaving it as `adapter` at every length."""
    find_start(context, BilevelStep)


class BilevelStep:
    """Makes outer steps of one trajectory."""

    def __init__(self, inner: InnerLevel) -> None:
        self.inner, self.outer = inner, settings_of(BilevelOuter, inner.stage)
        self.size = self.outer.tasks * (self.outer.inner_updates + 1) * inner.learning.completions_per_update

    def make(self, theta: Tensor, number: int, completions: int) -> Tensor:
        """Return the start after outer step `number`, made of so many completions."""
        lengths, validation = split_step(completions, self.outer, self.inner.learning.group_size)
        adapted = self.inner.train(theta, number, lengths) if any(lengths) else theta[None]
        length = self.outer.outer_length * self.inner.learning.learning_rate * completions / self.size
        moved, weights = min_norm_step(theta, self.gradients(adapted, number, validation), length)
        self.inner.log(number, {"objective_weights": weights.tolist()})
        return moved

    def gradients(self, adapted: Tensor, number: int, size: int) -> Tensor:
        """Return the gradients of the losses of all objectives under adapted policies `[M, P]`, `[K, M, P]`."""
        from paretune.rl.fresh_gradients import fresh_gradients
        from paretune.rl.trainees import Population

        inner, learning = self.inner, self.inner.learning
        members = inner.members(number, [size] * len(adapted), "validation")
        with inner.holding(adapted) as bank:
            population = Population(bank, members)
            found = fresh_gradients(population, inner.environment, size, learning.group_size, learning.micro_batch)
        inner.telling.progress(size * len(members))
        return found.cpu()


def split_step(completions: int, outer: OuterSettings, group_size: int) -> tuple[list[int], int]:
    """Part the completions of an outer step among its inner trainings and the validation batches behind them.

    Args:
        completions: Of the step, whole groups.
        outer: How many tasks it has, and updates of each; where completions are fewer, so are tasks.
        group_size: Completions per prompt.

    Returns:
        Completions of each inner training, and those of each validation batch, one share of `inner_updates + 1`. A
        single group is all for validation: of the start itself.

    Example:
        >>> split_step(2 * 3 * 16, OuterSettings(tasks=2, inner_updates=2), group_size=8)
        ([32, 32], 16)
        >>> split_step(24, OuterSettings(tasks=2, inner_updates=2), group_size=8)
        ([16], 8)
    """
    lengths = split_budget(completions, max(1, min(outer.tasks, completions // (2 * group_size))), group_size)
    validation = max(1, min(lengths) // group_size // (outer.inner_updates + 1)) * group_size
    return [length - validation for length in lengths], validation


def min_norm_step(theta: Tensor, gradients: Tensor, length: float) -> tuple[Tensor, FloatArray]:
    """Move a start against the shortest vector in the hull of the objectives' gradients, so that no loss rises.

    With g_k the mean over the policies, P the diagonal `1 / root mean square` over policies and objectives, and
    `d = sum_k weights_k g_k` the shortest in the metric P, the step `-length P d` has `<g_k, step> <= -length <d, P d>`
    for every k. Weights, metric and step are of the same gradients. No parameter is moved by more than
    `length sqrt(K)`.

    Args:
        theta: The start, `[P]`.
        gradients: Of the loss of each objective under each adapted policy, `[K, M, P]`.
        length: Of the step.

    Returns:
        The moved start `[P]`, and the weights of the objectives `[K]`, which sum to 1; all 0 where no gradient is left.

    Raises:
        NonFiniteError: If a gradient is not finite.

    Source:
        Désidéri 2012; first order as Finn et al. 2017.

    Example:
        >>> import torch
        >>> min_norm_step(torch.zeros(2), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), 0.1)
        (tensor([-0.0707, -0.0707]), array([0.5, 0.5]))
    """
    import torch

    from paretune.rl.objective_gradients import gram_in_metric

    each = gradients.double()  # a sum of gradients that nearly cancel must keep their digits
    means = each.mean(dim=1)
    diagonal = 1 / (each.square().mean(dim=(0, 1)).sqrt() + SMALLEST)
    weights = mgda(gram_in_metric(means[:, None], diagonal[None])[0])
    direction = diagonal * torch.einsum("k,kp->p", torch.from_numpy(weights), means)
    return (theta - length * direction).to(theta.dtype), weights
