"""The files and commands of docs/tutorial.md, as they stand there, with fewer completions."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

import paretune
from paretune.benchmark.plan import plan
from paretune.benchmark.study import load_study
from paretune.cli.main import OK, app, execute
from paretune.core.task import Task


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture
def task(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The reader's folder: the files of the page, written where it says."""
    (tmp_path / "my_task").mkdir()
    files = re.findall(r"```(?:python|yaml)\n# ([\w.]+)\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in files] == ["rewards.py", "prompts.py", "task.yaml", "study.yaml"]
    base = paretune.load_task("counselling").model
    for name, text in files:
        folder = tmp_path if name == "study.yaml" else tmp_path / "my_task"
        (folder / name).write_text(text.replace("/the/folder/that/was/printed", base), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "my_task")
    runpy.run_path("prompts.py")
    monkeypatch.chdir(tmp_path)
    return paretune.load_task("my_task/")


def test_its_commands_are_there_with_the_options_that_it_gives(page: str) -> None:
    commands = [
        shlex.split(line, comments=True)
        for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("paretune ") and line != "paretune --version"
    ]
    assert {command[1] for command in commands} == {"run", "train", "generate", "probe", "plan", "elicit"}
    for _, *arguments in commands:
        function, _, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        assert function is app[arguments[0]].default_command


def test_its_task_has_forty_prompts_and_rewards_that_say_what_they_say(task: Task) -> None:
    assert [len(task.splits[split]) for split in ("train", "development", "test")] == [24, 8, 8]
    rewards = runpy.run_path("my_task/rewards.py")
    prompts = ["I keep putting off calling my sister."] * 3 + ["No."]
    said = ["You feel sad.", "What helps with calling?", "Is putting off calling your sister hard?", "Why?"]
    assert rewards["brevity"](prompts, said) == [1.0, 1.0, 0.8125, 1.0]  # 3, 4, 7 and 1 words: 1.25 - 7 / 16
    assert rewards["brevity"](prompts[:2], ["", " ".join(["word"] * 20)]) == [0.0, 0.0]
    assert rewards["asking"](prompts, said) == [0.0, 1.0, 0.5, 0.5]
    # keep, putting, calling, sister: none, one and three of them; a prompt without a longer word has no score
    assert rewards["listening"](prompts, said) == [0.0, 0.25, 0.75, None]


def test_its_study_can_be_planned(task: Task) -> None:
    planned = plan("study.yaml", "results/mine", measure=False)
    assert len(planned.cells) == 12  # with the rows that stand in every study
    assert load_study("study.yaml").budgets == (2000,)


def test_what_it_trains_answers_the_preferences_that_it_names(
    task: Task, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (train,) = (line for line in page.splitlines() if line.startswith("paretune train") and "my_task" in line)
    assert execute(shlex.split(train.replace("4000", "64"))[1:]) == OK
    lines = [line for line in page.splitlines() if line.startswith("paretune generate mine/")]
    assert len(lines) == 2
    for line in lines:
        capsys.readouterr()
        assert execute(shlex.split(line)[1:]) == OK
        assert len(capsys.readouterr().out.splitlines()) == 1
