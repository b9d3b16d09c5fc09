from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.changes import changes
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan
from paretune.benchmark.runner import planned_records
from paretune.benchmark.summary import plan_text
from paretune.core.errors import BudgetError, ConfigError, RecordError
from paretune.methods.banks import BankSettings
from paretune.methods.entries import method_entry, on_task
from paretune.methods.exact_gradient import ExactGradientSettings
from paretune.records.merging import merged
from paretune.records.writing import write_lock
from paretune.rl.settings import LearnerSettings
from paretune.tasks import load_task
from table_jobs import measured

Make = Callable[..., dict[str, Any]]


def test_a_plan_counts_shared_stages_once_and_charges_them_to_every_cell(study: Make, tmp_path: Path) -> None:
    two = {"fake": {"method": "fake_study:Fake"}, "twin": {"method": "fake_study:Fake"}}
    planned = plan(study(methods=two, seeds=3), tmp_path / "out")
    # 2 methods x 3 seeds; each cell has one expert per objective of 32 completions, which both methods share
    assert (len(planned.cells), len(planned.stages)) == (6, 6)
    assert (planned.completions_charged, planned.completions_to_train) == (6 * 64, 3 * 64)
    # each cell: grid 2 of two objectives is 3 points, 1 unseen, 3 test prompts; and 3 base models on 3 prompts
    assert planned.completions_to_evaluate == 6 * 4 * 3 + 3 * 3
    assert all(len(stage.cells) == 2 and stage.state == "new" for stage in planned.stages)
    assert 0 < planned.minutes[0] < planned.minutes[1]
    assert planned.speed == "assumed"


def test_policies_at_scale_0_are_the_base_model_once(study: Make, tmp_path: Path) -> None:
    planned = plan(study(seeds=1, evaluation={"kl_matched": True}), tmp_path / "out")
    # 4 preferences at 4 scales above 0, and the base; 3 test prompts; and once more the base for the study
    assert planned.completions_to_evaluate == (4 * 4 + 1) * 3 + 3


def test_lengths_of_one_trajectory_are_trained_once(study: Make, tmp_path: Path) -> None:
    planned = plan(study(budget={"completions": [64, 128]}, seeds=1), tmp_path / "out")
    assert len(planned.stages) == 4
    assert planned.completions_to_train == 128  # the experts of 32 lie on the way of those of 64
    assert planned.completions_charged == 64 + 128


def test_a_plan_writes_nothing(study: Make, tmp_path: Path) -> None:
    plan(study(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_reads_a_folder_that_a_run_is_changing(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    cell = plan(study(), folder).cells[0]
    write_lock(folder, planned_records(plan(study(), folder)))
    for torn in (f"runs/{cell.name}/FAILED.json", "groups/a/group.json"):
        (folder / torn).parent.mkdir(parents=True)
        (folder / torn).write_text("{")  # as unreadable as one that is gone once it has been listed
    planned = plan(study(), folder)
    assert planned.cells[0].state == "unfinished"
    assert planned.count("new") == 1


def test_a_budget_below_one_group_is_refused_with_the_method(study: Make, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"methods.fake with 15 completions: budget must give every expert one group"):
        plan(study(budget={"completions": 15}), tmp_path / "out")


def test_settings_that_cannot_go_together_are_refused_with_the_line_of_the_row(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    rows = "methods:\n  linear: {}\n  mgda: {advantages: grpo}\n"
    file.write_text(f"tasks: [counselling]\n{rows}budget: {{completions: 512}}\nseeds: 1\n")
    with pytest.raises(ConfigError) as refused:
        plan(file, tmp_path / "out", measure=False)
    assert str(refused.value) == (
        f"{file}:4:3: methods.mgda with 512 completions: stage 'expert' of MGDA.stages: advantages must be made "
        "without objective weights where the method chooses these from gradients, got 'grpo', which needs them. Use "
        "leave_one_out (the default), k_sample_mean or self_critical."
    )


def test_a_plan_is_plain_data(study: Make, tmp_path: Path) -> None:
    data = json.loads(json.dumps(plan(study(), tmp_path / "out").plain()))
    assert [cell["state"] for cell in data["cells"]] == ["new", "new"]
    assert data["completions_to_train"] == 128


def test_what_an_exact_gradient_reads_takes_time_and_is_not_charged(tmp_path: Path) -> None:
    def study(updates: int) -> dict[str, Any]:
        return {
            "name": "s", "tasks": [{"controlled": {"rho": 0, "alphabet": 4, "length": 3}}], "seeds": 1,
            "methods": {"exact_gradient": {"updates": updates}}, "budget": {"completions": 64},
            "preferences": {"grid": 2, "unseen": 0},
        }  # fmt: skip

    few, many = (plan(study(updates), tmp_path / "out") for updates in (10, 60))
    assert few.cells[0].charged == 0
    assert few.completions_charged == few.completions_to_train == 64  # of the row `one_policy`
    # 50 updates of 3 experts over 64 completions of 16 prompts more, assumed at 600,000 a second / 4 and worker: in one
    # process, as there is one core here
    assert (many.minutes[1] - few.minutes[1]) * 60 == pytest.approx(4 * 50 * 3 * 64 * 16 / 600_000)


LISTED = {
    "name": "s", "tasks": [{"controlled": {"rho": 0, "alphabet": 4, "length": 3}}], "seeds": 1,
    "methods": {"linear": {}}, "budget": {"completions": 500}, "preferences": {"grid": 1, "unseen": 0},
}  # fmt: skip


def missing(planned: Plan, *measurements: str) -> list[str]:
    return [
        each.table.folder for each in planned.tables if not each.finished and each.table.measurement in measurements
    ]


def test_a_base_model_with_a_lost_or_damaged_file_is_measured_again_and_the_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    planned = plan(LISTED, folder)
    base = missing(planned, "reference", "truth")
    assert len(base) == 2
    write_lock(folder, planned_records(planned))
    measured(planned, "reference", "truth")
    assert missing(plan(LISTED, folder), "reference", "truth") == []
    for name in base:
        for path in sorted((folder / name).iterdir()):
            content = path.read_bytes()
            other = content.translate(bytes.maketrans(b"6789", b"7896"))  # other numbers, which can be read
            for damage in (None, b"", b"[1, 2]", content[:-9], other):
                path.unlink() if damage is None else path.write_bytes(damage)
                again = plan(LISTED, folder)
                assert missing(again, "reference", "truth") == [name], (path, damage)
                assert f"damaged: {name}: {path.name} " in plan_text(again)
            path.write_bytes(content)
    assert missing(plan(LISTED, folder), "reference", "truth") == []


def test_the_settings_of_controlled_tasks_are_in_the_lock(tmp_path: Path) -> None:
    study = {
        "name": "s", "tasks": [{"controlled": {"rho": -0.5, "alphabet": 4, "length": 3, "heterogeneity": 0.2}}],
        "methods": {"linear": {}}, "budget": {"completions": 500}, "seeds": 2,
    }  # fmt: skip
    (info,) = planned_records(plan(study, tmp_path / "out")).tasks.values()
    assert info.family_settings == {
        "rho": -0.5,
        "heterogeneity": 0.2,
        "objectives": 2.0,
        "alphabet": 4.0,
        "length": 3.0,
    }


def test_a_tasks_own_learner_settings_go_behind_those_of_the_study_and_of_tuning(tmp_path: Path) -> None:
    study = {
        "tasks": ["counselling", {"controlled": {"rho": 0.0}}],
        "methods": {"linear": {}, "given": {"method": "linear", "learning_rate": 0.001}},
        "budget": {"completions": 6000},
        "seeds": 1,
    }
    planned = plan(study, tmp_path / "out")
    rates = {(cell.task.name, cell.entry.label): cell.entry.settings.get("learning_rate") for cell in planned.cells}
    plain = LearnerSettings().learning_rate
    assert rates["counselling", "linear"] == plain
    assert rates["controlled-rho+0", "linear"] == 0.005 != plain
    assert rates["controlled-rho+0", "given"] == rates["counselling", "given"] == 0.001
    own = {"learning_rate": 0.005}
    assert planned.study.resolved()["learner"] == {"controlled-rho+0": {"linear": own, "one_policy": own}}
    trained = {stage.stage.settings["learning_rate"] for stage in planned.stages if stage.task.name == "counselling"}
    assert trained == {plain, 0.001}
    del study["methods"]["given"]  # type: ignore[attr-defined]
    swept = plan({**study, "tune": {"epochs": [1, 2]}}, tmp_path / "swept").sweep
    assert swept is not None
    tried = {(cell.task.name, cell.entry.settings["learning_rate"]) for cell in swept.cells}
    assert tried == {("counselling", plain), ("controlled-rho+0", 0.005)}
    rated = plan({**study, "tune": {"learning_rate": [0.1]}}, tmp_path / "rated").sweep
    assert rated is not None
    assert {cell.entry.settings["learning_rate"] for cell in rated.cells} == {0.1}


def test_a_default_of_the_method_itself_goes_before_the_tasks() -> None:
    task = replace(load_task("counselling"), learner={"epochs": 3, "learning_rate": 0.01})
    own, plain = (on_task(method_entry(name, {}, name), task).settings for name in ("preference_conditioned", "linear"))
    assert (own["epochs"], own["learning_rate"]) == (BankSettings().epochs, 0.01)
    assert (plain["epochs"], plain["learning_rate"]) == (3, 0.01)


def test_a_changed_learner_of_a_task_makes_cells_stale_and_folders_unlike(tmp_path: Path) -> None:
    study = {"methods": {"linear": {}}, "budget": {"completions": 64}, "seeds": 1, "preferences": {"grid": 1}}
    task = load_task("controlled-rho+0")
    given = {
        "linear": {"learning_rate": LearnerSettings().learning_rate}
    }  # the general default, in place of the task's
    plans = [
        plan({**study, "tasks": ["controlled-rho+0"], **changes}, tmp_path / "out")
        for changes in ({}, {"methods": given})
    ]
    own, other = (each.cells[0] for each in plans)
    assert (own.task.name, own.training_key == other.training_key) == (task.name, False)
    assert changes(own.made_of, other.made_of) == ["setting learning_rate changed"]
    with pytest.raises(RecordError, match=r"another learner.*: none in place of .*0\.005"):
        merged([planned_records(each) for each in plans])


def test_a_ceiling_that_trains_without_the_learner_keeps_its_own_settings() -> None:
    entry = method_entry("exact_gradient", {}, "methods.exact_gradient")
    assert on_task(entry, load_task("controlled-rho+0")).settings == asdict(ExactGradientSettings())


def test_a_tasks_learner_settings_that_no_learner_has_are_refused() -> None:
    task = replace(load_task("counselling"), learner={"lerning_rate": 1.0})
    with pytest.raises(ConfigError, match=r"learner of task 'counselling', for linear.lerning_rate must be one of"):
        on_task(method_entry("linear", {}, "methods.linear"), task)
