from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, study, task_info
from paretune.core.protocols import MetricValue
from paretune.metrics.performance import Performance

TWO, AUDIT = ("reflection", "empathy"), ("fluency",)
POINTS = ([1, 0], [0, 1])
INFO = task_info(preferences=POINTS, unseen=[False, False], objectives=TWO, audit=AUDIT)
NAN = float("nan")


def measured(*fluency: tuple[float, float], base: float | None = 0.7) -> dict[str, MetricValue]:
    """One seed for each pair of fluency, that of the answer to reflection and to empathy; every seed has one base."""
    cells = [
        cell(seed=seed, evaluations=[evaluation([[0.5, 0.5, f]], w, TWO, AUDIT) for f, w in zip(pair, POINTS)])
        for seed, pair in enumerate(fluency)
    ]
    bases = (
        {} if base is None else {("counselling", s): evaluation([[0.3, 0.3, base]], None, TWO, AUDIT) for s in (0, 1)}
    )
    return {row.label: row.value for row in Performance().measure(study(cells, [INFO], bases))}


def test_a_mean_hides_what_one_preference_loses_and_its_own_rows_do_not() -> None:
    rows = measured((0.7, 0.2), (0.8, 0.2))
    assert rows["audit: fluency"].value == pytest.approx((0.45 + 0.5) / 2)
    assert rows["audit: fluency, reflection"].value == pytest.approx(0.75)
    assert rows["audit: fluency, empathy"].value == pytest.approx(0.2)
    assert rows["audit change: fluency"].value == pytest.approx((-0.25 - 0.2) / 2)
    assert rows["audit change: fluency, reflection"].value == pytest.approx(0.05)
    assert rows["audit change: fluency, empathy"].value == pytest.approx(-0.5)
    worst = rows["audit change, worst: fluency"]
    assert worst.value == pytest.approx(-0.5)
    assert worst.per_seed == {0: pytest.approx(-0.5), 1: pytest.approx(-0.5)}
    assert worst.reason == "at empathy"


def test_a_change_is_to_the_base_model_of_the_same_seed() -> None:
    """Bases .7 and .6, answers .8 and .7: each is .1 above its own; to the mean of both bases .15 and .05."""
    bases = {
        ("counselling", seed): evaluation([[0.3, 0.3, base]], None, TWO, AUDIT) for seed, base in enumerate((0.7, 0.6))
    }
    cells = [
        cell(seed=seed, evaluations=[evaluation([[0.5, 0.5, f]], w, TWO, AUDIT) for w in POINTS])
        for seed, f in enumerate((0.8, 0.7))
    ]
    rows = {row.label: row.value for row in Performance().measure(study(cells, [INFO], bases))}
    change = rows["audit change: fluency, reflection"]
    assert change.per_seed == {0: pytest.approx(0.1), 1: pytest.approx(0.1)}
    assert rows["audit change, worst: fluency"].low == pytest.approx(0.1)


def test_the_worst_preference_is_named_by_seed_where_seeds_differ() -> None:
    worst = measured((0.7, 0.2), (0.3, 0.6))["audit change, worst: fluency"]
    assert worst.value == pytest.approx((-0.5 - 0.4) / 2)  # each seed by itself, and then their mean
    assert worst.reason == "at empathy (seed 0) and at reflection (seed 1)"


def test_a_missing_audit_reward_costs_what_needs_it_and_no_more() -> None:
    rows = measured((0.7, NAN))
    assert rows["audit: fluency, reflection"].value == pytest.approx(0.7)
    left_out = "completions left out of a mean: 1 of 2 without fluency reward"
    for label in ("audit: fluency", "audit: fluency, empathy", "audit change, worst: fluency"):
        assert rows[label].value is None
        assert rows[label].reason == f"0 of 1 seeds: seed 0 has no fluency reward for empathy; {left_out}"


def test_a_change_needs_the_base_model_and_a_score_does_not() -> None:
    for base, why in ((None, "has no evaluation of the base model"), (NAN, "has no such reward of the base model")):
        rows = measured((0.7, 0.2), base=base)
        assert rows["audit: fluency"].value == pytest.approx(0.45)
        for label in ("audit change: fluency", "audit change: fluency, empathy", "audit change, worst: fluency"):
            assert (rows[label].value, rows[label].reason) == (None, f"0 of 1 seeds: seed 0 {why}")


def test_intervals_stay_within_the_objectives_range() -> None:
    rows = measured((0.1, 0.1), (0.9, 0.9))  # t of 2 seeds is 12.7: without a stop from -4.6 to 5.6
    assert (rows["audit: fluency"].low, rows["audit: fluency"].high) == (0.0, 1.0)
    assert (rows["audit change: fluency"].low, rows["audit change: fluency"].high) == (-1.0, 1.0)


def test_a_task_without_audit_has_no_such_rows() -> None:
    info = replace(INFO, objectives=INFO.trained)
    records = study([cell(evaluations=[evaluation([[0.5, 0.5]], w, TWO) for w in POINTS])], [info])
    assert not [row.label for row in Performance().measure(records) if "audit" in row.label]


def test_each_audit_objective_has_rows_of_its_own() -> None:
    names = ("fluency", "tone")
    info = task_info(preferences=[[1, 0]], unseen=[False], objectives=TWO, audit=names)
    answer = evaluation(np.array([[0.5, 0.5, 0.2, 0.9]]), [1, 0], TWO, names)
    rows = {row.label: row.value for row in Performance().measure(study([cell(evaluations=[answer])], [info]))}
    assert (rows["audit: fluency"].value, rows["audit: tone"].value) == (pytest.approx(0.2), pytest.approx(0.9))
