from dataclasses import replace

import pytest

from builders import CEILING, ENVIRONMENT, attempt, cell, stage, study
from paretune.core.protocols import Table
from paretune.metrics.configuration import ITEMS, configuration_check

MADE_OF = {"task": {"max_prompt_tokens": "aaaaaaaa11", "max_completion_tokens": "bbbbbbbb22"}}
DECODING = {"temperature": 1.0, "top_p": 1.0, "samples": 2, "prompts": None}


def alike(methods=("linear", "mod"), seeds=(0, 1), budgets=(6000,)):
    """Cells of which everything is on record and the same."""
    return [
        replace(cell(method, seed, stages=[stage(f"{method} {seed}")], budget=budget), made_of=MADE_OF)
        for method in methods
        for budget in budgets
        for seed in seeds
    ]


def checked(cells, decoding=DECODING):
    tables = tuple(
        Table(f"runs/{each.cell}/evaluations", each.task, each.seed, {"decoding": decoding}, (each.cell,),
              measurement="evaluation")
        for each in cells
    )  # fmt: skip
    return {each.item: each for each in configuration_check(replace(study(cells), tables=tables))}


def with_stage(cells, place, **changes):
    """Change the stage of one cell."""
    each = cells[place]
    return [*cells[:place], replace(each, stages=(replace(each.stages[0], **changes),)), *cells[place + 1 :]]


def test_cells_that_were_run_alike_agree_in_every_item():
    found = checked(alike())
    assert list(found) == [item.name for item in ITEMS]
    assert {each.state for each in found.values()} == {"agreed"}
    assert found["batch"].values == {"64 completions an update": tuple(each.cell for each in alike())}
    assert found["batch"].sentence == "batch: 64 completions an update, in all 4 cells."
    assert found["seeds"].sentence == "seeds: 0, 1, in all 4 cells."
    assert found["decoding"].sentence == (
        "decoding: temperature 1, top_p 1, 2 sampled of each test prompt, in all 4 cells."
    )
    assert found["hardware"].sentence == "hardware: test, 2 cores, in all 4 cells."
    assert found["code"].sentence == "code: paretune 0.1.0, code c0de, in all 4 cells."
    assert found["number format"].sentence == "number format: float32, in all 4 cells."


def test_another_batch_is_flagged_with_the_cells_that_have_it():
    cells = with_stage(alike(), 3, settings={"completions_per_update": 32, "group_size": 8})
    found = checked(cells)
    assert found["batch"].state == "differs"
    assert found["batch"].values["32 completions an update"] == (cells[3].cell,)
    assert found["batch"].sentence == (
        "differing batch: 64 completions an update (linear and mod, seed 0); 32 completions an update (mod, seed 1). "
        "Qualities at equal completions do not compare."
    )
    assert {each.item for each in found.values() if each.state != "agreed"} == {"batch"}


@pytest.mark.parametrize(
    ("item", "changes", "value"),
    [
        ("group", {"settings": {"completions_per_update": 64, "group_size": 4}}, "4 completions a prompt"),
        ("threads", {"attempts": (attempt(threads_per_worker=2),)}, "1 and 2"),  # evaluated with 1
        ("hardware", {"attempts": (attempt(cpu="other", cores=4),)}, "other, 4 cores and test, 2 cores"),
        ("hardware", {"attempts": (attempt(device="H200", gpu="H200"),)}, "H200, 2 cores and test, 2 cores"),
        ("number format", {"attempts": (attempt(dtypes=["bfloat16"]),)}, "bfloat16"),
        ("code", {"attempts": (attempt(), attempt(code="beef"))},
         "paretune 0.1.0, code beef and paretune 0.1.0, code c0de"),
        ("packages", {"attempts": (attempt(torch="2.8.0"),)},
         "python 3.11.9, torch 2.8.0 and python 3.11.9, torch 2.9.0"),
    ],
)  # fmt: skip
def test_what_makes_costs_incomparable_is_flagged(item, changes, value):
    finding = checked(with_stage(alike(), 0, **changes))[item]
    assert finding.state == "differs"
    assert list(finding.values) == [value, *[each for each in finding.values if each != value]]
    assert finding.values[value] == (alike()[0].cell,)


def test_limits_and_decoding_that_differ_are_flagged():
    cells = alike()
    short = replace(cells[0], made_of={"task": {**MADE_OF["task"], "max_completion_tokens": "cccccccc33"}})
    assert checked([short, *cells[1:]])["completion length"].state == "differs"
    assert checked([short, *cells[1:]])["prompt length"].state == "agreed"
    records = replace(study(cells), tables=tuple(
        Table(f"runs/{each.cell}/evaluations", each.task, each.seed, {"decoding": {**DECODING, "samples": count}},
              (each.cell,), measurement="evaluation")
        for count, each in enumerate(cells, 1)
    ))  # fmt: skip
    found = {each.item: each for each in configuration_check(records)}
    assert (found["decoding"].state, len(found["decoding"].values)) == ("differs", 4)


def test_a_seed_that_a_method_lost_is_flagged():
    cells = alike()
    cells[1] = replace(cells[1], state="failed")
    found = checked(cells)
    assert found["seeds"].sentence == "differing seeds: 0 (linear); 0, 1 (mod). Means over seeds do not compare."
    assert found["batch"].state == "agreed"


def test_what_sets_a_method_apart_is_not_flagged():
    settings = {"completions_per_update": 64, "group_size": 8, "learning_rate": 1.0, "epochs": 9, "rank": 64}
    found = checked(with_stage(alike(), 0, settings=settings))
    assert {each.state for each in found.values()} == {"agreed"}


def test_what_is_not_on_record_is_said_and_never_taken_for_agreement():
    cells = with_stage(alike(), 0, settings={}, attempts=({},))
    found = checked(cells)
    assert found["batch"].state == "not on record"
    assert found["batch"].sentence == (
        "batch: 64 completions an update (linear, seed 1 and mod); not on record of linear, seed 0."
    )
    assert found["threads"].state == "agreed"  # where it was evaluated is on record
    old = [
        replace(each, environment={}, made_of={}, stages=(replace(each.stages[0], attempts=({},)),)) for each in cells
    ]
    silent = {each.item: each for each in configuration_check(study(old))}
    assert {name for name, each in silent.items() if each.state == "not on record"} == {
        "batch", "group", "prompt length", "completion length", "decoding", "number format", "threads", "hardware",
        "code", "packages",
    }  # fmt: skip
    assert silent["hardware"].sentence == "hardware: not on record of all 4 cells."
    assert silent["hardware"].values == {}


def test_values_that_differ_are_flagged_whatever_others_do_not_tell():
    cells = with_stage(alike(), 3, settings={"completions_per_update": 32, "group_size": 8})
    finding = checked(with_stage(cells, 0, settings={}))["batch"]
    assert finding.state == "differs"
    assert "not on record of linear, seed 0. Qualities" in finding.sentence


def test_each_task_and_budget_is_checked_apart_and_rows_that_nobody_is_compared_with_are_left_out():
    cells = [*alike(budgets=(1000, 2000)), replace(cell(CEILING, stages=[stage("c", settings={})]))]
    found = configuration_check(study(cells))
    assert [each.budget_completions for each in found] == [1000] * len(ITEMS) + [2000] * len(ITEMS)
    assert all("4 cells" in each.sentence for each in found if each.state == "agreed")
    assert configuration_check(study(alike(methods=("linear",)))) == []
    assert configuration_check(study([])) == []


def test_the_environment_of_the_builders_has_what_is_checked():
    assert {"paretune", "code", "torch", "cpu", "cores", "threads_per_worker"} <= ENVIRONMENT.keys()
