"""Training that goes on from a solution set: `paretune.adapt` to a preference, `paretune.add_objective`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from paretune.core.checks import check_choice, check_seed
from paretune.core.digests import file_digest
from paretune.core.errors import ConfigError, TaskError
from paretune.core.preferences import check_preferences, grid_preferences, preference_from_mapping, wanted_preferences
from paretune.core.settings import make_settings
from paretune.core.stages import StageResult, in_order
from paretune.core.task import Task
from paretune.executors.jobs import Link
from paretune.methods import METHODS, resolve_method
from paretune.methods.addition import How, addition
from paretune.methods.defaults import Continuation, adaptation
from paretune.methods.entries import method_entry, on_task
from paretune.methods.experts import ExpertSettings
from paretune.records.layout import given_path
from paretune.rl.settings import LearnerSettings
from paretune.training.train import completions_of, finished_results, made_in

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet


def adapt(
    solutions: SolutionSet,
    task: str | Path | Task,
    preference: Mapping[str, float] | ArrayLike,
    budget: Mapping[str, int] | int,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    output: str | Path | None = None,
    progress: Link | None = None,
) -> SolutionSet:
    """Fine-tune what answers a preference, and return a solution set that answers this preference with the result.

    What answers now becomes one expert, exactly, or behind a gate a copy of all its experts, and is trained on for the
    preference; all others are answered as before. The notes say what it cost, `adaptations`. A method that has an
    `adaptation` of its own is asked for it.

    Args:
        solutions: Of any method that mixes adapters, by fixed weights or a gate.
        task: What it was trained on, its name, or the path of its `task.yaml`.
        preference: By names (those left out count 0) or as `[K]`.
        budget: `{"completions": n}`, or just n; with 0 the solution set itself is returned.
        seed: Of the training; it also names the task instance.
        settings: How the experts learn, where that is not the default: learning_rate and so on; without a gate, rank.
        output: Folder to save to. A call that was killed goes on where it stopped when it is made again.
        progress: Hears of completions made.

    Raises:
        ConfigError: If a setting, the budget or the seed cannot be used, or what answers mixes no adapters.
        PreferenceError: If the preference cannot be one.
        BudgetError: If the budget is less than one group.
        TaskError: If it is another task than the solution set's.
        StudyError: If the output folder already holds something else, or another call is training into it.
    """
    from paretune.tasks import load_task

    check_seed(seed)
    instance = (task if isinstance(task, Task) else load_task(task)).instance(seed)
    if (instance.model_digest, instance.objective_names) != (solutions.model_digest, solutions.objectives):
        raise TaskError(
            f"task must be that of the solution set, {solutions.model_digest} with {', '.join(solutions.objectives)}, "
            f"got {instance.model_digest} with {', '.join(instance.objective_names)}. Name the same task, and the seed "
            "of its instance."
        )
    given = preference_from_mapping(preference, solutions.objectives) if isinstance(preference, Mapping) else preference
    (wanted,) = check_preferences(given, len(solutions.objectives))
    if budget in (0, {"completions": 0}):
        if output is not None:
            solutions.save(output)
        return solutions
    completions = completions_of(budget)
    own: Any = _own(solutions, "adaptation")
    if own is None:
        made: Continuation = adaptation(
            solutions, instance, wanted, completions, seed, adapted_learning(instance, dict(settings or {}))
        )
    else:
        method = on_task(method_entry(solutions.method, dict(settings or {}), "adapt"), instance).method
        made = own(method, solutions, instance, wanted, completions, seed)
    return _continued(solutions, made, instance, seed, output, progress)


def add_objective(
    solutions: SolutionSet,
    task: str | Path | Task,
    budget: Mapping[str, int] | int,
    seed: int = 0,
    method: str | None = None,
    settings: Mapping[str, object] | None = None,
    preferences: ArrayLike | Mapping[str, float] | None = None,
    how: How | None = None,
    output: str | Path | None = None,
    progress: Link | None = None,
) -> SolutionSet:
    """Return a solution set for a task with one objective more.

    `modular`: one more expert is trained for the new objective alone, the others stay as they are; for methods whose
    answer is one expert for each objective. `retrain`: the method is trained again on all objectives. The notes say
    what it cost, `added`. A method that has an `addition` of its own is asked for it.

    Args:
        solutions: For the objectives there were.
        task: The task with the new objective among them.
        budget: `{"completions": n}`, or just n.
        seed: Of the training; it also names the task instance.
        method: Name of a built-in method, or `module:Class`; by default the solution set's.
        settings: What differs from the method's defaults.
        preferences: As for `paretune.train`, where the method is trained again.
        how: `modular` or `retrain`; by default the first where it is possible.
        output: Folder to save to. A call that was killed goes on where it stopped when it is made again.
        progress: Hears of completions made.

    Raises:
        ConfigError: If the method, a setting, the budget or the seed cannot be used, `how` is not possible, or a
            setting is given that one more expert does not read.
        BudgetError: If the budget is too small.
        TaskError: If the task is not that of the solution set with one objective more.
        StudyError: If the output folder already holds something else, or another call is training into it.
    """
    from paretune.tasks import load_task

    check_seed(seed)
    if how is not None:
        check_choice("how", how, ("modular", "retrain"))
    instance = (task if isinstance(task, Task) else load_task(task)).instance(seed)
    entry = on_task(method_entry(method or solutions.method, dict(settings or {}), "add_objective"), instance)
    if entry.label != solutions.method:
        if how == "modular":
            raise ConfigError(
                f"how must be 'retrain' with another method than the solution set's, '{solutions.method}', got "
                f"'modular' with '{entry.label}'. Leave one of them out."
            )
        how = "retrain"
    if preferences is None:
        given = grid_preferences(len(instance.objectives), 2)
    else:
        given = wanted_preferences(preferences, instance.objective_names)
    asked = (instance, given, completions_of(budget), seed, how)
    own: Any = getattr(entry.method, "addition", None)
    made: Continuation = (
        addition(solutions, entry.method, *asked, entry.given) if own is None else own(solutions, *asked)
    )
    named = replace(solutions, method=entry.label, family=entry.method.family)
    return _continued(named, made, instance, seed, output, progress)


def _own(solutions: SolutionSet, part: str) -> Any:
    """Return what the method of a solution set brings itself, or None."""
    known = ":" in solutions.method or solutions.method in METHODS
    return getattr(resolve_method(solutions.method), part, None) if known else None


def adapted_learning(task: Task, settings: dict[str, object]) -> ExpertSettings:
    """Return how what is adapted learns: as settings say, else as suits the task."""
    own = {name: value for name, value in task.learner.items() if hasattr(LearnerSettings, name)}
    made: ExpertSettings = make_settings(ExpertSettings, {**own, **settings}, "adapt", "an adapted policy")
    return made


@dataclass(frozen=True)
class Continued:
    """What a continuation has become.

    Attributes:
        solutions: The new solution set.
        results: Of its stages, those that they need included.
    """

    solutions: SolutionSet
    results: Mapping[str, StageResult]


def continued_in(
    work: Path, solutions: SolutionSet, plans: Sequence[Continuation], task: Task, seed: int, progress: Link | None
) -> list[Continued]:
    """Train what continuations of one solution set plan, stages of equal shape side by side, and assemble each.

    Args:
        work: Folder of the stages; a call that was killed goes on in it.
        solutions: What is gone on from.
        plans: What is to be trained.
        task: The task instance.
        seed: That names it.
        progress: Hears of completions made.

    Raises:
        RewardError: If an objective was never scored.
    """
    from paretune.models.solutions import SolutionSet

    kept = _given(solutions, work)
    everything = in_order([stage for plan in plans for stage in plan.stages], task)
    results = finished_results(work, everything, task, seed, progress)
    made = []
    for plan in plans:
        own = {key: results[key] for key in (stage.key(task) for stage in in_order(plan.stages, task))}
        assembly = plan.assemble(own, kept)
        made.append(Continued(SolutionSet.from_assembly(task, assembly, solutions.method, solutions.family), own))
    return made


def _continued(
    solutions: SolutionSet, made: Continuation, task: Task, seed: int, output: str | Path | None, progress: Link | None
) -> SolutionSet:
    return made_in(output, lambda work: continued_in(work, solutions, [made], task, seed, progress)[0].solutions)


def _given(solutions: SolutionSet, work: Path) -> tuple[Path, ...]:
    """Copy experts and gate of a solution set to where stages are given them; return the copies of the experts.

    The solution set's own folder may be gone before the new one is, and another one when a killed call goes on.
    """
    from paretune.models.adapters import adapter_digest

    kept = tuple(given_path(work, adapter_digest(expert)) for expert in solutions.experts)
    for expert, copy in zip(solutions.experts, kept, strict=True):
        shutil.copytree(expert, copy, dirs_exist_ok=True)
    gate = solutions.mixer.gate
    if gate is not None:
        shutil.copyfile(gate, given_path(work, file_digest(gate)))
    return kept
