from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import cell, evaluation, outcomes, study, task_info
from paretune.core.protocols import MetricValue
from paretune.metrics.performance import Performance
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord

TWO, AUDIT = ("reflection", "empathy"), ("fluency",)
POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.25, 0.75]])
INFO = task_info(preferences=POINTS, unseen=[False] * 4, objectives=TWO, audit=AUDIT)
PROXY, FLUENCY, LENGTH = (f"over-optimisation: {each} vs kl" for each in ("proxy", "audit fluency", "length"))


def answer(index: int, kl: float, utility: float, fluency: float, tokens: int) -> EvaluationRecord:
    made = evaluation([[utility, utility, fluency]], POINTS[index], TWO, AUDIT, kl=kl)
    return replace(made, token_ids=(tuple(range(tokens)),))


def method(*answers: tuple[float, float, float, int], budget: int = 6000, method: str = "linear") -> CellRecord:
    return cell(method, evaluations=[answer(index, *each) for index, each in enumerate(answers)], budget=budget)


def measured(*cells: CellRecord, based: bool = True, budget: int = 6000) -> dict[str, MetricValue]:
    base = replace(evaluation([[0.2, 0.2, 0.8]], None, TWO, AUDIT), token_ids=((1, 2, 3, 4),))
    rows = Performance().measure(study(cells, [INFO], {("counselling", 0): base} if based else {}))
    return {row.label: row.value for row in rows if row.budget_completions == budget}


def test_a_proxy_that_rises_with_kl_while_the_audit_falls() -> None:
    rows = measured(method((1, 0.3, 0.8, 4), (2, 0.4, 0.6, 7), (3, 0.6, 0.5, 6), (4, 0.9, 0.1, 9)))
    assert rows[PROXY].value == 1.0
    assert rows[FLUENCY].value == -1.0
    assert rows[LENGTH].value == pytest.approx(0.8)  # ranks 1 3 2 4: 1 - 6 x 2 / (4 x 15)
    assert rows[PROXY].reason == "one seed: no interval; over 4 policies a seed"
    assert rows["length: all, tokens"].value == pytest.approx(6.5)
    assert rows["length: change from base, tokens"].value == pytest.approx(2.5)


def test_smaller_budgets_of_the_method_and_seed_are_on_the_way_and_larger_ones_are_not() -> None:
    early = method(*[(0.1 * index, 0.3, 0.7, 4) for index in range(1, 5)], budget=3000)
    late = method((1, 0.3, 0.8, 4), (2, 0.4, 0.6, 7), (3, 0.6, 0.5, 6), (4, 0.9, 0.1, 9))
    other = method(*[(9.0, 0.0, 0.9, 1)] * 4, budget=3000, method="weight_grid")
    rows = measured(early, late, other)
    assert rows[FLUENCY].reason.endswith("over 8 policies a seed")
    # ranks of KL 1 to 8; fluency: four at .7 share 5.5; .8, .6, .5, .1 have 8, 3, 2, 1. Centred ranks of KL -3.5 ...
    # 3.5 times fluency's 1, 1, 1, 1, 3.5, -1.5, -2.5, -3.5: -8 + 1.75 - 2.25 - 6.25 - 12.25 = -27; squares 42 and 37
    assert rows[FLUENCY].value == pytest.approx(-27 / np.sqrt(42 * 37))
    alone = {row.label: row.value for row in Performance().measure(study([early], [INFO]))}
    assert measured(early, late, budget=3000)[FLUENCY].value == alone[FLUENCY].value


def test_scaled_policies_give_the_proxy_more_points() -> None:
    made = method((1, 0.3, 0.8, 4), (2, 0.4, 0.6, 7), (3, 0.6, 0.5, 6), (4, 0.9, 0.1, 9))
    # at scales 0, 1/2 and 1: the utility of policy m is .2, .2 + m / 10 - .4 at half (falls) and as above at 1
    half = 0.2 - 0.01 * np.arange(1, 5)
    utilities = np.stack([np.full(4, 0.2), half, [0.3, 0.4, 0.6, 0.9]], axis=1)  # [M, S]
    rewards = np.repeat(utilities[:, :, None, None], 2, axis=3)
    kl = np.stack([np.zeros(4), 0.1 * np.arange(1, 5), np.arange(1.0, 5)], axis=1)[:, :, None]
    scored = outcomes(rewards, kl, POINTS, scales=(0.0, 0.5, 1.0), exact=False)
    rows = measured(replace(made, outcomes=scored))
    assert rows[PROXY].reason.endswith("over 8 policies a seed")
    # ranks of KL 1 ... 8, of gains 4 3 2 1 5 6 7 8: squared differences 9 + 1 + 1 + 9 = 20, 1 - 6 x 20 / (8 x 63)
    assert rows[PROXY].value == pytest.approx(1 - 120 / 504)
    assert rows[FLUENCY].reason.endswith("over 4 policies a seed")  # nobody scored the audit there


def test_what_does_not_vary_has_no_correlation_and_says_so() -> None:
    rows = measured(method(*[(1.0 * index, 0.3, 0.5, 4) for index in range(1, 5)]))
    for label, figure in ((PROXY, "proxy"), (FLUENCY, "audit fluency"), (LENGTH, "length")):
        assert rows[label].value is None
        assert rows[label].reason == (
            f"0 of 1 seeds: seed 0 has no rank correlation of {figure} and KL (one of the two is constant); "
            "over 4 policies a seed"
        )


def test_two_points_are_too_few() -> None:
    rows = measured(method((1, 0.3, 0.8, 4), (2, 0.4, 0.6, 7)))
    assert rows[FLUENCY].value is None
    assert "(fewer than 3 points)" in rows[FLUENCY].reason


def test_policies_that_can_only_be_sampled_have_no_kl_and_yet_a_length() -> None:
    nothing = float("nan")
    rows = measured(method(*[(nothing, 0.3, 0.5, 4 + index) for index in range(4)]))
    for label in (PROXY, FLUENCY, LENGTH):
        assert rows[label].value is None
        assert "seed 0 has no KL (its policy can only be sampled)" in rows[label].reason
    assert rows["length: all, tokens"].value == pytest.approx(5.5)


def test_what_is_missing_is_named() -> None:
    made = method(
        (1, 0.3, float("nan"), 4), (2, 0.4, float("nan"), 7), (3, 0.6, float("nan"), 6), (4, 0.9, float("nan"), 9)
    )
    rows = measured(made, based=False)
    assert "seed 0 has no audit fluency" in rows[FLUENCY].reason
    assert "seed 0 has no proxy" in rows[PROXY].reason  # a gain needs the base model
    assert rows[LENGTH].value is not None
    change = rows["length: change from base, tokens"]
    assert (change.value, "seed 0 has no evaluation of the base model" in change.reason) == (None, True)
