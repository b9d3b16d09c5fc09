"""The micro-task for methods that are planned, and results as a study would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import micro_task

if TYPE_CHECKING:
    from paretune.core.stages import Stage, StageResult
    from paretune.core.task import Task
    from paretune.models.base import BaseModel

Finish = Callable[..., "dict[str, StageResult]"]


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


@pytest.fixture
def finish(task: Task) -> Finish:
    """Return results of stages that nobody trained, by key and in order, with the values given by kind."""
    from paretune.core.ledger import Ledger
    from paretune.core.stages import StageResult, in_order

    def made(stages: tuple[Stage, ...], values: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
        results = {}
        for stage in in_order(stages, task):
            folder = Path("stages") / stage.key(task)
            artefacts = {"adapter": folder / "adapter"} if stage.kind == "expert" else {}
            own = (values or {}).get(stage.kind, {})
            results[stage.key(task)] = StageResult(stage, stage.key(task), folder, artefacts, own, Ledger(), 0.0)
        return results

    return made


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in fp32 wherever the tests run."""
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")


@pytest.fixture
def base(task: Task, on_a_cpu: None) -> Iterator[BaseModel]:
    """Return the base model of the micro-task, and leave it unwrapped, whatever a test has left on it."""
    from paretune.models.loading import load_base, unwrap

    loaded = load_base(task.model)
    yield loaded
    unwrap(loaded)
