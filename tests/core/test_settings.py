from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from paretune.core.errors import ConfigError
from paretune.core.settings import Written, check_read, check_unread, make_settings


@dataclass(frozen=True)
class Inner:
    level: Literal["block", "token"] = "block"
    width: int = 4


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    steps: int = 3
    quick: bool = False
    name: str = "a"
    rates: tuple[float, ...] = (0.1,)
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None
    extra: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 1, "steps": 4, "quick": True, "name": "b", "limit": None},
        {"rates": [1, 0.5], "inner": {"width": 8}},
        {"inner": Inner(width=3), "extra": {"a": 1}},
        {"steps": 64.0},
    ],
)
def test_values_that_are_what_they_look_like_are_taken(given: dict[str, Any]) -> None:
    made = make_settings(Settings, given, "fake")
    for name, value in given.items():
        if name not in ("inner", "rates"):
            assert getattr(made, name) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "1e-3"}, "fake.rate must be a number, got the text '1e-3'. Write it without quotes"),
        ({"rate": True}, "fake.rate must be a number, got True"),
        ({"steps": True}, "fake.steps must be a whole number, got True"),
        ({"steps": "3"}, "fake.steps must be a number, got the text '3'"),
        ({"steps": 2.5}, "fake.steps must be a valid integer"),
        ({"quick": 1}, "fake.quick must be true or false, got 1"),
        ({"quick": "yes"}, "fake.quick must be true or false, got 'yes'"),
        ({"quick": "true"}, "fake.quick must be true or false, got 'true'"),
        ({"name": 1000.0}, "fake.name must be a valid string, got 1000.0"),
        ({"rates": [0.1, "0.2"]}, "fake.rates.1 must be a number, got the text '0.2'"),
        ({"rates": [True]}, "fake.rates.0 must be a number, got True"),
        ({"inner": {"width": "8"}}, "fake.inner.width must be a number, got the text '8'"),
        ({"extra": {"a": False}}, "fake.extra.a must be a number, got False"),
        ({"rate": float("inf")}, "fake.rate must be a finite number, got inf"),
        ({"rate": "nan"}, "fake.rate must be a number, got the text 'nan'"),
        ({"limit": float("nan")}, "fake.limit must be a finite number"),
    ],
)
def test_values_that_would_be_read_as_something_else_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_settings(Settings, given, "fake")


@dataclass(frozen=True)
class Bare:
    """No settings."""


def test_an_unknown_setting_is_told_what_was_meant_before_the_list_of_all() -> None:
    known = "It has extra, inner, limit, name, quick, rate, rates, steps."
    for given, guess in (("stps", "Did you mean 'steps'? Write `steps: 1`."), ("colour", "Remove it.")):
        with pytest.raises(ConfigError) as refused:
            make_settings(Settings, {given: 1}, "mine")
        assert str(refused.value) == f"mine.{given} must be one of the settings of mine, got '{given}'. {guess} {known}"
    with pytest.raises(
        ConfigError, match=r"^mine: settings of mine must be left out, as it has none, got 'steps'\. Remove it\.$"
    ):
        make_settings(Bare, {"steps": 1}, "mine")


SPOTS = {("inner",): 4, ("inner", "widht"): 5, ("rate",): 6, ("rates", 1): 7}


def written(*keys: str | int) -> str:
    return f"study.yaml:{SPOTS[keys]}: {'.'.join(map(str, keys))}" if keys else "study.yaml:1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"inner": {"widht": 8}},
            "study.yaml:5: inner.widht must be one of the settings of inner, got 'widht'. Did you mean 'width'? Write "
            "`inner.width=8`. It has level, width.",
        ),
        ({"rate": "slow"}, "study.yaml:6: rate must be a valid number, got 'slow'. Correct it."),
        ({"rate": True}, "study.yaml:6: rate must be a number, got True. Correct it."),
        ({"rates": [1, "2"]}, "study.yaml:7: rates.1 must be a number, got the text '2'. Write it without quotes."),
    ],
)
def test_a_message_names_the_line_of_the_key_and_the_corrected_one(given: dict[str, Any], message: str) -> None:
    where = Written(written, lambda keys, value: f"{'.'.join(keys)}={value}")
    with pytest.raises(ConfigError) as refused:
        make_settings(Settings, given, where)
    assert str(refused.value) == message


@dataclass(frozen=True)
class Checked:
    rate: float = 0.1
    steps: int = 3

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate must be at least 0, got {self.rate}. Raise it.")
        if self.rate > self.steps:
            raise ConfigError(f"a rate above steps must not be, got {self.rate}. Lower it.")


def test_a_rule_of_a_dataclass_is_told_at_the_setting_that_its_sentence_starts_with() -> None:
    for given, message in (
        ({"rate": -1.0}, "study.yaml:6: rate must be at least 0, got -1.0. Raise it."),
        ({"steps": 0}, "study.yaml:1: a rate above steps must not be, got 0.1. Lower it."),
    ):
        with pytest.raises(ConfigError) as refused:
            make_settings(Checked, given, Written(written))
        assert str(refused.value) == message


def test_settings_that_a_choice_does_not_read_are_refused_where_they_are_not_their_default() -> None:
    readers = {"rate": ("b",), "steps": ("a", "b"), "extra": ("b", "c")}
    check_read(Settings(steps=9), "name", readers)
    check_read(Settings(name="b", rate=0.5, extra={"x": 1.0}), "name", readers)
    check_read(Settings(name="mine:Own", rate=0.5), "name", readers)  # which may read all
    with pytest.raises(
        ConfigError, match=r"^rate must be left out where name is 'a', got 0\.5\. Remove it, or write name: b\."
    ):
        check_read(Settings(rate=0.5), "name", readers)
    with pytest.raises(ConfigError, match=r"^extra must be left out where name is 'a', got .* write name: b or c\.$"):
        check_read(Settings(extra={"x": 1.0}), "name", readers)


def test_all_settings_that_nothing_reads_are_named_in_one_sentence() -> None:
    check_unread(Settings(name="b"), ("rate", "steps", "extra"), "without a gate")
    with pytest.raises(
        ConfigError, match=r"^rate and steps must be left out without a gate, got 0\.5 and 4\. Remove it\."
    ):
        check_unread(Settings(rate=0.5, steps=4), ("rate", "steps", "extra"), "without a gate")
