from __future__ import annotations

import sys
import unicodedata

from paretune.core.printable import brief, is_writable, printable, printable_line

CLEAR, COLOUR, TITLE, OVERRIDE = "\x1b[2J", "\x9b31m", "\x1b]0;mine\x07", "\u202e"


def test_nothing_that_controls_a_terminal_is_left() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {letter for letter in printable(everything) if unicodedata.category(letter) in ("Cc", "Cf", "Cs")}
    assert left == {"\n", "\t", "\u200c", "\u200d"}
    assert printable(CLEAR + COLOUR + TITLE + OVERRIDE) == "\\x1b[2J\\x9b31m\\x1b]0;mine\\x07\\u202e"


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("", "plain", "Zwei\nZeilen\tund – 😞", "👩‍👩‍👧", "עברית", "می‌خواهم", "a\\x1b"):
        assert printable(text) is text or printable(text) == text


def test_a_message_is_one_line() -> None:
    assert printable_line("a\r\n\x0b b\u2028c\x1b\tz") == "a b c\\x1b z"


def test_a_long_value_is_cut_and_its_length_said() -> None:
    assert brief("ab") == "'ab'"
    assert brief([1, 2]) == "[1, 2]"
    assert brief(10**100).endswith("... (101 characters)")
    assert len(brief("x" * 10**6)) < 70
    assert brief("\x1b") == "'\\x1b'"


def test_half_a_surrogate_pair_cannot_be_written() -> None:
    assert is_writable("é😀")
    assert not is_writable("\ud83d")
    assert printable("\ud83d") == "\\ud83d"
