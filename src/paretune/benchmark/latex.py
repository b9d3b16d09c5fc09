"""A table for LaTeX with booktabs, its texts escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretune.core.printable import printable

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "\u2212": "$-$", "\u2013": "--", "[": "{[}", "]": "{]}",
}  # fmt: skip  # a bracket behind \\ would be read as its argument


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is bold."""

    text: str
    bold: bool = False


def escaped(text: str) -> str:
    r"""Return text as LaTeX prints it.

    Example:
        >>> print(escaped("50 % of a_b"))
        50 \% of a\_b
    """
    return "".join(ESCAPES.get(letter, letter) for letter in " ".join(printable(text).split()))


def latex_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str) -> str:
    """Return a floating table.

    Args:
        caption: Stands above it.
        columns: Headings.
        rows: As long as `columns` each.
        note: Stands below it.
    """
    body = [" & ".join(_cell(cell) for cell in row) + r" \\" for row in rows]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{'l' + 'r' * (len(columns) - 1)}}}",
        r"\toprule",
        " & ".join(escaped(column) for column in columns) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\smallskip\footnotesize {escaped(note)}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escaped(cell.text)}}}" if cell.bold else escaped(cell.text)
