from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from paretune.cli.values import chosen_elsewhere, import_folders, parse_preference, parse_settings, stand_in
from paretune.core.answers import Answer, Combined, Estimated, Nearest, Selected
from paretune.core.errors import ConfigError, RecordError
from paretune.records.choices import Choice, write_choice

NAMES = ("reflection", "empathy", "brevity")
TRAINED = np.asarray([[0.0, 0.7, 0.3], [0.5, 0.25, 0.25]])


def said(answer: Answer, *preference: float) -> str:
    return stand_in(answer, NAMES, np.asarray(preference))


def test_a_preference_is_read_by_name() -> None:
    assert parse_preference("empathy=0.7, brevity=.3") == {"empathy": 0.7, "brevity": 0.3}
    assert parse_preference("reflection=1,empathy=1,brevity=1") == {"reflection": 1, "empathy": 1, "brevity": 1}


def test_a_preference_is_read_from_a_file_of_weights_or_a_choice(tmp_path: Path) -> None:
    write_choice(tmp_path / "choice.json", Choice({"empathy": 0.7}, study="s", task="t", method="linear"))
    found = parse_preference(f"@{tmp_path / 'choice.json'}")
    assert dict(found) == {"empathy": 0.7}
    (tmp_path / "weights.json").write_text('{"empathy": 7, "brevity": 3}')
    assert dict(parse_preference(f"@{tmp_path / 'weights.json'}")) == {"empathy": 7, "brevity": 3}
    with pytest.raises(RecordError, match=r"gone.json must exist, got 'No such file"):
        parse_preference("@gone.json")
    (tmp_path / "weights.json").write_text("empathy=0.7")
    with pytest.raises(ConfigError, match=r"weights.json:1 must hold JSON"):
        parse_preference(f"@{tmp_path / 'weights.json'}")


def test_a_choice_made_among_policies_of_another_method_says_so() -> None:
    chosen = Choice({"empathy": 0.7}, study="s", task="t", method="linear")
    note = "note: this preference was chosen among policies of 'linear'; these are of 'mod'"
    assert chosen_elsewhere(chosen, "mod") == note
    for preference, method in ((chosen, "linear"), (Choice({"empathy": 1.0}), "mod"), ({"empathy": 1.0}, "mod")):
        assert chosen_elsewhere(preference, method) == ""


def test_settings_are_yaml_and_may_be_nested() -> None:
    assert parse_settings(["rank=4", "gate.level=block", "gate.scale=0.5", "layers=[1, 2]", "name="]) == {
        "rank": 4,
        "gate": {"level": "block", "scale": 0.5},
        "layers": [1, 2],
        "name": None,
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [("rank", "--set must be given key=value, got 'rank'"), ("rank=[1", r"--set rank must be YAML, got an error")],
)
def test_a_pair_that_cannot_be_read_is_refused(pair: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings([pair])


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set gate\.level must not go below a value, got 'gate' set before"):
        parse_settings(["gate=3", "gate.level=block"])


def test_a_solution_set_that_lies_beside_no_study_is_read_from_here() -> None:
    assert import_folders(None) == [os.getcwd()]


def test_a_policy_trained_for_somebody_else_says_for_whom() -> None:
    wanted = "note: no policy was trained for reflection: answered by the one for "
    assert said(Nearest(TRAINED), 1, 0, 0) == f"{wanted}reflection .50, empathy .25, brevity .25 (nearest)"
    assert said(Nearest(TRAINED[:1]), 1, 0, 0) == f"{wanted}empathy .70, brevity .30 (nearest)"
    scores = np.asarray([[0.9, 0.0, 0.0], [0.1, 0.0, 0.0]])  # the first is worth more to one who wants reflection
    assert said(Estimated(TRAINED, scores), 1, 0, 0) == f"{wanted}empathy .70, brevity .30 (estimated)"


def test_a_stand_in_that_two_decimals_do_not_tell_apart_is_named_with_more() -> None:
    assert said(Nearest(TRAINED), 0.0, 0.701, 0.299) == (
        "note: no policy was trained for empathy .7010, brevity .2990: answered by the one for empathy .7000, "
        "brevity .3000 (nearest)"
    )


@pytest.mark.parametrize(
    "answer", [Nearest(TRAINED), Estimated(TRAINED, TRAINED), Selected(TRAINED), Combined(np.eye(3))]
)
def test_nothing_is_said_of_a_policy_of_ones_own_or_of_one_chosen_or_mixed_by_design(answer: Answer) -> None:
    assert said(answer, 0.0, 0.7, 0.3) == ""
