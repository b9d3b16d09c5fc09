from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from paretune.core.errors import ConfigError, TaskError
from paretune.core.file_lists import Tally, files_below, matching


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = ["words.json", "data/more.txt", "data/deep/most.txt", "other.json", ".hidden.json", "data/a[1].txt"]
    files += [".dot/x.txt", "__pycache__/x.txt", "data/site-packages/x.txt"]
    files += ["results/study/study.lock.json", "results/study/logs/x.txt", "results/trained/DONE.json", "results/x.txt"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    os.mkfifo(tmp_path / "data" / "pipe.txt")
    (tmp_path / "linked").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "round").symlink_to(tmp_path, target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("words.json", ["words.json"]),
        ("data", ["data/a[1].txt", "data/deep/most.txt", "data/more.txt"]),
        ("data/", ["data/a[1].txt", "data/deep/most.txt", "data/more.txt"]),
        ("data/d*", ["data/deep/most.txt"]),
        ("data/*.txt", ["data/a[1].txt", "data/more.txt"]),
        ("data/a[1].txt", ["data/a[1].txt"]),
        ("**/mo*.txt", ["data/deep/most.txt", "data/more.txt"]),
        ("**/deep/**", ["data/deep/most.txt"]),
        ("*/*/most.txt", ["data/deep/most.txt", "linked/deep/most.txt"]),
        ("link*/more.txt", ["linked/more.txt"]),
        ("*.json", ["other.json", "words.json"]),
        (".*.json", [".hidden.json"]),
        (".dot", [".dot/x.txt"]),
        ("results", ["results/x.txt"]),
        ("**/x.txt", ["results/x.txt"]),
        (".", ["data/a[1].txt", "data/deep/most.txt", "data/more.txt", "other.json", "results/x.txt", "words.json"]),
        ("data/pipe.txt", []),
        ("/dev/zero", []),
        ("no.json", []),
        ("no/*.txt", []),
        ("x" * 5000, []),
        ("", []),
        ("a\0b", []),
    ],
)
def test_a_path_a_folder_and_a_pattern_name_regular_files(folder: Path, text: str, names: list[str]) -> None:
    assert [file.relative_to(folder).as_posix() for file in matching(text, folder)] == names


def test_a_folder_whose_own_name_looks_like_a_pattern_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "[a]").mkdir()
    (tmp_path / "[a]" / "x.txt").write_text("")
    assert matching("*.txt", tmp_path / "[a]") == [tmp_path / "[a]" / "x.txt"]


@pytest.mark.parametrize("text", ["/", "/**/no such file *", "/*/*/*/*", "../../../../../../.."])
def test_what_names_half_a_disk_is_refused_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("paretune.core.file_lists.MAX_LOOKED_AT", 5000)  # any machine has more
    start = time.monotonic()
    with pytest.raises(TaskError, match=r"must be at most [\d,]+, got more, the last in '/.* Name a smaller folder"):
        matching(text, tmp_path)
    assert time.monotonic() - start < 10  # 1 s on a machine of its own


@pytest.mark.parametrize(
    ("limit", "most", "what"),
    [
        ("MAX_READ_FILES", 2, "files to depend on must be at most 2"),
        ("MAX_READ_BYTES", 5, "bytes to depend on must be at most 5"),
        ("MAX_LOOKED_AT", 3, "files and folders to look through must be at most 3"),
    ],
)
def test_too_many_files_bytes_and_folders_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, what: str
) -> None:
    monkeypatch.setattr(f"paretune.core.file_lists.{limit}", most)
    with pytest.raises(TaskError, match=re.escape(what)):
        files_below(folder)


def test_several_names_are_counted_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.core.file_lists.MAX_READ_FILES", 3)
    tally = Tally()
    assert len(matching("*.json", folder, tally)) == 2
    assert len(matching("words.json", folder, tally)) == 1
    with pytest.raises(TaskError, match="must be at most 3"):
        matching("words.json", folder, tally)


def test_the_home_of_nobody_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="must name the home of a user, got '~nobodyx/y'"):
        matching("~nobodyx/y", folder)
