import json
from dataclasses import asdict, replace

import numpy as np
import pytest

import builders
from builders import assert_same, synthetic_study, task_info, tuning
from paretune.core.digests import digest
from paretune.core.errors import RecordError, VersionError
from paretune.core.ledger import Ledger
from paretune.core.protocols import Table
from paretune.core.stages import Stage
from paretune.core.task import Objective, Task
from paretune.records.evaluations import write_evaluation
from paretune.records.files import AGAIN, mark_done, mark_failed, read_signed, write_json, write_signed
from paretune.records.layout import (
    EVALUATION,
    OUTCOMES,
    TIMING,
    TRUTH,
    cell_folder,
    evaluation_path,
    evaluations_folder,
    outcomes_folder,
    stage_folder,
    truth_folder,
)
from paretune.records.outcomes import write_outcome
from paretune.records.reading import read_lock, read_stage, read_study
from paretune.records.study import ObjectiveInfo
from paretune.records.writing import write_cell, write_ledger, write_lock, write_stage


def write_stage_record(folder, stage):
    path = stage_folder(folder, stage.key)
    write_json(path / "stage.json", {"kind": stage.kind, "needs": stage.needs, "settings": stage.settings})
    ledger = Ledger(counts=dict(stage.counts), seconds=dict(stage.phases), repeated=dict(stage.repeated))
    ledger.cpu_seconds = dict(stage.cpu_phases)
    ledger.attempts = {f"2026-11-{number:02d}": each for number, each in enumerate(stage.attempts)}
    ledger.peak_memory_bytes = stage.peak_memory_bytes
    write_ledger(folder, stage.key, ledger)
    mark_done(path, artefacts=["adapter"] * stage.adapters)


def with_tables(study):
    """Return a study with what it would have asked measurements for."""
    tables = [
        Table(f"references/{task}-{seed}", task, seed, {}, measurement="reference") for task, seed in study.references
    ]
    tables += [Table(f"truths/{task}-{seed}", task, seed, {}, measurement="truth") for task, seed in study.truths]
    for timing in study.timings:
        mine = tuple(cell.cell for cell in study.cells if (cell.task, cell.method) == (timing.task, timing.method))
        tables.append(Table(f"timing/{timing.task}-{timing.method}", timing.task, 0, {}, mine, measurement="timing"))
    for cell in study.cells:
        for name in ("evaluations", *(["outcomes"] if cell.outcomes is not None else [])):
            folder = f"runs/{cell.cell}/{name}"
            tables.append(
                Table(
                    folder,
                    cell.task,
                    cell.seed,
                    {},
                    (cell.cell,),
                    measurement="evaluation" if name == "evaluations" else name,
                )
            )
    return replace(study, tables=tuple(tables))


def write_study(folder, study):
    """Write a whole study the way the runner does; return it with what reading it back adds."""
    study = with_tables(study)
    write_lock(folder, study)

    def sealed(name, content):
        table = next(table for table in study.tables if table.folder == name)
        for file, write in content.items():
            write(folder / name / file)
        mark_done(folder / name, {"key": table.key, "depends_on": table.depends_on})

    for timing in study.timings:
        sealed(
            f"timing/{timing.task}-{timing.method}", {TIMING: lambda path, each=timing: write_json(path, asdict(each))}
        )
    for (task, seed), record in study.references.items():
        sealed(f"references/{task}-{seed}", {EVALUATION: lambda path, each=record: write_evaluation(each, path)})
    for (task, seed), truth in study.truths.items():
        sealed(f"truths/{task}-{seed}", {TRUTH: lambda path, each=truth: write_outcome(path, each)})
    for stage in {stage.key: stage for cell in study.cells for stage in cell.stages}.values():
        write_stage_record(folder, stage)
    for cell in study.cells:
        if cell.state == "pending":
            continue
        plain = {
            name: getattr(cell, name) for name in ("cell", "task", "method", "family", "budget_completions", "seed")
        }
        path = write_cell(folder, {**plain, "stages": [stage.key for stage in cell.stages]}, cell.environment)
        if cell.state == "failed":
            mark_failed(path, cell.reason, cell.message)
            continue
        mark_done(path, among=("cell.json",))
        files = {f"{index:03d}.parquet": each for index, each in enumerate(cell.evaluations)}
        write = {file: lambda path, each=each: write_evaluation(each, path) for file, each in files.items()}
        sealed(f"runs/{cell.cell}/evaluations", write)
        if cell.outcomes is not None:
            sealed(f"runs/{cell.cell}/outcomes", {OUTCOMES: lambda path, each=cell.outcomes: write_outcome(path, each)})
    gone = {cell.cell for cell in study.cells if cell.state != "done"}
    missing = {
        table.folder: "not measured yet" for table in study.tables if table.cells and gone.issuperset(table.cells)
    }
    plain = json.loads(json.dumps(study.resolved))
    return replace(study, folder=folder, resolved=plain, missing=missing)


def small_study(**changes):
    info = task_info(preferences=[[1.0, 0.0, 0.0], [0.2, 0.1, 0.7]], unseen=[False, True], test_prompts=2, samples=1)
    return synthetic_study(seeds=(0, 1), task=info, **changes)


def test_a_stage_of_an_earlier_version_is_read_without_its_cpu_seconds_and_attempts(tmp_path):
    now = builders.stage("expert", 64)
    write_stage_record(tmp_path, now)
    path = stage_folder(tmp_path, now.key)
    ledger = json.loads((path / "ledger.json").read_text())
    assert (ledger.pop("cpu_seconds").keys(), len(ledger.pop("attempts"))) == (now.phases.keys(), 1)
    (path / "ledger.json").write_text(json.dumps(ledger))
    mark_done(path, artefacts=["adapter"])
    before = read_stage(tmp_path, now.key)
    assert (before.seconds, before.cpu_seconds, before.attempts) == (10.0, None, ({},))
    assert read_stage(tmp_path, now.key) == replace(now, cpu_phases=dict.fromkeys(now.phases), attempts=({},))


@pytest.fixture
def folder(tmp_path):
    write_study(tmp_path, small_study())
    return tmp_path


def states(folder):
    return {cell.cell: cell.state for cell in read_study(folder).cells if cell.state != "done"}


def test_study_is_read_back_exactly(tmp_path):
    study = small_study(failed={("linear", 1): "crash"}, pending=[("weight_grid", 0)], missing=1)
    written = write_study(tmp_path, study)
    assert_same(written, read_study(tmp_path))


def test_tuning_is_read_back_and_where_it_is_damaged_the_plan_can_still_be_read(folder):
    study = replace(small_study(), tuning=(tuning(), tuning((None, 0.3, 0.1), "weight_grid", "captured_share")))
    study = replace(study, tuning=(*study.tuning, tuning((None,), "rewarded_soups", chosen=None)))
    write_lock(folder, study)
    assert_same(study.tuning, read_study(folder).tuning)
    path = folder / "study.lock.json"
    lock = read_signed(path)
    del lock["tuning"][1]["points"][0]["score"]
    write_signed(path, lock)
    with pytest.raises(RecordError, match=r"study.lock.json must have all its fields, got trouble with 'score'"):
        read_study(folder)
    assert read_lock(folder).name == study.name  # so that the next run can write it again


def test_task_info_survives_with_open_ranges_and_no_threshold(tmp_path):
    study = small_study()
    info = study.tasks["counselling"]
    odd = ObjectiveInfo("logit", (-np.inf, 3.5), None, 4, False)
    study = replace(study, tasks={"counselling": replace(info, objectives=(odd, *info.objectives))}, cells=())
    write_lock(tmp_path, study)
    assert_same(study.tasks, read_lock(tmp_path).tasks)


def test_exact_scores_are_read_beside_the_samples(tmp_path):
    study = small_study(exact=True)
    written = write_study(tmp_path, study)
    found = read_study(tmp_path)
    assert_same(written, found)
    cell = found.cells[0]
    rewards, kl = cell.outcomes.at_scale(1.0)
    for index, record in enumerate(cell.evaluations):
        assert record.scores == pytest.approx(rewards[index].mean(axis=0))
        assert record.kl == pytest.approx(kl[index].mean())
        assert record.scores != pytest.approx(record.rewards[:, :3].mean(axis=0))  # the samples' mean
    base = found.references[cell.task, cell.seed]
    assert base.scores == pytest.approx(found.truths[cell.task, cell.seed].reference_rewards.mean(axis=0))
    assert base.kl == 0


def test_scores_from_samples_at_every_scale_are_not_taken_for_exact(tmp_path):
    study = small_study(exact=True)
    study = replace(
        study,
        cells=tuple(replace(cell, outcomes=replace(cell.outcomes, exact=False)) for cell in study.cells),
    )
    write_study(tmp_path, study)
    for cell in read_study(tmp_path).cells:
        assert [record.exact_rewards for record in cell.evaluations] == [None] * 2


def test_exact_scores_of_other_prompts_or_preferences_cost_their_cell_alone(tmp_path):
    study = small_study(exact=True)
    first, second, third, *others = study.cells
    one, two, three = first.outcomes, second.outcomes, third.outcomes
    prompt = replace(one, rewards=one.rewards[:, :, :1], kl=one.kl[:, :, :1])
    preference = replace(two, preferences=two.preferences[:1], rewards=two.rewards[:1], kl=two.kl[:1])
    turned = replace(three, preferences=three.preferences[::-1])
    changed = [
        replace(cell, outcomes=each)
        for cell, each in zip((first, second, third), (prompt, preference, turned), strict=True)
    ]
    cells = (*changed, *others)
    write_study(tmp_path, replace(study, cells=cells))
    read = {cell.cell: cell for cell in read_study(tmp_path).cells}
    lost = {first.cell, second.cell, third.cell}
    assert {name: cell.state for name, cell in read.items() if cell.state != "done"} == dict.fromkeys(lost, "pending")
    assert "exact scores must be of the prompts that were sampled" in read[first.cell].message
    for cell in (second, third):
        assert "outcomes.json must be of the preferences that were evaluated" in read[cell.cell].message


def test_family_settings_and_what_is_judged_survive_writing_and_reading(tmp_path):
    study = small_study()
    settings = {"rho": -0.8, "objectives": 3.0}
    task = replace(study.tasks["counselling"], family_settings=settings, judged_on="J")
    write_study(tmp_path, replace(study, tasks={"counselling": task}))
    read = read_lock(tmp_path).tasks["counselling"]
    assert (read.family_settings, read.judged_on) == (settings, "J")


def test_lock_alone_is_a_study_with_every_cell_pending(tmp_path):
    write_lock(tmp_path, small_study())
    study = read_study(tmp_path)
    assert {cell.state for cell in study.cells} == {"pending"}
    assert {cell.message for cell in study.cells} == {""}
    assert study.references == {}
    assert study.timings == ()


def test_stage_file_names_all_its_key_depends_on(tmp_path):
    task = Task("t", "t", "m", "d", "{prompt}", {"train": (), "development": (), "test": ()}, (Objective("a", "m:a"),),
                reference_point=(0.0,))  # fmt: skip
    need = Stage("expert", "m:f", {"rank": 8}, {"objective_weights": [1.0]}, completions=100)
    stage = Stage("measurement", "m:g", {}, needs=(need,), completions=50, seed=3, version=2)
    path = write_stage(tmp_path, stage, task)
    write_ledger(tmp_path, stage.key(task), Ledger(seconds={"sampling": 1.0, "update": 0.5}), ["other"])
    written = json.loads((path / "stage.json").read_text())
    assert path.name == written["key"] == stage.key(task)
    assert written["trajectory"] == stage.trajectory_key(task)
    assert written["needs"] == [need.key(task)]
    assert json.loads((path / "ledger.json").read_text())["trained_with"] == ["other"]
    assert [written[name] for name in ("kind", "run", "version", "completions", "seed")] == [
        "measurement", "m:g", 2, 50, 3,
    ]  # fmt: skip
    mark_done(path, artefacts=["experts/001", "scores.json", "experts/000"])
    record = read_stage(tmp_path, stage.key(task))
    assert record.adapters == 2
    assert record.needs == (need.key(task),)
    assert record.seconds == 1.5  # phases do not overlap: 1.0 + 0.5


def test_damaged_evaluation_makes_its_cell_pending_and_no_other(folder):
    path = evaluation_path(evaluations_folder(folder, "counselling-linear-6000-0"), 1)
    path.write_bytes(path.read_bytes()[:-4])
    assert states(folder) == {"counselling-linear-6000-0": "pending"}
    message = next(cell.message for cell in read_study(folder).cells if cell.state == "pending")
    assert "Run the same command again" in message
    assert message.startswith("runs/counselling-linear-6000-0/evaluations: 001.parquet has changed")


def test_damaged_stage_makes_pending_the_cells_that_use_it_and_no_other(folder):
    # linear and weight_grid share their experts of a seed; rewarded_soups trains others
    shared = small_study().cells[0].stages[0].key
    (stage_folder(folder, shared) / "ledger.json").write_text("{")
    assert states(folder) == {"counselling-linear-6000-0": "pending", "counselling-weight_grid-6000-0": "pending"}


def test_stage_with_a_field_missing_makes_its_cells_pending(folder):
    key = small_study().cells[-1].stages[0].key
    write_json(stage_folder(folder, key) / "ledger.json", {"counts": {}})
    assert states(folder) == {"counselling-rewarded_soups-6000-1": "pending"}


def test_cell_that_is_another_cell_is_not_read(folder):
    path = cell_folder(folder, "counselling-linear-6000-0")
    cell = json.loads((path / "cell.json").read_text())
    write_json(path / "cell.json", {**cell, "seed": 7})
    mark_done(path, among=("cell.json",))
    assert states(folder) == {"counselling-linear-6000-0": "pending"}


def test_what_has_changed_since_it_was_measured_is_missing(folder):
    study = with_tables(small_study())
    changed = tuple(replace(table, depends_on={"beta": 0.5}) for table in study.tables)
    write_lock(folder, replace(study, tables=changed))
    found = read_study(folder)
    assert {cell.state for cell in found.cells} == {"pending"}
    assert (found.references, found.timings) == ({}, ())
    assert set(found.missing.values()) == {"what it depends on has changed"}


def test_damaged_failure_marker_is_still_a_failure(folder):
    path = cell_folder(folder, "counselling-linear-6000-0")
    (path / "DONE.json").unlink()
    (path / "FAILED.json").write_text("{")
    cell = read_study(folder).cells[0]
    assert (cell.state, cell.reason) == ("failed", None)
    assert "FAILED.json must hold JSON" in cell.message
    assert len(cell.stages) == 4


def test_unreadable_reference_is_left_out(folder):
    (folder / "references" / "counselling-1" / EVALUATION).write_bytes(b"")
    found = read_study(folder)
    assert list(found.references) == [("counselling", 0)]
    assert found.missing == {"references/counselling-1": "evaluation.parquet has changed since it was written"}


@pytest.mark.parametrize("content", [None, "{", '{"schema_version": 1}'])
def test_without_its_record_of_what_can_be_reached_a_reference_does_not_pass_for_exact(tmp_path, content):
    write_study(tmp_path, small_study(exact=True))
    path = truth_folder(tmp_path, "counselling", 1) / TRUTH
    path.unlink() if content is None else path.write_text(content)
    found = read_study(tmp_path)
    assert list(found.references) == list(found.truths) == [("counselling", 0)]
    assert list(found.missing) == ["truths/counselling-1"]


def test_where_exact_scores_are_lost_sampled_ones_do_not_stand_in_and_no_other_cell_is_touched(tmp_path):
    study = small_study(exact=True)
    study = replace(study, tasks={name: replace(info, listed=True) for name, info in study.tasks.items()})
    write_study(tmp_path, study)
    first, *others = study.cells
    (outcomes_folder(tmp_path, first.cell) / OUTCOMES).write_text("[1, 2]")
    found = {cell.cell: cell for cell in read_study(tmp_path).cells}
    assert {cell.state for cell in found.values()} == {"done"}
    assert found[first.cell].outcomes is None
    assert all(np.isnan(each.scores).all() and np.isnan(each.kl) for each in found[first.cell].evaluations)
    for cell in others:
        assert_same(cell, found[cell.cell])


OLD_TIMING = {
    "task": "counselling", "method": "linear", "rows": 64, "tokens_per_second": [90.0],
    "base_tokens_per_second": [100.0], "threads": 2, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (OLD_TIMING, "must have all its fields, got trouble with 'batches'"),  # of version 2 of the measurement
        ({**OLD_TIMING, "batches": []}, "must have timed some number of rows, got none"),
        ({**OLD_TIMING, "batches": [{"rows": 1}]}, "must have all its fields, got trouble with 'latency_seconds'"),
        ({**OLD_TIMING, "batches": 3}, "must have all its fields"),
    ],
)
def test_a_timing_of_an_earlier_version_is_missing_and_costs_no_other(folder, content, trouble):
    path = folder / "timing" / "counselling-linear"
    values = read_signed(path / "DONE.json")["values"]
    write_json(path / TIMING, content)
    mark_done(path, values)
    found = read_study(folder)
    assert [timing.method for timing in found.timings] == ["weight_grid", "rewarded_soups"]
    assert list(found.missing) == ["timing/counselling-linear"]
    assert trouble in found.missing["timing/counselling-linear"]
    assert AGAIN in found.missing["timing/counselling-linear"]


def test_a_failed_table_is_missing_for_its_reason(folder):
    path = folder / "timing" / "counselling-linear"
    (path / "DONE.json").unlink()
    mark_failed(path, "crash", "worker gone")
    found = read_study(folder)
    assert [timing.method for timing in found.timings] == ["weight_grid", "rewarded_soups"]
    assert found.missing == {"timing/counselling-linear": "failed (crash): worker gone"}


def test_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(RecordError, match="must be a study"):
        read_study(tmp_path)


def flipped(text):
    return text.replace('"seed": 1', '"seed": 2', 1)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"schema_version": 3, "name": "x"}', flipped, None])
def test_damaged_lock_is_refused_with_the_command_that_mends_it(folder, content):
    path = folder / "study.lock.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content(path.read_text()) if callable(content) else content)
    with pytest.raises(
        RecordError, match=r"study\.lock\.json must .*Give `paretune run STUDY -o .*` once more"
    ) as caught:
        read_study(folder)
    assert not isinstance(caught.value, VersionError)


@pytest.mark.parametrize("content", ['{"schema_version": 1, "name": "x"}', '{"schema_version": 99}'])
def test_a_study_of_another_version_is_refused(folder, content):
    (folder / "study.lock.json").write_text(content)
    with pytest.raises(VersionError, match="Use the paretune that wrote it, or start in another folder"):
        read_study(folder)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a:b"])
def test_names_that_leave_the_study_are_refused(tmp_path, name):
    with pytest.raises(RecordError, match="Rename it"):
        cell_folder(tmp_path, name)
    assert cell_folder(tmp_path, digest("x")).parent == tmp_path / "runs"
