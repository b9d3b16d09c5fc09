"""Tables of recipes as comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

FIGURES = 4  # decimals


def write_lines(lines: Sequence[Mapping[str, object]], file: Path) -> None:
    """Write lines by the names of their columns, real numbers with four decimals; nothing where there are none."""
    if not lines:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(
            handle, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n"
        )
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {name: f"{each:.{FIGURES}f}" if isinstance(each, float) else each for name, each in line.items()}
            )
