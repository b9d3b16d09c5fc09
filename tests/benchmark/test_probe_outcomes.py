"""What policies of a study tell of the outcomes of training, and which studies are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builders
import micro_task
from paretune.benchmark import probe_outcomes
from paretune.benchmark.probe import probe
from paretune.benchmark.probe_outcomes import read_for, study_outcomes
from paretune.core.errors import (
    ConfigError,
    NonFiniteError,
    UnknownNameError,
)
from paretune.core.preferences import corners
from paretune.core.task import Objective, Task
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import StudyRecords, TaskInfo

SAMPLES = 512


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


INFO = builders.task_info("micro", corners(2), [False, False], ("first", "second"), (), test_prompts=2, samples=1)


def answer(rewards: Any, corner: int | None, own: int | None = None, kind: str = "combined") -> EvaluationRecord:
    """Return a policy's rewards on two prompts for a corner preference; `own` says which expert answered."""
    weights = np.eye(3)[corner if own is None else own] if corner is not None else ()
    point = None if corner is None else corners(2)[corner]
    return builders.evaluation(rewards, point, ("first", "second"), answer=kind, expert_weights=weights)


def made_up(seeds: int = 3, info: TaskInfo = INFO, method: str = "rewarded_soups", **answers: Any) -> StudyRecords:
    """Return a study in which the first objective gains .2 and costs the second .1, and the second costs nothing."""
    cells, references = [], {}
    for seed in range(seeds):
        noise = 0.01 * seed
        base = np.array([[0.4, 0.5], [0.6, 0.3]]) + noise
        references["micro", seed] = answer(base, None)
        moves = [[0.2 + noise, -0.1], [0.0, 0.3 + noise]]
        given = [answer(base + move, corner, **answers) for corner, move in enumerate(moves)]
        cells.append(builders.cell(method, seed, given, task="micro"))
    return builders.study(cells, [info], references)


def test_a_study_tells_outcomes_paired_by_prompt_and_seed(task: Task) -> None:
    named = replace(task, name="micro")
    found = study_outcomes(made_up(), named, np.array([1.0, 2.0]))
    assert found.relations is not None
    # noise .01 x seed moves base and policies alike and gains by .01 on average; the second objective's unit is 2
    np.testing.assert_allclose(found.relations.changes.values, [[0.21, -0.05], [0.0, 0.155]], atol=1e-9)
    assert found.relations.per_gain.values[0, 1] == pytest.approx(-0.05 / 0.21)
    assert found.relations.per_gain.labels() == (("correlated", "competing"), ("independent", "correlated"))
    assert found.source == "rewarded_soups of study 'synthetic', 6,000 completions, seeds 0, 1, 2"
    assert found.charged == {}


def test_a_prompt_without_a_score_is_left_out_of_base_and_policies_alike(task: Task) -> None:
    study = made_up(seeds=1)
    base = study.references["micro", 0].rewards
    base[1, 1] = np.nan  # of the first prompt remain .5 under the base and .5 - .1 under the first expert
    found = study_outcomes(study, replace(task, name="micro"), np.ones(2)).relations
    assert found is not None
    np.testing.assert_allclose(found.changes.values, [[0.2, -0.1], [0.0, 0.3]], atol=1e-9)


def test_an_infinite_score_of_a_study_is_refused_and_not_left_out(task: Task) -> None:
    study = made_up(seeds=1)
    study.references["micro", 0].rewards[1, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"base must be finite or NaN, got an infinity\."):
        study_outcomes(study, replace(task, name="micro"), np.ones(2))


def test_outcomes_are_exact_where_that_is_known(task: Task) -> None:
    study = made_up(seeds=1)
    base = study.references["micro", 0]
    known = np.array([[0.5, 0.4], [0.7, 0.2]])
    moves = np.array([[0.1, 0.0], [0.0, 0.05]])
    study = replace(
        study,
        references={("micro", 0): replace(base, exact_rewards=known)},
        cells=tuple(
            replace(cell, evaluations=tuple(
                replace(each, exact_rewards=known + moves[index])
                for index, each in enumerate(cell.evaluations)
            ))
            for cell in study.cells
        ),
    )  # fmt: skip
    found = study_outcomes(study, replace(task, name="micro"), np.ones(2)).relations
    assert found is not None
    np.testing.assert_allclose(found.changes.values, moves, atol=1e-9)


def test_a_method_with_one_policy_for_all_corners_tells_no_outcomes(task: Task) -> None:
    found = study_outcomes(made_up(own=2, kind="nearest"), replace(task, name="micro"), np.ones(2))
    assert found.relations is None
    assert "no finished method with a policy of its own for each objective alone" in found.source
    assert "add rewarded_soups" in found.source


def test_policies_of_equal_weights_tell_outcomes_where_a_gate_tells_them_apart(task: Task) -> None:
    study = made_up(own=2)
    cells = tuple(
        replace(
            cell, evaluations=tuple(replace(each, identity=f"gated {n}") for n, each in enumerate(cell.evaluations))
        )
        for cell in study.cells
    )
    named = replace(task, name="micro")
    assert study_outcomes(study, named, np.ones(2)).relations is None
    assert study_outcomes(replace(study, cells=cells), named, np.ones(2)).relations is not None


def test_more_seeds_come_before_policies_trained_for_the_preference_and_those_before_selected_ones(task: Task) -> None:
    named = replace(task, name="micro")
    selected, trained = made_up(method="weight_grid", kind="selected"), made_up()
    both = replace(selected, cells=(*selected.cells, *trained.cells))
    assert study_outcomes(both, named, np.ones(2)).source.startswith("rewarded_soups of")
    fewer = replace(both, cells=(*selected.cells, *trained.cells[:1]))
    assert study_outcomes(fewer, named, np.ones(2)).source.startswith("weight_grid of")


def test_the_method_that_was_named_tells_the_outcomes_whatever_else_there_is(task: Task) -> None:
    named, selected = replace(task, name="micro"), made_up(seeds=1, method="weight_grid", kind="selected")
    study = replace(selected, cells=(*made_up().cells, *selected.cells))
    assert study_outcomes(study, named, np.ones(2)).source.startswith("rewarded_soups of")
    found = study_outcomes(study, named, np.ones(2), "weight_grid")
    assert found.source == "weight_grid of study 'synthetic', 6,000 completions, seeds 0"


def test_a_method_that_cannot_tell_outcomes_is_refused_with_those_that_can(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, one = replace(task, name="micro"), made_up(method="linear", own=2)
    ceiling, grid = made_up(method="exact_gradient"), made_up(method="weight_grid", kind="selected")
    study = replace(one, cells=(*one.cells, *ceiling.cells, *made_up().cells, *grid.cells))
    monkeypatch.setattr(probe_outcomes, "read_study", lambda folder: study)
    assert read_for("somewhere", named, "weight_grid") is study
    for wrong in ("linear", "exact_gradient", "nothing"):
        with pytest.raises(
            UnknownNameError,
            match=rf"method \(--method\) must be one that has finished .* with a policy of its own for each objective "
            rf"alone \(rewarded_soups, weight_grid\), got '{wrong}'\. Name one of them\.$",
        ):
            read_for("somewhere", named, wrong)
    with pytest.raises(UnknownNameError, match=r"Name one of them\. Did you mean 'weight_grid'\?$"):
        read_for("somewhere", named, "weight-grid")
    study = replace(one, cells=(*one.cells, *ceiling.cells))
    with pytest.raises(UnknownNameError, match=r"got 'linear', and no finished method of study 'synthetic' has\. Fin"):
        read_for("somewhere", named, "linear")


def test_the_ceiling_tells_no_outcomes(task: Task) -> None:
    named, exact = replace(task, name="micro"), made_up(seeds=3, method="exact_gradient")
    assert {cell.family for cell in exact.cells} == {"ceiling"}
    assert study_outcomes(exact, named, np.ones(2)).relations is None
    beside = replace(exact, cells=(*exact.cells, *made_up(seeds=1).cells))  # more seeds would have won
    assert study_outcomes(beside, named, np.ones(2)).source.startswith("rewarded_soups of")


def test_a_probe_from_a_study_shows_its_outcomes(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, study = replace(task, name="micro"), made_up()
    monkeypatch.setattr(probe_outcomes, "read_study", lambda folder: study)
    with pytest.raises(UnknownNameError, match="got 'linear'"):
        probe(named, SAMPLES, study="somewhere", method="linear", progress=lambda *step: pytest.fail("too late"))
    found = probe(named, SAMPLES, study="somewhere", method="rewarded_soups", output=tmp_path)
    matrix = found.matrices()[2]
    assert matrix.cell(0, 1)[1] == "competing"
    assert matrix.cell(0, 0)[0].startswith("gain 0.21 [")
    plain = json.loads((tmp_path / "relations.json").read_text())
    assert plain["outcomes"]["labels"][1][0] == "independent"
    assert plain["outcomes"]["source"] == found.outcomes.source
    assert plain["outcomes"]["seeds"] == [[3, 3], [3, 3]]
    assert plain["cost"]["pilot"] == {}


def test_a_study_of_something_else_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_outcomes, "read_study", lambda folder: made_up())
    with pytest.raises(
        ConfigError, match=r"study \(--from\) must be one of the task '.*', got one of micro\. Name another"
    ):
        read_for("somewhere", task)
    other = replace(task, name="micro", objectives=(task.objectives[1], Objective("third", "rewards:first")))
    with pytest.raises(
        ConfigError, match=r"study \(--from\) must be one with the objectives second, third, got first, sec"
    ):
        read_for("somewhere", other)
