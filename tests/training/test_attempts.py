from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import NoReturn

import pytest

from paretune.training.attempts import Attempt


def attempt_with(monkeypatch: pytest.MonkeyPatch, initialised: bool) -> Attempt:
    """An attempt in a process whose torch has a GPU, three threads, and a base model loaded in bf16."""
    cuda = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: initialised, get_device_name=lambda: "NVIDIA H200"
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, get_num_threads=lambda: 3))
    loading = SimpleNamespace(loaded_dtypes=lambda model: [f"bfloat16 of {model}"])
    monkeypatch.setitem(sys.modules, "paretune.models.loading", loading)
    return Attempt("./model", threads=1)


def test_an_attempt_names_its_gpu_number_format_and_the_threads_torch_really_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = attempt_with(monkeypatch, initialised=True).plain()
    assert (plain["device"], plain["dtypes"]) == ("NVIDIA H200", ["bfloat16 of ./model"])
    assert plain["threads_per_worker"] == 3
    assert plain["machine_cores"] == os.cpu_count()


def test_a_gpu_that_nothing_was_put_on_is_not_what_an_attempt_ran_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt_with(monkeypatch, initialised=False).plain()["device"] == "cpu"


def test_the_load_is_the_mean_of_all_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr("os.getloadavg", lambda: (next(loads), 9.0, 9.0))
    attempt = Attempt("./model", threads=1)
    attempt.look()
    attempt.look()
    assert attempt.plain()["load"] == 3.0


def test_where_a_system_does_not_tell_its_load_it_is_not_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> NoReturn:
        raise OSError("no load average")

    monkeypatch.setattr("os.getloadavg", refused)
    assert Attempt("./model", threads=1).plain()["load"] is None


def test_two_attempts_are_told_apart_by_when_they_began() -> None:
    assert Attempt("./model", 1).began < Attempt("./model", 1).began
