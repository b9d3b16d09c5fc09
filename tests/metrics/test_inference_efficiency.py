from dataclasses import replace

import pytest

from builders import cell, study, task_info, timing
from paretune.core.protocols import Table
from paretune.metrics.inference_efficiency import InferenceEfficiency

SIX = [100.0, 200.0, 400.0, 500.0, 800.0, 1000.0]  # tokens per second
BASE = [200.0, 250.0, 1000.0, 1000.0, 1000.0, 2000.0]  # ratios .5, .8, .4, .5, .8, .5


def measured(*timings, methods=("linear",)):
    rows = InferenceEfficiency().measure(study([cell(method) for method in methods], timings=timings))
    return {(row.method, row.label): row.value for row in rows}


def values(*timings):
    return {label.removesuffix(", 64 rows"): value for (_, label), value in measured(*timings).items()}


def numbers(value):
    return value.value, value.low, value.high


def changed(record, **fields):
    return replace(record, batches=tuple(replace(batch, **fields) for batch in record.batches))


def test_speed_is_the_median_over_rounds_between_the_least_and_the_greatest_of_six():
    # sorted 100 200 400 500 800 1000: median 450; of six values the ends of the interval are the outermost
    found = values(timing(SIX, BASE))
    assert numbers(found["tokens per second"]) == pytest.approx((450, 100, 1000))
    assert found["tokens per second"].reason == ""


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    # ratios sorted: .4 .5 .5 .5 .8 .8, median .5; medians 450 and 1000 would give .45
    assert numbers(values(timing(SIX, BASE))["ratio to base"]) == pytest.approx((0.5, 0.4, 0.8))


def test_latency_is_that_of_the_batch_in_milliseconds():
    # 64 rows of 32 tokens are 2048: at 512, 1024 and 2048 tokens a second 4, 2 and 1 s; logs of 4, 2, 2, 2, 2, 1 have
    # mean log 2 and sd sqrt(2/5) log 2, so the .95 quantile is 2 * 2^(1.64485 * .632456) = 2 * 2^1.040297 = 4.11332 s
    found = values(timing([512, 1024, 1024, 1024, 1024, 2048], [2048] * 6))
    assert numbers(found["latency p50 (ms)"]) == pytest.approx((2000, 1000, 4000))
    assert found["latency p95 (ms)"].value == pytest.approx(4113.32, abs=0.02)
    assert found["latency p95 (ms)"].low < 4113 < found["latency p95 (ms)"].high


def test_time_to_first_token_stands_alone_and_beside_the_base_models():
    # a tenth of a reply: 200 ms and, from rounds at the base's speed, 100
    found = values(timing([1024] * 6, [2048, 2048, 2048, 2048, 2048, 512]))
    assert numbers(found["time to first token (ms)"]) == pytest.approx((200, 200, 200))
    assert numbers(found["time to first token relative to base"]) == pytest.approx((2, 0.5, 2))


def test_memory_is_counted_and_repeats():
    found = values(timing(SIX, BASE))
    assert numbers(found["peak memory (MB)"]) == (30, 30, 30)
    assert numbers(found["peak memory relative to base"]) == (1.5, 1.5, 1.5)


def test_mixed_preferences_are_compared_with_one_preference_on_the_same_rows():
    assert numbers(values(timing(SIX, BASE))["mixed preferences relative to one"]) == (0.5, 0.5, 0.5)


def test_equal_speeds_have_an_interval_that_holds_one():
    # so that a report can say that there is no difference: ratios .9 .95 1 1 1.05 1.1
    found = values(timing([900, 950, 1000, 1000, 1050, 1100], [1000] * 6))["ratio to base"]
    assert found.low < 1 < found.high


def test_few_rounds_have_no_interval_and_say_so():
    found = values(timing([90, 160, 80], [100, 200, 160]))
    assert numbers(found["ratio to base"]) == (pytest.approx(0.8), None, None)
    assert found["ratio to base"].reason == "3 rounds: too few for an interval"


def test_seconds_are_marked_where_the_machine_was_busy_and_ratios_are_not():
    note = "the machine was busy: 25% of the time went to other work"
    marked = {label for label, value in values(timing(SIX, BASE, busy=0.25)).items() if value.reason == note}
    assert marked == {"tokens per second", "time to first token (ms)", "latency p50 (ms)", "latency p95 (ms)"}
    assert {value.reason for value in values(timing(SIX, BASE, busy=0.09)).values()} == {""}
    by_the_wall = replace(timing(SIX, BASE), clock="wall", busy=None)
    assert {value.reason for value in values(by_the_wall).values()} == {""}


def test_rows_stand_by_number_of_rows_the_most_first_and_one_row_mixes_nothing():
    one, many = timing([9] * 6, [10] * 6, rows=1), timing([90] * 6, [100] * 6)
    rows = measured(replace(many, batches=(*one.batches, *many.batches)), methods=("linear", "mod"))
    labels = [
        "tokens per second", "ratio to base", "time to first token (ms)", "time to first token relative to base",
        "latency p50 (ms)", "latency p95 (ms)", "peak memory (MB)", "peak memory relative to base",
        "mixed preferences relative to one",
    ]  # fmt: skip
    wanted = [*(f"{label}, 64 rows" for label in labels), *(f"{label}, 1 row" for label in labels[:-1])]
    for method in ("linear", "mod"):
        assert [label for name, label in rows if name == method] == wanted
    assert rows["linear", "tokens per second, 1 row"].value == pytest.approx(9)
    lost = {value.reason for (method, _), value in rows.items() if method == "mod"}
    assert lost == {"decoding was not timed"}


def test_rows_of_another_budget_say_of_which_policy_their_timing_is():
    cells = [cell("linear", budget=budget) for budget in (1000, 6000)]
    table = Table("timing/a-linear", "counselling", 0, {}, tuple(each.cell for each in cells), measurement="timing")
    records = replace(study(cells, timings=[timing(SIX, BASE)]), tables=(table,))
    found = {row.budget_completions: row.value for row in InferenceEfficiency().measure(records)}
    assert {budget: value.reason for budget, value in found.items()} == {
        1000: "", 6000: "timed with the policy of 1,000 completions",
    }  # fmt: skip
    assert found[6000].value == found[1000].value


def test_timings_of_another_task_are_not_its_own():
    tasks = [task_info(), task_info("other")]
    cells = [cell("linear"), cell("linear", task="other")]
    slow = replace(timing([9] * 6, [90] * 6), task="other")
    rows = InferenceEfficiency().measure(study(cells, tasks, timings=[timing([50] * 6, [100] * 6), slow]))
    assert {row.task: row.value.value for row in rows if row.label.startswith("ratio")} == {
        "counselling": 0.5, "other": pytest.approx(0.1),
    }  # fmt: skip


def test_mixed_preferences_need_every_round():
    record = timing(SIX, BASE)
    latency = {**record.batches[0].latency_seconds, "mixed": (1.0,)}
    found = values(changed(record, latency_seconds=latency))["mixed preferences relative to one"]
    assert (found.value, found.reason) == (None, "a batch of mixed preferences was not timed in every round")


def test_study_without_times_says_so():
    rows = measured()
    assert len(rows) == 9
    assert {value.value for value in rows.values()} == {None}
    assert {value.reason for value in rows.values()} == {"decoding was not timed"}


def test_a_study_of_one_preference_has_nothing_to_mix():
    record = timing(SIX, BASE)
    latency = {name: each for name, each in record.batches[0].latency_seconds.items() if name != "mixed"}
    found = values(changed(record, latency_seconds=latency))
    assert found["mixed preferences relative to one"].value is None
    assert found["mixed preferences relative to one"].reason == "the study has one preference: nothing to mix"
    assert found["ratio to base"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("speeds", "base", "reason"),
    [
        ([90, 80], [100], "the policy was not timed in every round"),
        ([90], [0.0], "a round of the base model has no time"),
        ([], [], "the base model was not timed in every round"),
        ([float("nan")], [100], "a round of the policy has no time"),
        ([0.0], [100], "a round of the policy has no time"),
        ([-1.0], [100], "a round of the policy has no time"),
    ],
)
def test_broken_times_are_no_value(speeds, base, reason):
    value = values(timing(speeds, base))["ratio to base"]
    assert value.value is None
    assert value.reason == reason


def test_memory_that_was_not_counted_is_no_value():
    found = values(changed(timing(SIX, BASE), peak_bytes={"policy": 5}))
    assert found["peak memory (MB)"].value == 5e-6
    assert found["peak memory relative to base"].value is None
    assert found["peak memory relative to base"].reason == "memory of the base model was not counted"
