"""Training that goes on for one preference, for methods that bring nothing of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from paretune.core.adapted import Adapted
from paretune.core.answers import answer_to_plain, answered
from paretune.core.digests import file_digest
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer
from paretune.core.seeds import stream_key
from paretune.core.stages import GATE, Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.banks import bank_stage
from paretune.methods.experts import (
    ExpertSettings,
    adapters_of,
    expert_stage,
    settings_of,
    split_budget,
)

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet


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
