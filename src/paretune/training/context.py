"""What a run function is given: ledgers, artefacts and checkpoints of a population, and the seal of each stage."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import BudgetError, ConfigError, RecordError, StopRequested
from paretune.core.feedback import feedback_of
from paretune.core.ledger import COUNTS, Ledger, Seconds
from paretune.core.preferences import centre, corners
from paretune.core.sampled import Sampled
from paretune.core.scores import check_scored
from paretune.core.stages import GATE, Stage, StageResult, adapter_names, in_order
from paretune.core.task import Task
from paretune.executors.jobs import Link
from paretune.methods.prompt_halves import trained_prompts
from paretune.records.files import DONE, FAILED, append_jsonl, is_done, mark_done, read_json
from paretune.records.layout import given_path, stage_folder
from paretune.records.writing import write_ledger, write_stage
from paretune.training.attempts import Attempt
from paretune.training.finished import CHECKPOINT, STAGE, finished_prefixes, longest_prefix, stage_result
from paretune.training.groups import read_spent, write_spent

OPTIONAL = (CHECKPOINT, "events.jsonl")  # a stage is finished without them
NO_ARTEFACTS = (STAGE, "ledger.json", *OPTIONAL, DONE, FAILED)  # ours, in a stage's folder
SPENT_SECONDS = 0.5  # between two notes of what has been spent: what a kill can hide from `repeated`


class CountingLedger(Ledger):
    """A ledger that also counts what this attempt spends, wherever a checkpoint sets its counts back to."""

    def __init__(self, budget_completions: int | None, attempt: Attempt) -> None:
        super().__init__(budget_completions)
        self._attempt = attempt
        self.spent = dict.fromkeys(COUNTS, 0.0)
        self.started: dict[str, float] | None = None  # counts when this attempt began to spend: its checkpoint's

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over the counts of `state()`; the budget stays that of the run at hand, which may be a longer one."""
        budget = self.budget_completions
        super().restore(state)
        self.budget_completions = budget

    def state(self) -> dict[str, object]:
        """Return plain data for JSON, this attempt as it is by now among the others."""
        self.attempts[self._attempt.began] = self._attempt.plain()
        return super().state()

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
        self._began = Seconds.now()
        self._noted = 0.0
        self._attempt = Attempt(task.model, link.threads)
        self._ledgers: dict[str, CountingLedger] = {}
        for stage in self.stages:
            trajectory = stage.trajectory_key(task)
            longest = max(each.completions for each in self.stages if each.trajectory_key(task) == trajectory)
            self._ledgers.setdefault(trajectory, CountingLedger(longest, self._attempt))
        spent = read_spent(group)
        self._earlier, self._inherited = spent["spent"], spent["inherited"]
        self._readable = {each.key(task) for each in in_order(self.stages, task)}
        self.sampled = Sampled()

    @cached_property
    def _prefixes(self) -> dict[str, list[tuple[int, str]]]:
        """What the group's trajectories can go on from; made once, before any of its stages is finished."""
        return finished_prefixes(self._root, self._ledgers)

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

    def given(self, digest: str) -> Path:
        """Return an adapter's folder, or the file of a gate, of the solution set that training goes on from.

        Raises:
            RecordError: If it is not of that solution set, or nothing is gone on from.
        """
        path = given_path(self._root, digest)
        if not path.exists():
            raise RecordError(
                f"{digest} must be the digest of an expert, or of the gate, of the solution set that is gone on from, "
                f"got none of it. Let {self.stages[0].run} read what a stage that it needs left, or what was given."
            )
        return path

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
        _, key = longest_prefix(self._prefixes, stage, self.task)
        if not key:
            return None
        folder = stage_folder(self._root, key)
        self._inherited[stage.trajectory_key(self.task)] = read_json(folder / "ledger.json")["counts"]
        return folder / CHECKPOINT

    def end_folder(self, stage: Stage) -> Path:
        """Return the folder for the state that a longer run of a stage's trajectory starts from.

        Raises:
            RecordError: If the stage is sealed, or none of the group.
        """
        self._check_open(stage, "the state for a longer run")
        return self.folder(stage) / CHECKPOINT

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        """Mark a stage finished; what it spent is what its ledger says now.

        Raises:
            RecordError: If it is sealed, or none of the group; if an artefact was asked for and never written, or a
                file written that nobody asked for; if numbers of experts are left out.
            BudgetError: If more was sampled than charged.
            RewardError: If an objective that the stage is made for was never scored.
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
        self._check_scored(stage)
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
            ledger.add_seconds("total", *self._began.passed(len(self._ledgers)))
        events = self._group / "events.jsonl"
        if events.exists():
            shutil.copyfile(events, folder / "events.jsonl")
        write_ledger(self._root, key, ledger, sorted(other for other in self._keys.values() if other != key))
        write_stage(self._root, stage, self.task)
        mark_done(folder, values, optional=OPTIONAL, artefacts=list(artefacts))
        self._note(force=True)
        self._link.send({"kind": "sealed", "key": key})

    def _check_charged(self, stage: Stage) -> None:
        """Hold what the decoding loop has made in this attempt against what was charged: a budget counts all of it.

        An earlier attempt may have charged, and kept in its checkpoint, what this one samples.
        """
        charged = sum(max(ledger.spent["completions"], ledger.completions) for ledger in self._ledgers.values())
        if self.sampled.completions > charged:
            raise BudgetError(
                f"completions that {stage.run} samples must be charged, got {self.sampled.completions:,} sampled and "
                f"{int(charged):,} charged before a stage ({stage.kind} {self.key(stage)}) is sealed. Call "
                "context.ledger(stage).charge(completions=...) before sampling, or give evaluate() that ledger."
            )

    def _check_scored(self, stage: Stage) -> None:
        """Refuse what was made without one reward of an objective that it is for, whatever rewards of others did."""
        ledger, wanted = self.ledger(stage), self._wanted(stage)
        missing = [count if wanted[k] else 0 for k, count in enumerate(ledger.missing)]
        check_scored(ledger.scored, missing, ledger.fault_lines(self.task.objective_names))

    def _wanted(self, stage: Stage) -> NDArray[np.bool_]:
        """Return which objectives a stage is for, `[K]`: the same for which the learner stops when rewards are lost.

        Those that its weights name, all where it names none. Where it learns what users want of each prompt, which
        weights do not say, those that somebody wants of a training prompt.
        """
        objectives = len(self.task.objectives)
        weights: Any = stage.member.get("objective_weights")
        alone = np.shape(weights) == (objectives,)
        given = np.asarray([weights] if alone else [*corners(objectives), centre(objectives)], dtype=np.float64)
        if feedback_of(stage.settings) != "told":
            rows, chosen = self.task.splits["train"], trained_prompts(self.task, stage.member)
            given = self.task.prompt_preferences(rows if chosen is None else [rows[each] for each in chosen], given)
        return np.asarray((given > 0).any(axis=tuple(range(given.ndim - 1))))

    def checkpoint_folder(self) -> Path:
        """Return the folder that survives a kill."""
        folder = self._group / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, completions: int, message: str = "") -> None:
        """Report completions made since the last call; raises `StopRequested` where a stop was asked for."""
        self._note()
        try:
            self._link.progress(completions, message)
        except StopRequested:
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
        self._attempt.look()
        total = {
            trajectory: {name: ledger.spent[name] + self._earlier.get(trajectory, {}).get(name, 0) for name in COUNTS}
            for trajectory, ledger in self._ledgers.items()
        }
        write_spent(self._group, total, self._inherited)


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
            f"experts of a stage ({stage}) must be numbered from experts/000 on, got {', '.join(numbers)} "
            f"without experts/{', experts/'.join(left_out)}. Name them by their place, f'experts/{{place:03d}}'."
        )


def peak_memory_bytes() -> int:
    """Return the peak memory of this process, or of its GPU where it uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
