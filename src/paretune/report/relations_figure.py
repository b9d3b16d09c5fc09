"""How objectives relate, as matrices: what their cells say, and a figure of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretune.relations.labels import PairEstimates
from paretune.report.drawing import DIVERGING, PAPER, STYLE, blank_figure, plain_text, save_figure
from paretune.report.wording import MINUS, MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNCERTAIN = "undetermined"


@dataclass(frozen=True, eq=False)
class RelationMatrix:
    """One level at which objectives relate.

    Attributes:
        title: What the numbers are.
        objectives: Names of the K objectives, rows and columns.
        pairs: The numbers; None where the level was not measured.
        diagonal: What the cells on the diagonal say, in place of the relation of an objective with itself; K texts.
        more: A further line for each cell, K rows of K texts; empty for none.
        missing: Why the level was not measured.
    """

    title: str
    objectives: tuple[str, ...]
    pairs: PairEstimates | None
    diagonal: tuple[str, ...] = ()
    more: tuple[tuple[str, ...], ...] = ()
    missing: str = ""

    def cell(self, row: int, column: int) -> list[str]:
        """Return the lines of a cell: number with interval, label, and what else there is."""
        if self.pairs is None:
            return []
        if row == column and self.diagonal:
            return [self.diagonal[row]]
        found = self.pairs.labels()[row][column]
        text = estimate_text(
            *(float(each[row, column]) for each in (self.pairs.values, self.pairs.low, self.pairs.high))
        )
        lines = [text, found or ("no label" if text != MISSING else "missing")]
        return [*lines, self.more[row][column]] if self.more and self.more[row][column] else lines

    def notes(self) -> list[str]:
        """Return why cells have no number or no label, each reason once with the pairs it holds for."""
        if self.pairs is None:
            return [self.missing]
        held: dict[str, dict[frozenset[str], str]] = {}  # reason -> pairs, one that is named both ways round once
        for row, column in np.ndindex(self.pairs.values.shape):
            reason, names = self.pairs.reasons[row][column], (self.objectives[row], self.objectives[column])
            if reason and row != column:
                held.setdefault(reason, {}).setdefault(frozenset(names), " and ".join(names))
        every = len(self.objectives) * (len(self.objectives) - 1) // 2
        return [
            f"{'every pair' if len(pairs) == every > 1 else ', '.join(pairs.values())}: {reason}"
            for reason, pairs in held.items()
        ]


def estimate_text(value: float, low: float, high: float) -> str:
    """Write a relation with its interval.

    Example:
        >>> estimate_text(-0.5, -0.561, -0.44), estimate_text(float("nan"), 0, 0)
        ('−0.50 [−0.56, −0.44]', '–')
    """
    if math.isnan(value):
        return MISSING
    return _two(value) if math.isnan(low) else f"{_two(value)} [{_two(low)}, {_two(high)}]"


def write_relations_figure(matrices: Sequence[RelationMatrix], title: str, path: Path) -> list[Path]:
    """Draw the matrices that were measured beside each other, as SVG and PNG.

    Args:
        matrices: The levels.
        title: What was probed, below the figure.
        path: Where to, without ending.

    Returns:
        The files written.
    """
    import matplotlib as mpl

    drawn = [matrix for matrix in matrices if matrix.pairs is not None]
    count = len(drawn[0].objectives)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script the font lacks: boxes
        figure = blank_figure((1.2 + 1.35 * count) * len(drawn), 1.6 + 0.75 * count)
        for axes, matrix in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            _draw(axes, matrix)
        note = f"{plain_text(title)}; 95 % intervals; hatched: not determined. Blue: rise together, orange: compete"
        figure.supxlabel(note, fontsize=7, color="#666666")
        return save_figure(figure, path)


def _draw(axes: Axes, matrix: RelationMatrix) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    if matrix.pairs is None:
        return
    values, labels = matrix.pairs.values.copy(), matrix.pairs.labels()
    np.fill_diagonal(values, np.nan)  # with itself every objective agrees: a colour would only distract
    colours = LinearSegmentedColormap.from_list("compete_agree", DIVERGING)
    axes.grid(visible=False)
    axes.imshow(values, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for row, column in np.ndindex(values.shape):
        if row != column and labels[row][column] in (None, UNCERTAIN):
            across = [column - 0.5, column + 0.5]
            axes.fill_between(
                across, row - 0.5, row + 0.5, facecolor="none", edgecolor="#888888", hatch="///", lw=0
            )  # fmt: skip
        text = "\n".join(matrix.cell(row, column)).replace(" [", "\n[")
        paper = None if row == column else PAPER
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, bbox=paper)
    names = [plain_text(name) for name in matrix.objectives]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(plain_text(matrix.title).replace(": ", ":\n", 1), fontsize=8)


def _two(value: float) -> str:
    return f"{value + 0.0:+.2f}".replace("-", MINUS).removeprefix("+")
