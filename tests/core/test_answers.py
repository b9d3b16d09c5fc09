from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.answers import Combined, Estimated, Nearest, Selected, answer_from_plain, answer_to_plain, answered
from paretune.core.errors import ConfigError, RecordError, ShapeError

TRAINED = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
BUILT_IN = [
    Nearest(TRAINED),
    Estimated(TRAINED, TRAINED),
    Estimated(TRAINED, TRAINED, "chebyshev", np.ones(TRAINED.shape[1]), np.full(TRAINED.shape[1], 2.0)),
    Selected(TRAINED),
    Combined(TRAINED.T),
]
MINE = """
from dataclasses import dataclass, field

import numpy as np

CALLED = []


@dataclass(frozen=True, eq=False)
class Sharpened:
    corners: np.ndarray
    power: float = 2.0
    labels: tuple = ()
    made: int = field(default=0, init=False)

    def __post_init__(self):
        CALLED.append(self.power)
        if self.power <= 0:
            raise ValueError("power must be positive")

    objectives = property(lambda self: len(self.corners))
    experts = property(lambda self: self.corners.shape[1])

    def weights(self, preferences):
        raised = preferences**self.power
        return raised / raised.sum(axis=1, keepdims=True) @ self.corners, ["sharpened"] * len(preferences)


@dataclass
class NoAnswer:
    power: float = 2.0

    def __post_init__(self):
        CALLED.append(self.power)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a user's module with an answer of its own."""
    import importlib

    (tmp_path / "sharp.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("sharp")
    del sys.modules["sharp"]


def test_the_nearest_policy_answers_and_says_whether_it_is_exact() -> None:
    weights, answers = Nearest(TRAINED).weights(np.asarray([[0.0, 1.0], [0.9, 0.1], [0.6, 0.4]]))
    assert weights.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert answers == ["exact", "nearest", "nearest"]


def test_the_first_of_two_equally_near_policies_answers() -> None:
    weights, answers = Nearest(TRAINED).weights(np.asarray([[0.75, 0.25], [0.25, 0.75]]))
    assert weights.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert answers == ["nearest", "nearest"]


def test_the_policy_of_the_highest_measured_utility_is_selected() -> None:
    scores = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.6, 0.6]])
    # .8 .2: .74, .32, .60; .5 .5: .5, .5, .6; 0 1: .1, .8, .6
    weights, answers = Selected(scores).weights(np.asarray([[0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]))
    assert weights.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert answers == ["selected"] * 3


def test_the_first_of_equal_utilities_is_selected_whatever_the_last_bit() -> None:
    scores = np.asarray([[0.3, 0.6], [0.1 + 0.2, 0.6], [0.6, 0.3]])
    weights, _ = Selected(scores).weights(np.asarray([[0.5, 0.5]]))
    assert weights.tolist() == [[1, 0, 0]]


def test_combined_weights_are_linear_in_the_preference() -> None:
    answer = Combined(np.asarray([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))  # [K, E]
    weights, answers = answer.weights(np.asarray([[0.7, 0.3], [1.0, 0.0]]))
    np.testing.assert_allclose(weights, [[0.7, 0.15, 0.15], [1, 0, 0]], atol=1e-15)  # one rounding
    assert answers == ["combined", "combined"]
    assert (answer.objectives, answer.experts) == (2, 3)


def test_one_expert_answers_everything() -> None:
    for answer in (Nearest(np.asarray([[0.5, 0.5]])), Selected(np.asarray([[0.5, 0.5]]))):
        assert (answer.objectives, answer.experts) == (2, 1)
        assert answer.weights(TRAINED)[0].tolist() == [[1]] * 3


@pytest.mark.parametrize("kind", [Nearest, Selected, Combined])
def test_a_table_that_is_none_is_refused(kind: Any) -> None:
    for table, message in [
        (np.ones(3), r"must have two dimensions and an entry, got shape \[3\]"),
        (np.ones((0, 2)), r"must have two dimensions and an entry, got shape \[0, 2\]"),
        ([[0.5, np.nan]], "must be finite, got NaN or infinity"),
    ]:
        with pytest.raises(ShapeError, match=message):
            kind(table)


@pytest.mark.parametrize("answer", BUILT_IN)
def test_preferences_of_another_number_of_objectives_are_refused(answer: Any) -> None:
    with pytest.raises(ShapeError, match=r"one column per objective \(2\), got 3"):
        answer.weights(np.eye(3))


@pytest.mark.parametrize("answer", BUILT_IN)
def test_an_answer_survives_json_exactly(answer: Any) -> None:
    preferences = np.random.default_rng(0).dirichlet([1, 1], size=9)
    again = answer_from_plain(json.loads(json.dumps(answer_to_plain(answer))))
    assert type(again) is type(answer)
    assert again.weights(preferences)[0].tolist() == answer.weights(preferences)[0].tolist()
    assert again.weights(preferences)[1] == answer.weights(preferences)[1]


def test_the_plain_data_name_class_and_fields() -> None:
    assert answer_to_plain(Nearest(np.eye(2))) == {
        "class": "paretune.core.answers:Nearest",
        "trained": [[1.0, 0.0], [0.0, 1.0]],
    }


def test_a_users_own_answer_works_alike_and_may_use_its_own_words(mine: Any) -> None:
    plain = json.loads(json.dumps(answer_to_plain(mine.Sharpened(np.asarray([[1, 0], [0, 1]]), 3.0, ("a", "b")))))
    assert plain == {"class": "sharp:Sharpened", "corners": [[1, 0], [0, 1]], "power": 3.0, "labels": ["a", "b"]}
    answer: Any = answer_from_plain(plain)
    assert (answer.corners.dtype, answer.power, answer.labels) == (np.float64, 3.0, ["a", "b"])
    weights, words = answered(answer, np.asarray([[0.75, 0.25]]))
    np.testing.assert_allclose(weights, [[27 / 28, 1 / 28]])  # .75^3 : .25^3 = 27 : 1
    assert words == ["sharpened"]


@pytest.mark.parametrize(
    "name", ["subprocess:Popen", "builtins:eval", "paretune.core.answers:answered", "json:loads", "sharp:NoAnswer"]
)
def test_what_is_no_answer_is_refused_before_anything_is_called(
    mine: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *given, **more: pytest.fail("called"))
    with pytest.raises(RecordError, match=rf"answer must be of a dataclass with weights\(\), got '{name}', which is"):
        answer_from_plain({"class": name, "args": ["true"]})
    assert mine.CALLED == []


@pytest.mark.parametrize("name", ["no_such_module:Answer", "json:NoSuchClass", "json", ":Answer", ".relative:Answer"])
def test_a_class_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(RecordError, match=r"answer must be an importable 'module:name', got '.*on the import path"):
        answer_from_plain({"class": name})


def test_fields_that_are_not_those_of_the_class_are_refused(mine: Any) -> None:
    with pytest.raises(RecordError, match=r"must have the fields trained, got scores\. Use the version"):
        answer_from_plain({"class": "paretune.core.answers:Nearest", "scores": [[1.0]]})
    fields = {"corners": [[1.0]], "labels": []}
    with pytest.raises(
        RecordError, match=r"answer 'sharp:Sharpened' must be made of its fields, got: power must be po"
    ):
        answer_from_plain({"class": "sharp:Sharpened", "power": -1.0, **fields})
    with pytest.raises(RecordError, match=r"must be made of its fields, got: trained must have two dimensions"):
        answer_from_plain({"class": "paretune.core.answers:Nearest", "trained": [1.0]})
    for broken in ({}, [], {"class": 3}):
        with pytest.raises(RecordError, match="answer must name its class as 'module:Class', got"):
            answer_from_plain(broken)


@dataclass(frozen=True, eq=False)
class Odd:
    """Says what it is told to say."""

    said: Any
    experts: int = 2
    objectives: int = 2
    hidden: int = field(default=0, init=False)

    def weights(self, preferences: Any) -> Any:
        return self.said


def test_an_answer_that_could_not_be_found_again_is_refused() -> None:
    @dataclass
    class Local:
        objectives: int = 2
        experts: int = 2

        def weights(self, preferences: Any) -> Any:
            return None

    with pytest.raises(ConfigError, match=r"dataclass at the top of its module, with .*<locals>\.Local"):
        answer_to_plain(Local())
    with pytest.raises(ConfigError, match=r"with objectives, experts, weights, got builtins:int"):
        answer_to_plain(3)  # type: ignore[arg-type]  # the point of the test
    for said in (np.asarray([np.nan]), {1, 2}, object()):
        with pytest.raises(ConfigError, match=r"Odd\.said must be plain data of finite numbers, got"):
            answer_to_plain(Odd(said))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (np.eye(2), "answer Odd must return expert weights and words on how it answered, got ndarray"),
        ((np.ones((2, 3)), ["a", "b"]), r"one per preference and expert \[2, 2\], got shape \[2, 3\]"),
        ((np.full((2, 2), np.nan), ["a", "b"]), r"must be finite, .* got NaN or infinity"),
        ((np.eye(2), ["a"]), r"in one word how it answered each of 2 preferences, got \['a'\]"),
        ((np.eye(2), ["a", None]), r"how it answered each of 2 preferences, got \['a', None\]"),
        ((np.eye(2), ["a", ""]), r"how it answered each of 2 preferences"),
    ],
)
def test_an_answer_that_says_something_else_is_told(said: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        answered(Odd(said), np.eye(2))


def test_a_trained_preference_keeps_its_expert_and_any_other_gets_the_best_estimate() -> None:
    trained = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    scores = np.asarray([[0.9, 0.1], [0.2, 0.5], [0.7, 0.8]])  # the centre's beats the second corner's at home
    answer = answer_from_plain(answer_to_plain(Estimated(trained, scores)))
    weights, words = answer.weights(np.asarray([[0.0, 1.0], [0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]))
    assert weights.argmax(axis=1).tolist() == [1, 2, 0, 2]  # .47 against .79; .82 against .71
    assert words == ["exact", "estimated", "estimated", "exact"]
    assert (answer.objectives, answer.experts) == (2, 3)
    with pytest.raises(ShapeError, match="preferences must have one column per objective"):
        answer.weights(np.eye(3))
    with pytest.raises(ShapeError, match=r"scores must be of the experts that were trained, \[3, 2\], got \[2, 2\]"):
        Estimated(trained, scores[:2])


def test_a_field_that_came_later_may_be_missing_and_no_other() -> None:
    plain = answer_to_plain(Estimated(TRAINED, TRAINED))
    for later in ("utility", "points", "widths"):
        del plain[later]
    assert answer_to_plain(answer_from_plain(plain)) == answer_to_plain(Estimated(TRAINED, TRAINED))
    del plain["scores"]
    with pytest.raises(RecordError, match="must have the fields"):
        answer_from_plain(plain)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))
def test_nobody_is_estimated_to_be_served_worse_than_by_the_nearest(seed: int, experts: int, objectives: int) -> None:
    draws = np.random.default_rng(seed)
    trained = draws.dirichlet(np.ones(objectives), experts)
    scores, wanted = draws.normal(size=(experts, objectives)), draws.dirichlet(np.ones(objectives), 20)
    worth = wanted @ scores.T  # [M, E]
    chosen, near = (answer.weights(wanted)[0] for answer in (Estimated(trained, scores), Nearest(trained)))
    assert ((worth * chosen).sum(axis=1) >= (worth * near).sum(axis=1) - 1e-12).all()
