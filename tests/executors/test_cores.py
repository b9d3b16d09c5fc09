from __future__ import annotations

import os

import pytest

from paretune.core.errors import ConfigError
from paretune.executors.cores import check_workers, worker_count


def test_small_models_get_a_worker_a_core_and_others_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    assert worker_count(3, small=False) == 3
    assert worker_count("auto", small=False) == 1
    assert worker_count("auto", small=True) == 3


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2", 10**20, None])
def test_a_number_of_workers_is_a_whole_number_from_one_on(workers: object) -> None:
    with pytest.raises(ConfigError, match=r"workers must be (a whole number from 1 on|at most 1,024), got"):
        check_workers(workers)
