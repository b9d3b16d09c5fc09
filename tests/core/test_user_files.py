from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from paretune.core import limits
from paretune.core.errors import TaskError
from paretune.core.user_code import code_files, files_digest
from paretune.core.user_files import _is_a_persons, watched

HERE = "from pathlib import Path\nHERE = Path(__file__).parent\n"


def code_digest(reference: str, folder: Path) -> str:
    return files_digest(reference, code_files(reference, folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("words.json", "data/more.txt", "data/deep/most.txt", "other.json", ".hidden.json"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "extra.py").write_text("x = 1")
    (tmp_path / "data" / "late.py").write_text("x = 1")
    return tmp_path


def digested(folder: Path, text: str) -> set[str]:
    (folder / "rewards.py").write_text(HERE + textwrap.dedent(text))
    return set(code_files("rewards:f", folder)) - {"rewards.py"}


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("json.load(open(HERE / 'words.json'))", {"words.json"}),
        ("HERE.joinpath('data', 'more.txt').read_text()", {"data/more.txt"}),
        ("open(f'{HERE}/x'); NAMES = ['data', 'deep', 'most.txt']", {"data/deep/most.txt"}),
        ("open('data/more.txt', 'r', encoding='utf-8')", {"data/more.txt"}),
        ("x = ['..', '.', '/', '', '../words.json', 'no.json', 'x' * 10**6, 'a\\0b']", set()),
        ("exec((HERE / 'extra.py').read_text())", {"extra.py", "data/late.py"}),
        ("import importlib; importlib.import_module('ex' + 'tra')", {"extra.py", "data/late.py"}),
        ("import runpy; runpy.run_path(NAME)", {"extra.py", "data/late.py"}),
        ("import sys; sys.path.append(str(HERE / 'data'))", {"extra.py", "data/late.py"}),
        ("from importlib.util import spec_from_file_location as s; import importlib.util as u\n"
         "u.spec_from_file_location('x', HERE / NAME)", {"extra.py", "data/late.py"}),
        ("open(HERE / 'words.json', 'a')", set()),  # what is written may change by itself
        ("(HERE / 'words.json').open('w')", set()),
        ("open(HERE / 'words.json', MODE)", set()),
        ("(HERE / 'words.json').write_text('x')", set()),
        ("DEPENDS = ['words.json', 'data/*.txt']\n(HERE / 'other.json').write_text('x')",
         {"words.json", "data/more.txt"}),
        ("DEPENDS = ('data',)", {"data/more.txt", "data/deep/most.txt", "data/late.py"}),
        ("def f(): 'words.json'", {"words.json"}),
    ],
)  # fmt: skip
def test_files_that_a_module_names_and_reads_are_part_of_its_code(folder: Path, text: str, files: set[str]) -> None:
    assert digested(folder, text) == files


def test_an_edit_of_any_of_them_is_another_digest_and_one_of_others_is_not(folder: Path) -> None:
    (folder / "rewards.py").write_text(HERE + "open(HERE / 'words.json')\nexec(open(HERE / 'extra.py').read())")
    before = code_digest("rewards:f", folder)
    (folder / "other.json").write_text("[1]")
    assert code_digest("rewards:f", folder) == before
    for name in ("words.json", "extra.py"):
        (folder / name).write_text("2")
        assert code_digest("rewards:f", folder) != before
        before = code_digest("rewards:f", folder)


def test_what_a_module_declares_counts_outside_its_folder_too(folder: Path) -> None:
    (folder / "rewards.py").write_text("x = 1")
    inner = folder / "data"
    (inner / "rewards.py").write_text("DEPENDS = ['../words.json']")
    before = code_digest("rewards:f", inner)
    assert set(code_files("rewards:f", inner)) == {"rewards.py", "../words.json"}
    (folder / "words.json").write_text("[1]")
    assert code_digest("rewards:f", inner) != before


@pytest.mark.parametrize("text", ["DEPENDS = ['../../../../../../../..']", "import sys\nsys.path.append('x')"])
def test_a_module_that_counts_with_more_than_anybody_means_is_refused_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("paretune.core.file_lists.MAX_READ_FILES", 1)
    with pytest.raises(TaskError, match=r"rewards\.py.* files to depend on must be at most 1, got more"):
        digested(folder, text)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("/home/me/task/words.json", True),
        ("/home/me/words.json", True),
        ("/data/words.json", True),
        ("/home/me/.cache/x.json", False),
        ("/home/me/task/.env", False),
        ("/home/me/venv/lib/python3/x.py", False),
        ("/data/site-packages/x.json", False),
        ("/usr/share/zoneinfo/UTC", False),
        ("/etc/hosts", False),
        ("/proc/self/maps", False),
        ("/tmp/tmpabc/x", False),
    ],
)
def test_files_count_that_a_person_may_have_written(file: str, counts: bool) -> None:
    others = ("/usr", "/etc", "/proc", "/tmp", "/home/me/venv")
    assert _is_a_persons(file, "/home/me/task", others) == counts


@pytest.mark.parametrize(
    ("file", "folder", "counts"),
    [
        ("/tmp/mine/words.json", "/tmp/mine/task", True),
        ("/tmp/other/words.json", "/tmp/mine/task", False),
        ("/tmp/words.json", "/tmp", True),
        ("/home/me/.config/words.json", "/home/me/.config/task", True),
    ],
)
def test_beside_a_task_in_a_temporary_folder_what_is_not_others_counts(file: str, folder: str, counts: bool) -> None:
    assert _is_a_persons(file, folder, ("/tmp",)) == counts


def test_python_its_packages_and_the_system_are_not_watched(tmp_path: Path) -> None:
    with watched(tmp_path, list, "it") as opened:
        for file in (pytest.__file__, textwrap.__file__, limits.__file__, "/proc/self/status", "/etc/hosts"):
            Path(file).read_bytes()
    assert not opened
