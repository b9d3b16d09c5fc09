"""Audit: scores of objectives that no method trains on, and what training for the others has cost in them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import MetricRow
from paretune.metrics.by_preference import Figure, Figures, figures, mean_of, worst_of
from paretune.metrics.seeds import Group, preference_labels
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import StudyRecords

FloatArray = NDArray[np.float64]


def audit_rows(metric: str, group: Group, study: StudyRecords) -> Iterator[MetricRow]:
    """Yield the rows of every audit objective of a task.

    By label: `audit: NAME`, the mean over preferences; `audit: NAME, PREFERENCE`, one; `audit change: NAME` and `audit
    change: NAME, PREFERENCE`, the difference to the base model on the same prompts, paired by seed; `audit change,
    worst: NAME`, the lowest difference of any preference, which the reason names. A mean over preferences can hide that
    one of them lost half of its fluency.
    """
    labels = preference_labels(group.task)
    each = np.eye(len(labels), dtype=np.bool_)
    for index, objective in enumerate(objective for objective in group.task.objectives if objective.audit):
        name, low, high = objective.name, *objective.range
        scores = {seed: figures(cell, group.task, audit_score(index)) for seed, cell in group.done.items()}
        changes = {seed: _change(study, group, seed, mine, index) for seed, mine in scores.items()}
        note, width = _left_out(group, index, name), high - low
        for title, found, ends in (
            (f"audit: {name}", scores, (low, high)),
            (f"audit change: {name}", changes, (-width, width)),
        ):
            yield group.row(metric, title, mean_of(group, found, note=note, within=ends))
            for label, chosen in zip(labels, each, strict=True):
                yield group.row(metric, f"{title}, {label}", mean_of(group, found, chosen, note, ends))
        worst = worst_of(group, changes, note=note, within=(-width, width))
        yield group.row(metric, f"audit change, worst: {name}", worst)


def audit_score(index: int) -> Figure:
    """Return the figure of one audit objective, by its place among them."""

    def score(record: EvaluationRecord, preference: FloatArray) -> float | str:
        found = record.audit_scores[index]
        return f"{record.audit[index]} reward" if np.isnan(found) else float(found)

    return score


def _change(study: StudyRecords, group: Group, seed: int, scores: Figures, index: int) -> Figures:
    reference = study.references.get((group.task.name, seed))
    base = np.nan if reference is None else reference.audit_scores[index]
    if not np.isnan(base):
        return Figures(scores.values - base, scores.reasons)
    lacking = "has no evaluation of the base model" if reference is None else "has no such reward of the base model"
    return Figures(scores.values * np.nan, tuple(reason or lacking for reason in scores.reasons))


def _left_out(group: Group, index: int, name: str) -> str:
    records = [cell.evaluation(each) for cell in group.done.values() for each in group.task.preferences]
    columns = [record.rewards[:, len(record.objectives) + index] for record in records if record is not None]
    missing = sum(int(np.isnan(column).sum()) for column in columns)
    total = sum(map(len, columns))
    return f"completions left out of a mean: {missing} of {total} without {name} reward" if missing else ""
