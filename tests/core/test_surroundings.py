from __future__ import annotations

import builtins
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretune.core.errors import ConfigError
from paretune.core.imports import imported
from paretune.core.surroundings import exits_refused, one_process, surroundings_kept


def nesting() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


CHANGES: dict[str, tuple[str, Callable[[], Any]]] = {
    "folder": ("os.chdir('/')", os.getcwd),
    "umask": ("os.umask(0o777)", lambda: (mask := os.umask(0o077), os.umask(mask))[0]),
    "signals": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", lambda: signal.getsignal(signal.SIGTERM)),
    "timer": ("signal.setitimer(signal.ITIMER_REAL, 600)", lambda: signal.getitimer(signal.ITIMER_REAL)),
    "recursion": ("sys.setrecursionlimit(999)", sys.getrecursionlimit),
    "limits": (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))",
        lambda: resource.getrlimit(resource.RLIMIT_FSIZE),
    ),
    "open": ("builtins.open = None", lambda: builtins.open),
    "json": ("json.dumps = None", lambda: json.dumps),
    "stdout": ("sys.stdout = sys.stderr = None", lambda: (sys.stdout, sys.stderr)),
    "numpy": ("np.seterr(all='raise')", np.geterr),
    "dtype": ("torch.set_default_dtype(torch.float64)", torch.get_default_dtype),
    "device": ("torch.set_default_device('meta')", torch.get_default_device),
    "gradients": ("torch.set_grad_enabled(False)", torch.is_grad_enabled),
    "inference": ("builtins.left = torch.inference_mode(); left.__enter__()", torch.is_inference_mode_enabled),
    "autocast": (
        "torch.autocast('cpu').__enter__()",
        lambda: (torch.is_autocast_enabled("cpu"), nesting()),
    ),
    "anomaly": ("torch.autograd.set_detect_anomaly(True)", torch.is_anomaly_enabled),
    "threads": ("torch.set_num_threads(torch.get_num_threads() + 1)", torch.get_num_threads),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_code_changes_in_a_call_or_at_import_is_put_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, read = CHANGES[name]
    before = read()
    with surroundings_kept():
        exec(code, globals())
    assert read() == before
    (tmp_path / f"changes_{name}.py").write_text(
        f"import builtins, json, os, resource, signal, sys\nimport numpy as np\nimport torch\n{code}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imported(f"changes_{name}")
    assert read() == before


def test_an_error_goes_through_and_what_was_changed_is_put_back() -> None:
    with pytest.raises(KeyError), surroundings_kept():
        {os.umask(0o777): 0}[-1]
    mask = os.umask(0o077)
    os.umask(mask)
    assert mask != 0o777


def test_what_cannot_be_put_back_is_a_failure_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise ValueError

    def lowers() -> None:
        patched.setattr(resource, "getrlimit", lambda number: (0, 0))  # a limit that only root may raise again
        patched.setattr(resource, "setrlimit", fails)

    said = "^It must leave the process as it was, got limits of resources changed for good. "
    with (
        monkeypatch.context() as patched,
        pytest.raises(ConfigError, match=said),
        surroundings_kept("It", ConfigError),
    ):
        lowers()


def test_closed_descriptors_and_streams_are_open_again(capfd: pytest.CaptureFixture[str]) -> None:
    first = open(1, "w", closefd=False)  # noqa: SIM115
    kept, sys.stdout = sys.stdout, first
    try:
        with surroundings_kept():
            first.close()
            os.close(1)
        print("heard", flush=True)
    finally:
        sys.stdout = kept
    assert "heard" in capfd.readouterr().out


def test_a_forked_child_does_not_leave_the_block() -> None:
    parent, (heard, told) = os.getpid(), os.pipe()
    with one_process():
        child = os.fork()
    if os.getpid() != parent:
        os.write(told, b"out")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    os.close(told)
    assert os.read(heard, 3) == b""
    os.close(heard)


def test_a_way_out_is_refused_here_and_open_to_children_and_afterwards() -> None:
    before = os._exit
    with exits_refused():
        with pytest.raises(SystemExit, match=r"os\._exit\(0\)"):
            os._exit(0)
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os._exit is before
