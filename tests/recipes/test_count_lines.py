"""The recipe that counts lines of code."""

from __future__ import annotations

import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

MODULE = '''"""A module."""

# a comment
from os import path  # and another


class Thing:
    """A class
    over two lines."""

    text = """kept
    over two lines"""

    def act(self) -> int:
        "One line."

        return (
            1
        )
'''
CODE_LINES = 8  # import, class, two of text, def, three of return


@pytest.fixture(scope="module")
def recipe(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "recipes" / "count_lines.py"))


def test_blank_lines_comments_and_docstrings_count_for_nothing(recipe: dict[str, Any]) -> None:
    assert recipe["code_lines"](MODULE) == CODE_LINES
    assert recipe["code_lines"]("") == 0
    assert recipe["code_lines"]('"""Only words."""\n\n# and more\n') == 0


def test_rooms_are_compared_with_an_older_revision_and_long_files_are_flagged(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "src" / "paretune"
    (package / "room").mkdir(parents=True)
    (package / "room" / "thing.py").write_text(MODULE)
    (package / "gone.py").write_text("a = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Add a module"]):
        subprocess.run([*git, *words], check=True)
    (package / "gone.py").unlink()
    (package / "room" / "thing.py").write_text(MODULE + "a = 1\nb = 2\n")
    assert recipe["main"](["--baseline", "HEAD"], tmp_path) == 0
    room, _, whole = (line.split() for line in capsys.readouterr().out.splitlines())
    assert room == ["room", "10", "8", "+2", "+25.0%"]
    assert whole == ["all", "10", "9", "+1", "+11.1%"]
    (package / "room" / "long.py").write_text("a = 1\n" * 401)
    assert recipe["main"](["room"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "above 400: src/paretune/room/long.py 401"
