from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders import cell, study, task_info
from paretune.core.protocols import MetricValue, Table
from paretune.core.task import JudgedOn
from paretune.metrics import measure_all
from paretune.metrics.scalability import Scalability, grade
from paretune.records.study import StudyRecords

BUDGET = 1000
UNSEEN = (0.75, 0.25)


def user(value: float | None, unseen: Sequence[float] = UNSEEN) -> dict[str, Any]:
    """J is twice the utility less .1, so that a figure of one cannot be taken for one of the other."""
    return {"preference": list(unseen), "utility": value, "J": None if value is None else 2 * value - 0.1}


def objective(
    after: float = 0.6, completions: float = 500, kept: int = 2, new: float = 0.8, reason: str = ""
) -> dict[str, Any]:
    """Return an objective that was added: three old users had .4 of the base model and .6 of the method."""
    if reason:
        return {"reason": reason}
    old = [{"base": user(0.4), "before": user(0.6), "after": user(after)} for _ in range(3)]
    return {
        "how": "modular", "completions": completions, "seconds": 7.0, "experts": 2, "kept": kept, "trained": 1,
        "parameters": 640, "old": old, "new": {"base": user(0.3), "after": user(new)}, "reason": "",
    }  # fmt: skip


def preference(
    before: float = 0.7, after: float | None = None, trained: int = 0, completions: float = 0
) -> dict[str, Any]:
    return {
        "trained": trained, "completions": completions, "seconds": 0.0, "parameters": 0, "before": user(before),
        "after": user(before if after is None else after), "reason": "",
    }  # fmt: skip


def records(
    added: Mapping[str, Any],
    wanted: Mapping[str, Any] | None = None,
    scratch: bool = True,
    seeds: int = 1,
    adapted_to: Sequence[Sequence[float]] = (UNSEEN,),
    single: float = 1.0,
    judged_on: JudgedOn = "utility",
) -> StudyRecords:
    """Return a study of soups: the base model has .2 for the new preference, a policy of one's own 1.0."""
    cells = []
    for seed in range(seeds):
        table = {"objective": added, "preference": wanted or preference(), "cost": {}}
        cells.append(replace(cell("rewarded_soups", seed, budget=BUDGET), measured={"scaling": table}))
        curve = [{"asked": asked, "completions": asked, **user(value)} for asked, value in ((0, 0.2), (BUDGET, single))]
        every = [{"preference": list(each), "curve": curve, "reason": ""} for each in adapted_to]
        found = {"adaptation": {"preferences": every}}
        cells.append(replace(cell("base", seed, budget=BUDGET), family="reference", measured=found if scratch else {}))
    return study(cells, [task_info(objectives=("first", "second"), audit=(), judged_on=judged_on)])


def values(made: StudyRecords) -> dict[str, MetricValue]:
    return {row.label: row.value for row in Scalability().measure(made) if row.method == "rewarded_soups"}


def test_figures_of_a_new_objective_are_what_was_measured() -> None:
    """Old users: .4 of the base, .6 before, .5 after: half of a gain of .2 is lost. New: .8 above .3."""
    found = {
        label.removeprefix("new objective: "): value.value for label, value in values(records(objective(0.5))).items()
    }
    assert found["experts trained"] == 1
    assert found["experts kept"] == 2
    assert (found["completions"], found["share of the budget"]) == (500, 0.5)
    assert (found["seconds"], found["parameters trained"]) == (7, 640)
    assert found["change on the old objectives, utility"] == pytest.approx(-0.1)
    assert found["change on the old objectives, J"] == pytest.approx(-0.2)
    assert found["gain on the new objective, J"] == pytest.approx(1.0)
    assert found["share of the old gain lost"] == pytest.approx(0.5)
    assert found["gain on the new objective, utility"] == pytest.approx(0.5)


def test_figures_of_a_new_preference_are_held_against_a_policy_of_ones_own() -> None:
    """Base .2, a policy of its own 1.0; .7 before and .8 after one policy more: losses .3 and .2, a quarter of .8."""
    made = values(records(objective(), preference(0.7, 0.8, trained=1, completions=250)))
    found = {label.removeprefix("new preference: "): value.value for label, value in made.items()}
    assert (found["experts trained"], found["completions"], found["share of the budget"]) == (1, 250, 0.25)
    assert found["loss without training, utility"] == pytest.approx(0.3)
    assert found["loss, utility"] == pytest.approx(0.2)
    assert found["loss without training, J"] == pytest.approx(0.6)
    assert found["loss, J"] == pytest.approx(0.4)
    assert found["share of the single-policy gain lost"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (objective(), 4),  # one expert more, nothing lost
        (objective(0.598), 4),  # .01 of the old gain
        (objective(0.57), 3),  # .15 of it
        (objective(0.5), 2),  # half of it
        (objective(0.6, completions=1000, kept=0), 2),  # all again, and nothing lost
        (objective(0.6, completions=500, kept=1), 3),  # some again, for half the budget
        (objective(0.3, completions=1000, kept=0), 0),
        (objective(new=0.3), 0),  # nothing gained on it
    ],
)
def test_the_grade_of_an_objective_follows_the_rule(made: dict[str, Any], expected: int) -> None:
    assert values(records(made))["new objective: grade"].value == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (preference(1.0), 4),  # answered as it is, as well as by a policy of its own
        (preference(1.2), 4),  # better than that
        (preference(0.9), 3),  # .125 of the gain of .8
        (preference(0.7), 2),
        (preference(0.5, 1.0, trained=1, completions=250), 3),
        (preference(0.5, 1.0, trained=1, completions=1000), 2),
        (preference(0.5, trained=1, completions=1000), 0),
    ],
)
def test_the_grade_of_a_preference_follows_the_rule(made: dict[str, Any], expected: int) -> None:
    assert values(records(objective(), made))["new preference: grade"].value == expected


def test_grades_and_shares_are_of_what_the_task_is_judged_on() -> None:
    """Half of the old gain in utility is lost and none in J; of the preference's, all in utility and a quarter in J."""
    added, wanted = objective(0.5), preference(0.2)
    for each in added["old"]:
        each["after"]["J"] = each["before"]["J"]
    wanted["after"]["J"] = 1.0  # the base model has .3, the single policy 1.9: .9 of 1.6 are lost
    for noun, shares, grades in (("utility", (0.5, 1.0), (2, 2)), ("J", (0.0, 0.9 / 1.6), (4, 2))):
        found = values(records(added, wanted, judged_on=noun))  # type: ignore[arg-type]
        assert found["new objective: share of the old gain lost"].value == pytest.approx(shares[0])
        assert found["new preference: share of the single-policy gain lost"].value == pytest.approx(shares[1])
        assert (found["new objective: grade"].value, found["new preference: grade"].value) == grades
    added["new"]["after"]["J"] = added["new"]["base"]["J"]  # nothing gained in J alone
    assert values(records(added, judged_on="J"))["new objective: grade"].value == 0
    assert values(records(added))["new objective: grade"].value == 2


def test_the_single_policy_result_is_that_of_the_preference_that_was_scaled_to() -> None:
    found = values(records(objective(), adapted_to=((0.1, 0.9), UNSEEN)))
    assert found["new preference: loss, utility"].value == pytest.approx(0.3)
    found = values(records(objective(), adapted_to=((0.1, 0.9),)))
    for label in ("grade", "loss, utility", "share of the single-policy gain lost"):
        assert "has no single-policy result for this preference" in found[f"new preference: {label}"].reason


def test_no_interval_of_a_cost_goes_below_nothing() -> None:
    made = records(objective(), seeds=2)
    more = {**made.cells[2].measured["scaling"], "objective": objective(completions=10)}
    cells = (*made.cells[:2], replace(made.cells[2], measured={"scaling": more}), made.cells[3])
    value = values(replace(made, cells=cells))["new objective: completions"]
    assert (value.value, value.low) == (255, 0)


def test_thresholds_belong_to_the_better_grade() -> None:
    assert [grade(True, share, 1.0) for share in (0.5, 0.51)] == [1, 0]
    assert [grade(False, 0.0, lost) for lost in (0.02, 0.021, 0.2, 0.21)] == [4, 3, 3, 2]


def test_an_interval_of_grades_stays_within_them() -> None:
    made = records(objective(), seeds=2)
    worse = {**made.cells[2].measured["scaling"], "objective": objective(0.3)}
    cells = (*made.cells[:2], replace(made.cells[2], measured={"scaling": worse}), made.cells[3])
    value = values(replace(made, cells=cells))["new objective: grade"]
    assert value.per_seed == {0: 4, 1: 2}
    assert (value.low, value.value, value.high) == (0, 3, 4)


def test_without_an_objective_to_add_the_figures_are_missing_with_the_reason() -> None:
    found = values(records(objective(reason="no audit objective")))
    for label, value in found.items():
        if label.startswith("new objective"):
            assert value.value is None
            assert "has no new objective (no audit objective)" in value.reason
    assert found["new preference: completions"].value == 0


def test_only_rows_that_lack_a_measurement_ask_for_it() -> None:
    """`measurements: [scaling]`, and a task without an audit objective: hours of adaptation would add none."""
    made = records(objective(reason="no audit objective"), scratch=False)
    made = replace(made, tables=(Table("runs/a/scaling", "counselling", 0, {}, (), measurement="scaling"),))
    found = {row.label: row.value for row in measure_all(made, ["scalability"]) if row.method == "rewarded_soups"}
    assert found["new objective: grade"].reason == "0 of 1 seeds: seed 0 has no new objective (no audit objective)"
    assert found["new preference: grade"].reason.endswith(
        "; adaptation is missing: name it under `measurements` in the study, and run it again"
    )


def test_without_a_policy_of_ones_own_there_is_no_loss_of_a_preference() -> None:
    found = values(records(objective(), scratch=False))
    assert found["new preference: completions"].value == 0
    for label in ("grade", "loss, J", "loss without training, utility", "share of the single-policy gain lost"):
        assert found[f"new preference: {label}"].value is None
        assert "has no record of adaptation of the row 'base'" in found[f"new preference: {label}"].reason


def test_what_cannot_be_scored_has_no_share_and_no_grade() -> None:
    added = objective()
    added["old"][1]["after"] = user(None)
    found = values(records(added))
    for label in ("grade", "share of the old gain lost", "change on the old objectives, utility"):
        assert "has no utility for a preference" in found[f"new objective: {label}"].reason
    assert found["new objective: gain on the new objective, utility"].value == pytest.approx(0.5)


def test_what_the_new_users_have_may_be_unknown_too() -> None:
    added, wanted = objective(), preference()
    added["new"]["after"]["J"] = wanted["after"]["J"] = None
    found = values(records(added, wanted))
    assert "has no J for the new objective" in found["new objective: gain on the new objective, J"].reason
    assert "has no J for the new preference" in found["new preference: loss, J"].reason
    assert found["new preference: loss without training, J"].value == pytest.approx(0.6)


def test_a_single_policy_that_gains_nothing_is_nothing_to_be_held_against() -> None:
    found = values(records(objective(), single=0.2))
    for label in ("grade", "share of the single-policy gain lost"):
        assert "has a single-policy result without gain over the base model" in found[f"new preference: {label}"].reason
    assert found["new preference: loss, utility"].value == pytest.approx(-0.5)


def test_a_method_without_a_gain_has_none_to_lose() -> None:
    added = objective()
    for each in added["old"]:
        each["before"] = user(0.4)
    value = values(records(added))["new objective: share of the old gain lost"]
    assert "has no gain over the base model to lose" in value.reason


def test_seeds_that_the_measurement_leaves_out_are_not_named_as_lost_and_a_damaged_one_is() -> None:
    made = records(objective(), seeds=3)
    soups = [each for each in made.cells if each.method == "rewarded_soups"]
    tables = tuple(
        Table(f"runs/{each.cell}/scaling", "counselling", each.seed, {}, (each.cell,), measurement="scaling")
        for each in soups[:2]
    )
    cells = tuple(replace(each, measured={}) if each in soups[1:] else each for each in made.cells)
    value = values(replace(made, cells=cells, tables=tables))["new objective: completions"]
    assert value.per_seed == {0: 500}
    assert value.reason.startswith("1 of 2 seeds: seed 1 has no record of scaling")
