import random

import pytest

from paretune.core.errors import ShapeError
from paretune.objectives.reflection import reflection

STATEMENT = "I keep arguing with my wife about the rent because I lost my job, and I feel so guilty."
CONTENT = "arguing wife rent job guilty"


def score(reply: str, statement: str = STATEMENT) -> float:
    (value,) = reflection([statement], [reply])
    assert value is not None
    return value


def test_reflections_are_ranked_from_terse_to_complex() -> None:
    ladder = [
        "The weather is nice today.",
        "You're arguing.",
        "You keep arguing with your wife.",
        "You keep arguing with your wife about the rent because you lost your job.",
        "Arguing with your wife about the rent leaves you ashamed, because you lost your job.",
        "You feel ashamed about arguing with your wife about the rent because you lost your job, and you want peace.",
    ]
    scores = [score(reply) for reply in ladder]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    assert scores[0] == 0.0


def test_a_simple_reflection_earns_exactly_its_share_of_the_content() -> None:
    # The content is argu(ing), wife, rent, lost, job, guilty: six words, of which five make a full echo. The reply has
    # three of them in place (arguing with, your wife) and adds no feeling, reason or meaning: 0.5 * 2 / 5.
    assert score("You keep arguing with your wife.") == pytest.approx(0.5 * 2 / 5)


def test_a_full_complex_reflection_earns_everything() -> None:
    # Five of six content words in place: echo 1. A synonym of the feeling (0.5) and a meaning (0.5): depth 1.
    reply = (
        "You feel ashamed about arguing with your wife about the rent because you lost your job, and you want peace."
    )
    assert score(reply) == pytest.approx(1.0)


def test_a_question_is_no_reflection() -> None:
    assert score("What makes you keep arguing with your wife about the rent?") == 0.0
    assert score("Do you keep arguing with your wife about the rent") == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        "You should stop arguing with your wife about the rent.",
        "Try arguing with your wife about the rent less.",
        "If I were you, I would stop arguing with my wife about the rent.",
        "You need to talk to your wife about the rent.",
    ],
)
def test_advice_is_no_reflection(reply: str) -> None:
    assert score(reply) == 0.0


def test_what_the_client_has_to_do_may_be_said_back() -> None:
    statement = "I have to work every weekend and I hate it."
    assert score("You have to work every weekend.", statement) > 0.2
    assert score("You have to quit.", statement) == 0.0


def test_a_question_after_a_reflection_lowers_it_by_its_share_of_the_words() -> None:
    alone = score("You keep arguing with your wife.")
    # 6 of 11 words are the reflection's.
    assert score("You keep arguing with your wife. What would you like instead?") == pytest.approx(alone * 6 / 11)


def test_a_copy_of_the_statement_earns_little_because_the_person_is_not_turned() -> None:
    turned = "You keep arguing with your wife about the rent because you lost your job, and you feel so guilty."
    assert score(STATEMENT) == 0.0
    assert score(turned) > 0.6
    assert score(turned) < score("Arguing with your wife about the rent leaves you ashamed, and you want some peace.")


def test_a_person_half_turned_earns_less_than_half() -> None:
    # Half of the personal words mean the client, and "my wife" is not what the client hears.
    assert score("You keep arguing with my wife.") < score("You keep arguing with your wife.") / 2


@pytest.mark.parametrize("reply", ["", "   ", "...", "?!", "123 456"])
def test_nothing_said_earns_nothing(reply: str) -> None:
    assert score(reply) == 0.0


@pytest.mark.parametrize("word", ["you", "wife", "guilty", "the"])
def test_one_word_repeated_earns_next_to_nothing(word: str) -> None:
    assert score(" ".join([word] * 12)) < 0.05


def test_a_reflection_said_three_times_earns_less_than_once() -> None:
    once = "You keep arguing with your wife"
    # 18 words make 17 pairs; 5 differ inside the sentence and 1 joins its end to its start.
    assert score(f"{once} {once} {once}") == pytest.approx(score(once) * 6 / 17)


def test_keywords_out_of_context_earn_little() -> None:
    simple = score("You keep arguing with your wife about the rent.")
    assert score(CONTENT) < 0.1
    shuffled = ["you", "your", *CONTENT.split()]
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        assert score(" ".join(shuffled)) < simple


def test_meaning_without_the_clients_content_is_worth_nothing() -> None:
    assert score("Part of you wants peace, because it matters to you.") == 0.0


def test_rewards_stay_in_range_for_any_text() -> None:
    source = random.Random(0)
    vocabulary = [
        *STATEMENT.split(),
        "you",
        "your",
        "?",
        ".",
        "feel",
        "ashamed",
        "because",
        "part",
        "of",
        "\n",
        "é",
        "7",
    ]
    replies = [" ".join(source.choices(vocabulary, k=source.randrange(30))) for _ in range(300)]
    rewards = reflection([STATEMENT] * 300, replies)
    assert all(reward is not None and 0.0 <= reward <= 1.0 for reward in rewards)


def test_each_reply_is_scored_against_its_own_statement() -> None:
    statements = ["I keep calling my sister.", "I keep selling my piano."]
    assert reflection(statements, ["You keep calling your sister."] * 2)[1] == 0.0
    assert reflection([], []) == []


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="prompts must be one per completion"):
        reflection([STATEMENT], [])
