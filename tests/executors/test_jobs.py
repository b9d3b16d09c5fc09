from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from paretune.cli.values import LineLink
from paretune.core.errors import AdapterError, BudgetError, ModelError, NonFiniteError, RewardError, TaskError
from paretune.executors.jobs import Link, failure_reason, quiet_link, run_job


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
    ended = run_job("paretune.training.stages:job_task", {}, quiet_link())
    assert ended["kind"] == "failed"
    assert ended["message"].startswith("TypeError: ")
    assert "Traceback" in capsys.readouterr().err  # it goes to the worker's log


def test_a_failed_job_names_the_line_of_a_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_that_fails.py").write_text("def run(job, link):\n    return {}['window']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = run_job("mine_that_fails:run", {}, quiet_link())
    assert ended["message"] == "KeyError: 'window' (mine_that_fails.py, line 2)"


def test_a_job_in_this_process_computes_on_the_cores_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # of the machine
    assert quiet_link().threads == 3
    assert LineLink(100).threads == 3
