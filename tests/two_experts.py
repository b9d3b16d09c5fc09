"""A user's method with an answer of its own, whose single stage leaves two adapters: `two_experts:TwoExperts`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from paretune.core.errors import BudgetError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of

GROUP = 4


@dataclass(frozen=True, eq=False)
class Weighed:
    """Experts are weighed by their measured utility: `softmax(utility / temperature)`.

    Attributes:
        scores: Measured scores `[E, K]`.
        temperature: Small values select.
    """

    scores: FloatArray
    temperature: float = 0.05

    @property
    def objectives(self) -> int:
        return int(self.scores.shape[1])

    @property
    def experts(self) -> int:
        return len(self.scores)

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        raised = np.exp(preferences @ self.scores.T / self.temperature)
        return raised / raised.sum(axis=1, keepdims=True), ["weighed"] * len(preferences)


@dataclass(frozen=True)
class TwoExpertsSettings:
    """Settings of `TwoExperts`."""

    rank: int = 2  # of both experts
    spread: float = 0.3  # standard deviation of every parameter


@method("two_experts", "meta-policy")
class TwoExperts:
    """Draw two experts at random, measure both, and average them by what they measured."""

    settings: TwoExpertsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage there is."""
        each = budget // (2 * GROUP) * GROUP
        if each < GROUP:
            raise BudgetError(f"budget must measure each expert with {GROUP} completions, got {budget}. Raise it.")
        return (Stage("search", "two_experts:search", asdict(self.settings), completions=2 * each, seed=seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with both experts, weighed by what they measured."""
        (found,) = results.values()
        table = json.loads(found.artefacts["scores.json"].read_text())
        return Assembly(adapters_of([found]), Weighed(np.asarray(table)))


def search(context: StageContext) -> None:
    """Draw the experts of every stage, measure them on development prompts, and leave them."""
    import torch

    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.models.policy import Policy
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate

    task = context.task
    base = load_base(task.model)
    for stage in context.stages:
        settings = TwoExpertsSettings(**stage.settings)  # type: ignore[arg-type]  # as written by stages()
        bank = ExpertBank(base, 2, settings.rank)
        drawn = torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(stage.seed))
        bank.flat.copy_(drawn * settings.spread)
        policy = Policy(
            base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            np.full((2, len(task.objectives)), 1 / len(task.objectives)), ["selected"] * 2, np.eye(2),
        )  # fmt: skip
        records = evaluate(
            policy, task.splits["development"][:GROUP], Scorer(task.objectives), task.objective_names,
            samples=stage.completions // 2 // GROUP, seed=stage.seed, split="development",
            ledger=context.ledger(stage), progress=context.progress,
        )  # fmt: skip
        for number in (1, 0):  # in whatever order
            save_adapter(bank, number, context.artefact(stage, f"experts/{number:03d}"))
        bank.unwrap()
        scores = [record.scores.tolist() for record in records]
        context.artefact(stage, "scores.json").write_text(json.dumps(scores))
        context.seal(stage, {})
