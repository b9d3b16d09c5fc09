"""Over-optimisation: what rises and what falls as policies move away from the base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.audit import audit_score
from paretune.metrics.by_preference import Figures, figures, mean_of
from paretune.metrics.judged import above_base, achieved
from paretune.metrics.kl_matched import scaled
from paretune.metrics.seeds import Group, Measure, over_seeds, span
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords
from paretune.statistics.rank_correlation import rank_correlation

FloatArray = NDArray[np.float64]


class Points(NamedTuple):
    """N policies of one cell: how far they are from the base model, and a figure of theirs.

    Attributes:
        kl: KL to the base model in nats, `[N]`; NaN where there is none.
        values: The figure, `[N]`; NaN where there is none.
    """

    kl: FloatArray
    values: FloatArray


def over_optimisation_rows(metric: str, group: Group, study: StudyRecords) -> Iterator[MetricRow]:
    """Yield rank correlations with KL, and lengths.

    By label: `over-optimisation: proxy vs kl`, of the gain in utility over the base model, which training raised;
    `over-optimisation: audit NAME vs kl`, of the score of an objective that no method trains on; `over-optimisation:
    length vs kl`, of tokens per completion. Points are the policies of a method and seed that answer the task's
    preferences, at this and every smaller budget; for the proxy also at smaller scales of their experts' weights, where
    those were scored. `length: all, tokens` and `length: change from base, tokens` are means over preferences.

    Source:
        Gao et al. 2023, Scaling laws for reward model overoptimization; the rank correlation is ours.
    """
    task = group.task
    audit = [objective.name for objective in task.objectives if objective.audit]
    paths = {seed: [_points(each, study, audit) for each in _until(study, cell)] for seed, cell in group.done.items()}
    for figure in ("proxy", *(f"audit {name}" for name in audit), "length"):
        mine = {seed: [each[figure] for each in path] for seed, path in paths.items()}
        value = over_seeds(group.cells, _correlation(figure, mine), _count(mine), within=(-1, 1))
        yield group.row(metric, f"over-optimisation: {figure} vs kl", value)
    lengths = {seed: figures(cell, task, _length) for seed, cell in group.done.items()}
    changes = {seed: _changed(study.references.get((task.name, seed)), each) for seed, each in lengths.items()}
    yield group.row(metric, "length: all, tokens", mean_of(group, lengths, within=(0, np.inf)))
    yield group.row(metric, "length: change from base, tokens", mean_of(group, changes))


def _until(study: StudyRecords, last: CellRecord) -> list[CellRecord]:
    """Return the finished cells of a method and seed up to a budget."""
    mine = (last.task, last.method, last.seed, "done")
    return [
        cell
        for cell in study.cells
        if (cell.task, cell.method, cell.seed, cell.state) == mine
        and cell.budget_completions <= last.budget_completions
    ]


def _points(cell: CellRecord, study: StudyRecords, audit: Sequence[str]) -> dict[str, Points]:
    task = study.tasks[cell.task]
    kl = figures(cell, task, _kl).values
    found = {"proxy": _proxy(cell, study, kl), "length": Points(kl, figures(cell, task, _length).values)}
    for index, name in enumerate(audit):
        found[f"audit {name}"] = Points(kl, figures(cell, task, audit_score(index)).values)
    return found


def _proxy(cell: CellRecord, study: StudyRecords, kl: FloatArray) -> Points:
    task = study.tasks[cell.task]
    if cell.outcomes is not None and (cell.outcomes.scales == 0).any():
        found = scaled(cell, task)
        if not isinstance(found, str):
            base = cell.outcomes.scales == 0
            gains = found.utilities - found.utilities[:, base]
            return Points(found.kl[:, ~base].ravel(), gains[:, ~base].ravel())
    return Points(kl, above_base(study, cell, achieved(study, cell, "utility")).values)


def _correlation(figure: str, paths: dict[int, list[Points]]) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        kl, values = (np.concatenate(each) for each in zip(*paths[cell.seed], strict=True))
        kept = np.isfinite(kl) & np.isfinite(values)
        if not kept.any():
            return f"has no {figure}" if np.isfinite(kl).any() else "has no KL (its policy can only be sampled)"
        found = rank_correlation(kl[kept], values[kept])
        return f"has no rank correlation of {figure} and KL ({found})" if isinstance(found, str) else found

    return measure


def _count(paths: dict[int, list[Points]]) -> str:
    counts = sorted({sum(int(np.isfinite(each.kl + each.values).sum()) for each in path) for path in paths.values()})
    return f"over {span(counts)} policies a seed" if counts else ""


def _kl(record: EvaluationRecord, preference: FloatArray) -> float | str:
    return record.kl if np.isfinite(record.kl) else "KL"


def _length(record: EvaluationRecord, preference: FloatArray) -> float:
    return float(np.mean([len(each) for each in record.token_ids]))


def _changed(reference: EvaluationRecord | None, lengths: Figures) -> Figures:
    if reference is None:
        lacking = "has no evaluation of the base model"
        return Figures(lengths.values * np.nan, tuple(reason or lacking for reason in lengths.reasons))
    return Figures(lengths.values - _length(reference, reference.preference), lengths.reasons)
