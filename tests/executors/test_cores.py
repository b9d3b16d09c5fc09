from __future__ import annotations

import os

import pytest

from paretune.core.errors import ConfigError
from paretune.executors.cores import check_workers, worker_count, worker_threads


def test_small_models_get_a_worker_a_core_and_others_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    assert worker_count(3, small=False) == 3
    assert worker_count("auto", small=False) == 1
    assert worker_count("auto", small=True) == 3


@pytest.mark.parametrize(
    ("asked", "threads"), [(None, 3), ("1", 1), ("2", 2), ("8", 3), ("0", 3), ("many", 3), ("4,2", 3), ("", 3)]
)
def test_a_worker_alone_has_all_cores_or_as_many_threads_as_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert worker_threads(1) == threads
    assert worker_threads(2) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2", 10**20, None])
def test_a_number_of_workers_is_a_whole_number_from_one_on(workers: object) -> None:
    with pytest.raises(ConfigError, match=r"workers must be (a whole number from 1 on|at most 1,024), got"):
        check_workers(workers)
