"""What running a study would do: cells and stages, finished or new, with their cost. Nothing is written or trained."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paretune.benchmark.changes import Identity, KeptCell, changes, kept_cells, made_of
from paretune.benchmark.entries import MethodEntry, on_task, with_settings
from paretune.benchmark.estimates import (
    ENUMERATION_RATE,
    EVALUATION_RATE,
    START_SECONDS,
    evaluations,
    missing_completions,
    rate_of,
    scored_samples,
)
from paretune.benchmark.executors import worker_count
from paretune.benchmark.finished import finished_prefixes, longest_prefix
from paretune.benchmark.folder import check_folder, default_folder, groups_folder
from paretune.benchmark.keys import cell_name, evaluation_key, reference_key, training_key
from paretune.benchmark.planned import Plan, PlannedCell, PlannedStage, State
from paretune.benchmark.rescoring import audit_changes
from paretune.benchmark.study import Study, Tune, load_study
from paretune.benchmark.tuning import CellScore, read_score, score_key, tuning_records
from paretune.core.checks import check_choice, check_count
from paretune.core.digests import canonical_json, file_digest
from paretune.core.errors import ConfigError, ParetuneError, RecordError
from paretune.core.limits import MAX_WORKERS
from paretune.core.model_config import is_small
from paretune.core.protocols import CEILING
from paretune.core.stages import Stage, in_order
from paretune.core.task import Task
from paretune.methods.asking import asked_stages
from paretune.methods.banks import BANK
from paretune.records.files import DONE, FAILED, read_json, why_not_done
from paretune.records.layout import cell_folder, reference_path, stage_folder, truth_path, tuning_folder
from paretune.records.reading import read_reference
from paretune.records.study import TuningRecord

AFTER_TUNING = "after tuning"


def plan(
    source: str | Path | Mapping[str, object] | Study,
    folder: str | Path | None = None,
    *,
    workers: int | None = None,
    part: str | None = None,
) -> Plan:
    """Say what running a study would do, without doing any of it.

    Args:
        source: A study file, the name of a built-in study, or the same content as a mapping.
        folder: Its folder; by default `results/<name>`.
        workers: Worker processes; by default what the study says.
        part: Name of one of the study's parts; by default all cells.

    Raises:
        ConfigError: If the study breaks its rules, or has no such part.
        BudgetError: If a budget is too small for a method.
        StudyError: If the folder holds another study.
    """
    study = load_study(source)
    root = Path(folder) if folder is not None else default_folder(study)
    check_folder(study, root)
    pairs = pairs_of(study, part)
    if workers is not None:
        check_count("workers (--workers)", workers, 1, MAX_WORKERS, "Leave it out for what the study says.")
    count = workers or worker_count(study.workers, small=all(one_thread_each(task) for task in study.tasks))
    old = {cell.identity: cell for cell in kept_cells(root) if cell.finished}
    scores: dict[str, CellScore] = {}
    sweep = _sweep(study, root, {task for task, _ in pairs}, count, old, scores)
    tuned = () if study.tune is None or sweep is None else tuning_records(study.tune, sweep.cells, scores)
    entries = _entries(study, tuned)
    stages: AskedStages = {}
    cells = [
        _replacing(_cell(study, root, task, entry, budget, seed, stages, settled), old, study.tune)
        for task in study.tasks
        for entry, settled in entries[task.name]
        for budget in study.budgets
        for seed in study.seeds
        if (task.name, seed) in pairs
    ]
    references = tuple(
        (task.name, seed)
        for task in study.tasks
        for seed in study.seeds
        if (task.name, seed) in pairs and not reference_done(study, root, task, seed)
    )
    spent = {key: cost for score in scores.values() for key, cost in score.spent.items()}
    made = _plan(study, root, cells, stages, references, count, list(spent.values()))
    if sweep is None:
        return made
    minutes = sum(each.minutes for each in (sweep, made))
    return replace(made, sweep=sweep, tuned=tuned, minutes=minutes)


AskedStages = dict[str, tuple[Stage, Task, int, list[str]]]  # by key: the stage, its instance, seed, names of its cells


def _plan(
    study: Study,
    root: Path,
    cells: Sequence[PlannedCell],
    stages: AskedStages,
    references: tuple[tuple[str, int], ...],
    workers: int,
    spent: Sequence[tuple[float, float]] = (),
) -> Plan:
    """Put a plan together; `spent` are completions and seconds of stages that are not among its own."""
    planned = _stages(root, stages)
    by_key = {each.key: each for each in planned}
    cells = [_settle(cell, by_key) for cell in cells]
    train = missing_completions(planned)
    rate, measured = rate_of(planned, root, spent)
    evaluate = evaluations(study, root, cells, references)
    enumerated = sum(each.stage.enumerated for each in planned if each.state != "finished")
    tokens = max(task.max_completion_tokens for task in study.tasks)
    work = (train / rate if rate else 0.0, evaluate * tokens / EVALUATION_RATE, enumerated / ENUMERATION_RATE)
    return Plan(
        study=study,
        folder=root,
        cells=tuple(cells),
        stages=planned,
        references=references,
        workers=workers,
        completions_charged=sum(cell.charged for cell in cells),
        completions_to_train=train,
        completions_to_evaluate=evaluate,
        minutes=(sum(work) / workers + START_SECONDS) / 60 if any(work) else 0.0,
        rate=rate,
        rate_measured=measured,
        by_key=by_key,
    )


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
        _replacing(_cell(study, root, task, tried, study.tune.completions, seed, stages, point=number), old, None)
        for task in study.tasks
        for entry in study.methods
        if task.name in tasks and entry.method.family != CEILING
        for number, tried in enumerate(
            with_settings(on_task(entry, task), point, _tuned(study, entry, task)) for point in study.tune.points
        )
        for seed in study.tune.seeds
    ]
    scores.update({cell.name: read_score(root, cell.name) for cell in cells if cell.state == "finished"})
    return _plan(study, root, cells, stages, (), workers)


def _entries(study: Study, tuned: Sequence[TuningRecord]) -> dict[str, list[tuple[MethodEntry, bool]]]:
    """Return for each task its methods with the settings that tuning has chosen, and whether these are final."""
    chosen = {(each.task, each.method): each.points[each.chosen].settings for each in tuned if each.chosen is not None}
    entries: dict[str, list[tuple[MethodEntry, bool]]] = {}
    for task in study.tasks:
        for entry in study.methods:
            settings = chosen.get((task.name, entry.label))
            final = study.tune is None or entry.method.family == CEILING or settings is not None
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
    root: Path,
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
    told = (study if tune is None else tune).told_preferences(instance)
    preferences = study.preferences(instance)[0] if tune is None else told
    try:
        asked = asked_stages(entry.method, instance, told, budget, seed)
    except ParetuneError as error:
        raise type(error)(f"{study.where}: methods.{entry.label} with {budget} completions: {error}") from error
    everything = in_order(asked, instance)
    charged = sum(stage.completions for stage in everything)
    if charged > budget:
        raise ConfigError(
            f"{study.where}: methods.{entry.label} must plan at most its budget of {budget} completions, got "
            f"{charged}. Correct its stages()."
        )
    training = training_key(instance, entry, budget, seed, asked)
    name = cell_name(task.name, entry.label, budget, seed, training)
    if tune is None:
        evaluation = evaluation_key(training, instance, told, preferences, study.decoding())
    else:
        evaluation = score_key(training, told, scored_samples(study, instance))
    cell = PlannedCell(
        name=name,
        entry=entry,
        task=instance,
        budget=budget,
        seed=seed,
        stages=tuple(stage.key(instance) for stage in everything),
        charged=charged,
        policies=sum(_policies(stage, instance) for stage in everything),
        told=told,
        preferences=preferences,
        training_key=training,
        evaluation_key=evaluation,
        made_of=made_of(instance, entry, asked),
        state="new",
        point=point,
        tried="" if tune is None or point is None else canonical_json(tune.points[point]),
        settled=settled,
    )
    cell = _with_state(cell, root, study.decoding())
    if tune is None or cell.state != "finished":  # once a trial has its score, nobody needs its stages
        for stage in everything:
            stages.setdefault(stage.key(instance), (stage, instance, seed, []))[3].append(name)
    return cell


def _policies(stage: Stage, task: Task) -> int:
    """Return how many policies a stage trains, where that is known before: 0 of one that leaves what it finds."""
    return len(task.objectives) if stage.run == BANK else int(stage.kind == "expert")


def _with_state(cell: PlannedCell, root: Path, rules: object) -> PlannedCell:
    if not cell.settled:
        return replace(cell, reason=AFTER_TUNING)
    try:
        return _looked_at(cell, (cell_folder if cell.point is None else tuning_folder)(root, cell.name), rules)
    except RecordError as error:  # a run under way has just changed it, or it is damaged
        return replace(cell, state="unfinished", reason=str(error))


def _looked_at(cell: PlannedCell, folder: Path, rules: object) -> PlannedCell:
    """Look at what a cell's folder holds."""
    if (folder / DONE).exists():
        trouble = why_not_done(folder)
        if trouble:
            return replace(cell, state="unfinished", reason=trouble)
        values = read_json(folder / DONE)["values"]
        if values.get("evaluation_key") == cell.evaluation_key:
            return replace(cell, state="finished")
        changed = audit_changes(folder, cell.task, rules) if cell.point is None else None
        same = values.get("told") == cell.told.tolist() and values.get("preferences") == cell.preferences.tolist()
        if changed and same:
            reason = ", ".join(f"audit '{each}' changed" for each in changed)
            return replace(cell, state="stale", reason=reason, rescored=True)
        return replace(cell, state="unfinished", reason="trained; what is evaluated has changed")
    if (folder / FAILED).exists():
        failure = read_json(folder / FAILED)
        return replace(cell, state="failed", reason=f"{failure['reason']}: {failure['message']}")
    return cell


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


def _settle(cell: PlannedCell, stages: Mapping[str, PlannedStage]) -> PlannedCell:
    """Look at a cell's state again in the light of its stages."""
    if not cell.settled or (cell.point is not None and cell.state == "finished"):
        return cell
    states = [stages[key].state for key in cell.stages]
    finished = states.count("finished")
    if cell.state == "finished" and finished < len(states):
        return replace(
            cell, state="unfinished", reason=f"{len(states) - finished} of its {len(states)} stages are gone"
        )
    if cell.state == "new" and (finished or "unfinished" in states):
        return replace(cell, state="unfinished", reason=f"{finished} of {len(states)} stages finished")
    return cell


def _stages(root: Path, stages: Mapping[str, tuple[Stage, Task, int, list[str]]]) -> tuple[PlannedStage, ...]:
    under_way = _under_way(root)
    prefixes = finished_prefixes(root)
    planned = []
    for key, (stage, task, seed, cells) in stages.items():
        missing = 0
        state: State = "finished"
        if why_not_done(stage_folder(root, key)):
            state = "unfinished" if key in under_way else "new"
            missing = stage.completions - longest_prefix(prefixes, stage, task)[0]
        planned.append(PlannedStage(key, stage, task, seed, state, tuple(cells), missing))
    return tuple(planned)


def _under_way(root: Path) -> set[str]:
    keys: set[str] = set()
    for group in groups_folder(root).glob("*/group.json"):
        with contextlib.suppress(RecordError):  # a run under way may be removing it
            keys.update(read_json(group)["keys"])
    return keys


def reference_done(study: Study, root: Path, task: Task, seed: int) -> bool:
    """Whether the base model has been evaluated on the test prompts of a task instance.

    Its files must be those the marker names by their digests; those of an older marker, which names none, readable.
    """
    instance = task.instance(seed)
    key = reference_key(instance, study.decoding(), study.preferences(task)[0])
    path, exact = reference_path(root, task.name, seed), instance.enumeration is not None
    try:
        marker = read_json(path.with_suffix(".json"))
        if marker["key"] != key:
            return False
        if "files" in marker:
            files = [path, truth_path(root, task.name, seed)] if exact else [path]
            return all(file_digest(each) == marker["files"][each.name] for each in files)
        read_reference(root, task.name, seed, exact)
    except (RecordError, OSError, KeyError, TypeError):  # missing, damaged, or a marker that is none
        return False
    return True


def one_thread_each(task: Task) -> bool:
    """Whether a task's model is small enough for one thread a worker, and no GPU would take it."""
    if Path("/dev/nvidia0").exists() or Path("/dev/nvidiactl").exists():
        return False
    return is_small(task.model)
