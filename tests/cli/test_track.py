"""`--tracker` and `paretune track`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import builders
from paretune.benchmark import runner, tracked
from paretune.cli.main import ENVIRONMENT, OK, USAGE, execute
from paretune.core.errors import ConfigError
from paretune.training import train as training

RUN = ["run", "quick", "-o", "out", "--quiet", "--tracker"]
TRAIN = ["train", "linear", "-t", "counselling", "-o", "out", "--tracker"]


def test_the_trackers_named_are_handed_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Any] = []
    result = runner.StudyResult(Path("out"), Path("index.html"), builders.synthetic_study())

    def run(*given: Any, trackers: Any, **options: Any) -> runner.StudyResult:
        heard.append(trackers)
        return result

    def track(folder: Path, trackers: Any) -> int:
        heard.append((folder, trackers))
        return 1

    def train(*given: Any) -> None:
        heard.append(given[-1])
        raise ConfigError("that is all.")

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(tracked, "track", track)
    monkeypatch.setattr(training, "train", train)
    execute([*RUN, "wandb", "--tracker", "mlflow"])
    execute(RUN[:-1])
    assert execute(["track", "out", "--to", "wandb", "--to", "mlflow"]) == OK
    assert capsys.readouterr().out.endswith("1 update forwarded\n")
    assert execute([*TRAIN, "wandb"]) == USAGE
    assert heard == [["wandb", "mlflow"], (), (Path("out"), ["wandb", "mlflow"]), ["wandb"]]


@pytest.mark.parametrize("command", [RUN, TRAIN], ids=["run", "train"])
def test_a_tracker_that_cannot_be_ends_the_command_before_it_writes(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("class T:\n    start = log = None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert execute([*command, "wandb"]) == ENVIRONMENT
    assert "Run `pip install 'paretune[wandb]'`." in capsys.readouterr().err
    assert execute([*command, "wand"]) == USAGE
    assert "Did you mean 'wandb'?" in capsys.readouterr().err
    assert execute([*command, "mine:T"]) == USAGE  # found in the current folder
    assert "tracker 'mine:T' must be a class with start, log, finish, got one without finish" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
