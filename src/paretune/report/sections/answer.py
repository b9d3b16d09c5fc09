"""The answer: which method serves your preference, is that separable, what does it cost, what does it lose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

from paretune.report.charts import Chart, figure, plain, rounded
from paretune.report.controls import controls_of
from paretune.report.findings import findings
from paretune.report.palette import GREY
from paretune.report.ranking import interval_rule, main_table
from paretune.report.section import Section
from paretune.report.sections.answering import (
    answer_of,
    centre_column,
    cost_line,
    head,
    more_of,
    names_of,
    ranking_rows,
)
from paretune.report.sections.optimum import optimum_estimate, optimum_sentence, optimum_table
from paretune.report.view import PartView, shown_preferences

WORDS = ("Rank, tie group", "J, captured share", "KL", "Hypervolume, naive and cross-fitted", "Cost", "Ceiling")
DIGITS = 4  # decimals of a score in the page's data
MAX_ANSWERS = 10_000  # of a method to a preference; beyond, some preferences are left out, and the page says so
MAX_TABLE_ROWS = 500
MAX_SEED_SCORES = 60_000  # numbers; beyond, means stand for the seeds, without intervals, and the page says so


def data(part: PartView) -> Mapping[str, object]:
    """Answer for every measured preference; the page shows the one nearest to the sliders."""
    comparison = part.comparison
    centre = centre_column(comparison)
    optimum = optimum_estimate(comparison, part.view.study)
    listed = shown_preferences(len(comparison.labels), len(comparison.objectives), MAX_TABLE_ROWS)
    return {
        "lines": _lines(part, centre),
        "head": head(part, centre),
        "objectives": comparison.objectives,
        "audit": comparison.audit,
        "ends": comparison.ends,
        "whole": _whole(part),
        "left_out": len(comparison.labels) - len(_answered(part)),
        "start": comparison.task.preferences[centre].tolist(),
        "methods": [each.name for each in comparison.ranked if each.done],
        "judged_on": comparison.task.judged_on,
        "chart": _chart(part),
        "findings": findings(comparison, part.view.rows, controls_of(part.view.study.resolved.get("methods"))),
        "ranking": main_table(comparison, part.view.rows),
        "words": WORDS,
        "interval_rule": interval_rule(list(part.values("performance").values())),
        "optimum": None if optimum is None else optimum_sentence(optimum, comparison.labels),
        "optimum_table": None if optimum is None else optimum_table(optimum, comparison.labels, listed),
        "island": _island(part),
    }


def needs(part: PartView) -> str:
    """Return why there is no answer yet."""
    return (
        ""
        if any(each.done for each in part.comparison.methods)
        else "No method has finished a cell yet, so there is nothing to compare."
    )


def _chart(part: PartView) -> Chart:
    """Make room for a method's measured points in two objectives, and the reader's choice among them."""
    names = part.comparison.objectives
    across, up = (names[0], names[min(1, len(names) - 1)])
    measured = {
        "type": "scatter",
        "mode": "markers",
        "x": [],
        "y": [],
        "text": [],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 9, "color": GREY},
        "meta": {"kind": "measured"},
    }
    chosen = {
        **measured,
        "marker": {"size": 15, "color": GREY, "symbol": "circle-open", "line": {"width": 3}},
        "meta": {"kind": "chosen"},
    }
    drawn = figure([measured, chosen], f"{plain(across)}: mean reward, better →", f"{plain(up)}: mean reward, better →")
    note = "Filled: measured. The ring is your choice: filled where it was measured, hollow where it is interpolated."
    return Chart(
        drawn,
        f"Measured policies of the method shown, on {across} and {up}, and your choice among them",
        note=note,
        height=320,
    )


def _island(part: PartView) -> dict[str, object]:
    """Return what the sliders need: every answer in words, and scores by seed for differences."""
    comparison, columns = part.comparison, _answered(part)
    methods, points = comparison.methods, comparison.task.preferences[columns]
    scores = [
        np.concatenate([each.scores, each.audit_scores], axis=2)[:, columns] for each in methods
    ]  # each [S, P, K + A]
    base = np.concatenate([comparison.base_scores, comparison.base_audit_scores], axis=1)
    if not _whole(part):
        scores, base = (
            [np.nanmean(each, axis=0, keepdims=True) for each in scores],
            np.nanmean(base, axis=0, keepdims=True),
        )
    return {
        "study": part.view.study.name,
        "task": comparison.task.name,
        "objectives": list(comparison.objectives),
        "names": names_of(comparison),
        "audit": list(comparison.audit),
        "ranges": comparison.ends,
        "labels": [comparison.labels[column] for column in columns],
        "preferences": _plain(points),
        "heads": [head(part, column) for column in columns],
        "answers": [answer_of(part, column)[1] for column in columns],
        "rankings": [ranking_rows(part, column) for column in columns],
        "methods": [
            {
                "name": each.name,
                "colour": part.view.looks[each.name].colour,
                "marker": part.view.looks[each.name].marker,
                "ceiling": each.ceiling,
                "cell": next((cell.cell for cell in each.done), ""),
                "cost": cost_line(part, each.name),
            }
            for each in methods
        ],
        "scores": [_plain(each.transpose(1, 0, 2)) for each in scores],  # [method][preference][seed][objective]
        "base": _plain(base),
        "more": [[more_of(points, place, k) for k in range(points.shape[1])] for place in range(len(points))],
        "quantiles": [None, None, *(rounded(float(stats.t.ppf(0.975, n - 1))) for n in range(2, len(base) + 1))],
    }


def _answered(part: PartView) -> list[int]:
    """Return the preferences that the sliders know: as many as the page has room for, by their numbers."""
    comparison = part.comparison
    room = max(MAX_ANSWERS // max(len(comparison.methods), 1), len(comparison.objectives))
    return shown_preferences(len(comparison.labels), len(comparison.objectives), room)


def _lines(part: PartView, column: int) -> list[str]:
    """Say who serves a preference best and what that cost; the page adds what it gains and loses."""
    best, said = answer_of(part, column)
    return [said, cost_line(part, best)] if best else [said]


def _whole(part: PartView) -> bool:
    """Whether the page has room for the scores of every seed."""
    comparison = part.comparison
    size = sum(each.scores.size + each.audit_scores.size for each in comparison.methods)
    return size <= MAX_SEED_SCORES


def _plain(values: np.ndarray) -> object:
    """Round for the page; NaN becomes None."""
    return (
        [_plain(each) for each in values]
        if values.ndim > 1
        else [None if not np.isfinite(each) else round(float(each), DIGITS) for each in values]
    )


SECTION = Section("answer", "Which method for your preference?", "Your preference", data, needs, "answer.html.jinja")
