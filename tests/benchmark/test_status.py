"""Where a study stands is told by its files, from another process, whatever has become of the one that runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from builders import synthetic_study
from paretune.benchmark.folder import check_folder
from paretune.benchmark.heartbeat import FILE, NOTE_SECONDS, Heartbeat, signs_of_life
from paretune.benchmark.progress import Display, Progress, Running
from paretune.benchmark.status import Status, status, status_text
from paretune.benchmark.study import load_study
from paretune.core.errors import RecordError
from paretune.records.files import mark_done, mark_failed
from paretune.records.layout import cell_folder, evaluations_folder
from paretune.records.writing import write_lock

JOB = Running("train abc", "training", ("counselling-linear-6000-1",), 40.0, 3.0, 1024, 6000)
PROGRESS = Progress(9, 1, 1, 1, 2000, 12_000, 100.0, 100.0, "training x1", 0, "cells", 50.0, (JOB,))


class Heard(Display):
    def __init__(self) -> None:
        self.shown: list[Progress] = []

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)


class Clock:
    """Stands still, but for the seconds that a test lets pass."""

    def __init__(self) -> None:
        self.began = self.now = float(round(time.time()))

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", lambda: made.now)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study of nine cells: the first is done, the fourth has failed."""
    study = synthetic_study()
    write_lock(tmp_path, study)
    first, failed = study.cells[0].cell, study.cells[3].cell
    for folder in (cell_folder(tmp_path, first), evaluations_folder(tmp_path, first), cell_folder(tmp_path, failed)):
        folder.mkdir(parents=True)
        (folder / "cell.json").write_text("{}")
    mark_done(cell_folder(tmp_path, first))
    mark_done(evaluations_folder(tmp_path, first))
    mark_failed(cell_folder(tmp_path, failed), "out_of_memory", "no room")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-1.log").write_text("Traceback")
    return tmp_path


def changed(root: Path, **values: Any) -> Status:
    """Change what the last call has noted, and look."""
    note = json.loads((root / FILE).read_text())
    (root / FILE).write_text(json.dumps({**note, **values}))
    return status(root)


def test_a_study_that_runs_says_what_it_does_and_how_long_it_will_take(root: Path, clock: Clock) -> None:
    with signs_of_life(root, Display()) as heartbeat:
        clock.pass_by(NOTE_SECONDS)
        heartbeat.show(PROGRESS)
        clock.pass_by(2)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        found = status(root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before  # nothing is written
    assert found.state == "running"
    assert found.cells == {"done": 1, "running": 1, "pending": 6, "failed": 1}
    assert found.completions == (2000, 12_000)
    # 10,000 left, at 100 and at 50 a second: 100 and 200 seconds
    assert found.minutes_left == pytest.approx((100 / 60, 200 / 60))
    assert found.age_seconds == 2
    assert not found.ok  # one has failed
    text = status_text(found)
    assert "cells: 1 done, 1 running, 6 pending, 1 failed of 9" in text
    assert "2,000 of at most 12,000 in this call, 100 a second, 2 to 3 minutes left" in text
    assert "now: training of counselling-linear-6000-1: 1,024 of 6,000 completions in 40 s, last heard of 3.0 s" in text
    assert "(out_of_memory): no room" in text
    assert "/FAILED.json; logs/worker-1.log" in text
    assert json.loads(json.dumps(found.plain()))["now"][0]["completions"] == 1024


def test_a_call_that_has_ended_is_no_longer_running(root: Path) -> None:
    with signs_of_life(root, Display()):
        pass
    found = status(root)
    assert (found.state, found.now, found.per_second) == ("ended", (), None)
    assert "ended with cells left" in status_text(found)


def test_a_call_that_was_interrupted_has_stopped(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), signs_of_life(root, Display()):
        raise KeyboardInterrupt
    found = status(root)
    assert (found.state, found.ok) == ("stopped", False)
    assert "run the same command again to go on" in status_text(found)


def test_a_study_whose_process_was_killed_is_shown_as_stopped(root: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from paretune.benchmark.heartbeat import Heartbeat; from paretune.benchmark.progress import Display\n"
        "Heartbeat(Path(sys.argv[1]), Display()).note('running')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=False, env=os.environ)
    assert json.loads((root / FILE).read_text())["state"] == "running"
    found = status(root)
    assert (found.state, found.now, found.cells["running"]) == ("stopped", (), 0)


def test_another_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(root: Path) -> None:
    heartbeat = Heartbeat(root, Display())
    heartbeat.note("running")
    assert status(root).state == "running"
    assert changed(root, process_began=psutil.Process().create_time() - 60).state == "stopped"


def test_a_process_of_another_machine_runs_while_it_gives_signs_of_life(root: Path) -> None:
    Heartbeat(root, Display()).note("running")
    assert changed(root, host="elsewhere", noted=time.time() - 10).state == "running"
    assert changed(root, host="elsewhere", noted=time.time() - 600).state == "stopped"


def test_a_study_with_all_cells_done_is_finished_with_or_without_a_note(root: Path) -> None:
    for cell in synthetic_study().cells:
        for folder in (cell_folder(root, cell.cell), evaluations_folder(root, cell.cell)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cell.json").write_text("{}")
            mark_done(folder)
    found = status(root)
    assert (found.state, found.ok, found.errors) == ("finished", True, ())


def test_a_damaged_note_is_as_none(root: Path) -> None:
    (root / FILE).write_text("{torn")
    assert status(root).state == "stopped"
    assert status(root).age_seconds is None


@pytest.mark.parametrize(
    "other", [{"process_began": None}, {"progress": {"done": 1}}, {"progress": {**asdict(PROGRESS), "jobs": [{}]}}]
)
def test_a_note_of_another_version_is_as_none(root: Path, other: dict[str, Any]) -> None:
    Heartbeat(root, Display()).note("running")
    assert changed(root, later="something new").state == "running"
    found = changed(root, **other)
    assert (found.state, found.age_seconds) == ("stopped", None)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="must be a study"):
        status(tmp_path)


def test_progress_is_noted_every_few_seconds_and_shown_each_time(root: Path, clock: Clock) -> None:
    shown, noted = Heard(), list[float]()
    heartbeat = Heartbeat(root, shown)
    for _ in range(8):
        heartbeat.show(PROGRESS)
        noted.append(json.loads((root / FILE).read_text())["noted"] - clock.began)
        clock.pass_by(2)
    assert noted == [0, 0, 0, 6, 6, 6, 12, 12]  # the first after five seconds or more
    assert len(shown.shown) == 8


def test_a_folder_that_a_kill_left_with_a_note_alone_may_be_used(tmp_path: Path) -> None:
    Heartbeat(tmp_path, Display()).note("running")
    assert check_folder(load_study("quick"), tmp_path) == ""


def test_a_full_disk_does_not_end_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise RecordError("disk is full")

    monkeypatch.setattr("paretune.benchmark.heartbeat.write_json", full)
    with signs_of_life(root, Display()) as heartbeat:
        heartbeat.show(PROGRESS)
    assert not (root / FILE).exists()
