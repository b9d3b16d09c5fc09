"""Worker processes of this machine: how they end, and what ends with them."""

from __future__ import annotations

import itertools
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paretune.executors import LAST, Event, Job
from paretune.executors import processes as module
from paretune.executors.processes import LocalProcesses, log_path

CODE = """
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from paretune.executors.worker import HIGH

def note(payload, process):
    with open(payload["note"], "a") as file:
        file.write(f"{process}\\n")

def load(payload, link):
    from paretune.models.loading import load_base
    load_base(payload["model"])
    return {}

def good(payload, link):
    return {}

def tells_itself(payload, link):
    note(payload, os.getpid())
    return {}

def naps(payload, link):
    note(payload, os.getpid())
    time.sleep(0.6)
    with subprocess.Popen(["sleep", "600"]) as child:
        child.send_signal(signal.SIGINT)
    note(payload, child.returncode)
    return {}

def sleeps(payload, link):
    note(payload, os.getpid())
    time.sleep(600)

def kills_itself(payload, link):
    os.kill(os.getpid(), signal.SIGKILL)

def is_signalled(payload, link):
    os.kill(os.getpid(), 40)  # a real-time signal, which has no name

def exits(payload, link):
    os._exit(0)

def aborts(payload, link):
    os.abort()

def crashes(payload, link):
    ctypes.string_at(0)

def stops_itself(payload, link):
    note(payload, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)

def closes_all(payload, link):
    os.closerange(0, 4096)
    with open(payload["note"], "w"):
        while True:
            time.sleep(0.01)
            link.progress(1)

def closes_all_and_sleeps(payload, link):
    os.closerange(0, 4096)
    time.sleep(600)

def writes_everywhere(payload, link):
    for number in range(3, 4096):
        try:
            os.write(number, b"no message\\n" * 10)
        except OSError:
            pass
    time.sleep(600)

def writes_without_end(payload, link):
    for number in range(3, 4096):
        try:
            while True:
                os.write(number, b"x" * 65536)
        except OSError:
            pass
    time.sleep(600)

def exits_in_a_thread(payload, link):
    thread = threading.Thread(target=lambda: sys.exit(3))
    thread.start()
    thread.join()
    return {}

def forks_and_dies(payload, link):
    if os.fork() == 0:
        note(payload, os.getpid())
        time.sleep(600)
    while not Path(payload["note"]).exists():
        time.sleep(0.01)
    os._exit(7)

def forks_and_goes_on(payload, link):
    ctypes.CDLL(None).fork() if payload["by"] == "C" else os.fork()
    note(payload, os.getpid())
    deadline = time.monotonic() + 60  # a parent that is done ends a child that has not begun
    while len(Path(payload["note"]).read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(3):
        link.progress(1)
        time.sleep(0.3)
    return {}

def forks_and_looks(payload, link):
    child = os.fork()
    if child == 0:
        links = [Path(f"/proc/self/fd/{number}") for number in range(HIGH, HIGH + 100)]
        note(payload, sum(str(os.readlink(link)).startswith("socket:") for link in links if os.path.lexists(link)))
        os._exit(0)
    os.waitpid(child, 0)
    return {}

def daemonises(payload, link):
    leave = "import os, sys, time; os.setsid(); os.fork() and os._exit(0); "
    note = "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.run([sys.executable, "-c", leave + note, payload["note"]])
    while not Path(payload["note"]).exists() or not Path(payload["note"]).read_text():
        time.sleep(0.01)
    if payload.get("then") == "dies":
        os._exit(7)
    return {}

def prints(payload, link):
    print("the first line", flush=True)
    for _ in range(payload["megabytes"]):
        os.write(1, b"x" * (1 << 20))
    print("the last line", flush=True)
    return {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code_of_jobs.py").write_text(CODE)
    return tmp_path


@pytest.fixture
def executor(folder: Path) -> Iterator[LocalProcesses]:
    made = LocalProcesses(folder, 1)
    yield made
    made.stop()
    while made.events(0.1):
        pass


def job(folder: Path, function: str, **payload: object) -> Job:
    given = {"imports": [str(folder), *sys.path], "note": str(folder / "note"), **payload}
    return Job(function, f"code_of_jobs:{function}", given)


def end_of(executor: LocalProcesses, patience: float = 60) -> Event:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for event in executor.events(0.5):
            if event.kind in LAST:
                return event
    raise AssertionError("the job must end")


def pid_in(note: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if note.exists() and note.read_text():
            return int(note.read_text().split()[0])
        time.sleep(0.02)
    raise AssertionError(f"{note} must name a process")


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + 30
    while lives(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not lives(process)


ENDS = {
    "kills_itself": "was ended by SIGKILL",
    "is_signalled": "was ended by signal 40",
    "exits": "ended with code 0",
    "aborts": "was ended by SIGABRT",
    "crashes": "was ended by SIGSEGV",
    "stops_itself": "was ended: it was stopped by a signal, so that it could not go on",
    "closes_all": "ended: code that it ran had closed its file descriptors",
    "closes_all_and_sleeps": "ended: code that it ran had closed its file descriptors",
    "writes_everywhere": "was ended: what it sent is no message",
    "forks_and_dies": "ended with code 7",
}


@pytest.mark.parametrize("function", ENDS)
def test_however_a_worker_ends_its_job_fails_with_a_name_and_the_next_one_runs(
    executor: LocalProcesses, folder: Path, function: str
) -> None:
    executor.submit(job(folder, function))
    event = end_of(executor)
    assert (event.job, event.kind, event.data["reason"], event.data["died"]) == (function, "failed", "crash", True)
    assert event.data["message"].startswith(f"the worker process {ENDS[function]}")
    assert event.data["message"].endswith("; see logs/worker-0.log")
    executor.submit(job(folder, "good"))
    assert end_of(executor).kind == "done"


def test_a_message_without_an_end_is_none(
    executor: LocalProcesses, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES", 1 << 18)
    executor.submit(job(folder, "writes_without_end"))
    assert "what it sent is no message" in end_of(executor).data["message"]


def test_a_worker_that_the_system_ends_for_memory_says_so(
    executor: LocalProcesses, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = itertools.count()
    monkeypatch.setattr(module, "_oom_kills", lambda: next(counted))
    executor.submit(job(folder, "kills_itself"))
    data = end_of(executor).data
    assert (data["reason"], data["died"]) == ("out_of_memory", True)
    assert data["message"].startswith("the worker process was ended by the system because memory ran out; see logs/")


def test_a_crash_leaves_its_traceback_in_the_log(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "crashes"))
    end_of(executor)
    log = log_path(folder, 0).read_text()
    assert "Segmentation fault" in log
    assert "code_of_jobs.py" in log


def test_an_exit_in_a_thread_ends_the_thread_alone(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "exits_in_a_thread"))
    assert end_of(executor).kind == "done"


@pytest.mark.parametrize("by", ["Python", "C"])  # which of the two tells Python of it
def test_a_forked_child_that_comes_back_from_the_jobs_code_does_not_do_the_job_too(
    executor: LocalProcesses, folder: Path, by: str
) -> None:
    executor.submit(job(folder, "forks_and_goes_on", by=by))
    found: list[Event] = []
    while not found or found[-1].kind not in LAST:
        found += executor.events(0.5)
    assert found[-1].kind == "done"
    assert sum(event.data["completions"] for event in found if event.kind == "progress") == 3
    parent, child = sorted(int(line) for line in (folder / "note").read_text().split())
    assert is_gone(child)
    assert lives(parent)


def test_a_forked_child_does_not_hold_the_workers_socket(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "forks_and_looks"))
    assert end_of(executor).kind == "done"
    assert (folder / "note").read_text() == "0\n"


@pytest.mark.parametrize("then", ["dies", "goes on"])
def test_a_daemon_ends_with_the_worker_that_left_it(executor: LocalProcesses, folder: Path, then: str) -> None:
    executor.submit(job(folder, "daemonises", then=then))
    assert end_of(executor).kind == ("failed" if then == "dies" else "done")
    daemon = pid_in(folder / "note")
    if then == "goes on":
        assert lives(daemon)  # the worker may still need it
        executor.stop()
        executor.events(0)
    assert is_gone(daemon)


def test_a_forked_child_ends_with_the_worker(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "forks_and_dies"))
    end_of(executor)
    assert is_gone(pid_in(folder / "note"))


PARENT = """
import sys, time
from pathlib import Path
from paretune.executors import Job
from paretune.executors.processes import LocalProcesses
folder = Path(sys.argv[1])
executor = LocalProcesses(folder, 1)
payload = {"imports": [str(folder), *sys.path], "note": str(folder / "note"), "daemon": str(folder / "daemon")}
executor.submit(Job("a", f"code_of_jobs:{sys.argv[2]}", {**payload, "note": payload["daemon"]}))
while not any(event.kind == "done" for event in executor.events(0.1)):
    pass
executor.submit(Job("b", f"code_of_jobs:{sys.argv[3]}", payload))
time.sleep(600)
"""


@pytest.mark.parametrize(("before", "then"), [("daemonises", "sleeps"), ("good", "stops_itself")])
def test_workers_and_their_daemons_leave_when_the_parent_is_killed(folder: Path, before: str, then: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder), before, then])
    worker = pid_in(folder / "note")
    while then == "stops_itself" and psutil.Process(worker).status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert is_gone(worker)
    if before == "daemonises":
        assert is_gone(pid_in(folder / "daemon"))


def test_a_job_that_does_not_listen_is_ended_when_patience_is(folder: Path) -> None:
    executor = LocalProcesses(folder, 1, stop_seconds=0.3)
    executor.submit(job(folder, "sleeps"))
    worker = pid_in(folder / "note")
    began = time.monotonic()
    executor.stop()
    assert end_of(executor) == Event("sleeps", "stopped", {})
    assert 0.3 <= time.monotonic() - began < 5
    assert is_gone(worker)


def test_a_signal_to_an_idle_or_a_busy_worker_ends_neither_it_nor_its_job(
    executor: LocalProcesses, folder: Path
) -> None:
    executor.submit(job(folder, "tells_itself"))
    assert end_of(executor).kind == "done"
    worker = pid_in(folder / "note")
    psutil.Process(worker).send_signal(signal.SIGINT)
    executor.submit(job(folder, "naps"))
    time.sleep(0.2)
    psutil.Process(worker).send_signal(signal.SIGINT)
    assert end_of(executor).kind == "done"
    assert pid_in(folder / "note") == worker
    assert (folder / "note").read_text() == f"{worker}\n" * 2 + "-2\n"  # what a job starts hears SIGINT as ever


def test_a_worker_starts_where_few_files_may_be_open(executor: LocalProcesses, folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))  # as macOS has it
    try:
        executor.submit(job(folder, "good"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert end_of(executor).kind == "done"


def test_a_log_keeps_its_end_and_never_grows_beyond_its_limit(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "prints", megabytes=20))
    assert end_of(executor).kind == "done"
    executor.stop()
    executor.events(0)
    logs = sorted((folder / "logs").iterdir())
    assert [path.name for path in logs] == ["worker-0.1.log", "worker-0.log"]
    assert sum(path.stat().st_size for path in logs) <= 2 * (module.LOG_BYTES + module.READ_BYTES)
    assert logs[1].read_text().endswith("the last line\n")


def test_a_log_that_cannot_be_written_stops_no_job(executor: LocalProcesses, folder: Path) -> None:
    log_path(folder, 0).parent.mkdir()
    log_path(folder, 0).mkdir()  # as good as a full disk
    executor.submit(job(folder, "prints", megabytes=1))
    assert end_of(executor).kind == "done"


def test_a_large_job_reaches_a_worker_that_reads_late(executor: LocalProcesses, folder: Path) -> None:
    executor.submit(job(folder, "good", large="x" * (1 << 24)))
    assert end_of(executor).kind == "done"


@pytest.mark.slow
def test_loading_a_model_writes_no_progress_bar_into_a_workers_log(
    executor: LocalProcesses, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import model_folders

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    executor.submit(job(folder, "load", model=str(model_folders.save_base(folder / "model"))))
    assert end_of(executor).kind == "done"
    assert log_path(folder, 0).read_text() == ""
