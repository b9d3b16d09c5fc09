"""What comes after training, for methods that bring nothing of their own: another preference, another objective."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from paretune.core.adapted import Adapted
from paretune.core.answers import Combined, answer_to_plain, answered
from paretune.core.digests import file_digest
from paretune.core.errors import ConfigError, TaskError
from paretune.core.preferences import FloatArray, corners
from paretune.core.printable import brief
from paretune.core.protocols import Assembly, Method, Mixer
from paretune.core.seeds import stream_key
from paretune.core.stages import GATE, Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.asking import asked_stages, assembled
from paretune.methods.banks import bank_stage
from paretune.methods.experts import (
    SINGLE_OBJECTIVE,
    ExpertSettings,
    adapters_of,
    expert_stage,
    own_starts,
    settings_of,
    split_budget,
)

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet

How = Literal["modular", "retrain"]
NO_GATE = ("gate", "none")  # what every solution set has that gets one more expert


@dataclass(frozen=True, eq=False)
class Continuation:
    """What is still to be trained for a solution set, and the answer with it.

    Attributes:
        stages: As those of a method.
        assemble: From results by key and copies of the solution set's own experts, in their order, to the new answer.
    """

    stages: tuple[Stage, ...]
    assemble: Callable[[Mapping[str, StageResult], tuple[Path, ...]], Assembly]


def adaptation(
    solutions: SolutionSet, task: Task, preference: FloatArray, budget: int, seed: int, settings: ExpertSettings
) -> Continuation:
    """Fine-tune what answers a preference; every other preference is answered as before.

    A mixed delta becomes one expert, exactly, which is trained on: mixed experts are put side by side, so the rank is
    the sum of theirs. Behind a gate the experts that answer are copied and all trained on, under the gate as it is.

    Args:
        solutions: What answers now.
        task: Its task instance.
        preference: `[K]`.
        budget: Completions to train with.
        seed: Of the training.
        settings: How the experts learn; a mixture keeps the sum of its ranks where that is more, and experts behind a
            gate keep their own.

    Raises:
        BudgetError: If the budget is less than one group.
        ConfigError: If what answers is no policy of plain adapter deltas or of experts behind a gate, or a rank or
            scale is asked for behind a gate.
    """
    weights = answered(solutions.answer, preference[None])[0][0]
    if solutions.preference_text is not None:
        raise ConfigError(
            f"a policy to adapt must not read the preference in its prompt, got one of '{solutions.method}'. "
            "Train that method for longer, or adapt one whose experts are weighed."
        )
    (length,) = split_budget(budget, 1, settings.group_size)
    behind_gate = solutions.mixer.gate is not None
    trained = experts_behind_gate if behind_gate else one_expert
    stage, own = trained(solutions, preference, weights, length, seed, settings)

    def assemble(results: Mapping[str, StageResult], kept: tuple[Path, ...]) -> Assembly:
        result, mixer = results[stage.key(task)], solutions.mixer
        if behind_gate:
            mixer = replace(mixer, gate=result.artefacts[GATE], sets=mixer.sets + 1)
        answer = Adapted(answer_to_plain(solutions.answer), preference[None], own[None])
        spent = {"preference": preference.tolist(), **result.ledger.counts, "seconds": result.seconds}
        notes = {**solutions.notes, "adaptations": [*_adaptations(solutions), spent]}
        return Assembly((*kept, *adapters_of([result])), answer, mixer, notes)

    return Continuation((stage,), assemble)


def one_expert(
    solutions: SolutionSet, preference: FloatArray, weights: FloatArray, length: int, seed: int,
    settings: ExpertSettings,
) -> tuple[Stage, FloatArray]:  # fmt: skip
    """Describe the training of the one expert that a mixed delta is, and return its weight, 1, `[1]`.

    Args:
        solutions: What answers now, without a gate.
        preference: `[K]`.
        weights: Of its experts for this preference, `[E]`.
        length: Completions to train with.
        seed: Of the training.
        settings: How it learns.

    Raises:
        ConfigError: If what answers is no one delta.
    """
    used = [(solutions.experts[place], float(weights[place])) for place in np.flatnonzero(weights)]
    check_one_delta(solutions.mixer, [weight for _, weight in used])
    start = start_stage(used, settings.alpha / settings.rank, seed) if used else None
    return expert_stage(settings, preference, length, adaptation_seed(solutions, seed), start_from=start), np.ones(1)


def experts_behind_gate(
    solutions: SolutionSet, preference: FloatArray, weights: FloatArray, length: int, seed: int,
    settings: ExpertSettings,
) -> tuple[Stage, FloatArray]:  # fmt: skip
    """Describe the training of copies of all experts that a gate weighs, under it, and return their prior, `[E]`.

    Args:
        solutions: What answers now, behind a gate.
        preference: `[K]`.
        weights: Of its experts for this preference without the gate, those of other sets 0, `[S E]`.
        length: Completions to train with.
        seed: Of the training.
        settings: How they learn.

    Raises:
        ConfigError: If a rank or scale is asked for, which they have, or the prior weighs none of them.
    """
    for name in ("rank", "alpha"):
        if getattr(settings, name) != getattr(ExpertSettings, name):
            raise ConfigError(
                f"{name} must be left out behind a gate, whose experts keep theirs, got {getattr(settings, name)}. "
                "Remove it."
            )
    by_set = weights.reshape(solutions.mixer.sets, -1)
    if not by_set.any():
        raise ConfigError(
            f"a policy to adapt behind a gate must weigh an expert for its preference, got weights of 0 alone at "
            f"{preference.tolist()}. Adapt to another preference."
        )
    place, size = int(by_set.any(axis=1).argmax()), by_set.shape[1]
    prior, experts = by_set[place], solutions.experts[place * size : (place + 1) * size]
    start = kept_stage(experts, cast(Path, solutions.mixer.gate), seed)
    rule = np.tile(prior, (len(preference), 1))  # the same for every preference, of which there is one
    gate = str(start.settings["gate"])
    stage = bank_stage(
        settings, length, adaptation_seed(solutions, seed), gate, (start,), rule, "experts", preference=preference
    )  # fmt: skip
    return stage, prior


def adaptation_seed(solutions: SolutionSet, seed: int) -> int:
    """Return a seed of its own, or prompts and noise of the first training, or adaptation, would come again."""
    return stream_key(seed, "adapt", len(_adaptations(solutions))) % 2**31


def _adaptations(solutions: SolutionSet) -> list[object]:
    """Return what a solution set's notes say of its adaptations."""
    known = solutions.notes.get("adaptations", [])
    return known if isinstance(known, list) else []


def check_one_delta(mixer: Mixer, weights: list[float]) -> None:
    """Check that mixed experts are one delta of the base model, which another expert can be.

    Raises:
        ConfigError: If they are not: where hidden states or log-probabilities of several are mixed.
    """
    one = weights in ([], [1.0])
    if mixer.level == "adapters" or (one and (mixer.level, mixer.continued) != ("hidden", "base")):
        return
    raise ConfigError(
        "a policy to adapt must be the base model and one sum of adapter deltas, or experts behind a gate, got one of "
        f"{len(weights)} experts mixed at level '{mixer.level}'. Train for the preference with a method that mixes "
        "adapters, or give the method an `adaptation` of its own."
    )


@dataclass(frozen=True)
class SumSettings:
    """Settings of a start: what is summed."""

    experts: list[dict[str, object]]  # digest and weight of each, see `StageContext.given`
    scale: float  # of the one that comes out; how fast it learns depends on it


@dataclass(frozen=True)
class KeptSettings:
    """Settings of a start behind a gate: what is copied."""

    experts: list[str]  # digest of each, see `StageContext.given`
    gate: str  # its module:Class, as `banks.bank_stage` asks for it
    gate_file: str  # its digest


def start_stage(experts: list[tuple[Path, float]], scale: float, seed: int) -> Stage:
    """Describe the sum of weighed adapters as one adapter, which another stage can start from; it costs nothing.

    Args:
        experts: Their folders and weights; the run function is given those of the solution set that is gone on from.
        scale: Of the sum.
        seed: Of the training that needs it.
    """
    from paretune.models.adapters import adapter_digest

    listed: list[dict[str, object]] = [
        {"digest": adapter_digest(folder), "weight": weight} for folder, weight in experts
    ]
    settings = asdict(SumSettings(listed, scale))
    return Stage("start", "paretune.methods.defaults:sum_experts", settings, seed=seed)


def kept_stage(experts: Sequence[Path], gate: Path, seed: int) -> Stage:
    """Describe copies of adapters and of the gate that weighs them, which a bank can start from; they cost nothing.

    Args:
        experts: Their folders, of the solution set that is gone on from.
        gate: Its file.
        seed: Of the training that needs them.
    """
    from paretune.models.adapters import adapter_digest
    from paretune.models.gate_sets import gate_class

    settings = asdict(KeptSettings([adapter_digest(each) for each in experts], gate_class(gate), file_digest(gate)))
    return Stage("start", "paretune.methods.defaults:keep_experts", settings, seed=seed)


def sum_experts(context: StageContext) -> None:
    """Write the weighed sum of adapters as one adapter of the sum of their ranks, `adapter`."""
    import torch

    from paretune.models.adapters import load_bank, save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.models.low_rank import side_by_side

    for stage in context.stages:
        settings = settings_of(SumSettings, stage)
        base = load_base(context.task.model)
        try:
            bank = load_bank(base, [context.given(str(each["digest"])) for each in settings.experts])
            weights = torch.tensor([float(str(each["weight"])) for each in settings.experts], device=base.device)
            factors = {
                path: side_by_side(layer.A, layer.B, weights * bank.scales / settings.scale)
                for path, layer in bank.layers.items()
            }
            rank, targets = bank.rank * bank.experts, sorted({path.rpartition(".")[2] for path in bank.layers})
            bank.unwrap()
            summed = ExpertBank(base, 1, rank, settings.scale * rank, targets)
            with torch.no_grad():
                for path, (down, up) in factors.items():
                    summed.layers[path].A[0], summed.layers[path].B[0] = down, up
            save_adapter(summed, 0, context.artefact(stage, "adapter"))
        finally:
            unwrap(base)
        context.seal(stage, {"rank": rank})


def keep_experts(context: StageContext) -> None:
    """Write adapters again as they are, `experts/000` and so on, and the gate that weighs them."""
    for stage in context.stages:
        settings = settings_of(KeptSettings, stage)
        for place, each in enumerate(settings.experts):
            shutil.copytree(context.given(each), context.artefact(stage, f"experts/{place:03d}"), dirs_exist_ok=True)
        shutil.copyfile(context.given(settings.gate_file), context.artefact(stage, GATE))
        context.seal(stage, {})


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
    kind = getattr(method.settings, "experts", SINGLE_OBJECTIVE)
    single = (kind.get("kind") if isinstance(kind, dict) else kind) in (SINGLE_OBJECTIVE, "none")
    possible = one_expert_each(solutions) and isinstance(method.settings, ExpertSettings) and single
    if how == "modular" and not possible:
        raise ConfigError(
            "how must be 'retrain' where a method has not one expert trained for each objective alone, got "
            f"'modular' for '{solutions.method}'. Leave it out."
        )
    if how == "retrain" or not possible:
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
