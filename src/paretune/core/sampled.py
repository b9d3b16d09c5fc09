"""How many completions the decoding loop makes in a block: what a stage samples, to be held against what it charges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Sampled:
    """Completions sampled in a block so far."""

    completions: int = 0


# of this thread: another may serve requests
_counting: ContextVar[Sampled | None] = ContextVar("sampled", default=None)


@contextmanager
def counting_samples() -> Iterator[Sampled]:
    """Count the completions that are sampled in a block, whoever asks for them.

    Example:
        >>> with counting_samples() as sampled:
        ...     note_sampled(3)
        >>> sampled
        Sampled(completions=3)
    """
    sampled = Sampled()
    token = _counting.set(sampled)
    try:
        yield sampled
    finally:
        _counting.reset(token)


def note_sampled(completions: int) -> None:
    """Count completions; to be called where they are made."""
    sampled = _counting.get()
    if sampled is not None:
        sampled.completions += completions
