"""Stages as they are executed: a population of them in one group folder, sealed one by one."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from paretune.benchmark.worker import Link
from paretune.core.digests import digest
from paretune.core.errors import BudgetError, ConfigError, RecordError, StudyError, TaskError
from paretune.core.imports import import_name
from paretune.core.ledger import COUNTS, Ledger
from paretune.core.sampled import Sampled, counting_samples
from paretune.core.stages import GATE, Artefacts, Stage, StageResult, adapter_names, in_order
from paretune.core.task import Task
from paretune.core.user_calls import called
from paretune.records.files import DONE, FAILED, append_jsonl, is_done, mark_done, read_json
from paretune.records.layout import stage_folder
from paretune.records.writing import write_ledger, write_stage

NO_ARTEFACTS = ("stage.json", "ledger.json", "events.jsonl", "checkpoint", DONE, FAILED)  # ours, in a stage's folder
SPENT_SECONDS = 0.5  # between two notes of what has been spent: what a kill can hide from `repeated`


def stage_to_plain(stage: Stage) -> dict[str, Any]:
    """Return a stage as plain data for JSON."""
    return {
        "kind": stage.kind,
        "run": stage.run,
        "settings": dict(stage.settings),
        "member": dict(stage.member),
        "needs": [stage_to_plain(need) for need in stage.needs],
        "completions": stage.completions,
        "seed": stage.seed,
        "version": stage.version,
        "enumerated": stage.enumerated,
    }


def stage_from_plain(data: Mapping[str, Any]) -> Stage:
    """Rebuild a stage from `stage_to_plain`."""
    return Stage(**{**data, "needs": tuple(stage_from_plain(need) for need in data["needs"])})


class CountingLedger(Ledger):
    """A ledger that also counts what this attempt spends, wherever a checkpoint sets its counts back to."""

    def __init__(self, budget_completions: int | None) -> None:
        super().__init__(budget_completions)
        self.spent = dict.fromkeys(COUNTS, 0.0)
        self.started: dict[str, float] | None = None  # counts when this attempt began to spend: its checkpoint's

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over the counts of `state()`; the budget stays that of the run at hand, which may be a longer one."""
        budget = self.budget_completions
        super().restore(state)
        self.budget_completions = budget

    def charge(self, **amounts: float) -> None:
        """Add to the counts, and to what was spent."""
        started = dict(self.counts)
        super().charge(**amounts)
        self.started = self.started or started
        for name, amount in amounts.items():
            self.spent[name] += amount


class GroupContext:
    """What a run function is given: `core.stages.StageContext` on the files of a study.

    Attributes:
        task: The task instance.
        stages: Members of the group, shorter lengths of a trajectory included.
        sampled: Completions that the decoding loop has made in this attempt.
    """

    def __init__(self, task: Task, stages: Sequence[Stage], root: Path, group: Path, link: Link) -> None:
        self.task = task
        self.stages = tuple(stages)
        self._root = root
        self._group = group
        self._link = link
        self._keys = {id(stage): stage.key(task) for stage in self.stages}
        self._artefacts: dict[str, dict[str, Path]] = {key: {} for key in self._keys.values()}
        self._already = {key for key in self._keys.values() if is_done(stage_folder(root, key))}
        self._sealed: set[str] = set()  # in this attempt
        for key in set(self._keys.values()) - self._already:  # what a kill left half-written, or something damaged
            shutil.rmtree(stage_folder(root, key), ignore_errors=True)
        self._began = time.monotonic()
        self._noted = 0.0
        self._ledgers: dict[str, CountingLedger] = {}
        for stage in self.stages:
            trajectory = stage.trajectory_key(task)
            longest = max(each.completions for each in self.stages if each.trajectory_key(task) == trajectory)
            self._ledgers.setdefault(trajectory, CountingLedger(longest))
        self._spent_file = group / "spent.json"
        spent = read_json(self._spent_file) if self._spent_file.exists() else {}
        self._earlier: dict[str, dict[str, float]] = spent.get("spent", {})
        self._inherited: dict[str, dict[str, float]] = spent.get("inherited", {})
        self._readable = {each.key(task) for each in in_order(self.stages, task)}
        self.sampled = Sampled()

    def key(self, stage: Stage) -> str:
        """Return the digest that names a stage's folder."""
        known = self._keys.get(id(stage))
        return stage.key(self.task) if known is None else known

    def result(self, stage: Stage) -> StageResult:
        """Return the result of a finished stage.

        Raises:
            RecordError: If none of the stages needs it, so that it may not be there.
        """
        if stage.key(self.task) not in self._readable:
            raise RecordError(
                f"result must be of a stage that one of the {self._noun()} needs, got {stage.kind} "
                f"{stage.key(self.task)}. Name it in Stage(needs=...)."
            )
        return stage_result(self._root, stage, self.task)

    def ledger(self, stage: Stage) -> Ledger:
        """Return the ledger of a trajectory.

        Raises:
            RecordError: If it is no stage of the group.
        """
        self._check_own(stage)
        return self._ledgers[stage.trajectory_key(self.task)]

    def _noun(self) -> str:
        return f"stages that {self.stages[0].run} was given"

    def _check_own(self, stage: Stage) -> None:
        if self.key(stage) not in self._artefacts:
            raise RecordError(
                f"stage must be one of the {self._noun()}, got {stage.kind} {self.key(stage)}. Take it from "
                "context.stages, as it is."
            )

    def _check_open(self, stage: Stage, what: str) -> None:
        """Refuse what comes after a stage was sealed: nobody would find it."""
        self._check_own(stage)
        if self.key(stage) in self._sealed:
            raise RecordError(
                f"{what} must come before its stage ({stage.kind} {self.key(stage)}) is sealed, got it afterwards. Let "
                f"{stage.run} seal each stage once, when all that it leaves is written."
            )

    def folder(self, stage: Stage) -> Path:
        """Return where a stage's files go; a scratch folder for one that an earlier attempt has sealed."""
        key = self.key(stage)
        folder = self._group / "again" / key if key in self._already else stage_folder(self._root, key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def artefact(self, stage: Stage, name: str) -> Path:
        """Return where to write an artefact of a stage before sealing it: a file, or a folder still to be made.

        Raises:
            ConfigError: If the name leads out of the stage's folder, or is one that the library uses itself.
            RecordError: If the stage is sealed, or none of the group.
        """
        self._check_open(stage, f"artefact '{name}'")
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0].startswith(("/", ".")) or parts[0] in NO_ARTEFACTS:
            raise ConfigError(
                f"artefact must be a relative path inside the stage's folder, none of {', '.join(NO_ARTEFACTS)}, got "
                f"'{name}'. Name it 'adapter', 'experts/000' or '{GATE}', for example."
            )
        path = self.folder(stage).joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._artefacts[self.key(stage)]["/".join(parts)] = path
        return path

    def start_folder(self, stage: Stage) -> Path | None:
        """Return the checkpoint of the longest finished shorter run of a stage's trajectory, or None."""
        _, key = longest_prefix(finished_prefixes(self._root), stage, self.task)
        if not key:
            return None
        folder = stage_folder(self._root, key)
        self._inherited[stage.trajectory_key(self.task)] = read_json(folder / "ledger.json")["counts"]
        return folder / "checkpoint"

    def end_folder(self, stage: Stage) -> Path:
        """Return the folder for the state that a longer run of a stage's trajectory starts from.

        Raises:
            RecordError: If the stage is sealed, or none of the group.
        """
        self._check_open(stage, "the state for a longer run")
        return self.folder(stage) / "checkpoint"

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        """Mark a stage finished; what it spent is what its ledger says now.

        Raises:
            RecordError: If it is sealed, or none of the group; if an artefact was asked for and never written, or a
                file written that nobody asked for; if numbers of experts are left out.
            BudgetError: If more was sampled than charged.
        """
        self._check_own(stage)
        key = self.key(stage)
        if key in self._sealed:
            raise RecordError(
                f"a stage must be sealed once, got {stage.kind} {key} again. Let {stage.run} call context.seal for "
                "each once, with all values."
            )
        self._sealed.add(key)
        if key in self._already:
            return
        self._check_charged(stage)
        artefacts = self._artefacts[key]
        for name, path in artefacts.items():
            if not (path.is_file() or any(each.is_file() for each in path.rglob("*"))):
                raise RecordError(
                    f"artefact '{name}' must be written before its stage ({stage.kind} {key}) is sealed, got nothing "
                    f"there. Let {stage.run} write it to the path it asked for, or not ask for it."
                )
        folder = self.folder(stage)
        check_artefacts(folder, list(artefacts), f"{stage.kind} {key}")
        trajectory = stage.trajectory_key(self.task)
        ledger = self._ledgers[trajectory]
        earlier, inherited = self._earlier.get(trajectory, {}), self._inherited.get(trajectory, {})
        started = ledger.counts if ledger.started is None else ledger.started
        for name in COUNTS:  # what earlier attempts spent beyond the state that this one went on from
            spent = earlier.get(name, 0) + inherited.get(name, 0)
            ledger.repeated[name] = max(0.0, spent - started[name])
        ledger.peak_memory_bytes = max(ledger.peak_memory_bytes, peak_memory_bytes())
        if not ledger.seconds:
            ledger.add_seconds("total", (time.monotonic() - self._began) / len(self._ledgers))
        events = self._group / "events.jsonl"
        if events.exists():
            shutil.copyfile(events, folder / "events.jsonl")
        write_ledger(self._root, key, ledger)
        write_stage(
            self._root, stage, self.task, companions=sorted(other for other in self._keys.values() if other != key)
        )
        mark_done(folder, values, leave_out=("checkpoint",), artefacts=list(artefacts))
        self._note(force=True)
        self._link.send({"kind": "sealed", "key": key})

    def _check_charged(self, stage: Stage) -> None:
        """Hold what the decoding loop has made in this attempt against what it charged: a budget counts all of it."""
        charged = sum(ledger.spent["completions"] for ledger in self._ledgers.values())
        if self.sampled.completions > charged:
            raise BudgetError(
                f"completions that {stage.run} samples must be charged, got {self.sampled.completions:,} sampled and "
                f"{int(charged):,} charged before a stage ({stage.kind} {self.key(stage)}) is sealed. Call "
                "context.ledger(stage).charge(completions=...) before sampling, or give evaluate() that ledger."
            )

    def checkpoint_folder(self) -> Path:
        """Return the folder that survives a kill."""
        folder = self._group / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, completions: int, message: str = "") -> None:
        """Report completions made since the last call; raises `KeyboardInterrupt` where a stop was asked for."""
        self._note()
        try:
            self._link.progress(completions, message)
        except KeyboardInterrupt:
            self._note(force=True)
            raise

    def log(self, event: Mapping[str, object]) -> None:
        """Append one line to the events of the stages."""
        append_jsonl(self._group / "events.jsonl", event)

    def note_spent(self) -> None:
        """Write down what was spent, whatever happens next."""
        self._note(force=True)

    def _note(self, force: bool = False) -> None:
        if not force and time.monotonic() - self._noted < SPENT_SECONDS:
            return
        self._noted = time.monotonic()
        total = {
            trajectory: {name: ledger.spent[name] + self._earlier.get(trajectory, {}).get(name, 0) for name in COUNTS}
            for trajectory, ledger in self._ledgers.items()
        }
        temporary = self._spent_file.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"spent": total, "inherited": self._inherited}), encoding="utf-8"
        )  # no fsync: a kill keeps it, and it is only a count
        os.replace(temporary, self._spent_file)


def check_artefacts(folder: Path, names: Sequence[str], stage: str) -> None:
    """Check that all in a stage's folder belongs to an artefact, and that experts are numbered without a gap.

    Args:
        folder: Of the stage.
        names: Of its artefacts.
        stage: Its kind and key, for messages.

    Raises:
        RecordError: If a file is no part of an artefact, or the number of an expert is left out.
    """
    files = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    for file in files:
        ours = file.split("/")[0] in NO_ARTEFACTS or Path(file).name.startswith(".")
        if not ours and not any(file == name or file.startswith(f"{name}/") for name in names):
            raise RecordError(
                f"file '{file}' of a stage ({stage}) must be an artefact, or in one, got none of that name asked for. "
                f"Write it to context.artefact(stage, '{file}')."
            )
    numbers = [name.removeprefix("experts/") for name in adapter_names(names) if name != "adapter"]
    wanted = [f"{number:03d}" for number in range(len(numbers))]
    if numbers != wanted:
        left_out = sorted(set(wanted) - set(numbers))
        raise RecordError(
            f"experts of a stage ({stage}) must be numbered from experts/000 on, got {', '.join(numbers)}: "
            f"experts/{', experts/'.join(left_out)} is missing. Name them by their place, f'experts/{{place:03d}}'."
        )


def stage_result(root: Path, stage: Stage, task: Task) -> StageResult:
    """Read what a finished stage of a study left.

    Raises:
        RecordError: If it is not finished, or its files are damaged.
    """
    key = stage.key(task)
    folder = stage_folder(root, key)
    ledger = Ledger.from_state(read_json(folder / "ledger.json"))
    done = read_json(folder / DONE)
    if "artefacts" not in done:
        raise RecordError(f"{folder / DONE} must list the stage's artefacts, got none listed. Remove {folder}.")
    return StageResult(
        stage=stage,
        key=key,
        folder=folder,
        artefacts=Artefacts({name: folder / name for name in done["artefacts"]}, f"{stage.kind} {key}"),
        values=done["values"],
        ledger=ledger,
        seconds=math.fsum(ledger.seconds.values()),
    )


def finished_prefixes(root: Path) -> dict[str, list[tuple[int, str]]]:
    """Return, for each trajectory, length and key of finished stages that kept a checkpoint."""
    found: dict[str, list[tuple[int, str]]] = {}
    for done in sorted(root.glob(f"stages/*/{DONE}")):
        if (done.parent / "checkpoint").is_dir():
            record = read_json(done.parent / "stage.json")
            found.setdefault(record["trajectory"], []).append((int(record["completions"]), done.parent.name))
    return found


def longest_prefix(prefixes: Mapping[str, Sequence[tuple[int, str]]], stage: Stage, task: Task) -> tuple[int, str]:
    """Return length and key of the longest finished run that a stage can extend; 0 and no key where there is none."""
    shorter = [each for each in prefixes.get(stage.trajectory_key(task), ()) if each[0] < stage.completions]
    return max(shorter, default=(0, ""))


def peak_memory_bytes() -> int:
    """Return the peak memory of this process, or of its GPU where it uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def job_task(job: Mapping[str, Any]) -> Task:
    """Load the task instance a job is about.

    Raises:
        TaskError: If its files have changed since the run began.
    """
    from paretune.tasks import load_task

    task: Task = load_task(job["task"]).instance(int(job["seed"]))
    if digest(task.training_key()) != job["task_key"]:
        raise TaskError(f"task '{task.name}' must not change while a study runs, got other files. Start the run again.")
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
    planned = read_json(group / "group.json")
    stages = [stage_from_plain(data) for data in planned["stages"]]
    if [stage.key(task) for stage in stages] != planned["keys"]:
        raise StudyError(
            f"code of {stages[0].run} must not change while a study runs, got other files. Start the run again."
        )
    context = GroupContext(task, stages, root, group, link)
    run: Callable[[GroupContext], None] = import_name("run function", stages[0].run)
    try:
        with counting_samples() as context.sampled, called(f"run function {stages[0].run}"):
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
    loaded = sys.modules.get("paretune.models.base")
    if loaded is not None:
        loaded.unwrap_all()


def use_threads(threads: int) -> None:
    """Give torch its share of the cores, where it is in use at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
