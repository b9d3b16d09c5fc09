import itertools
import random

import pytest

from paretune.core.errors import UnknownNameError
from paretune.objectives import lexicon
from paretune.objectives.empathy import empathy
from paretune.objectives.reflection import reflection
from paretune.tasks.counselling import text

SPLITS = list(text.DEFAULT_SIZES)

FIRST_PROMPTS = [
    "I could cry. I've been talking to my neighbour about my marriage since spring because my family left.",
    "My blood boils. I'm working in the kitchen again because I gave my cousin my word.",
    "I feel so afraid. I'm still dreading the idea of talking about my paintings.",
]


def some_statements(part: str = "train", count: int = 400) -> list[text.Statement]:
    return list(itertools.islice(text.statements(part, seed=5), count))


def test_there_are_more_than_fifty_thousand_distinct_statements() -> None:
    assert len({statement.text for statement in some_statements(count=53_000)}) > 50_000


@pytest.mark.parametrize(("split", "size"), text.DEFAULT_SIZES.items())
def test_a_split_has_its_default_size_and_distinct_prompts(split: str, size: int) -> None:
    rows = text.prompts(split)
    assert len({row["prompt"] for row in rows}) == len({row["prompt_id"] for row in rows}) == len(rows) == size
    assert all(set(row) == {"prompt", "prompt_id", "situation", "feeling"} for row in rows)


@pytest.mark.parametrize("split", SPLITS)
def test_the_first_prompts_do_not_depend_on_how_many_are_wanted(split: str) -> None:
    assert text.prompts(split, 40)[:7] == text.prompts(split, 7)
    assert text.prompts(split, 0) == []


def test_prompts_are_the_same_on_every_machine() -> None:
    # Committed records name prompts by id: these may only change with the task's version.
    assert [text.prompts(split, 1)[0]["prompt"] for split in SPLITS] == FIRST_PROMPTS


def test_no_situation_is_in_two_parts() -> None:
    parts = [set(text.situations(part)) for part in ("train", "judge", "development", "test")]
    assert all(first.isdisjoint(second) for first, second in itertools.combinations(parts, 2))
    assert all(parts)


@pytest.mark.parametrize("split", SPLITS)
def test_prompts_have_situations_of_their_own_part_only(split: str) -> None:
    own = set(text.situations(split))
    rows = text.prompts(split)
    assert all(row["situation"] in own and str(row["situation"]) in str(row["prompt"]) for row in rows)


def test_held_out_situations_use_words_that_training_has_too() -> None:
    known = {word for situation in text.situations("train") for word in situation.split()}
    assert {word for situation in text.situations("test") for word in situation.split()} <= known


def test_a_statement_shows_exactly_its_own_feeling() -> None:
    for statement in some_statements():
        shown = {feeling.family for feeling in lexicon.feelings(statement.text, cues=True)}
        assert shown == {statement.feeling}, statement.text


def test_statements_are_first_person_sentences_of_bearable_length() -> None:
    for statement in some_statements():
        words = lexicon.words(statement.text)
        assert set(words) & lexicon.FIRST_PERSON
        assert 5 <= len(words) <= 40
        assert statement.text[0].isupper()
        assert statement.text.endswith(".")
        assert " i " not in f" {statement.text} "


@pytest.mark.parametrize("kind", text.KINDS)
def test_every_kind_of_reply_speaks_and_stays_short(kind: str) -> None:
    source = random.Random(0)
    replies = [text.reply(statement, kind, source) for statement in some_statements()]
    assert len(set(replies)) > 10
    assert all(1 <= len(lexicon.words(reply)) <= 32 for reply in replies)


def mean(values: list[float | None]) -> float:
    return sum(value or 0.0 for value in values) / len(values)


def test_kinds_of_reply_are_what_their_names_say() -> None:
    statements, source = some_statements(), random.Random(0)
    prompts = [statement.text for statement in statements]
    replies = {kind: [text.reply(statement, kind, source) for statement in statements] for kind in text.KINDS}
    reflected = {kind: mean(reflection(prompts, replies[kind])) for kind in replies}
    felt = {kind: mean(empathy(prompts, replies[kind])) for kind in replies}
    assert reflected["complex_reflection"] > reflected["simple_reflection"] + 0.2
    assert (
        reflected["simple_reflection"] > max(reflected[kind] for kind in ("open_question", "advice", "off_topic")) + 0.2
    )
    assert felt["complex_reflection"] > felt["feeling"] > felt["validation"] > felt["off_topic"] == 0.0
    assert all("?" in reply for reply in replies["open_question"])


def test_replies_turn_the_person() -> None:
    source = random.Random(1)
    for statement in some_statements():
        for kind in ("simple_reflection", "complex_reflection", "feeling"):
            said = text.reply(statement, kind, source).removeprefix("I hear that ")
            assert not set(lexicon.words(said)) & lexicon.FIRST_PERSON


def test_the_judges_text_has_no_broken_replies() -> None:
    source = random.Random(0)
    assert "broken" not in {text.draw_kind(source, broken=False) for _ in range(2000)}
    assert {text.draw_kind(source) for _ in range(2000)} == set(text.KINDS)


def test_an_unknown_split_or_part_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="split must be one of train, development, test, got 'dev'"):
        text.prompts("dev")
    with pytest.raises(UnknownNameError, match="part must be one of train, judge, development, test, got 'dev'"):
        text.situations("dev")
