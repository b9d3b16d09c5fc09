"""Asking a method for its stages and for its answer; what a user's own gets wrong is said in one sentence."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

from paretune.core.checks import check_choice
from paretune.core.errors import BudgetError, ConfigError, MethodError, TaskError, UnknownNameError
from paretune.core.imports import import_name
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Family, Method, Mixer
from paretune.core.stages import Stage, StageResult, in_order
from paretune.core.task import Task
from paretune.core.user_calls import called, check_takes, shown
from paretune.core.user_code import REFERENCE
from paretune.methods.estimators_asked import asked_for
from paretune.methods.feedback import check_one_number
from paretune.methods.training import NAMED, resolve_named
from paretune.objectives.user_modules import check_reference
from paretune.rl.settings import ADVANTAGES, check_target, check_unweighed

TRAINING = "paretune.methods."  # where run functions are that read the settings which `NAMED` lists
PAGE = "See docs/your_method.md for a complete one."


def check_method(cls: Any, name: str) -> None:
    """Check the class of a method, of which it is known that it has all its parts.

    Args:
        cls: The class.
        name: As a study names it.

    Raises:
        ConfigError: If a part is not what it must be.
    """
    if not (isinstance(cls.Settings, type) and is_dataclass(cls.Settings)):
        raise ConfigError(f"Settings of method '{name}' must be a dataclass, got {shown(cls.Settings)}. {PAGE}")
    for part, kind, said in (("name", str, "text"), ("family", str, "text"), ("version", int, "a whole number")):
        value = getattr(cls, part)
        if not isinstance(value, kind):
            raise ConfigError(f"{part} of method '{name}' must be {said}, got {shown(value)}. {PAGE}")
    check_choice(f"family of method '{name}'", cls.family, get_args(Family))


def made_method(cls: Any, settings: Any) -> Method:
    """Make a method of its settings.

    Raises:
        MethodError: If its class cannot be called with them.
    """
    check_takes(f"{cls.__name__}.__init__", cls, ("settings",))
    with called(f"{cls.__name__}.__init__"):
        method: Method = cls(settings)
    return method


def asked_stages(method: Method, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
    """Ask a method for its stages, twice, as equal arguments must give equal stages.

    Args:
        method: The method.
        task: Its task instance.
        preferences: It is given, `[M, K]`.
        budget: Completions it may plan.
        seed: Its seed.

    Raises:
        MethodError: If it raises something, returns no stages, a stage that nobody could run, or others each time.
        ConfigError: If a stage names a run function, or code for its training, that cannot be imported, or all of them
            together cost more than the budget.
    """
    name = f"{type(method).__name__}.stages"
    first, again = (_stages(method, name, task, preferences, budget, seed) for _ in range(2))
    if first != again:
        raise MethodError(
            f"{name} must return equal stages for equal arguments, got {_difference(first, again)} when asked twice. "
            "Take randomness from seed alone; no clock, no counter, no order of a set."
        )
    planned = sum(stage.completions for stage in in_order(first, task))
    if planned > budget:
        raise ConfigError(f"{name} must plan at most its budget of {budget} completions, got {planned}. Correct it.")
    return first


def assembled(method: Method, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
    """Ask a method for its answer.

    Args:
        method: The method.
        task: Its task instance.
        preferences: It is given, `[M, K]`.
        results: Of all its stages.

    Raises:
        MethodError: If it raises something, or returns something else.
    """
    name = f"{type(method).__name__}.assemble"
    check_takes(name, method.assemble, ("task", "preferences", "results"))
    with called(name):
        made: Any = method.assemble(task, preferences.copy(), results)
    if not isinstance(made, Assembly):
        raise MethodError(f"{name} must return an Assembly, got {shown(made)}. Return Assembly(experts, answer).")
    experts: Any = made.experts
    mixer: Any = made.mixer
    notes: Any = made.notes
    if not isinstance(experts, (tuple, list)) or not all(isinstance(each, Path) for each in experts):
        raise MethodError(
            f"experts of {name} must be a tuple of adapter folders, got {shown(experts)}. Take adapters_of(...)."
        )
    if not isinstance(mixer, Mixer):
        raise MethodError(f"mixer of {name} must be a Mixer, got {shown(mixer)}. Leave it out, or make one.")
    if not isinstance(notes, Mapping):
        raise MethodError(f"notes of {name} must be a mapping, got {shown(notes)}. Leave them out, or correct them.")
    return made


def _stages(
    method: Method, name: str, task: Task, preferences: FloatArray, budget: int, seed: int
) -> tuple[Stage, ...]:
    check_takes(name, method.stages, ("task", "preferences", "budget", "seed"))
    with called(name):
        asked: Any = method.stages(task, preferences.copy(), budget, seed)
        if isinstance(asked, Stage) or not hasattr(asked, "__iter__"):
            got = f"{asked.kind} alone" if isinstance(asked, Stage) else shown(asked)
            raise MethodError(f"{name} must return Stage objects, got {got}. Return a tuple of them, such as (stage,).")
        found = tuple(asked)  # of a generator too, which runs now
    for stage in found:
        _check_stage(stage, f"{name} must return")
    for stage in in_order(found, task):
        if stage.run.startswith(TRAINING):
            _check_together(stage, task, f"stage '{stage.kind}' of {name}")
    return found


def _check_stage(stage: Any, rule: str) -> None:
    """Refuse what nobody could run, or write down; `rule` says who must return or hold it."""
    name = rule.removesuffix(" must return").removesuffix(" must hold")
    if not isinstance(stage, Stage):
        raise MethodError(f"{rule} Stage objects, got {shown(stage)} among them. Make each with Stage(...).")
    kind: Any = stage.kind
    named: Any = stage.run
    if not isinstance(kind, str) or not isinstance(named, str) or not REFERENCE.fullmatch(named):
        raise MethodError(
            f"a stage of {name} must have a word as kind and 'module:function' as run, got {shown(kind)} and "
            f"{shown(named)}. Name the run function, do not pass it."
        )
    what = f"stage '{stage.kind}' of {name}"
    for part in ("completions", "seed", "version", "enumerated"):
        value = getattr(stage, part)
        if type(value) is not int or value < 0:
            raise MethodError(f"{part} of {what} must be a whole number from 0 on, got {shown(value)}. Take int(...).")
    for part in ("settings", "member"):
        try:
            json.dumps(dict(getattr(stage, part)), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise MethodError(
                f"{part} of {what} must be a mapping of plain data, got: {error}. Keep numbers, strings, lists and "
                "mappings in it; an array's tolist()."
            ) from error
    run = import_name(f"run function of {what}", stage.run, advice="Name a function.")
    check_takes(f"run function '{stage.run}' of {what}", run, ("context",))
    if stage.run.startswith(TRAINING):
        _check_named(stage, what)
    needs: Any = stage.needs
    if not isinstance(needs, (tuple, list)):
        raise MethodError(f"needs of {what} must be a tuple of Stage objects, got {shown(needs)}. Correct it.")
    for need in needs:
        _check_stage(need, f"needs of {what} must hold")


def _check_named(stage: Stage, what: str) -> None:
    """Check the code that a stage's settings name for its training, with the checks of training itself."""
    for slot in NAMED:
        name = str(stage.settings.get(slot) or "")
        if name and not (slot == "advantages" and name in ADVANTAGES):
            try:
                (_check_ours if name.startswith("paretune.") else resolve_named)(slot, name)
            except (ConfigError, MethodError) as error:
                raise type(error)(f"{what}: {error}") from error


def _check_together(stage: Stage, task: Task, what: str) -> None:
    """Refuse settings of a stage's training that cannot go together, before anything is trained."""
    advantages, weighting = (str(stage.settings.get(slot) or "") for slot in ("advantages", "weighting"))
    group: Any = stage.settings.get("group_size", 0)
    asked = asked_for(advantages) if advantages else frozenset[str]()
    if "greedy_rewards" in asked and stage.completions <= group:
        raise BudgetError(
            f"{what}: completions must be at least {group + 1} for each policy, a group and the greedy completion that "
            f"it is compared with, got {stage.completions}. Raise the budget, or train fewer policies."
        )
    check_one_number(stage.settings, f"{what}: ")
    target_kl: Any = stage.settings.get("target_kl", 0.0)
    check_target(task.beta, target_kl, f"{what}: ")
    weighed = bool(weighting) and "objective_weights" in asked
    check_unweighed(advantages, weighed and "gram" in import_name("weighting", weighting).needs, f"{what}: ")


@functools.cache
def _check_ours(slot: str, name: str) -> None:
    """Check that code of the library exists without importing it, which may load torch."""
    try:
        check_reference(name)
    except (TaskError, UnknownNameError) as error:
        raise ConfigError(f"{slot} must name code that is there: {error}") from error


def _difference(first: tuple[Stage, ...], again: tuple[Stage, ...]) -> str:
    """Say in a few words what differs."""
    if len(first) != len(again):
        return f"{len(first)} and {len(again)} stages"
    one, other = next((one, other) for one, other in zip(first, again, strict=True) if one != other)
    part = next(part for part in vars(one) if getattr(one, part) != getattr(other, part))
    return f"stage '{one.kind}' with {part} {shown(getattr(one, part))} and {shown(getattr(other, part))}"
