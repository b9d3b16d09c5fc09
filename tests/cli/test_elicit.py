from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import builders
from paretune.benchmark import candidates
from paretune.cli import elicit as command
from paretune.cli.main import INTERRUPTED, OK, USAGE, execute
from paretune.records.choices import load_choice

Typing = Callable[[str], None]
HERE = ["elicit", "out", "--method", "weight_grid"]  # four policies, so six pairs


@pytest.fixture(autouse=True)
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = builders.synthetic_study()
    monkeypatch.setattr(candidates, "read_study", lambda folder: records)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Typing:
    """Let stdin hold what somebody types into a pipe."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_conversation_ends_with_weights_a_policy_and_the_command_that_generates(
    types: Typing, capsys: pytest.CaptureFixture[str]
) -> None:
    types("a\nB\n\n=\nq\n")
    assert execute([*HERE]) == OK
    said = capsys.readouterr()
    assert said.err == ""
    for number in (1, 2, 3, 4):  # q is the reply to the last
        assert f"question {number} of 10\n" in said.out
    assert "4 policies of weight_grid on counselling (6,000 completions, seed 0)" in said.out
    assert f"\n  {builders.PROMPTS[0]}\n    A: " in said.out
    assert "your weights after 3 replies, with 95 % intervals:\n  reflection  ." in said.out
    choice = load_choice("choice.json")
    assert (choice.mode, choice.study, choice.method) == ("pairwise", "synthetic", "weight_grid")
    assert [each["reply"] for each in choice.answers] == ["a", "b", "="]
    *_, last = said.out.splitlines()
    assert last == (
        'next: paretune generate out/runs/counselling-weight_grid-6000-0 --preference @choice.json "prompt"'
    )


def test_the_choice_is_the_preference_of_the_policy_that_is_best_for_the_weights(types: Typing) -> None:
    """Somebody who replies by brevity alone gets the policy with most of it."""
    offered = candidates.candidates("out", method="weight_grid")
    place = [each.name for each in offered.task.trained].index("brevity")
    for _ in range(6):  # reply by reply: which question comes next depends on the last
        choice = Path("choice.json")
        first, second = asked_next(choice)
        types("a" if offered.worth[first, place] > offered.worth[second, place] else "b")
        assert execute([*HERE]) == OK
    most = offered.evaluations[int(offered.worth[:, place].argmax())]
    found = load_choice(choice)
    assert list(found.objectives.values()) == most.preference.tolist()
    inferred = found.inferred
    assert inferred["preference"]["brevity"] > 0.6
    assert all(
        inferred["low"][name] <= weight <= inferred["high"][name] for name, weight in inferred["preference"].items()
    )


def asked_next(choice: Path) -> tuple[int, int]:
    from paretune.elicitation.elicitation import Elicitation

    offered = candidates.candidates("out", method="weight_grid")
    talk = Elicitation(offered.worth, offered.units)
    for first, second, reply in command._earlier(choice, offered):
        talk.hear(first, second, reply)
    pair = talk.question()
    assert pair is not None
    return pair


def test_the_same_command_goes_on_and_asks_what_it_would_have_asked(
    types: Typing, capsys: pytest.CaptureFixture[str]
) -> None:
    types("a\nb\n=\na\n")
    assert execute([*HERE, "--questions", "4", "-o", "whole.json"]) == OK
    types("a\nb\n")
    assert execute([*HERE, "--questions", "4", "-o", "broken.json"]) == OK
    assert "replies ended after 2 of 4 questions" in capsys.readouterr().err
    types("=\na\n")
    assert execute([*HERE, "--questions", "4", "-o", "broken.json"]) == OK
    said = capsys.readouterr().out
    assert "going on from 2 replies" in said
    assert "question 3 of 4" in said
    whole, broken = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "broken"))
    assert {**whole, "made": ""} == {**broken, "made": ""}
    types("")
    assert execute([*HERE, "--questions", "4", "-o", "broken.json"]) == OK  # nothing to ask: says it again
    assert "question" not in (out := capsys.readouterr().out)
    assert "your weights after 4 replies" in out


def test_a_stop_loses_no_reply(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ours = compile("lambda: next(lines, '') or (_ for _ in ()).throw(KeyboardInterrupt)", "<ours>", "eval")
    typed = io.StringIO()
    monkeypatch.setattr(typed, "readline", eval(ours, {"lines": iter(["a\n", "b\n"])}))  # this file is a user's
    monkeypatch.setattr("sys.stdin", typed)
    assert execute([*HERE]) == INTERRUPTED
    said = capsys.readouterr().err
    assert "choice after 2 replies saved to choice.json" in said
    assert "run the same command again to go on" in said
    assert len(load_choice("choice.json").answers) == 2


def test_replies_come_from_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("replies.txt").write_text("a b\n=\n")
    assert execute([*HERE, "--answers", "replies.txt"]) == OK
    assert len(load_choice("choice.json").answers) == 3
    assert "replies ended after 3 of 10 questions" in capsys.readouterr().err
    assert execute([*HERE, "--answers", "replies.txt"]) == USAGE  # or the first three would answer other questions
    assert "output must be a new file with --answers, got 'choice.json'" in capsys.readouterr().err


def test_when_all_pairs_were_compared_there_is_nothing_left_to_ask(
    types: Typing, capsys: pytest.CaptureFixture[str]
) -> None:
    types("a\n" * 10)
    assert execute([*HERE]) == OK
    assert "each pair of the 4 policies was compared" in capsys.readouterr().err
    assert len(load_choice("choice.json").answers) == 6


def test_a_wrong_reply_is_refused_in_a_pipe_and_asked_again_on_a_terminal(
    types: Typing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types("a\nno\nb\n")
    assert execute([*HERE]) == USAGE
    said = capsys.readouterr().err
    assert "reply to question 2 must be a, b, = or q, got 'no'. Correct it. Those before it are saved in " in said
    assert len(load_choice("choice.json").answers) == 1
    terminal = io.StringIO("no\nb\nq\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert execute([*HERE]) == OK
    assert "reply to question 2 must be a, b, = or q, got 'no'." in capsys.readouterr().err
    assert [each["reply"] for each in load_choice("choice.json").answers] == ["a", "b"]


def test_without_a_reply_nothing_is_saved(types: Typing, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for typed in ("", "q\n"):
        types(typed)
        assert execute([*HERE]) == USAGE
        assert "answers must be one or more, got none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_left_as_it_is(types: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    types("a\nq\n")
    assert execute([*HERE]) == OK
    capsys.readouterr()
    for content in (
        Path("choice.json").read_text().replace("weight_grid", "linear"),  # of another method
        '{"empathy": 1}',
        '{"answers": 3}',
    ):
        Path("other.json").write_text(content)
        types("a\nq\n")
        assert execute([*HERE, "-o", "other.json"]) == USAGE
        assert "other.json" in capsys.readouterr().err
        assert Path("other.json").read_text() == content


def test_policies_that_are_measured_no_more_are_named(types: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    types("a\nq\n")
    assert execute([*HERE]) == OK
    plain = json.loads(Path("choice.json").read_text())
    plain["answers"][0]["a"] = {"reflection": 0.123, "empathy": 0.877}
    Path("choice.json").write_text(json.dumps(plain))
    types("a\nq\n")
    assert execute([*HERE]) == USAGE
    assert "policies that were compared must still be measured, got none for {'reflection': 0.123" in (
        capsys.readouterr().err
    )


def test_what_a_terminal_would_obey_is_written_out(
    types: Typing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builders, "REPLIES", ("\x1b[2J gone\nand more",))
    records = builders.synthetic_study()
    monkeypatch.setattr(candidates, "read_study", lambda folder: records)
    types("a\nq\n")
    assert execute([*HERE]) == OK
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\x1b[2J gone" in said
    assert "gone\n       and more" in said


def test_folders_with_blanks_are_quoted(types: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    types("a\nq\n")
    assert execute(["elicit", "my study", "-o", "my choice.json"]) == OK
    *_, last = capsys.readouterr().out.splitlines()
    words = shlex.split(last.removeprefix("next: "))
    assert words[:3] == ["paretune", "generate", words[2]]
    assert words[2].startswith("my study/runs/")
    assert words[4] == "@my choice.json"
