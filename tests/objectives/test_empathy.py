import random

import pytest

from paretune.core.errors import ShapeError
from paretune.objectives import lexicon
from paretune.objectives.empathy import empathy

STATEMENT = "I keep lying to my wife about the bills, and I feel so guilty."
ALL_FEELINGS = " ".join(words[0] for words in lexicon.FEELING_WORDS.values())


def score(reply: str, statement: str = STATEMENT) -> float:
    (value,) = empathy([statement], [reply])
    assert value is not None
    return value


def test_replies_are_ranked_by_how_well_they_name_the_feeling() -> None:
    ladder = [
        "You should tell her.",  # none
        "That sounds hard.",  # would fit anything
        "Guilty.",  # named, nobody's
        "You feel guilty.",  # given to the client
        "You feel guilty about lying.",  # ... about something
        "You feel guilty about lying to your wife about the bills.",  # ... about all of it
    ]
    scores = [score(reply) for reply in ladder]
    # 0, VALIDATION, NAMED, OWNED, OWNED + LINKED / 3, OWNED + LINKED
    assert scores == pytest.approx([0.0, 0.2, 0.35, 0.6, 0.6 + 0.4 / 3, 1.0])


@pytest.mark.parametrize("family", list(lexicon.FEELING_WORDS))
def test_every_family_is_recognised_by_its_own_words_and_rejects_strangers(family: str) -> None:
    client, counsellor, *_ = lexicon.FEELING_WORDS[family]
    statement = f"Honestly I'm {client}."
    assert score(f"You feel {counsellor}.", statement) == pytest.approx(0.6)
    for other, (word, *_) in lexicon.FEELING_WORDS.items():
        expected = 0.6 if other == family else 0.3 if other in lexicon.NEIGHBOURS[family] else 0.0
        assert score(f"You feel {word}.", statement) == pytest.approx(expected), other


@pytest.mark.parametrize("family", list(lexicon.FEELING_CUES))
def test_a_feeling_that_is_shown_but_not_named_counts_as_well(family: str) -> None:
    for cue in lexicon.FEELING_CUES[family]:
        assert score(f"You feel {lexicon.FEELING_WORDS[family][0]}.", f"These days {cue}.") == pytest.approx(0.6), cue


def test_a_statement_without_a_known_feeling_gives_half() -> None:
    assert score("You feel torn.", "I moved house in May.") == pytest.approx(0.3)


def test_neighbouring_families_are_neighbours_both_ways() -> None:
    for family, others in lexicon.NEIGHBOURS.items():
        assert family not in others
        assert all(family in lexicon.NEIGHBOURS[other] for other in others)


@pytest.mark.parametrize("reply", ["You don't feel guilty.", "Don't feel guilty.", "You should not feel so guilty."])
def test_a_denied_feeling_earns_nothing(reply: str) -> None:
    assert score(reply) == 0.0


def test_a_feeling_the_client_denies_does_not_fit() -> None:
    statement = "I'm not angry, I'm worn out."
    assert score("You feel angry.", statement) == 0.0
    assert score("You feel tired.", statement) == pytest.approx(0.6)


def test_the_counsellors_own_feeling_earns_little() -> None:
    assert score("I feel guilty.") < 0.1


@pytest.mark.parametrize("reply", ["You lost your job.", "You sat down.", "It hurt your knee."])
def test_everyday_words_are_no_feelings(reply: str) -> None:
    assert score(reply, "I lost my job.") == 0.0


@pytest.mark.parametrize("reply", ["", " ", "!!!", "42"])
def test_nothing_said_earns_nothing(reply: str) -> None:
    assert score(reply) == 0.0


def test_a_copy_of_the_statement_earns_little() -> None:
    assert score(STATEMENT) < 0.2


@pytest.mark.parametrize("word", ["guilty", "you", "feel", "hard"])
def test_one_word_repeated_earns_little(word: str) -> None:
    assert score(" ".join([word] * 12)) < 0.1


@pytest.mark.parametrize(
    "listing", [ALL_FEELINGS, f"You feel {ALL_FEELINGS}.", f"You feel {ALL_FEELINGS} about lying."]
)
def test_a_list_of_all_feelings_earns_nothing_to_speak_of(listing: str) -> None:
    assert score(listing) < 0.02


def test_two_feelings_of_which_one_fits_earn_a_quarter() -> None:
    assert score("You feel guilty and proud.") == pytest.approx(0.6 / 4)


def test_synonyms_of_one_family_in_a_heap_earn_less_than_one() -> None:
    assert score("You feel guilty ashamed embarrassed remorseful.") < score("You feel guilty.") / 2


def test_keywords_earn_less_than_a_sentence() -> None:
    assert score("guilty lying wife bills") < score("You feel guilty.") + 0.01


def test_rewards_stay_in_range_for_any_text() -> None:
    source = random.Random(0)
    vocabulary = [*STATEMENT.split(), *ALL_FEELINGS.split(), "you", "not", "sounds", "hard", "?", ".", "\n", "é"]
    replies = [" ".join(source.choices(vocabulary, k=source.randrange(30))) for _ in range(300)]
    rewards = empathy([STATEMENT] * 300, replies)
    assert all(reward is not None and 0.0 <= reward <= 1.0 for reward in rewards)


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="prompts must be one per completion"):
        empathy([STATEMENT], [])
