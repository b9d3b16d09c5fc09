"""Gradients of the objectives of policies as they are, from fresh completions of theirs; nobody learns."""

from __future__ import annotations

import torch
from torch import Tensor

from paretune.rl.advantages import fold_in_kl, leave_one_out, silenced
from paretune.rl.lengths import Lengths
from paretune.rl.objective_gradients import population_gradients
from paretune.rl.rollouts import Environment, Rollouts
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Population


def fresh_gradients(
    population: Population, environment: Environment, size: int, group_size: int, micro_batch: int = 0
) -> Tensor:
    """Return the gradients of the losses `-J_k = -(E r_k - beta KL)` of every member, `[K, M, P]`.

    They are estimates without bias, by leave-one-out with the KL folded in, whatever a member learns by. What a
    member's seed says are the first prompts of training, and their noise, are these completions': give it another
    seed than the training it has behind it.

    Args:
        population: M members; what their completions cost is charged to them.
        environment: Prompts and rewards.
        size: Completions of each member, whole groups.
        group_size: Completions per prompt.
        micro_batch: Completions of a member in a pass there and back; 0: all at once.

    Raises:
        NonFiniteError: If a gradient is not finite.
        ConfigError: If the size is not that of whole groups.

    Source:
        Williams 1992 (REINFORCE); Ahmadian et al. 2024 (RLOO).
    """
    settings = LearnerSettings(
        group_size=group_size, completions_per_update=size, epochs=1, micro_batch=micro_batch
    )  # one pass, no terms of tokens: what is charged is what is done
    active, objectives = list(range(len(population.members))), len(environment.ranges)
    lengths = [Lengths((size,), size, group_size) for _ in active]
    rollouts = Rollouts(population, environment, settings, lengths, None, objectives)
    _, _, mixing, batch = rollouts.sample(active, size)
    rewards = torch.from_numpy(rollouts.score(active, batch, size).rewards)
    kl = (batch.log_probs - rollouts.reference(active, batch)).sum(dim=1).cpu().double()
    advantages = fold_in_kl(leave_one_out(rewards, group_size), kl, environment.beta, group_size)
    widths = torch.from_numpy(environment.ranges[:, 1] - environment.ranges[:, 0])
    with rollouts.timed(active, "update"):
        return population_gradients(
            population.bank, mixing, batch.prompt_ids, batch.token_ids, batch.lengths,
            silenced(advantages, widths, group_size), size, micro_batch=micro_batch,
        ).gradients  # fmt: skip
