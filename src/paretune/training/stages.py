"""Stages as they are executed: a population of them in one group folder, sealed one by one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paretune.core.digests import digest
from paretune.core.errors import RecordError, StudyError, TaskError
from paretune.core.imports import import_name
from paretune.core.sampled import counting_samples
from paretune.core.task import Task
from paretune.core.user_calls import called, one_line
from paretune.core.user_code import loaded_digest
from paretune.core.user_folders import looked_in
from paretune.executors.jobs import Link
from paretune.records.files import is_done, read_json
from paretune.records.layout import stage_folder
from paretune.training.context import GroupContext
from paretune.training.finished import stage_from_plain
from paretune.training.groups import FILE


def task_payload(task: Task, seed: int) -> dict[str, object]:
    """Return what a job about a task instance is given: which one, and where names are looked up.

    Args:
        task: The task, or the instance.
        seed: Seed that names the instance.
    """
    return {
        "imports": [os.path.abspath(entry) for entry in sys.path],
        "folders": [str(folder) for folder in looked_in()],
        "task": task.source,
        "seed": seed,
        "task_key": digest(task.instance(seed).training_key()),
        "task_parts": task.instance(seed).parts(),
    }


def check_same(what: str, key: Mapping[str, object], wanted: str, job: Mapping[str, Any], task: Task) -> None:
    """Check that what a job depends on in a task is as it was when the run began.

    Args:
        what: It is, for the message.
        key: What it depends on.
        wanted: Digest of it when the run began.
        job: What `task_payload` said then.
        task: The task instance now.

    Raises:
        TaskError: If it has changed; the message names the files that have, and other parts of the task.
    """
    if digest(key) == wanted:
        return
    before, now = job["task_parts"], task.parts()
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    raise TaskError(
        f"{what} must not change while a study runs, got changes of {one_line(', '.join(changed))}. Start the run "
        "again; leave what changes by itself out of depends."
    )


def job_task(job: Mapping[str, Any]) -> Task:
    """Load the task instance a job is about, see `task_payload`.

    Raises:
        TaskError: If its files have changed since the run began.
    """
    from paretune.tasks import load_task

    task: Task = load_task(job["task"]).instance(int(job["seed"]))
    check_same(f"task '{task.name}'", task.training_key(), str(job["task_key"]), job, task)
    return task


def run_stages(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Train the members of one group folder; the job of a worker.

    Args:
        job: `folder`, `group`, `task`, `seed` and `task_key`.
        link: To the parent.
    """
    use_threads(link.threads)
    run_group(Path(job["folder"]), Path(job["group"]), job_task(job), link)
    return {}


def run_group(root: Path, group: Path, task: Task, link: Link) -> None:
    """Train the members of a group folder and remove it.

    Args:
        root: The study's folder.
        group: The group's folder.
        task: Task instance of its members.
        link: Hears of progress.

    Raises:
        StudyError: If the code behind its stages has changed since the run began.
        MethodError: If the run function, or a user's code that it calls, raises something that is no error of ours.
        RecordError: If the run function leaves a stage unsealed.
    """
    planned = read_json(group / FILE)
    stages = [stage_from_plain(data) for data in planned["stages"]]
    if [stage.key(task) for stage in stages] != planned["keys"]:
        raise StudyError(
            f"code of {stages[0].run} must not change while a study runs, got other files. Start the run again."
        )
    context = GroupContext(task, stages, root, group, link)
    run: Callable[[GroupContext], None] = import_name("run function", stages[0].run)
    try:
        users = bool(loaded_digest(stages[0].run))  # else the user's code is what it calls: a gate, a weighting
        with counting_samples() as context.sampled, called(f"run function {stages[0].run}" if users else ""):
            run(context)
    finally:
        context.note_spent()
        release_models()
    left = [stage for stage in stages if not is_done(stage_folder(root, stage.key(task)))]
    if left:
        raise RecordError(
            f"{stages[0].run} must seal every stage it is given, got {len(left)} of {len(stages)} unsealed. "
            "Call context.seal for each."
        )
    shutil.rmtree(group)


def release_models() -> None:
    """Put the base models of this process back as they were; all of its jobs share them, the next one too."""
    loaded = sys.modules.get("paretune.models.loading")
    if loaded is not None:
        loaded.unwrap_all()


def use_threads(threads: int) -> None:
    """Give torch its share of the cores, where it is in use at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
