"""How many workers a study is given, and how many threads each of them."""

from __future__ import annotations

import os
from typing import Literal

from paretune.core.checks import check_count
from paretune.core.limits import MAX_WORKERS

THREADS = "OMP_NUM_THREADS"


def check_workers(workers: object) -> int:
    """Return a number of workers as an int; it must be a whole number from 1 on.

    Raises:
        ConfigError: If it is not.
    """
    return check_count("workers", workers, 1, MAX_WORKERS, "Leave it out for what the study says.")


def worker_count(asked: int | Literal["auto"], small: bool) -> int:
    """Return how many workers to start: as many as cores for small models on the CPU, else one."""
    if asked != "auto":
        return check_workers(asked)
    return cores() if small else 1


def worker_threads(workers: int) -> int:
    """Return how many threads each worker computes with: one where several share the cores, else one a core.

    A lower number in the environment variable OMP_NUM_THREADS, which PyTorch follows, is kept to.
    """
    asked = os.environ.get(THREADS, "")
    most = int(asked) if asked.isascii() and asked.isdigit() and int(asked) > 0 else cores()
    return 1 if workers > 1 else min(most, cores())


def cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
