from __future__ import annotations

from collections.abc import Sequence

import builders
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons
from paretune.report.conflicts import conflicts, shares
from paretune.report.findings import findings

NAMES = ("kind", "short")
QUESTION = "Do steps turn against an objective?"


def said(**turned: Sequence[Sequence[float | None]]) -> tuple[str, list[str]]:
    """Return what is said of methods whose stages turned against objectives so often, and the questions answered."""
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
    measured = [builders.evaluation([[0.5, 0.5]], each, NAMES) for each in info.preferences]
    cells = [
        builders.cell(
            method, 0, measured, [builders.stage(f"{method}{n}", conflicts=row) for n, row in enumerate(rows)]
        )
        for method, rows in turned.items()
    ]
    records = builders.study(cells, [info], {})
    (part,) = comparisons(records)
    return conflicts(part), [each.question for each in findings(part, measure_all(records))]


def test_the_mean_over_stages_that_know_it_is_said_of_each_method() -> None:
    text, questions = said(mgda=[(0.5, None), (0.1, 0.25), ()], linear=[()], upgrad=[(0.0, 0.0)])
    assert "mgda kind 30% and short 25%" in text
    assert "upgrad kind 0% and short 0%" in text
    assert "linear" not in text
    assert QUESTION in questions


def test_nothing_is_said_where_nothing_is_known() -> None:
    text, questions = said(linear=[()], weight_grid=[()])
    assert text == ""
    assert QUESTION not in questions


def test_shares_are_none_where_no_preference_wants_an_objective() -> None:
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
    cell = builders.cell("mgda", 0, [], [builders.stage("a", conflicts=(0.5, None))])
    (part,) = comparisons(builders.study([cell], [info], {}))
    assert part.methods[0].done
    assert shares(part.methods[0], 2) == [0.5, None]
