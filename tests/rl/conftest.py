"""The micro-task, its base model and a bank for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import micro_task

if TYPE_CHECKING:
    from paretune.core.task import Task
    from paretune.models.base import BaseModel


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


@pytest.fixture
def base(task: Task) -> Iterator[BaseModel]:
    from paretune.models.loading import load_base, unwrap

    loaded = load_base(task.model, device="cpu")
    yield loaded
    unwrap(loaded)
