"""What every executor promises; one more is one more entry of `EXECUTORS`."""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paretune.executors import LAST, Event, Executor, Job
from paretune.executors.in_process import InProcess
from paretune.executors.processes import LocalProcesses

EXECUTORS: dict[str, Callable[[Path], Executor]] = {
    "local processes": lambda folder: LocalProcesses(folder, 1),
    "in this process": lambda folder: InProcess(1),
}
CODE = """
import builtins, json, signal, sys, time
from paretune.core.user_calls import called

def told(payload, link):
    link.progress(3)
    link.send({"kind": "sealed", "key": "abc"})
    link.progress(4)
    return {"payload": payload["given"], "threads": link.threads}

def raises(payload, link):
    raise eval(payload["error"])

def answers_no_plain_data(payload, link):
    return {"set": {1, 2}}

class Mute(RuntimeError):
    def __init__(self, kind=TypeError):
        self.kind = kind

    def __str__(self):
        raise self.kind("no text")

def prints_to_what_raises(payload, link):
    class Stream:
        def write(self, text):
            raise Mute

        flush = write

    sys.stdout = sys.stderr = Stream()
    raise ValueError("no")

def ruins_python(payload, link):
    builtins.open = builtins.str = None
    sys.setrecursionlimit(60)
    sys.modules.clear()
    raise ValueError("no")

def interrupts_itself(payload, link):
    with called():
        signal.raise_signal(signal.SIGINT)
    return {}

def goes_on(payload, link):
    while True:
        link.progress(1)
        time.sleep(0.01)
"""


@pytest.fixture(params=EXECUTORS.values(), ids=EXECUTORS.keys())
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executor]:
    (tmp_path / "job_code.py").write_text(CODE)
    made: Executor = request.param(tmp_path)
    modules = dict(sys.modules)
    yield made
    made.stop()
    ended(made, 0)
    sys.modules.update(modules)
    sys.modules.pop("job_code", None)


def job(tmp_path: Path, name: str, function: str, **payload: object) -> Job:
    return Job(name, f"job_code:{function}", {"imports": [str(tmp_path), *sys.path], **payload})


def ended(executor: Executor, jobs: int) -> list[Event]:
    """All events until so many jobs have ended."""
    found = list(executor.events(0))
    for _ in range(200):
        if sum(event.kind in LAST for event in found) >= jobs:
            return found
        found += executor.events(0.5)
    raise AssertionError(f"{jobs} jobs must end, got {found}")


def test_jobs_are_told_of_in_order_and_end_once_with_plain_data(executor: Executor, tmp_path: Path) -> None:
    for name in ("one", "two"):
        executor.submit(job(tmp_path, name, "told", given={"number": 1.5, "list": (1, 2), "nothing": None}))
    found = ended(executor, 2)
    result = {"payload": {"number": 1.5, "list": [1, 2], "nothing": None}, "threads": 1}
    for name in ("one", "two"):
        mine = [event for event in found if event.job == name]
        assert sum(int(event.data["completions"]) for event in mine if event.kind == "progress") == 7
        assert [event.data for event in mine if event.kind == "sealed"] == [{"key": "abc"}]
        assert (mine[-1].kind, mine[-1].data) == ("done", {"result": result})
    assert [event.kind in LAST for event in found].count(True) == 2
    assert json.loads(json.dumps([event.data for event in found])) == [event.data for event in found]
    assert executor.events(0) == []


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        ("ValueError('no')", "method_error", "ValueError: no (job_code.py, line 12)"),
        ("MemoryError('no room')", "out_of_memory", "MemoryError: no room (job_code.py, line 12)"),
        ("KeyboardInterrupt()", "method_error", "KeyboardInterrupt (job_code.py, line 12)"),
        ("SystemExit(0)", "method_error", "SystemExit: 0 (job_code.py, line 12)"),
        ("GeneratorExit()", "method_error", "GeneratorExit (job_code.py, line 12)"),
        ("type('Mine', (BaseException,), {})('x')", "method_error", "Mine: x (job_code.py, line 12)"),
        ("Mute()", "method_error", "Mute: (its message raised TypeError) (job_code.py, line 12)"),
        ("Mute(SystemExit)", "method_error", "Mute: (its message raised SystemExit) (job_code.py, line 12)"),
        (
            "ExceptionGroup('two', [Mute(), Mute()])",
            "method_error",
            "ExceptionGroup: two (2 sub-exceptions) (job_code.py, line 12)",
        ),
    ],
)
def test_whatever_a_job_raises_is_its_named_failure_and_the_next_job_runs(
    executor: Executor, tmp_path: Path, error: str, reason: str, message: str
) -> None:
    executor.submit(job(tmp_path, "bad", "raises", error=error))
    (event,) = ended(executor, 1)
    assert (event.kind, event.data) == ("failed", {"reason": reason, "message": message, "died": False})
    executor.submit(job(tmp_path, "good", "told", given={}))
    assert ended(executor, 1)[-1].kind == "done"


def test_a_job_that_cannot_be_found_or_answers_nonsense_fails(executor: Executor, tmp_path: Path) -> None:
    for number, function in enumerate(("nowhere", "answers_no_plain_data")):
        executor.submit(job(tmp_path, str(number), function))
    assert {event.kind for event in ended(executor, 2)} == {"failed"}


@pytest.mark.parametrize("function", ["prints_to_what_raises", "ruins_python"])
def test_whatever_a_job_does_to_python_it_fails_alone_with_what_it_raised(
    executor: Executor, tmp_path: Path, function: str
) -> None:
    executor.submit(job(tmp_path, "bad", function))
    assert ended(executor, 1)[0].data["message"].startswith("ValueError: no (job_code.py, line ")
    executor.submit(job(tmp_path, "good", "told", given={}))
    assert ended(executor, 1)[-1].kind == "done"


def test_a_job_that_interrupts_itself_is_named_or_goes_on(executor: Executor, tmp_path: Path) -> None:
    """Where who asks is who hears signals, it is as a Ctrl-C; a worker's parent has its own word for a stop."""
    executor.submit(job(tmp_path, "bad", "interrupts_itself"))
    (event,) = ended(executor, 1)
    if isinstance(executor, InProcess):
        assert event.data["message"].startswith("was interrupted by SIGINT (job_code.py, line ")
    else:
        assert event.kind == "done"
    executor.submit(job(tmp_path, "good", "told", given={}))
    assert ended(executor, 1)[-1].kind == "done"


def test_a_job_that_cannot_be_taken_raises_at_once_and_nothing_is_told_of_it(
    executor: Executor, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="JSON"):
        executor.submit(job(tmp_path, "bad", "told", given={1, 2}))
    executor.submit(job(tmp_path, "good", "told", given={}))
    assert [event.job for event in ended(executor, 1) if event.kind in LAST] == ["good"]
    assert executor.events(0) == []


def test_events_are_told_while_no_file_can_be_opened(executor: Executor, tmp_path: Path) -> None:
    executor.submit(job(tmp_path, "good", "told", given={}))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    if isinstance(executor, InProcess):  # which has a module to open
        lowest += 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        assert ended(executor, 1)[-1].kind == "done"
        executor.stop()
        assert executor.events(0) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_stopping_ends_every_job_and_new_ones_may_follow(executor: Executor, tmp_path: Path) -> None:
    for name in ("one", "two"):
        executor.submit(job(tmp_path, name, "goes_on"))
    if not isinstance(executor, InProcess):  # which would wait for it for ever
        while not any(event.kind == "progress" for event in executor.events(0.5)):
            pass
    begun = time.monotonic()
    executor.stop()
    found = ended(executor, 2)
    assert {event.job: event.kind for event in found if event.kind in LAST} == {"one": "stopped", "two": "stopped"}
    assert time.monotonic() - begun < 15  # long before the patience with a job that does not listen ends
    executor.submit(job(tmp_path, "three", "told", given={}))
    assert ended(executor, 1)[-1].kind == "done"


def test_a_jobs_folders_are_its_own_in_the_process_that_asks(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "job_code.py").write_text(CODE)
    made, finders, path = InProcess(1), list(sys.meta_path), list(sys.path)
    made.submit(Job("one", "job_code:told", {"folders": [str(tmp_path / "beside")], "given": {}}))
    assert made.events(0)[-1].kind == "done"
    assert (sys.meta_path, sys.path) == (finders, path)
    sys.modules.pop("job_code", None)


def test_stop_may_be_called_while_events_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler does: the job under way in this process stops as one elsewhere does."""
    (tmp_path / "job_code.py").write_text(CODE)
    made, calls = InProcess(1), itertools.count()
    monkeypatch.setattr(time, "sleep", lambda seconds: made.stop() if next(calls) == 3 else None)
    made.submit(job(tmp_path, "one", "goes_on"))
    assert made.events(0)[-1] == Event("one", "stopped", {})
    sys.modules.pop("job_code", None)
