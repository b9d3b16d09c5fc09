from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paretune.core.errors import StudyError
from paretune.executors.leftovers import MARK, folder_mark
from paretune.training.locking import locked

HOLD = (
    "import os, sys, time; from pathlib import Path; from paretune.training.locking import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    child = os.fork() if len(sys.argv) > 2 else 1\n"
    "    child and print(child, flush=True); time.sleep(60)"
)


def hold(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a folder, and its child where it is to have one."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLD, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def test_a_second_process_is_refused_until_the_first_has_gone_even_by_a_kill(tmp_path: Path) -> None:
    first, _ = hold(tmp_path)
    with pytest.raises(StudyError, match=f"which process {first.pid} is working on"), locked(tmp_path):
        pass
    first.kill()
    first.wait()
    with locked(tmp_path):
        pass


def test_a_child_that_the_holder_has_forked_does_not_hold_the_folder(tmp_path: Path) -> None:
    first, child = hold(tmp_path, "forks")
    try:
        first.kill()
        first.wait()
        os.kill(child, 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, 9)


def test_a_run_ends_what_a_killed_one_left_working_on_its_folder(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    left, unrelated = (
        subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: f"{folder_mark(folder)}00"}, start_new_session=True)
        for folder in (tmp_path, other)
    )
    try:
        with locked(tmp_path):
            assert left.wait(timeout=10) == -9
            assert unrelated.poll() is None
    finally:
        unrelated.kill()
        unrelated.wait()


@pytest.mark.parametrize("content", ["", "99999999 elsewhere", "nonsense", "\0" * 20])
def test_a_lock_file_that_nobody_holds_never_blocks_whatever_it_says(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path):
        pass


def test_a_holder_that_left_no_number_is_another_process(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("wb") as held:
        held.write(b"\xff")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="which another process is working on"), locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_locked_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / ".lock").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    rule = "output folder must be one to write to and lock files in, got "
    for folder in (tmp_path / "folder", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StudyError, match=f"{rule}'{folder}'"), locked(folder):
            pass

    def refuses(number: int) -> object:
        def flock(*arguments: object) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    for number in (errno.ENOSYS, errno.ENOLCK, errno.EROFS, errno.EPERM):  # as NFS and read-only disks answer
        monkeypatch.setattr(fcntl, "flock", refuses(number))
        with pytest.raises(StudyError, match=rule) as caught, locked(tmp_path):
            pass
        assert os.strerror(number) in str(caught.value)
