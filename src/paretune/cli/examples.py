"""Examples in `--help`: the section `Example` of each command's docstring, below its options."""

from __future__ import annotations

import inspect
import re

from cyclopts import App

SECTION = re.compile(r"^Example:\n((?:[ ]{4}.+\n?)+)", re.MULTILINE)


def show_examples(app: App) -> None:
    """Put each command's examples into its help, which shows the rest of its docstring by itself."""
    for name in app:
        command = app[name]
        if command.default_command is not None:
            lines = examples(command.default_command.__doc__ or "")
            command.help_epilogue = "\n".join(["Example:", *(f"  {line}" for line in lines)])


def examples(docstring: str) -> list[str]:
    """Return the lines of the section `Example`.

    Example:
        >>> examples('''Do it.
        ...
        ...     Example:
        ...         paretune do it
        ... ''')
        ['paretune do it']
    """
    found = SECTION.search(inspect.cleandoc(docstring))
    return [] if found is None else [line.strip() for line in found[1].splitlines()]
