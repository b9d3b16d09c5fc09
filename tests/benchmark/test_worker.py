from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.executors import Worker, worker_count
from paretune.benchmark.executors.jobs import Link, failure_reason, quiet_link, run_job
from paretune.cli.values import LineLink
from paretune.core.errors import AdapterError, BudgetError, ModelError, NonFiniteError, RewardError, TaskError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("shapes differ"), "method_error"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.ENOENT, "No such file"), "method_error"),
        (NonFiniteError("nan"), "not_finite"),
        (RewardError("none"), "reward_error"),
        (TaskError("gone"), "task_error"),
        (ModelError("gone"), "model_error"),
        (AdapterError("other"), "model_error"),
        (BudgetError("spent"), "method_error"),
    ],
)
def test_every_error_has_a_reason_of_the_fixed_list(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason


def test_progress_is_gathered_and_never_lost() -> None:
    sent: list[Any] = []
    link = Link(sent.append, lambda: False, 1)
    for _ in range(10):
        link.progress(3)
    link.flush()
    assert sum(message["completions"] for message in sent) == 30
    assert len(sent) < 10


def test_a_failed_job_says_why_without_a_traceback_in_the_message(
    capsys: pytest.CaptureFixture[str], fakes: None
) -> None:
    ended = run_job("paretune.benchmark.stages:job_task", {}, Link(lambda message: None, lambda: False, 1))
    assert ended["kind"] == "failed"
    assert ended["message"].startswith("TypeError: ")  # type: ignore[attr-defined]  # it is text
    assert "Traceback" in capsys.readouterr().err  # it goes to the worker's log


def test_a_failed_job_names_the_line_of_a_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_that_fails.py").write_text("def run(job, link):\n    return {}['window']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = run_job("mine_that_fails:run", {}, Link(lambda message: None, lambda: False, 1))
    assert ended["message"] == "KeyError: 'window' (mine_that_fails.py, line 2)"


def wait_for(worker: Worker, kind: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with selectors.DefaultSelector() as selector:
            selector.register(worker.connection, selectors.EVENT_READ)
            if not selector.select(timeout=1):
                continue
        for message in worker.receive() or []:
            if message["kind"] == kind:
                return message
    raise AssertionError(f"no {kind}")


LAST_WORDS = {
    "nothing": "worker.receive();",
    "half a line": "worker.receive(); worker.connection.sendall(b'{');",
    "messages unread": "",  # the system then resets the connection in place of ending it
}


@pytest.mark.parametrize("words", LAST_WORDS.values(), ids=LAST_WORDS.keys())
def test_a_worker_leaves_when_its_parent_is_killed(tmp_path: Path, words: str) -> None:
    code = (
        "import selectors, sys, time; from pathlib import Path; from paretune.benchmark.executors import Worker; "
        "worker = Worker(0, 1, Path(sys.argv[1]), ()); selector = selectors.DefaultSelector(); "
        "selector.register(worker.connection, selectors.EVENT_READ); selector.select(); "  # it is ready
        f"{words} print(worker.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "worker.log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{worker}/stat").read_text().split(")")[-1].split()[0]:
            return  # ended; its new parent has not looked yet
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_loading_a_model_writes_no_progress_bar_into_a_workers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import model_folders

    (tmp_path / "loading.py").write_text(
        "from paretune.models.base import load_base\ndef load(job, link):\n    load_base(job['model'])\n    return {}\n"
    )
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    model = str(model_folders.save_base(tmp_path / "model"))
    job = {"kind": "job", "run": "loading:load", "imports": [str(tmp_path), *sys.path], "model": model}
    worker = Worker(0, 1, tmp_path / "worker.log", ())
    wait_for(worker, "ready")
    worker.give("loading", job)
    try:
        wait_for(worker, "done")
    finally:
        worker.job = None
        worker.close()
    assert (tmp_path / "worker.log").read_text() == ""


def test_a_dead_worker_says_how_it_died(tmp_path: Path) -> None:
    worker = Worker(3, 1, tmp_path / "worker.log", ())
    wait_for(worker, "ready")
    worker.process.send_signal(signal.SIGSEGV)
    while worker.receive() is not None:
        pass
    assert worker.cause_of_death() == (
        "crash",
        "the worker process was ended by SIGSEGV; see logs/worker-3.log",
    )


def test_small_models_get_a_worker_a_core_and_others_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    assert worker_count(3, small=False) == 3
    assert worker_count("auto", small=False) == 1
    assert worker_count("auto", small=True) == 3


def test_a_job_in_this_process_computes_on_the_cores_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # of the machine
    assert quiet_link().threads == 3
    assert LineLink(100).threads == 3
