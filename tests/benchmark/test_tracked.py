"""Studies that tell trackers: what they are told, and that nothing else changes."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import told
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import run
from paretune.benchmark.study import load_study
from paretune.benchmark.tracked import runs_of, track
from paretune.core.errors import ConfigError, MissingDependencyError, StudyError, UnknownNameError
from paretune.records.files import append_jsonl
from paretune.training.context import GroupContext
from paretune.training.locking import locked
from told import Recorder, event, steps
from watched import contents

Make = Callable[..., dict[str, Any]]
MINE = ["told:Recorder"]


@pytest.fixture(autouse=True)
def fake_logs(fakes_here: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have fake stages, each update of which makes 8 completions, log what a learner does."""

    def log(self: GroupContext, given: Mapping[str, Any]) -> None:
        for member, (key, made) in enumerate(zip(self._ledgers, given["made"], strict=True)):
            append_jsonl(self._group / "events.jsonl", event(key, made // 8, member=member))

    monkeypatch.setattr(GroupContext, "log", log)
    told.forget()
    yield
    assert Recorder.open == set()


def test_a_tracker_is_told_of_every_update_of_every_policy_once(study: Make, tmp_path: Path) -> None:
    made = {**study({}), "trackers": MINE}
    assert run(made, tmp_path / "out", progress=False).complete
    runs = runs_of(plan(made, tmp_path / "out"))
    assert len(runs) == 4  # two seeds, one expert an objective
    assert Recorder.runs == runs
    assert steps() == {key: [1, 2, 3, 4] for key in runs}
    assert {told[-1][1]["completions"] for told in Recorder.heard.values()} == {32}
    assert {each.config["methods"] for each in runs.values()} == {"fake"}
    assert {each.folder for each in runs.values()} == {tmp_path / "out" / "tracking"}
    told.forget()
    run(made, tmp_path / "out", progress=False)
    assert steps() == {}
    longer = {**made, "budget": {"completions": [64, 96]}}
    run(longer, tmp_path / "out", progress=False)
    assert steps() == {key: [5, 6] for key in runs}  # the same policies, trained on


def test_trackers_change_nothing_that_a_study_is_known_by(study: Make, tmp_path: Path) -> None:
    plain, with_tracker = study({}), {**study({}), "trackers": MINE}
    assert plan(plain, tmp_path / "out").by_key.keys() == plan(with_tracker, tmp_path / "out").by_key.keys()
    run(plain, tmp_path / "out", progress=False)
    kept = contents(tmp_path / "out", "stages", "runs")
    assert run(with_tracker, tmp_path / "out", progress=False).complete
    assert contents(tmp_path / "out", "stages", "runs") == kept
    assert {len(told) for told in steps().values()} == {4}  # of what was trained before


def test_a_call_names_trackers_beside_those_of_the_study(study: Make, tmp_path: Path) -> None:
    run({**study({}), "trackers": MINE}, tmp_path / "out", progress=False, trackers=["told:Failing", *MINE])
    assert {len(told) for told in steps().values()} == {4}
    assert steps(told.Failing)


def test_a_study_ends_well_whatever_a_tracker_does(
    study: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    result = run({**study({}), "trackers": ["told:Failing"]}, tmp_path / "out", progress=False)
    assert result.complete
    assert [record.getMessage().partition(".")[0] for record in caplog.records] == [
        "tracker told:Failing: ConnectionError: no route to host"
    ]
    assert track(tmp_path / "out", MINE) == 16
    assert track(tmp_path / "out", MINE) == 0


def test_what_was_stopped_is_told_on_by_the_next_call(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, log, left = {**study({}), "trackers": MINE}, GroupContext.log, [3]

    def stops(self: GroupContext, given: Mapping[str, Any]) -> None:
        log(self, given)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(GroupContext, "log", stops)
        with pytest.raises(KeyboardInterrupt):
            run(made, tmp_path / "out", progress=False)
    assert {tuple(told) for told in steps().values()} == {(1, 2, 3)}  # of one population
    run(made, tmp_path / "out", progress=False)
    assert {tuple(told) for told in steps().values()} == {(1, 2, 3, 4)}


def test_a_tracker_that_cannot_be_is_refused_before_anything_is_written(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps({**study({}), "trackers": ["told:Recorder", "wandbb"]}))
    with pytest.raises(UnknownNameError, match=r"study.yaml.*trackers.1: tracker must be one of .*mean 'wandb'\?"):
        load_study(file)
    with pytest.raises(ConfigError, match="must be names of trackers, or of your own, each 'module:Class'"):
        load_study({**study({}), "trackers": [""]})
    monkeypatch.setitem(sys.modules, "wandb", None)
    for given, named in ((["wandb"], ()), ([], ["wandb"])):
        with pytest.raises(MissingDependencyError, match=r"pip install 'paretune\[wandb\]'"):
            run({**study({}), "trackers": given}, tmp_path / "out", progress=False, trackers=named)
    assert not (tmp_path / "out").exists()
    load_study({**study({}), "trackers": ["wandb"]})  # where nothing is trained, nothing is needed


def test_only_a_study_that_does_not_run_is_told_afterwards(study: Make, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"folder must be a study's, got '.*' without study.yaml"):
        track(tmp_path, MINE)
    run(study({}), tmp_path / "out", progress=False)
    with locked(tmp_path / "out"), pytest.raises(StudyError, match="must be used by one process at a time"):
        track(tmp_path / "out", MINE)


def test_trackers_are_resolved_and_nothing_is_followed_without_them(study: Make, tmp_path: Path) -> None:
    assert load_study({**study({}), "trackers": [*MINE, *MINE]}).resolved()["trackers"] == MINE
    run(study({}), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "tracking.json").exists()
