from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from paretune.benchmark.keys import reference_key
from paretune.benchmark.plan import plan
from paretune.core.task import Enumeration
from paretune.records.outcomes import FRONT_DIVISIONS

Make = Callable[..., dict[str, Any]]


def cell(study: dict[str, Any], index: int = 0) -> Any:
    return plan(study).cells[index]


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
    before, after = cell(study(settings)), cell(study(settings, **change))
    assert (before.training_key == after.training_key) is same_training
    assert (before.evaluation_key == after.evaluation_key) is same_evaluation


def test_an_edited_reward_of_the_audit_changes_the_evaluation_key_only(
    study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cell(study())
    import fake_study

    original = fake_study.task

    def audited() -> object:
        task = original()
        return dataclasses.replace(task, audit=(dataclasses.replace(task.objectives[0], name="extra"),))

    monkeypatch.setattr(fake_study, "task", audited)
    after = cell(study())
    assert before.training_key == after.training_key
    assert before.evaluation_key != after.evaluation_key


def test_a_cells_folder_can_be_read_by_people(study: Make) -> None:
    first = cell(study())
    assert first.name == f"fake-fake-64-s0-{first.training_key[:8]}"


def test_a_denser_front_has_what_can_be_reached_computed_again(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = cell(study())
    listed = dataclasses.replace(planned.task, enumeration=Enumeration((0, 1), 2))
    keys = [reference_key(planned.task, {}, planned.preferences), reference_key(listed, {}, planned.preferences)]
    monkeypatch.setitem(FRONT_DIVISIONS, len(listed.objectives), 7)
    assert keys[0] == reference_key(planned.task, {}, planned.preferences)
    assert keys[1] != reference_key(listed, {}, planned.preferences)


@pytest.mark.parametrize("change", [{"beta": 0.123}, {"model_digest": "other"}, {"template": "{prompt} "}])
def test_what_can_be_reached_depends_on_beta_and_on_what_the_base_model_reads(
    study: Make, change: dict[str, Any]
) -> None:
    planned = cell(study())
    listed = dataclasses.replace(planned.task, enumeration=Enumeration((0, 1), 2))
    other = dataclasses.replace(listed, **change)
    assert reference_key(other, {}, planned.preferences) != reference_key(listed, {}, planned.preferences)
