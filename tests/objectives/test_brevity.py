import pytest

from paretune.core.errors import ShapeError
from paretune.objectives.brevity import brevity

STATEMENT = "I keep putting off calling my sister because I never have enough time, and it leaves me so very guilty."


def score(reply: str) -> float:
    (value,) = brevity([STATEMENT], [reply])
    assert value is not None
    return value


def words(count: int) -> str:
    return " ".join(chr(ord("a") + index) * 2 for index in range(count))


# (20 - words) / (20 - 4), at most 1; below three distinct words a third each.
@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (4, 1), (5, 15 / 16), (12, 0.5), (20, 0), (26, 0)]
)
def test_the_score_is_the_line_through_its_published_points(count: int, expected: float) -> None:
    assert score(words(count)) == pytest.approx(expected)


def test_longer_is_never_better_from_three_words_on() -> None:
    scores = [score(words(count)) for count in range(3, 26)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("reply", ["", "  \n", "...", "?", "1 2 3", "--"])
def test_silence_is_not_brief(reply: str) -> None:
    assert score(reply) == 0.0


def test_one_word_repeated_is_one_word_said_at_its_full_length() -> None:
    assert score("no no no") == pytest.approx(1 / 3)
    assert score(" ".join(["no"] * 12)) == pytest.approx(1 / 3 * 8 / 16)


def test_a_copy_of_a_long_statement_earns_nothing() -> None:
    assert score(STATEMENT) == 0.0


def test_keywords_earn_what_their_number_deserves() -> None:
    assert score("afraid sad angry guilty lonely exhausted hurt torn proud") == pytest.approx(11 / 16)


def test_punctuation_and_leading_space_do_not_count() -> None:
    assert score(" You feel, well, tired!") == score("You feel well tired")


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="prompts must be one per completion"):
        brevity([STATEMENT], [])
