"""A task that shows a method no more than it may see: `import blind`."""

from __future__ import annotations

import copy
import sys
from typing import Any

from paretune.core.task import Enumeration, Row, Split, Task


class _Blind(Task):
    """Refuses to say whether, and how, its completions can be listed."""

    @property
    def enumeration(self) -> Enumeration | None:  # type: ignore[override]  # a property in the place of a field
        raise AssertionError("a method looked at listed completions")


class _WithoutTest(dict[Split, "tuple[Row, ...]"]):
    def __getitem__(self, split: Split) -> tuple[Row, ...]:
        checks = sys._getframe(1).f_globals["__name__"] == "paretune.tasks.checks"  # that all prompts fit
        if split == "test" and not checks:
            raise AssertionError("a method looked at test prompts")
        return super().__getitem__(split)


_Blind.__module__, _Blind.__name__ = Task.__module__, Task.__name__  # its code is none of a user's: keys stay


def blindfolded(task: Task) -> Any:
    """Return a task equal to another that fails whoever asks for listed completions or test prompts."""
    made = copy.copy(task)
    object.__setattr__(made, "splits", _WithoutTest(task.splits))
    object.__setattr__(made, "__class__", _Blind)
    return made
