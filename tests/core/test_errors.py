"""Every error is made of one message, so that whoever knows more can say it anew: `type(error)(message)`."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from paretune.core.errors import ParetuneError


def kinds(kind: type[ParetuneError]) -> Iterator[type[ParetuneError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


@pytest.mark.parametrize("kind", list(kinds(ParetuneError)))
def test_every_error_is_made_of_a_message_and_survives_another_process(kind: type[ParetuneError]) -> None:
    error = kind("budget must be 8, got 2. Raise it.")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert str(each) == "budget must be 8, got 2. Raise it."
