from __future__ import annotations

import math

import pytest

from paretune.core.protocols import MetricValue
from paretune.report.wording import count, interval, listing, number, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"), (-0.0, "0.000"), (-0.0001, "0.000"), (-0.12345, "−0.123"), (12.345, "12.3"), (64.0, "64"),
        (2.0, "2.00"), (5600.0, "5,600"), (4.032e11, "4.03e11"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_numbers_keep_three_digits_and_zero_has_no_sign(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_signed_number_says_plus() -> None:
    assert number(0.25, signed=True) == "+0.250"


def test_an_interval_without_ends_is_only_its_value() -> None:
    assert interval(MetricValue(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"
    assert interval(MetricValue(0.5, reason="one seed: no interval")) == "0.500"
    assert interval(MetricValue(None)) == "–"


def test_lists_read_as_sentences() -> None:
    assert [listing(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert count(1, "seed") == "1 seed"


def test_durations_change_their_unit() -> None:
    assert [seconds(value) for value in (9.04, 48.0, 190.0, 9000.0, None)] == ["9.0 s", "48 s", "3.2 min", "2.5 h", "–"]
