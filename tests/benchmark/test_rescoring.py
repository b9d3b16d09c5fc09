"""A task whose completions can be listed, with an audit that changes: nothing is sampled or summed up again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from paretune.benchmark.folder import settle
from paretune.benchmark.measurements import MEASUREMENTS
from paretune.benchmark.measuring import measure
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan
from paretune.benchmark.runner import planned_records
from paretune.core.errors import RewardError, StudyError, TaskError
from paretune.executors.jobs import quiet_link
from paretune.records import files
from paretune.records.evaluations import read_evaluation
from paretune.records.layout import (
    EVALUATION,
    OUTCOMES,
    TRUTH,
    evaluation_path,
    evaluations_folder,
    outcomes_folder,
    reference_folder,
    truth_folder,
)
from paretune.records.reading import read_study
from paretune.records.writing import write_lock
from paretune.training.groups import begin_group
from paretune.training.stages import run_group
from table_jobs import measured, payloads

KINDS = ("evaluation", "reference", "truth", "outcomes")

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
        for name in ("relations", "timing"):  # say nothing of scoring
            patch.delitem(MEASUREMENTS, name)
        patch.setattr("paretune.benchmark.study.with_standing_rows", lambda methods, place: dict(methods))
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("listed")
    (home / "listed.py").write_text(MODULE)
    with listed(home):
        folder = home / "out"
        made = planned(folder)
        run_group(folder, begin_group(folder, made.stages).folder, made.stages[0].task, quiet_link())
        measured(made, *KINDS)
    return home


@pytest.fixture
def evaluated(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of a finished study, for each test its own."""
    shutil.copytree(finished / "out", tmp_path / "out")
    with listed(finished):
        assert planned(tmp_path / "out").count("finished") == 1
        assert [each for each in planned(tmp_path / "out").tables if not each.finished] == []
        yield tmp_path / "out"


def refuse(*arguments: object, **named: object) -> None:
    raise AssertionError("a model was loaded")


def test_an_edited_audit_needs_no_model_and_leaves_exact_outcomes_as_they_are(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(evaluated, audit="second")
    (cell,) = made.cells
    kept = [outcomes_folder(evaluated, cell.name) / OUTCOMES, truth_folder(evaluated, "listed", 0) / TRUTH]
    before = [path.read_bytes() for path in kept]
    assert (cell.state, cell.reason, cell.rescored) == ("stale", "audit 'extra' changed", True)
    unfinished = [each.table.measurement for each in made.tables if not each.finished]
    assert unfinished == ["evaluation", "reference"]
    assert made.completions_to_evaluate == 0
    record = read_evaluation(evaluation_path(evaluations_folder(evaluated, cell.name), 0))
    from paretune.models import loading, solutions
    from paretune.rl import outcomes

    for module, name in ((loading, "load_base"), (outcomes, "load_base"), (solutions, "load_base")):
        monkeypatch.setattr(module, name, refuse)
    measured(made, *unfinished)
    assert [path.read_bytes() for path in kept] == before
    now = read_evaluation(evaluation_path(evaluations_folder(evaluated, cell.name), 0))
    assert (record.audit_scores.tolist(), now.audit_scores.tolist()) == ([0.25], [0.75])
    assert (now.completions, now.identity) == (record.completions, record.identity)
    np.testing.assert_array_equal(now.rewards[:, :-1], record.rewards[:, :-1])
    study = read_study(evaluated)
    assert [each.state for each in study.cells] == ["done"]
    assert study.references["listed", 0].audit_scores.tolist() == [0.75]
    again = planned(evaluated, audit="second")
    assert (again.count("finished"), [each for each in again.tables if not each.finished]) == (1, [])


def test_what_can_be_reached_is_computed_again_where_it_changed_and_the_base_is_not_sampled(evaluated: Path) -> None:
    path = truth_folder(evaluated, "listed", 0) / TRUTH
    before = path.read_bytes()
    made = planned(evaluated, beta=0.5)
    assert [each.table.measurement for each in made.tables if each.found.state == "stale"] == ["truth"]
    measured(made, "truth")
    assert path.read_bytes() != before
    assert [each for each in planned(evaluated, beta=0.5).tables if each.found.state == "stale"] == []


def test_a_kill_while_a_table_is_replaced_leaves_the_old_one(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(evaluated, audit="second")
    folder = evaluations_folder(evaluated, made.cells[0].name)
    rename, moves = files.os.rename, []

    def killed(source: Path, target: Path) -> None:
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(made, "evaluation")
    monkeypatch.setattr(files.os, "rename", rename)
    assert not folder.exists()
    settle(evaluated)
    names = ["cell.json", "solution.json", "DONE.json", "evaluations", "outcomes"]
    assert {path.name for path in folder.parent.iterdir()} == {*names}
    assert planned(evaluated, audit="second").cells[0].rescored
    measured(planned(evaluated, audit="second"), "evaluation")
    assert planned(evaluated, audit="second").count("finished") == 1
    assert {path.name for path in folder.parent.iterdir()} == {*names}


def test_a_damaged_cell_or_base_model_is_not_scored_again(evaluated: Path) -> None:
    made = planned(evaluated, audit="second")
    assert made.completions_to_evaluate == 0
    (cell,) = made.cells
    evaluation_path(evaluations_folder(evaluated, cell.name), 0).write_bytes(b"damaged")
    (found,) = planned(evaluated, audit="second").cells
    assert (found.state, found.rescored) == ("unfinished", False)
    assert found.reason == f"runs/{cell.name}/evaluations: 000.parquet has changed since it was written"
    of_cell = planned(evaluated, audit="second").completions_to_evaluate
    (reference_folder(evaluated, "listed", 0) / EVALUATION).write_bytes(b"damaged")
    assert planned(evaluated, audit="second").completions_to_evaluate > of_cell > 0


def test_what_is_edited_while_a_study_runs_is_refused(evaluated: Path) -> None:
    for job in payloads(planned(evaluated, audit="second"), "evaluation", "reference"):
        changed = {**job, "task": {"listed:task": {"audit": "first"}}}
        with pytest.raises(
            TaskError, match="audit of task 'listed' must not change while a study runs, got changes of extra"
        ):
            measure(changed, quiet_link())
    (job,) = payloads(planned(evaluated), "evaluation")
    settings = {**job["cell"]["settings"], "rank": 4}
    shutil.rmtree(evaluated / job["table"])
    with pytest.raises(
        StudyError,
        match=r"methods.rewarded_soups: a method must not change while a study runs, got: setting rank changed\. Start",
    ):
        measure({**job, "cell": {**job["cell"], "settings": settings}}, quiet_link())


def test_an_audit_that_never_scores_leaves_the_tables_as_they_were(evaluated: Path) -> None:
    made = planned(evaluated, audit="silent")
    for kind in ("evaluation", "reference"):
        with pytest.raises(
            RewardError, match=r"got none for [\d,]+ completions: extra \(missing\), logs say what it did"
        ):
            measured(made, kind)
    again = planned(evaluated, audit="silent")
    assert [each.rescored for each in again.tables if not each.finished] == [True, True]
    assert planned(evaluated).count("finished") == 1
