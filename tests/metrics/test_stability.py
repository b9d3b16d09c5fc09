from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from builders import CEILING, METHODS, cell, evaluation, outcomes, stage, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.captured_share import CapturedShare
from paretune.metrics.performance import Performance
from paretune.metrics.seeds import BySeed
from paretune.metrics.stability import Stability, rank_stability
from paretune.records.study import CellRecord

TWO = ("reflection", "empathy")
INFO = task_info(preferences=[[1, 0]], unseen=[False], objectives=TWO, audit=())
SD, VARIATION, RANGE = (
    f"quality: {each} (lower is better)" for each in ("sd", "coefficient of variation", "best minus worst")
)
WORST, RANKS = "quality: worst seed", "rank stability"
SPENT = {
    unit: [f"cost: {unit}, {each} (lower is better)" for each in ("coefficient of variation", "worst seed")]
    for unit in ("seconds", "completions")
}


def seeds(*utilities: float, method: str = "linear", seconds: Sequence[float] = ()) -> list[CellRecord]:
    """One cell a seed, with its utility, and what its one stage took."""
    return [
        cell(
            method,
            seed,
            [evaluation([[utility, 0.0]], [1, 0], TWO)],
            [stage(f"{method} {seed}", seconds=seconds[seed])] if seconds else [],
        )
        for seed, utility in enumerate(utilities)
    ]


def measured(cells: Sequence[CellRecord], method: str = "linear", info: object = INFO) -> dict[str, MetricValue]:
    rows = Stability().measure(study(cells, [info]))  # type: ignore[list-item]
    return {row.label: row.value for row in rows if row.method == method}


def test_spread_of_quality_with_every_seed_beside_it() -> None:
    # mean .5; deviations .1, -.1, 0: sd .1, a fifth of the mean
    rows = measured(seeds(0.6, 0.4, 0.5))
    assert rows[SD].value == pytest.approx(0.1)
    assert rows[SD].per_seed == {0: pytest.approx(0.1), 1: pytest.approx(-0.1), 2: pytest.approx(0.0, abs=1e-12)}
    assert rows[SD].high == pytest.approx(0.1 * np.sqrt(2 / 0.050636), rel=1e-4)
    assert rows[SD].reason == "chi-square interval over 3 values; achieved utility"
    assert rows[VARIATION].value == pytest.approx(0.2)
    assert rows[VARIATION].per_seed[1] == pytest.approx(-0.2)
    assert rows[WORST].value == pytest.approx(0.4)
    assert rows[WORST].per_seed == {0: 0.6, 1: 0.4, 2: 0.5}
    assert rows[WORST].reason == "seed 1 of 3 seeds; achieved utility"
    assert rows[RANGE].value == pytest.approx(0.2)
    assert rows[RANGE].per_seed == {0: pytest.approx(0.2), 1: 0.0, 2: pytest.approx(0.1)}


def test_spread_of_cost() -> None:
    rows = measured(seeds(0.5, 0.5, 0.5, seconds=(90.0, 100.0, 110.0)))
    variation, worst = (rows[label] for label in SPENT["seconds"])
    assert variation.value == pytest.approx(0.1)
    assert (worst.value, worst.reason) == (110.0, "seed 2 of 3 seeds; seconds")
    assert rows[SPENT["completions"][0]].value == 0.0  # 1500 each
    assert rows[SPENT["completions"][1]].value == 1500.0
    free = measured(seeds(0.5, 0.5, 0.5))  # nothing trained: no mean that a share could be of
    assert free[SPENT["seconds"][0]].value is None
    assert free[SPENT["seconds"][0]].reason == "the mean, 0, cannot be told from 0; seconds"


def test_a_stage_that_a_cell_uses_twice_is_paid_once() -> None:
    cells = seeds(0.5, 0.5, 0.5, seconds=(90.0, 100.0, 110.0))
    twice = [replace(each, stages=each.stages * 2) for each in cells]
    assert measured(twice)[SPENT["seconds"][1]].value == 110.0


def test_a_share_of_a_mean_near_zero_has_no_meaning() -> None:
    rows = measured(seeds(0.1, -0.1, 0.06))
    assert rows[VARIATION].value is None
    assert rows[VARIATION].reason == "the mean, 0.02, cannot be told from 0; achieved utility"
    assert rows[SD].value is not None


def test_two_seeds_are_too_few_and_a_lost_seed_is_named() -> None:
    lost = cell(seed=3, state="failed", reason="crash")
    rows = measured([*seeds(0.6, 0.4), lost])
    for label, value in rows.items():
        assert value.value is None, label
        assert value.reason.startswith("2 of 3 seeds: seed 3 failed (crash); needs 3 seeds or more"), label
    kept = measured([*seeds(0.6, 0.4, 0.5), lost])
    assert kept[WORST].reason == "3 of 4 seeds: seed 3 failed (crash); seed 1 of 3 seeds; achieved utility"
    assert kept[SD].value == pytest.approx(0.1)


def test_quality_is_what_the_task_is_judged_on() -> None:
    for info, metric, label, noun in (
        (task_info(), Performance(), "", "achieved utility"),
        (task_info(judged_on="J"), Performance(), "J: all", "achieved J"),
    ):
        records = synthetic_study(task=info)
        assert_worst(records, metric.measure(records), label, noun)
    records = synthetic_study(task=task_info(judged_on="J"), exact=True)
    assert_worst(records, CapturedShare().measure(records), "", "captured share")


def assert_worst(records, rows, label, noun):  # type: ignore[no-untyped-def]
    mean = {row.method: row.value for row in rows if row.label == label}
    for row in Stability().measure(records):
        if row.label == WORST:
            assert row.value.per_seed == mean[row.method].per_seed
            assert row.value.reason.endswith(noun)


def test_where_the_optimum_is_lost_there_is_no_captured_share_in_its_place() -> None:
    info = replace(INFO, listed=True, judged_on="J")
    scored = outcomes([[[[0.5, 0.0]]]], [[[0.0]]], [[1.0, 0.0]], scales=(1.0,))
    known = truth([[0.2, 0.2]], [[[0.8, 0.0]]], [[0.0]], [[1.0, 0.0]])
    cells = [cell(seed=seed, outcomes=scored) for seed in range(4)]
    rows = Stability().measure(study(cells, [info], truths={("counselling", seed): known for seed in range(3)}))
    worst = next(row.value for row in rows if row.label == WORST)
    assert worst.per_seed == {seed: pytest.approx(0.5) for seed in range(3)}  # .3 of .6
    assert worst.reason.startswith("3 of 4 seeds: seed 3 has no known optimum")


def test_methods_in_one_order_on_every_seed_are_stable() -> None:
    cells = [*seeds(0.6, 0.7, 0.8), *seeds(0.5, 0.6, 0.7, method="weight_grid")]
    value = measured(cells)[RANKS]
    assert value.value == 1.0
    assert value.reason == (
        "no interval: its pairs of seeds overlap; rank 1 (seeds 0, 1, 2); compared with 1 of 1 other methods; "
        "Kendall's tau over all: 1.00"
    )


def test_a_method_that_changes_places_costs_those_it_passes() -> None:
    # linear leads on every seed; the other two change places on seed 2: their pair agrees on one pair of seeds of three
    # and is reversed on two: -1/3. With linear each agrees on all: (1 - 1/3) / 2 = 1/3
    cells = [
        *seeds(0.9, 0.9, 0.9),
        *seeds(0.5, 0.5, 0.3, method="weight_grid"),
        *seeds(0.4, 0.4, 0.6, method="rewarded_soups"),
    ]
    assert measured(cells)[RANKS].value == 1.0
    for method in ("weight_grid", "rewarded_soups"):
        value = measured(cells, method)[RANKS]
        assert value.value == pytest.approx(1 / 3)
        assert value.per_seed == {0: pytest.approx(0.5), 1: pytest.approx(0.5), 2: pytest.approx(0.0)}
        assert value.reason.endswith("Kendall's tau over all: 0.56")  # (1 + 1 - 1/3) / 3
    assert "rank 2 (seeds 0, 1), 3 (seed 2)" in measured(cells, "weight_grid")[RANKS].reason


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(3, 5))
def test_its_mean_over_methods_is_kendalls_tau_over_pairs_of_seeds(seed: int, methods: int, count: int) -> None:
    drawn = np.random.default_rng(seed).normal(size=(methods, count))
    rivals = {f"m{row}": dict(enumerate(map(float, values))) for row, values in enumerate(drawn)}
    found = [rank_stability(name, BySeed(values, [], ""), rivals).value for name, values in rivals.items()]
    taus = [stats.kendalltau(drawn[:, i], drawn[:, j]).statistic for i in range(count) for j in range(i)]
    assert np.mean([each for each in found if each is not None]) == pytest.approx(np.mean(taus))


def test_methods_of_another_task_are_no_rivals() -> None:
    """On the other task the same names stand in an order that changes."""
    mine = [*seeds(0.6, 0.7, 0.8), *seeds(0.5, 0.6, 0.7, method="weight_grid")]
    other = [replace(each, task="other") for each in [*seeds(0.1, 0.9, 0.1), *seeds(0.5, 0.5, 0.5, method="mod")]]
    rows = Stability().measure(study([*mine, *other], [INFO, replace(INFO, name="other")]))
    found = {(row.task, row.method): row.value for row in rows if row.label == RANKS}
    assert found["counselling", "linear"].value == 1.0
    assert "compared with 1 of 1 other methods" in found["counselling", "linear"].reason
    assert found["other", "linear"].value == pytest.approx(-1 / 3)


def test_a_cost_that_was_not_counted_is_no_spread() -> None:
    cells = seeds(0.5, 0.5, 0.5, 0.5, seconds=(90.0, 100.0, 110.0, 0.0))  # which sampled, in no time
    rows = measured(cells)
    assert rows[SPENT["seconds"][1]].per_seed == {0: 90.0, 1: 100.0, 2: 110.0}
    assert "seed 3 has a stage (expert) whose seconds were not counted" in rows[SPENT["seconds"][1]].reason
    assert rows[SPENT["completions"][1]].per_seed.keys() == {0, 1, 2, 3}


def test_equal_methods_have_no_order_that_could_be_stable() -> None:
    cells = [*seeds(0.5, 0.5, 0.5), *seeds(0.5, 0.5, 0.5, method="weight_grid")]
    assert measured(cells)[RANKS].value == 0.0


def test_only_methods_with_three_seeds_in_common_are_compared() -> None:
    few = seeds(0.5, 0.6, 0.7, method="weight_grid")[:2]
    alone = measured([*seeds(0.6, 0.7, 0.8), *few])[RANKS]
    assert (alone.value, alone.reason) == (None, "no other method has 3 seeds in common with it")
    third = seeds(0.1, 0.2, 0.3, method="rewarded_soups")
    value = measured([*seeds(0.6, 0.7, 0.8), *few, *third])[RANKS]
    assert value.value == 1.0
    assert "compared with 1 of 2 other methods" in value.reason


def test_a_ceiling_and_the_base_model_are_not_ranked() -> None:
    records = synthetic_study(methods=(*METHODS, CEILING), exact=True)
    rows = {row.method: row.value for row in Stability().measure(records) if row.label == RANKS}
    assert (rows[CEILING].value, rows[CEILING].reason) == (None, "no method: it is not ranked")
    without = synthetic_study(exact=True)
    for row in Stability().measure(without):
        if row.label == RANKS:
            assert row.value.value == rows[row.method].value


def test_budgets_and_classes_of_feedback_are_compared_among_themselves() -> None:
    mine, other = seeds(0.6, 0.7, 0.8), seeds(0.9, 0.1, 0.9, method="weight_grid")
    richer = [replace(each, budget_completions=12_000) for each in other]
    assert measured([*mine, *richer])[RANKS].value is None
    told = [replace(each, feedback="oracle") for each in other]
    assert measured([*mine, *told])[RANKS].value == pytest.approx(-1 / 3)  # told of nothing here: all are compared
    contextual = replace(INFO, contextual=True)
    assert measured([*mine, *told], info=contextual)[RANKS].value is None
