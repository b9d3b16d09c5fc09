"""Running a study to the end: what is missing and nothing else, whatever is killed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paretune.benchmark.changes import Identity, remove_replaced
from paretune.benchmark.folder import check_folder, default_folder, digests, settle
from paretune.benchmark.heartbeat import signs_of_life
from paretune.benchmark.plan import plan as make_plan
from paretune.benchmark.planned import Plan, StudyResult
from paretune.benchmark.progress import Display, display
from paretune.benchmark.scheduling import Scheduler
from paretune.benchmark.study import COPY, Study, load_study
from paretune.benchmark.summary import state_lines
from paretune.benchmark.tracked import runs_of
from paretune.benchmark.undivided import undivided
from paretune.benchmark.work import cell_record
from paretune.core.digests import bytes_digest
from paretune.core.task import Task
from paretune.executors import Executor
from paretune.executors.cores import worker_threads
from paretune.executors.environment import environment
from paretune.executors.processes import LocalProcesses
from paretune.metrics import measure_all
from paretune.records.files import write_bytes
from paretune.records.layout import lock_path
from paretune.records.reading import read_study
from paretune.records.study import ObjectiveInfo, StudyRecords, TaskInfo
from paretune.records.writing import write_lock
from paretune.report import write_report
from paretune.tracking import check_trackers
from paretune.tracking.following import following
from paretune.training.checkpoints import remove_checkpoints
from paretune.training.finished import mend_stage
from paretune.training.locking import locked


def run(
    source: str | Path | Mapping[str, object] | Study,
    folder: str | Path | None = None,
    *,
    workers: int | None = None,
    progress: bool | Display = True,
    part: str | None = None,
    executor: Executor | None = None,
    trackers: Sequence[str] = (),
) -> StudyResult:
    """Run a study, or finish, extend or just reread it: whatever is on disk already is not done again.

    Args:
        source: A study file, the name of a built-in study, or the same content as a mapping.
        folder: Where it goes; by default `results/<name>`.
        workers: Worker processes; by default what the study says.
        progress: Whether to show progress on stderr, or what to show it with.
        part: Name of one of the study's parts, to run its cells alone; by default all cells.
        executor: Runs the jobs, `workers` of them at once; by default in worker processes of this machine.
        trackers: Names of trackers to tell of training, beside those that the study names.

    Returns:
        Report and records. Failed cells are part of them; the next call tries those again.

    Raises:
        ConfigError: If the study breaks its rules, or a tracker is unknown.
        MissingDependencyError: If the package of a tracker is not installed.
        TaskError: If a task cannot be used.
        StudyError: If the folder is in use or holds another study.
        KeyboardInterrupt: After SIGINT or SIGTERM, once the workers have stopped; what is finished is kept.
        OSError: If the machine cannot start a worker; the others are stopped likewise.
    """
    study = load_study(source)
    root = Path(folder) if folder is not None else default_folder(study)
    told = check_trackers((*study.trackers, *trackers))
    check_folder(study, root)  # before anything is written there
    if not lock_path(root).exists():
        make_plan(study, root, workers=workers, part=part)  # a study that cannot run leaves no folder behind
    shown = display(progress) if isinstance(progress, bool) else progress
    with locked(root), signs_of_life(root, shown) as shown, following(root, told) as follower:
        for line in settle(root):
            shown.say(line)
        everything, planned = _locked_plans(study, root, workers, part)
        follower.describe(runs_of(everything))
        problems = []
        executor = executor or LocalProcesses(root, worker_threads(planned.workers))
        sweep = planned.sweep
        if sweep is not None and sweep.count("finished") < len(sweep.cells):
            _say_and_mend(sweep, shown)
            problems += Scheduler(sweep, executor, shown).execute()
            everything, planned = _locked_plans(study, root, workers, part)  # with the settings that tuning has chosen
            follower.describe(runs_of(everything))
        _say_and_mend(planned, shown)
        problems += Scheduler(planned, executor, shown).execute()
        remove_replaced(root, *_asked_for(everything))
        remove_checkpoints(root, [each for plan in _plans(everything) for each in plan.by_key.values()])
        records = read_study(root)
        rows = measure_all(records)
        asked = frozenset(cell.name for cell in planned.cells)
        return StudyResult(root, write_report(root, records, rows), records, tuple(problems), asked, rows)


def _locked_plans(study: Study, root: Path, workers: int | None, part: str | None) -> tuple[Plan, Plan]:
    """Return the plans of all of a study, of which `study.yaml` and `study.lock.json` are written, and of a call."""
    everything = make_plan(study, root, workers=workers)
    write_bytes(root / COPY, study.text.encode())
    write_lock(root, planned_records(everything))
    return everything, everything if part is None else make_plan(study, root, workers=workers, part=part)


def _say_and_mend(planned: Plan, shown: Display) -> None:
    for line in state_lines(planned):
        shown.say(line)
    for each in planned.stages:
        if each.trouble and each.state == "finished":
            mend_stage(planned.folder, each.stage, each.task)


def _plans(everything: Plan) -> tuple[Plan, ...]:
    return (everything,) if everything.sweep is None else (everything, everything.sweep)


def _asked_for(everything: Plan) -> tuple[dict[Identity, str], set[str]]:
    """Return the names of all cells and trials whose settings are known, and the keys of all stages."""
    plans = _plans(everything)
    names = {cell.identity: cell.name for plan in plans for cell in plan.cells if cell.settled}
    return names, {key for plan in plans for key in plan.by_key}


def planned_records(planned: Plan) -> StudyRecords:
    """Return a study's records before anything has run: what `study.lock.json` holds."""
    study = planned.study
    parts = {name: {"tasks": list(part.tasks), "seeds": list(part.seeds)} for name, part in study.parts.items()}
    resolved = {**study.resolved(), "parts": parts, "folder": study.folder, "digests": digests(study)}
    if whole := undivided(planned.cells):
        resolved["undivided"] = whole
    resolved["copy"] = bytes_digest(study.text.encode())
    return StudyRecords(
        study.name, planned.folder, resolved,
        tasks={task.name: task_info(study, task) for task in study.tasks},
        cells=tuple(cell_record(cell) for cell in planned.cells),
        tables=tuple(each.table for each in planned.tables),
        environment=environment(worker_threads(planned.workers)),
        tuning=planned.tuned,
    )  # fmt: skip


def task_info(study: Study, task: Task) -> TaskInfo:
    """Return what the judge needs to know of a task."""
    points, unseen = study.preferences(task)
    objectives = [(objective, False) for objective in task.objectives] + [(each, True) for each in task.audit]
    infos = [
        ObjectiveInfo(each.name, each.range, each.pass_threshold, each.version, audit) for each, audit in objectives
    ]
    return TaskInfo(
        task.name, tuple(infos), np.asarray(task.reference_point, dtype=np.float64), task.beta, task.model,
        len(study.test_rows(task)), study.samples, points, unseen, task.enumeration is not None, task.family_settings,
        task.judged_on, task.contextual,
    )  # fmt: skip
