"""Files that are either whole or not there: atomic writes, JSON, event logs, and the markers that end a folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paretune.core.digests import bytes_digest, file_digest
from paretune.core.disk_errors import FULL, disk_errors, explained
from paretune.core.errors import RecordError, VersionError
from paretune.core.text_files import parsed_json

SCHEMA_VERSION = 3  # of every file of a study: raise it when a reader of today would misread them
DONE, FAILED = "DONE.json", "FAILED.json"
AGAIN = "Run the same command again: it repeats what this file belongs to and nothing else."
_TEMPORARY = ".tmp"
_ASIDE = ".aside"  # ends the name of a folder while another takes its place
_FRESH = ".new"  # ends the name of that other until it is whole


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which becomes `path` when the block ends without an error.

    A reader sees the old file or the new one, never half of one, even if the machine stops in between.

    Args:
        path: The file to write; its folder is made where it is missing.

    Yields:
        Path of a file that the block must write.

    Raises:
        RecordError: If the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)  # before the rename: after a power cut the name must not point to unwritten blocks
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step.

    Raises:
        RecordError: If the disk is full or the folder cannot be written; the former file is still there then.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Write plain data (numpy values and paths included) as JSON, in one step.

    Raises:
        RecordError: If a number is not finite, a type is not plain data, or the disk is full.
    """
    write_bytes(path, to_json(path, value).encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RecordError: If it is missing, unreadable or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise RecordError(f"{path} must be a file, got something else in its place. Move it away.")
        return parsed_json(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordError(f"{path} must exist, got no such file. {AGAIN}") from error
    except OSError as error:
        raise RecordError(explained(error, path)) from error
    except ValueError as error:  # bytes that are no text, text that is no JSON
        raise RecordError(f"{path} must hold JSON, got damaged content ({error}). {AGAIN}") from error


def write_signed(path: Path, value: Mapping[str, object]) -> None:
    """Write a mapping as JSON in one step, with the digest of what it holds, so that `read_signed` sees any change.

    Raises:
        RecordError: If a number is not finite, a type is not plain data, or the disk is full.
    """
    write_json(path, {**value, "digest": bytes_digest(to_json(path, value).encode())})


def read_signed(path: Path) -> dict[str, Any]:
    """Read what `write_signed` wrote.

    Raises:
        VersionError: If another version of the library wrote it.
        RecordError: If it is missing, unreadable, damaged or changed.
    """
    value = read_json(path)
    written, version = (
        (value.pop("digest", None), value.get("schema_version")) if isinstance(value, dict) else (None,) * 2
    )
    try:
        whole = written == bytes_digest(to_json(path, value).encode())
    except RecordError:  # a number that no file of ours holds
        whole = False
    if version != SCHEMA_VERSION and isinstance(version, int) and (whole or written is None):
        raise VersionError(
            f"{path} must have schema version {SCHEMA_VERSION}, got {version}. Use the paretune that wrote it, or "
            "start in another folder with -o."
        )
    if not whole:
        raise RecordError(f"{path} must be as it was written, got changed content. {AGAIN}")
    return value  # type: ignore[no-any-return]  # nothing else has a digest in it


def append_jsonl(path: Path, value: Mapping[str, object]) -> None:
    """Append one line to a log; a line torn by an earlier kill is closed first, so that it spoils no other.

    Raises:
        RecordError: If the value is no plain data, or the disk is full; the log is as before then.
    """
    line = to_json(path, value, indent=None).encode()
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            try:
                while line:
                    line = line[file.write(line) :]  # a nearly full disk takes a part before it refuses the rest
            except OSError:
                file.truncate(end)
                raise


def mark_done(
    folder: Path,
    values: Mapping[str, object] | None = None,
    optional: Collection[str] = (),
    artefacts: Sequence[str] = (),
    among: Collection[str] = (),
) -> None:
    """Seal a folder: write `DONE.json` with size and digest of every file in it, and of itself. To be called last.

    Args:
        folder: The finished folder. Temporary files that a kill left in it, and `FAILED.json`, are removed.
        values: Plain data to keep in the marker.
        optional: Files or folders directly in `folder` that it is finished without, such as `checkpoint`.
        artefacts: Files or folders in `folder` that others may ask for by these names.
        among: Files or folders directly in `folder` to look at; all, where none are named.

    Raises:
        RecordError: If the disk is full.
    """
    for leftover in folder.rglob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)
    files: dict[bool, dict[str, object]] = {True: {}, False: {}}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in {DONE, FAILED} and (not among or name.parts[0] in among):
            entry = {"bytes": path.stat().st_size, "digest": file_digest(path)}
            files[name.parts[0] in optional][name.as_posix()] = entry
    marker = {
        "schema_version": SCHEMA_VERSION,
        "files": files[False],
        "optional": files[True],
        "artefacts": list(artefacts),
        "values": dict(values or {}),
    }
    write_signed(folder / DONE, marker)
    (folder / FAILED).unlink(missing_ok=True)


def read_marker(folder: Path) -> dict[str, Any]:
    """Read the `DONE.json` of a folder.

    Returns:
        `files`, `optional`, `artefacts` and `values`, see `mark_done`.

    Raises:
        RecordError: If there is none, or it is not as it was written, or of another version.
    """
    return read_signed(folder / DONE)


def damaged_files(folder: Path, optional: bool = False, below: str = "") -> dict[str, str]:
    """Hold the files of a sealed folder against its marker.

    Args:
        folder: The folder.
        optional: Look at the files that it is finished without; those may be gone.
        below: Look at the file or folder of this name in it only.

    Returns:
        What has happened to those that are not as they were sealed, such as `is gone`, by name.

    Raises:
        RecordError: If the marker cannot be used.
    """
    trouble = {}
    for name, expected in read_marker(folder)["optional" if optional else "files"].items():
        if below and name != below and not name.startswith(f"{below}/"):
            continue
        path = folder / name
        try:
            if not path.is_file():
                if not optional:
                    trouble[name] = "is gone"
            elif path.stat().st_size != expected["bytes"] or file_digest(path) != expected["digest"]:
                trouble[name] = "has changed since it was written"
        except OSError as error:
            trouble[name] = f"cannot be read ({error.strerror})"
    return trouble


def why_not_done(folder: Path) -> str:
    """Say what keeps a folder from being finished: no marker, or a file that is not what the marker says it was.

    Returns:
        One sentence, or an empty string for a finished folder.
    """
    if not (folder / DONE).exists():
        return f"{folder.name} is not finished."
    try:
        for name, trouble in damaged_files(folder).items():
            return f"{folder.name} is damaged: {name} {trouble}."
    except RecordError:
        return f"{folder.name} is damaged: {DONE} cannot be read, or has changed since it was written."
    return ""


def is_done(folder: Path) -> bool:
    """Return whether a folder was sealed and its files are still those that were sealed."""
    return not why_not_done(folder)


def check_sealed(path: Path) -> None:
    """Hold a file or folder, such as an adapter, against the marker of the sealed folder that it lies in.

    Raises:
        RecordError: If it lies in none, or is not as it was sealed.
    """
    home = next((parent for parent in (path, *path.parents) if (parent / DONE).is_file()), None)
    if home is None:
        raise RecordError(
            f"{path} must lie in a finished folder, one with {DONE}, got none. Name a folder that a command has ended."
        )
    below = "" if home == path else path.relative_to(home).as_posix()
    marker = read_marker(home)
    if below and not any(f"{name}/".startswith(f"{below}/") for name in (*marker["files"], *marker["optional"])):
        raise RecordError(f"{path} must be a file or folder that was sealed, got one that came later. Name another.")
    for name, trouble in damaged_files(home, below=below).items():
        raise RecordError(
            f"{home / name} must be as it was written, got a file that {trouble}. Run the command that wrote it again, "
            "or copy it from where it is whole."
        )


def replace_folder(fresh: Path, target: Path) -> None:
    """Put a whole folder in the place of another; after a kill `settle_folders` brings back what is missing.

    Args:
        fresh: The new folder, `fresh_folder` of the old one.
        target: The old folder, which may be missing.
    """
    aside = target.with_name(f".{target.name}{_ASIDE}")
    if target.exists():
        os.rename(target, aside)
    os.rename(fresh, target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def fresh_folder(target: Path) -> Path:
    """Make an empty folder beside another, for `replace_folder`."""
    fresh = target.with_name(f".{target.name}{_FRESH}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def settle_folders(parent: Path) -> None:
    """Bring back the folders that a killed `replace_folder` has put aside, or remove them where the new ones are there.

    Args:
        parent: A folder they lie below.
    """
    for aside in list(parent.rglob(f".*{_ASIDE}")):
        target = aside.with_name(aside.name[1 : -len(_ASIDE)])
        if target.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, target)
    for fresh in list(parent.rglob(f".*{_FRESH}")):  # never quite finished
        shutil.rmtree(fresh)


def mark_failed(folder: Path, reason: str, message: str) -> None:
    """Write `FAILED.json`.

    Raises:
        RecordError: If the disk is full.
    """
    write_json(folder / FAILED, {"schema_version": SCHEMA_VERSION, "reason": reason, "message": message})


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or the one it was raised from, says that the disk is full."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # Windows cannot open a folder, and renames there are durable enough
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(path: Path, value: object, indent: int | None = 1) -> str:
    """Return plain data as the JSON text that a file holds; the path is for messages.

    Raises:
        RecordError: If a number is not finite, or a type is not plain data.
    """
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain) + "\n"
    except ValueError as error:
        raise RecordError(
            f"{path.name} must hold finite numbers, got a NaN or infinity. Write None and the reason in its place."
        ) from error
    except TypeError as error:
        raise RecordError(f"{path.name} must hold plain data, got: {error}. Convert it to numbers and text.") from error


def _plain(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no plain data")
