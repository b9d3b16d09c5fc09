from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import told
from paretune.core.errors import RecordError
from paretune.records.files import read_signed
from paretune.tracking import TrackedRun, following
from paretune.tracking.following import FILE, Follower
from paretune.tracking.updates import Updates
from told import Failing, Recorder, append, event, finished, steps

MINE = ["told:Recorder"]


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    told.forget()


def run(key: str, folder: Path = Path()) -> TrackedRun:
    return TrackedRun(key, f"run-{key}", "mine", {"seed": 1, "text": None}, folder, ("warm", "brief"), 0.1)


RUNS = {key: run(key) for key in ("one", "two")}


def follower(root: Path, trackers: list[str] = MINE, runs: Mapping[str, TrackedRun] = RUNS) -> Follower:
    made = Follower(root, trackers)
    made.describe(runs)
    return made


def killed_call(root: Path, trackers: list[str] = MINE) -> None:
    """Look once and go without a word, as a process does that is killed."""
    follower(root, trackers).look()
    Recorder.open.clear()
    Failing.open.clear()


def test_runs_are_told_as_they_grow_and_finished_when_they_are_over(tmp_path: Path) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    append(log, event("one", 1), event("two", 1, member=1))
    following = follower(tmp_path)
    assert following.look() == 2
    assert Recorder.open == {"one", "two"}
    append(log, event("one", 2))
    assert (following.look(), following.look()) == (1, 0)
    assert steps() == {"one": [1, 2], "two": [1]}
    log.unlink()
    following.look()
    assert Recorder.open == set()
    assert Recorder.heard["one"][1][1]["completions"] == 16


def test_later_calls_tell_no_update_twice(tmp_path: Path) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    append(log, event("one", 1), event("one", 2), event("one", 3))
    killed_call(tmp_path)
    append(log, event("one", 2), event("one", 3), event("one", 4))  # killed and resumed
    killed_call(tmp_path)
    finished(tmp_path, "s", "one", *(event("one", update) for update in range(1, 6)))
    killed_call(tmp_path)
    assert steps() == {"one": [1, 2, 3, 4, 5]}
    other = ["told:Failing"]  # has a state of its own
    killed_call(tmp_path, other)
    assert steps(Failing)["one"] == [1]


def test_a_kill_while_a_tracker_is_told_costs_an_update_and_no_second_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    append(log, event("one", 1))

    class Killed(BaseException):
        pass

    def dies(self: Recorder, step: int, metrics: Mapping[str, float]) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log", dies)
        with pytest.raises(Killed):
            follower(tmp_path).look()
    told.forget()
    append(log, event("one", 2))
    follower(tmp_path).look()
    assert steps() == {"one": [2]}


def test_a_run_that_nobody_has_described_yet_waits(tmp_path: Path) -> None:
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1), event("two", 1))
    following = follower(tmp_path, runs={"one": RUNS["one"]})
    assert following.look() == 1
    following.describe(RUNS)
    following.look()
    assert steps() == {"one": [1], "two": [1]}


def test_a_tracker_that_fails_is_named_once_and_told_the_rest_by_the_next_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, trackers = tmp_path / "groups" / "g" / "events.jsonl", ["told:Failing", *MINE]
    append(log, event("one", 1), event("one", 2), event("two", 1))
    first = follower(tmp_path, trackers)
    assert first.look() == 1 + 3
    assert read_signed(tmp_path / FILE)["told"]["told:Failing"] == {"one": 1, "two": 0}
    append(log, event("one", 3))
    assert first.look() == 1
    first.close()
    assert [record.getMessage() for record in caplog.records] == [
        "tracker told:Failing: ConnectionError: no route to host. It is told nothing more in this call; training goes "
        "on, and its log has all."
    ]
    told.forget()
    monkeypatch.setattr(Failing, "log", Recorder.log)
    follower(tmp_path, trackers).look()
    assert steps(Failing) == {"one": [2, 3], "two": [1]}
    assert steps() == {}  # it knows all


@pytest.mark.parametrize("part", ["start", "finish"])
def test_a_failure_to_start_or_finish_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fails(self: Recorder, *given: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(Recorder, part, fails)
    finished(tmp_path, "s", "one", event("one", 1))
    following = follower(tmp_path)
    following.look()
    following.close()
    assert [record.getMessage().partition(".")[0] for record in caplog.records] == [
        "tracker told:Recorder: SystemExit: 1"
    ]


def test_damaged_notes_are_named_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1))
    killed_call(tmp_path)
    (tmp_path / FILE).write_text("{}")
    caplog.set_level(logging.WARNING)
    killed_call(tmp_path)
    assert "tracking.json. Trackers are told of all updates again." in caplog.records[0].getMessage()
    assert steps() == {"one": [1, 1]}


def test_a_thread_follows_while_a_block_trains_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    log = tmp_path / "groups" / "g" / "events.jsonl"

    def trains() -> None:
        with following.following(tmp_path, MINE) as made:
            made.describe(RUNS)
            append(log, event("one", 1))
            deadline = time.monotonic() + 30
            while not Recorder.heard and time.monotonic() < deadline:
                time.sleep(0.01)
            assert steps() == {"one": [1]}  # while it is under way
            append(log, event("one", 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trains()
    assert steps() == {"one": [1, 2]}
    assert Recorder.open == set()
    assert "trackers" not in {thread.name for thread in threading.enumerate()}


def test_a_tracker_that_hangs_keeps_nobody_waiting_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(Recorder, "start", lambda self, run: goes_on.wait(60))
    monkeypatch.setattr(following, "FINISH_SECONDS", 0.05)
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1))
    with following.following(tmp_path, MINE) as made:
        made.describe(RUNS)
    assert "not finished after 0 seconds" in caplog.records[0].getMessage()
    goes_on.set()
    next(each for each in threading.enumerate() if each.name == "trackers").join(30)


def test_a_full_disk_ends_the_following_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise RecordError("disk must have room, got none. Free some.")

    monkeypatch.setattr(following, "write_signed", full)
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1))
    with following.following(tmp_path, MINE) as made:
        made.describe(RUNS)
    assert steps() == {}


def test_runs_are_finished_even_if_following_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*given: object) -> None:
        raise RuntimeError("broken")

    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: said.append(hook.exc_value))
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1))
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    with following.following(tmp_path, MINE) as made:
        made.describe(RUNS)
        deadline = time.monotonic() + 30
        while not Recorder.heard and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setattr(Updates, "look", breaks)
    assert [str(each) for each in said] == ["broken"]
    assert (steps(), Recorder.open) == ({"one": [1]}, set())


def test_without_trackers_no_thread_is_started_and_no_file_written(tmp_path: Path) -> None:
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 1))
    with following.following(tmp_path, []) as made:
        made.describe(RUNS)
        assert "trackers" not in {thread.name for thread in threading.enumerate()}
    assert not (tmp_path / FILE).exists()
