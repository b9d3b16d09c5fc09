import pytest

from builders import cell, study
from paretune.metrics.inference_efficiency import InferenceEfficiency
from paretune.records.study import TimingRecord


def timing(speeds, base, method="linear", rows=64):
    return TimingRecord("counselling", method, rows, tuple(speeds), tuple(base), 2, "cpu")


def measured(*timings, methods=("linear",)):
    rows = InferenceEfficiency().measure(study([cell(method) for method in methods], timings=timings))
    return {(row.method, row.label): row.value for row in rows}


def test_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    # ratios .9, .8, .5: median .8; medians 90 and 180 would give .5
    rows = measured(timing([90, 160, 80], [100, 200, 160]))
    assert rows["linear", "ratio to base, 64 rows"].value == pytest.approx(0.8)
    assert rows["linear", "tokens per second, 64 rows"].value == 90


def test_one_policy_has_no_interval_and_says_so():
    value = measured(timing([90, 160, 80], [100, 200, 160]))["linear", "ratio to base, 64 rows"]
    assert (value.low, value.high) == (None, None)
    assert value.reason == "median of 3 repeats of one policy: no interval"


def test_study_without_times_says_so():
    rows = measured()
    assert list(rows) == [("linear", "tokens per second"), ("linear", "ratio to base")]
    assert {value.value for value in rows.values()} == {None}
    assert {value.reason for value in rows.values()} == {"decoding was not timed"}


def test_method_without_times_has_the_rows_of_the_others():
    rows = measured(timing([90], [100]), timing([9], [10], rows=1), methods=("linear", "mod"))
    assert [label for method, label in rows if method == "mod"] == [
        "tokens per second, 1 rows",
        "ratio to base, 1 rows",
        "tokens per second, 64 rows",
        "ratio to base, 64 rows",
    ]
    assert rows["mod", "ratio to base, 64 rows"].value is None


@pytest.mark.parametrize(
    ("speeds", "base", "reason"),
    [
        ([90, 80], [100], "the base model was not timed in every repeat"),
        ([90], [0.0], "the base model was not timed in every repeat"),
        ([], [], "a repeat has no speed"),
        ([float("nan")], [100], "a repeat has no speed"),
        ([0.0], [100], "a repeat has no speed"),
    ],
)
def test_broken_times_are_no_value(speeds, base, reason):
    value = measured(timing(speeds, base))["linear", "ratio to base, 64 rows"]
    assert value.value is None
    assert value.reason == reason
