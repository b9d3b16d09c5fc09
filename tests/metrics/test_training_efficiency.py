from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import cell, stage, study
from paretune.metrics.training_efficiency import COSTS, TrainingEfficiency, longest_chain, stage_sum


def diamond():
    """Expert a (100 completions) and b (300), a gate after both (50), a polish after the gate (20)."""
    return [
        stage("a", 100, key="a", seconds=9.0),
        stage("b", 300, key="b", seconds=2.0),
        stage("gate", 50, ["a", "b"], "gate", key="gate", seconds=1.0),
        stage("polish", 20, ["gate"], "polish", key="polish", seconds=1.5),
    ]


def measured(*cells):
    return {row.label: row.value for row in TrainingEfficiency().measure(study(cells))}


def test_sum_and_longest_chain_of_a_diamond():
    rows = measured(cell(stages=diamond()))
    assert rows["sum: completions"].value == 470
    assert rows["chain: completions"].value == 370  # b, gate, polish
    assert rows["sum: seconds"].value == 13.5
    assert rows["chain: seconds"].value == 11.5  # a, gate, polish: another chain than that of completions
    assert rows["sum: tokens"].value == 12 * 470
    assert rows["chain: flops"].value == pytest.approx(6e6 * 12 * 370)
    assert rows["peak: memory_bytes"].value == 400_000_000


def test_shared_stage_is_charged_in_full_to_each_cell():
    shared = stage("expert", 1500)
    rows = TrainingEfficiency().measure(study([cell("linear", stages=[shared]), cell("mod", stages=[shared])]))
    values = {row.method: row.value.value for row in rows if row.label == "sum: completions"}
    assert values == {"linear": 1500, "mod": 1500}


def test_stage_listed_twice_is_charged_once():
    assert measured(cell(stages=[stage("a", 100), stage("a", 100)]))["sum: completions"].value == 100


def test_what_was_never_counted_is_no_value():
    uncounted = stage("a", 100, flops=0.0)
    rows = measured(cell(stages=[uncounted, stage("b", 100)]))
    assert rows["sum: flops"].value is None
    assert rows["sum: flops"].reason == "0 of 1 seeds: seed 0 has a stage (expert) whose flops were not counted"
    assert rows["sum: completions"].value == 200
    unmeasured = replace(stage("a", 100), peak_memory_bytes=0)
    assert measured(cell(stages=[unmeasured]))["peak: memory_bytes"].value is None


def test_free_stage_and_untrained_method_cost_zero():
    assert measured(cell(stages=[stage("choice", 0, tokens=0.0, seconds=0.0)]))["sum: tokens"].value == 0
    assert measured(cell(stages=[]))["sum: completions"].value == 0


def test_chain_with_an_unknown_need_is_no_value_but_the_sum_is():
    rows = measured(cell(stages=[stage("gate", 50, ["lost"])]))
    assert rows["chain: completions"].value is None
    assert "no record of a stage that another one needs" in rows["chain: completions"].reason
    assert rows["sum: completions"].value == 50


def test_failed_cell_is_named_and_its_part_not_charged():
    failed = cell(seed=1, stages=diamond()[:1], state="failed", reason="crash")
    value = measured(cell(seed=0, stages=diamond()), failed)["sum: completions"]
    assert value.value == 470
    assert value.reason == "1 of 2 seeds: seed 1 failed (crash); one seed: no interval"


@given(st.permutations(range(4)))
def test_order_of_stages_does_not_matter(order):
    stages = [diamond()[index] for index in order]
    assert longest_chain(stages, COSTS["completions"]) == 370
    assert stage_sum(stages, COSTS["completions"]) == 470


@given(st.lists(st.tuples(st.integers(0, 50), st.sets(st.integers(0, 7))), max_size=8))
def test_chain_never_exceeds_the_sum_and_reaches_the_largest_stage(rows):
    stages = [
        stage(str(index), cost, [str(need) for need in sorted(needs) if need < index], key=str(index))
        for index, (cost, needs) in enumerate(rows)
    ]
    chain = longest_chain(stages, COSTS["completions"])
    assert max((cost for cost, _ in rows), default=0) <= chain <= stage_sum(stages, COSTS["completions"])
