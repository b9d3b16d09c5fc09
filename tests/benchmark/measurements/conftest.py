"""A real study, run once, that asks for adaptation and scaling: the micro-task with an audit objective."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
def asking(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the study: single policies, experts that are mixed, and one mixture that cannot be adapted."""
    task = micro_task.save_task(tmp_path_factory.mktemp("task"))
    task.write_text(task.read_text() + AUDIT)
    (task.parent / "rewards.py").write_text(micro_task.REWARDS + SHORT)
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
def asked(shorter: None, asking: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> runner.StudyResult:
    """Run it in this process."""
    with real_studies.in_this_process():
        return runner.run(asking, tmp_path_factory.mktemp("asked") / "out", progress=False)
