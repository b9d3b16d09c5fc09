"""The fake study with code that does to its process what it should not, in one phase of a run: `FAULT` and `PHASE`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import fake_study
from fake_study import Fake, FakeTiming
from paretune.benchmark.measuring import TableJob
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage, StageContext
from paretune.core.task import Objective, Task
from paretune.executors.jobs import Link

BASE, EVALUATED = "0.5", "0.7"  # what the base model and the method's policies write


def interrupts() -> None:
    raise KeyboardInterrupt


def forks_and_dies() -> None:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(1)


FAULTS: dict[str, Callable[[], object]] = {
    "interrupts": interrupts,
    "exits": lambda: os._exit(0),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashes": lambda: ctypes.string_at(0),
    "stops": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "forks and dies": forks_and_dies,
}


def fault(phase: str) -> None:
    """Do what is wrong, in its phase; at most once where `ONCE` names a file."""
    if os.environ.get("PHASE") != phase or ((once := os.environ.get("ONCE", "")) and Path(once).exists()):
        return
    if once:
        Path(once).touch()
    FAULTS[os.environ["FAULT"]]()


def warm(completions: list[str], **columns: object) -> list[float]:
    fault({BASE: "base", EVALUATED: "evaluation"}.get(completions[0], ""))
    return [float(completion) for completion in completions]


def audited(completions: list[str], **columns: object) -> list[float]:
    fault("audit" if completions[0] == EVALUATED else "")
    return [float(completion) for completion in completions]


def task() -> Task:
    objectives = Objective("warm", "faulty_study:warm"), Objective("brief", "fake_study:brief")
    audit = (Objective("audited", "faulty_study:audited"),)
    return replace(fake_study.task(), source="faulty_study:task", objectives=objectives, audit=audit)


class Faulty(Fake):
    name: ClassVar[str] = "faulty"

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        return tuple(
            replace(stage, run="faulty_study:train") for stage in super().stages(task, preferences, budget, seed)
        )


def train(context: StageContext) -> None:
    fault("training")
    fake_study.train(context)


class FaultyTiming(FakeTiming):
    def run(self, job: TableJob, link: Link) -> None:
        fault("timing" if job.cell["method"] == "faulty" else "")
        super().run(job, link)
