"""Run functions of the stages that methods share: training a trainee of any kind, and measuring experts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.errors import StopRequested
from paretune.core.feedback import feedback_of
from paretune.core.imports import import_name
from paretune.core.preference_text import PreferenceText
from paretune.core.stages import Stage, StageContext
from paretune.core.task import Row, Split, Task
from paretune.core.user_calls import called, check_takes
from paretune.methods.experts import ExpertSettings, MeasurementSettings, adapters_of, settings_of, start_of
from paretune.methods.folds import fold_means, fold_numbers, fold_sums
from paretune.methods.kept_measurements import KeptMeasurements
from paretune.methods.prompt_halves import trained_prompts
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from paretune.core.preferences import FloatArray
    from paretune.models.bank import ExpertBank
    from paretune.models.base import BaseModel
    from paretune.models.policy import Policy
    from paretune.records.evaluation import EvaluationRecord
    from paretune.rl.learner import Learner
    from paretune.rl.rollout import Prompts
    from paretune.rl.rollouts import Environment
    from paretune.rl.slots import Slots
    from paretune.rl.trainees import Trainee

CHECKPOINT_SECONDS = 600.0
STATE = "state.safetensors"
NAMED = ("advantages", "shaping", "weighting", "gate")  # settings of the stages below that name code


@dataclass(frozen=True, eq=False)
class Run:
    """One trajectory of a run function: its stages by length, and how its artefacts are written.

    Attributes:
        stages: Shortest first.
        save: Writes the artefacts of one of them from what the trainee holds.
    """

    stages: tuple[Stage, ...]
    save: Callable[[Stage], None]


def trajectories(context: StageContext) -> list[tuple[Stage, ...]]:
    """Return the stages of each trajectory, shortest first."""
    gathered: dict[str, list[Stage]] = {}
    for stage in context.stages:
        gathered.setdefault(stage.trajectory_key(context.task), []).append(stage)
    return [tuple(sorted(stages, key=lambda stage: stage.completions)) for stages in gathered.values()]


def train_experts(context: StageContext) -> None:
    """Train the experts of a population, handing each over at every planned length.

    Where its stages name an adapter to start from, `start_from`, all start as that one, which the stage they need left.
    """
    from paretune.models.adapters import read_adapter, save_adapter, start_as
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.rl.trainees import Member, Population

    task, settings = context.task, context.stages[0].settings
    base = load_base(task.model)
    by_member = trajectories(context)
    members = [
        Member(
            objective_weights(context, stages[0]),
            stages[0].seed,
            tuple(stage.completions for stage in stages),
            context.ledger(stages[-1]),
            trained_prompts(task, stages[0].member),
        )
        for stages in by_member
    ]
    filled = slots(task, settings, [each.objective_weights for each in members])
    shape, start = settings_of(ExpertSettings, context.stages[0]), None
    if settings.get("start_from"):
        (need,) = context.stages[0].needs
        start = read_adapter(context.result(need).artefacts[str(settings["start_from"])])
    try:
        rank = shape.rank if start is None else max(shape.rank, start.config.rank)
        bank = ExpertBank(base, len(members), rank, shape.alpha)
        bank.initialise([start_of(stages[0]) for stages in by_member])
        if start is not None:
            start_as(bank, start)

        def saver(index: int) -> Callable[[Stage], None]:
            return lambda stage: save_adapter(bank, index, context.artefact(stage, "adapter"))

        runs = [Run(stages, saver(index)) for index, stages in enumerate(by_member)]
        train(context, Population(bank, members), runs, filled)
    finally:
        unwrap(base)


def objective_weights(context: StageContext, stage: Stage) -> FloatArray:
    """Return what an expert is trained for, `[K]`: what its stage says, or a stage that it needs has chosen."""
    told: Any = stage.member.get("objective_weights")
    if told is None:
        rows: Any = context.result(stage.needs[0]).values["objective_weights"]
        told = rows[int(str(stage.member["chosen"]))]
    return np.asarray(told, dtype=np.float64)


def resolve_named(slot: str, name: str) -> Any:
    """Return the code that a stage's settings name for a slot: the same check in planning and in training.

    Args:
        slot: One of `NAMED`.
        name: `module:name`.

    Raises:
        ConfigError: If it cannot be imported, or is not what it should be.
        MethodError: If it cannot be called as it is.
    """
    if slot == "gate":
        from paretune.models.gate import resolve_gate

        return resolve_gate(name)
    if slot == "weighting":
        from paretune.rl.weighting import resolve_weighting

        return resolve_weighting(name)
    if slot == "advantages":
        from paretune.rl.estimators import resolve_advantages

        return resolve_advantages(name)
    function = import_name(slot, name)
    if isinstance(function, type):  # a shaping of each member
        function = import_name(slot, name, ("shape",))
        check_takes(f"{slot} '{name}'", function, ("preference", "settings", "ranges"))
    else:
        check_takes(f"{slot} '{name}'", function, ("rewards [B, K]", "ranges [K, 2]"))
    return function


def slots(task: Task, settings: Mapping[str, object], preferences: Sequence[FloatArray]) -> Slots:
    """Return what a stage's settings name for the slots of the learner.

    Args:
        task: Its reward ranges go to weightings.
        settings: Of the stage; `weighting` and `shaping` name code, the rest is for the weighting. What `advantages`
            names is the learner's to find.
        preferences: What each member is trained for.

    Raises:
        ConfigError: If a name cannot be imported, or is not what it should be.
        MethodError: If it cannot be called as it is.
        WeightingError: If a weighting does not go on from its state.
    """
    from paretune.rl.slots import Slots
    from paretune.rl.weighting import check_restores

    weightings, shapings = [], []
    shaping = resolve_named("shaping", str(settings["shaping"])) if settings.get("shaping") else None
    if isinstance(shaping, type):  # one of each member
        with called(f"shaping {shaping.__qualname__}"):
            shapings = [shaping(row.copy(), copy.deepcopy(dict(settings)), ranges(task)) for row in preferences]
        shaping = None
    if settings.get("weighting"):
        kind = resolve_named("weighting", str(settings["weighting"]))
        check_restores(kind, settings, ranges(task))
        weightings = [kind(row.copy(), copy.deepcopy(dict(settings)), ranges(task)) for row in preferences]
    return Slots(weightings=weightings, shaping=shaping, shapings=shapings)


def ranges(task: Task) -> FloatArray:
    """Return lowest and highest possible reward of each objective, `[K, 2]`."""
    return np.asarray([objective.range for objective in task.objectives], dtype=np.float64)


def environment(base: BaseModel, task: Task, settings: Mapping[str, object] | None = None) -> Environment:
    """Return what a learner makes completions for and scores them by.

    Args:
        base: The base model.
        task: The task instance.
        settings: Of the stage, which may say how preferences are written into prompts, `preference_text`.
    """
    from paretune.objectives.scoring import Scorer
    from paretune.rl.rollouts import Environment

    return Environment(
        Scorer(task.objectives), prompts(base, task, "train", settings), task.beta, task.max_completion_tokens,
        ranges(task), prompts(base, task, "development", settings), feedback_of(settings or {}),
        task.prompt_preferences,
    )  # fmt: skip


def train(
    context: StageContext, trainee: Trainee, runs: Sequence[Run], filled: Slots | None = None, name: str = "state"
) -> None:
    """Train a trainee to all lengths of its runs: seal each, resume after a kill, extend what is finished.

    Args:
        context: Of the run function.
        trainee: One member per run.
        runs: Stages and how their artefacts are written.
        filled: What a method puts in the place of the learner's defaults.
        name: Of its checkpoint, where a run function trains one trainee after another.
    """
    from paretune.rl.checkpoints import read_state, save_state
    from paretune.rl.learner import Learner

    task = context.task
    made = environment(trainee.bank.base, task, context.stages[0].settings)
    learner = Learner(trainee, made, settings_of(LearnerSettings, context.stages[0]), filled)
    checkpoint = context.checkpoint_folder() / f"{name}.safetensors"
    if checkpoint.exists():
        learner.load_state(*read_state(checkpoint))
    else:
        for index, run in enumerate(runs):
            start = context.start_folder(run.stages[0])
            if start is not None and (start / STATE).exists():
                learner.load_member_state(index, *read_state(start / STATE))
    keys = [run.stages[0].trajectory_key(task) for run in runs]

    def hand_over(index: int, length: int) -> None:
        stage = next(stage for stage in runs[index].stages if stage.completions == length)
        runs[index].save(stage)
        save_state(context.end_folder(stage) / STATE, *learner.member_state(index))
        context.seal(stage, {**learner.estimate(index), **learner.conflicts(index)})

    learn(context, learner, hand_over, checkpoint, keys)


def learn(
    context: StageContext, learner: Learner, hand_over: Callable[[int, int], None], checkpoint: Path,
    keys: Sequence[str],
) -> None:  # fmt: skip
    """Let a learner train to all its lengths; its state is kept before each hand-over, every ten minutes, at a stop.

    Args:
        context: Of the run function; told of progress.
        learner: Where it stands.
        hand_over: Called at each planned length of each member.
        checkpoint: File of the state.
        keys: Trajectory of each member, for the events.
    """
    from paretune.rl.checkpoints import save_state

    saved, heard = time.monotonic(), list[int]()

    def on_update(event: Mapping[str, Any]) -> None:
        context.log({**event, "trajectory": keys[event["member"]]})
        heard.append(event["completions"] + event["measured"] + event.get("greedy", 0))

    def report() -> None:
        while heard:
            context.progress(heard.pop(0))

    def before_update() -> None:
        nonlocal saved
        try:
            report()
        except StopRequested:
            save_state(checkpoint, *learner.state())
            raise
        if learner.hands_over_next() or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(checkpoint, *learner.state())
            saved = time.monotonic()

    learner.train(hand_over, on_update, before_update)
    report()


def measure_experts(context: StageContext) -> None:
    """Measure experts on development prompts.

    It seals `scores [E, K]`, mean rewards, None where every reward of an objective is missing, `kl [E]`, the mean KL of
    the same completions in nats, `folds [E, F, K + 1]`, both on each fold of the prompts, and `fold_counts`, of how
    many completions each of these is the mean. An expert is measured once, however often the stage is stopped.
    """
    from paretune.models.adapters import load_bank
    from paretune.models.loading import load_base, unwrap

    base = load_base(context.task.model)
    for stage in context.stages:
        adapters = adapters_of(context.result(need) for need in stage.needs)
        try:
            found = _measured_one_by_one(context, stage, one_by_one(load_bank(base, adapters), context.task))
        finally:
            unwrap(base)
        context.seal(stage, {name: [each[name] for each in found] for name in found[0]})


def _measured_one_by_one(context: StageContext, stage: Stage, policies: Policy) -> list[Mapping[str, Any]]:
    """Return what is sealed of each expert, measured now or before a stop."""
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate
    from paretune.rl.requests import Requests

    task, kept = context.task, KeptMeasurements(context, stage)
    each = settings_of(MeasurementSettings, stage).completions_each
    score, ledger = Scorer(task.objectives), context.ledger(stage)
    chosen = min(each, len(task.development_rows()))
    rows, samples = task.development_rows()[:chosen], each // chosen

    def measured(expert: int) -> dict[str, Any]:
        alone = Requests(policies, policies.preferences[[expert]], np.full((1, chosen), expert))
        (record,) = evaluate(
            alone, rows, score, task.objective_names, samples=samples, seed=stage.seed, split="development",
            ledger=ledger,
        )  # fmt: skip
        return _measurement(record, rows)

    return [kept.answer({"expert": expert}, partial(measured, expert)) for expert in range(len(policies))]


def _measurement(record: EvaluationRecord, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what is sealed of one expert."""
    scores = [None if np.isnan(score) else float(score) for score in record.scores]
    folds, counts = _folds(record, rows)
    return {"scores": scores, "kl": record.kl, "folds": folds, "fold_counts": counts}


def _folds(record: EvaluationRecord, rows: Sequence[Row]) -> tuple[list[list[float | None]], list[list[int]]]:
    """Return mean rewards and KL on each fold of the prompts, None where nothing is known, and of how many each is."""
    numbers = {str(row["prompt_id"]): number for number, row in enumerate(rows)}
    known = np.column_stack([record.rewards, record.log_probs - record.reference_log_probs])
    counts, sums = fold_sums(known, fold_numbers([numbers[each] for each in record.prompt_ids]))
    means = fold_means(counts, sums)
    return [[None if np.isnan(value) else float(value) for value in row] for row in means], counts.astype(int).tolist()


def one_by_one(bank: ExpertBank, task: Task) -> Policy:
    """Return the experts of a bank as policies, one each, to be measured."""
    from paretune.models.policy import Policy

    count, objectives = bank.experts, len(task.objectives)
    return Policy(
        bank.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
        np.full((count, objectives), 1 / objectives), ["selected"] * count, np.eye(count),
    )  # fmt: skip


def prompts(base: BaseModel, task: Task, split: Split, settings: Mapping[str, object] | None = None) -> Prompts:
    """Return the prompts of a split with their token ids, and with preferences in front where settings say how."""
    from paretune.rl.rollout import Prompts
    from paretune.tasks.checks import check_prompts

    check_prompts(task, base.encoder)
    rows = task.splits[split]
    ids = [base.encoder.ids(str(row["prompt"]), task.prompt_format) for row in rows]
    how: Any = (settings or {}).get("preference_text")
    if not how:
        return Prompts(rows, ids)
    written = PreferenceText(**how)

    def told(place: int, preference: FloatArray) -> tuple[int, ...]:
        return base.encoder.ids(f"{written.of(preference)}{rows[place]['prompt']}", task.prompt_format)

    return Prompts(rows, ids, told)
