"""Growing by whole rounds: each is made once, however a run is killed, extended, or shared by several lengths."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import set_runs
from paretune.core.errors import StopRequested
from paretune.core.stages import Stage, StageContext
from paretune.core.task import Task
from paretune.methods.telling import Telling
from paretune.methods.training import STATE, trajectories
from paretune.methods.whole_rounds import grow
from paretune.rl.checkpoints import read_state, save_state

ROUND = 8  # completions


def stage_of(completions: int) -> Stage:
    return Stage("count", "nobody:runs", {}, completions=completions)


class Counting:
    """Rounds of eight completions; each makes a number of all those before it.

    Attributes:
        made: In this attempt: numbers of whole rounds; for each length that was handed over, its completions, negative.
    """

    unreported_completions = ROUND

    def __init__(self, context: StageContext, stage: Stage) -> None:
        self.context, self.telling, self.ledger = context, Telling(context), context.ledger(stage)
        self.made = list[int]()

    def whole(self, length: int) -> int:
        return length // ROUND

    def fresh(self) -> list[int]:
        return []

    def written(self, grown: list[int]) -> Any:
        return {"last": torch.tensor(grown[-1:])}, {"grown so far": grown}

    def read(self, tensors: Mapping[str, Any], plain: Mapping[str, Any]) -> list[int]:
        found: list[int] = plain["grown so far"]
        assert tensors["last"].tolist() == found[-1:]
        return found

    def make(self, grown: list[int], number: int) -> list[int]:
        assert number == len(grown)
        assert self.ledger.completions == number * ROUND  # a shorter length has left nothing in it
        self.ledger.charge(completions=ROUND)
        self.made.append(number)
        return [*grown, 3 * sum(grown) + 1]

    def hand_over(self, stage: Stage, grown: list[int], number: int) -> None:
        assert number == len(grown)
        left = stage.completions - self.ledger.completions
        self.ledger.charge(completions=left)
        self.made.append(-stage.completions)
        self.context.artefact(stage, "count.json").write_text(json.dumps([*grown, -left]), encoding="utf-8")
        self.context.seal(stage, {"rounds": number})
        self.telling.progress(left)


class Attempt:
    """What one attempt to grow to some lengths made and reported; it is stopped at one of the reports."""

    def __init__(
        self, root: Path, lengths: tuple[int, ...], task: Task, stop_at: int = 0, kind: type[Counting] = Counting
    ) -> None:
        context = set_runs.context_of(root, [stage_of(each) for each in lengths], task)
        self.made, self.told, self.stopped = list[int](), list[int](), False

        def progress(completions: int, message: str = "") -> None:
            self.told.append(completions)
            if len(self.told) == stop_at:
                raise StopRequested

        changed: Any = context
        changed.progress = progress
        try:
            for stages in trajectories(context):
                rounds = kind(context, stages[-1])
                self.made = rounds.made
                grow(context, stages, rounds)
        except StopRequested:
            self.stopped = True
            context.note_spent()  # as is done behind every run function


def count(root: Path, length: int, task: Task) -> Any:
    """Return the artefact of a length."""
    return json.loads(set_runs.stage_result(root, stage_of(length), task).artefacts["count.json"].read_text("utf-8"))


def left(root: Path, length: int, task: Task) -> tuple[object, ...]:
    """Return all that a length has left: its artefact, its state for longer runs, and what it spent."""
    result = set_runs.stage_result(root, stage_of(length), task)
    tensors, plain = read_state(result.folder / "checkpoint" / STATE)
    counted = {name: plain["ledger"].pop(name) for name in ("counts", "budget_completions")}
    assert plain.pop("ledger")  # and seconds and peak memory, which differ between equal runs
    return count(root, length, task), tensors["last"].tolist(), plain, counted, result.ledger.counts


def new_group(root: Path) -> None:
    """Forget the checkpoints of a group that is finished: those of others are elsewhere."""
    (root / "groups" / "one").rename(root / "gone")


def test_a_length_is_made_of_whole_rounds_and_of_what_it_alone_has(task: Task, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, (19,), task)
    assert (attempt.made, attempt.told) == ([0, 1, -19], [8, 8, 3])
    assert count(tmp_path, 19, task) == [1, 4, -3]  # 3 * 0 + 1, 3 * 1 + 1, and what two rounds of 8 leave of 19
    assert set_runs.stage_result(tmp_path, stage_of(19), task).ledger.completions == 19


@pytest.mark.parametrize("lengths", [(11, 27), (17, 19, 23, 27), (3, 16, 24)])
def test_lengths_of_one_run_are_those_of_runs_alone(task: Task, tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """One behind another, three within one round, and less than a round beside lengths without a rest."""
    together = Attempt(tmp_path / "together", lengths, task)
    assert sum(together.told) == lengths[-1]  # what the shorter ones alone have is reported to nobody
    assert Counter(together.made) == Counter([*range(lengths[-1] // ROUND), *(-length for length in lengths)])
    for length in lengths:
        Attempt(tmp_path / str(length), (length,), task)
        assert left(tmp_path / "together", length, task) == left(tmp_path / str(length), length, task)


def test_an_extension_that_is_killed_goes_on_from_its_own_checkpoint(task: Task, tmp_path: Path) -> None:
    Attempt(tmp_path, (11,), task)
    new_group(tmp_path)
    killed = Attempt(tmp_path, (43,), task, stop_at=2)
    again = Attempt(tmp_path, (43,), task)
    assert (killed.made, again.made) == ([1, 2], [3, 4, -43])  # not from the end of 11 once more
    Attempt(tmp_path / "alone", (43,), task)
    assert left(tmp_path, 43, task) == left(tmp_path / "alone", 43, task)


def test_a_finished_length_between_two_that_are_missing_is_no_start(task: Task, tmp_path: Path) -> None:
    Attempt(tmp_path, (19,), task)
    new_group(tmp_path)
    both = Attempt(tmp_path, (11, 27), task)
    assert both.made == [0, -11, 1, 2, -27]  # what 19 has left is behind the end of 11
    for length in (11, 27):
        Attempt(tmp_path / str(length), (length,), task)
        assert left(tmp_path, length, task) == left(tmp_path / str(length), length, task)


@pytest.mark.parametrize("lengths", [(11, 27), (17, 19, 27), (24,)])
def test_a_stop_at_any_report_loses_nothing(task: Task, tmp_path: Path, lengths: tuple[int, ...]) -> None:
    whole = Attempt(tmp_path / "whole", lengths, task)
    for stop_at in range(1, len(whole.told) + 1):
        root = tmp_path / str(stop_at)
        killed = Attempt(root, lengths, task, stop_at)
        assert killed.stopped
        finished = -lengths[-1] in killed.made  # a study does not run again what is sealed
        attempts = [killed] if finished else [killed, Attempt(root, lengths, task)]
        rounds = [each for attempt in attempts for each in attempt.made if each >= 0]
        assert rounds == [*range(lengths[-1] // ROUND)]
        assert sum(sum(attempt.told) for attempt in attempts) == lengths[-1]
        for length in lengths:
            assert left(root, length, task) == left(tmp_path / "whole", length, task)


class Clashing(Counting):
    """One whose plain data has the names that `grow` has."""

    def written(self, grown: list[int]) -> Any:
        return {}, {"rounds": grown, "ledger": "mine", "grown": {"rounds": 5}}

    def read(self, tensors: Mapping[str, Any], plain: Mapping[str, Any]) -> list[int]:
        assert plain["ledger"] == "mine"
        assert plain["grown"] == {"rounds": 5}
        found: list[int] = plain["rounds"]
        return found


def test_what_is_written_may_have_any_names(task: Task, tmp_path: Path) -> None:
    killed = Attempt(tmp_path, (27,), task, stop_at=2, kind=Clashing)
    again = Attempt(tmp_path, (27,), task, kind=Clashing)
    assert (killed.made, again.made) == ([0, 1], [2, -27])
    assert count(tmp_path, 27, task) == [1, 4, 16, -3]


@pytest.mark.parametrize("counted", ["rounds", "steps"])
def test_states_of_earlier_days_are_gone_on_from(task: Task, tmp_path: Path, counted: str) -> None:
    """There the plain data lay beside the rounds, which starts called steps."""
    context = set_runs.context_of(tmp_path, [stage_of(27)], task)
    rounds = Counting(context, stage_of(27))
    tensors, plain = rounds.written(rounds.make(rounds.make([], 0), 1))
    path = context.checkpoint_folder() / f"{stage_of(27).trajectory_key(task)}.safetensors"
    save_state(path, tensors, {**plain, counted: 2, "ledger": rounds.ledger.state()})
    again = Attempt(tmp_path, (27,), task)
    assert again.made == [2, -27]
    Attempt(tmp_path / "alone", (27,), task)
    assert left(tmp_path, 27, task) == left(tmp_path / "alone", 27, task)


def test_a_class_that_does_not_say_what_it_reports_trains_nothing(task: Task, tmp_path: Path) -> None:
    context = set_runs.context_of(tmp_path, [stage_of(27)], task)
    silent: Any = type("Silent", (), {name: each for name, each in vars(Counting).items() if name[0] != "u"})
    rounds = silent(context, stage_of(27))
    with pytest.raises(AttributeError, match="unreported_completions"):
        grow(context, [stage_of(27)], rounds)
    assert rounds.made == []
