from __future__ import annotations

import os

import pytest

from paretune.cli.values import import_folders, parse_preference, parse_settings
from paretune.core.errors import ConfigError


def test_a_preference_is_read_by_name() -> None:
    assert parse_preference("empathy=0.7, brevity=.3") == {"empathy": 0.7, "brevity": 0.3}
    assert parse_preference("reflection=1,empathy=1,brevity=1") == {"reflection": 1, "empathy": 1, "brevity": 1}


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
