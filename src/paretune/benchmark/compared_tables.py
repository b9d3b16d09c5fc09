"""A comparison as people read it: tables for a terminal, CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from paretune.benchmark.comparing import LEVEL, Compared, Difference, Measure
from paretune.benchmark.latex import Cell, latex_table
from paretune.benchmark.pairing import Row
from paretune.core.disk_errors import disk_errors
from paretune.core.protocols import CEILING, REFERENCE
from paretune.records.files import write_bytes
from paretune.report.tables import Table, Value, to_csv, to_markdown
from paretune.report.wording import MISSING, count, number
from paretune.statistics.intervals import Interval

Format = Literal["text", "csv", "md", "latex"]
FORMATS = get_args(Format)
APART = "*"  # after a difference that can be told from 0
COSTS = {"completions": "completions", "flops": "FLOPs"}  # of a cell; seconds depend on the machine and its load


def rendered(compared: Sequence[Compared], unpaired: Sequence[str], form: Format) -> str:
    """Return comparisons as one text.

    Args:
        compared: The comparisons.
        unpaired: What could not be compared, and why.
        form: What it is to be read by.
    """
    if form == "csv":
        return to_csv(methods_table(compared))
    if form == "latex":
        return "\n".join(_latex(each) for each in compared)
    parts = [_text(each) for each in compared] if form == "text" else [_markdown(each) for each in compared]
    left_out = [f"not compared: {each}" for each in unpaired]
    return "\n\n".join(
        [*parts, *(["\n".join(f"- {each}" if form == "md" else each for each in left_out)] * bool(left_out))]
    )


def write_compared(folder: Path, compared: Sequence[Compared], unpaired: Sequence[str]) -> list[Path]:
    """Write comparisons into a folder in all forms.

    Returns:
        `methods.csv`, every method's means, ranks and difference to the one that others are held against; `pairs.csv`,
        the differences of all pairs; `comparison.md`, `comparison.tex`; `left_out.txt`, what could not be compared.

    Raises:
        RecordError: If the folder cannot be written.
    """
    contents = {
        "methods.csv": to_csv(methods_table(compared)),
        "pairs.csv": to_csv(pairs_table(compared)),
        "comparison.md": rendered(compared, unpaired, "md"),
        "comparison.tex": rendered(compared, unpaired, "latex"),
        "left_out.txt": "\n".join(unpaired),
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_bytes(folder / name, f"{text.rstrip()}\n".encode())
    return [folder / name for name in contents]


def methods_table(compared: Sequence[Compared]) -> Table:
    """Return one row for each comparison, method and measure, and one for each cost."""
    columns = (
        "task", "budget_completions", "feedback", "method", "source", "family", "measure", "rank", "mean", "low",
        "high", "against", "difference", "difference_low", "difference_high", "p", "p_holm", "verdict", "seeds",
        "prompts", "preferences", "reason",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for each in compared:
        for measure in each.measures:
            found = {difference.second: difference for difference in each.against_subject(measure)}
            for row in each.lineup.rows:
                rank = each.ranks.get(measure.name, {}).get(row.label)
                reason = measure.reasons.get(row.label) or measure.note
                rows.append(
                    (
                        *_head(each, row), measure.name, rank, *_ends(measure.mean(row.label)),
                        *_turned(found.get(row.label)), *_counts(each), reason,
                    )
                )  # fmt: skip
        for row in each.lineup.rows:
            for name in COSTS:
                spent = _spent(each, row, name)
                rows.append((*_head(each, row), name, None, spent, *[None] * 9, *_counts(each), ""))
    return Table(
        "methods", "Methods: means over seeds, and differences paired by prompt and seed", columns, tuple(rows)
    )


def pairs_table(compared: Sequence[Compared]) -> Table:
    """Return the difference of every two methods in every measure, corrected for all pairs of the measure."""
    columns = (
        "task", "budget_completions", "feedback", "measure", "first", "second", "difference", "low", "high", "p",
        "p_holm", "verdict", "seeds", "prompts", "preferences", "interval",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for each in compared:
        lineup = each.lineup
        for measure in each.measures:
            for pair in each.all_pairs(measure):
                head = (lineup.task.name, lineup.budget_completions, lineup.feedback, measure.name)
                method = pair.interval.method or pair.interval.reason
                rows.append((*head, pair.first, pair.second, *_tested(pair), *_counts(each), method))
    return Table("pairs", "Differences of all pairs, paired by prompt and seed", columns, tuple(rows))


def _head(compared: Compared, row: Row) -> tuple[Value, ...]:
    lineup = compared.lineup
    return lineup.task.name, lineup.budget_completions, lineup.feedback, row.label, row.source.name, row.family


def _counts(compared: Compared) -> tuple[Value, ...]:
    return len(compared.lineup.seeds), compared.prompts, len(compared.lineup.task.preferences)


def _ends(found: Interval | None) -> tuple[Value, ...]:
    return (None, None, None) if found is None else (found.mean, found.low, found.high)


def _tested(pair: Difference) -> tuple[Value, ...]:
    return *_ends(pair.interval), pair.p_value, pair.adjusted, pair.verdict


def _turned(pair: Difference | None) -> tuple[Value, ...]:
    """Return the subject less a method, with whom it is held against."""
    return (None,) * 7 if pair is None else (pair.first, *_tested(pair))


def _spent(compared: Compared, row: Row, name: str) -> float | None:
    """Return what a cell was charged, mean over seeds; None for a ceiling, which is charged nothing."""
    costs = [cell.costs for seed in compared.lineup.seeds if (cell := row.cells[seed]).costs is not None]
    if row.family == CEILING or len(costs) < len(compared.lineup.seeds):
        return None
    return sum(float(each[name]) for each in costs) / len(costs)


def _text(compared: Compared) -> str:
    main, apart = _main(compared), _against(compared)
    lines = [compared.lineup.title, _aligned([main.columns, *main.rows])]
    if apart.rows:
        lines += ["", apart.title, _aligned([apart.columns, *apart.rows])]
    return "\n".join([*lines, "", *_notes(compared)])


def _markdown(compared: Compared) -> str:
    main, apart = _main(compared), _against(compared)
    tables = [to_markdown(each) for each in (main, apart) if each.rows]
    return "\n".join([*tables, *(f"{note}  " for note in _notes(compared))])


def _main(compared: Compared) -> Table:
    """Return one line a method, by rank: means with intervals, and what it cost."""
    columns = ("method", "rank", *(each.name for each in compared.measures), *COSTS.values())
    lines = [
        (
            row.label,
            _rank(compared, row),
            *(_estimate(measure.mean(row.label)) for measure in compared.measures),
            *(number(_spent(compared, row, name)) if row.ranked else MISSING for name in COSTS),
        )
        for row in _ordered(compared)
    ]
    return Table("comparison", compared.lineup.title, columns, tuple(lines))


def _against(compared: Compared) -> Table:
    """Return one line a method: the subject less it, in every measure."""
    found = {measure.name: {each.second: each for each in compared.against_subject(measure)}
             for measure in compared.measures}  # fmt: skip
    others = [row.label for row in _ordered(compared) if any(row.label in each for each in found.values())]
    lines = [(label, *(_signed(each.get(label)) for each in found.values())) for label in others]
    return Table("differences", f"{compared.subject} less", (" ", *found), tuple(lines))


def _ordered(compared: Compared) -> list[Row]:
    """Return the methods by rank and mean of the first measure, then those without, the base model, the ceiling."""
    measure = compared.measures[0]
    ranks = compared.ranks.get(measure.name, {})

    def place(row: Row) -> tuple[object, ...]:
        last = (row.family == REFERENCE) + 2 * (row.family == CEILING)
        found = measure.mean(row.label)
        return last, found is None, ranks.get(row.label, 0), 0.0 if found is None else -found.mean

    return sorted(compared.lineup.rows, key=place)


def _rank(compared: Compared, row: Row) -> str:
    if not row.ranked:
        return row.family
    rank = compared.ranks.get(compared.measures[0].name, {}).get(row.label)
    return MISSING if rank is None else str(rank)


def _estimate(found: Interval | None, signed: bool = False) -> str:
    if found is None:
        return MISSING
    ends = "" if found.low is None else f" [{number(found.low, signed)}, {number(found.high, signed)}]"
    return f"{number(found.mean, signed)}{ends}"


def _signed(pair: Difference | None) -> str:
    if pair is None:
        return MISSING
    return _estimate(pair.interval, True) + APART * (pair.verdict in ("higher", "lower"))


def _notes(compared: Compared) -> list[str]:
    lineup, measures = compared.lineup, compared.measures
    one = len(lineup.seeds) == 1
    lines = [
        f"{_sizes(compared)}. "
        + ("One seed shows nothing of chance: no interval, no rank, no verdict." if one else _rule(measures[0]))
    ]
    if not one and len(compared.rivals(measures[0])) > 1:
        lines.append(
            f"{APART} told apart from 0: paired t-test over seeds, corrected after Holm for the lines of its column. "
            "Brackets are of one difference alone, so they may leave 0 out where there is no such mark. KL is a price, "
            "neither good nor bad."
        )
    lines += [f"{measure.name}: {measure.note}." for measure in measures if measure.note]
    lines += [f"{name} has no {measure.name}: {why}." for measure in measures for name, why in measure.reasons.items()]
    return lines


def _sizes(compared: Compared) -> str:
    seeds = ", ".join(map(str, compared.lineup.seeds))
    return (
        f"{count(len(compared.lineup.seeds), 'seed')} ({seeds}), {count(compared.prompts, 'test prompt')} and "
        f"{count(len(compared.lineup.task.preferences), 'preference')} each"
    )


def _rule(first: Measure) -> str:
    method = next((found.method for label in first.values if (found := first.mean(label)) and found.method), "")
    return (
        f"Brackets hold 95 % intervals ({method}). Ranks are by {first.name}; methods of one rank cannot be told apart "
        f"from its first (paired t-test over seeds, Holm, level {LEVEL:g})."
    )


def _latex(compared: Compared) -> str:
    """Return a table for booktabs; in each column the methods of the best tie group are bold."""
    main, best = _main(compared), compared.ranks
    names = {measure.name for measure in compared.measures}
    lines: list[list[Cell]] = []
    for row, line in zip(_ordered(compared), main.rows, strict=True):
        cells = []
        for column, value in zip(main.columns, line, strict=True):
            bold = column in names and best.get(column, {}).get(row.label) == 1
            cells.append(Cell(str(value), bold))
        lines.append(cells)
    meaning = "" if len(compared.lineup.seeds) == 1 else " Bold: the best tie group of its column."
    return latex_table(compared.lineup.title, main.columns, lines, f"{_notes(compared)[0]}{meaning}")


def _aligned(lines: Sequence[Sequence[Value]]) -> str:
    texts = [[str(value) for value in line] for line in lines]
    widths = [max(len(line[column]) for line in texts) for column in range(len(texts[0]))]
    rows = (
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in texts)
    )
    return "\n".join(row.rstrip() for row in rows)
