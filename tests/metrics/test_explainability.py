"""Rows of tables that were written by hand: values known on paper, and reasons where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builders import cell, study, task_info
from paretune.core.protocols import MetricValue
from paretune.metrics.explainability import Explainability
from paretune.records.study import TaskInfo

TASK = task_info(objectives=("warm", "brief"), audit=())
WHY = "its objectives were weighed by the preference itself"


def point(at: str, weights: list[float], shapley: Any, removal: Any, **other: Any) -> dict[str, Any]:
    """Experts `warm` and `brief`; columns warm, brief, KL, utility."""
    return {
        "at": at, "preference": [0.5, 0.5], "experts": ["warm", "brief"][: len(weights)], "expert_weights": weights,
        "coalitions": 2 ** len(weights), "base": [0.1] * 4, "policy": [0.2] * 4, "shapley": shapley,
        "standard_error": [[0.03] * 4] * len(weights), "order_error": None, "removal": removal, "prompts": [4] * 4,
        "reason": "", **other,
    }  # fmt: skip


def table(**other: Any) -> dict[str, Any]:
    """A soup of two experts: warm gives .3 warm and takes .1 brief; brief gives .2 brief; a step of .1 moves each."""
    even = point(
        "equal weights", [0.5, 0.5],
        [[0.3, -0.1, 0.5, 0.1], [0.05, 0.2, 0.25, 0.125]],
        [[0.2, -0.05, 0.4, 0.075], [0.1, 0.15, 0.2, 0.125]],
    )  # fmt: skip
    # taking warm out costs more brief than taking brief out: here its weight says more than its Shapley value
    warmer = point("warm +.2", [0.7, 0.3], [[0.4, 0.1, 0.5, 0.3], [0.1, 0.2, 0.25, 0.1]], [[0.3, 0.3, 0, 0], [0] * 4])
    changes = [[[0.03, -0.02, 0.1], [-0.01, 0.04, 0.0]], [[0.06, -0.05, 0.2], [-0.04, 0.08, 0.0]]]
    return {
        "columns": ["warm", "brief", "KL", "utility"], "scores": "exact", "points": [even, warmer],
        "sensitivity": {
            "steps": [0.1, 0.2], "changes": changes, "standard_error": changes, "same_policy": [[False] * 2] * 2,
            "reason": "",
        },
        "gate": {"reason": "its experts are mixed by the preference alone"},
        "training": {"shares": None, "shares_reason": WHY, "conflicts": [0.25, None], "conflicts_reason": ""},
        "cost": {"seconds": 1.0, "policies": 10, "completions": 0}, **other,
    }  # fmt: skip


def gated() -> dict[str, Any]:
    use = {
        "preference": [0.5, 0.5], "experts": ["warm", "brief"], "blocks": [0, 1], "positions": [[1, 1], [2, 2], [3, 4]],
        "mean": [0.6, 0.4], "by_block": [[0.9, 0.1], [0.3, 0.7]], "by_position": [[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]],
        "by_prompt": [[0.6, 0.4]], "spread": [None, None], "entropy": 0.75,
    }  # fmt: skip
    return table(
        gate={"points": [{"at": "equal weights", **use}, {"at": "warm +.2", **use, "mean": [0.2, 0.8]}], "reason": ""}
    )


def measured(
    *tables: Mapping[str, Any] | None, task: TaskInfo = TASK, **methods: Mapping[str, Any]
) -> dict[tuple[str, str], MetricValue]:
    """Return the value of each method and label; tables without a name are the seeds of `soup`."""
    cells = [
        replace(cell("soup", seed), measured={} if each is None else {"attribution": each})
        for seed, each in enumerate(tables)
    ]
    cells += [replace(cell(name), measured={"attribution": each}) for name, each in methods.items()]
    rows = Explainability().measure(study(cells, [task]))
    return {(row.method, row.label): row.value for row in rows}


def of(*tables: Mapping[str, Any] | None, task: TaskInfo = TASK) -> dict[str, MetricValue]:
    return {label: value for (_, label), value in measured(*tables, task=task).items()}


def test_shapley_values_have_a_row_for_each_expert_and_score_at_each_preference() -> None:
    found = of(table())
    assert {label: value.value for label, value in found.items() if label.startswith("shapley: warm")} == {
        "shapley: warm, warm": 0.3, "shapley: warm, brief": 0.05, "shapley: warm, warm, at warm +.2": 0.4,
        "shapley: warm, brief, at warm +.2": 0.1,
    }  # fmt: skip
    assert found["shapley: KL, brief"].value == 0.25
    assert found["shapley: utility, warm"].value == 0.1
    assert "standard error" not in found["shapley: warm, warm"].reason  # exact


def test_values_are_means_over_seeds_with_their_interval() -> None:
    other = table()
    other["points"][0]["shapley"] = [[0.5, 0, 0, 0], [0, 0, 0, 0]]
    value = of(table(), other)["shapley: warm, warm"]
    assert value.value == pytest.approx(0.4)
    assert value.per_seed == {0: 0.3, 1: 0.5}
    assert value.high == pytest.approx(0.4 + 12.7062 * 0.1, abs=1e-3)  # t of 1 degree of freedom, s / sqrt(2) = .1


def test_what_is_sampled_says_how_far_off_it_may_be() -> None:
    assert of(table(scores="estimated"))["shapley: warm, warm"].reason.endswith("standard error of a seed 0.03")
    drawn = table(scores="estimated")
    drawn["points"][0]["order_error"] = [[0.04] * 4] * 2  # with .03 of the prompts: .05
    assert of(drawn)["shapley: warm, warm"].reason.endswith("standard error of a seed 0.05")


def test_a_step_that_is_answered_by_the_same_policy_says_so() -> None:
    step = table(scores="estimated")
    assert of(step)["sensitivity: +.1 warm on KL"].reason.endswith("standard error of a seed 0.1")
    assert "standard error" not in of(table())["sensitivity: +.1 warm on KL"].reason  # exact
    step["sensitivity"]["same_policy"] = [[True, False], [True, False]]
    found = of(step)
    assert found["sensitivity: +.1 warm on KL"].reason.endswith("the same policy answers both")
    assert "same policy" not in found["sensitivity: +.1 brief on KL"].reason


def test_an_expert_that_answers_alone_has_a_row_that_says_so() -> None:
    alone = table(
        points=[point("equal weights", [1.0], [[0.3, 0.2, 0.5, 0.25]], [[0.3, 0.2, 0.5, 0.25]], experts=["x"])]
    )
    found = measured(table(), single=alone)
    value = found["single", "shapley: warm, the only expert"]
    assert value.value == 0.3
    assert "one expert answers, so all of the gain over the base model is its own" in value.reason
    assert "weighs no expert of this name at equal weights" in found["soup", "shapley: warm, the only expert"].reason
    assert "weighs no expert of this name" in found["single", "shapley: warm, brief"].reason
    for kind in ("shapley", "mixing weights"):
        assert "has fewer than 3 experts at each preference" in found["single", f"faithfulness: {kind}"].reason
    assert "at equal weights alone, not at warm +.2" in found["single", "shapley: warm, warm, at warm +.2"].reason


def test_sensitivity_is_the_change_at_the_small_step() -> None:
    found = of(table())
    assert found["sensitivity: +.1 warm on brief"].value == -0.02
    assert found["sensitivity: +.1 brief on KL"].value == 0.0
    # |.06 - .06|, |-.04 + .05|, |-.02 + .04|, |.08 - .08|: .03 over four
    assert found["sensitivity: mean error at +.2"].value == pytest.approx(0.0075)


def three() -> dict[str, Any]:
    """Experts a, b and c for equal weights and for warm +.2; columns warm, brief, KL, utility."""
    even = point(
        "equal weights", [0.2, 0.3, 0.5], [[0.3, 0.1, 9, 0.1], [0.2, 0.3, 9, 0.2], [0.1, 0.2, 9, 0.3]],
        [[0.6, 0.3, 0, 0.1], [0.2, 0.2, 0, 0.2], [0.1, 0.1, 0, 0.3]], experts=["a", "b", "c"],
    )  # fmt: skip
    # 1e-12 is rounding: the last two tie
    warmer = point(
        "warm +.2", [0.5, 0.3, 0.2], [[0.3, 0.3, 9, 0], [0.2, 0.2, 9, 0], [0.1, 0.1, 9, 0]],
        [[0.3, 0.3, 0, 0], [0.2, 0.1, 0, 0], [0.1, 0.1 + 1e-12, 0, 0]], experts=["a", "b", "c"],
    )  # fmt: skip
    return table(points=[even, warmer])


def test_faithfulness_ranks_experts_within_objective_and_preference() -> None:
    """Ranks of Shapley values and removals.

    Equal weights, warm 3 2 1 and 3 2 1: 1. Brief 1 3 2 and 3 2 1: products of centred ranks -1 + 0 + 0, over 2: -.5.
    Warm +.2, warm: 1. Brief 3 2 1 and 3 1.5 1.5: (1 x 1 + 0 + .5) / sqrt(2 x 1.5) = .866.
    """
    found = of(three())
    assert found["faithfulness: shapley"].value == pytest.approx((1 - 0.5 + 1 + 0.75**0.5) / 4)
    assert found["faithfulness: shapley, warm"].value == pytest.approx(1)
    assert found["faithfulness: shapley, brief"].value == pytest.approx((-0.5 + 0.75**0.5) / 2)
    # weights 1 2 3 against warm 3 2 1 and brief 3 2 1; at warm +.2 3 2 1 against 3 2 1 and 3 1.5 1.5
    assert found["faithfulness: mixing weights"].value == pytest.approx((-1 - 1 + 1 + 0.75**0.5) / 4)
    assert found["faithfulness: shapley, utility"].value == 1  # at warm +.2 nothing is ranked
    assert "faithfulness: sensitivity, utility" not in found


def test_small_units_are_ranked_like_large_ones() -> None:
    large, small = three(), three()
    for each in small["points"]:
        for part in ("shapley", "removal"):
            each[part] = [[1e-10 * value for value in row] for row in each[part]]
    label = "faithfulness: shapley"
    assert of(small)[label].value == pytest.approx(of(large)[label].value)


def test_two_experts_and_two_objectives_have_no_rank_correlation() -> None:
    """Of two experts phi_1 - phi_2 = v(1) - v(2), which is the difference of the removals, too."""
    found = measured(gated())
    for kind in ("shapley", "mixing weights", "gate use"):
        value = found["soup", f"faithfulness: {kind}"]
        assert value.value is None
        assert "has fewer than 3 experts at each preference" in value.reason
    assert "by construction" in found["soup", "faithfulness: shapley, warm"].reason
    assert "has fewer than 3 objectives" in found["soup", "faithfulness: sensitivity"].reason


def test_two_experts_can_fail_the_relative_error() -> None:
    """Equal weights |.1| + |.05| + |.05| + |.05|, warm +.2 |.1| + |.2| + |.1| + |.2|: .85 of .5 + .6."""
    label = "faithfulness: shapley, relative error (lower is better)"
    assert of(table())[label].value == pytest.approx(0.85 / 1.1)
    alone = table(points=[point("equal weights", [1.0], [[0.3, 0.2, 0.5, 0.25]], [[0.3, 0.2, 0.5, 0.25]])])
    assert "has one expert at each preference" in of(alone)[label].reason
    unmissed = table(points=[point("equal weights", [0.5, 0.5], [[0.3] * 4, [0.2] * 4], [[0.0] * 4] * 2)])
    assert "experts of which none is missed" in of(unmissed)[label].reason
    unscored = table(points=[point("equal weights", [0.5, 0.5], [[None] * 4, [0.2] * 4], [[0.1] * 4] * 2)])
    assert "an objective without a score" in of(unscored)[label].reason


def test_weights_of_a_gate_have_rows_by_block_position_and_prompt() -> None:
    found = of(gated())
    assert found["gate: block 0, warm"].value == 0.9
    assert found["gate: block 1, brief"].value == 0.7
    assert found["gate: position 1, brief"].value == 0.2
    assert found["gate: position 3-4, warm"].value == 0.5
    assert found["gate: entropy"].value == 0.75
    assert "has one prompt or one expert" in found["gate: spread over prompts, warm"].reason


def test_without_a_gate_its_rows_say_why_they_are_empty() -> None:
    found = measured(gated(), plain=table())
    for label in ("gate: entropy", "gate: block 0, warm", "gate: spread over prompts, brief", "faithfulness: gate use"):
        value = found["plain", label]
        assert value.value is None
        assert "seed 0 has no gate: its experts are mixed by the preference alone" in value.reason
    assert [label for method, label in found if method == "plain"] == [
        label for method, label in found if method == "soup"
    ]


def test_weights_of_gradients_are_those_in_the_logs() -> None:
    logged = table(
        training={"shares": [0.75, 0.25], "shares_reason": "", "conflicts": None, "conflicts_reason": "no gradients"}
    )
    found = of(logged)
    assert found["gradient: weight of warm"].value == 0.75
    assert "has none: no gradients" in found["gradient: steps against warm"].reason
    found = of(table())
    assert f"has none: {WHY}" in found["gradient: weight of warm"].reason
    assert found["gradient: steps against warm"].value == 0.25
    assert "is not trained for it" in found["gradient: steps against brief"].reason


def test_what_could_not_be_measured_is_missing_with_its_reason() -> None:
    many = point("equal weights", [0.1] * 2, None, None, reason="20 experts are too many")
    found = of(table(points=[many], sensitivity={"reason": "there is one objective"}))
    for label in ("shapley: warm, warm", "faithfulness: shapley", "faithfulness: mixing weights"):
        assert "has no Shapley values (20 experts are too many)" in found[label].reason
    for label in ("sensitivity: +.1 warm on brief", "sensitivity: mean error at +.2", "faithfulness: sensitivity"):
        assert found[label].value is None
        assert "has no sensitivity (there is one objective)" in found[label].reason
    unknown = table()
    unknown["points"][0]["shapley"] = [[0.3, -0.1, None, 0.1]] * 2  # a policy that can only be sampled
    assert "has no KL of every coalition on any prompt" in of(unknown)["shapley: KL, warm"].reason


def test_an_objective_without_a_score_has_no_step_error() -> None:
    unscored = table()
    unscored["sensitivity"]["changes"] = [[[None, 0.1, 0.2], [0.1, 0.1, 0.2]], [[0.1, 0.1, 0.2]] * 2]
    found = of(unscored)
    assert "has an objective without a score" in found["sensitivity: mean error at +.2"].reason
    assert "has no warm on any prompt" in found["sensitivity: +.1 warm on warm"].reason
    assert found["sensitivity: +.1 warm on brief"].value == 0.1


def test_gates_over_other_experts_blocks_and_lengths_have_no_value_there() -> None:
    other, short = gated(), gated()
    for point in other["gate"]["points"]:
        point["experts"] = ["x", "y"]
    for point in short["gate"]["points"]:
        point["blocks"], point["positions"] = [0], [[1, 1]]
    found = measured(gated(), other=other, short=short)
    assert "has a gate over other experts" in found["other", "gate: block 0, warm"].reason
    assert "has a gate over other experts" in found["soup", "gate: block 0, x"].reason
    assert "has no block that reaches there" in found["short", "gate: block 1, warm"].reason
    assert "has no completion that reaches there" in found["short", "gate: position 3-4, warm"].reason
    assert found["short", "gate: block 0, warm"].value == 0.9


def test_gate_use_and_sensitivity_are_ranked_too() -> None:
    known = three()
    use = {"at": "equal weights", "experts": ["a", "b", "c"], "blocks": [], "positions": [], "mean": [0.5, 0.2, 0.3]}
    known["gate"] = {"reason": "", "points": [{**use, "spread": [0.1] * 3, "entropy": 0.5}]}
    # use 3 1 2 against warm 3 2 1 and brief 3 2 1: 1 x 1 over 2 each; warm +.2 was not followed
    assert of(known)["faithfulness: gate use"].value == pytest.approx(0.5)
    many = task_info(objectives=("warm", "brief", "kind"), audit=())
    untrained = {"shares": None, "shares_reason": WHY, "conflicts": None, "conflicts_reason": "no gradients"}
    moved = [[0.03, 0.01, 0.0, 0], [0.02, 0.02, 0.0, 0], [0.01, 0.03, 0.0, 0]]
    further = [[0.06, 0.03, 0.0, 0], [0.05, 0.02, 0.0, 0], [0.04, 0.01, 0.0, 0]]
    steps = {"changes": [moved, further], "standard_error": [moved] * 2, "same_policy": [[False] * 3] * 2, "reason": ""}
    # on warm 3 2 1 and 3 2 1, on brief 1 2 3 and 3 2 1, on kind nothing moves
    assert (
        of(table(points=[], sensitivity=steps, training=untrained), task=many)["faithfulness: sensitivity"].value == 0
    )
    assert (
        of(table(points=[], sensitivity=steps, training=untrained), task=many)["faithfulness: sensitivity, warm"].value
        == 1
    )
    still = {**steps, "changes": [[[0.0] * 4] * 3] * 2}
    found = of(table(points=[], sensitivity=still, training=untrained), task=many)["faithfulness: sensitivity"]
    assert "has the same scores wherever the preference moves (one of the two is constant)" in found.reason


def test_intervals_end_where_shares_and_correlations_do() -> None:
    shares = [[0.95, 0.05], [0.99, 0.01], [1.0, 0.0]]
    logged = [table(training={"shares": each, "shares_reason": "", "conflicts": each}) for each in shares]
    found = of(*logged)
    assert found["gradient: weight of warm"].high == 1
    assert found["gradient: weight of brief"].low == 0
    assert found["gradient: steps against warm"].high == 1


def test_a_cell_without_a_table_and_the_base_model_say_so() -> None:
    found = of(table(), None)
    assert all(
        "1 of 2 seeds: seed 1 has no record of attribution" in found[f"shapley: {each}, warm"].reason
        for each in ("warm", "KL")
    )
    base = replace(cell("base"), family="reference")
    rows = Explainability().measure(study([base], [TASK]))
    assert rows
    assert all("has no experts: it is the base model" in row.value.reason for row in rows)
