from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import told
from paretune.core.errors import BudgetError, ConfigError, StopRequested, StudyError
from paretune.executors.jobs import Link
from paretune.methods import METHODS
from paretune.methods.single_policy.linear import Linear
from paretune.tasks import load_task
from paretune.training import train as module
from paretune.training.train import train
from told import steps

BUDGET = {"completions": 256}
ONCE = {"epochs": 1}  # what is learned is not the point here


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import real_task

    return real_task.write(tmp_path_factory.mktemp("task"))


def adapters(folder: Path) -> dict[str, dict[str, bytes]]:
    from safetensors.numpy import load_file  # the files' metadata have no fixed order

    paths = sorted(folder.glob("experts/*/*.safetensors"))
    return {path.parent.name: {name: tensor.tobytes() for name, tensor in load_file(path).items()} for path in paths}


def test_a_trained_method_answers_any_preference_and_is_saved(task: Path, tmp_path: Path) -> None:
    from paretune.models.solutions import load_solutions

    heard: list[int] = []
    link = Link(lambda message: heard.append(int(str(message.get("completions", 0)))), lambda: False, 1)
    solutions = train("rewarded_soups", str(task), BUDGET, settings=ONCE, output=tmp_path / "out", progress=link)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["DONE.json", "experts", "solution.json"]
    assert 0 < sum(heard) <= 256
    policy = solutions.policy_for({"early": 0.75, "late": 0.25})
    assert policy.expert_weights.tolist() == [[0.75, 0.25]]
    texts = policy.generate(["You e f"], samples=3, seed=1).texts
    again = load_solutions(tmp_path / "out").policy_for({"early": 0.75, "late": 0.25})
    assert again.generate(["You e f"], samples=3, seed=1).texts == texts


def test_a_stopped_training_goes_on_to_the_same_experts(task: Path, tmp_path: Path) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    with pytest.raises(StopRequested):
        train(
            "rewarded_soups",
            task,
            BUDGET,
            settings=ONCE,
            output=tmp_path / "out",
            progress=Link(lambda message: None, stop, 1),
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["training"]
    train("rewarded_soups", task, BUDGET, settings=ONCE, output=tmp_path / "out")
    train("rewarded_soups", task, BUDGET, settings=ONCE, output=tmp_path / "whole")
    assert adapters(tmp_path / "out") == adapters(tmp_path / "whole")
    assert len(adapters(tmp_path / "out")) == 2


def test_trackers_hear_of_every_update_of_a_training_once_across_a_stop(task: Path, tmp_path: Path) -> None:
    def hears(link: Link | None = None) -> None:
        train("rewarded_soups", task, BUDGET, 0, None, ONCE, tmp_path / "out", link, ["told:Recorder", "tensorboard"])

    told.forget()
    calls = itertools.count(1)
    with pytest.raises(StopRequested):
        hears(Link(lambda message: None, lambda: next(calls) == 3, 1))
    heard = steps()
    assert heard
    hears()
    assert steps() == {key: [1, 2] for key in heard}  # two experts, each two updates of 64
    runs = {run.name: run for run in told.Recorder.runs.values()}
    assert sorted(name[:-9] for name in runs) == ["tiny-s0-expert-early=1", "tiny-s0-expert-late=1"]
    assert {(run.project, run.config["methods"]) for run in runs.values()} == {("tiny", "rewarded_soups")}
    told_last = told.Recorder.heard[next(key for key, run in told.Recorder.runs.items() if "early" in run.name)][-1][1]
    assert told_last["reward"] == told_last["rewards/early/mean"]  # what is optimised is the one objective
    assert told_last["completions"] == 128
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"DONE.json", "experts", "solution.json", "tracking"}
    assert {path.name for path in (tmp_path / "out" / "tracking" / "tensorboard").iterdir()} == runs.keys()


def test_a_training_interrupted_within_an_update_goes_on_to_the_same_experts(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paretune.objectives.scoring import Scorer

    scored, calls = Scorer.__call__, itertools.count(1)

    def interrupted(scorer: Scorer, *given: Any) -> Any:
        if next(calls) == 2:  # a Ctrl-C is heard anywhere: here the update has drawn its random numbers
            raise StopRequested
        return scored(scorer, *given)

    monkeypatch.setattr(Scorer, "__call__", interrupted)
    with pytest.raises(StopRequested):
        train("rewarded_soups", task, BUDGET, settings=ONCE, output=tmp_path / "out")
    train("rewarded_soups", task, BUDGET, settings=ONCE, output=tmp_path / "out")
    train("rewarded_soups", task, BUDGET, settings=ONCE, output=tmp_path / "whole")
    assert adapters(tmp_path / "out") == adapters(tmp_path / "whole")


def test_without_an_output_folder_the_experts_go_with_the_solutions(task: Path) -> None:
    solutions = train("rewarded_soups", task, 128, settings={"rank": 2, **ONCE})
    folder = solutions.experts[0]
    assert folder.is_dir()
    assert solutions.bank.rank == 2
    solutions.bank.unwrap()
    del solutions
    import gc

    gc.collect()  # bank and base model refer to each other
    assert not folder.exists()


def test_preferences_that_are_named_are_all_that_is_trained_for(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from paretune.cli.main import OK, USAGE, execute
    from paretune.models.solutions import load_solutions

    trained = train("linear", task, 64, preferences={"early": 1, "late": 3}, settings=ONCE)
    assert trained.answer.trained.tolist() == [[0.25, 0.75]]  # type: ignore[attr-defined]
    command = [
        "train",
        "linear",
        "-t",
        str(task),
        "--budget",
        "64",
        "--set",
        "completions_each=32",
        "--set",
        "epochs=1",
    ]
    two = [*command, "-o", str(tmp_path / "out"), "-p", "early=1,late=1", "--preference", "late=2"]
    assert execute(two) == OK, capsys.readouterr().err
    assert load_solutions(tmp_path / "out").answer.trained.tolist() == [[0.5, 0.5], [0.0, 1.0]]  # type: ignore[attr-defined]
    capsys.readouterr()
    assert execute(["generate", str(tmp_path / "out"), "-p", "early=2,late=6", "--json", "You e f"]) == OK
    shown = capsys.readouterr()
    assert json.loads(shown.out)["preference"] == {"early": 0.25, "late": 0.75}
    answered = "answered by the one for early .50, late .50 (nearest)"  # the first of a tie
    assert f"note: no policy was trained for early .25, late .75: {answered}\n" in shown.err
    assert execute(["generate", str(tmp_path / "out"), "-p", "late=1", "You e f"]) == OK
    assert "note:" not in capsys.readouterr().err
    for wrong, said in (("late=-1", "must be finite and non-negative"), ("lte=1", "Did you mean 'late'?")):
        assert execute([*command, "-o", str(tmp_path / "other"), "-p", wrong]) == USAGE
        assert said in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_trained_is_refused_before_anything_is_written(task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BudgetError, match="budget must give each"):
        train("rewarded_soups", task, 8, output=out)
    with pytest.raises(ConfigError, match=r"budget must be \{'completions': n\}"):
        train("rewarded_soups", task, {"tokens": 8}, output=out)
    with pytest.raises(ConfigError, match="budget must be a whole number from 1 on, got 0"):
        train("rewarded_soups", task, 0, output=out)
    with pytest.raises(
        ConfigError,
        match=rf"^method must be one of {len(METHODS)} names, got 'rewarded_soup'\. Did you mean 'rewarded_soups'\? "
        r"`paretune ls methods` lists all\.$",
    ):
        train("rewarded_soup", task, BUDGET, output=out)
    with pytest.raises(
        ConfigError, match=r"^train.rnk must be one of the settings of rewarded_soups, got 'rnk'. Did you mean 'rank'\?"
    ):
        train("rewarded_soups", task, BUDGET, settings={"rnk": 2}, output=out)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(StudyError, match="output folder must be empty"):
        train("rewarded_soups", task, BUDGET, output=out)
    (out / "DONE.json").write_text("{}")
    with pytest.raises(StudyError, match="must not hold a solution set yet"):
        train("rewarded_soups", task, BUDGET, output=out)


def test_two_calls_cannot_train_into_one_folder_at_once(task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refusals: list[str] = []

    def second(message: object) -> None:  # while the first trains
        with pytest.raises(StudyError) as caught:
            train("rewarded_soups", task, BUDGET, output=out)
        refusals.append(str(caught.value))

    train("rewarded_soups", task, BUDGET, settings=ONCE, output=out, progress=Link(second, lambda: False, 1))
    known = (
        f"output folder must be used by one process at a time, got '{out}', which process {os.getpid()} is working on"
    )
    assert refusals
    assert all(refusal.startswith(known) for refusal in refusals)
    assert sorted(path.name for path in out.iterdir()) == ["DONE.json", "experts", "solution.json"]


def test_a_call_that_waited_for_one_that_has_finished_is_refused_and_leaves_nothing(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    taken = module.locked

    def slow(work: Path, shown: Path) -> object:  # another call finishes between the look at the folder and the lock
        out.mkdir()
        (out / "DONE.json").write_text("{}")
        return taken(work, shown)

    monkeypatch.setattr(module, "locked", slow)
    with pytest.raises(StudyError, match="must not hold a solution set yet"):
        train("rewarded_soups", task, BUDGET, output=out)
    assert [path.name for path in out.iterdir()] == ["DONE.json"]


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["training/.lock", "training/groups/*/events.jsonl"])  # begun, and in its updates
def test_a_killed_training_leaves_no_lock_that_keeps_the_next_call_away(task: Path, tmp_path: Path, sign: str) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "paretune.cli.main", "train", "rewarded_soups", "-t", str(task), "-o", str(out)]
    process = subprocess.Popen([*command, "--budget", "4096"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob(sign)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    train("rewarded_soups", task, BUDGET, settings=ONCE, output=out)
    assert sorted(path.name for path in out.iterdir()) == ["DONE.json", "experts", "solution.json"]


def test_a_method_that_plans_more_than_its_budget_is_refused(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Linear.stages
    monkeypatch.setattr(Linear, "stages", lambda self, *args: planned(self, args[0], args[1], 2 * args[2], args[3]))
    with pytest.raises(ConfigError, match=r"Linear.stages must plan at most its budget of 160 completions, got 320"):
        train("linear", str(task), 160, 0, settings={"completions_each": 64})


def test_training_takes_the_learner_settings_of_its_task(task: Path) -> None:
    spoilt = replace(load_task(task), learner={"lerning_rate": 1.0})
    with pytest.raises(
        ConfigError, match=r"learner of task .*, for linear.lerning_rate must be one of the settings of linear, got"
    ):
        train("linear", spoilt, BUDGET)
