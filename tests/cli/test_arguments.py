from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from paretune.cli.main import ENVIRONMENT, OK, USAGE, execute
from paretune.cli.printing import complain, say, say_json

TRAIN = ["train", "linear", "-t", "counselling", "-o", "out"]
GENERATE = ["generate", "gone", "-p", "a=1", "hello"]
WHOLE = {  # an option that takes a whole number, its command, its least value
    "--workers": (["plan", "quick"], 1),
    "--budget": (TRAIN, 1),
    "--seed": (TRAIN, 0),
    "--samples": (GENERATE, 1),
    "--pilot": (["probe", "counselling"], 1),
}
OTHERS = {
    "run --workers": ["run", "quick", "--workers"],
    "generate --seed": [*GENERATE, "--seed"],
    "probe --seed": ["probe", "counselling", "--seed"],
    "probe --samples": ["probe", "counselling", "--samples"],
}


@pytest.mark.parametrize(
    "text", ["1.5", "1e20", "1e3", "0x10", "010", "1_0", "true", "", "nan", "-1", "١", "1:30", "9" * 5000]
)
@pytest.mark.parametrize("option", WHOLE)
def test_what_is_no_whole_number_of_the_range_is_refused(
    option: str, text: str, refused: Callable[[Sequence[str]], str]
) -> None:
    command, least = WHOLE[option]
    message = refused([*command, f"{option}={text}"])
    assert message.startswith(f"paretune: {option} must be a whole number from {least} on, got ")
    assert len(message) < 200


@pytest.mark.parametrize("command", OTHERS.values(), ids=OTHERS.keys())
def test_every_command_reads_numbers_alike(command: list[str], refused: Callable[[Sequence[str]], str]) -> None:
    assert f"{command[-1]} must be a whole number from " in refused([*command, "1.5"])


@pytest.mark.parametrize("option", WHOLE)
def test_a_number_above_the_limit_is_told_the_limit(option: str, refused: Callable[[Sequence[str]], str]) -> None:
    command, _ = WHOLE[option]
    if option == "--seed":  # any of 64 bits will do
        return
    assert refused([*command, option, str(2**62)]).startswith(f"paretune: {option} must be at most 1")


@pytest.mark.parametrize("workers", ["0", "-1"])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_no_workers_are_refused(command: str, workers: str, refused: Callable[[Sequence[str]], str]) -> None:
    assert refused([command, "quick", f"--workers={workers}"]).startswith("paretune: --workers must be a whole number")


@pytest.mark.parametrize("text", ["nan", ".inf", "1e400", "0", "-1", "1_0", "true", "hot"])
@pytest.mark.parametrize("option", ["--temperature", "--top-p"])
def test_what_is_no_number_of_the_range_is_refused(
    option: str, text: str, refused: Callable[[Sequence[str]], str]
) -> None:
    assert refused([*GENERATE, f"{option}={text}"]).startswith(f"paretune: {option} must ")


@pytest.mark.parametrize("weight", ["nan", "inf", "1e400", "1_0", "yes", "0x1", ""])
def test_a_preference_holds_plain_numbers(weight: str, refused: Callable[[Sequence[str]], str]) -> None:
    assert "preference must read name=number" in refused(["generate", "gone", "-p", f"a={weight}", "hello"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["rank=010"], "--set rank must be a plain number, got 010."),
        (["a=yes"], "--set a must be true, false or text in quotes, got yes."),
        (["a=!!int abc"], "--set a must have no tag, got !!int."),
        (["a=" + "[" * 1500], "--set a must be nested at most 32 deep"),
        (["a={b: 1, b: 2}"], "--set a.b must be given once, got it twice."),
        (["rank=1", "rank=2"], "--set rank must be given once, got it twice."),
        (["a..b=1"], "--set must name a setting, dots for nested ones, got 'a..b'."),
        ([".".join("a" * 1500) + "=1"], "--set must name a setting, dots for nested ones, got"),
        (["learning_rate=true"], "--set learning_rate must be a number, got True."),
        (["learning_rate='1e-3'"], "--set learning_rate must be a number, got the text '1e-3'."),
    ],
)
def test_a_setting_is_what_it_looks_like(
    pairs: list[str], message: str, refused: Callable[[Sequence[str]], str]
) -> None:
    given = [part for pair in pairs for part in ("--set", pair)]
    assert refused([*TRAIN, *given]).startswith(f"paretune: {message}")


@pytest.mark.parametrize("bad", ["a\udcff.yaml", "a\0b", "\ud800"])
@pytest.mark.parametrize("command", [["plan"], ["run"], ["report"], ["ls"], ["generate", "gone", "-p", "a=1"]])
def test_an_argument_that_is_no_text_is_refused(
    command: list[str], bad: str, refused: Callable[[Sequence[str]], str]
) -> None:
    message = refused([*command, bad])
    assert message.startswith(f"paretune: argument {len(command) + 1} must be UTF-8 text without NUL, got ")


def test_control_characters_of_what_was_typed_are_written_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in (["plan", "\x1b[2Jquick"], ["plan", "quick", "--\x1b[2J"], ["ls", "\u202ename"], ["\x9b1m"]):
        assert execute(command) == USAGE
        captured = capsys.readouterr()
        assert captured.out == ""
        assert not set("\x1b\u202e\x9b") & set(captured.err)
        assert captured.err.count("\n") == 1


def test_what_is_printed_controls_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m\nb\u202e")
    complain("c\x07")
    say_json({"text": "\x1b\x7f\u202e\ud800"})
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == ["a\\x1b[31m", "b\\u202e"]
    assert captured.out.isascii()
    assert captured.out.replace("\n", "").isprintable()
    assert captured.err == "c\\x07\n"


@pytest.mark.parametrize("below", ["", "/x/y"])
@pytest.mark.parametrize("command", [["run", "quick"], ["plan", "quick"], ["train", "linear", "-t", "counselling"]])
def test_an_output_that_is_a_file_or_below_one_is_said_to_be_one(
    command: list[str], below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    if command[0] == "plan" and below:  # it writes nothing
        return
    assert execute([*command, "-o", f"{file}{below}"]) in (USAGE, ENVIRONMENT)
    said = capsys.readouterr().err
    assert "must be a folder, got" in said
    assert str(file) in said
    assert said.splitlines()[-1].startswith("paretune: ")
    assert file.read_text() == "mine"


def test_an_empty_output_is_refused(refused: Callable[[Sequence[str]], str]) -> None:
    assert refused(["run", "quick", "-o", ""]).startswith("paretune: output (-o) must be a folder, got an empty name.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG])
def test_an_error_of_the_system_is_one_line_with_advice(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from paretune.benchmark import plan

    failing = Mock(side_effect=OSError(number, os.strerror(number), "out/tables.csv"))  # from no user's file
    monkeypatch.setattr(plan, "plan", failing)
    assert execute(["plan", "quick"]) == ENVIRONMENT
    said = capsys.readouterr().err
    assert said.startswith(("paretune: out/tables.csv must ", "paretune: disk of out/tables.csv must have room"))
    assert said.count(". ") >= 1
    assert "Errno" not in said


def test_a_long_error_fits_a_screen_and_keeps_its_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from paretune.benchmark import plan
    from paretune.core.errors import ConfigError

    error = ConfigError(f"name must be short, got {'x' * 20_000}. Shorten it.")
    monkeypatch.setattr(plan, "plan", Mock(side_effect=error))
    assert execute(["plan", "quick"]) == USAGE
    said = capsys.readouterr().err
    assert said.startswith("paretune: name must be short, got xxx")
    assert said.endswith("xxx. Shorten it.\n")
    assert len(said) < 2000


@pytest.mark.parametrize(
    "arguments", [["x" * 20_000], ["plan", "quick", "--" + "9" * 20_000], ["plan", *["a b"] * 5_000]]
)
def test_a_long_argument_that_no_command_knows_fits_a_screen(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == USAGE
    assert 0 < len(capsys.readouterr().err) < 2000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "paretune.cli.main", "ls", "tasks"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == ENVIRONMENT
    assert ended.stderr.startswith("paretune: disk of ")
    assert ended.stderr.count("\n") == 1


def test_a_terminal_of_few_letters_gets_the_others_written_out() -> None:
    program = "from paretune.cli.printing import prepare_streams, say; prepare_streams(); say('caf\\u00e9')"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (ended.returncode, ended.stdout) == (OK, b"caf\\xe9\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error_and_no_file_takes_its_number(tmp_path: Path, closed: str) -> None:
    program = (
        "import os, sys; from paretune.cli.main import execute; code = execute(['ls', 'methods']);"
        "written = open(sys.argv[1], 'w'); written.write(f'{code} {written.fileno() > 2}')"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {tmp_path / 'code'} {closed}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "code").read_text() == f"{OK} True"


def test_a_mistake_with_a_closed_stderr_keeps_its_exit_code() -> None:
    command = f"{shlex.quote(sys.executable)} -m paretune.cli.main plan quik 2>&-"
    assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == USAGE


def test_lines_whose_reader_has_gone_stop_nothing_and_the_exit_code_stays(tmp_path: Path) -> None:
    program = (
        "import sys; from paretune.benchmark.progress import PlainLines; from paretune.cli.main import app, execute;"
        "from paretune.cli.printing import complain, say\n"
        "@app.command\ndef much():\n"
        "    for index in range(3):\n        PlainLines(sys.stderr).say('x'); complain('y'); say('z' * 100_000)\n"
        "    return 1\n"
        "sys.exit(execute(['much']))"
    )
    command = f"({shlex.quote(sys.executable)} -c {shlex.quote(program)} 2>&1; echo $? > {tmp_path / 'code'}) | true"
    subprocess.run(["sh", "-c", command], check=True)
    while not (tmp_path / "code").exists() or not (tmp_path / "code").read_text():  # the shell waits for the last alone
        time.sleep(0.05)
    assert (tmp_path / "code").read_text() == "1\n"
