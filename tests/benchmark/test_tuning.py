"""Choosing settings: scores on paper, and of a cell of a sweep that is run in this process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from paretune.benchmark import measuring
from paretune.benchmark.measurements import TRIAL
from paretune.benchmark.measuring import assemble, measure
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan, PlannedCell
from paretune.benchmark.runner import planned_records, run
from paretune.benchmark.tuning import CellScore, _sampled, best, measure_of, read_score, score, write_score
from paretune.core.errors import RecordError
from paretune.core.task import Task
from paretune.executors.jobs import quiet_link
from paretune.records.files import write_json
from paretune.records.writing import write_lock
from paretune.tasks import load_task
from paretune.training.groups import begin_group, populations
from paretune.training.stages import job_task, run_group
from table_jobs import payloads

pytestmark = pytest.mark.usefixtures("only_what_is_named")


def exact(gained: list[float], possible: list[float], utilities: list[float] | None = None) -> CellScore:
    return CellScore(np.array(utilities or gained), np.array(gained), np.array(possible))


def test_the_first_of_equally_good_settings_is_chosen() -> None:
    assert best([0.1, 0.7, 0.7]) == 1
    assert best([0.7, 0.7 + 5e-7, 0.1]) == 0  # the last bits of single precision are no reason
    assert best([0.7, 0.7 + 5e-6, 0.1]) == 1
    assert best([None, -0.3, None]) == 1
    assert best([None, None]) is None
    assert best([]) is None


def test_no_other_settings_score_higher_and_no_earlier_ones_as_high() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = [None if each < 0 else float(each) for each in generator.normal(0.5, 0.5, size=6).round(1)]
        chosen = best(scores)
        known = [each for each in scores if each is not None]
        assert (chosen is None) == (not known)
        if chosen is not None:
            assert scores[chosen] == max(known)
            assert scores[chosen] not in scores[:chosen]


def test_a_captured_share_is_a_ratio_of_sums_over_preferences_and_instances() -> None:
    cells = [exact([0.1, 0.2], [0.2, 0.4]), exact([0.3, 0.0], [0.6, 0.2])]
    assert score(cells, "captured_share") == pytest.approx(0.6 / 1.4)  # a mean of the instances' shares is 7/16
    assert score(cells[:1], "captured_share") == pytest.approx(0.3 / 0.6)


def test_a_utility_is_a_mean_over_preferences_and_instances_and_missing_where_one_is() -> None:
    cells = [CellScore(np.array([0.2, 0.4])), CellScore(np.array([0.6, 0.8]))]
    assert score(cells, "utility") == pytest.approx(0.5)
    assert score([cells[0], CellScore(np.array([0.6, np.nan]))], "utility") is None
    assert score([cells[0], CellScore(None, trouble="nan")], "utility") is None
    assert score([exact([1.0], [2.0]), CellScore(None, trouble="nan")], "captured_share") is None


def test_shares_are_compared_only_where_every_cell_with_a_score_knows_one() -> None:
    known, sampled = exact([0.1], [0.2]), CellScore(np.array([0.5]))
    diverged = CellScore(None, trouble="training did not stay finite")
    assert measure_of([known, known, diverged]) == "captured_share"
    assert measure_of([known, sampled]) == "utility"
    assert measure_of([known, exact([0.0], [0.0], [0.5])]) == "utility"  # nothing to gain: its share is not defined
    assert measure_of([diverged]) == "utility"


def test_a_policy_without_a_known_kl_has_no_j_and_keeps_its_utility(monkeypatch: pytest.MonkeyPatch) -> None:
    import paretune.rl.evaluation

    task = load_task("counselling")
    records = [SimpleNamespace(scores=np.asarray([0.5, 0.3]), kl=kl) for kl in (2.0, float("nan"))]
    monkeypatch.setattr(paretune.rl.evaluation, "evaluate", lambda *arguments, **named: records)
    policy: Any = None
    sampled = [dataclasses.replace(task, judged_on=each, beta=0.1) for each in ("J", "utility")]
    judged, plain = (_sampled(policy, each, np.eye(2), 4, 0, quiet_link()).utilities for each in sampled)
    assert_allclose(judged, [0.5 - 0.2, np.nan])
    assert_allclose(plain, [0.5, 0.3])


def test_scores_survive_their_file_missing_ones_too_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for made in (
        CellScore(np.array([0.5, np.nan]), spent={"key": (64.0, 0.5)}),
        exact([0.1, -0.2], [0.3, 0.4]),
        CellScore(None, trouble="nan"),
    ):
        write_score(tmp_path / "tuning" / "cell", made, {"seed": 10_000})
        found = read_score(tmp_path, "cell")
        for name in ("utilities", "gained", "possible"):
            np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert (found.spent, found.trouble) == ({key: list(each) for key, each in made.spent.items()}, made.trouble)
    write_json(tmp_path / "tuning" / "cell" / "score.json", {"utilities": []})
    with pytest.raises(RecordError, match=r"score.json must have all its fields, got trouble with 'schema_version'"):
        read_score(tmp_path, "cell")


LISTED = {
    "name": "s", "tasks": [{"controlled": {"rho": 0, "alphabet": 4, "length": 3}}], "seeds": 1,
    "methods": {"linear": {"completions_each": 64, "learning_rate": 0.02}}, "budget": {"completions": 128},
    "preferences": {"grid": 1, "unseen": 0}, "tune": {"rank": [1, 4], "instances": 1}, "workers": 1,
}  # fmt: skip


def run_in_this_process(planned: Plan, folder: Path) -> PlannedCell:
    """Run the sweep's first cell without worker processes."""
    assert planned.sweep is not None
    cell = planned.sweep.cells[0]
    stages = [planned.sweep.by_key[key] for key in cell.stages]
    for members in populations(stages, workers=1):
        run_group(folder, begin_group(folder, members).folder, cell.task, quiet_link())
    measure(payloads(planned.sweep, TRIAL)[0], quiet_link())
    return cell


def test_an_exact_score_is_the_captured_share_on_development_prompts_and_test_prompts_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_study

    def guarded(job: dict[str, Any]) -> Task:
        found = job_task(job)
        return dataclasses.replace(found, splits=fake_study.Splits(found.splits))

    monkeypatch.setattr(measuring, "job_task", guarded)
    write_lock(tmp_path, planned_records(plan(LISTED, tmp_path)))
    planned = plan(LISTED, tmp_path)
    cell = run_in_this_process(planned, tmp_path)
    assert planned.sweep is not None
    assert planned.sweep.completions_to_evaluate == 0  # all completions are listed, none is sampled
    assert [each.state for each in plan(LISTED, tmp_path).sweep.cells] == ["finished", "new"]  # type: ignore[union-attr]
    found = read_score(tmp_path, cell.name)
    assert found.gained is not None
    assert found.possible is not None
    assert (found.gained <= found.possible).all()
    assert (found.possible > 0).all()
    assert (found.gained != 0).all()

    from paretune.models.solutions import SolutionSet
    from paretune.objectives.scoring import Scorer
    from paretune.optimum.exact import captured_share
    from paretune.rl.outcomes import outcomes, tables, truth

    rows, given = (
        cell.task.splits["development"],
        cell.training_preferences,
    )  # the same along the way of a reported cell
    _, assembly = assemble(cell.plain(), tmp_path, cell.task)
    solutions = SolutionSet.from_assembly(cell.task, assembly, "linear", "single-policy")
    log_reference, rewards = tables(cell.task, rows, Scorer(cell.task.objectives))
    assert cell.task.enumeration is not None
    reached = outcomes(
        solutions.policies_for(given), rows, cell.task.enumeration, log_reference, rewards, (1.0,)
    ).at_scale(1.0)
    known = truth(log_reference, rewards, given, cell.task.beta)
    solutions.bank.unwrap()
    share = captured_share(
        (reached[0] - cell.task.beta * reached[1][..., None]).mean(axis=1), known.reference_scores, known.scores, given
    )
    assert score([found], "captured_share") == pytest.approx(share)
    np.testing.assert_allclose(found.utilities, np.einsum("mk,mk->m", given, reached[0].mean(axis=1)))


@pytest.mark.slow
def test_a_controlled_task_is_tuned_by_captured_share_and_reported_with_what_was_chosen(tmp_path: Path) -> None:
    made = {
        **LISTED,
        "methods": {"linear": {"completions_each": 64}},
        "tune": {"learning_rate": [1e-6, 5e-3], "instances": 1},
    }
    result = run(made, tmp_path / "out", progress=False)
    assert result.complete
    (record,) = result.records.tuning
    assert (record.measure, record.chosen) == ("captured_share", 1)
    assert record.points[0].score == pytest.approx(0, abs=1e-2)  # a rate of nothing stays the base model
    (cell,) = plan(made, tmp_path / "out").cells
    assert (cell.entry.settings["learning_rate"], cell.state) == (5e-3, "finished")
    page = result.page.read_text()
    assert "How settings were chosen" in page
    assert "learning_rate=0.005" in page
    assert (result.page.parent / "tables" / "tuning.csv").is_file()
