"""The stages that methods share: an expert trained for fixed objective weights, and its measurement."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task

if TYPE_CHECKING:
    from paretune.models.base import BaseModel

CHECKPOINT_SECONDS = 600.0
STATE = "state.safetensors"
PLANNING = {"planning": True}  # metadata of settings that only say which stages there are and how long they last


@dataclass(frozen=True)
class ExpertSettings:
    """How an expert is shaped and trained; names and units as in PEFT and TRL where they have one."""

    rank: int = 8  # of every low-rank expert
    alpha: float = 16.0  # scale alpha / rank, PEFT's lora_alpha
    learning_rate: float = 5e-3  # best of four on the embedded base, docs/counselling.md; 1e-4 for 0.5 B
    group_size: int = 8  # completions per prompt G, TRL's num_generations
    completions_per_update: int = 64  # per expert
    warmup_updates: int = 0  # linear, constant afterwards
    max_grad_norm: float = 1.0  # per expert
    weight_decay: float = 0.0  # AdamW
    micro_batch: int = 0  # completions per backward pass and expert, 0: all at once
    update_dtype: str = "model"  # or bfloat16: autocast in the update

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank must be at least 1, got {self.rank}. Try 8.")
        if not self.alpha > 0 or not self.learning_rate > 0:
            raise ConfigError(f"alpha and learning_rate must be positive, got {self.alpha}, {self.learning_rate}.")
        if self.group_size < 2 or self.completions_per_update % self.group_size:
            raise ConfigError(
                "completions_per_update must be a multiple of group_size, which must be at least 2, got "
                f"{self.completions_per_update} and {self.group_size}. Try 64 and 8."
            )
        if self.completions_per_update < self.group_size:
            raise ConfigError(
                f"completions_per_update must be at least one group of {self.group_size}, got "
                f"{self.completions_per_update}. Try 64."
            )
        if self.micro_batch < 0 or self.micro_batch % self.group_size:
            raise ConfigError(
                f"micro_batch must be a multiple of group_size ({self.group_size}), got {self.micro_batch}. "
                "Write 0 for one backward pass over all."
            )
        if self.warmup_updates < 0 or not self.weight_decay >= 0:
            raise ConfigError(
                f"warmup_updates and weight_decay must not be negative, got {self.warmup_updates}, {self.weight_decay}."
            )
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm must be positive, got {self.max_grad_norm}. Try 1.0.")
        if self.update_dtype not in ("model", "bfloat16"):
            raise ConfigError(f"update_dtype must be 'model' or 'bfloat16', got '{self.update_dtype}'.")


def expert_settings(settings: Any) -> dict[str, object]:
    """Return the fields of a method's settings that reach its stages: all but those declared with `PLANNING`.

    Equal settings make equal stages, so methods whose settings differ in planning alone share their experts.

    Example:
        A field of the settings: `completions_each: int = field(default=1500, metadata=PLANNING)`.
    """
    kept = [each.name for each in fields(settings) if not each.metadata.get("planning")]
    values = asdict(settings)
    return {name: values[name] for name in kept}


def expert_stage(
    settings: Any,
    objective_weights: FloatArray,
    completions: int,
    seed: int,
    weighting: str = "",
    advantages: str = "",
    shaping: str = "",
    start: int | None = None,
) -> Stage:
    """Describe an expert trained for objective weights `[K]`.

    Args:
        settings: The method's settings, those of its experts among them; see `expert_settings`.
        objective_weights: What it is trained for.
        completions: Its budget.
        seed: Training seed.
        weighting: `module:Class` of a weighting that changes the weights; else they stay.
        advantages: `module:function` that makes advantages of rewards; else leave-one-out.
        shaping: `module:function` that shapes rewards before; else they are taken as they are.
        start: Seed of its random initial A; else `seed`. Experts to be averaged share it, those of a jointly trained
            bank do not.
    """
    names = {"weighting": weighting, "advantages": advantages, "shaping": shaping}
    member: dict[str, object] = {"objective_weights": [float(weight) for weight in objective_weights]}
    return Stage(
        kind="expert",
        run="paretune.methods.experts:train_experts",
        settings={**expert_settings(settings), **{key: name for key, name in names.items() if name}},
        member=member if start is None else {**member, "start": start},
        completions=completions,
        seed=seed,
    )


def whole_passes(completions: int, prompts: int) -> int:
    """Return how many completions measure an expert evenly: one for some prompts, or equally many for all of them.

    Example:
        >>> whole_passes(128, 64), whole_passes(100, 64), whole_passes(20, 64)
        (128, 64, 20)
    """
    return completions if completions <= prompts else completions // prompts * prompts


def measurement_stage(experts: Sequence[Stage], completions_each: int, seed: int) -> Stage:
    """Describe the measurement of experts on development prompts, charged like training."""
    return Stage(
        kind="measurement",
        run="paretune.methods.experts:measure_experts",
        settings={"completions_each": completions_each},
        needs=tuple(experts),
        completions=completions_each * len(experts),
        seed=seed,
    )


def split_budget(budget: int, parts: int, group_size: int) -> list[int]:
    """Divide a budget into whole groups per part, the first parts one group more where there is a remainder.

    Raises:
        BudgetError: If a part would get less than one group.

    Example:
        >>> split_budget(6000, 4, 8)
        [1504, 1504, 1496, 1496]
    """
    groups, left = divmod(budget // group_size, parts)
    if groups == 0:
        raise BudgetError(
            f"budget must give each of {parts} experts at least one group of {group_size} completions, got {budget}. "
            f"Raise it to at least {parts * group_size}."
        )
    return [(groups + (1 if part < left else 0)) * group_size for part in range(parts)]


def trained_weights(experts: Sequence[StageResult]) -> FloatArray:
    """Return the objective weights that experts were trained for, `[E, K]`."""
    return np.asarray([expert.stage.member["objective_weights"] for expert in experts], dtype=np.float64)


def adapters_of(results: Iterable[StageResult]) -> tuple[Path, ...]:
    """Return the adapters that stages left, stage by stage: what an `Assembly` calls its experts."""
    return tuple(adapter for result in results for adapter in result.adapters)


def train_experts(context: StageContext) -> None:
    """Train the experts of a population, handing each over at every planned length."""
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.objectives.scoring import Scorer
    from paretune.rl.learner import Learner, LearnerSettings, Member, read_state, save_state

    task = context.task
    base = _base(task)
    courses: dict[str, list[Stage]] = {}
    for stage in context.stages:
        courses.setdefault(stage.trajectory_key(task), []).append(stage)
    by_member = [sorted(stages, key=lambda stage: stage.completions) for stages in courses.values()]
    asked: dict[str, Any] = dict(context.stages[0].settings)  # a method's own settings among them
    known = {field.name for field in fields(ExpertSettings)}
    settings = ExpertSettings(**{name: value for name, value in asked.items() if name in known})
    members = [
        Member(
            np.asarray(stages[0].member["objective_weights"], dtype=np.float64),
            stages[0].seed,
            tuple(stage.completions for stage in stages),
            context.ledger(stages[-1]),
        )
        for stages in by_member
    ]
    bank = ExpertBank(base, len(members), settings.rank, settings.alpha)
    bank.initialise([member.seed for member in members])
    own = {field.name for field in fields(LearnerSettings)}
    learner = Learner(
        bank, Scorer(task.objectives), task.splits["train"], _encode(base, task), members, task.beta,
        task.max_completion_tokens,
        LearnerSettings(**{name: value for name, value in asdict(settings).items() if name in own}),
    )  # fmt: skip
    checkpoint = context.checkpoint_folder() / STATE
    if checkpoint.exists():
        learner.load_state(*read_state(checkpoint))
    else:
        for index, stages in enumerate(by_member):
            start = context.start_folder(stages[0])
            if start is not None and (start / STATE).exists():
                learner.load_member_state(index, *read_state(start / STATE))
    saved = time.monotonic()

    def before_update() -> None:
        nonlocal saved
        if learner.hands_over_next() or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(checkpoint, *learner.state())
            saved = time.monotonic()

    def hand_over(index: int, length: int) -> None:
        stage = next(stage for stage in by_member[index] if stage.completions == length)
        folder = context.artefact(stage, "adapter")
        save_adapter(bank, index, folder)
        save_state(folder.parent / "checkpoint" / STATE, *learner.member_state(index))
        context.seal(stage, {})

    def on_update(event: Any) -> None:
        index = int(event["member"])
        context.log({**event, "trajectory": by_member[index][0].trajectory_key(task)})
        context.progress(int(event["completions"]))

    try:
        learner.train(hand_over, on_update, before_update)
    except KeyboardInterrupt:  # asked for between two updates, where the state is consistent
        save_state(checkpoint, *learner.state())
        raise
    finally:
        bank.unwrap()


def measure_experts(context: StageContext) -> None:
    """Measure experts on development prompts: `scores [E, K]`, None where every reward is missing."""
    from paretune.models.adapters import load_bank
    from paretune.models.policy import Policy
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate

    task = context.task
    base = _base(task)
    for stage in context.stages:
        adapters = adapters_of(context.result(need) for need in stage.needs)
        bank = load_bank(base, adapters)
        count, objectives = len(adapters), len(task.objectives)
        policy = Policy(
            base, bank, task.template, task.max_prompt_tokens, task.max_completion_tokens,
            np.full((count, objectives), 1 / objectives), ["selected"] * count, np.eye(count),
        )  # fmt: skip
        each = int(stage.settings["completions_each"])  # type: ignore[call-overload]  # an int by construction
        prompts = min(each, len(task.splits["development"]))
        rows, samples = task.splits["development"][:prompts], each // prompts
        records = evaluate(
            policy, rows, Scorer(task.objectives), task.objective_names, samples=samples, seed=stage.seed,
            split="development", ledger=context.ledger(stage), progress=context.progress,
        )  # fmt: skip
        scores = [[None if np.isnan(score) else float(score) for score in record.scores] for record in records]
        bank.unwrap()
        context.seal(stage, {"scores": scores})


def _base(task: Task) -> BaseModel:
    from paretune.models.base import load_base

    return load_base(task.model)


def _encode(base: BaseModel, task: Task) -> list[tuple[int, ...]]:
    from paretune.tasks.checks import check_prompts

    check_prompts(task, base.tokenizer)
    return [tuple(base.encode(task.format_prompt(str(row["prompt"])))) for row in task.splits["train"]]
