"""The stages that methods share: an expert trained for fixed objective weights, and its measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from paretune.core.errors import AdapterError, BudgetError, ConfigError, SplitError
from paretune.core.preferences import FloatArray, corners
from paretune.core.seeds import stream_key
from paretune.core.settings import OPTIONAL, plain_settings
from paretune.core.stages import Stage, StageResult
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

# metadata of settings that only say which stages there are and how long they last, or that `stages()` hands over itself
PLANNING = {"planning": True}
# metadata of such settings that methods got after studies of them were kept: at its default one is no part of a key
LATER = {**PLANNING, **OPTIONAL}
DIGITS = 12  # of expert weights in keys, and to which candidates of equal weights are one
SINGLE_OBJECTIVE = "single_objective"  # the kind of experts that is the default: each trained for one objective alone

# of what the training of an expert leaves and reports; raised when that changes, and `pulls.SHUFFLED_VERSION` with it
EXPERT_VERSION = 2
# of what learning from earlier completions does; raised when that changes, which leaves all other experts as they are
REPLAY_VERSION = 2


@dataclass(frozen=True)
class ExpertSettings(LearnerSettings):
    """How an expert is shaped and trained; names and units as in PEFT and TRL where they have one."""

    rank: int = 8  # of every low-rank expert
    alpha: float = 16.0  # scale alpha / rank, PEFT's lora_alpha

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigError(f"rank must be at least 1, got {self.rank}. Try 8.")
        if not self.alpha > 0:
            raise ConfigError(f"alpha must be positive, got {self.alpha}. Try 16.")


def expert_settings(settings: Any) -> dict[str, object]:
    """Return the fields of a method's settings that reach its stages: all but those declared with `PLANNING`.

    Those declared with `core.settings.OPTIONAL` reach them only where they are not their default.

    Equal settings make equal stages, so methods whose settings differ in planning alone share their experts.

    Example:
        A field of the settings: `completions_each: int = field(default=1500, metadata=PLANNING)`.
    """
    values = plain_settings(settings)
    kept = {each.name: values[each.name] for each in fields(settings) if _reaches(each) and each.name in values}
    return {**kept, "replay_version": REPLAY_VERSION} if kept.get("replay") else kept


def _reaches(field: Field[Any]) -> bool:
    return not field.metadata.get("planning")


def settings_of(kind: type[Settings], stage: Stage) -> Settings:
    """Return the settings of a stage as those that they were written from, or as a part of them.

    Args:
        kind: A dataclass of settings; fields declared with `PLANNING` keep their defaults, as they never reach a stage,
            and so do those declared with `OPTIONAL` that did not.
        stage: It may have other settings beside them.

    Raises:
        ConfigError: If the stage lacks a setting.
    """
    reaching = [each for each in fields(kind) if _reaches(each)]
    names = [each.name for each in reaching if each.name in stage.settings or not each.metadata.get("optional")]
    for name in names:
        if name not in stage.settings:
            raise ConfigError(
                f"settings of a stage must have {name} to be trained by {stage.run}, got {', '.join(stage.settings)}. "
                "Write them with expert_settings."
            )
    make: Callable[..., Settings] = kind
    return make(**{name: stage.settings[name] for name in names})


def expert_stage(
    settings: Any,
    objective_weights: FloatArray,
    completions: int,
    seed: int,
    weighting: str = "",
    advantages: str = "",
    shaping: str = "",
    start: int | None = None,
    version: int = EXPERT_VERSION,
    prompts: Mapping[str, object] | None = None,
    start_from: Stage | None = None,
    start_artefact: str = "adapter",
) -> Stage:
    """Describe an expert trained for objective weights `[K]`.

    Args:
        settings: The method's settings, those of its experts among them; see `expert_settings`.
        objective_weights: What it is trained for.
        completions: Its budget.
        seed: Training seed.
        weighting: `module:Class` of a weighting that changes the weights; else they stay.
        advantages: What makes advantages of rewards, in the place of what the settings say.
        shaping: `module:function` that shapes rewards before; else they are taken as they are.
        start: Seed of its random initial A; else `seed`. Experts to be averaged share it, those of a jointly trained
            bank do not.
        version: Of what the training leaves: another one where the code that `weighting` names has one of its own.
        prompts: Which training prompts it visits, see `prompt_halves.half_of_prompts`; else all of them.
        start_from: A stage whose adapter it goes on from, without optimiser state; else it starts as the base model.
        start_artefact: Which of the adapters that this stage left.
    """
    names = {"weighting": weighting, "advantages": advantages, "shaping": shaping}
    if start_from is not None:
        names["start_from"] = start_artefact
    member: dict[str, object] = {"objective_weights": [float(weight) for weight in objective_weights]}
    kept = expert_settings(settings)
    if kept.get("feedback") == "oracle":
        del kept["feedback"]  # it is trained for one and the same request: as one that is told
    if prompts is not None:
        member["prompts"] = dict(prompts)
    return Stage(
        kind="expert",
        run="paretune.methods.training:train_experts",
        settings={**kept, **{key: name for key, name in names.items() if name}},
        member=member if start is None else {**member, "start": start},
        needs=() if start_from is None else (start_from,),
        completions=completions,
        seed=seed,
        version=version,
    )


def chosen_expert_stage(settings: Any, choice: Stage, row: int, completions: int, seed: int) -> Stage:
    """Describe an expert that is trained for objective weights which a stage it needs chooses.

    Args:
        settings: As of `expert_stage`.
        choice: It reports `objective_weights`, `[E, K]`.
        row: Which of these.
        completions: Its budget.
        seed: Training seed.
    """
    told = expert_stage(settings, np.zeros(0), completions, seed)
    return replace(told, member={"chosen": row}, needs=(choice,))


def corner_experts(settings: Any, objectives: int, budget: int, seed: int) -> tuple[Stage, ...]:
    """Describe one expert for each of K objectives, from a common start; methods that combine such experts share them.

    Raises:
        BudgetError: If an expert would get less than one group.
    """
    rows = corners(objectives)
    lengths = split_budget(budget, len(rows), settings.group_size)
    return tuple(expert_stage(settings, row, length, seed) for row, length in zip(rows, lengths, strict=True))


def weighed(preferences: FloatArray, rule: FloatArray) -> FloatArray:
    """Return the expert weights that a rule `[K, E]` gives preferences `[M, K]` as a key holds them, `[M, E]`.

    Inverses, and sums of products, differ between machines in their last bits, and a key must not: weights are rounded
    to 12 digits. Those of the identity are the preferences themselves, to the last bit.

    Example:
        >>> weighed(np.asarray([[0.5, 0.5]]), np.asarray([[1.7500000000000002, -0.75], [-0.75, 1.75]])).tolist()
        [[0.5, 0.5]]
    """
    found = preferences @ rule
    return found if np.array_equal(rule, np.eye(len(rule))) else np.asarray(found.round(DIGITS) + 0.0)


def whole_passes(completions: int, prompts: int) -> int:
    """Return how many completions measure an expert evenly: one for some prompts, or equally many for all of them.

    Example:
        >>> whole_passes(128, 64), whole_passes(100, 64), whole_passes(20, 64)
        (128, 64, 20)
    """
    return completions if completions <= prompts else completions // prompts * prompts


@dataclass(frozen=True)
class MeasurementSettings:
    """Settings of a measurement of experts."""

    completions_each: int  # of each expert, on development prompts


def measurement_stage(experts: Sequence[Stage], completions_each: int, seed: int) -> Stage:
    """Describe the measurement of experts on development prompts, charged like training."""
    return Stage(
        kind="measurement",
        run="paretune.methods.training:measure_experts",
        settings=asdict(MeasurementSettings(completions_each)),
        needs=tuple(experts),
        completions=completions_each * len(experts),
        seed=seed,
        version=3,  # reports the KL, and both by fold
    )


def split_budget(budget: int, parts: int, group_size: int) -> list[int]:
    """Divide a budget into whole groups per part, the first parts one group more where there is a remainder.

    Args:
        budget: What is left of a study's budget for them, which may be less than nothing.
        parts: Number of experts.
        group_size: Completions per prompt.

    Raises:
        SplitError: A `BudgetError`, if a part would get less than one group.

    Example:
        >>> split_budget(6000, 4, 8)
        [1504, 1504, 1496, 1496]
    """
    groups, left = divmod(budget // group_size, parts)
    if groups < 1:
        got = f"{budget} for all of them" if budget > 0 else "none: all of it is spent elsewhere"
        raise SplitError(
            f"budget must give each of {parts} experts at least one group of {group_size} completions, got {got}.",
            f"Raise it by at least {parts * group_size - budget:,}.",
        )
    return [(groups + (1 if part < left else 0)) * group_size for part in range(parts)]


@contextmanager
def left_by(setting: str, left: int, budget: int, given_by: str = "") -> Iterator[None]:
    """Let the refusal to split a part of a budget name the setting that leaves so little.

    It does not say by how much to raise the budget: of what it is raised by, the setting would leave a part only.

    Args:
        setting: Its name, such as `search_share`.
        left: What is split in this context.
        budget: What the setting takes its part of.
        given_by: The setting that this budget comes from; empty for the whole one.

    Raises:
        BudgetError: If the part is too small.
    """
    try:
        yield
    except SplitError as error:
        if left == budget:
            raise
        whole = f"{budget:,} completions" + (f" that {given_by} gives" if given_by else "")
        raise BudgetError(
            f"{error.rule} That is what {setting} leaves of {whole}. Raise {given_by or 'these'}, or change {setting}."
        ) from error


def start_of(expert: Stage) -> int:
    """Return the seed of an expert's random initial A."""
    return int(str(expert.member.get("start", expert.seed)))


def own_starts(experts: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return experts that each start from a random A of their own; the first keeps the one that all had.

    What they sample in training stays as it was: `seed` is another thing.
    """
    return tuple(
        replace(each, member={**each.member, "start": stream_key(each.seed, "start", number) % 2**62})
        if number
        else each
        for number, each in enumerate(experts)
    )


def trained_weights(experts: Sequence[StageResult]) -> FloatArray:
    """Return the objective weights that experts were trained for, `[E, K]`."""
    return np.asarray([expert.stage.member["objective_weights"] for expert in experts], dtype=np.float64)


def adapters_of(results: Iterable[StageResult]) -> tuple[Path, ...]:
    """Return the adapters that stages left, stage by stage: what an `Assembly` calls its experts.

    Raises:
        AdapterError: If a stage left none.
    """
    found: list[Path] = []
    for result in results:
        if not result.adapters:
            raise AdapterError(
                f"a stage whose adapters are asked for must have left some, got {', '.join(result.artefacts) or 'no'} "
                f"artefacts of {result.stage.kind} {result.key}. Name an adapter's artefact 'adapter' or "
                "'experts/000', and leave out stages without any."
            )
        found += result.adapters
    return tuple(found)
