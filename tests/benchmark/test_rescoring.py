"""A task whose completions can be listed, with an audit that changes: nothing is sampled or summed up again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.benchmark.evaluating import evaluate_cell, evaluate_reference
from paretune.benchmark.groups import begin_group
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan
from paretune.benchmark.rescoring import audit_changes, rescore_cell, stored_reference
from paretune.benchmark.runner import planned_records
from paretune.benchmark.scheduling import Scheduler
from paretune.benchmark.stages import run_group
from paretune.benchmark.worker import quiet_link
from paretune.core.errors import RewardError, StudyError, TaskError
from paretune.records import files
from paretune.records.evaluations import read_evaluation
from paretune.records.files import DONE, is_done, read_json, settle_folders
from paretune.records.layout import cell_folder, evaluation_path, outcome_path, reference_path, truth_path
from paretune.records.reading import read_study
from paretune.records.writing import write_lock

MODULE = """
from dataclasses import fields
from paretune.core.task import Objective, Task
from paretune.tasks.controlled import load

def task(audit="first", beta=None):
    made = load(alphabet=4, length=3).instance(0)
    values = {field.name: getattr(made, field.name) for field in fields(Task)}
    audits = (Objective("extra", f"listed:{audit}"),)
    return Task(**{**values, "name": "listed", "audit": audits, "beta": beta or made.beta})

def first(completions, **columns):
    return [0.25] * len(completions)

def second(completions, **columns):
    return [0.75] * len(completions)

def silent(completions, **columns):
    return [None] * len(completions)
"""


@contextmanager
def listed(folder: Path) -> Iterator[None]:
    """Have the task's module found in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("listed", None)


def planned(folder: Path, **arguments: object) -> Plan:
    study = {
        "name": "s", "tasks": [{"listed:task": arguments}], "seeds": 1, "methods": {"rewarded_soups": {"epochs": 1}},
        "budget": {"completions": 128}, "preferences": {"grid": 1, "unseen": 0},
    }  # fmt: skip
    made = plan(study, folder)
    write_lock(folder, planned_records(made))
    return made


def jobs(made: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """What workers are told to evaluate: the cell, and the base model."""
    scheduler = Scheduler(made, -1, None)  # type: ignore[arg-type]  # it shows nothing here
    scheduler.references = [("listed", 0)]
    scheduler.cells, scheduler.waiting = [], {}
    job = scheduler._next()
    assert job is not None
    return scheduler._cell_payload(made.cells[0], "evaluate"), dict(job.payload)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("listed")
    (home / "listed.py").write_text(MODULE)
    with listed(home):
        folder = home / "out"
        made = planned(folder)
        run_group(folder, begin_group(folder, made.stages).folder, made.stages[0].task, quiet_link())
        cell, base = jobs(made)
        evaluate_cell(cell, quiet_link())
        evaluate_reference(base, quiet_link())
    return home


@pytest.fixture
def evaluated(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of a finished study, for each test its own."""
    shutil.copytree(finished / "out", tmp_path / "out")
    with listed(finished):
        assert planned(tmp_path / "out").count("finished") == 1
        assert planned(tmp_path / "out").references == ()
        yield tmp_path / "out"


def refuse(*arguments: object, **named: object) -> None:
    raise AssertionError("a model was loaded")


def test_an_edited_audit_needs_no_model_and_leaves_exact_outcomes_as_they_are(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(evaluated, audit="second")
    (cell,) = made.cells
    kept = [outcome_path(evaluated, cell.name), truth_path(evaluated, "listed", 0)]
    before = [path.read_bytes() for path in kept]
    assert (cell.state, cell.reason, cell.rescored) == ("stale", "audit 'extra' changed", True)
    assert made.references == (("listed", 0),)
    assert made.completions_to_evaluate == 0
    record = read_evaluation(evaluation_path(evaluated, cell.name, 0))
    from paretune.models import base, solutions
    from paretune.rl import outcomes

    for module, name in ((base, "load_base"), (outcomes, "load_base"), (solutions, "load_base")):
        monkeypatch.setattr(module, name, refuse)
    for job, function in zip(jobs(made), (evaluate_cell, evaluate_reference), strict=True):
        function(job, quiet_link())
    assert [path.read_bytes() for path in kept] == before
    now = read_evaluation(evaluation_path(evaluated, cell.name, 0))
    assert (record.audit_scores.tolist(), now.audit_scores.tolist()) == ([0.25], [0.75])
    assert (now.completions, now.identity) == (record.completions, record.identity)
    np.testing.assert_array_equal(now.rewards[:, :-1], record.rewards[:, :-1])
    study = read_study(evaluated)
    assert [each.state for each in study.cells] == ["done"]
    assert study.references["listed", 0].audit_scores.tolist() == [0.75]
    again = planned(evaluated, audit="second")
    assert (again.count("finished"), again.references) == (1, ())


def test_what_can_be_reached_is_computed_again_where_it_changed_and_the_base_is_not_sampled(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paretune.rl import evaluation

    before = truth_path(evaluated, "listed", 0).read_bytes()
    monkeypatch.setattr(evaluation, "evaluate", refuse)
    _, base = jobs(planned(evaluated, beta=0.5))
    evaluate_reference(base, quiet_link())
    assert truth_path(evaluated, "listed", 0).read_bytes() != before
    assert planned(evaluated, beta=0.5).references == ()


def test_a_kill_while_a_cell_is_replaced_leaves_the_old_one(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(evaluated, audit="second")
    name, task = made.cells[0].name, made.cells[0].task
    rules = jobs(made)[0]["decoding"]
    rename, moves = files.os.rename, []

    def killed(source: Path, target: Path) -> None:
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        rescore_cell(evaluated, name, task, rules)
    monkeypatch.setattr(files.os, "rename", rename)
    assert not cell_folder(evaluated, name).exists()
    settle_folders(evaluated / "runs")
    assert [path.name for path in (evaluated / "runs").iterdir()] == [name]
    assert audit_changes(cell_folder(evaluated, name), task, rules) == ["extra"]
    assert rescore_cell(evaluated, name, task, rules) == ["extra"]
    assert is_done(cell_folder(evaluated, name))
    assert rescore_cell(evaluated, name, task, rules) == []
    assert [path.name for path in (evaluated / "runs").iterdir()] == [name]


def test_a_damaged_cell_or_base_model_is_not_scored_again(evaluated: Path) -> None:
    made = planned(evaluated, audit="second")
    name, task, rules = made.cells[0].name, made.cells[0].task, jobs(made)[0]["decoding"]
    evaluation_path(evaluated, name, 0).write_bytes(b"damaged")
    assert audit_changes(cell_folder(evaluated, name), task, rules) is None
    assert planned(evaluated, audit="second").cells[0].state == "unfinished"
    assert stored_reference(evaluated, task, 0, rules) is not None
    reference_path(evaluated, "listed", 0).write_bytes(b"damaged")
    assert stored_reference(evaluated, task, 0, rules) is None
    assert planned(evaluated, audit="second").completions_to_evaluate > 0


def test_what_is_edited_while_a_study_runs_is_refused(evaluated: Path) -> None:
    cell, base = jobs(planned(evaluated, audit="second"))
    before = read_json(cell_folder(evaluated, cell["cell"]) / DONE)
    for job, function in ((cell, evaluate_cell), (base, evaluate_reference)):
        changed = {**job, "task": {"listed:task": {"audit": "first"}}}
        with pytest.raises(
            TaskError, match="audit of task 'listed' must not change while a study runs, got other files"
        ):
            function(changed, quiet_link())
    cell = jobs(planned(evaluated))[0]
    key = cell["evaluation_key"]
    edited = {**cell, "settings": {**cell["settings"], "rank": 4}, "evaluation_key": key}
    (cell_folder(evaluated, cell["cell"]) / DONE).unlink()
    with pytest.raises(
        StudyError,
        match=r"methods.rewarded_soups: a method must not change while a study runs, got: setting rank changed\. Start",
    ):
        evaluate_cell(edited, quiet_link())
    assert before["values"]["audit"].keys() == {"extra"}


def test_an_audit_that_never_scores_leaves_the_cell_as_it_was(evaluated: Path) -> None:
    made = planned(evaluated, audit="silent")
    name, task, rules = made.cells[0].name, made.cells[0].task, jobs(made)[0]["decoding"]
    with pytest.raises(RewardError, match=r"got none for [\d,]+ completions: extra \(missing\), logs say what it did"):
        rescore_cell(evaluated, name, task, rules)
    assert is_done(cell_folder(evaluated, name))
    assert audit_changes(cell_folder(evaluated, name), task, rules) == ["extra"]
