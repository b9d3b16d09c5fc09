"""What searches, choices and measurements of experts have measured survives a stop and a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import set_runs
from paretune.core.imports import import_name
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage, StageContext
from paretune.core.task import Task
from paretune.methods.entries import method_entry
from paretune.methods.kept_measurements import UNTIMED, KeptMeasurements
from paretune.methods.training import train_experts
from paretune.objectives.scoring import Scorer
from paretune.training.finished import stage_result

SMALL = {"rank": 2, "group_size": 4, "completions_per_update": 8, "learning_rate": 0.03, "epochs": 1}
EACH = {**SMALL, "measured_each": 4}
PRIOR = {"kind": "search", "measured_each": 4}
MEASURING: dict[str, tuple[str, dict[str, Any], int]] = {  # method, settings, call of a stop in the midst of them
    "emorl": ("emorl", EACH, 2),
    "emorl's last call": ("emorl", EACH, 0),
    "random soups": ("searched_soups", {**EACH, "search": "random", "level": "log_probs"}, 2),
    "small changes": ("searched_soups", {**EACH, "search": "gradient_free", "candidates": 2}, 2),
    "a searched prior": ("mixture_of_experts", {**SMALL, "experts": "single_objective", "prior": PRIOR}, 1),
    "pilots": ("bone_soups", {**SMALL, "pilot_share": 0.6, "pilot_measured_each": 4}, 1),
    "members": ("weight_grid", {**EACH, "completions_each": 40}, 2),
}


class Killed(BaseException):
    """In the place of a signal that no code hears of."""


def measuring(name: str, task: Task) -> tuple[list[Stage], Stage]:
    """Return the experts and the stage that measures their mixtures, or them."""
    method, settings, _ = MEASURING[name]
    planned = method_entry(method, settings, "x").method.stages(task, das_dennis(2, 2), 240, 0)
    (stage,) = (each for each in planned if each.kind in ("search", "choice", "measurement"))
    return list(stage.needs), stage


def prepared(name: str, task: Task, root: Path) -> tuple[Any, Stage]:
    """Train the experts for two runs, and return what measures them."""
    experts, stage = measuring(name, task)
    set_runs.run(train_experts, root / "whole", experts, task)
    shutil.rmtree(root / "whole" / "groups")
    shutil.copytree(root / "whole", root / "killed")
    return import_name("run", stage.run), stage


def left(root: Path, stage: Stage, task: Task) -> tuple[object, ...]:
    found = stage_result(root, stage, task)
    return {name: path.read_bytes() for name, path in found.artefacts.items()}, found.values, found.ledger.counts


def calls_of(function: Any, root: Path, stage: Stage, task: Task) -> list[int]:
    """Return the completions of each call that reports progress."""
    context, told = set_runs.context_of(root, [stage], task), list[int]()
    cast(Any, context).progress = lambda completions, message="": told.append(completions)
    function(context)
    shutil.rmtree(root)
    return told


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    "name",
    [name if name in ("emorl", "members") else pytest.param(name, marks=pytest.mark.slow) for name in MEASURING],
)
def test_a_stop_loses_no_measurement(name: str, task: Task, tmp_path: Path) -> None:
    function, stage = prepared(name, task, tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "counted")
    told = calls_of(function, tmp_path / "counted", stage, task)
    assert sum(told) == stage.completions
    call = MEASURING[name][2] or len(told)
    assert call <= len(told)
    set_runs.check_that_a_stop_loses_nothing(function, stage, task, tmp_path, call)
    whole, killed = (left(tmp_path / each, stage, task) for each in ("whole", "killed"))
    assert killed == whole  # to the last bit of what was measured
    events = [(tmp_path / each / "groups" / "one" / "events.jsonl") for each in ("whole", "killed")]
    if events[0].exists():
        assert events[1].read_text(encoding="utf-8") == events[0].read_text(encoding="utf-8")


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("name", ["emorl", "members"])
def test_a_kill_repeats_the_measurement_that_was_under_way_and_no_other(
    name: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, stage = prepared(name, task, tmp_path)
    (whole,) = set_runs.run(function, tmp_path / "whole", [stage], task)
    score, scored = Scorer.__call__, list[int]()

    def killing(scorer: Scorer, rows: Any, texts: Any) -> Any:
        scored.append(len(texts))
        if len(scored) == 2:
            raise Killed
        return score(scorer, rows, texts)

    monkeypatch.setattr(Scorer, "__call__", killing)
    context = set_runs.context_of(tmp_path / "killed", [stage], task)
    with pytest.raises(Killed):
        function(context)
    context.note_spent()
    (resumed,) = set_runs.run(function, tmp_path / "killed", [stage], task)
    assert resumed.ledger.repeated["completions"] == scored[1]
    assert sum(scored) == stage.completions + scored[1]
    assert left(tmp_path / "killed", stage, task) == left(tmp_path / "whole", stage, task)
    assert resumed.ledger.seconds.keys() == whole.ledger.seconds.keys()


KILLED = """
import os, signal, sys
from pathlib import Path
import set_runs, test_kept_measurements as tests
from paretune.models import loading
from paretune.objectives.scoring import Scorer
from paretune import load_task
loading.default_device = lambda: "cpu"
score, calls = Scorer.__call__, []
def killing(*given):
    calls.append(given)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(*given)
Scorer.__call__ = killing
task = load_task(sys.argv[1])
_, stage = tests.measuring("emorl", task)
tests.import_name("run", stage.run)(set_runs.context_of(Path(sys.argv[2]), [stage], task))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("base")
def test_a_process_that_is_killed_goes_on_to_the_same_search(task: Task, tmp_path: Path) -> None:
    function, stage = prepared("emorl", task, tmp_path)
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests / "methods"), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(task.source), str(tmp_path / "killed")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    set_runs.run(function, tmp_path / "whole", [stage], task)
    told, _ = set_runs.reported(function, tmp_path / "killed", [stage], task)
    assert 0 < told < stage.completions
    assert left(tmp_path / "killed", stage, task) == left(tmp_path / "whole", stage, task)


@dataclass
class Attempt:
    """What one attempt of a stage is given, and what it has told."""

    folder: Path
    spent: Ledger = field(default_factory=Ledger)
    told: list[int] = field(default_factory=list)

    def ledger(self, stage: Any) -> Ledger:
        return self.spent

    def checkpoint_folder(self) -> Path:
        return self.folder

    @property
    def task(self) -> Any:
        return None

    def progress(self, completions: int) -> None:
        self.told.append(completions)

    def measured(self, asked: Mapping[str, object], says: float, **phases: float) -> float:
        """Ask a stage's measurements, as a search of a user's own does in each of its calls."""

        def make() -> dict[str, Any]:
            self.spent.charge(completions=4, tokens=7)
            self.spent.count_rewards([3, 4], 4, ("one is missing", ""))
            for phase, seconds in phases.items():
                self.spent.add_seconds(phase, seconds)
            return {"says": says}

        stage = SimpleNamespace(key=lambda task: "stage")
        found = KeptMeasurements(cast(StageContext, self), cast(Stage, stage)).answer(asked, make)
        return float(found["says"])


def test_what_was_measured_is_known_and_what_is_asked_twice_is_made_twice(tmp_path: Path) -> None:
    first = Attempt(tmp_path)
    assert [first.measured({"a": 1}, says) for says in (0.1, 0.2)] == [0.1, 0.2]
    assert first.spent.counts["completions"] == 8
    again = Attempt(tmp_path, Ledger(12))
    assert [again.measured({"a": 1}, 9.0) for _ in range(2)] == [0.1, 0.2]
    assert again.told == []
    assert (again.spent.counts, again.spent.scored) == (first.spent.counts, [6, 8])
    assert (again.spent.missing, again.spent.faults) == ([2, 0], ["one is missing", ""])
    assert again.spent.budget_completions == 12
    assert again.measured({"a": 2}, 0.3) == 0.3
    assert again.told == [4]
    other = Attempt(tmp_path)
    assert other.measured({"a": 2}, 5.0) == 5.0  # asked where nothing is spent yet: not what was measured


def test_seconds_before_a_stop_count_whoever_times_them(tmp_path: Path) -> None:
    timed = Attempt(tmp_path / "timed")
    timed.measured({}, 0.0, sampling=2.0)
    again = Attempt(tmp_path / "timed")
    again.measured({}, 0.0, sampling=2.0)
    again.measured({}, 0.0, sampling=1.0)
    assert again.spent.seconds == {"sampling": 3.0}
    untimed = Attempt(tmp_path / "untimed")
    for says in (0.0, 1.0):
        untimed.measured({}, says)
    assert not untimed.spent.seconds  # the stage is given the time of all it does
    after = Attempt(tmp_path / "untimed")
    after.measured({}, 0.0)
    one = after.spent.seconds[UNTIMED]
    after.measured({}, 1.0)
    two = after.spent.seconds[UNTIMED]
    after.measured({}, 2.0)
    assert 0 < one < two < after.spent.seconds[UNTIMED]
