from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import attempt, cell, evaluation, stage, study, synthetic_study, task_info
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
    assert rows["sum: prompts"].value == 470 / 8
    assert rows["chain: reward_calls"].value == 3 * 370
    assert rows["sum: cpu_seconds"].value == 13.5  # one thread, always at work
    assert "sum: gpu_seconds" not in rows


def test_no_interval_of_a_cost_goes_below_nothing():
    rows = measured(cell(seed=0, stages=diamond()), cell(seed=1, stages=diamond()[:1]))
    for label in ("sum: completions", "chain: seconds", "sum: flops"):
        assert rows[label].low == 0.0
        assert rows[label].high > max(rows[label].per_seed.values())


def test_gpu_seconds_are_those_for_which_a_gpu_was_held():
    held = [attempt(device="NVIDIA H200")]
    a, b, gate, polish = diamond()
    rows = measured(cell(stages=[replace(a, attempts=held), b, replace(gate, attempts=held), polish]))
    assert rows["sum: gpu_seconds"].value == 10.0  # a and the gate: b and the polish ran on the CPU
    assert rows["chain: gpu_seconds"].value == 10.0
    rows = measured(cell(stages=[replace(a, attempts=[*held, attempt()])]))
    assert rows["sum: gpu_seconds"].value is None
    assert "seed 0 has a stage (expert) whose gpu seconds were not counted" in rows["sum: gpu_seconds"].reason


def test_cpu_seconds_that_were_not_measured_are_no_value():
    old = stage("a", 100, cpu_share=None, attempts=[{}])
    rows = measured(cell(stages=[old, stage("b", 100)]))
    assert rows["sum: cpu_seconds"].value is None
    assert rows["sum: cpu_seconds"].reason.endswith("seed 0 has a stage (expert) whose cpu seconds were not counted")
    assert rows["sum: seconds"].value == 20.0
    assert "sum: gpu_seconds" not in rows


def test_what_makes_seconds_mean_less_stands_beside_seconds_alone():
    cells = [cell(seed=seed, stages=[stage("a", 100, attempts=[attempt(load=3.1)] * 2)]) for seed in range(2)]
    rows = measured(*cells)
    said = "trained in 2 attempts (seeds 0, 1); machine was busy: load 3.1 on 2 cores (seeds 0, 1)"
    assert rows["sum: seconds"].reason == rows["chain: seconds"].reason == said
    assert rows["sum: seconds"].value == 10.0
    assert rows["sum: completions"].reason == rows["sum: cpu_seconds"].reason == ""


def test_cost_to_cover_the_grid_and_of_one_more_preference():
    """Corners have a policy, the centre and an unseen one have their neighbours': two at (100 + 300) / 2 more."""
    info = task_info(
        preferences=[[1, 0], [0, 1], [0.5, 0.5], [0.2, 0.8]], unseen=[False] * 3 + [True], audit=(),
        objectives=("reflection", "empathy"),
    )  # fmt: skip
    words = ["exact", "exact", "nearest", "nearest"]
    answers = [
        evaluation([[0.5, 0.5]], point, ("reflection", "empathy"), answer=word, expert_weights=[1.0, 0.0])
        for point, word in zip(info.preferences, words, strict=True)
    ]
    cells = [cell(seed=0, evaluations=answers, stages=diamond()[:2])]
    rows = {row.label: row.value for row in TrainingEfficiency().measure(study(cells, [info]))}
    cover, marginal = rows["cost to cover the grid: completions"], rows["marginal: completions"]
    assert (cover.value, marginal.value) == (600, 200)
    assert (rows["cost to cover the grid: seconds"].value, rows["marginal: seconds"].value) == (16.5, 5.5)
    assert cover.reason == (
        "one seed: no interval; 1 of 3 preferences are answered by the policy of another one, and counted at the mean "
        "cost of a policy"
    )
    assert marginal.reason == "one seed: no interval; preferences it was not given: nearest"


def test_families_differ_in_what_one_more_preference_costs():
    """In the synthetic study linear trains 4 policies of 1400 for 7 preferences, and its 3 mixed ones have none."""
    rows = TrainingEfficiency().measure(synthetic_study())
    found = {(row.method, row.label): row.value.value for row in rows}
    assert found["linear", "marginal: completions"] == 1400
    assert found["linear", "cost to cover the grid: completions"] == 4 * 1400 + 3 * 1400
    for method in ("weight_grid", "rewarded_soups"):
        assert found[method, "marginal: completions"] == 0.0
        assert found[method, "cost to cover the grid: completions"] == found[method, "sum: completions"] == 6000


def test_a_cell_without_its_answers_has_no_cost_of_a_preference():
    rows = measured(cell(stages=diamond()))
    assert rows["marginal: completions"].value is None
    assert rows["cost to cover the grid: seconds"].value is None
    assert "seed 0 has no evaluation for" in rows["marginal: completions"].reason


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
