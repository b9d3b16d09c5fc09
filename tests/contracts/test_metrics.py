"""What every metric of the table must do, whatever has happened to the study it reads."""

import functools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from builders import cell, study, synthetic_study, task_info
from measured_tables import with_measured
from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.protocols import REFERENCE, MetricRow, MetricValue, Table
from paretune.metrics import METRICS, load_metric, measure_all
from paretune.metrics.training_efficiency import TO_THE_BEST
from paretune.records.layout import MEASURED

STUDIES = {
    "whole": {},
    "failed cell": {"failed": {("linear", 1): "crash"}},
    "pending cell": {"pending": [("weight_grid", 0)]},
    "missing rewards": {"missing": 1},
    "no empathy reward": {"missing": 8},
    "one seed": {"seeds": (0,)},
    "not timed": {"timed": False},
    "exact": {"exact": True},
    "all failed": {"failed": {("linear", seed): "out_of_memory" for seed in range(3)}},
}


# what is measured on request is there in some of them: the metrics of it have values, and reasons of lost seeds
MEASURED_TOO = ("whole", "failed cell", "pending cell", "one seed")


@functools.cache  # records are frozen
def study_named(name):
    made = synthetic_study(**STUDIES[name])
    return with_measured(made) if name in MEASURED_TOO else made


@functools.cache
def rows_of(metric, name):
    return tuple(load_metric(metric).measure(study_named(name)))


@pytest.fixture(params=STUDIES)
def name_of_study(request):
    return request.param


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_a_name_a_title_a_unit_and_a_direction(name):
    metric = load_metric(name)
    assert metric.name == name
    assert metric.title
    assert metric.unit
    assert isinstance(metric.higher_is_better, bool)


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_rows_for_every_method_each_different(name, name_of_study):
    rows = rows_of(name, name_of_study)
    ranked = {each.method for each in study_named(name_of_study).cells if each.family != REFERENCE}
    assert ranked <= {row.method for row in rows} <= {*ranked, "base"}
    assert {row.metric for row in rows} == {name}
    keys = [(row.task, row.method, row.budget_completions, row.label) for row in rows]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", METRICS)
def test_methods_share_their_labels_so_that_tables_line_up(name, name_of_study):
    rows = [row for row in rows_of(name, name_of_study) if row.label != TO_THE_BEST]  # of methods alone, not of base
    labels = {method: [row.label for row in rows if row.method == method] for method in {row.method for row in rows}}
    assert len({tuple(each) for each in labels.values()}) == 1


@pytest.mark.parametrize("name", METRICS)
def test_every_value_is_finite_or_missing_with_a_reason(name, name_of_study):
    for row in rows_of(name, name_of_study):
        value = row.value
        assert (value.low is None) == (value.high is None)
        if value.value is None:
            assert value.reason
            assert value.low is None
            assert not value.per_seed
        elif value.low is None:
            assert value.reason
        else:
            assert math.isfinite(value.value)
            assert value.low <= value.value <= value.high
            assert len(value.per_seed) >= 2 or name == "inference_efficiency"  # whose intervals are over rounds


ON_REQUEST = [name for name in METRICS if {*load_metric(name).needs} & {*MEASURED}]


@pytest.mark.parametrize("name", ON_REQUEST)
def test_what_was_measured_on_request_has_values(name):
    values = [row.value for row in rows_of(name, "whole") if row.method == "rewarded_soups"]
    assert sum(value.value is not None for value in values) > 0.7 * len(values)  # the made-up study knows no optimum


@pytest.mark.parametrize("name", [name for name in METRICS if name != "inference_efficiency"])
def test_metric_names_the_seeds_it_lost(name):
    lost = {"failed": {("linear", 1): "crash"}, "pending": [("weight_grid", 2)]}
    records = synthetic_study(exact=True, **lost)
    rows = load_metric(name).measure(with_measured(records) if name in ON_REQUEST else records)
    for row in (each for each in rows if each.method != "base"):
        assert ("seed 1 failed (crash)" in row.value.reason) == (row.method == "linear")
        assert ("seed 2 has not finished" in row.value.reason) == (row.method == "weight_grid")
        counted = "2 of 3 seeds: " if row.value.value is not None else " of 3 seeds: "
        assert (counted in row.value.reason) or row.method == "rewarded_soups"


@pytest.mark.parametrize("name", ["performance", "pass_ratio", "pareto_optimality", "training_efficiency"])
def test_metric_of_no_finished_cell_has_no_value(name):
    rows = rows_of(name, "all failed")
    whole = load_metric(name).measure(synthetic_study())
    assert {row.value.value for row in rows if row.method == "linear"} == {None}
    assert has_value(rows, "rewarded_soups") == has_value(whole, "rewarded_soups")
    assert any(has_value(whole, "rewarded_soups").values())


def has_value(rows, method):
    return {row.label: row.value.value is not None for row in rows if row.method == method}


@pytest.mark.parametrize("name", METRICS)
def test_order_of_cells_does_not_matter(name):
    records = with_measured(synthetic_study(missing=1))
    shuffled = study(records.cells[::-1], list(records.tasks.values()), records.references, records.timings[::-1])

    def values(rows):
        return {
            (row.method, row.label): value if value is None else round(value, 9)  # sums in another order
            for row in rows
            for value in [row.value.value]
        }

    assert values(load_metric(name).measure(records)) == values(load_metric(name).measure(shuffled))


@pytest.mark.parametrize("name", METRICS)
def test_study_without_cells_has_no_rows(name):
    assert list(load_metric(name).measure(study([]))) == []


def test_all_metrics_are_measured_in_the_order_of_the_table():
    rows = measure_all(synthetic_study())
    assert list(dict.fromkeys(row.metric for row in rows)) == list(METRICS)
    assert all(isinstance(row, MetricRow) for row in rows)


class Cells:
    """A user's own metric."""

    name, title, unit, higher_is_better, needs = "cells", "Cells", "cells", True, ()

    def measure(self, records):
        return [MetricRow("t", "m", 1, self.name, MetricValue(float(len(records.cells))))]


def test_users_own_metric_is_named_by_module_and_class(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_metrics", sys.modules[__name__])
    (row,) = measure_all(study([cell()]), ["my_metrics:Cells"])
    assert row.value.value == 1
    named = replace(study([cell()]), resolved={"metrics": ["my_metrics:Cells"]})
    assert [each.metric for each in measure_all(named)][-1] == "cells"  # beside all others, where a study names it


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_which_measurements_it_needs(name):
    assert set(load_metric(name).needs) <= {"evaluation", "reference", "truth", "outcomes", "timing", *MEASURED}


NEEDED = [(name, need) for name in METRICS for need in load_metric(name).needs]


@pytest.mark.parametrize(("name", "need"), NEEDED)
def test_a_missing_measurement_gives_no_value_and_is_named(name, need):
    """Of what a metric needs, one at a time is taken away, and its values of that method become reasons."""
    drawn = task_info(judged_on="J", family_settings={"rho": 0.5})  # so that beta is the truth's
    records = without(synthetic_study(exact=True, task=drawn), need)
    rows = [row for row in measure_all(records, [name]) if row.method == "linear"]
    assert rows
    exact = [row for row in rows if row.value.value is None]
    assert exact
    assert all(f"{need} is missing (" in row.value.reason and "x.json is gone" in row.value.reason for row in exact)


def without(records, need):
    """Return a study as it is read where no table of a measurement is whole."""
    tables, missing, cells = [], {}, []
    for each in records.cells:
        folder = f"{need}/{each.cell}"
        tables.append(Table(folder, each.task, each.seed, {}, (each.cell,), measurement=need))
        missing[folder] = "x.json is gone"
        lost = {"evaluation": {"state": "pending", "evaluations": ()}, "outcomes": {"outcomes": None}}.get(need, {})
        if need == "outcomes":
            lost["evaluations"] = tuple(unknown(answer) for answer in each.evaluations)
        cells.append(replace(each, **lost))
    gone = {"truth": {"truths": {}}, "reference": {"references": {}}, "timing": {"timings": ()}}.get(need, {})
    return replace(records, tables=tuple(tables), missing=missing, cells=tuple(cells), **gone)


def unknown(answer):
    return replace(answer, exact_rewards=answer.exact_rewards * np.nan, exact_kl=answer.exact_kl * np.nan)


def test_unknown_metrics_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'performance'"):
        load_metric("performence")
    with pytest.raises(ConfigError, match="metric must be an importable 'module:name', got 'nowhere:Metric'"):
        load_metric("nowhere:Metric")


def test_measuring_imports_no_torch():
    program = (
        "import sys; from paretune.metrics import METRICS, load_metric;"
        "heavy = set(sys.modules) & {'moocore', 'scipy'};"
        "[load_metric(name) for name in METRICS]; print(heavy, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout == "set() False\n", ended.stderr
