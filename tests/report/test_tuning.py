from __future__ import annotations

from dataclasses import replace

import pytest

import builders
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons
from paretune.report.completeness import lone_policies
from paretune.report.page import render_page
from paretune.report.sections.tuning import chosen_table, tried_table, tuning_sentence
from paretune.report.tables import to_csv


def test_a_study_without_tuning_says_nothing_of_it() -> None:
    study = builders.synthetic_study()
    assert tuning_sentence(study) == ""
    assert tried_table(study) is None
    assert "How settings were chosen" not in render_page(study, measure_all(study))


def test_the_report_says_what_was_tuned_what_was_chosen_and_what_it_cost() -> None:
    study = builders.synthetic_study(methods=[*builders.METHODS, builders.CEILING], exact=True)
    tuned = replace(
        study, tuning=tuple(builders.tuning((0.25, None, 0.5), method, chosen=2) for method in builders.METHODS)
    )
    text = tuning_sentence(tuned)
    assert "the same 3 choices of settings on 2 tuning instances (10000 and 10001)" in text
    assert "took 72,000 completions and 4.5 min of training, charged to nobody" in text  # 3 x 24,000 and 3 x 90 s
    assert text.endswith("A ceiling is not tuned: exact_gradient.")
    table = chosen_table(tuned.tuning)
    assert table.rows[0] == ("counselling", "linear", "learning_rate=0.003", 0.5, 0.25, 3, 24_000.0, 90.0)
    page = render_page(tuned, measure_all(tuned))
    assert page.index("How settings were chosen") > page.index('id="appendix"')
    assert "learning_rate=0.003" in page


def test_every_trial_is_in_a_table_of_its_own_with_the_reason_where_it_has_no_score() -> None:
    table = tried_table(replace(builders.synthetic_study(), tuning=(builders.tuning((None, 0.5)),)))
    assert table is not None
    lines = to_csv(table).splitlines()
    assert lines[0] == "task,method,settings,instance,measure,score,chosen,reason"
    assert lines[1:3] == [
        "counselling,linear,learning_rate=0.001,all,utility,,no,seed 10000: training did not stay finite",
        "counselling,linear,learning_rate=0.001,10000,utility,,no,seed 10000: training did not stay finite",
    ]
    assert lines[4] == "counselling,linear,learning_rate=0.002,all,utility,0.5,yes,"
    assert len(lines) == 1 + 2 * 3


def test_a_sweep_without_any_score_chose_nothing() -> None:
    (row,) = chosen_table([builders.tuning((None, None), chosen=None)]).rows
    assert row[2:5] == ("none could be scored", None, None)


@pytest.mark.parametrize("tuned", [False, True])
def test_the_advice_on_a_lone_policy_names_what_tuning_chose(tuned: bool) -> None:
    study = builders.study_of_experts(1)
    record = builders.tuning()
    points = tuple(replace(point, settings={"completions_each": 3500}) for point in record.points)
    study = replace(study, tuning=(replace(record, points=points),) if tuned else ())
    (note,) = lone_policies(study, comparisons(study))
    assert f"Each policy takes {'3,500' if tuned else '7,000'} (completions_each)" in note


def test_the_advice_on_a_method_that_never_divides_its_budget_is_as_it_was_planned() -> None:
    study = builders.study_of_experts(1)
    study = replace(study, resolved={**study.resolved, "undivided": ["linear"]})
    (note,) = lone_policies(study, comparisons(study))
    assert note.endswith("It is made so: no budget gives it another.")
