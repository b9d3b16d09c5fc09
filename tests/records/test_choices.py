from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import paretune
from paretune.core.errors import ConfigError, ParetuneError, PreferenceError, RecordError
from paretune.core.limits import MAX_YAML_BYTES
from paretune.core.preferences import preference_from_mapping, wanted_preferences
from paretune.records.choices import Choice, load_choice, write_choice

OF_A_REPORT: dict[str, Any] = {
    "schema_version": 1,
    "kind": "paretune choice",
    "objectives": {"empathy": 0.7, "brevity": 0.3},
    "mode": "weights",
    "study": "quick",
    "task": "counselling",
    "method": "rewarded_soups",
}


def saved(folder: Path, content: object) -> Path:
    path = folder / "choice.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_a_report_saves_is_read(tmp_path: Path) -> None:
    found = load_choice(saved(tmp_path, OF_A_REPORT))
    assert found == Choice({"empathy": 0.7, "brevity": 0.3}, "weights", "quick", "counselling", "rewarded_soups")
    assert found.plain() == OF_A_REPORT
    wished = {**OF_A_REPORT, "mode": "aspirations", "aspirations": {"brevity": 0.4}}
    assert load_choice(saved(tmp_path, wished)).aspirations == {"brevity": 0.4}


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    weights = {"empathy": 0.5, "brevity": 0.5}
    written = Choice(
        objectives=weights,
        mode="pairwise",
        study="quick",
        task="counselling",
        method="weight_grid",
        made="2026-01-31T12:00:00+00:00",
        cell="counselling-weight_grid-6000-0",
        inferred={"preference": weights, "low": weights, "high": weights, "expected_regret": 0.01},
        answers=({"a": weights, "b": {"empathy": 1.0, "brevity": 0.0}, "reply": "="},),
    )
    write_choice(tmp_path / "choice.json", written)
    assert load_choice(tmp_path / "choice.json") == written
    assert load_choice(str(tmp_path / "choice.json")) == written


def test_a_file_of_weights_alone_is_a_choice(tmp_path: Path) -> None:
    found = load_choice(saved(tmp_path, {"empathy": 7, "brevity": 3}))
    assert (dict(found), found.mode, found.study) == ({"empathy": 7.0, "brevity": 3.0}, "weights", "")


def test_a_choice_is_taken_wherever_weights_by_name_are(tmp_path: Path) -> None:
    found = paretune.load_choice(saved(tmp_path, OF_A_REPORT))
    objectives = ("reflection", "empathy", "brevity")
    assert preference_from_mapping(found, objectives).tolist() == [0.0, 0.7, 0.3]
    assert wanted_preferences([found, [1, 1, 1]], objectives)[0].tolist() == [0.0, 0.7, 0.3]
    assert wanted_preferences(found, objectives).tolist() == [[0.0, 0.7, 0.3]]
    with pytest.raises(PreferenceError, match=r"must name objectives of the task .*, got 'brevity'"):
        preference_from_mapping(found, ("empathy", "warmth"))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[1]", ConfigError, "must be a choice, or weights by objective, got a list"),
        ('{"a": 1, "a": 2}', ConfigError, "must name each key once, got 'a' twice"),
        ('{"a": 1', ConfigError, r"choice.json:1 must hold JSON, got trouble at character 8"),
        ("[" * 100_000, ConfigError, "lists within lists beyond what can be read"),
        ("[" + " " * MAX_YAML_BYTES, ConfigError, "must be at most 262,144 bytes"),
        ({}, ConfigError, "weights must name an objective, got none"),
        ('{"a": NaN}', ConfigError, "weights of 'a' must be a finite number, got nan"),
        ('{"a": 1e999}', ConfigError, "must be a finite number, got inf"),
        ('{"a": ' + "9" * 5000 + "}", ConfigError, "must be a finite number, got inf"),
        ({"a": True}, ConfigError, "must be a finite number, got True"),
        ({"a": "1"}, ConfigError, "must be a finite number, got '1'"),
        ({"a": -1, "b": 2}, PreferenceError, "must be finite and non-negative"),
        ({"a": 0}, PreferenceError, "must have a weight above 0"),
        ({**OF_A_REPORT, "kind": "paretune"}, ConfigError, "kind must be 'paretune choice', got 'paretune'"),
        ({**OF_A_REPORT, "schema_version": 2}, ConfigError, "schema_version must be 1, got 2. Use the paretune"),
        ({**OF_A_REPORT, "schema_version": True}, ConfigError, "schema_version must be 1, got True"),
        ({**OF_A_REPORT, "objective": {}}, ConfigError, "got 'objective'. Did you mean 'objectives'"),
        ({**OF_A_REPORT, "objectives": [0.7, 0.3]}, ConfigError, "objectives must be numbers by objective, got a list"),
        ({**OF_A_REPORT, "mode": "weight"}, ConfigError, "got 'weight'. Did you mean 'weights'"),
        ({**OF_A_REPORT, "mode": ["weights"]}, ConfigError, "mode must be one of weights, aspirations, pairwise"),
        ({**OF_A_REPORT, "mode": "aspirations"}, ConfigError, "aspirations must be there in mode aspirations"),
        ({**OF_A_REPORT, "task": None}, ConfigError, "task must be text, got nothing"),
        ({**OF_A_REPORT, "made": "today"}, ConfigError, "made must be a time such as .*, got 'today'"),
        ({**OF_A_REPORT, "inferred": {"mean": {}}}, ConfigError, "inferred must have preference, .* got 'mean'"),
        ({**OF_A_REPORT, "inferred": {"expected_regret": "x"}}, ConfigError, "must be a finite number, got 'x'"),
        ({**OF_A_REPORT, "answers": [{"a": {"x": 1}, "b": {"x": 1}, "reply": "c"}]}, ConfigError, "answers must each"),
        ({**OF_A_REPORT, "answers": {"a": 1}}, ConfigError, "answers must each have a, b and a reply"),
    ],
)
def test_what_breaks_the_schema_is_refused(
    tmp_path: Path, content: object, error: type[ParetuneError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_choice(saved(tmp_path, content))


@pytest.mark.parametrize("name", [name for name in OF_A_REPORT if name not in ("kind", "schema_version")])
def test_a_key_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"must have {name}, got none"):
        load_choice(saved(tmp_path, {key: value for key, value in OF_A_REPORT.items() if key != name}))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"gone.json must exist, got 'No such file"):
        load_choice(tmp_path / "gone.json")
    with pytest.raises(RecordError, match="must be a file"):
        load_choice(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(ConfigError, match=r"bytes.json:1 must be UTF-8 text"):
        load_choice(tmp_path / "bytes.json")


def test_what_is_empty_is_left_out_of_the_file() -> None:
    plain = Choice({"empathy": 1.0}, study="quick", task="counselling", method="linear")
    assert set(plain.plain()) == set(OF_A_REPORT)
    assert "answers" in replace(plain, answers=({"a": {}, "b": {}, "reply": "a"},)).plain()
