from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from builders import cell, study, task_info, truth
from paretune.core.protocols import MetricValue, Table
from paretune.metrics import measure_all
from paretune.metrics.adaptability import Adaptability, reached
from paretune.records.study import CellRecord, CellState, StudyRecords, TaskInfo

UNSEEN = [0.75, 0.25]
# base .2, then a gain of .2, .3, .4 and with a cell's budget of 2,000 completions .8
SCRATCH = {0: 0.2, 64: 0.4, 256: 0.5, 1024: 0.6, 2000: 1.0}


def task(judged_on: str = "utility") -> TaskInfo:
    return task_info(
        objectives=("first", "second"), audit=(), preferences=[[1, 0], UNSEEN], unseen=[False, True],
        judged_on=judged_on,  # type: ignore[arg-type]
    )  # fmt: skip


def table(values: Mapping[int, float | None], reason: str = "") -> dict[str, Any]:
    """Return a table of one preference: utility as given, J twice that less .1, so neither passes for the other."""
    curve = [
        {"asked": asked, "completions": float(asked), "utility": value, "J": None if value is None else 2 * value - 0.1}
        for asked, value in values.items()
    ]
    return {"preferences": [{"preference": UNSEEN, "curve": curve, "reason": reason}], "cost": {}}


def adapted(
    by_seed: Sequence[dict[str, Any] | None], *scratch: Mapping[int, float], judged_on: str = "utility"
) -> StudyRecords:
    """Return a study of soups with a table a seed, and of the base model's, one a seed, from which they start."""
    cells: list[CellRecord] = []
    for seed, own in enumerate(by_seed):
        measured = {} if own is None else {"adaptation": own}
        cells.append(replace(cell("rewarded_soups", seed, budget=2000), measured=measured))
        base = replace(cell("base", seed, budget=2000), family="reference")
        cells.append(replace(base, measured={"adaptation": table([*scratch, *[SCRATCH] * len(by_seed)][seed])}))
    return study(cells, [task(judged_on)])


def values(records: StudyRecords, method: str = "rewarded_soups") -> dict[str, MetricValue]:
    return {row.label: row.value for row in Adaptability().measure(records) if row.method == method}


def test_curves_start_at_what_answers_now_and_at_the_base_model() -> None:
    found = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})]))
    assert [found[f"utility after {n} completions"].value for n in ("0", "64", "256", "1,024")] == [0.5, 0.5, 0.7, 0.9]
    assert found["utility after 1,024 completions from scratch"].value == 0.6
    assert found["J after 256 completions"].value == pytest.approx(1.3)
    assert found["J after 1,024 completions from scratch"].value == pytest.approx(1.1)
    assert found["gain of the start, utility"].value == pytest.approx(0.3)
    assert found["gain of the start, J"].value == pytest.approx(0.6)
    assert found["utility after 0 completions"].reason == "one seed: no interval"


def test_the_area_is_the_mean_height_over_doublings() -> None:
    """Points at log2(1 + n / 64) = 0, 1, log2 5 and log2 17, from .5 to .5, to .7, to .9, trapezoids between them.

    (1 * .5 + (log2 5 - 1) * .6 + (log2 17 - log2 5) * .8) / log2 17.
    """
    found = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})]))
    five, seventeen = np.log2(5), np.log2(17)
    by_hand = (0.5 + (five - 1) * 0.6 + (seventeen - five) * 0.8) / seventeen
    assert found["area under the curve, utility"].value == pytest.approx(by_hand)
    assert found["area under the curve, J"].value == pytest.approx(2 * by_hand - 0.1)
    scratch = (0.3 + (five - 1) * 0.45 + (seventeen - five) * 0.55) / seventeen  # .2, .4, .5 and .6
    assert found["area under the curve from scratch, utility"].value == pytest.approx(scratch)
    assert found["area under the curve from scratch, J"].value == pytest.approx(2 * scratch - 0.1)


def test_each_seed_is_held_against_training_from_scratch_with_its_own() -> None:
    own, better = table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9}), {0: 0.4, 64: 0.5, 256: 0.6, 1024: 0.7, 2000: 0.6}
    found = values(adapted([own, own], SCRATCH, better))
    assert found["gain of the start, utility"].per_seed == {0: pytest.approx(0.3), 1: pytest.approx(0.1)}
    assert found["utility after 64 completions from scratch"].per_seed == {0: 0.4, 1: 0.5}
    # .96 of 1.0 is not reached; .4 + .95 x .2 = .59 is, at 1 + .45 (log2 5 - 1): 64 (2 x 2.5 ** .45 - 1) completions
    assert "the others do (seed 1: 129)" in found["completions to 95 % of the single-policy result, utility"].reason


def test_each_task_is_held_against_its_own_training_from_scratch() -> None:
    own = table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})
    first, other = adapted([own]), adapted([own], {**SCRATCH, 0: 0.4})
    cells = [*first.cells, *(replace(each, task="other") for each in other.cells)]
    rows = Adaptability().measure(study(cells, [task(), replace(task(), name="other")]))
    mine = [row for row in rows if row.label == "gain of the start, utility" and row.method == "rewarded_soups"]
    assert {row.task: row.value.value for row in mine} == {
        "counselling": pytest.approx(0.3), "other": pytest.approx(0.1),
    }  # fmt: skip


def test_the_target_is_ninety_five_hundredths_of_the_single_policys_gain() -> None:
    """Single-policy 1.0 with the cell's 2,000 completions, base .2: target .2 + .95 * .8 = .96.

    From .7 at log2 5 to .96 + .26 = 1.22 at log2 17 the target is half the way up, at log2 of the geometric mean of 5
    and 17: 64 (sqrt 85 - 1) completions.
    """
    found = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 1.22})]))
    assert found["completions to 95 % of the single-policy result, utility"].value == pytest.approx(64 * (85**0.5 - 1))
    # J: 2 u - .1 is on straight lines where u is
    assert found["completions to 95 % of the single-policy result, J"].value == pytest.approx(64 * (85**0.5 - 1))
    there = values(adapted([table({0: 0.97, 64: 0.5, 256: 0.7, 1024: 0.8})]))
    assert there["completions to 95 % of the single-policy result, utility"].value == 0


def test_a_seed_that_never_reaches_the_target_leaves_no_mean_of_those_that_do() -> None:
    there, never = (table({0: 0.5, 64: 0.97, 256: 1.0, 1024: end}) for end in (1.0, 0.0))
    never["preferences"][0]["curve"][1]["utility"] = never["preferences"][0]["curve"][2]["utility"] = 0.6
    value = values(adapted([there, never]))["completions to 95 % of the single-policy result, utility"]
    assert value.value is None
    assert value.per_seed == {}
    assert "1 of 2 seeds: seed 1 does not reach it within 1,024 completions" in value.reason
    assert "the others do (seed 0: 6" in value.reason  # between 0 and 64 completions, near the latter


def test_a_single_policy_without_gain_is_no_target() -> None:
    flat = dict.fromkeys(SCRATCH, 0.2)
    value = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})], flat))
    reason = value["completions to 95 % of the single-policy result, utility"].reason
    assert "has a single-policy result of 0.2, no gain over the base model's 0.2" in reason


def test_what_cannot_be_adapted_has_its_start_and_the_reason_for_the_rest() -> None:
    found = values(adapted([table({0: 0.5}, "a policy to adapt must be one sum")]))
    assert found["utility after 0 completions"].value == 0.5
    assert found["utility after 64 completions"].value is None
    assert "after 64 completions (a policy to adapt must be one sum)" in found["utility after 64 completions"].reason
    assert found["area under the curve, utility"].value is None
    assert found["completions to 95 % of the single-policy result, utility"].value is None
    assert found["utility after 64 completions from scratch"].value == 0.4


def test_a_policy_that_can_only_be_sampled_has_utility_and_no_j() -> None:
    own = table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})
    for point in own["preferences"][0]["curve"]:
        point["J"] = None
    found = values(adapted([own]))
    assert found["utility after 64 completions"].value == 0.5
    assert "has no J after 64 completions" in found["J after 64 completions"].reason


def test_a_policy_from_scratch_is_its_own_curve_and_gains_nothing_at_the_start() -> None:
    found = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})]), "base")
    assert (
        found["utility after 64 completions"].value == found["utility after 64 completions from scratch"].value == 0.4
    )
    assert found["gain of the start, utility"].value == 0


def test_values_are_means_over_preferences_with_an_interval_over_seeds() -> None:
    first, second = (table({0: start, 64: 0.5, 256: 0.7, 1024: 0.9}) for start in (0.5, 0.2))
    records = adapted([first, second])
    for each, other in zip(records.cells, (0.7, 0.2, 0.2, 0.2), strict=True):
        more = table({**SCRATCH, 0: other})["preferences"]
        each.measured["adaptation"]["preferences"].extend(more)
    value = values(records)["utility after 0 completions"]
    assert value.per_seed == {0: pytest.approx(0.6), 1: 0.2}
    # two values .4 apart: sd .4 / sqrt 2, over sqrt 2 seeds .2; Student's t with one degree of freedom is 12.706
    assert (value.low, value.high) == (0.0, 1.0)  # as far as rewards go; without them to .4 + 12.706 x .2
    wide = replace(task(), objectives=tuple(replace(each, range=(-np.inf, np.inf)) for each in task().objectives))
    value = values(replace(records, tasks={"counselling": wide}))["utility after 0 completions"]
    assert value.high == pytest.approx(0.4 + 12.706 * 0.2, abs=1e-3)


@pytest.mark.parametrize(
    ("state", "said"),
    [("failed", "failed (crash)"), ("pending", "has not finished"), ("done", "has no record of adaptation")],
)
def test_a_lost_seed_is_named(state: CellState, said: str) -> None:
    own = table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})
    records = adapted([own, own])
    lost = replace(records.cells[2], state=state, reason="crash", measured={})
    value = values(replace(records, cells=(*records.cells[:2], lost, records.cells[3])))["utility after 64 completions"]
    assert value.per_seed == {0: 0.5}
    assert value.reason.startswith(f"1 of 2 seeds: seed 1 {said}")


def test_regret_is_what_the_best_policy_has_more() -> None:
    """Best policy: rewards (.9, .5) on each of four prompts, w (.75, .25): utility .8, less .05 * 2 nats: J* = .7."""
    best = truth(np.zeros((4, 2)), [[[0.9, 0.5]] * 4], [[2.0] * 4], [UNSEEN], beta=0.05)
    records = adapted([table({0: 0.2, 64: 0.3, 256: 0.35, 1024: 0.375})])
    unknown = values(records)["regret to the optimum after 0 completions"]
    assert "has no known optimum" in unknown.reason
    found = values(replace(records, truths={("counselling", 0): best}))
    assert found["regret to the optimum after 0 completions"].value == pytest.approx(0.7 - 0.3)
    assert found["regret to the optimum after 1,024 completions"].value == pytest.approx(0.7 - 0.65)
    elsewhere = replace(best, preferences=np.asarray([[0.5, 0.5]]))
    none = values(replace(records, truths={("counselling", 0): elsewhere}))["regret to the optimum after 0 completions"]
    assert (none.value, "has no known optimum for a preference" in none.reason) == (None, True)


def test_without_training_from_scratch_with_the_whole_budget_there_is_no_target() -> None:
    short = {asked: value for asked, value in SCRATCH.items() if asked < 2000}
    found = values(adapted([table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})], short))
    assert found["completions to 95 % of the single-policy result, utility"].reason.endswith(
        "has no single-policy result: has no policy after 2,000 completions (that length was not trained)"
    )


def test_what_users_want_of_each_prompt_is_what_the_best_policy_is_worth() -> None:
    """Wants (1, 0) and (0, 1) of two prompts, rewards (.9, .1) and (.3, .7): .8, less .05 x 2 nats."""
    best = truth(np.zeros((2, 2)), [[[0.9, 0.1], [0.3, 0.7]]], [[2.0] * 2], [UNSEEN], beta=0.05)
    best = replace(best, prompt_preferences=np.asarray([[[1.0, 0.0], [0.0, 1.0]]]))
    records = replace(adapted([table({0: 0.35, 64: 0.35, 256: 0.35, 1024: 0.35})]), truths={("counselling", 0): best})
    assert values(records)["regret to the optimum after 0 completions"].value == pytest.approx(0.7 - 0.6)


def test_what_the_task_is_judged_on_comes_first() -> None:
    own = table({0: 0.5, 64: 0.5, 256: 0.7, 1024: 0.9})
    assert next(iter(values(adapted([own])))).startswith("utility")
    assert next(iter(values(adapted([own], judged_on="J")))).startswith("J")


def test_a_study_that_did_not_ask_for_it_says_what_to_write() -> None:
    records = adapted([None])
    records = replace(records, tables=(Table("references/a-0", "counselling", 0, {}, measurement="reference"),))
    row = next(row for row in measure_all(records, ["adaptability"]) if row.method == "rewarded_soups")
    assert row.value.value is None
    assert row.value.reason == (
        "0 of 1 seeds: seed 0 has no record of adaptation; adaptation is missing: name it under `measurements` in the "
        "study, and run it again"
    )


def test_a_curve_is_read_on_straight_lines_between_its_points() -> None:
    places, heights = np.asarray([0.0, 1.0, 2.0]), np.asarray([0.0, 1.0, 0.5])
    assert reached(places, heights, 0.0) == 0
    assert reached(places, heights, 1.0) == 64
    assert reached(places, heights, 0.5) == pytest.approx(64 * (2**0.5 - 1))
    assert reached(places, heights, 1.1) is None
