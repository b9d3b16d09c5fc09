import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paretune.core.errors import RecordError
from paretune.records.files import (
    SCHEMA_VERSION,
    append_jsonl,
    check_sealed,
    is_disk_full,
    is_done,
    mark_done,
    mark_failed,
    read_json,
    read_signed,
    replace_folder,
    replacing,
    settle_folders,
    why_not_done,
    write_bytes,
    write_json,
    write_signed,
)


def fail_with(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


def test_json_survives_the_round_trip_exactly(tmp_path):
    value = {"a": 0.1 + 0.2, "b": [1, None, "ü\ud83d"], "c": {"d": True}}
    write_json(tmp_path / "deep" / "value.json", value)
    assert read_json(tmp_path / "deep" / "value.json") == value


def test_json_takes_numpy_values_and_paths(tmp_path):
    write_json(tmp_path / "value.json", {"a": np.arange(3), "b": np.float64(0.5), "c": np.bool_(True), "d": Path("x")})
    assert read_json(tmp_path / "value.json") == {"a": [0, 1, 2], "b": 0.5, "c": True, "d": "x"}


@pytest.mark.parametrize(("value", "rule"), [(float("nan"), "finite"), (np.array([np.inf]), "finite"), ({1}, "plain")])
def test_json_refuses_what_it_cannot_hold_and_keeps_the_old_file(tmp_path, value, rule):
    write_json(tmp_path / "value.json", 1)
    with pytest.raises(RecordError, match=rf"value.json must hold {rule}"):
        write_json(tmp_path / "value.json", {"value": value})
    assert read_json(tmp_path / "value.json") == 1


def test_damaged_and_missing_json_say_what_to_do(tmp_path):
    (tmp_path / "half.json").write_text('{"a": 1')
    with pytest.raises(RecordError, match=r"half.json must hold JSON, got damaged content.*Run the same command again"):
        read_json(tmp_path / "half.json")
    (tmp_path / "deep.json").write_text("[" * 30_000)
    with pytest.raises(RecordError, match=r"deep.json must hold JSON, got damaged content"):
        read_json(tmp_path / "deep.json")
    with pytest.raises(RecordError, match=r"none.json must exist.*Run the same command again"):
        read_json(tmp_path / "none.json")


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_clear_error_and_leaves_no_half_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fail_with(number))
    with pytest.raises(RecordError, match="Free space and run the same command again") as caught:
        write_json(tmp_path / "value.json", {"a": 1})
    assert str(tmp_path) in str(caught.value)
    assert is_disk_full(caught.value)
    assert os.listdir(tmp_path) == []


def test_forbidden_folder_is_a_clear_error_that_is_no_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", fail_with(errno.EACCES))
    with pytest.raises(RecordError, match="must be readable and writable") as caught:
        write_bytes(tmp_path / "file", b"")
    assert not is_disk_full(caught.value)


def test_other_disk_errors_say_what_to_do_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", fail_with(errno.EIO))
    with pytest.raises(RecordError, match=r"must lie on a sound disk, got 'Input/output error'\. Check the disk"):
        write_bytes(tmp_path / "file", b"")


def lines(path):
    return path.read_text().splitlines()


def test_log_is_read_back_in_order(tmp_path):
    for step in range(3):
        append_jsonl(tmp_path / "events.jsonl", {"step": step})
    assert lines(tmp_path / "events.jsonl") == ['{"step": 0}', '{"step": 1}', '{"step": 2}']


def test_torn_last_line_spoils_no_later_line(tmp_path):
    path = tmp_path / "events.jsonl"
    append_jsonl(path, {"step": 0})
    with path.open("ab") as file:
        file.write(b'{"step": 1, "los')
    append_jsonl(path, {"step": 1})
    assert lines(path) == ['{"step": 0}', '{"step": 1, "los', '{"step": 1}']


def test_log_on_a_full_disk_stays_as_it_was():
    # RLIMIT_FSIZE of 100 bytes stands in for the full disk: the first write is cut short, the second refused (EFBIG).
    program = """
import errno, os, resource, signal, sys, tempfile
from pathlib import Path
from paretune.core import disk_errors
from paretune.records import files
disk_errors.FULL = (errno.EFBIG,)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(tempfile.mkdtemp()) / "events.jsonl"
files.append_jsonl(path, {"step": 0})
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    files.append_jsonl(path, {"text": "x" * 200})
except files.RecordError as error:
    assert "Free space" in str(error)
    assert path.read_bytes() == before
    print("refused")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout == "refused\n", ended.stderr


def sealed(folder):
    write_bytes(folder / "a.bin", b"12345")
    write_json(folder / "deep" / "b.json", {"b": 1})
    mark_done(folder, {"seconds": 1.5}, optional=("checkpoint",))
    return folder


def test_sealed_folder_is_done_and_lists_its_files(tmp_path):
    (tmp_path / "stage" / "checkpoint").mkdir(parents=True)
    (tmp_path / "stage" / "checkpoint" / "state").write_text("large")
    (tmp_path / "stage" / ".a.bin.1-ab.tmp").write_text("left by a kill")
    mark_failed(tmp_path / "stage", "crash", "last time")
    folder = sealed(tmp_path / "stage")
    marker = json.loads((folder / "DONE.json").read_text())
    assert sorted(marker["files"]) == ["a.bin", "deep/b.json"]
    assert marker["values"] == {"seconds": 1.5}
    assert sorted(path.name for path in folder.iterdir()) == ["DONE.json", "a.bin", "checkpoint", "deep"]
    assert is_done(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.bin").unlink(), "a.bin is gone"),
        (lambda folder: (folder / "a.bin").write_bytes(b"123"), "a.bin has changed"),
        (lambda folder: (folder / "a.bin").write_bytes(b"12346"), "a.bin has changed"),  # same size, another content
        (lambda folder: (folder / "deep" / "b.json").write_text(""), "deep/b.json has changed"),
        (lambda folder: (folder / "DONE.json").write_text('{"files"'), "DONE.json cannot be read"),
        (lambda folder: (folder / "DONE.json").write_text('{"files": [1]}'), "DONE.json cannot be read"),
        (lambda folder: (folder / "DONE.json").unlink(), "not finished"),
    ],
)
def test_damaged_folder_is_not_done_and_says_why(tmp_path, damage, message):
    folder = sealed(tmp_path / "stage")
    damage(folder)
    assert not is_done(folder)
    assert message in why_not_done(folder)


def folder_of(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_takes_the_place_of_another(tmp_path):
    target = folder_of(tmp_path / "cell", "old")
    replace_folder(folder_of(tmp_path / ".cell.new", "new"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
    assert (target / "file").read_text() == "new"


@pytest.mark.parametrize(("there", "left"), [([".cell.aside", ".cell.new"], "old"), (["cell", ".cell.aside"], "new")])
def test_folders_are_settled_whenever_a_kill_came(tmp_path, there, left):
    texts = {".cell.aside": "old", ".cell.new": "half", "cell": "new"}
    for name in there:
        folder_of(tmp_path / name, texts[name])
    settle_folders(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
    assert (tmp_path / "cell" / "file").read_text() == left
    settle_folders(tmp_path / "nowhere")


def test_a_folder_that_came_after_the_seal_is_not_sealed(tmp_path):
    (tmp_path / "experts" / "000").mkdir(parents=True)
    (tmp_path / "experts" / "000" / "file").write_text("sealed")
    mark_done(tmp_path)
    (tmp_path / "experts" / "777").mkdir()
    (tmp_path / "experts" / "777" / "file").write_text("planted")
    check_sealed(tmp_path / "experts" / "000")
    check_sealed(tmp_path / "experts")
    for planted in ("experts/777", "experts/777/file", "experts/0"):
        with pytest.raises(RecordError, match="must be a file or folder that was sealed, got one that came later"):
            check_sealed(tmp_path / planted)


def test_a_signed_file_with_a_number_that_none_of_ours_holds_has_changed(tmp_path):
    path = tmp_path / "signed.json"
    write_signed(path, {"schema_version": SCHEMA_VERSION, "value": 1})
    assert read_signed(path)["value"] == 1
    path.write_text(path.read_text().replace('"value": 1', '"value": NaN'))
    with pytest.raises(RecordError, match="must be as it was written, got changed content"):
        read_signed(path)
