from __future__ import annotations

from typing import Any

import pytest

from paretune.methods.telling import Telling


class Context:
    """What is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, completions: int) -> None:
        self.heard.append(completions)

    def log(self, event: object) -> None:
        self.heard.append(event)


def test_nothing_is_passed_on_of_what_is_made_for_a_shorter_length_alone() -> None:
    context: Any = Context()
    telling = Telling(context)
    telling.progress(1)
    with telling.only_if(False):
        telling.progress(2)
        telling.log({"number": 2})
    with telling.only_if(True):
        telling.progress(3)
    telling.log({"number": 4})
    assert context.heard == [1, 3, {"number": 4}]


def test_an_error_in_between_silences_nobody_afterwards() -> None:
    context: Any = Context()
    telling = Telling(context)
    with pytest.raises(ZeroDivisionError), telling.only_if(False):
        telling.progress(1 // 0)
    telling.progress(2)
    assert context.heard == [2]
