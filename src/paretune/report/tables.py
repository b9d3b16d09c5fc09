"""The study's numbers as tables: CSV and Markdown for people, one long Parquet file for programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.core.printable import printable
from paretune.core.protocols import MetricRow, MetricValue
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison, MethodResult, comparisons
from paretune.report.costs import costs
from paretune.report.estimates import column_mean
from paretune.report.heat_map import BASE
from paretune.report.wording import MISSING, number

Value = str | float | int | None
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a spreadsheet would run such a cell
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
MARKDOWN_SPECIAL = "\\`*[]<>|#"


@dataclass(frozen=True)
class Table:
    """A named table of plain values.

    Attributes:
        name: File name without ending.
        title: What it shows.
        columns: Column names; units end the name.
        rows: One tuple per row, as long as `columns`.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def results_table(rows: Sequence[MetricRow]) -> Table:
    """Return one row per task, method, budget, metric and part: value, interval, seeds, reason."""
    columns = ("task", "budget_completions", "method", "metric", "part", "value", "low", "high", "seeds", "reason")
    return Table(
        "tables",
        "Metrics: mean over seeds with 95 % Student-t interval",
        columns,
        tuple(
            (
                row.task,
                row.budget_completions,
                row.method,
                row.metric,
                row.label,
                *_estimate(row.value),
                row.value.reason,
            )
            for row in rows
        ),
    )


def preferences_table(study: StudyRecords) -> Table:
    """Return achieved utility per method and preference, and how the preference was answered."""
    columns = ("task", "budget_completions", "method", "preference", "unseen", "answer", "utility", "low", "high")
    rows: list[tuple[Value, ...]] = []
    for part in comparisons(study):
        for name, values, answers in _utilities(part):
            for index, label in enumerate(part.labels):
                value = column_mean(values[:, index], part.seeds)
                unseen = "yes" if part.task.unseen[index] else "no"
                head = (part.task.name, part.budget_completions, name, label, unseen, answers[index])
                rows.append((*head, *_estimate(value), value.reason))
    return Table("preferences", "Achieved utility per preference", (*columns, "seeds", "reason"), _once(rows))


def seeds_table(study: StudyRecords) -> Table:
    """Return every planned cell with its state and, where finished, its utility averaged over preferences."""
    columns = ("task", "budget_completions", "method", "seed", "state", "reason", "message", "utility", "kl_nats")
    rows: list[tuple[Value, ...]] = []
    for part in comparisons(study):
        for method in _every(part):
            for seed, cell in method.cells.items():
                row = part.seeds.index(seed)
                head = (part.task.name, part.budget_completions, method.name, seed, cell.state)
                means = (_finite(method.utilities[row].mean()), _finite(method.kl[row].mean()))
                rows.append((*head, cell.reason or "", cell.message, *means))
    return Table("seeds", "Every planned cell", columns, _once(rows))


def costs_table(study: StudyRecords, metrics: Sequence[MetricRow]) -> Table:
    """Return what each method cost: completions, seconds, memory, decoding speed."""
    columns = (
        "task", "budget_completions", "method", "policies", "completions", "tokens", "seconds_sum",
        "seconds_longest_chain", "peak_memory_bytes", "tokens_per_second", "speed_relative_to_base", "seeds",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for part in comparisons(study):
        for cost in costs(part, metrics):
            values = (
                cost.completions, cost.tokens, cost.seconds_sum, cost.seconds_chain, cost.peak_memory_bytes,
                cost.tokens_per_second, cost.speed_ratio,
            )  # fmt: skip
            head = (part.task.name, part.budget_completions, cost.method, cost.policies)
            rows.append((*head, *(each.value for each in values), len(cost.completions.per_seed)))
    return Table("costs", "Cost per method: mean over finished seeds", columns, tuple(rows))


def stages_table(study: StudyRecords) -> Table:
    """Return every finished stage once: what it spent, and how many cells use it."""
    columns = (
        "stage", "kind", "used_by", "cells", "prompts", "completions", "tokens", "reward_calls", "flops", "seconds",
        "repeated_completions", "peak_memory_bytes",
    )  # fmt: skip
    users: dict[str, list[str]] = {}
    stages = {}
    for cell in study.cells:
        for stage in cell.stages:
            stages[stage.key] = stage
            users.setdefault(stage.key, []).append(cell.method)
    rows = tuple(
        (
            key,
            stage.kind,
            ", ".join(dict.fromkeys(users[key])),
            len(users[key]),
            *(stage.counts.get(name) for name in ("prompts", "completions", "tokens", "reward_calls", "flops")),
            stage.seconds,
            stage.repeated.get("completions", 0.0),
            stage.peak_memory_bytes,
        )
        for key, stage in stages.items()
    )
    return Table(
        "stages", "Every finished stage, listed once; a shared stage is charged in full to each user", columns, rows
    )


def all_tables(study: StudyRecords, rows: Sequence[MetricRow]) -> tuple[Table, ...]:
    """Return all tables, the results first."""
    return (
        results_table(rows),
        preferences_table(study),
        seeds_table(study),
        costs_table(study, rows),
        stages_table(study),
    )


def to_csv(table: Table) -> str:
    """Write a table as CSV with full precision; a missing number is an empty field."""
    return csv_text([table.columns, *table.rows])


def csv_text(rows: Iterable[Sequence[Value]]) -> str:
    """Write rows as CSV; a text that a spreadsheet would run as a formula gets a `'` before it, a number stays one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_csv_cell(value) for value in row] for row in rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Write a table as GitHub Markdown, rounded for reading; markup in names and messages is escaped."""
    lines = [f"## {table.title}", "", _markdown_row(table.columns), "|" + " --- |" * len(table.columns)]
    lines += [_markdown_row([_markdown_cell(value) for value in row]) for row in table.rows]
    return "\n".join([*lines, ""])


def write_tables(
    study: StudyRecords, rows: Sequence[MetricRow], folder: Path, more: Sequence[Table] = ()
) -> list[Path]:
    """Write `tables.csv` (metrics), `tables.md` (all), `tables/*.csv` (the others) and `results.parquet`.

    Args:
        study: The study.
        rows: Its metrics.
        folder: Where to.
        more: Further tables.

    Returns:
        The files written.
    """
    tables = (*all_tables(study, rows), *more)
    parts = folder / "tables"
    parts.mkdir(parents=True, exist_ok=True)
    contents = {folder / "tables.csv": to_csv(tables[0])}
    contents |= {parts / f"{table.name}.csv": to_csv(table) for table in tables[1:]}
    contents[folder / "tables.md"] = f"# {_escaped(study.name)}\n\n" + "\n".join(to_markdown(table) for table in tables)
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8")
    return [*contents, write_results(study, folder / "results.parquet")]


def write_results(study: StudyRecords, path: Path) -> Path:
    """Write one row per task, budget, method, seed, preference and objective: mean reward, n, n_missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("task", pa.string()), ("budget_completions", pa.int64()), ("method", pa.string()),
            ("family", pa.string()), ("seed", pa.int64()), ("preference", pa.list_(pa.float64())),
            ("preference_label", pa.string()), ("unseen", pa.bool_()), ("answer", pa.string()),
            ("objective", pa.string()), ("audit", pa.bool_()), ("mean_reward", pa.float64()),
            ("n", pa.int64()), ("n_missing", pa.int64()), ("kl_nats", pa.float64()),
        ]
    )  # fmt: skip
    found = [(part, method) for part in comparisons(study) for method in _every(part)]
    once = {(part.task.name, part.budget_completions, method.name): (part, method) for part, method in found}
    rows = [row for part, method in once.values() for row in _long_rows(part, method)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
    return path


def _once(rows: Sequence[tuple[Value, ...]]) -> tuple[tuple[Value, ...], ...]:
    """Return rows without those that several comparisons share: the base model's and a ceiling's."""
    return tuple(dict.fromkeys(rows))


def _every(part: Comparison) -> tuple[MethodResult, ...]:
    return (*part.methods, *part.untrained)


def _long_rows(part: Comparison, method: MethodResult) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for cell in method.done:
        for index, preference in enumerate(part.task.preferences):
            record = cell.evaluation(preference)
            if record is None:
                continue
            names = record.objectives + record.audit
            means = np.concatenate([record.scores, record.audit_scores])
            missing = np.isnan(record.rewards).sum(axis=0)
            rows += [
                {
                    "task": part.task.name,
                    "budget_completions": part.budget_completions,
                    "method": method.name,
                    "family": method.family,
                    "seed": cell.seed,
                    "preference": preference.tolist(),
                    "preference_label": part.labels[index],
                    "unseen": bool(part.task.unseen[index]),
                    "answer": record.answer,
                    "objective": name,
                    "audit": column >= len(record.objectives),
                    "mean_reward": _finite(means[column]),
                    "n": len(record.prompt_ids) - int(missing[column]),
                    "n_missing": int(missing[column]),
                    "kl_nats": _finite(record.kl),
                }
                for column, name in enumerate(names)
            ]
    return rows


def _utilities(part: Comparison) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
    base = [(BASE, part.base_utilities, ("reference",) * len(part.labels))] if part.references else []
    return base + [(method.name, method.utilities, method.answers) for method in part.methods]


def _estimate(value: MetricValue) -> tuple[Value, ...]:
    return value.value, value.low, value.high, len(value.per_seed)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _csv_cell(value: Value) -> Value:
    if isinstance(value, str):
        text = printable(value)
        return "'" + text if text.startswith(FORMULA_STARTS) and not NUMBER.fullmatch(text) else text
    return repr(float(value)) if isinstance(value, float) else value


def _escaped(text: str) -> str:
    text = printable(text)
    escaped = "".join("\\" + letter if letter in MARKDOWN_SPECIAL else letter for letter in text)
    return " ".join(escaped.split())


def _markdown_cell(value: Value) -> str:
    if value is None:
        return MISSING
    if isinstance(value, str):
        return _escaped(value)
    return f"{value}" if isinstance(value, int) else number(value)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
