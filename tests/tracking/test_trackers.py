"""What every entry of `TRACKERS` keeps to, with stand-ins for the packages of three."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import told
import tracker_packages
from paretune.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from paretune.tracking import PARTS, TRACKERS, TrackedRun, check_trackers, load_tracker
from tracker_packages import Kept, Points

Read = Callable[[str], Points]  # name of a run -> what can be read back


def run(name: str, folder: Path) -> TrackedRun:
    config = {"seed": 1, "gate.level": "block", "start": None, "objective_weights.to the point?": 0.5}
    return TrackedRun(f"key-of-{name}", name, "mine", config, folder, ("warm", "to the point?"), 0.1)


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def read(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    if tracker == "tensorboard":
        return lambda name: points_of(tmp_path / "tensorboard" / name)
    kept = Kept()
    monkeypatch.setitem(sys.modules, tracker, tracker_packages.PACKAGES[tracker](kept))
    return lambda name: kept.points[name]


def points_of(folder: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for each in events.Scalars(tag):
            assert tag not in found.setdefault(each.step, {}), "told twice"
            found[each.step][tag] = each.value
    return sorted(found.items())


def test_runs_side_by_side_keep_their_points_apart_and_go_on_later(tracker: str, read: Read, tmp_path: Path) -> None:
    kind, names = load_tracker(tracker), ("one", "two")
    for part in PARTS:
        assert callable(getattr(kind, part))
    first, second = kind(), kind()
    first.start(run("one", tmp_path))
    second.start(run("two", tmp_path))
    first.log(1, {"reward": 0.5, "rewards/to the point?/mean": 0.25})
    second.log(1, {"reward": -0.5})
    first.log(2, {"reward": 0.75})
    first.finish()
    second.log(2, {"reward": 1.0})  # the end of one ends no other
    second.finish()
    later = kind()
    later.start(run("one", tmp_path))
    later.log(3, {"reward": 1.5})
    later.finish()
    one, two = (read(name) for name in names)
    assert [(step, told["reward"]) for step, told in one] == [(1, 0.5), (2, 0.75), (3, 1.5)]
    assert [(step, told["reward"]) for step, told in two] == [(1, -0.5), (2, 1.0)]
    (other,) = one[0][1].keys() - {"reward"}
    assert one[0][1][other] == 0.25
    assert other.startswith("rewards/to the point")


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)  # as if it were not installed
    advice = rf"Run `pip install 'paretune\[{tracker}\]'`\."
    message = rf"tracker {tracker} must have its package installed, got .*\. {advice}"
    with pytest.raises(MissingDependencyError, match=message):
        check_trackers([tracker])


def test_every_tracker_has_its_extra(tracker: str, root: Path) -> None:
    import tomllib

    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name.split(">")[0] for name in extras[tracker]] == [tracker]


def test_tensorboard_shows_what_a_run_is(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = load_tracker("tensorboard")()
    made.start(run("one", tmp_path))
    made.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "one"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert b'| gate.level | "block" |' in text.tensor_proto.string_val[0]


def test_a_misspelt_tracker_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(UnknownNameError) as error:
        load_tracker("tensorbord")
    assert str(error.value) == (
        "tracker must be one of mlflow, tensorboard, trackio, wandb, got 'tensorbord'. Did you mean 'tensorboard'?"
    )


def test_a_users_own_tracker_is_a_class_with_its_parts() -> None:
    assert check_trackers(["told:Recorder", "told:Recorder"]) == ("told:Recorder",)
    assert load_tracker("told:Recorder") is told.Recorder
    with pytest.raises(ConfigError, match="tracker 'told:event' must be a class with start, log, finish"):
        load_tracker("told:event")


def test_a_users_own_tracker_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: told.Recorder) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(told.Recorder, "__init__", fails)
    with pytest.raises(ConfigError, match="tracker 'told:Recorder' must not raise, got ConnectionError: no server"):
        check_trackers(["told:Recorder"])


def test_a_name_alone_is_no_list() -> None:
    with pytest.raises(ConfigError, match=r"trackers must be a list of names, got 'wandb'. Write \['wandb'\]."):
        check_trackers("wandb")
