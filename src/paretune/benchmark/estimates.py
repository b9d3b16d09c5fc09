"""How much a plan still takes: completions, and between how many minutes and how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from paretune.benchmark.measurements import TRIAL
from paretune.benchmark.measurements.timing import COMPLETIONS
from paretune.benchmark.planned import Plan, PlannedCell, PlannedTable, Speed
from paretune.benchmark.speed import UPDATES, Probe, Range, known_speeds, measure_speeds
from paretune.core.digests import digest
from paretune.core.task import Task
from paretune.records.outcomes import SCALES
from paretune.records.reading import read_stage
from paretune.training.groups import PlannedStage, needs, populations, trajectories

ASSUMED_RATE = 3_000.0  # tokens, or listed completions / 200, a second and worker, of small models on laptop cores
ASSUMED_WITHIN = 4.0  # times less or more than that, or than what is measured of other work on the task
NOISE = 1.25  # times less or more than what a few seconds, or earlier stages, say
START_SECONDS = Range(8.0, 40.0)  # imports of a worker, and the report
MEMBERS = 2  # of a population that is probed


def missing_completions(stages: Sequence[PlannedStage]) -> int:
    """Add up what is to be trained; a shorter run is made on the way of a longer one."""
    longest: dict[str, int] = {}
    for planned in stages:
        if planned.state != "finished":
            trajectory = planned.stage.trajectory_key(planned.task)
            longest[trajectory] = max(longest.get(trajectory, 0), planned.missing)
    return sum(longest.values())


@dataclass(frozen=True)
class Work:
    """Work of one kind that a plan still has to do.

    Attributes:
        probe: How a unit of it is measured.
        units: How many units there are.
        fewest: How many there are where preferences are answered alike.
        longest: Units of the longest job, which one worker does alone.
        tokens: Of a unit, for an assumption where nothing was measured.
        alone: Units beside these that are done while nothing else runs.
    """

    probe: Probe
    units: float
    fewest: float
    longest: float
    tokens: float
    alone: float = 0.0


def estimated(plan: Plan, measure: bool) -> Plan:
    """Return a plan with its minutes.

    Args:
        plan: The plan, whose sweep has its minutes already.
        measure: Measure for a few seconds what nobody knows yet; else it is assumed.
    """
    work = [*_training(plan), *_evaluation(plan)]
    known = known_speeds([each.probe for each in work])
    own = _finished(plan)
    missing = [each for each in work if each.probe.key not in {**known, **own}]
    if measure and missing:
        quick_first = ("sample", "train", "list")
        missing.sort(key=lambda each: (each.tokens < 1, quick_first.index(each.probe.kind), -each.units * each.tokens))
        known |= measure_speeds([each.probe for each in missing], plan.workers)
    speeds = {**known, **own}
    if not work:
        return replace(plan, minutes=(0.0, 0.0), speed="measured")
    seconds = [(each, _of(each, work, speeds)) for each in work]
    low = sum((each.fewest / plan.workers + each.alone) * speed.low for each, speed in seconds)
    high = sum((each.units / plan.workers + each.alone) * speed.high for each, speed in seconds)
    high += max(each.longest * speed.high for each, speed in seconds) * (1 - 1 / plan.workers)
    unknown = [each for each in work if each.probe.key not in speeds]
    source: Speed = "assumed" if len(unknown) == len(work) else "partly measured" if unknown else "measured"
    return replace(plan, minutes=((low + START_SECONDS.low) / 60, (high + START_SECONDS.high) / 60), speed=source)


def _of(work: Work, everything: Sequence[Work], speeds: Mapping[str, Range]) -> Range:
    """Return seconds a unit: as measured, else by what was measured of the task beside it, else as assumed."""
    found = speeds.get(work.probe.key)
    if found is not None:
        return Range(found.low / NOISE, found.high * NOISE)
    beside = [each for each in everything if each.probe.key in speeds and each.probe.task.name == work.probe.task.name]
    alike = [each for each in beside if each.probe.kind == work.probe.kind] or beside
    rates = [Range(*(seconds / each.tokens for seconds in speeds[each.probe.key])) for each in alike]
    low = min((each.low for each in rates), default=1 / ASSUMED_RATE)
    high = max((each.high for each in rates), default=1 / ASSUMED_RATE)
    return Range(work.tokens * low / ASSUMED_WITHIN, work.tokens * high * ASSUMED_WITHIN)


def _kind_of(planned: PlannedStage) -> str:
    """Digest what the cost of a completion depends on: rates, which are no whole numbers, leave it as it is."""
    settings = planned.stage.settings
    return digest([_shape(planned.task), planned.stage.run, _without_rates(settings)])


def _shape(task: Task) -> list[object]:
    """Return what cost depends on of a task; members of a family differ in numbers that cost nothing."""
    listed = None if task.enumeration is None else task.enumeration.completions
    name = [len(task.objectives), listed] if task.family_settings else task.source
    return [name, task.prompt_format.plain(), task.max_prompt_tokens, task.max_completion_tokens]


def _without_rates(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_rates(each) for name, each in value.items() if not isinstance(each, float)}
    return value


def _training(plan: Plan) -> list[Work]:
    kinds: dict[str, list[PlannedStage]] = {}
    for planned in plan.stages:
        if planned.state != "finished" and planned.stage.completions + planned.stage.enumerated:
            kinds.setdefault(_kind_of(planned), []).append(planned)
    found = []
    for key, members in kinds.items():
        groups = populations(members, plan.workers)
        sizes = [_units(group) for group in groups]
        first = [lengths[-1] for lengths in list(trajectories(groups[0]).values())[:MEMBERS]]
        listed = bool(first[0].stage.enumerated)
        search = bool(needs(first[0]))  # searches sample and score, as evaluation does
        probe = (
            _sampling(plan, first[0].task, first[0].seed)
            if search
            else Probe("train", key, first[0].task, first[0].seed, tuple(_shortened(each) for each in first))
        )
        tokens = 1 / 200 if listed else first[0].task.max_completion_tokens
        found.append(Work(probe, sum(sizes), sum(sizes), max(sizes), tokens))
    return found


def _units(members: Sequence[PlannedStage]) -> float:
    return missing_completions(members) or sum(each.stage.enumerated for each in members)


def _shortened(planned: PlannedStage) -> PlannedStage:
    """Return the same stage for a few updates."""
    stage, settings = planned.stage, dict(planned.stage.settings)
    if stage.enumerated:
        updates = int(str(settings["updates"]))
        settings["updates"] = min(UPDATES, updates)
        stage = replace(stage, settings=settings, enumerated=stage.enumerated * min(UPDATES, updates) // updates)
    else:
        update = int(str(settings.get("completions_per_update", 64)))
        stage = replace(stage, completions=min(stage.completions, UPDATES * update))
    return replace(planned, stage=stage, key=stage.key(planned.task), missing=stage.completions)


def _sampling(plan: Plan, task: Task, seed: int, kind: Literal["sample", "list"] = "sample") -> Probe:
    tested = [plan.study.samples, plan.study.prompts]
    key = digest([kind, _shape(task), tested])
    return Probe(kind, key, task, seed, samples=plan.study.samples, prompts=plan.study.prompts)


def _evaluation(plan: Plan) -> list[Work]:
    cells = {cell.name: cell for cell in plan.cells}
    found = []
    for task in plan.study.tasks:
        mine = [each for each in plan.tables if each.table.task == task.name and not (each.finished or each.rescored)]
        if not mine:
            continue
        instance, seed = task.instance(mine[0].table.seed), mine[0].table.seed
        most = [each.completions for each in mine]
        own = [each.completions * _apart(each, cells) for each in mine]
        timed = sum(each.table.measurement == "timing" for each in mine) * float(COMPLETIONS)
        sampling, tokens = _sampling(plan, instance, seed), task.max_completion_tokens
        found.append(Work(sampling, sum(most), sum(own), max(most), tokens, timed))
        if task.enumeration is not None:
            listed = [each for each in mine if each.table.measurement in ("outcomes", TRIAL)]
            truths = 2 * sum(each.table.measurement == "truth" for each in mine)
            policies = [_scales(each) * len(cells[each.table.cells[0]].preferences) for each in listed]
            fewest = sum(count * _apart(each, cells) for count, each in zip(policies, listed, strict=True))
            both = 2.0 * len(listed) + truths
            size = task.enumeration.completions * len(plan.study.test_rows(task)) / 200
            probe = _sampling(plan, instance, seed, "list")
            found.append(Work(probe, sum(policies) + both, fewest + both, max(policies, default=0) + 2.0, size))
    return found


def _scales(planned: PlannedTable) -> int:
    return 1 if planned.table.measurement == TRIAL else len(SCALES) - 1


def _apart(planned: PlannedTable, cells: Mapping[str, PlannedCell]) -> float:
    """Return which share of its cell's preferences different policies answer at least."""
    if not planned.table.cells:
        return 1.0
    cell = cells[planned.table.cells[0]]
    count = len(cell.preferences)
    return 1.0 if cell.entry.method.family == "meta-policy" else min(1.0, (cell.policies or count) / count)


def _finished(plan: Plan) -> dict[str, Range]:
    """Return seconds a completion, or a listed one, of the kinds of training that the folder has finished stages of."""
    sums: dict[str, list[float]] = {}
    for planned in plan.stages:
        if planned.state == "finished" and not planned.trouble:
            record = read_stage(plan.folder, planned.key)
            made = record.counts["completions"] or planned.stage.enumerated
            entry = sums.setdefault(_kind_of(planned), [0.0, 0.0])
            entry[0], entry[1] = entry[0] + record.seconds, entry[1] + made
    return {key: Range(seconds / made, seconds / made) for key, (seconds, made) in sums.items() if seconds and made}
