from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from paretune.core.disk_errors import disk_errors, explained
from paretune.core.errors import RecordError


def made(number: int, path: str | None = "out/table.csv") -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "disk of out/table.csv must have room, got 'No space left on device'. Free space and run the"),
        (errno.EDQUOT, "disk of out/table.csv must have room, got 'Disk quota exceeded'. Free space"),
        (errno.EACCES, "out/table.csv must be readable and writable, got 'Permission denied'. Change its rights"),
        (errno.EROFS, "out/table.csv must lie on a disk that can be written, got 'Read-only file system'. Name a"),
        (errno.ENOENT, "out/table.csv must exist, got 'No such file or directory'. Check the path."),
        (errno.EISDIR, "out/table.csv must be a file, got 'Is a directory'. Name a file, not a folder."),
        (errno.ENOTDIR, "out/table.csv must be a folder, got 'Not a directory'. Remove the file in its way"),
        (errno.ENAMETOOLONG, "out/table.csv must have a shorter name, most disks allow 255 bytes, got 'File name too"),
        (errno.EMFILE, "out/table.csv must be openable, but too many files are open, got 'Too many open files'. Raise"),
        (errno.EIO, "out/table.csv must lie on a sound disk, got 'Input/output error'. Check the disk."),
        (errno.ENOMEM, "memory and processes of this machine must suffice, got 'Cannot allocate memory'. Take fewer"),
        (errno.ENXIO, "out/table.csv must be usable, got 'No such device or address'. Check the path, its disk and"),
    ],
)
def test_every_kind_says_what_to_do(number: int, said: str) -> None:
    assert explained(made(number)).startswith(said)


def test_every_number_gives_one_sentence_with_advice() -> None:
    for number in errno.errorcode:
        text = explained(made(number))
        assert " must " in text
        assert text.count(". ") >= 1
        assert "Errno" not in text


def test_the_file_in_the_way_is_named(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    with (
        pytest.raises(RecordError, match=rf"^{file} must be a folder, got a file\. Remove it, or name another\.$"),
        disk_errors(),
    ):
        file.mkdir()
    below = file / "below" / "report"
    with (
        pytest.raises(RecordError, match=rf"^{below} must be a folder, got the file {file} in its place\. Remove it"),
        disk_errors(),
    ):
        below.mkdir(parents=True)
    assert file.read_text() == "mine"


def test_a_librarys_own_text_and_hostile_names_are_one_plain_line() -> None:
    assert explained(OSError("no model\nof that name")) == "no model of that name"
    assert explained(OSError()) == "OSError"
    assert explained(made(errno.ENOENT, "a\x1b[2J\nb")).startswith("a\\x1b[2J b must exist")
    assert len(explained(made(errno.ENAMETOOLONG, "x" * 5000))) < 300
    assert explained(made(errno.ENOSPC, None)).startswith("disk of a folder in use must have room")
    with pytest.raises(OSError, match="no number"), disk_errors():
        raise OSError("no number")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with (
        pytest.raises(RecordError, match=rf"^{link} must be a folder, got a link that leads nowhere\. Cor"),
        disk_errors(),
    ):
        link.mkdir()
