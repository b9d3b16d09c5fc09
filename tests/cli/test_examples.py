from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import pytest

from paretune.cli.examples import examples
from paretune.cli.main import app, execute

COMMANDS = [name for name in app if not name.startswith("-")]


def of(command: str) -> list[str]:
    return examples(app[command].default_command.__doc__)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_below_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    execute([command, "--help"])
    shown = capsys.readouterr().out
    assert of(command)
    assert shown.rstrip().endswith("\n".join(["Example:", *(f"  {line}" for line in of(command))]))  # none is broken


@pytest.mark.parametrize("line", [line for command in COMMANDS for line in of(command)])
def test_an_example_is_a_command_with_arguments_that_it_takes(line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert program == "paretune"
    function, bound, _ = app.parse_args([command, *arguments], exit_on_error=False, print_error=False)
    assert function is app[command].default_command
    assert bound.arguments


def test_examples_are_the_section_of_that_name() -> None:
    assert examples("Do it.\n\n    Args:\n        x: It.\n\n    Example:\n        a\n        b c\n    ") == ["a", "b c"]
    assert examples("Do it, for example:\n\n    no section\n") == []


MISSPELT = {
    "option": (
        ["plan", "quick", "--worker=2"],
        "option must be one of ",
        "got '--worker'. Did you mean '--workers'? Write `paretune plan quick --workers=2`.",
    ),
    "option behind a value with spaces": (
        ["generate", "out", "how are you?", "--preferenc", "a=1"],
        "option must be one of ",
        "Did you mean '--preference'? Write `paretune generate out 'how are you?' --preference a=1`.",
    ),
    "option like no other": (
        ["plan", "quick", "--fancy"],
        "option must be one of ",
        "got '--fancy'. `paretune plan --help` explains them.",
    ),
    "command": (
        ["trian", "linear"],
        "command must be one of ",
        "got 'trian'. Did you mean 'train'? Write `paretune train linear`.",
    ),
    "command like no other": (["fly"], "command must be one of ", "got 'fly'. `paretune --help` explains them."),
    "setting": (
        ["train", "linear", "-t", "counselling", "-o", "out", "--set", "rnk=4"],
        "--set rnk must be one of the settings of linear, got 'rnk'. Did you mean 'rank'? Write `--set rank=4`. It ",
        "weighting.",
    ),
    "method": (
        ["train", "liner", "-t", "counselling", "-o", "out", "--set", "rnk=4"],
        "method must be one of ",
        "got 'liner'. Did you mean 'linear'? `paretune ls methods` lists all.",
    ),
}


@pytest.mark.parametrize(("arguments", "start", "end"), MISSPELT.values(), ids=MISSPELT.keys())
def test_what_is_misspelt_is_told_with_the_line_to_type(
    arguments: list[str], start: str, end: str, refused: Callable[[Sequence[str]], str]
) -> None:
    message = refused(arguments).removeprefix("paretune: ").rstrip()
    assert message.startswith(start)
    assert message.endswith(end)
