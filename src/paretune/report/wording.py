"""Numbers, lists and intervals as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paretune.core.protocols import MetricValue

MINUS = "\u2212"
MISSING = "–"
LARGE = 1e7  # from here on nobody counts digits
MANY = 8  # names in a sentence: of more, their numbers are read in a table


def number(value: float | None, signed: bool = False) -> str:
    """Write a number with about three significant digits, or a dash when there is none.

    Example:
        >>> number(0.51234), number(-3.456), number(12345.6), number(4e11), number(None)
        ('0.512', '−3.46', '12,346', '4.00e11', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size >= LARGE:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    whole = size >= 10 and float(size).is_integer()
    decimals = 0 if whole or size >= 100 else 3 if size < 1 else 2 if size < 10 else 1
    text = f"{size:,.{decimals}f}"
    if value < 0 and any(digit in "123456789" for digit in text):
        return MINUS + text
    return "+" + text if signed else text


def interval(value: MetricValue, signed: bool = False) -> str:
    """Write a value with its interval, `0.512 [0.480, 0.544]`, or what there is of it."""
    if value.value is None:
        return MISSING
    if value.low is None or value.high is None:
        return number(value.value, signed)
    return f"{number(value.value, signed)} [{number(value.low, signed)}, {number(value.high, signed)}]"


def count(amount: int, noun: str, plural: str = "") -> str:
    """Write an amount with its noun: `1 seed`, `3 seeds`.

    Example:
        >>> count(1, "seed"), count(1500, "seed")
        ('1 seed', '1,500 seeds')
    """
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def capital(text: str) -> str:
    """Begin a text as a sentence begins."""
    return text[:1].upper() + text[1:]


def listing(words: Sequence[str], last: str = "and") -> str:
    """Join words: `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def seconds(value: float | None) -> str:
    """Write a duration: `48 s`, `3.2 min`, `1.5 h`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def table_cell(value: str | float | int | None) -> str:
    """Write a table cell: text as it is, counts in full, other numbers rounded."""
    if value is None:
        return MISSING
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else number(value)
