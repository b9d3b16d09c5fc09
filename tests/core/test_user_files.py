from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from paretune.core.user_code import code_digest, code_files
from paretune.core.user_files import matching

HERE = "from pathlib import Path\nHERE = Path(__file__).parent\n"


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


def test_a_path_a_folder_and_a_pattern_name_files_and_hidden_ones_do_not_count(folder: Path) -> None:
    def names(text: str) -> list[str]:
        return [file.relative_to(folder).as_posix() for file in matching(text, folder)]

    assert names("words.json") == names(str(folder / "words.json")) == ["words.json"]
    assert names("data") == ["data/deep/most.txt", "data/late.py", "data/more.txt"]
    assert names("**/*.txt") == ["data/deep/most.txt", "data/more.txt"]
    assert names("no.json") == names("") == names("a\0b") == names("no/*.txt") == []
