"""Answering for one objective more, for methods that bring nothing of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError, TaskError
from paretune.core.preferences import FloatArray, corners
from paretune.core.printable import brief
from paretune.core.protocols import Assembly, Method
from paretune.core.stages import StageResult
from paretune.core.task import Task
from paretune.methods.asking import asked_stages, assembled
from paretune.methods.defaults import Continuation
from paretune.methods.experts import (
    SINGLE_OBJECTIVE,
    ExpertSettings,
    adapters_of,
    expert_stage,
    own_starts,
    split_budget,
)

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet

How = Literal["modular", "retrain"]
NO_GATE = ("gate", "none")  # what every solution set has that gets one more expert


def addition(
    solutions: SolutionSet, method: Method, task: Task, preferences: FloatArray, budget: int, seed: int,
    how: How | None = None, given: Collection[str] = (),
) -> Continuation:  # fmt: skip
    """Answer for one objective more: by one more expert where a method has one per objective, else by training again.

    Args:
        solutions: What answers for the objectives there were.
        method: How more is trained.
        task: The task with the new objective.
        preferences: Given to a method that trains again, `[M, K]`.
        budget: Completions to train with.
        seed: Of the training.
        how: `modular` or `retrain`; by default the first where it is possible.
        given: Names of the method's settings that somebody wrote.

    Raises:
        BudgetError: If the budget is too small.
        ConfigError: If `how` is `modular`, and the solution set has not one expert for each objective, or settings are
            given that one more expert does not read.
        TaskError: If the task is not that of the solution set with one objective more.
    """
    new = new_objective(solutions, task)
    modular = takes_one_expert(solutions, method)
    if how == "modular" and not modular:
        raise ConfigError(
            "how must be 'retrain' where a method has not one expert trained for each objective alone, got "
            f"'modular' for '{solutions.method}'. Leave it out."
        )
    if how == "retrain" or not modular:
        stages = asked_stages(method, task, preferences, budget, seed)

        def again(results: Mapping[str, StageResult], kept: tuple[Path, ...]) -> Assembly:
            made = assembled(method, task, preferences, results)
            return Assembly(made.experts, made.answer, made.mixer, {**made.notes, "added": _added("retrain", results)})

        return Continuation(stages, again)
    check_read_by_expert(method.settings, given)
    (length,) = split_budget(budget, 1, method.settings.group_size)
    expert = expert_stage(method.settings, corners(len(task.objectives))[new], length, seed)
    if getattr(method.settings, "start", "") == "own":  # one that no expert there is has, wherever its objective stands
        *_, expert = own_starts([expert] * len(task.objectives))

    def one_more(results: Mapping[str, StageResult], kept: tuple[Path, ...]) -> Assembly:
        own = dict(zip(solutions.objectives, kept, strict=True))
        own[task.objective_names[new]], *_ = adapters_of([results[expert.key(task)]])
        experts = tuple(own[name] for name in task.objective_names)
        notes = {**solutions.notes, "added": _added("modular", results)}
        return Assembly(experts, Combined(np.eye(len(experts))), solutions.mixer, notes)

    return Continuation((expert,), one_more)


def check_read_by_expert(settings: ExpertSettings, given: Collection[str]) -> None:
    """Refuse settings that say how experts are planned or mixed: one more expert changes neither.

    Args:
        settings: Of the method; what kind its experts are and how they start is read.
        given: Names of those that somebody wrote.

    Raises:
        ConfigError: If one of them is neither read nor what the solution set has anyway.
    """
    planning = {each.name for each in fields(settings) if each.metadata.get("planning")} - {"experts", "start"}
    unread = [name for name in sorted(planning.intersection(given)) if (name, getattr(settings, name)) != NO_GATE]
    if unread:
        raise ConfigError(
            f"{' and '.join(unread)} must be left out where one expert is added and all are mixed as they were, got "
            f"{' and '.join(brief(getattr(settings, name)) for name in unread)}. Remove it, or write how='retrain'."
        )


def takes_one_expert(solutions: SolutionSet, method: Method) -> bool:
    """Whether one more expert, trained for the new objective alone, is all that a method needs."""
    kind = getattr(method.settings, "experts", SINGLE_OBJECTIVE)
    single = (kind.get("kind") if isinstance(kind, dict) else kind) in (SINGLE_OBJECTIVE, "none")
    return one_expert_each(solutions) and isinstance(method.settings, ExpertSettings) and single


def one_expert_each(solutions: SolutionSet) -> bool:
    """Whether a preference is the weights of one expert for each objective, with nothing trained beside."""
    answer, size = solutions.answer, len(solutions.objectives)
    plain = type(answer) is Combined and np.array_equal(answer.corners, np.eye(size))
    return plain and solutions.mixer.gate is None and solutions.preference_text is None


def new_objective(solutions: SolutionSet, task: Task) -> int:
    """Return the place of the objective that a task has beyond those of a solution set.

    Raises:
        TaskError: If it is another task, or has not exactly one more.
    """
    if task.model_digest != solutions.model_digest:
        raise TaskError(
            f"task must have the base model of the solution set ({solutions.model_digest}), got {task.model_digest}. "
            "Name the task that it was trained on, with one objective more."
        )
    more = [place for place, name in enumerate(task.objective_names) if name not in solutions.objectives]
    if len(more) != 1 or len(task.objectives) != len(solutions.objectives) + 1:
        raise TaskError(
            f"task must have the objectives {', '.join(solutions.objectives)} and one more, got "
            f"{', '.join(task.objective_names)}. Add one at a time."
        )
    return more[0]


def _added(how: How, results: Mapping[str, StageResult]) -> dict[str, object]:
    spent = {
        name: sum(each.ledger.counts[name] for each in results.values()) for name in ("completions", "tokens", "flops")
    }
    return {"how": how, **spent, "seconds": sum(each.seconds for each in results.values())}
