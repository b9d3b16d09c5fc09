"""What to do about an error of the operating system: one sentence for each kind, wherever it comes from."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from paretune.core.errors import RecordError
from paretune.core.printable import printable_line

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
RULES: Final = {  # what the path must be, and what to do where it is not
    errno.EACCES: ("be readable and writable", "Change its rights, or name another."),
    errno.EPERM: ("be readable and writable", "Change its rights, or name another."),
    errno.EROFS: ("lie on a disk that can be written", "Name a folder on another disk."),
    errno.ENOENT: ("exist", "Check the path."),
    errno.EEXIST: ("be a new name", "Remove what is there, or name another."),
    errno.ENOTDIR: ("be a folder", "Remove the file in its way, or name another."),
    errno.EISDIR: ("be a file", "Name a file, not a folder."),
    errno.ENOTEMPTY: ("be an empty folder", "Empty it, or name another."),
    errno.ENAMETOOLONG: ("have a shorter name, most disks allow 255 bytes", "Shorten it."),
    errno.ELOOP: ("not be a link to itself", "Correct the link."),
    errno.EFBIG: ("be smaller, as the disk or a limit of the shell asks", "Raise ulimit -f, or take another disk."),
    errno.EMFILE: ("be openable, but too many files are open", "Raise ulimit -n."),
    errno.ENFILE: ("be openable, but too many files are open", "Close other programs."),
    errno.EIO: ("lie on a sound disk", "Check the disk."),
    errno.EBUSY: ("be free", "Close what uses it."),
    errno.EINVAL: ("be a name this disk allows", "Name another."),
    errno.ESTALE: ("be on a disk that is there", "Mount it again."),
}
NO_ADVICE: Final = ("be usable", "Check the path, its disk and its rights.")
RETRY: Final = "Free space and run the same command again: it goes on from what is finished."


def explained(error: OSError, path: str | Path | None = None) -> str:
    """Return `<path> must <rule>, got <what the system said>. <What to do.>` for an error.

    Args:
        error: What was raised. One without a number says itself what is wrong, as libraries' do.
        path: What the user calls the place; by default what the error names.
    """
    if error.errno is None:
        return printable_line(str(error)) or type(error).__name__
    named = path if path is not None else error.filename2 or error.filename
    name = "a file" if named is None else _short(str(named))
    said = f"'{error.strerror or error}'"
    if error.errno in FULL:
        folder = "a folder in use" if named is None else _short(str(named))
        return f"disk of {folder} must have room, got {said}. {RETRY}"
    if error.errno in (errno.ENOMEM, errno.EAGAIN):
        return f"memory and processes of this machine must suffice, got {said}. Take fewer workers, or free some."
    if error.errno == errno.EEXIST and named is not None and Path(str(named)).is_symlink():
        return f"{name} must be a folder, got a link that leads nowhere. Correct or remove it, or name another."
    blocked = _file_in_the_way(named) if error.errno in (errno.EEXIST, errno.ENOTDIR) else None
    if blocked is not None:
        got = "a file" if str(blocked) == str(named) else f"the file {_short(str(blocked))} in its place"
        return f"{name} must be a folder, got {got}. Remove it, or name another."
    rule, advice = RULES.get(error.errno, NO_ADVICE)
    return f"{name} must {rule}, got {said}. {advice}"


@contextmanager
def disk_errors(path: str | Path | None = None) -> Iterator[None]:
    """Turn what the operating system raises in the block into a sentence with what to do.

    Args:
        path: What the user calls the place; by default what the error names.

    Raises:
        RecordError: In place of an `OSError` that has a number.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise RecordError(explained(error, path)) from error


def _file_in_the_way(path: object) -> Path | None:
    """Return the file that lies where a folder was wanted, in the path or above it."""
    if path is None:
        return None
    place = Path(str(path))
    return next((each for each in (place, *place.parents) if each.is_file()), None)


def _short(path: str) -> str:
    text = printable_line(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-40:]}"
