from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.benchmark.plan import plan
from paretune.core.errors import BudgetError, ConfigError, RecordError, RewardError, StopRequested, StudyError
from paretune.core.ledger import Ledger
from paretune.core.sampled import counting_samples, note_sampled
from paretune.core.stages import Stage
from paretune.executors.jobs import Link, quiet_link
from paretune.methods.prompt_halves import half_of_prompts
from paretune.records.files import DONE, is_done, read_json, write_json
from paretune.records.layout import stage_folder
from paretune.records.reading import read_stage
from paretune.training.context import GroupContext
from paretune.training.finished import stage_from_plain, stage_result, stage_to_plain
from paretune.training.groups import begin_group
from paretune.training.stages import run_group

Make = Callable[..., dict[str, Any]]


def context_of(study: dict[str, Any], root: Path, link: Link | None = None) -> GroupContext:
    stages = plan(study, root / "elsewhere").stages
    group = begin_group(root, stages) if not list(root.glob("groups/*")) else None
    folder = group.folder if group else next(root.glob("groups/*"))
    return GroupContext(stages[0].task, [each.stage for each in stages], root, folder, link or quiet_link())


def test_a_stage_survives_json() -> None:
    need = Stage("expert", "a:b", {"rank": 8}, {"objective_weights": [0.5, 0.5]}, (), 64, 3, 2)
    stage = Stage("measurement", "a:c", {"each": 8}, needs=(need,), completions=8, seed=1)
    assert stage_from_plain(stage_to_plain(stage)) == stage


def test_what_a_kill_lost_is_repeated_and_not_charged(study: Make, tmp_path: Path) -> None:
    made = study(seeds=1)
    killed = context_of(made, tmp_path)
    stage = killed.stages[0]
    killed.ledger(stage).charge(completions=8, tokens=80)
    saved = killed.ledger(stage).state()  # a checkpoint here
    killed.ledger(stage).charge(completions=16, tokens=160)
    killed.progress(16)  # the update whose work is lost: 16 completions
    resumed = context_of(made, tmp_path)
    ledger = resumed.ledger(stage)
    ledger.restore(saved)
    ledger.charge(completions=24, tokens=240)
    resumed.seal(stage, {"loss": 1.5})
    record = read_stage(tmp_path, stage.key(resumed.task))
    assert (record.counts["completions"], record.repeated["completions"]) == (32, 16)
    assert (record.counts["tokens"], record.repeated["tokens"]) == (320, 160)
    result = stage_result(tmp_path, stage, resumed.task)
    assert (result.stage, result.values, result.artefacts) == (stage, {"loss": 1.5}, {})
    assert record.seconds > 0
    assert record.peak_memory_bytes > 1_000_000


def test_a_stage_remembers_the_attempts_that_its_seconds_are_of(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, loads = study(seeds=1), iter([4.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr("os.getloadavg", lambda: (next(loads), 0.0, 0.0))
    lost = context_of(made, tmp_path)  # sees a load of 4, and leaves no checkpoint
    stage = lost.stages[0]
    lost.ledger(stage).charge(completions=8)
    killed = context_of(made, tmp_path)
    killed.ledger(stage).add_seconds("update", 3.0, 2.5)
    saved = killed.ledger(stage).state()
    resumed = context_of(made, tmp_path)
    ledger = resumed.ledger(stage)
    ledger.resume(saved)
    ledger.add_seconds("update", 1.0, 0.5)
    ledger.restore(ledger.state())  # as between the lengths of one attempt
    resumed.seal(stage, {})
    record = read_stage(tmp_path, stage.key(resumed.task))
    assert (record.seconds, record.cpu_seconds) == (4.0, 3.0)
    assert [each["load"] for each in record.attempts] == [2.0, 1.0]  # two of three
    assert {each["device"] for each in record.attempts} == {"cpu"}
    assert {"cpu", "cores", "threads_per_worker", "torch", "code", "dtypes"} <= record.attempts[1].keys()


def test_a_stage_that_times_nothing_is_given_wall_and_cpu_seconds_of_its_run(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    context.seal(context.stages[0], {})
    record = read_stage(tmp_path, context.key(context.stages[0]))
    assert record.cpu_seconds is not None
    assert 0.05 / len(context.stages) <= record.cpu_seconds  # its share of what all of them took
    assert record.seconds == record.phases["total"]


def test_lengths_of_a_trajectory_share_a_ledger_with_the_longest_budget(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1, budget={"completions": [64, 128]}), tmp_path)
    ledgers = {id(context.ledger(stage)) for stage in context.stages}
    assert len(ledgers) == 2  # two experts of two lengths each
    ledger = context.ledger(context.stages[0])
    ledger.restore({**ledger.state(), "budget_completions": 32})  # a shorter run's checkpoint says so
    ledger.charge(completions=64)
    with pytest.raises(BudgetError, match="of a stage must stay within the 64 that it was planned with"):
        ledger.charge(completions=1)


def test_a_sealed_stage_is_not_written_again(study: Make, tmp_path: Path) -> None:
    made = study(seeds=1)
    first = context_of(made, tmp_path)
    stage = first.stages[0]
    folder = first.artefact(stage, "adapter")
    folder.mkdir()
    (folder / "adapter.json").write_text("first")
    first.seal(stage, {})
    again = context_of(made, tmp_path)
    scratch = again.artefact(stage, "adapter")
    assert scratch != folder
    scratch.mkdir(parents=True)
    (scratch / "adapter.json").write_text("second")
    again.seal(stage, {})
    assert (folder / "adapter.json").read_text() == "first"
    assert is_done(folder.parent)


def test_a_stage_may_leave_any_number_of_files_and_folders(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    names = ["experts/001", "experts/000", "gate.safetensors", "tables/deep/scores.json"]
    for name in names:
        path = context.artefact(stage, name)
        assert path == stage_folder(tmp_path, stage.key(context.task)) / name
        if path.parent.name == "experts":
            path.mkdir()
            path = path / "adapter_model.safetensors"
        path.write_text(name)  # parents are there
    context.seal(stage, {"loss": 1.5})
    result = context.result(stage)
    assert {name: path.relative_to(result.folder).as_posix() for name, path in result.artefacts.items()} == {
        name: name for name in names
    }
    assert [adapter.name for adapter in result.adapters] == ["000", "001"]
    assert result.values == {"loss": 1.5}
    files = read_json(result.folder / DONE)["files"]
    assert {"experts/001/adapter_model.safetensors", "gate.safetensors", "tables/deep/scores.json"} <= set(files)
    assert is_done(result.folder)
    result.artefacts["tables/deep/scores.json"].write_text("changed")
    assert not is_done(result.folder)


@pytest.mark.parametrize("empty", [False, True])
def test_an_artefact_asked_for_and_not_written_is_named(study: Make, tmp_path: Path, empty: bool) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    context.artefact(stage, "table.json").write_text("[]")
    path = context.artefact(stage, "experts/000")
    if empty:
        path.mkdir()
    with pytest.raises(
        RecordError,
        match=rf"artefact 'experts/000' must be written before its stage \(expert {stage.key(context.task)}\) is "
        r"sealed, got nothing there\. Let fake_study:train write it",
    ):
        context.seal(stage, {})
    assert not is_done(path.parents[1])


def test_what_comes_after_a_stage_was_sealed_is_refused(study: Make, tmp_path: Path) -> None:
    made = study(seeds=1)
    context = context_of(made, tmp_path)
    stage = context.stages[0]
    key = stage.key(context.task)
    context.artefact(stage, "table.json").write_text("[]")
    context.seal(stage, {"loss": 1})
    with pytest.raises(
        RecordError,
        match=rf"artefact 'late\.json' must come before its stage \(expert {key}\) is sealed, got it afterwards\. Let "
        r"fake_study:train seal each stage once, when all that it leaves is written\.",
    ):
        context.artefact(stage, "late.json")
    with pytest.raises(RecordError, match=rf"state for a longer run must come before its stage \(expert {key}\) is"):
        context.end_folder(stage)
    with pytest.raises(
        RecordError, match=rf"a stage must be sealed once, got expert {key} again\. Let fake_study:train"
    ):
        context.seal(stage, {"loss": 2})
    assert (context.result(stage).values, list(context.result(stage).artefacts)) == ({"loss": 1}, ["table.json"])
    resumed = context_of(made, tmp_path)  # another attempt does it once more, and nobody looks
    resumed.artefact(stage, "late.json").write_text("[]")
    resumed.seal(stage, {"loss": 2})
    assert resumed.result(stage).values == {"loss": 1}


def test_a_file_that_is_in_no_artefact_is_refused(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    path = context.artefact(stage, "experts/000")
    path.mkdir()
    (path / "adapter.json").write_text("{}")
    (path.parent / "scores.json").write_text("[]")
    key = stage.key(context.task)
    with pytest.raises(
        RecordError,
        match=rf"file 'experts/scores\.json' of a stage \(expert {key}\) must be an artefact, or in one, got none of "
        r"that name asked for\. Write it to context\.artefact\(stage, 'experts/scores\.json'\)\.",
    ):
        context.seal(stage, {})
    assert not is_done(stage_folder(tmp_path, key))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["experts/000", "experts/002"], r"got 000, 002 without experts/001\."),
        (["experts/001", "experts/002"], r"got 001, 002 without experts/000\."),
        (["experts/0", "experts/1"], r"got 0, 1 without experts/000, experts/001\."),
        (["experts/first"], r"got first without experts/000\. Name them by their place"),
    ],
)
def test_a_gap_among_experts_is_named(study: Make, tmp_path: Path, names: list[str], message: str) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    for name in ["adapter", *names]:
        context.artefact(stage, name).write_text("")
    with pytest.raises(
        RecordError, match=r"experts of a stage \(.*\) must be numbered from experts/000 on, " + message
    ):
        context.seal(stage, {})


def test_an_artefact_that_no_stage_left_is_told_with_those_that_are_there(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    context.artefact(stage, "scores.json").write_text("[]")
    context.seal(stage, {})
    artefacts = context.result(stage).artefacts
    with pytest.raises(
        RecordError,
        match=r"'score\.json' must be one that the stage \(expert .*\) left, got scores\.json\. Did you mean",
    ):
        artefacts["score.json"]
    with pytest.raises(RecordError, match=r"got scores\.json\. Let its run function write it to context\.artefact"):
        artefacts["gate.safetensors"]
    assert artefacts.get("gate.safetensors") is None


def test_stages_that_a_run_function_was_not_given_are_refused(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = replace(context.stages[0], seed=9)
    for refused in (
        lambda: context.seal(stage, {}), lambda: context.artefact(stage, "adapter"), lambda: context.ledger(stage),
    ):  # fmt: skip
        with pytest.raises(
            RecordError,
            match=r"stage must be one of the stages that fake_study:train was given, got expert [0-9a-f]{20}\.",
        ):
            refused()
    with pytest.raises(
        RecordError, match=r"result must be of a stage that one of the .* needs, .* Stage\(needs=\.\.\.\)"
    ):
        context.result(stage)


@pytest.mark.parametrize("fault", ["", "second raised"])  # it says None to everything, or fails throughout
@pytest.mark.parametrize("weights", [[1.0, 0.0], None])  # an expert, or a bank that draws preferences
@pytest.mark.parametrize(
    ("feedback", "wanted"),
    [
        ("told", None),
        ("utility", None),
        *((each, row) for each in ("utility", "oracle") for row in ([1, 0], [0.5, 0.5])),
    ],
)
def test_objectives_count_that_weights_name_or_somebody_wants_of_a_training_prompt(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedback: str, wanted: Any, weights: Any, fault: str
) -> None:
    """As in the learner, which stops within three updates: nothing is trained to the end and refused then."""
    context = context_of(study(seeds=1), tmp_path)
    train = context.task.splits["train"]
    ledger = Ledger()
    ledger.count_rewards([8, 0], 8, ["", fault])
    monkeypatch.setattr(context, "ledger", lambda stage: ledger)
    if wanted is not None:
        # the last training prompt is the one whose user wants it; prompts of other splits do not count
        of_prompts = lambda task, rows, told: np.asarray([[wanted if each == train[-1] else [1, 0] for each in rows]])  # noqa: E731
        monkeypatch.setattr(type(context.task), "prompt_preferences", of_prompts)
    stage = Stage("expert", "a:b", {"feedback": feedback}, {"objective_weights": weights} if weights else {}, (), 64)
    counts = weights is None if wanted is None else wanted == [0.5, 0.5]
    if counts:
        with pytest.raises(RewardError, match="reward of every objective must give at least one score, got none for 8"):
            context._check_scored(stage)
    else:
        context._check_scored(stage)


def test_of_an_expert_of_half_of_the_prompts_those_alone_count(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(study(seeds=1), tmp_path)
    kind, rows = type(context.task), context.task.splits["train"]
    upper = {str(row["prompt_id"]): number >= 2 for number, row in enumerate(rows)}  # of whom alone it is wanted
    monkeypatch.setattr(kind, "split_feature", lambda task, rows, by: np.asarray([upper[r["prompt_id"]] for r in rows]))
    of_prompts = lambda task, rows, told: np.asarray([[[1, upper[each["prompt_id"]]] for each in rows]])  # noqa: E731
    monkeypatch.setattr(kind, "prompt_preferences", of_prompts)
    for half, wanted in (("below", [True, False]), ("above", [True, True])):
        member = {"objective_weights": [1.0, 0.0], "prompts": half_of_prompts(half, "", 0.5)}
        assert context._wanted(Stage("expert", "a:b", {"feedback": "utility"}, member, (), 64)).tolist() == wanted


def test_a_stage_that_sampled_more_than_it_charged_is_not_sealed(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage, other = context.stages[:2]
    key = stage.key(context.task)
    with counting_samples() as context.sampled:
        context.ledger(other).charge(completions=8)  # what a population samples together, its ledgers hold together
        note_sampled(16)
        with pytest.raises(
            BudgetError,
            match=r"completions that fake_study:train samples must be charged, got 16 sampled and 8 charged before a "
            rf"stage \(expert {key}\) is sealed\. Call context\.ledger\(stage\)\.charge\(completions=\.\.\.\) before",
        ):
            context.seal(stage, {})
        assert not is_done(stage_folder(tmp_path, key))
    again = context_of(study(seeds=1), tmp_path / "again")
    with counting_samples() as again.sampled:
        again.ledger(stage).charge(completions=16)
        note_sampled(16)
        again.ledger(stage).restore(Ledger().state())  # back to a checkpoint: what was charged on the way still was
        again.seal(stage, {})
    assert is_done(stage_folder(tmp_path / "again", key))


def test_what_an_earlier_attempt_charged_and_kept_may_be_sampled_by_the_next(study: Make, tmp_path: Path) -> None:
    made = study(seeds=1)
    killed = context_of(made, tmp_path)
    killed.ledger(killed.stages[0]).charge(completions=16)  # all of it first, in a checkpoint; then killed
    saved = killed.ledger(killed.stages[0]).state()
    resumed = context_of(made, tmp_path)
    resumed.ledger(resumed.stages[0]).restore(saved)
    with counting_samples() as resumed.sampled:
        note_sampled(16)
        resumed.seal(resumed.stages[0], {})
        note_sampled(1)
        with pytest.raises(BudgetError, match=r"must be charged, got 17 sampled and 16 charged"):
            resumed.seal(resumed.stages[1], {})


@pytest.mark.parametrize(
    "name", ["", ".", "/tmp/x", "../x", "experts/../../x", "stage.json", "checkpoint/x", "DONE.json", ".hidden"]
)
def test_an_artefact_that_is_not_the_stages_own_is_refused(study: Make, tmp_path: Path, name: str) -> None:
    context = context_of(study(seeds=1), tmp_path)
    with pytest.raises(ConfigError, match=r"artefact must be a relative path inside the stage's folder, none of stage"):
        context.artefact(context.stages[0], name)


def test_a_marker_of_another_version_is_refused(study: Make, tmp_path: Path) -> None:
    context = context_of(study(seeds=1), tmp_path)
    stage = context.stages[0]
    context.seal(stage, {})
    marker = stage_folder(tmp_path, stage.key(context.task)) / DONE
    older = {key: value for key, value in read_json(marker).items() if key != "digest"}
    write_json(marker, {**older, "schema_version": 2})
    with pytest.raises(RecordError, match=r"DONE\.json must have schema version 3, got 2\. Use the paretune that"):
        context.result(stage)


def test_what_a_kill_left_half_written_is_cleared_away(study: Make, tmp_path: Path) -> None:
    made = study(seeds=1)
    first = context_of(made, tmp_path)
    folder = first.artefact(first.stages[0], "adapter")
    folder.mkdir()
    (folder / "torn.json").write_text("{")
    again = context_of(made, tmp_path)
    assert not (again.artefact(again.stages[0], "adapter") / "torn.json").exists()


def test_a_run_function_that_leaves_a_stage_unsealed_is_told(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_study

    stages = plan(study(seeds=1), tmp_path).stages
    group = begin_group(tmp_path, stages)
    monkeypatch.setattr(fake_study, "train", lambda context: context.seal(context.stages[0], {}))
    with pytest.raises(RecordError, match=r"fake_study:train must seal every stage it is given, got 1 of 2 unsealed"):
        run_group(tmp_path, group.folder, stages[0].task, quiet_link())


def test_a_stop_is_noticed_in_progress_and_what_was_spent_is_kept(study: Make, tmp_path: Path) -> None:
    stopped = Link(lambda message: None, lambda: True, 1)
    context = context_of(study(seeds=1), tmp_path, stopped)
    context.ledger(context.stages[0]).charge(completions=8)
    with pytest.raises(StopRequested):
        context.progress(8)
    assert '"completions": 8' in next(tmp_path.glob("groups/*/spent.json")).read_text()


def test_stages_whose_code_was_edited_while_the_study_runs_are_not_trained(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (planned, *_) = plan(study(seeds=1), tmp_path / "elsewhere").stages
    group = begin_group(tmp_path, [planned])
    known = read_json(group.folder / "group.json")
    write_json(group.folder / "group.json", {**known, "keys": ["of the code as it was"]})
    with pytest.raises(StudyError, match="code of fake_study:train must not change while a study runs, got"):
        run_group(tmp_path, group.folder, planned.task, quiet_link())
    assert not (tmp_path / "stages").exists()
