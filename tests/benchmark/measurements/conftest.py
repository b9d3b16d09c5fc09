"""A real study, run once, that asks for adaptation and scaling: the micro-task with an audit objective."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import micro_task
import real_studies
from paretune.benchmark import runner
from paretune.benchmark.measurements import adaptation

AUDIT = """
audit:
  short: {reward: "rewards:short", range: [0, 1]}
"""
SHORT = """

def short(prompts, completions, **columns):
    return [1 - len(text.split()) / 2 for text in completions]
"""
LENGTHS = (64, 256)
SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
}  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def shorter() -> Iterator[None]:
    """Train for a quarter of the longest length: what is tested is the same, and takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "LENGTHS", LENGTHS)
        yield


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of task and study, for all workers of a test run: whichever comes first trains."""
    return real_studies.of_all_workers(tmp_path_factory) / "asking"


@pytest.fixture(scope="package")
def asking(shared: Path) -> dict[str, Any]:
    """Return the study: single policies, experts that are mixed, and one mixture that cannot be adapted."""
    task = shared / "task" / "task.yaml"
    with FileLock(shared.with_suffix(".lock")):
        if not task.exists():
            micro_task.save_task(task.parent)
            (task.parent / "rewards.py").write_text(micro_task.REWARDS + SHORT)
            task.write_text(task.read_text() + AUDIT)
    return {
        "name": "asking",
        "tasks": [str(task)],
        "methods": {
            "linear": {**SMALL, "completions_each": 128},
            "rewarded_soups": SMALL,
            "mod": SMALL,
            "one_policy": SMALL,
        },
        "budget": {"completions": 512},
        "seeds": 1,
        "preferences": {"grid": 2, "unseen": 1},
        "measurements": ["adaptation", "scaling"],
        "workers": 1,
    }


@pytest.fixture(scope="package")
def asked(shorter: None, asking: dict[str, Any], shared: Path) -> runner.StudyResult:
    """Run it in this process, or read what another worker has run: it is the same command."""
    with FileLock(shared.with_suffix(".lock")), real_studies.in_this_process():
        return runner.run(asking, shared / "out", progress=False)
