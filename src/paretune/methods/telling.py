"""Who is told of what a run makes, where several lengths of one trajectory are made in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from paretune.core.stages import StageContext


@dataclass
class Telling:
    """Passes on what a run makes: completions as progress, and events.

    A shorter length ends with less than a whole round. A longer run goes on from whole rounds and makes those
    completions anew, so nobody is told of them: they would be reported twice, and logged as part of the longer run.
    """

    context: StageContext
    heard: bool = True

    def progress(self, completions: int) -> None:
        """Report completions made since the last call."""
        if self.heard:
            self.context.progress(completions)

    def log(self, event: Mapping[str, object]) -> None:
        """Append one line to the events."""
        if self.heard:
            self.context.log(event)

    @contextmanager
    def only_if(self, heard: bool) -> Iterator[None]:
        """Pass on what a block of code makes, or nothing of it."""
        self.heard = heard
        try:
            yield
        finally:
            self.heard = True
