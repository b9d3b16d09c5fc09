from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from paretune.core.errors import ConfigError, ShapeError, UnknownNameError
from paretune.core.preferences import FloatArray, das_dennis, random_preferences
from paretune.elicitation.answering import Reply
from paretune.elicitation.elicitation import Elicitation


def front(objectives: int, divisions: int) -> FloatArray:
    """Return a concave front: scores are square roots of shares."""
    return np.sqrt(das_dennis(objectives, divisions))


def steady(scores: FloatArray, preference: FloatArray) -> Callable[[int, int], Reply]:
    def reply(first: int, second: int) -> Reply:
        return "a" if preference @ (scores[first] - scores[second]) > 0 else "b"

    return reply


def asked(talk: Elicitation, reply: Callable[[int, int], Reply], questions: int) -> Elicitation:
    for _ in range(questions):
        pair = talk.question()
        assert pair is not None
        talk.hear(*pair, reply(*pair))
    return talk


@pytest.mark.parametrize(("objectives", "divisions"), [(2, 10), (3, 4), (4, 3), (5, 2), (6, 2)])
def test_ten_steady_replies_leave_little_regret(objectives: int, divisions: int) -> None:
    """Mean over hidden preferences; without a question, the compromise of equal weights loses several times as much."""
    scores = front(objectives, divisions)
    before, after = [], []
    for seed, hidden in enumerate(random_preferences(objectives, 10, np.random.default_rng(objectives))):
        best = (scores @ hidden).max()
        talk = Elicitation(scores, seed=seed)
        before.append(best - scores[talk.inferred().best] @ hidden)
        after.append(best - scores[asked(talk, steady(scores, hidden), 10).inferred().best] @ hidden)
    assert np.mean(after) < 0.35 * np.mean(before)


def test_the_weights_lie_in_their_interval_and_the_interval_narrows() -> None:
    scores, hidden = front(2, 12), np.array([0.3, 0.7])
    talk = Elicitation(scores)
    widths = [float((talk.inferred().high - talk.inferred().low)[0])]
    for _ in range(3):
        found = asked(talk, steady(scores, hidden), 4).inferred()
        widths.append(float((found.high - found.low)[0]))
        assert (found.low <= hidden).all()
        assert (hidden <= found.high).all()
    assert widths[0] == pytest.approx(0.95, abs=0.03)  # of a uniform weight
    assert widths[3] < 0.2 < widths[1] < widths[0]


def test_equal_seeds_and_replies_give_equal_conversations_also_after_a_break() -> None:
    scores, reply = front(3, 4), steady(front(3, 4), np.array([0.2, 0.5, 0.3]))
    first = asked(Elicitation(scores, seed=3), reply, 8)
    broken = asked(Elicitation(scores, seed=3), reply, 3)
    later = Elicitation(scores, seed=3)
    for each in broken.answered:
        later.hear(each.first, each.second, each.reply)
    assert asked(later, reply, 5).answered == first.answered
    assert later.inferred().preference.tolist() == first.inferred().preference.tolist()
    assert asked(Elicitation(scores, seed=4), reply, 8).answered != first.answered


def test_no_preference_is_a_reply_too() -> None:
    scores = front(2, 10)
    talk = Elicitation(scores)
    for _ in range(3):
        talk.hear(0, 1, "=")  # the two corners, which are worth the same to equal weights alone
    found = talk.inferred()
    assert found.preference == pytest.approx([0.5, 0.5], abs=0.05)
    assert found.high[0] - found.low[0] < 0.8
    assert found.contradicted == 0


def test_replies_against_each_other_are_counted_and_widen_the_interval() -> None:
    scores = front(2, 10)
    talk, torn = Elicitation(scores), Elicitation(scores)
    for number in range(8):
        talk.hear(0, 1, "a")
        torn.hear(0, 1, "b" if number in (2, 5) else "a")
    assert talk.inferred().contradicted == 0
    assert torn.inferred().contradicted == 2
    assert torn.inferred().low[0] < talk.inferred().low[0]


def test_preferences_are_of_scores_as_they_are_whatever_the_units() -> None:
    """A second objective in hundredths: weights of it are a hundred times as great for the same wishes."""
    scores, hidden = front(2, 10), np.array([0.7, 0.3])
    reply = steady(scores, hidden)
    plain = asked(Elicitation(scores), reply, 8).inferred()
    found = asked(Elicitation(scores * [1, 0.01], units=[1, 0.01]), reply, 8).inferred()
    assert found.best == plain.best
    assert found.expected_regret == pytest.approx(plain.expected_regret)
    weights = plain.preference / [1, 0.01]
    assert found.preference == pytest.approx(weights / weights.sum())
    assert (found.low <= found.preference).all()
    assert (found.preference <= found.high).all()


def test_the_best_option_is_the_best_for_the_mean_preference() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.6], [0.1, 0.9], [0.5, 0.5]])
    found = asked(Elicitation(scores), steady(scores, np.array([0.55, 0.45])), 4).inferred()
    assert found.best == int((scores @ found.preference).argmax()) == 1


@pytest.mark.parametrize(
    ("scores", "units", "error", "message"),
    [
        ([[0.1], [0.2]], None, ShapeError, r"one column per objective \(2 to 6\), got shape \[2, 1\]"),
        (np.zeros((3, 7)), None, ShapeError, r"\(2 to 6\), got shape \[3, 7\]"),
        ([[0.1, np.nan], [0.2, 0.3]], None, ShapeError, "scores must be finite"),
        ([0.1, 0.2], None, ShapeError, r"got shape \[2\]"),
        ([[0.1, 0.2], [0.3, 0.1]], [1.0, 0.0], ShapeError, r"units must be one positive number per objective"),
        ([[0.1, 0.2], [0.3, 0.1]], [1.0], ShapeError, r"units must be one positive number per objective"),
        ([[0.1, 0.2], [0.1, 0.2]], None, ConfigError, "options must differ, got 2 with the same scores"),
        ([[0.1, 0.2]], None, ConfigError, "options must differ, got 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    scores: FloatArray, units: list[float] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Elicitation(scores, units)


def test_a_reply_to_nothing_is_refused() -> None:
    talk = Elicitation([[0.1, 0.2], [0.3, 0.1]])
    with pytest.raises(UnknownNameError, match="reply must be one of =, a, b, got 'c'"):
        talk.hear(0, 1, "c")  # type: ignore[arg-type]
    for pair in ((0, 2), (1, 1), (-1, 0)):
        with pytest.raises(ShapeError, match="options compared must be two of 2"):
            talk.hear(*pair, "a")
    assert talk.answered == ()
