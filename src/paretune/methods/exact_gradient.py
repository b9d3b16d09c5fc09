"""The ceiling: experts trained on the exact J of all completions, without any sampling noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from paretune.core.answers import Nearest
from paretune.core.errors import ConfigError, TaskError
from paretune.core.ledger import Seconds
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of, settings_of, trained_weights

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bank import ExpertBank

PROMPTS_AT_ONCE = 4  # of one pass for each expert: what fits into a processor's caches


@dataclass(frozen=True)
class ExactGradientSettings:
    """Settings of `ExactGradient`."""

    rank: int = 8  # of every expert, as the methods' own
    alpha: float = 16.0  # scale alpha / rank
    learning_rate: float = 2e-2  # AdamW, falling to 0 over the last third of the updates
    updates: int = 200  # each over all training prompts and all completions; docs/results/controlled.md

    def __post_init__(self) -> None:
        if self.rank < 1 or self.updates < 1:
            raise ConfigError(f"rank and updates must be at least 1, got {self.rank} and {self.updates}. Raise them.")
        if not self.alpha > 0 or not self.learning_rate > 0:
            raise ConfigError(
                f"alpha and learning_rate must be positive, got {self.alpha} and {self.learning_rate}. Leave them out "
                f"to take {ExactGradientSettings.alpha:g} and {ExactGradientSettings.learning_rate:g}."
            )


@method("exact_gradient", "ceiling")
class ExactGradient:
    """Train one expert per wanted preference on the exact J: what an expert of this shape can reach at all.

    No method: it uses every completion and its probability, which no sampler has, and is charged nothing. What methods
    lose against it they lose to noise, budget or merging; what it loses against the optimum, to the expert's capacity
    and to what 16 training prompts tell of others. A preference it was not given is answered by the nearest expert,
    so for unseen preferences it is no ceiling.

    Source:
        Exact policy gradient (Sutton et al. 2000), summed over all completions.
    """

    settings: ExactGradientSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per wanted preference.

        Raises:
            TaskError: If the task's completions cannot be listed.
        """
        if task.enumeration is None:
            raise TaskError(
                f"exact_gradient must have a task whose completions can be listed, got '{task.name}'. Use a controlled "
                "task, or leave the method out."
            )
        listed = len(task.splits["train"]) * task.enumeration.completions
        knows = {"feedback": "utility"} if task.contextual else {}  # J is of what users want of each prompt
        return tuple(
            Stage(
                kind="expert",
                run="paretune.methods.exact_gradient:train_exactly",
                settings={**asdict(self.settings), **knows},
                member={"objective_weights": [float(weight) for weight in row]},
                seed=seed,
                enumerated=self.settings.updates * listed,
            )
            for row in preferences
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the expert trained for the nearest preference."""
        experts = tuple(results.values())
        return Assembly(adapters_of(experts), Nearest(trained_weights(experts)))


def train_exactly(context: StageContext) -> None:
    """Train the experts of a population on `J = w . E r - beta KL`, summed over all completions of all prompts.

    Where what users want depends on the prompt, w is that.
    """
    import torch

    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.objectives.scoring import Scorer
    from paretune.rl.outcomes import tables

    task = context.task
    settings = settings_of(ExactGradientSettings, context.stages[0])
    wanted = np.asarray([stage.member["objective_weights"] for stage in context.stages], dtype=np.float64)
    base = load_base(task.model)
    log_reference, rewards = tables(task, task.splits["train"], Scorer(task.objectives))
    prompts = [base.encode(str(row["prompt"]), task.prompt_format) for row in task.splits["train"]]
    try:
        bank = ExpertBank(base, len(wanted), settings.rank, settings.alpha)
        bank.initialise([stage.seed for stage in context.stages])
        if task.contextual:
            of_prompts = task.prompt_preferences(task.splits["train"], wanted)  # [E, P, K]
            worth = np.einsum("pyk,epk->epy", rewards, of_prompts)
        else:
            worth = np.moveaxis(rewards @ wanted.T, 2, 0)
        utilities = torch.from_numpy(worth).float().to(base.device)  # [E, P, Y]
        reference = torch.from_numpy(log_reference).float().to(base.device)
        optimiser = torch.optim.AdamW([bank.flat], lr=settings.learning_rate, weight_decay=0.0)
        values = torch.zeros(len(wanted))
        ledgers = [context.ledger(stage) for stage in context.stages]
        for update in range(settings.updates):
            began = Seconds.now()
            rate = settings.learning_rate * min(1.0, 3 * (settings.updates - update) / settings.updates)
            for group in optimiser.param_groups:
                group["lr"] = rate
            values = _ascend(bank, task, prompts, utilities, reference)
            bank.flat.grad = bank.take_gradients()
            optimiser.step()
            bank.flat.grad = None
            share = began.passed(len(ledgers))
            for ledger in ledgers:
                ledger.add_seconds("update", *share)
            context.progress(0)
            context.log({"update": update + 1, "objective": values.tolist(), "learning_rate": rate})
        for index, stage in enumerate(context.stages):
            save_adapter(bank, index, context.artefact(stage, "adapter"))
            context.seal(stage, {"objective_before_last_update": float(values[index])})
    finally:
        unwrap(base)


def _ascend(bank: ExpertBank, task: Task, prompts: Sequence[list[int]], utilities: Tensor, reference: Tensor) -> Tensor:
    """Add up the gradients of -J / beta over all prompts and return J before the update, `[E]`."""
    import torch

    from paretune.models.mixing import Mixing
    from paretune.models.tree import tree_log_probs
    from paretune.rl.outcomes import enumeration_of

    enumeration = enumeration_of(task)
    experts = len(utilities)
    total = torch.zeros(experts)
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = list(prompts[start : start + PROMPTS_AT_ONCE])
        mixing = Mixing.population(experts, len(part))
        table = tree_log_probs(bank.base, bank, mixing, part * experts, enumeration.token_ids, enumeration.length).view(
            experts, len(part), -1
        )
        here = slice(start, start + len(part))
        gain = utilities[:, here] - task.beta * (table - reference[here])
        values = (table.exp() * gain).sum(dim=2).sum(dim=1) / len(prompts)  # [E]
        (-values.sum() / task.beta).backward()
        total += values.detach().cpu()
    return total
