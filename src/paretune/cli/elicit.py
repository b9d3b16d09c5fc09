"""`paretune elicit`: shows two policies at a time, hears which is better, and saves the preference behind it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from paretune.cli.arguments import Output, Questions, Seed
from paretune.cli.policies_text import conclusion, opening, replies, two_policies
from paretune.cli.printing import complain, flush_output, say
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, preference_from_mapping
from paretune.core.printable import brief

if TYPE_CHECKING:
    from paretune.benchmark.candidates import Candidates
    from paretune.elicitation.answering import Reply
    from paretune.elicitation.elicitation import Elicitation
    from paretune.records.choices import Choice

STOP = "q"
ASKED = "a, b, = (no preference) or q (enough): "


def elicit(
    folder: Path,
    *,
    task: Annotated[str | None, Parameter(name=["--task", "-t"])] = None,
    method: Annotated[str | None, Parameter(name=["--method", "-m"])] = None,
    questions: Questions = 10,
    answers: Path | None = None,
    seed: Seed = 0,
    output: Output = Path("choice.json"),
) -> int:
    """Find out which preference you have: compare two measured policies at a time; the choice is saved for generate.

    Each question shows what two policies of a study score and what they say to the same prompts. Reply a, b, = for no
    preference, or q for enough. The choice is saved after each reply; the same command goes on from it.

    Args:
        folder: Folder of a study.
        task: One of its tasks; needed where it has several.
        method: Label of the method to choose from; by default the one whose answers are worth most on average.
        questions: How many to ask, those that the saved choice holds included.
        answers: Text file of replies, separated by blanks or lines, in place of typing them.
        seed: Another seed, other questions.
        output: File of the choice.

    Example:
        paretune elicit results/quick
        paretune elicit results/quick --method rewarded_soups -o mine.json
    """
    from paretune.benchmark.candidates import candidates
    from paretune.elicitation.elicitation import Elicitation

    if answers is not None and output.exists():
        raise ConfigError(f"output must be a new file with --answers, got '{output}'. Remove it, or name another (-o).")
    typed = Typed(answers)
    offered = candidates(folder, task, method)
    talk = Elicitation(offered.worth, offered.units, seed)
    for first, second, reply in _earlier(output, offered):
        talk.hear(first, second, reply)
    say("\n".join(opening(offered, len(talk.answered))))
    try:
        _ask(talk, offered, questions, typed, output)
    except KeyboardInterrupt:
        if talk.answered:
            complain(f"\nchoice after {replies(len(talk.answered))} saved to {output}")
        raise
    if not talk.answered:
        raise ConfigError("answers must be one or more, got none. Reply a, b or = to a question; nothing was saved.")
    say("\n" + "\n".join(conclusion(offered, talk.inferred(), len(talk.answered))))
    say(f"\nchoice saved to {output}")
    say(f'next: paretune generate {shlex.quote(str(offered.folder))} --preference @{shlex.quote(str(output))} "prompt"')
    return 0


class Typed:
    """Words of a file, or that are typed.

    Args:
        file: Where from; stdin if None.

    Raises:
        RecordError: If it cannot be read.
        ConfigError: If it is no text.
    """

    def __init__(self, file: Path | None) -> None:
        from paretune.core.disk_errors import disk_errors
        from paretune.core.text_files import decoded

        self.again = file is None and sys.stdin is not None and sys.stdin.isatty()  # who mistypes is asked again
        self._words: Iterator[str] = iter(())
        self._open = file is None and sys.stdin is not None
        if file is not None:
            with disk_errors(file):
                self._words = iter(decoded(file.read_bytes(), file, ConfigError).split())

    def word(self) -> str | None:
        """Return the next word in lower case; None where there are no more."""
        while (word := next(self._words, None)) is None and self._open:
            print(ASKED, end="", flush=True)
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"a reply must be UTF-8 text, got the byte {error.object[error.start]:#04x}."
                ) from None
            self._open = bool(line)
            self._words = iter(line.split())
        return None if word is None else word.lower()


def _ask(talk: Elicitation, offered: Candidates, questions: int, typed: Typed, output: Path) -> None:
    """Ask until all was asked or nobody replies any more, and save the choice after each reply."""
    from paretune.elicitation.answering import REPLIES
    from paretune.records.choices import write_choice

    while len(talk.answered) < questions:
        pair = talk.question()
        if pair is None:
            complain(f"each pair of the {len(offered.evaluations)} policies was compared; there is nothing left to ask")
            return
        number = len(talk.answered) + 1
        say(f"\nquestion {number} of {questions}\n" + "\n".join(two_policies(offered, *pair, number - 1)))
        flush_output()
        while (word := typed.word()) not in (*REPLIES, STOP):
            if word is None:
                complain(f"\nreplies ended after {len(talk.answered)} of {questions} questions")
                return
            fault = f"reply to question {number} must be a, b, = or q, got {brief(word)}."
            if not typed.again:
                kept = f" Those before it are saved in '{output}'." if talk.answered else ""
                raise ConfigError(f"{fault} Correct it.{kept}")
            complain(fault)
        if word == STOP:
            return
        talk.hear(*pair, next(each for each in REPLIES if each == word))
        write_choice(output, _choice(offered, talk))


def _earlier(output: Path, offered: Candidates) -> list[tuple[int, int, Reply]]:
    """Return the questions and replies of the choice that a file holds; none where there is no file.

    Raises:
        ConfigError: If the file is something else, or a choice from other policies.
    """
    from paretune.records.choices import load_choice

    if not output.exists():
        return []
    saved, cell = load_choice(output), offered.cell
    source = saved.mode, saved.study, saved.task, saved.method, saved.cell
    if source != ("pairwise", offered.study, cell.task, cell.method, cell.cell):
        raise ConfigError(
            f"output must be a new file or a choice from the same policies, got '{output}', which holds another "
            "choice. Name another (-o)."
        )
    return [(_place(offered, each["a"]), _place(offered, each["b"]), each["reply"]) for each in saved.answers]


def _place(offered: Candidates, named: Mapping[str, float]) -> int:
    objectives = [each.name for each in offered.task.trained]
    place = offered.answering(preference_from_mapping(named, objectives))
    if place is None:
        raise ConfigError(
            f"policies that were compared must still be measured, got none for {brief(dict(named))}. Begin anew with "
            "another file (-o)."
        )
    return place


def _choice(offered: Candidates, talk: Elicitation) -> Choice:
    """Return the preference whose measured policy is best for what was inferred, and what it comes from."""
    from paretune.records.choices import Choice

    found, cell = talk.inferred(), offered.cell
    weights = {"preference": found.preference, "low": found.low, "high": found.high}
    return Choice(
        objectives=_named(offered, offered.evaluations[found.best].preference),
        mode="pairwise",
        study=offered.study,
        task=cell.task,
        method=cell.method,
        cell=cell.cell,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        inferred={
            **{name: _named(offered, each) for name, each in weights.items()},
            "expected_regret": found.expected_regret,
        },
        answers=[
            {
                "a": _named(offered, offered.evaluations[each.first].preference),
                "b": _named(offered, offered.evaluations[each.second].preference),
                "reply": each.reply,
            }
            for each in talk.answered
        ],
    )


def _named(offered: Candidates, row: FloatArray) -> dict[str, float]:
    return {each.name: float(weight) for each, weight in zip(offered.task.trained, row, strict=True)}
