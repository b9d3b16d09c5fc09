from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import builders
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report.page import render_page
from paretune.report.sections import answer
from paretune.report.sections.answering import answer_of, centre_column, cost_line, head, more_of, ranking_rows
from paretune.report.sections.front import parallel
from paretune.report.sections.related import corner_outcomes, data
from paretune.report.view import PartView, View

NAMES = ("kind", "short")
POINTS = [[1, 0], [0, 1], [0.5, 0.5]]


def study_of(scores: dict[str, list[list[float]]], seeds: int = 3) -> StudyRecords:
    """Methods with scores `[M, K]` on three preferences; seeds differ by .001. The base model has .4 in both."""
    info = builders.task_info("task", POINTS, objectives=NAMES, audit=("fluent",), test_prompts=1, samples=1)
    cells = [
        builders.cell(
            method,
            seed,
            [
                builders.evaluation([[*(each + seed / 1000 for each in row), 0.5]], point, NAMES, ("fluent",))
                for row, point in zip(rows, info.preferences, strict=True)
            ],
            [builders.stage(f"{method} {seed}", 100)],
            task="task",
        )
        for method, rows in scores.items()
        for seed in range(seeds)
    ]
    base = {("task", seed): builders.evaluation([[0.4, 0.4, 0.6]], None, NAMES, ("fluent",)) for seed in range(seeds)}
    return builders.study(cells, [info], base)


def part_of(scores: dict[str, list[list[float]]], seeds: int = 3) -> PartView:
    study = study_of(scores, seeds)
    return View(study, measure_all(study)).parts[0]


CLEAR = {"linear": [[0.8, 0.2], [0.2, 0.8], [0.6, 0.6]], "weight_grid": [[0.5, 0.4], [0.4, 0.5], [0.45, 0.45]]}


def test_the_answer_names_the_leader_and_its_cost() -> None:
    part = part_of(CLEAR)
    column = centre_column(part.comparison)
    assert head(part, column) == "For equal weights (kind .50, short .50)"
    (best, who), cost = answer_of(part, column), cost_line(part, "linear")
    assert best == "linear"
    assert who.startswith("linear has the highest utility, 0.601 ")
    assert who.endswith("and every other method can be told apart from it.")
    assert cost.startswith("linear cost 100 completions and 10 s of training a seed")


def test_what_seeds_cannot_separate_is_said_to_be_so() -> None:
    shared = {"linear": CLEAR["linear"], "weight_grid": CLEAR["linear"]}
    assert "That is not separable from weight_grid" in answer_of(part_of(shared), 2)[1]
    assert "Too few seeds to say whether that is chance." in answer_of(part_of(shared, seeds=1), 2)[1]
    alone = {"linear": CLEAR["linear"]}
    assert answer_of(part_of(alone), 2)[1].startswith("linear is the only method with a result")


def test_rankings_are_best_first_with_scores_of_objectives_and_audit() -> None:
    rows = ranking_rows(part_of(CLEAR), 2)
    assert [row[2] for row in rows] == ["leads", "behind"]
    assert rows[0][3:] == ["0.601", "0.601", "0.500"]


@pytest.mark.parametrize(("column", "objective", "more"), [(2, 0, 0), (2, 1, 1), (0, 0, None), (0, 1, 2)])
def test_more_of_an_objective_is_the_nearest_preference_that_weighs_it_more(
    column: int, objective: int, more: int | None
) -> None:
    assert more_of(np.array(POINTS, dtype=float), column, objective) == more


def test_another_pass_ratio_leader_is_named() -> None:
    """Thresholds of .55 in both: linear passes for equal weights alone, weight_grid never; then for all."""
    part = part_of(CLEAR)
    passing = {"linear": CLEAR["linear"], "weight_grid": [[0.56, 0.56]] * 3}
    study = study_of(passing)
    limited = tuple(replace(each, pass_threshold=0.55) for each in study.tasks["task"].objectives if not each.audit)
    audit = tuple(each for each in study.tasks["task"].objectives if each.audit)
    study = replace(study, tasks={"task": replace(study.tasks["task"], objectives=limited + audit)})
    _, said = answer_of(View(study, measure_all(study)).parts[0], 2)
    assert "By pass ratio," in said
    assert "weight_grid, 1.00" in said
    assert "By pass ratio" not in answer_of(part, 2)[1]


def test_raising_one_objective_is_told_in_plain_units_both_ways() -> None:
    """linear gains .4 kind for .2 short at one corner, and the same the other way: .05 of the other for .10."""
    part = part_of(CLEAR)
    found = corner_outcomes(part.comparison, part.comparison.method("linear"))
    assert found is not None
    # (.2 - .4 + .001) / (.8 - .4 + .001), over seeds .000, .001 and .002
    assert found.per_gain.values[0, 1] == pytest.approx(-0.199 / 0.401)
    said = " ".join(str(each) for each in data(part)["sentences"])  # type: ignore[attr-defined]
    assert "kind and short: +.10 kind costs .05 short [.05, .05] and +.10 short costs .05 kind" in said
    assert said.endswith("under linear.")


def test_plain_units_are_those_of_the_rewards_whatever_their_ranges() -> None:
    """Of a range of 5, a tenth is .5: what costs .05 of a range of 1 for .1 of one, costs .25 of the other for .5."""
    study = study_of(CLEAR)
    (info,) = study.tasks.values()
    wide = replace(info, objectives=tuple(replace(each, range=(0.0, 5.0)) for each in info.objectives))
    part = View(replace(study, tasks={"task": wide}), measure_all(study)).parts[0]
    said = " ".join(str(each) for each in data(part)["sentences"])  # type: ignore[attr-defined]
    assert "+.50 kind costs .25 short [.24, .25] and +.50 short costs .25 kind" in said


def test_a_range_without_ends_takes_those_of_the_scores() -> None:
    study = study_of(CLEAR)
    (info,) = study.tasks.values()
    endless = tuple(replace(each, range=(-np.inf, np.inf)) for each in info.objectives)
    part = View(replace(study, tasks={"task": replace(info, objectives=endless)}), measure_all(study)).parts[0]
    low, high = part.comparison.ends[0]
    assert (low, high) == pytest.approx((0.2, 0.802))  # the lowest and the highest score of kind
    shown = answer.data(part)
    json.dumps(shown["island"], allow_nan=False)  # else there is no page
    assert "NaN" not in json.dumps(shown["ends"])


def test_a_study_with_too_many_scores_says_that_its_differences_have_no_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = part_of(CLEAR)
    assert answer.data(part)["whole"]
    page = render_page(part.view.study, part.view.rows)
    monkeypatch.setattr(answer, "MAX_SEED_SCORES", 1)
    few = answer.data(part)
    assert not few["whole"]
    assert {len(seeds) for method in few["island"]["scores"] for seeds in method} == {1}  # type: ignore[index]
    assert "too many scores" in render_page(part.view.study, part.view.rows)
    assert "too many scores" not in page


def test_a_method_without_the_corners_has_no_outcomes() -> None:
    study = study_of(CLEAR)
    inner = replace(study.tasks["task"], preferences=np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]))
    part = View(replace(study, tasks={"task": inner}), []).parts[0]
    assert corner_outcomes(part.comparison, part.comparison.methods[0]) is None


def test_more_than_three_objectives_are_lines_within_their_ranges_the_centre_first() -> None:
    names = ("a", "b", "c", "d")
    points = [*np.eye(4).tolist(), [0.25] * 4]
    info = builders.task_info("task", points, objectives=names, audit=(), test_prompts=1, samples=1)
    info = replace(info, objectives=tuple(replace(each, range=(0.0, 2.0)) for each in info.objectives))
    answers = [builders.evaluation([[0.5, 1.0, 1.5, 2.0]], each, names) for each in info.preferences]
    chart = parallel(View(builders.study([builders.cell(evaluations=answers, task="task")], [info]), []).parts[0])
    first = chart.figure["data"][0]
    assert first["x"] == list(names)
    assert first["y"] == [0.25, 0.5, 0.75, 1.0]
    assert "a .25" in first["hovertemplate"]
