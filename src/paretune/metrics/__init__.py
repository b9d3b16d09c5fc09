"""The judge: the paper's measures, one file each. They read records and never run a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paretune.core.checks import check_choice
from paretune.core.imports import import_name
from paretune.records.layout import MEASURED

if TYPE_CHECKING:
    from paretune.core.protocols import MetricRow
    from paretune.records.study import StudyRecords

METRICS = {
    "performance": "paretune.metrics.performance:Performance",
    "captured_share": "paretune.metrics.captured_share:CapturedShare",
    "pass_ratio": "paretune.metrics.pass_ratio:PassRatio",
    "pareto_optimality": "paretune.metrics.pareto_optimality:ParetoOptimality",
    "true_front": "paretune.metrics.true_front:TrueFront",
    "kl_matched": "paretune.metrics.kl_matched:KlMatched",
    "training_efficiency": "paretune.metrics.training_efficiency:TrainingEfficiency",
    "inference_efficiency": "paretune.metrics.inference_efficiency:InferenceEfficiency",
    "stability": "paretune.metrics.stability:Stability",
    "adaptability": "paretune.metrics.adaptability:Adaptability",
    "scalability": "paretune.metrics.scalability:Scalability",
    "explainability": "paretune.metrics.explainability:Explainability",
}
PARTS = ("name", "title", "unit", "higher_is_better", "needs", "measure")


def load_metric(name: str) -> Any:
    """Return a metric by its name here, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not one of `METRICS`.
        ConfigError: If `module:Class` cannot be imported or is no metric.
    """
    return import_name("metric", name if ":" in name else METRICS[check_choice("metric", name, METRICS)], PARTS)()


def measure_all(study: StudyRecords, metrics: Sequence[str] | None = None) -> list[MetricRow]:
    """Measure a study, finished or not.

    Args:
        study: Its records.
        metrics: Names, or `module:Class` of a user's own; if None, all of `METRICS` and those that the study names.

    Returns:
        Rows of every metric in turn. What could not be measured is a row without a value, with the reason: where a
        measurement that the metric needs is missing, that is named.
    """
    named = study.resolved.get("metrics", ())
    names = (*METRICS, *named) if metrics is None and isinstance(named, (list, tuple)) else metrics or METRICS
    rows = []
    for metric in map(load_metric, names):
        rows += [_explained(study, metric.needs, row) for row in metric.measure(study)]
    return rows


def _explained(study: StudyRecords, needs: Sequence[str], row: MetricRow) -> MetricRow:
    """Say of a row without a value, behind its own reason, which table is not there and what makes it.

    A measurement that no study makes unasked is named only where the row itself says that it lacks its record: other
    rows of the same metric may need another one, and nobody should run hours of it for nothing.
    """
    from paretune.metrics.seeds import not_measured  # not above: listing metrics must not import scipy

    if row.value.value is not None:
        return row
    mine = {
        cell.cell
        for cell in study.cells
        if (cell.task, cell.method, cell.budget_completions) == (row.task, row.method, row.budget_completions)
    }
    for table in study.tables:
        needed = table.measurement in needs and table.task == row.task and table.folder in study.missing
        if needed and (not table.cells or mine.intersection(table.cells)):
            return _because(row, f"{table.measurement} is missing ({table.folder}: {study.missing[table.folder]})")
    never = [need for need in needs if study.tables and need not in {table.measurement for table in study.tables}]
    for need in never:
        if need in MEASURED and not_measured(need) in row.value.reason:
            return _because(row, f"{need} is missing: name it under `measurements` in the study, and run it again")
    if never and row.metric not in METRICS:
        return _because(row, f"{never[0]} is missing: the study does not measure it")
    return row


def _because(row: MetricRow, why: str) -> MetricRow:
    return replace(row, value=replace(row.value, reason="; ".join(each for each in (row.value.reason, why) if each)))
