"""Whatever a user's code does to its process, in whichever phase: its cell says so, the others are as they would be."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark import measurements, scheduling
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import StudyResult
from paretune.benchmark.progress import Display
from paretune.benchmark.runner import run
from paretune.benchmark.scheduling import Scheduler
from paretune.core.disk_errors import explained
from paretune.core.errors import ConfigError
from paretune.executors import Event, Job
from paretune.executors.in_process import InProcess

pytestmark = pytest.mark.usefixtures("only_what_is_named")

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def faulty(study: Make, worker_processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs a faulty and a good method side by side."""
    monkeypatch.setitem(measurements.MEASUREMENTS, "timing", "faulty_study:FaultyTiming")
    methods = {
        "faulty": {"method": "faulty_study:Faulty", "reward": 0.7},
        "fake": {"method": "fake_study:Fake", "reward": 0.6},
    }
    made = study(tasks=["faulty_study:task"], methods=methods, seeds=1, preferences={"grid": 1, "unseen": 0})

    def go(phase: str, fault: str, once: str = "") -> StudyResult:
        for name, value in (("PHASE", phase), ("FAULT", fault), ("ONCE", once)):
            monkeypatch.setenv(name, value)
        return run(made, tmp_path / "out", progress=False)

    return go


def states(result: StudyResult) -> dict[str, str]:
    return {cell.method: cell.state for cell in result.records.cells}


TRIED = {  # phase -> faults tried there, and what is said of each; the worker's own tests have the other ways to die
    "training": {"interrupts": "KeyboardInterrupt (faulty_study.py, line ", "forks and dies": "ended with code 1; "},
    "evaluation": {
        "interrupts": "KeyboardInterrupt (faulty_study.py, line ",
        "exits": "the worker process ended with code 0; see logs/worker-",
        "forks and dies": "the worker process ended with code 1; ",
        "stops": "it was stopped by a signal",
    },
    "audit": {"interrupts": "KeyboardInterrupt (faulty_study.py, line ", "crashes": "was ended by SIGSEGV; "},
}


SLOW = [
    ("evaluation", "interrupts"), ("evaluation", "forks and dies"), ("evaluation", "exits"), ("training", "interrupts"),
    ("audit", "interrupts"), ("training", "forks and dies"), ("evaluation", "stops"), ("audit", "crashes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "fault"),
    [
        pytest.param(phase, fault, marks=[pytest.mark.slow] * ((phase, fault) in SLOW))
        for phase, faults in TRIED.items()
        for fault in faults
    ],
)
def test_a_fault_fails_its_cell_with_a_name_and_the_next_call_repairs_it(
    faulty: Callable[..., StudyResult], phase: str, fault: str
) -> None:
    result = faulty(phase, fault)
    assert states(result) == {"faulty": "failed", "fake": "done"}
    (bad,) = result.failed
    assert TRIED[phase][fault] in bad.message
    assert [timing.method for timing in result.records.timings] == ["fake"]
    assert faulty("", "").complete


@pytest.mark.parametrize(
    ("phase", "noun"),
    [("base", "references/fake-0 "), pytest.param("timing", "timing/fake-faulty ", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("interrupts", "KeyboardInterrupt (faulty_study.py", marks=pytest.mark.slow),
        ("is killed", "(crash): the worker process"),
    ],
)
def test_a_fault_that_is_no_cells_is_a_problem_with_a_name(
    faulty: Callable[..., StudyResult], phase: str, noun: str, fault: str, said: str
) -> None:
    result = faulty(phase, fault)
    assert states(result) == {"faulty": "done", "fake": "done"}
    (problem,) = result.problems
    assert problem.startswith(noun)
    assert " could not be measured (" in problem
    assert said in problem
    assert [timing.method for timing in result.records.timings] == ["faulty", "fake"][phase == "timing" :]


@pytest.mark.parametrize(
    "phase",
    ["training", *(pytest.param(each, marks=pytest.mark.slow) for each in ("timing", "evaluation", "audit", "base"))],
)
def test_a_job_whose_worker_dies_is_tried_once_more(
    faulty: Callable[..., StudyResult], phase: str, tmp_path: Path
) -> None:
    assert faulty(phase, "is killed", str(tmp_path / "once")).complete
    assert (tmp_path / "once").exists()


def test_a_job_without_progress_is_named_again_and_again(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    shown = Display()
    monkeypatch.setattr(shown, "say", said.append)
    monkeypatch.setattr(scheduling, "SILENT_SECONDS", 0.0)
    planned = plan(study(seeds=1, workers=3), tmp_path)
    Scheduler(planned, InProcess(1), shown).execute()
    assert any(
        line.startswith("reference references/fake-0 has made no progress for 0:00; Ctrl-C stops") for line in said
    )


def test_a_study_runs_with_the_executor_it_is_given(study: Make, tmp_path: Path) -> None:
    class Counted(InProcess):
        jobs: list[str] = []  # noqa: RUF012  # one of it is made

        def submit(self, job: Any) -> None:
            self.jobs.append(job.name.split()[0])
            super().submit(job)

    before = list(sys.path)
    assert run(study(), tmp_path / "out", progress=False, executor=Counted(1)).complete
    assert sorted(Counted.jobs) == ["evaluation", "evaluation", "reference", "reference", "timing", "train", "train"]
    assert sys.path == before


class Raising(InProcess):
    """Raises in a call of one of its functions, or in all from then on, and forgets what it was given."""

    def __init__(self, function: str, calls: list[int]) -> None:
        super().__init__(1)
        self.function, self.calls, self.counted = function, calls, itertools.count(1)

    def _raises(self, function: str) -> None:
        if function == self.function and next(self.counted) in self.calls:
            self._jobs.clear()
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def submit(self, job: Job) -> None:
        self._raises("submit")
        super().submit(job)

    def events(self, timeout_seconds: float) -> list[Event]:
        self._raises("events")
        return super().events(timeout_seconds)


@pytest.mark.parametrize("function", ["submit", "events"])
@pytest.mark.parametrize("calls", [[1], [2], range(2, 100)])
def test_an_executor_that_raises_ends_the_run_with_what_it_raised(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, calls: list[int]
) -> None:
    monkeypatch.setattr(scheduling, "BROKEN_SECONDS", 0.2)
    made = study(seeds=1, workers=3)
    with pytest.raises(BlockingIOError, match="Resource temporarily unavailable"):
        run(made, tmp_path / "out", progress=False, executor=Raising(function, calls))
    assert run(made, tmp_path / "out", progress=False, executor=InProcess(1)).complete


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errno.EAGAIN,
            "memory and processes of this machine must suffice, got 'Resource temporarily unavailable'. Take",
        ),
        pytest.param(
            errno.EMFILE,
            "a file must be openable, but too many files are open, got 'Too many open files'. Raise ulimit",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_worker_that_cannot_be_started_ends_the_run_with_a_sentence_and_the_others(
    study: Make, worker_processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, said: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def second_fails(command: Any, **options: Any) -> Any:
        if "paretune.executors.worker" not in command:
            return popen(command, **options)
        if started:
            raise OSError(error, os.strerror(error))
        started.append(popen(command, **options))
        return started[0]

    made = study(workers=3)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", second_fails)
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match=os.strerror(error)) as caught:
            run(made, tmp_path / "out", progress=False)
        assert len(os.listdir("/proc/self/fd")) == descriptors
    assert explained(caught.value).startswith(said)  # what the command line says
    assert [process.poll() is not None for process in started] == [True]
    assert run(made, tmp_path / "out", progress=False).complete


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_from_one_on_wherever_they_are_named(study: Make, tmp_path: Path, workers: Any) -> None:
    for call in (run, plan):
        with pytest.raises(ConfigError, match="workers must be "):
            call(study(), tmp_path / "out", workers=workers)
        with pytest.raises(ConfigError, match="workers must be "):
            call(study(workers=workers), tmp_path / "out")
    assert not (tmp_path / "out").exists()
