"""Trackers of a user's own, and logs to tell them of: `import told`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from paretune.tracking import TrackedRun

Heard = dict[str, list[tuple[int, dict[str, float]]]]


class Recorder:
    """Keeps what it is told, by key of the run."""

    runs: ClassVar[dict[str, TrackedRun]] = {}
    heard: ClassVar[Heard] = {}
    open: ClassVar[set[str]] = set()

    def start(self, run: TrackedRun) -> None:
        assert run.key not in self.open
        self.key = run.key
        self.runs[run.key] = run
        self.open.add(run.key)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        assert self.key in self.open
        self.heard.setdefault(self.key, []).append((step, dict(metrics)))

    def finish(self) -> None:
        self.open.remove(self.key)


class Failing(Recorder):
    """Fails at the second update of a run."""

    heard: ClassVar[Heard] = {}
    open: ClassVar[set[str]] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            raise ConnectionError("no route to host")
        super().log(step, metrics)


def forget() -> None:
    """Forget what was told."""
    Recorder.runs.clear()
    for kind in (Recorder, Failing):
        kind.heard.clear()
        kind.open.clear()


def steps(kind: type[Recorder] = Recorder) -> dict[str, list[int]]:
    """Return the steps that a tracker was told of each run."""
    return {key: [step for step, _ in told] for key, told in kind.heard.items()}


def event(key: str, update: int, **changes: Any) -> dict[str, Any]:
    """Return what a learner's log says of an update."""
    return {
        "trajectory": key, "member": 0, "update": update, "completions": 8, "measured": 0, "reward_means": [0.5, 0.25],
        "reward_stds": [0.1, None], "reward": 0.375, "reward_std": 0.2, "mean_weights": [0.5, 0.5], "flat_groups": 0.5,
        "missing": [0, 2], "kl": 2.0, "mean_length": 4.0, "shortest": 1, "longest": 8, "grad_norm": 3.0, "moved": True,
        "log_prob_gap": 0.0, "seconds": 0.5, **changes,
    }  # fmt: skip


def append(log: Path, *events: Mapping[str, object], end: str = "") -> None:
    """Write lines to a log, the last one perhaps torn."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("".join(f"{json.dumps(each)}\n" for each in events) + end)


def finished(root: Path, stage: str, key: str, *events: Mapping[str, Any]) -> None:
    """Write a finished stage as far as trackers look at it."""
    append(root / "stages" / stage / "events.jsonl", *events)
    record = {"trajectory": key, "completions": sum(each["completions"] for each in events)}
    (root / "stages" / stage / "stage.json").write_text(json.dumps(record))
    (root / "stages" / stage / "DONE.json").write_text("{}")
