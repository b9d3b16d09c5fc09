from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from paretune.benchmark.measuring import wanted_tables
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan
from paretune.core.task import Enumeration
from paretune.records.outcomes import FRONT_DIVISIONS

pytestmark = pytest.mark.usefixtures("only_what_is_named")

Make = Callable[..., dict[str, Any]]


def cell(study: dict[str, Any], index: int = 0) -> Any:
    return plan(study).cells[index]


def keys(made: Plan) -> dict[str, str]:
    """Return the key of the first table of each measurement."""
    return {each.table.measurement: each.table.key for each in reversed(made.tables)}


@pytest.mark.parametrize(
    ("per_preference", "change", "same_training", "same_evaluation"),
    [
        (False, {}, True, True),
        (
            False,
            {"preferences": {"grid": 3, "unseen": 1}},
            True,
            False,
        ),  # experts per objective: preferences only judge
        (True, {"preferences": {"grid": 3, "unseen": 1}}, False, False),  # experts per preference: others are trained
        (True, {"preferences": {"grid": 2, "unseen": 2}}, True, False),  # no method is given unseen ones
        (False, {"evaluation": {"samples": 2}}, True, False),
        (False, {"budget": {"completions": 128}}, False, False),
        (False, {"name": "renamed", "workers": 1}, True, True),
        (False, {"seeds": [1]}, False, False),
    ],
)
def test_keys_change_with_what_they_depend_on_and_nothing_else(
    study: Make, per_preference: bool, change: dict[str, Any], same_training: bool, same_evaluation: bool
) -> None:
    settings = {"per_preference": per_preference}
    before, after = plan(study(settings)), plan(study(settings, **change))
    assert (before.cells[0].training_key == after.cells[0].training_key) is same_training
    assert (keys(before)["evaluation"] == keys(after)["evaluation"]) is same_evaluation


def test_an_edited_reward_of_the_audit_changes_the_evaluation_key_only(
    study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan(study())
    import fake_study

    original = fake_study.task

    def audited() -> object:
        task = original()
        return dataclasses.replace(task, audit=(dataclasses.replace(task.objectives[0], name="extra"),))

    monkeypatch.setattr(fake_study, "task", audited)
    after = plan(study())
    assert before.cells[0].training_key == after.cells[0].training_key
    assert keys(before)["evaluation"] != keys(after)["evaluation"]
    assert keys(before)["timing"] == keys(after)["timing"]


def test_a_timing_depends_on_the_preferences_that_it_mixes_and_on_no_budget(study: Make) -> None:
    before = keys(plan(study()))["timing"]
    assert before != keys(plan(study(preferences={"grid": 2, "unseen": 2})))["timing"]
    assert before == keys(plan(study(budget={"completions": 128})))["timing"]


def test_a_cells_folder_can_be_read_by_people(study: Make) -> None:
    first = cell(study())
    assert first.name == f"fake-fake-64-s0-{first.training_key[:8]}"


def truth_of(made: Plan, **changes: Any) -> str:
    """Return the key of what can be reached on the plan's first task instance, were its completions listed."""
    listed = dataclasses.replace(made.cells[0].task, enumeration=Enumeration((0, 1), 2), **changes)
    tables = wanted_tables(made.study, [dataclasses.replace(made.cells[0], task=listed)])
    return next(each.key for each in tables if each.measurement == "truth")


def test_a_denser_front_has_what_can_be_reached_computed_again(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(study())
    before = truth_of(made), keys(made)
    monkeypatch.setitem(FRONT_DIVISIONS, 2, 7)
    assert truth_of(made) != before[0]
    assert keys(plan(study())) == before[1]


@pytest.mark.parametrize("change", [{"beta": 0.123}, {"model_digest": "other"}, {"template": "{prompt} "}])
def test_what_can_be_reached_depends_on_beta_and_on_what_the_base_model_reads(
    study: Make, change: dict[str, Any]
) -> None:
    made = plan(study())
    assert truth_of(made, **change) != truth_of(made)
