from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.checks import (
    LONGEST_VALUE,
    MOST_SHOWN,
    check_choice,
    check_seed,
    check_texts,
    did_you_mean,
    text_pairs,
    yaml_line,
)
from paretune.core.errors import ConfigError, ShapeError, UnknownNameError
from paretune.core.task import Objective
from paretune.objectives.scoring import Scorer
from paretune.tasks.strict_yaml import read_yaml


def test_a_known_name_passes() -> None:
    assert check_choice("method", "linear", {"linear": 1, "mod": 2}) == "linear"


def test_an_unknown_name_is_refused_with_all_choices_and_the_closest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        check_choice("method", "emorl2", ["mod", "emorl", "fixed_weights"])
    assert str(caught.value) == ("method must be one of emorl, fixed_weights, mod, got 'emorl2'. Did you mean 'emorl'?")
    assert isinstance(caught.value, ConfigError)
    with pytest.raises(UnknownNameError, match=r"^gate must be one of block, token, got 'x'\. Name one of these\.$"):
        check_choice("gate", "x", ["token", "block"])


def test_the_closest_name_comes_with_its_corrected_line() -> None:
    known = ("rank", "learning_rate")
    assert did_you_mean("rnk", known, lambda meant: yaml_line(meant, [4, 8])) == (
        " Did you mean 'rank'? Write `rank: [4, 8]`."
    )
    assert did_you_mean("colour", known, lambda meant: yaml_line(meant, 4)) == ""
    with pytest.raises(UnknownNameError, match=r"Did you mean 'token'\? Write `gate: token`\.$"):
        check_choice("gate", "tokn", ["token", "block"], line=lambda meant: f"gate: {meant}")


def test_a_corrected_line_is_what_a_settings_file_reads(tmp_path: Path) -> None:
    for value in (0.001, 5e-4, "text: with a colon", True, None, [0, 1], {"kind": "cone", "eps": 0.2}):
        (tmp_path / "study.yaml").write_text(yaml_line("key", value), encoding="utf-8")
        assert read_yaml(tmp_path / "study.yaml")[0] == {"key": value}
    assert yaml_line("key", "x" * LONGEST_VALUE) == "key: ..."
    assert yaml_line("key", "\x1b[2J\u202e") == 'key: "\\u001b[2J\\u202e"'  # which controls no terminal


def test_many_choices_are_counted_where_a_command_lists_them() -> None:
    many = [f"method_{number}" for number in range(MOST_SHOWN + 1)]
    for asked, guess in (("metod_3", " Did you mean 'method_3'?"), ("zzz", "")):
        with pytest.raises(UnknownNameError) as caught:
            check_choice("method", asked, many, "paretune ls methods")
        assert str(caught.value) == (
            f"method must be one of {len(many)} names, got '{asked}'.{guess} `paretune ls methods` lists all."
        )
    with pytest.raises(UnknownNameError, match="method must be one of method_0, method_1, "):
        check_choice("method", "zzz", many)
    with pytest.raises(UnknownNameError, match=r"must be one of method_0, method_1, .*\. Name one of these\."):
        check_choice("method", "zzz", many[:MOST_SHOWN], "paretune ls methods")


def test_no_guess_is_made_when_nothing_is_close() -> None:
    assert did_you_mean("zzz", ["linear"]) == ""


@pytest.mark.parametrize("seed", [-1, 0.5, True, "3", None])
def test_a_seed_that_is_no_whole_number_from_0_on_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match=r"seed must be a whole number from 0 on, got .*\. Write 0, 1, 2, \.\.\.$"):
        check_seed(seed)


def test_a_seed_passes() -> None:
    assert check_seed(0) == 0
    assert type(check_seed(np.int64(3))) is int


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_texts_come_back_as_they_are(texts: list[str]) -> None:
    assert check_texts("texts", tuple(texts)) == texts


def test_pairs_are_checked_on_both_sides() -> None:
    assert text_pairs(["a"], ["b"]) == [("a", "b")]
    assert text_pairs([], []) == []
    for prompts, completions, message in [
        ("ab", ["c", "d"], "prompts must be a list of texts, got the text 'ab'"),
        (["a", "b"], "cd", "completions must be a list of texts, got the text 'cd'"),
        (["a"], ["b", "c"], r"prompts must be one per completion \(2\), got 1"),
        (["a"], [None], r"completions\[0\] must be a text, got None"),
    ]:
        with pytest.raises(ShapeError, match=message):
            text_pairs(prompts, completions)


@pytest.mark.parametrize("name", ["brevity", "empathy", "fluency", "reflection"])
def test_an_objective_does_not_score_the_letters_of_a_text(name: str) -> None:
    function = getattr(importlib.import_module(f"paretune.objectives.{name}"), name)
    with pytest.raises(ShapeError, match="completions must be a list of texts, got the text 'dog'"):
        function(["a", "b", "c"], "dog")
    with pytest.raises(ShapeError, match="prompts must be a list of texts, got the text 'dog'"):
        function("dog", ["a", "b", "c"])


def test_a_scorer_does_not_score_the_letters_of_a_text() -> None:
    score = Scorer([Objective("brevity", "paretune.objectives.brevity:brevity")])
    with pytest.raises(ShapeError, match="completions must be a list of texts, got the text 'dog'"):
        score([{"prompt": "a"}] * 3, "dog")
    with pytest.raises(ShapeError, match=r"completions\[1\] must be a text, got None"):
        score([{"prompt": "a"}] * 2, ["b", None])  # type: ignore[list-item]
