"""What running a study would do: cells and stages, finished or new, with their cost. Nothing is written or trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paretune.benchmark.changes import Identity, KeptCell, changes, kept_cells, made_of
from paretune.benchmark.estimates import estimated, missing_completions
from paretune.benchmark.folder import check_folder, default_folder
from paretune.benchmark.keys import cell_name, training_key
from paretune.benchmark.measuring import wanted_tables
from paretune.benchmark.planned import SPEEDS, Plan, PlannedCell, PlannedTable, State
from paretune.benchmark.study import Study, Tune, load_study
from paretune.benchmark.tuning import CellScore, read_score, tuning_records
from paretune.benchmark.undivided import trained_policies
from paretune.core.checks import check_choice
from paretune.core.digests import canonical_json
from paretune.core.errors import ConfigError, ParetuneError
from paretune.core.model_config import is_small
from paretune.core.protocols import Table
from paretune.core.stages import Stage, in_order
from paretune.core.task import Task
from paretune.executors.cores import worker_count
from paretune.methods.asking import asked_stages
from paretune.methods.entries import MethodEntry, on_task, with_settings
from paretune.records.study import TuningRecord
from paretune.records.tables import Found, changed_rewards, differing, look, plain_parts
from paretune.tasks.models import check_models
from paretune.training.finished import finished_prefixes, longest_prefix, stage_trouble
from paretune.training.groups import PlannedStage, StageState, group_keys, groups_folder

AFTER_TUNING = "after tuning"


def plan(
    source: str | Path | Mapping[str, object] | Study,
    folder: str | Path | None = None,
    *,
    workers: int | None = None,
    part: str | None = None,
    measure: bool = False,
) -> Plan:
    """Say what running a study would do, without doing any of it.

    Args:
        source: A study file, the name of a built-in study, or the same content as a mapping.
        folder: Its folder; by default `results/<name>`.
        workers: Worker processes; by default what the study says.
        part: Name of one of the study's parts; by default all cells.
        measure: Run some of it for a few seconds where nobody knows yet how fast this machine is; rewards are called.

    Raises:
        ConfigError: If the study breaks its rules, or has no such part.
        BudgetError: If a budget is too small for a method.
        ModelError: If a model is not whole, or of a kind that cannot be used.
        StudyError: If the folder holds another study.
    """
    study = load_study(source)
    root = Path(folder) if folder is not None else default_folder(study)
    trouble = check_folder(study, root)
    pairs = pairs_of(study, part)
    check_models(task.instance(seed) for task in study.tasks for seed in study.seeds if (task.name, seed) in pairs)
    asked = study.workers if workers is None else workers
    count = worker_count(asked, small=all(one_thread_each(task) for task in study.tasks))
    old = {cell.identity: cell for cell in kept_cells(root) if cell.finished}
    scores: dict[str, CellScore] = {}
    sweep = _sweep(study, root, {task for task, _ in pairs}, count, old, scores)
    tuned = () if study.tune is None or sweep is None else tuning_records(study.tune, sweep.cells, scores)
    entries = _entries(study, tuned)
    stages: AskedStages = {}
    cells = [
        _cell(study, task, entry, budget, seed, stages, settled)
        for task in study.tasks
        for entry, settled in entries[task.name]
        for budget in study.budgets
        for seed in study.seeds
        if (task.name, seed) in pairs
    ]
    made = estimated(replace(_plan(study, root, cells, stages, count, old), trouble=trouble), measure)
    if sweep is None:
        return made
    sweep = estimated(sweep, measure)
    low, high = (sum(each) for each in zip(sweep.minutes, made.minutes, strict=True))
    return replace(
        made, sweep=sweep, tuned=tuned, minutes=(low, high), speed=max(sweep.speed, made.speed, key=SPEEDS.index)
    )


AskedStages = dict[str, tuple[Stage, Task, int, list[str]]]  # by key: the stage, its instance, seed, names of its cells


def _plan(
    study: Study,
    root: Path,
    cells: Sequence[PlannedCell],
    stages: AskedStages,
    workers: int,
    old: Mapping[Identity, KeptCell],
) -> Plan:
    """Put a plan together."""
    tables = tuple(_table(root, table) for table in wanted_tables(study, cells))
    by_folder = {each.table.folder: each for each in tables}
    cells = [_replacing(_with_state(cell, root, by_folder), old, study.tune) for cell in cells]
    scored = {cell.name for cell in cells if cell.point is not None and cell.state == "finished"}
    planned = _stages(root, {key: each for key, each in stages.items() if not scored.issuperset(each[3])})
    states = {each.key: each.state for each in planned}
    settled = tuple(_settle(cell, states) for cell in cells)
    return Plan(study, root, settled, planned, tables, workers, missing_completions(planned))


def _sweep(
    study: Study,
    root: Path,
    tasks: set[str],
    workers: int,
    old: Mapping[Identity, KeptCell],
    scores: dict[str, CellScore],
) -> Plan | None:
    """Plan the sweep over settings of some tasks; `scores` takes what its finished trials scored."""
    if study.tune is None:
        return None
    stages: AskedStages = {}
    cells = [
        _cell(study, task, tried, study.tune.completions, seed, stages, point=number)
        for task in study.tasks
        for entry in study.methods
        if task.name in tasks and study.tune.tunes(entry)
        for number, tried in enumerate(
            with_settings(on_task(entry, task), point, _tuned(study, entry, task)) for point in study.tune.points(entry)
        )
        for seed in study.tune.seeds
    ]
    made = _plan(study, root, cells, stages, workers, old)
    scores.update({cell.name: read_score(root, cell.name) for cell in made.cells if cell.state == "finished"})
    return made


def _entries(study: Study, tuned: Sequence[TuningRecord]) -> dict[str, list[tuple[MethodEntry, bool]]]:
    """Return for each task its methods with the settings that tuning has chosen, and whether these are final."""
    chosen = {(each.task, each.method): each.points[each.chosen].settings for each in tuned if each.chosen is not None}
    entries: dict[str, list[tuple[MethodEntry, bool]]] = {}
    for task in study.tasks:
        for entry in study.methods:
            settings = chosen.get((task.name, entry.label))
            final = study.tune is None or not study.tune.tunes(entry) or settings is not None
            mine = on_task(entry, task)
            if settings is not None:
                mine = with_settings(mine, settings, _tuned(study, entry, task))
            entries.setdefault(task.name, []).append((mine, final))
    return entries


def _tuned(study: Study, entry: MethodEntry, task: Task) -> str:
    return f"{study.where}: tune: methods.{entry.label} on task '{task.name}'"


def pairs_of(study: Study, part: str | None) -> set[tuple[str, int]]:
    """Return the (task, seed) of a part, or of the whole study.

    Raises:
        ConfigError: If the study has no such part.
    """
    if part is None:
        return {(task.name, seed) for task in study.tasks for seed in study.seeds}
    if not study.parts:
        raise ConfigError(f"part must be left out: {study.where} has no parts, got '{part}'. Run all of it.")
    chosen = study.parts[check_choice("part", part, study.parts)]
    return {(task, seed) for task in chosen.tasks for seed in chosen.seeds}


def _cell(
    study: Study,
    task: Task,
    entry: MethodEntry,
    budget: int,
    seed: int,
    stages: AskedStages,
    settled: bool = True,
    point: int | None = None,
) -> PlannedCell:
    """Plan a cell of the study, or of its sweep where `point` says which settings it tries."""
    instance = task.instance(seed)
    tune = None if point is None else study.tune
    given = (study if tune is None else tune).training_preferences(instance)
    preferences = study.preferences(instance)[0] if tune is None else given
    try:
        asked = asked_stages(entry.method, instance, given, budget, seed)
    except ParetuneError as error:
        raise type(error)(f"{study.rows[entry.label]} with {budget} completions: {error}") from error
    everything = in_order(asked, instance)
    charged = sum(stage.completions for stage in everything)
    training = training_key(instance, entry, budget, seed, asked)
    name = cell_name(task.name, entry.label, budget, seed, training)
    for stage in everything:
        stages.setdefault(stage.key(instance), (stage, instance, seed, []))[3].append(name)
    policies = trained_policies(everything, instance)
    tried = "" if tune is None or point is None else canonical_json(tune.points(entry)[point])
    keys = tuple(stage.key(instance) for stage in everything)
    return PlannedCell(
        name, entry, instance, budget, seed, keys, charged, policies, given, preferences, training,
        made_of(instance, entry, asked), "new", point=point, tried=tried, settled=settled,
    )  # fmt: skip


def _table(root: Path, table: Table) -> PlannedTable:
    """Look at what lies where a table goes, and say what has changed since it was made."""
    found = look(root, table.folder, table.key)
    if found.state != "stale":
        reason = f"{table.folder}: {found.reason}" if found.state == "damaged" else found.reason
        return PlannedTable(table, found, reason=reason)
    before, now = found.values["depends_on"], plain_parts(table)
    rewards = changed_rewards(before, now)
    if rewards is None:
        return PlannedTable(table, found, reason=f"{', '.join(differing(before, now))} changed")
    return PlannedTable(table, found, True, ", ".join(f"audit '{name}' changed" for name in rewards))


def _with_state(cell: PlannedCell, root: Path, tables: Mapping[str, PlannedTable]) -> PlannedCell:
    if not cell.settled:
        return replace(cell, reason=AFTER_TUNING)
    table = tables[cell.table]
    own = table.found if cell.point is not None else look(root, cell.folder, cell.key)
    if own.state == "failed":
        state: State = "failed" if own.failure else "unfinished"  # in the latter case its marker is damaged
        return replace(cell, state=state, reason=f"{own.failure}: {own.reason}" if own.failure else own.reason)
    if own.state == "missing" and table.found.state != "missing":
        own = Found("damaged", "cell.json is gone")
    if "damaged" in (own.state, table.found.state):
        reason = f"{cell.folder}: {own.reason}" if own.state == "damaged" else table.reason
        return replace(cell, state="unfinished", reason=reason, damaged=True)
    if table.rescored:
        return replace(cell, state="stale", reason=table.reason, rescored=True)
    if table.found.state == "stale":
        return replace(cell, state="unfinished", reason=f"trained; {table.reason}")
    return replace(cell, state="finished") if own.state == table.found.state == "finished" else cell


def _replacing(cell: PlannedCell, old: Mapping[Identity, KeptCell], tune: Tune | None) -> PlannedCell:
    """Say of a cell that was finished before an edit what has changed, beside what a sweep is still to choose."""
    known = old.get(cell.identity)
    if cell.state != "new" or known is None:
        return cell
    now = json.loads(json.dumps(cell.made_of))  # as it is read back
    said = changes(known.made_of, now, () if cell.settled or tune is None else tuple(tune.settings))
    if cell.settled:
        return replace(cell, state="stale", reason=", ".join(said or ["its stages changed"]))
    return replace(cell, state="stale", reason=f"{', '.join(said)}; {AFTER_TUNING}") if said else cell


def _settle(cell: PlannedCell, known: Mapping[str, State]) -> PlannedCell:
    """Look at a cell's state again in the light of its stages."""
    if not cell.settled or (cell.point is not None and cell.state == "finished"):
        return cell
    states = [known[key] for key in cell.stages]
    finished = states.count("finished")
    if cell.state == "finished" and finished < len(states):
        gone = f"{len(states) - finished} of its {len(states)} stages are gone"
        return replace(cell, state="unfinished", reason=gone)
    if cell.state == "new" and (finished or "unfinished" in states):
        return replace(cell, state="unfinished", reason=f"{finished} of {len(states)} stages finished")
    return cell


def _stages(root: Path, stages: Mapping[str, tuple[Stage, Task, int, list[str]]]) -> tuple[PlannedStage, ...]:
    under_way = {key for folder in groups_folder(root).glob("*") for key in group_keys(folder)}
    looked = {key: stage_trouble(root, stage, task) for key, (stage, task, _, _) in stages.items()}
    missing_ones = [stages[key][:2] for key, (wanted, _) in looked.items() if wanted]
    prefixes = finished_prefixes(root, {stage.trajectory_key(task) for stage, task in missing_ones})
    planned = []
    for key, (stage, task, seed, cells) in stages.items():
        missing = 0
        state: StageState = "finished"
        wanted, trouble = looked[key]
        if wanted:
            state = "unfinished" if key in under_way else "new"
            trouble = "" if key in under_way else trouble  # a run under way is writing it
            missing = stage.completions - longest_prefix(prefixes, stage, task)[0]
        planned.append(PlannedStage(key, stage, task, seed, state, tuple(cells), missing, trouble))
    return tuple(planned)


def one_thread_each(task: Task) -> bool:
    """Whether a task's model is small enough for one thread a worker, and no GPU would take it."""
    if Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists():
        return False
    return is_small(task.model)
