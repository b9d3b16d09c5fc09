"""A start that is found by outer steps and then adapted to each wanted preference: what such methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly
from paretune.core.seeds import generator, stream_key
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.core.user_calls import where_found
from paretune.methods.estimators_asked import check_without_greedy
from paretune.methods.experts import PLANNING, ExpertSettings, expert_settings, expert_stage, settings_of, split_budget
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, planned_policies
from paretune.methods.telling import Telling
from paretune.methods.training import environment, trajectories
from paretune.methods.whole_rounds import grow
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bank import ExpertBank
    from paretune.rl.checkpoints import State
    from paretune.rl.trainees import Member


@dataclass(frozen=True)
class OuterSettings:
    """What an outer step is made of."""

    tasks: int  # preferences drawn for it
    inner_updates: int  # of training for each of them

    def __post_init__(self) -> None:
        if self.tasks < 1 or self.inner_updates < 1:
            raise ConfigError(
                f"tasks and inner_updates must be at least 1, got {self.tasks} and {self.inner_updates}. Try 4 and 4."
            )


@dataclass(frozen=True)
class StartSettings(PerPreferenceSettings):
    """Settings of such a method, beside those of one policy per preference. Untuned; docs/papers.md."""

    meta_share: float = field(default=0.5, metadata=PLANNING)  # of the budget, for the start
    tasks: int = field(default=4, metadata=PLANNING)  # preferences drawn for an outer step
    inner_updates: int = field(default=4, metadata=PLANNING)  # of training for each of them

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.meta_share < 1:
            raise ConfigError(f"meta_share must lie between 0 and 1, got {self.meta_share}. Try 0.5.")
        self.outer()

    def outer(self) -> OuterSettings:
        """Return what reaches the stage of the start beside the settings of its expert."""
        return OuterSettings(self.tasks, self.inner_updates)


def planned_start(
    kind: str, run: Callable[[StageContext], None], settings: StartSettings, preferences: FloatArray, budget: int,
    seed: int,
) -> tuple[Stage, ...]:  # fmt: skip
    """Describe a start and the policies that are adapted from it.

    Args:
        kind: Of the start's stage.
        run: What finds the start.
        settings: Of the method.
        preferences: Wanted ones, `[M, K]`.
        budget: Of all, in completions.
        seed: Of the training.

    Raises:
        BudgetError: If not even one group is left for the start and for a policy.
        ConfigError: If advantages are made with greedy completions, which outer steps do not plan.
    """
    check_without_greedy(settings.advantages, "in outer steps")
    group = settings.group_size
    if budget < 2 * group:
        raise BudgetError(
            f"budget must give the start and a policy a group of {group} completions each, {2 * group}, got {budget}. "
            "Raise it."
        )
    share = max(group, round(settings.meta_share * budget))
    (length,) = split_budget(min(share, budget - group), 1, group)
    start = Stage(
        kind, where_found(run), {**expert_settings(settings), **asdict(settings.outer())}, {}, (), length, seed
    )
    planned = planned_policies(settings, preferences, budget - length)
    return (start, *(expert_stage(settings, row, each, seed, start_from=start) for row, each in planned))


def best_adapted(task: Task, results: Mapping[str, StageResult]) -> Assembly:
    """Answer an adapted preference with its own policy, any other with the one estimated best for it."""
    return best_trained(task, {key: each for key, each in results.items() if each.stage.kind == "expert"})


class OuterStep(Protocol):
    """Makes outer steps of one trajectory; every draw must be a function of its seed and the step's number.

    Attributes:
        size: Completions of a whole step.
    """

    size: int

    def make(self, theta: Tensor, number: int, completions: int) -> Tensor:
        """Return the start `[P]` after step `number`, made of so many completions: of `size`, or of fewer."""
        ...


def find_start(context: StageContext, prepare: Callable[[InnerLevel], OuterStep]) -> None:
    """Find a start for each trajectory by outer steps, leaving it as `adapter` at every length.

    What whole outer steps leave of a length is one step of fewer completions.
    """
    for stages in trajectories(context):
        inner = InnerLevel(context, stages[-1])
        grow(context, stages, _Start(inner, prepare(inner)))


class _Start:
    """A start as the `WholeRounds` that `grow` makes: its parameters are what grows, an outer step is a round."""

    unreported_completions = 0  # copies are reported as they train

    def __init__(self, inner: InnerLevel, step: OuterStep) -> None:
        self.inner, self.step, self.telling = inner, step, inner.telling

    def whole(self, length: int) -> int:
        """Return how many whole outer steps a length has room for."""
        return length // self.step.size

    def fresh(self) -> Tensor:
        """Return the parameters of an expert that is the base model yet, `[P]`."""
        return self.inner.first()

    def written(self, theta: Tensor) -> State:
        """Return the start `[P]`."""
        return {"start": theta}, {}

    def read(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Tensor:
        """Return what was written."""
        del plain
        return tensors["start"]

    def make(self, theta: Tensor, number: int) -> Tensor:
        """Return the start after a whole step."""
        return self.step.make(theta, number, self.step.size)

    def hand_over(self, stage: Stage, theta: Tensor, number: int) -> None:
        """Make a step of what is left of a length, write the start and seal."""
        from paretune.models.adapters import save_adapter

        context = self.inner.context
        left = stage.completions - context.ledger(self.inner.stage).completions
        if left:
            theta = self.step.make(theta, number, left)
        with self.inner.holding(theta[None]) as bank:
            save_adapter(bank, 0, context.artefact(stage, "adapter"))
        context.seal(stage, {"steps": number})


class InnerLevel:
    """Trains copies of a start, each for a drawn preference.

    Attributes:
        outer: Settings of the outer steps.
        learning: How copies learn: their last parameters count, not an average.
        telling: What progress and events are passed on by.
    """

    def __init__(self, context: StageContext, stage: Stage) -> None:
        """Prepare to train for one stage of a start."""
        from paretune.models.loading import load_base

        self.context, self.stage, self.telling = context, stage, Telling(context)
        self.shape, self.outer = settings_of(ExpertSettings, stage), settings_of(OuterSettings, stage)
        self.learning = replace(settings_of(LearnerSettings, stage), average_decay=0.0)
        self.base = load_base(context.task.model)
        self.environment = environment(self.base, context.task)

    def first(self) -> Tensor:
        """Return the parameters of an expert that is the base model yet, `[P]`."""
        from paretune.models.bank import ExpertBank

        bank = ExpertBank(self.base, 1, self.shape.rank, self.shape.alpha)
        try:
            bank.initialise([self.stage.seed])
            return bank.flat[0].detach().cpu().clone()
        finally:
            bank.unwrap()

    @contextmanager
    def holding(self, parameters: Tensor) -> Iterator[ExpertBank]:
        """Put experts with these parameters `[M, P]` on the base model, for as long as they are needed."""
        from paretune.models.bank import ExpertBank

        bank = ExpertBank(self.base, len(parameters), self.shape.rank, self.shape.alpha)
        try:
            bank.flat.copy_(parameters)
            yield bank
        finally:
            bank.unwrap()

    def members(self, number: int, lengths: Sequence[int], use: str = "") -> list[Member]:
        """Return who takes part in outer step `number`, by the preferences drawn for it.

        Args:
            number: Of the step.
            lengths: Completions of each of them, at most as many as there are tasks.
            use: What for; every use has prompts and noise of its own.
        """
        from paretune.rl.trainees import Member

        seed, kind, ledger = self.stage.seed, self.stage.kind, self.context.ledger(self.stage)
        objectives = len(self.context.task.objectives)
        rows = generator(seed, kind, number).dirichlet(np.ones(objectives), size=self.outer.tasks)
        uses = [use] if use else []
        return [
            Member(row, stream_key(seed, kind, number, place, *uses), (length,), ledger)
            for place, (row, length) in enumerate(zip(rows[: len(lengths)], lengths, strict=True))
        ]

    def train(self, theta: Tensor, number: int, lengths: Sequence[int]) -> Tensor:
        """Return what copies of a start `[P]` become in outer step `number`, of so many completions each, `[M, P]`."""
        from paretune.rl.learner import Learner
        from paretune.rl.trainees import Population

        def on_update(event: Mapping[str, Any]) -> None:
            self.log(number, event)
            self.telling.progress(int(event["completions"]) + event["measured"] + event.get("greedy", 0))

        with self.holding(theta.expand(len(lengths), -1)) as bank:
            population = Population(bank, self.members(number, lengths))
            Learner(population, self.environment, self.learning).train(lambda index, length: None, on_update)
            return bank.flat.detach().cpu().clone()

    def log(self, number: int, event: Mapping[str, Any]) -> None:
        """Append one line about outer step `number` to the events."""
        self.telling.log({**event, "step": number, "trajectory": self.stage.trajectory_key(self.context.task)})
