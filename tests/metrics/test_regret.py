from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import CEILING, cell, evaluation, outcomes, study, synthetic_study, task_info, truth
from paretune.core.protocols import MetricValue
from paretune.metrics.performance import Performance
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, TaskInfo

TWO = ("reflection", "empathy")
POINTS = [[1.0, 0.0], [0.0, 1.0]]
INFO = task_info(preferences=POINTS, unseen=[False, False], objectives=TWO, audit=())
KNOWN = [f"regret to the best known: {part} (lower is better)" for part in ("all", "worst")]
OPTIMUM = [f"regret to the optimum: {part} (lower is better)" for part in ("all", "worst")]
BASE = {("counselling", 0): evaluation([[0.3, 0.3]], None, TWO)}


def answering(method: str, *scores: list[float], seed: int = 0, kl: float = 0.0) -> CellRecord:
    answers = [evaluation([mine], point, TWO, kl=kl) for mine, point in zip(scores, POINTS, strict=False)]
    return cell(method, seed, answers)


def measured(
    *cells: CellRecord,
    info: TaskInfo = INFO,
    method: str = "linear",
    bases: dict[tuple[str, int], EvaluationRecord] = BASE,
) -> dict[str, MetricValue]:
    rows = Performance().measure(study(cells, [info], bases))
    return {row.label: row.value for row in rows if row.method == method}


def test_regret_is_to_the_best_policy_of_any_method_whatever_preference_it_answers() -> None:
    # for reflection the best is .9, which weight_grid gives to empathy's user; for empathy .8, linear's own
    linear, grid = answering("linear", [0.6, 0.5], [0.4, 0.8]), answering("weight_grid", [0.7, 0.2], [0.9, 0.1])
    rows = measured(linear, grid)
    assert rows[KNOWN[0]].value == pytest.approx((0.3 + 0.0) / 2)
    assert rows[KNOWN[1]].value == pytest.approx(0.3)
    assert rows[KNOWN[1]].reason == (
        "one seed: no interval; at reflection; in utility; the best known of 2 methods of the study and the base model"
    )
    other = measured(linear, grid, method="weight_grid")
    assert other[KNOWN[0]].value == pytest.approx((0.2 + 0.7) / 2)  # .9 - .7 and .8 - .1
    assert other[KNOWN[1]].reason.startswith("one seed: no interval; at empathy; ")


def test_the_base_model_is_a_known_policy_too() -> None:
    rows = measured(answering("linear", [0.2, 0.5], [0.1, 0.5]))
    assert rows[KNOWN[0]].value == pytest.approx((0.1 + 0.0) / 2)
    assert measured(answering("linear", [0.2, 0.5], [0.1, 0.5]), bases={})[KNOWN[0]].value == 0.0


def test_only_the_same_seed_and_budget_count() -> None:
    mine, better = answering("linear", [0.6, 0.5], [0.4, 0.8]), answering("weight_grid", [1.0, 1.0], [1.0, 1.0], seed=1)
    assert measured(mine, better)[KNOWN[0]].value == 0.0
    richer = replace(better, seed=0, budget_completions=12000)
    rows = Performance().measure(study([mine, richer], [INFO], BASE))
    small = {row.label: row.value for row in rows if row.budget_completions == 6000}
    assert small[KNOWN[0]].value == 0.0


def test_on_a_task_judged_on_j_every_policy_pays_for_its_kl() -> None:
    # beta .05: linear .6 - .05 x 2 = .5 and .8 - .1 = .7; weight_grid's .9 - .05 x 6 = .6 is best for reflection
    info = replace(INFO, judged_on="J")
    rows = measured(
        answering("linear", [0.6, 0.5], [0.4, 0.8], kl=2.0),
        answering("weight_grid", [0.7, 0.2], [0.9, 0.1], kl=6.0),
        info=info,
    )
    assert rows[KNOWN[0]].value == pytest.approx((0.1 + 0.0) / 2)
    assert "in J; " in rows[KNOWN[0]].reason
    assert rows["worst preference"].value == pytest.approx(0.5 - 0.3)  # the base pays nothing: .2 and .4


def test_the_worst_preference_is_where_least_is_gained_over_the_base_model() -> None:
    worst = measured(answering("linear", [0.25, 0.9], [0.1, 0.8]))["worst preference"]
    assert worst.value == pytest.approx(-0.05)  # reflection .25 - .3; empathy .8 - .3
    assert worst.reason == "one seed: no interval; at reflection; gain in utility over the base model"
    gone = measured(answering("linear", [0.25, 0.9], [0.1, 0.8]), bases={})["worst preference"]
    assert (gone.value, "seed 0 has no evaluation of the base model" in gone.reason) == (None, True)


def test_a_preference_that_is_missing_may_be_the_worst() -> None:
    rows = measured(answering("linear", [0.6, 0.5]))
    for label in ("worst preference", *KNOWN):
        assert rows[label].value is None
        assert rows[label].reason.startswith("0 of 1 seeds: seed 0 has no evaluation for empathy; ")
    lost = measured(answering("linear", [0.6, 0.5], [0.4, float("nan")]))
    assert "seed 0 has no empathy reward for empathy" in lost[KNOWN[1]].reason
    half = measured(answering("linear", [0.6, float("nan")], [0.4, 0.8]))
    assert half[KNOWN[0]].value == 0.0  # the user of reflection asks for no empathy


LISTED = replace(INFO, listed=True, judged_on="J")


def exact(*scores: list[float], optima: list[list[float]], seed: int = 0) -> tuple[CellRecord, dict]:  # type: ignore[type-arg]
    """Policies of one prompt and KL 0, so that J is the reward; base (.2, .2)."""
    known = truth([[0.2, 0.2]], np.array(optima)[:, None], np.zeros((2, 1)), POINTS)
    scored = outcomes(np.array(scores)[:, None, None], np.zeros((2, 1, 1)), POINTS, scales=(1.0,))
    return cell(seed=seed, outcomes=scored), {("counselling", seed): known}


def test_where_the_optimum_is_known_regret_is_to_it_in_j_and_the_worst_captures_least() -> None:
    # reflection: .5 of .6, possible .4, captured .3 / .4; empathy: .3 of 1.0, possible .8, captured .1 / .8
    made, truths = exact([0.5, 0.0], [0.0, 0.3], optima=[[0.6, 0.0], [0.0, 1.0]])
    rows = {row.label: row.value for row in Performance().measure(study([made], [LISTED], truths=truths))}
    assert rows[OPTIMUM[0]].value == pytest.approx((0.1 + 0.7) / 2)
    assert rows[OPTIMUM[1]].value == pytest.approx(0.7)
    assert rows["worst preference"].value == pytest.approx(0.125)
    assert rows["worst preference"].reason == (
        "one seed: no interval; at empathy; captured share; possible gain there 0.8 in J"
    )
    assert not [label for label in rows if "best known" in label]


def test_a_preference_with_nothing_to_gain_has_no_share_and_is_never_the_worst() -> None:
    made, truths = exact([0.1, 0.0], [0.0, 0.3], optima=[[0.2 + 1e-12, 0.0], [0.0, 1.0]])
    rows = {row.label: row.value for row in Performance().measure(study([made], [LISTED], truths=truths))}
    assert rows["worst preference"].value == pytest.approx(0.125)
    made, truths = exact([0.1, 0.0], [0.0, 0.1], optima=[[0.2, 0.0], [0.0, 0.2]])
    rows = {row.label: row.value for row in Performance().measure(study([made], [LISTED], truths=truths))}
    assert rows["worst preference"].value is None
    assert "seed 0 has no preference for which the figure has a meaning" in rows["worst preference"].reason


def test_without_a_record_of_the_optimum_both_say_so() -> None:
    made, _ = exact([0.5, 0.0], [0.0, 0.3], optima=POINTS)
    rows = {row.label: row.value for row in Performance().measure(study([made], [LISTED]))}
    for label in ("worst preference", *OPTIMUM):
        assert rows[label].value is None
        assert "seed 0 has no known optimum" in rows[label].reason


def test_no_policy_is_better_than_the_best() -> None:
    for records, labels in ((synthetic_study(), KNOWN), (synthetic_study(exact=True), OPTIMUM)):
        rows = {(row.method, row.label): row.value for row in Performance().measure(records)}
        for method in {row[0] for row in rows}:
            mean, worst = (rows[method, label] for label in labels)
            assert mean.value is not None
            assert worst.value is not None
            assert 0 <= mean.value <= worst.value
            assert mean.low is not None
            assert mean.low >= 0


def test_intervals_of_the_worst_preference_end_where_gains_do() -> None:
    bases = {("counselling", seed): evaluation([[0.3, 0.3]], None, TWO) for seed in (0, 1)}
    cells = [answering("linear", [0.9, 0.0], [0.0, 0.9]), answering("linear", [0.3, 0.0], [0.0, 0.3], seed=1)]
    worst = measured(*cells, bases=bases)["worst preference"]
    assert (worst.low, worst.high) == (-1.0, 1.0)  # rewards from 0 to 1
    worst = measured(*cells, bases=bases, info=replace(INFO, judged_on="J"))["worst preference"]
    assert (worst.low < -1, worst.high) == (True, 1.0)
    made = [exact([0.5, 0.0], [0.0, 0.5 + 0.4 * seed], optima=[[0.6, 0.0], [0.0, 1.0]], seed=seed) for seed in (0, 1)]
    truths = {key: value for _, known in made for key, value in known.items()}
    rows = Performance().measure(study([each for each, _ in made], [LISTED], truths=truths))
    assert next(row.value.high for row in rows if row.label == "worst preference") == 1.0


def test_a_policy_without_a_kl_is_known_where_a_kl_costs_nothing() -> None:
    """For reflection the best is .9 and for empathy .95, whatever their KL: linear lacks .3 and .15."""
    sampled = answering("mod", [0.9, 0.1], [0.2, 0.95], kl=float("nan"))
    rows = measured(answering("linear", [0.6, 0.5], [0.4, 0.8]), sampled)
    assert rows[KNOWN[0]].value == pytest.approx((0.3 + 0.15) / 2)
    own = measured(sampled, method="mod")
    assert own[KNOWN[0]].value == 0.0
    paid = measured(answering("linear", [0.6, 0.5], [0.4, 0.8]), sampled, info=replace(INFO, judged_on="J"))
    assert paid[KNOWN[0]].value == 0.0  # in J it is worth nobody knows what


def test_base_model_and_ceilings_are_no_methods() -> None:
    linear = answering("linear", [0.6, 0.5], [0.4, 0.8])
    base = replace(answering("base", [0.3, 0.3], [0.3, 0.3]), family="reference")
    above = answering(CEILING, [1.0, 0.0], [0.0, 1.0])
    rows = measured(linear, base, above)
    assert rows[KNOWN[0]].value == 0.0
    assert rows[KNOWN[0]].reason.endswith("the best known of 1 method of the study and the base model")
    # that a ceiling is better than all that is known is told, and not cut off as rounding
    assert measured(linear, base, above, method=CEILING)[KNOWN[0]].value == pytest.approx((-0.4 - 0.2) / 2)
