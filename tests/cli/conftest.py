from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from paretune.cli.main import USAGE, execute


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Sequence[str]], str]:
    """Run a command in an empty folder and return the one line with which it says no; nothing else must come of it."""

    def run(arguments: Sequence[str]) -> str:
        monkeypatch.chdir(tmp_path)
        assert execute(arguments) == USAGE
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert list(tmp_path.iterdir()) == []
        return captured.err

    return run
