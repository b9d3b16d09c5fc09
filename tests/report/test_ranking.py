from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import builders
from paretune.core.protocols import REFERENCE
from paretune.core.task import JudgedOn
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report import summary_table
from paretune.report.comparison import Comparison, comparisons
from paretune.report.findings import findings
from paretune.report.page import render_page
from paretune.report.palette import BROWN, Look
from paretune.report.ranking import interval_rule, main_table, ranking, ranks
from paretune.report.sections import training
from paretune.report.view import View
from paretune.report.wording import MISSING
from paretune.statistics.ties import tie_groups

NAMES = ("kind", "short")
METHODS = (builders.CEILING, *builders.METHODS)  # the ceiling first, where a study may well name it


@pytest.fixture(scope="module")
def exact() -> StudyRecords:
    return builders.synthetic_study(methods=METHODS, exact=True)


@pytest.fixture(scope="module")
def part(exact: StudyRecords) -> Comparison:
    (found,) = comparisons(exact)
    return found


@pytest.mark.parametrize("draw", range(20))
def test_ranks_are_those_of_the_tie_groups_where_all_have_all_seeds(draw: int) -> None:
    values = np.random.default_rng(draw).normal(0, 1, (5, 4)) + 2 * np.arange(5)[:, None]
    found = ranks({name: dict(enumerate(row)) for name, row in zip("abcde", values, strict=True)})
    assert tuple(found[name] for name in "abcde") == tie_groups(values).ranks


def test_a_seed_lost_by_one_method_takes_none_from_the_others() -> None:
    # a and b differ by .2 in three seeds, c has one of them only: with that one alone nothing could be told apart
    a, b = {0: 0.90, 1: 0.91, 2: 0.92}, {0: 0.70, 1: 0.71, 2: 0.72}
    assert ranks({"a": a, "b": b, "c": {0: 0.5}, "d": {}}) == {"a": 1, "c": 1, "b": 3}


def test_groups_are_anchored_at_their_leader() -> None:
    # b is so noisy that it differs from neither neighbour, yet a is .1 above c in every seed: no tie of all three
    b = 0.87 + np.array([0.0, 0.08, -0.08, 0.04])
    values = {"a": np.full(4, 0.9), "b": b, "c": np.full(4, 0.8)}
    found = ranks({name: dict(enumerate(each)) for name, each in values.items()})
    assert found == {"a": 1, "b": 1, "c": 3}
    assert ranks({name: dict(enumerate(values[name])) for name in "bc"}) == {"b": 1, "c": 1}


def test_a_ceiling_is_shown_last_and_never_ranked(exact: StudyRecords, part: Comparison) -> None:
    rows = measure_all(exact)
    assert part.methods[-1].name == builders.CEILING
    assert builders.CEILING not in [method.name for method in part.ranked]
    *ranked, last = ranking(part, rows)
    assert last == (builders.CEILING, "ceiling")
    assert all(rank.isdigit() for _, rank in ranked)
    assert main_table(part, rows).rows[-1][-2] == "not charged"


def test_a_ceiling_changes_no_rank_no_sentence_and_no_colour() -> None:
    last = builders.synthetic_study(methods=(*builders.METHODS, builders.CEILING), exact=True)
    without = builders.synthetic_study(methods=tuple(builders.METHODS), exact=True)
    told = []
    for study in (last, without):
        (one,) = comparisons(study)
        rows = measure_all(study)
        told.append(
            (
                [each for each in ranking(one, rows) if each[1] != "ceiling"],
                [each for each in findings(one, rows) if "possible gain" not in each.question],
                {name: look for name, look in View(study, rows).looks.items() if name in builders.METHODS},
            )
        )
    assert told[0] == told[1]


def test_a_ceiling_has_a_colour_and_a_mark_of_its_own(exact: StudyRecords, part: Comparison) -> None:
    assert View(exact, []).looks[builders.CEILING] == Look(BROWN, "triangle-up", "longdash")
    page = render_page(exact, measure_all(exact))
    assert re.search(r"exact_gradient <span class=\"tag\">ceiling</span>", page)
    assert "3 methods and a ceiling compared" in page


def test_the_main_table_has_captured_shares_only_where_the_optimum_is_known(
    exact: StudyRecords, part: Comparison
) -> None:
    assert "captured share" in main_table(part, measure_all(exact)).columns
    ordinary = builders.synthetic_study()
    (other,) = comparisons(ordinary)
    assert "captured share" not in main_table(other, measure_all(ordinary)).columns


def test_a_task_judged_on_j_is_ranked_by_what_kl_costs_too() -> None:
    """A gains .1 more than B, at 2 nats more, which cost .2: utility and J disagree on who is first."""
    judges: tuple[tuple[JudgedOn, str], ...] = (("utility", "linear"), ("J", "weight_grid"))
    for judged_on, first in judges:
        info = replace(
            builders.task_info("task", [[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1),
            beta=0.1, judged_on=judged_on,
        )  # fmt: skip
        cells = [
            builders.cell(
                method, seed,
                [builders.evaluation([[value + seed / 1000] * 2], each, NAMES, kl=kl) for each in info.preferences],
                [builders.stage(f"{method} {seed}", 100)],
                task="task",
            )
            for method, value, kl in (("linear", 0.7, 3.0), ("weight_grid", 0.6, 1.0))
            for seed in range(3)
        ]  # fmt: skip
        references = {("task", seed): builders.evaluation([[0.5] * 2], None, NAMES) for seed in range(3)}
        study = builders.study(cells, [info], references)
        (one,), rows = comparisons(study), measure_all(study, ["performance", "training_efficiency"])
        (other,) = {"linear", "weight_grid"} - {first}
        assert ranking(one, rows) == [(first, "1"), (other, "2")]
        said = {each.question: each.answer for each in findings(one, rows)}
        score = "achieved utility" if judged_on == "utility" else "achieved J"
        assert said["Who leads on average?"].startswith(f"{first} has the highest {score}")
        assert said["For which preferences?"].startswith(f"{first} leads alone for 2 of 2")
        beside = ("achieved utility", "rank by utility") if judged_on == "J" else ()
        assert main_table(one, rows).columns[2:6][: 2 + len(beside)] == (score, *beside, "KL, nats")
        heads = summary_table(study, rows).splitlines()[1]
        assert f"rank by {judged_on}" in heads
        assert ("achieved J" in heads) == (judged_on == "J")
        (drawn, _) = training.data(View(study, rows).parts[0])["charts"]
        assert drawn.figure["layout"]["yaxis"]["title"]["text"].startswith(score)
        scores = [trace["y"][0] for trace in drawn.figure["data"]]
        assert scores == pytest.approx([0.701, 0.601] if judged_on == "utility" else [0.401, 0.501], abs=1e-3)
    value = next(row.value for row in rows if (row.method, row.label) == ("weight_grid", "J: all"))
    assert value.value == pytest.approx(0.601 - 0.1)


def test_on_a_task_judged_on_j_the_share_ranks_where_the_optimum_is_known() -> None:
    study = builders.synthetic_study(task=builders.task_info(judged_on="J"), exact=True)
    (one,) = comparisons(study)
    rows = measure_all(study)
    assert main_table(one, rows).columns[2:5] == ("captured share", "achieved utility", "rank by utility")
    assert "rank by share" in summary_table(study, rows)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("judged_on", ["J", "utility"])
def test_the_base_models_row_has_no_rank_whatever_a_task_is_judged_on(judged_on: JudgedOn, exact: bool) -> None:
    study = builders.synthetic_study(task=builders.task_info(judged_on=judged_on), exact=exact)
    untrained = [
        replace(each, method="base", family=REFERENCE) if each.method == "weight_grid" else each for each in study.cells
    ]
    study = replace(study, cells=tuple(untrained))
    (one,) = comparisons(study)
    rows = measure_all(study)
    assert ("base", REFERENCE) in ranking(one, rows)
    (line,) = (line for line in main_table(one, rows).rows if "base" in line)
    assert REFERENCE in line
    assert "base" in summary_table(study, rows)


def test_methods_without_a_utility_have_no_rank() -> None:
    study = builders.synthetic_study(failed={("linear", seed): "crash" for seed in range(3)})
    (one,) = comparisons(study)
    assert ranking(one, measure_all(study))[-1] == ("linear", MISSING)


def test_the_terminal_names_ranks_and_the_ceiling(exact: StudyRecords) -> None:
    _, heads, *lines = summary_table(exact).splitlines()
    assert heads.split()[:2] == ["method", "rank"]
    assert lines[-1].split()[:2] == [builders.CEILING, "ceiling"]


def test_the_rule_of_intervals_is_named() -> None:
    few = [row.value for row in measure_all(builders.synthetic_study(), ["performance"])]
    assert interval_rule(few).startswith("All intervals are Student-t")
    many = [row.value for row in measure_all(builders.synthetic_study(seeds=range(20)), ["performance"])]
    assert "nested bootstrap, which draws seeds anew" in interval_rule(many)
