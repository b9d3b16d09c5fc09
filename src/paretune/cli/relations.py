"""What `paretune probe` prints: a matrix for each level, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from paretune.benchmark.progress import LINE_SECONDS
from paretune.cli.printing import complain
from paretune.core.printable import printable

if TYPE_CHECKING:
    from paretune.benchmark.probe import Probe
    from paretune.report.relations_figure import RelationMatrix

ONE_SEED = (
    "one seed, so without labels. For labels run a study of this task with three seeds or more and give its folder "
    "(--from STUDY)."
)
WIDE = 10_000  # where no terminal is, nothing is folded: a file has no width


class StepLines:
    """Prints each step of a probe as it begins and as it ends, and in between every ten seconds, on stderr."""

    def __init__(self) -> None:
        self._doing, self._shown = "", 0.0

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Hear how far a step is."""
        now = time.monotonic()
        if doing != self._doing or done >= total or now - self._shown >= LINE_SECONDS:
            self._doing, self._shown = doing, now
            complain(f"{doing}: {done:,} of {total:,}")


def print_probe(found: Probe) -> None:
    """Print the matrices of a probe, and what is missing in them and why."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(printable(found.title))
    for matrix in found.matrices():
        console.print()
        console.print(printable(matrix.title))
        if matrix.pairs is not None:
            console.print(_table(matrix))
        for note in matrix.notes():
            console.print(printable(f"  {'missing' if matrix.pairs is None else 'note'}: {note}"))
    outcomes = found.outcomes.relations
    if outcomes is not None:
        console.print(printable(f"  from {found.outcomes.source}{_cost(found.outcomes.charged)}"))
        if outcomes.seeds.max() == 1:
            console.print(f"  {ONE_SEED}")
    for problem in found.problems:
        console.print(printable(f"reward: {problem}"))
    console.print(printable(f"\n{found.seconds:.0f} s; " + ", ".join(str(file) for file in found.files)))


def _table(matrix: RelationMatrix) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_lines=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in matrix.objectives:
        table.add_column(name)
    for row, name in enumerate(matrix.objectives):
        table.add_row(name, *("\n".join(matrix.cell(row, column)) for column in range(len(matrix.objectives))))
    return table


def _cost(charged: Mapping[str, float]) -> str:
    if not charged:
        return ""
    return (
        f"; charged {charged['completions']:,.0f} completions, {charged['tokens']:,.0f} tokens and "
        f"{charged['seconds']:.0f} s"
    )
