"""Studies made up in memory, for tests of records, metrics and report: `import builders`.

`synthetic_study()` looks like a finished quick study (three objectives and one audit, three methods, three seeds, seven
preferences, decoding times) and takes milliseconds. `failed`, `pending`, `missing` and `timed` break it on purpose;
`exact` gives it the truth of a task whose completions can be listed.
The small builders below it (`task_info`, `evaluation`, `stage`, `cell`, `study`) are for values derived by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.digests import bytes_digest, digest
from paretune.core.preferences import centre, corners, das_dennis
from paretune.core.seeds import generator
from paretune.core.task import JudgedOn
from paretune.optimum.exact import Outcome, log_optimum, optimal_outcome, outcome
from paretune.records.evaluation import EvaluationRecord
from paretune.records.outcomes import SCALES, OutcomeRecord, TruthRecord, with_exact
from paretune.records.study import (
    CellRecord,
    CellState,
    FailureReason,
    ObjectiveInfo,
    StageRecord,
    StudyRecords,
    TaskInfo,
    TimedBatch,
    TimingRecord,
    TuningMeasure,
    TuningPoint,
    TuningRecord,
)

OBJECTIVES = ("reflection", "empathy", "brevity")
AUDIT = ("fluency",)
METHODS = {"linear": "single-policy", "weight_grid": "multi-policy", "rewarded_soups": "meta-policy"}
CEILING = "exact_gradient"
FAMILIES = {**METHODS, CEILING: "ceiling"}
STRENGTH = {"linear": 0.5, "weight_grid": 0.45, "rewarded_soups": 0.4, CEILING: 0.9}  # of the optimum's tilt
LISTED = 40  # completions of a task whose completions can be listed
PROMPTS = (
    "I keep putting off calling my sister.",
    "Nobody at work listens to me, & I'm <done> with it.",  # a report that does not escape breaks here
    "My exam is on Monday and I cannot sleep.",
    "He left, and the flat is so quiet now…",
)
REPLIES = (
    "It sounds like this has been weighing on you.",
    "You feel worn out and a little afraid.",
    "You want things to be different.",
    "Mhm.",
)
ENVIRONMENT = {
    "paretune": "0.1.0", "code": "c0de", "python": "3.11.9", "torch": "2.9.0", "cpu": "test", "cores": 2,
    "threads_per_worker": 1, "gpu": "",
}  # fmt: skip
BASE_SCORES = np.array([0.30, 0.35, 0.45, 0.70])  # of the reference policy: K objectives, then the audit


def task_info(
    name: str = "counselling",
    preferences: ArrayLike | None = None,
    unseen: Sequence[bool] | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    audit: Sequence[str] = AUDIT,
    thresholds: Sequence[float | None] | None = None,
    reference_point: Sequence[float] | None = None,
    test_prompts: int = len(PROMPTS),
    samples: int = 2,
    family_settings: Mapping[str, float] | None = None,
    listed: bool = False,
    judged_on: JudgedOn = "utility",
) -> TaskInfo:
    """Return a task; by default six grid preferences and one unseen, thresholds .5, reference point 0."""
    count = len(objectives)
    if preferences is None:
        preferences = np.vstack([das_dennis(count, 2), _unseen(count)])
        unseen = [False] * (len(preferences) - 1) + [True]
    points = np.atleast_2d(np.asarray(preferences, dtype=np.float64))
    passes = [0.5] * count if thresholds is None else thresholds
    infos = [ObjectiveInfo(each, (0.0, 1.0), limit, 1, False) for each, limit in zip(objectives, passes, strict=True)]
    infos += [ObjectiveInfo(each, (0.0, 1.0), None, 1, True) for each in audit]
    return TaskInfo(
        name=name,
        objectives=tuple(infos),
        reference_point=np.zeros(count) if reference_point is None else np.asarray(reference_point, dtype=np.float64),
        beta=0.05,
        model="builtin:counselling",
        test_prompts=test_prompts,
        samples=samples,
        preferences=points,
        unseen=np.zeros(len(points), dtype=np.bool_) if unseen is None else np.asarray(unseen, dtype=np.bool_),
        listed=listed,
        family_settings=family_settings or {},
        judged_on=judged_on,
    )


def evaluation(
    rewards: ArrayLike,
    preference: ArrayLike | None = None,
    objectives: Sequence[str] = OBJECTIVES,
    audit: Sequence[str] = (),
    answer: str = "exact",
    expert_weights: ArrayLike = (1.0, 0.0),
    kl: float = 0.0,
    samples: int = 1,
    split: str = "test",
) -> EvaluationRecord:
    """Return an evaluation with the given rewards `[N, K + audit]`; NaN is a reward whose function raised.

    `preference=None` is the reference policy. Every completion has log-probability -20 under the base, `kl` more under
    the policy.
    """
    matrix = np.asarray(rewards, dtype=np.float64)
    rows = len(matrix)
    prompts = [index // samples for index in range(rows)]
    replies = [REPLIES[index % len(REPLIES)] for index in range(rows)]
    point = np.full(len(objectives), np.nan) if preference is None else np.asarray(preference, dtype=np.float64)
    weights = np.zeros(0) if preference is None else np.asarray(expert_weights, dtype=np.float64)
    return EvaluationRecord(
        split=split,
        preference=point,
        answer="reference" if preference is None else answer,
        expert_weights=weights,
        identity=bytes_digest(weights.tobytes()),
        objectives=tuple(objectives),
        audit=tuple(audit),
        prompt_ids=tuple(f"test-{index:03d}" for index in prompts),
        samples=np.array([index % samples for index in range(rows)], dtype=np.int64),
        prompts=tuple(PROMPTS[index % len(PROMPTS)] for index in prompts),
        completions=tuple(replies),
        token_ids=tuple(tuple(range(3, 3 + len(reply.split()))) for reply in replies),
        finish=tuple("length" if index % 5 == 4 else "stop" for index in range(rows)),
        log_probs=np.full(rows, -20.0 + (0.0 if preference is None else kl)),
        reference_log_probs=np.full(rows, -20.0),
        rewards=matrix,
        statuses=np.where(np.isnan(matrix), "raised", "ok").astype(np.str_),
        latency_seconds=np.linspace(0.1, 0.2, rows),
    )


def stage(
    name: str,
    completions: int = 1500,
    needs: Sequence[str] = (),
    kind: str = "expert",
    tokens: float | None = None,
    flops: float | None = None,
    seconds: float = 10.0,
    key: str | None = None,
    conflicts: Sequence[float | None] = (),
    cpu_share: float | None = 1.0,
    attempts: Sequence[Mapping[str, object]] | None = None,
    settings: Mapping[str, object] | None = None,
) -> StageRecord:
    """Return a stage; its key is `key`, or the digest of its name.

    `cpu_share` is that of its CPU seconds in its seconds, None where they were not measured. One attempt on an idle
    machine unless `attempts` says otherwise.
    """
    tokens = 12.0 * completions if tokens is None else tokens
    zero = dict.fromkeys(("prompts", "completions", "tokens", "reward_calls", "flops"), 0.0)
    phases = {"sampling": 0.5 * seconds, "scoring": 0.2 * seconds, "update": 0.3 * seconds}
    return StageRecord(
        key=digest(name) if key is None else key,
        kind=kind,
        needs=tuple(needs),
        counts={
            "prompts": completions / 8,
            "completions": float(completions),
            "tokens": tokens,
            "reward_calls": 3.0 * completions,
            "flops": 6e6 * tokens if flops is None else flops,
        },
        repeated=zero,
        seconds=seconds,
        phases=phases,
        peak_memory_bytes=400_000_000,
        adapters=int(kind == "expert"),
        conflicts=tuple(conflicts),
        cpu_phases={phase: None if cpu_share is None else cpu_share * each for phase, each in phases.items()},
        attempts=(attempt(),) if attempts is None else tuple(attempts),
        settings={"completions_per_update": 64, "group_size": 8} if settings is None else settings,
    )


def attempt(**changes: object) -> dict[str, object]:
    """Return what an attempt ran on: one thread of an idle machine of two cores."""
    return {**ENVIRONMENT, "device": "cpu", "dtypes": ["float32"], "load": 1.0, "machine_cores": 2, **changes}


def cell(
    method: str = "linear",
    seed: int = 0,
    evaluations: Sequence[EvaluationRecord] = (),
    stages: Sequence[StageRecord] = (),
    task: str = "counselling",
    budget: int = 6000,
    state: CellState = "done",
    reason: FailureReason | None = None,
    message: str = "",
    outcomes: OutcomeRecord | None = None,
) -> CellRecord:
    """Return a cell, done unless said otherwise."""
    return CellRecord(
        cell=f"{task}-{method}-{budget}-{seed}",
        task=task,
        method=method,
        family=FAMILIES.get(method, "single-policy"),
        budget_completions=budget,
        seed=seed,
        state=state,
        reason=reason,
        message=message,
        stages=tuple(stages),
        evaluations=tuple(evaluations),
        outcomes=outcomes,
        environment=ENVIRONMENT if state == "done" else {},
    )


def outcomes(
    rewards: ArrayLike,
    kl: ArrayLike,
    preferences: ArrayLike,
    scales: Sequence[float] = (0.0, 1.0),
    exact: bool = True,
    reason: str = "",
) -> OutcomeRecord:
    """Return what policies do at every scale: rewards `[M, S, P, K]`, KL `[M, S, P]`, preferences `[M, K]`."""
    return OutcomeRecord(
        preferences=np.atleast_2d(np.asarray(preferences, dtype=np.float64)),
        scales=np.asarray(scales, dtype=np.float64),
        rewards=np.asarray(rewards, dtype=np.float64),
        kl=np.asarray(kl, dtype=np.float64),
        exact=exact,
        seconds=0.5,
        reason=reason,
    )


def truth(
    reference_rewards: ArrayLike,
    rewards: ArrayLike,
    kl: ArrayLike,
    preferences: ArrayLike,
    beta: float = 0.05,
    front_scores: ArrayLike | None = None,
) -> TruthRecord:
    """Return a truth: base `[P, K]`, optima `[M, P, K]` and their KL `[M, P]`; the front is those optima if None."""
    points = np.atleast_2d(np.asarray(preferences, dtype=np.float64))
    optimum = Outcome(np.asarray(rewards, dtype=np.float64), np.asarray(kl, dtype=np.float64))
    scores = optimum.scores(beta) if front_scores is None else np.asarray(front_scores, dtype=np.float64)
    return TruthRecord(
        beta=beta,
        reference_rewards=np.asarray(reference_rewards, dtype=np.float64),
        preferences=points,
        rewards=optimum.rewards,
        kl=optimum.kl,
        front_preferences=points if front_scores is None else np.zeros_like(scores),
        front_scores=scores,
    )


def study(
    cells: Sequence[CellRecord],
    tasks: Sequence[TaskInfo] | None = None,
    references: Mapping[tuple[str, int], EvaluationRecord] | None = None,
    timings: Sequence[TimingRecord] = (),
    truths: Mapping[tuple[str, int], TruthRecord] | None = None,
) -> StudyRecords:
    """Return a study of the given cells; one default task unless others are given."""
    infos = (task_info(),) if tasks is None else tasks
    return StudyRecords(
        name="synthetic",
        folder=None,
        resolved={
            "tasks": [info.name for info in infos],
            "methods": {each.method: {} for each in cells},
            "budget": {"completions": sorted({each.budget_completions for each in cells})},
            "seeds": len({each.seed for each in cells}),
            "preferences": {"grid": 2, "unseen": 1},
        },
        tasks={info.name: info for info in infos},
        cells=tuple(cells),
        references=references or {},
        timings=tuple(timings),
        truths=truths or {},
        environment={"paretune": "0.1.0", "python": "3.11.9", "torch": "2.9.0", "cpu": "test", "threads": 1, "gpu": ""},
    )


def synthetic_study(
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = tuple(METHODS),
    task: TaskInfo | None = None,
    budget: int = 6000,
    failed: Mapping[tuple[str, int], FailureReason] | None = None,
    pending: Sequence[tuple[str, int]] = (),
    missing: int = 0,
    timed: bool = True,
    exact: bool = False,
) -> StudyRecords:
    """Return a finished quick study that repeats exactly.

    Args:
        seeds: Seeds of every method.
        methods: Some of `FAMILIES`.
        task: A task with three objectives and one audit.
        budget: Completions per cell.
        failed: (method, seed) -> reason; these cells have no evaluations and the stages of what had finished.
        pending: (method, seed) of cells that never ran.
        missing: How many completions of every evaluation have no empathy reward.
        timed: Whether decoding was timed.
        exact: Whether completions can be listed, so that policies are scored exactly and the optimum is known.
    """
    info = dataclasses.replace(task_info() if task is None else task, listed=exact)
    reasons = failed or {}
    cells = []
    for method in methods:
        for seed in seeds:
            spent = _stages(method, budget, seed)
            if (method, seed) in reasons:
                reason = reasons[method, seed]
                message = f"The worker process stopped ({reason})."
                cells.append(cell(method, seed, (), spent[:1], info.name, budget, "failed", reason, message))
            elif (method, seed) in pending:
                cells.append(cell(method, seed, (), (), info.name, budget, "pending"))
            else:
                answers = [_answer(info, method, seed, index, missing) for index in range(len(info.preferences))]
                scored = _outcomes(info, method, seed) if exact else None
                if scored is not None:
                    answers = [with_exact(*each) for each in zip(answers, *scored.at_scale(1.0), strict=True)]
                cells.append(cell(method, seed, answers, spent, info.name, budget, outcomes=scored))
    timings = [_timing(info.name, method, position) for position, method in enumerate(methods)] if timed else []
    references = {(info.name, seed): _reference(info, seed, missing) for seed in seeds}
    truths = {(info.name, seed): _truth(info, seed) for seed in seeds} if exact else {}
    for key, known in truths.items():
        references[key] = with_exact(references[key], known.reference_rewards, np.zeros(info.test_prompts))
    return study(cells, [info], references, timings, truths)


def tuning(
    scores: Sequence[float | None] = (0.2, 0.6),
    method: str = "linear",
    task: str = "counselling",
    measure: TuningMeasure = "utility",
    chosen: int | None = 1,
) -> TuningRecord:
    """Return a sweep over learning rates 0.001, 0.002, ... on two instances, which scored alike."""
    points = tuple(
        TuningPoint(
            {"learning_rate": (place + 1) / 1000},
            score,
            {10_000: score, 10_001: score},
            "seed 10000: training did not stay finite" if score is None else "",
        )
        for place, score in enumerate(scores)
    )
    return TuningRecord(task, method, measure, 6000, corners(len(OBJECTIVES)), points, chosen, 24_000.0, 90.0)


def assert_same(first: object, second: object, where: str = "") -> None:
    """Assert that two records are exactly equal, NaN equal to NaN."""
    assert type(first) is type(second), where
    if dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name), f"{where}.{field.name}")
    elif isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        assert first.shape == second.shape, where
        assert first.dtype.kind == second.dtype.kind, where
        np.testing.assert_array_equal(first, second, err_msg=where)
    elif isinstance(first, dict) and isinstance(second, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}[{key}]")
    elif isinstance(first, tuple) and isinstance(second, tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert first == second, where


def _unseen(count: int) -> NDArray[np.float64]:
    point = np.arange(count, 0, -1, dtype=np.float64)
    return (point / point.sum()).round(4) if count != 3 else np.array([0.2, 0.1, 0.7])


def _members(method: str) -> NDArray[np.float64]:
    count = len(OBJECTIVES)
    if method == CEILING:
        return das_dennis(count, 2)
    return corners(count) if method == "rewarded_soups" else np.vstack([corners(count), centre(count)])


def _stages(method: str, budget: int, seed: int) -> list[StageRecord]:
    """Linear and weight_grid share four experts; weight_grid measures them after; soups train three longer ones."""
    members = _members(method)
    if method == CEILING:
        return [stage(f"exact {row.round(4).tolist()} {seed}", 0, seconds=9.0) for row in members]
    each = budget // 3 if method == "rewarded_soups" else budget // 4 - 100
    experts = [stage(f"expert {row.round(4).tolist()} {each} {seed}", each, seconds=each / 150) for row in members]
    if method != "weight_grid":
        return experts
    needs = [expert.key for expert in experts]
    return [*experts, stage(f"measurement {each} {seed}", 400, needs, "measurement", seconds=2.0)]


def _mixture(method: str, preference: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    if method == "rewarded_soups":
        return preference, "combined"
    members = _members(method)
    distances = ((members - preference) ** 2).sum(axis=1)
    chosen = int(distances.round(12).argmin())
    if method == "weight_grid":
        return np.eye(len(members))[chosen], "selected"
    return np.eye(len(members))[chosen], "exact" if distances[chosen] < 1e-12 else "nearest"


def _answer(info: TaskInfo, method: str, seed: int, index: int, missing: int) -> EvaluationRecord:
    """True scores rise with the square root of the acting preference: a concave front, and soups a little below it."""
    preference = info.preferences[index]
    weights, answer = _mixture(method, preference)
    acting = weights @ _members(method)
    gain = 0.38 * np.sqrt(acting) if method != "rewarded_soups" else 0.36 * np.sqrt(acting)
    truth = BASE_SCORES + np.append(gain - 0.05 * (1 - acting), -0.08)
    rewards = _rewards(truth, info, ("synthetic", method, seed, index))
    rewards[:missing, 1] = np.nan
    kl = 1.5 * float((acting**2).sum())
    return evaluation(
        rewards, preference, OBJECTIVES, AUDIT, answer, weights, kl=kl + 0.01 * seed, samples=info.samples
    )


def _world(info: TaskInfo, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-probabilities of all completions under the base `[P, Y]`, and their rewards `[P, Y, K]`."""
    drawn = generator("world", info.name, seed)
    raw = drawn.normal(0, 1, (info.test_prompts, LISTED))
    log_reference = raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)
    rewards = np.clip(drawn.normal(0.4, 0.06, (info.test_prompts, LISTED, len(info.trained))), 0, 1)
    return log_reference, rewards


def _outcomes(info: TaskInfo, method: str, seed: int) -> OutcomeRecord:
    """Policies are tilted as the optimum of their acting preference is, only less; scales are shares of that tilt."""
    log_reference, rewards = _world(info, seed)
    strength = STRENGTH[method] + 0.02 * float(generator("strength", method, seed).normal())
    acting = np.stack([_mixture(method, each)[0] @ _members(method) for each in info.preferences])
    tables = [
        [log_optimum(log_reference, scale * strength * rewards, point, info.beta) for scale in SCALES]
        for point in acting
    ]
    found = outcome(np.array(tables), log_reference, rewards)
    return outcomes(found.rewards, found.kl, info.preferences, SCALES)


def _truth(info: TaskInfo, seed: int) -> TruthRecord:
    log_reference, rewards = _world(info, seed)
    optimum = optimal_outcome(log_reference, rewards, info.preferences, info.beta)
    dense = das_dennis(len(info.trained), 12)
    return TruthRecord(
        beta=info.beta,
        reference_rewards=np.einsum("py,pyk->pk", np.exp(log_reference), rewards),
        preferences=info.preferences,
        rewards=optimum.rewards,
        kl=optimum.kl,
        front_preferences=dense,
        front_scores=optimal_outcome(log_reference, rewards, dense, info.beta).scores(info.beta),
    )


def _reference(info: TaskInfo, seed: int, missing: int) -> EvaluationRecord:
    rewards = _rewards(BASE_SCORES, info, ("synthetic", "reference", seed))
    rewards[:missing, 1] = np.nan
    return evaluation(rewards, None, OBJECTIVES, AUDIT, samples=info.samples)


def _rewards(truth: NDArray[np.float64], info: TaskInfo, stream: Sequence[int | str]) -> NDArray[np.float64]:
    noise = generator(*stream).normal(0, 0.15, size=(info.test_prompts * info.samples, len(truth)))
    return np.clip(truth + noise, 0, 1)


def _timing(task: str, method: str, position: int) -> TimingRecord:
    base = (2000.0, 2100.0, 1900.0, 2050.0, 1990.0, 2200.0, 1800.0)
    ratio = 0.9 - 0.1 * position
    return timing([ratio * each for each in base], base, method, task)


def timing(
    speeds: Sequence[float],
    base: Sequence[float],
    method: str = "linear",
    task: str = "counselling",
    rows: int = 64,
    busy: float = 0.0,
) -> TimingRecord:
    """Return the timing of one number of rows, 32 new tokens each: tokens per second of every round.

    The first token takes a tenth of a reply. Mixed preferences are half as fast as one, on two rows and more; the
    policy holds 30 MB and the base model 20.
    """
    latency = {
        name: tuple(rows * 32 / each if each else 0.0 for each in values)
        for name, values in (("base", base), ("policy", speeds))
    }
    first = {name: tuple(each / 10 for each in values) for name, values in latency.items()}
    if rows > 1:
        latency["mixed"] = tuple(2 * each for each in latency["policy"])
    batch = TimedBatch(rows, 32, latency, first, {"base": 20_000_000, "policy": 30_000_000}, "narrow")
    return TimingRecord(task, method, (batch,), "cpu", 1, "cpu", busy)


def study_of_experts(experts: int) -> StudyRecords:
    """Return a study of one finished cell whose method trained so many experts, `completions_each` 7,000."""
    info = task_info()
    rewards = np.full((info.test_prompts * info.samples, 4), 0.5)
    answers = [evaluation(rewards, each, audit=AUDIT, samples=info.samples) for each in info.preferences]
    stages = [stage(f"expert {number}") for number in range(experts)]
    made = study([cell(evaluations=answers, stages=stages)], [info])
    return dataclasses.replace(made, resolved={**made.resolved, "methods": {"linear": {"completions_each": 7000}}})
