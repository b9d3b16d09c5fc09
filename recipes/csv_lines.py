"""Tables of recipes as comma-separated values, whole or line by line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paretune.core.errors import ConfigError

DECIMALS = 4
TINY = "tiny"  # a column of tables that --tiny made, which no other has
Line = Mapping[str, Any]


def continued(file: Path, keys: Iterable[Line], make: Callable[[Line], Line], tiny: bool) -> None:
    """Make the lines of a table that it does not have yet, and write and print each as soon as it is made.

    Args:
        file: The table; it may be there in part, or not at all.
        keys: What names each line: its first columns.
        make: Returns the other columns of a line.
        tiny: Whether lines are made as `--tiny` makes them, which their last column says.

    Raises:
        ConfigError: If the lines that are there were made the other way.
    """
    lines: list[Line] = []
    if file.exists():
        with file.open(encoding="utf-8", newline="") as handle:
            lines = list(csv.DictReader(handle))
    if any((TINY in line) != tiny for line in lines):
        others, own = ("without", "with") if tiny else ("with", "without")
        raise ConfigError(
            f"lines of '{file}' must all be made {others} --tiny, as those in it are, got a call {own} it. Name "
            "another file."
        )
    for key in keys:
        if not any(all(line.get(name) == text(each) for name, each in key.items()) for line in lines):
            lines.append({**key, **make(key), **({TINY: 1} if tiny else {})})
            write_lines(lines, file)
            print(*map(text, lines[-1].values()), sep="  ", flush=True)


def text(value: object, decimals: int = DECIMALS) -> str:
    """Return a value as a table has it, real numbers with so many decimals; nothing for None."""
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def write_lines(lines: Sequence[Line], file: Path, decimals: int = DECIMALS) -> None:
    """Write lines by the names of their columns, all of them or none; nothing where there are none."""
    if not lines:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(
            handle, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n"
        )
        writer.writeheader()
        for line in lines:
            writer.writerow({name: text(each, decimals) for name, each in line.items()})
    partial.replace(file)
