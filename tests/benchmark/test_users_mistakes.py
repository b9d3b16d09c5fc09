"""What an author of a method gets wrong, from the command line: one line that names the method, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import micro_task
from paretune.benchmark.measurements import TRIAL
from paretune.benchmark.measurements.evaluation import stored
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import run
from paretune.benchmark.work import MEASURE
from paretune.cli.main import USAGE, execute
from paretune.core.user_code import loaded_files
from paretune.executors.jobs import quiet_link, run_job
from paretune.records.files import DONE, is_done, read_json
from paretune.records.layout import stage_folder
from paretune.training.groups import begin_group, populations
from paretune.training.stages import run_group
from table_jobs import payloads

pytestmark = pytest.mark.usefixtures("only_what_is_named")

IDEA = """
from dataclasses import dataclass
from fake_study import Fake, FakeSettings

class Mine(Fake):
    name = "mine"
{body}
"""


@pytest.fixture
def idea(fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that writes a method and a study of it, and returns the study's file."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("idea", None)
    loaded_files.cache_clear()  # as a process that has read no other test's module

    def write(body: str = "    pass") -> Path:
        (tmp_path / "idea.py").write_text(IDEA.format(body=body))
        study = tmp_path / "study.yaml"
        study.write_text(
            "name: s\ntasks: ['fake_study:task']\nmethods:\n  fake: {method: 'fake_study:Fake'}\n"
            "  mine: {method: 'idea:Mine'}\nbudget: {completions: 64}\nseeds: 1\nworkers: 2\n"
        )
        return study

    yield write
    sys.modules.pop("idea", None)
    loaded_files.cache_clear()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "    def stages(self, *arguments):\n        pass",
            "methods.mine with 64 completions: Mine.stages must return Stage objects, got None. Return a tuple",
        ),
        (
            "    def stages(self, task, budget):\n        return ()",
            "methods.mine with 64 completions: Mine.stages must take (self, task, preferences, budget, seed), got ",
        ),
        (
            "    def stages(self, *arguments):\n        return self.settings.window",
            "methods.mine with 64 completions: Mine.stages must not raise, got AttributeError: 'FakeSettings' obj",
        ),
        (
            "    def stages(self, *arguments):\n        raise SystemExit(3)",
            "Mine.stages must not raise, got SystemExit: 3 (idea.py, line 8). Correct it.",
        ),
        (
            "    def stages(self, *arguments):\n        from dataclasses import replace\n"
            "        return tuple(replace(x, run='idea:running') for x in super().stages(*arguments))",
            "run function of stage 'expert' of Mine.stages must be an importable 'module:name', got 'idea:running' (",
        ),
        (
            "    def stages(self, *arguments):\n        import dataclasses, time\n"
            "        return tuple(dataclasses.replace(x, seed=time.time_ns()) for x in super().stages(*arguments))",
            "Mine.stages must return equal stages for equal arguments, got stage 'expert' with seed ",
        ),
        (
            "    Settings = None",
            "methods.mine: Settings of method 'idea:Mine' must be a dataclass, got None.",
        ),
        ("    family = 'mine'", "methods.mine: family of method 'idea:Mine' must be one of ceiling, meta-policy, "),
        ("    version = 'one'", "methods.mine: version of method 'idea:Mine' must be a whole number, got 'one'."),
        (
            "    def __init__(self):\n        pass",
            "methods.mine: Mine.__init__ must take (settings), got (). Correct its arguments.",
        ),
        (
            "    @dataclass(frozen=True)\n    class Settings(FakeSettings):\n        table: open = None",
            "methods.mine: fields of Settings must be numbers, text, lists, mappings or such dataclasses, got: ",
        ),
    ],
)
def test_a_method_that_breaks_its_contract_is_one_line_of_plan_run_and_train(
    idea: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    study, out = str(idea(body)), tmp_path / "out"
    for command in (["plan", study, "-o", str(out)], ["run", study, "-o", str(out)]):
        assert execute(command) == USAGE
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("paretune: ")
        assert said in line
        assert str(tmp_path / "study.yaml") in line
    assert not out.exists()
    assert execute(["train", "idea:Mine", "--task", "fake_study:task", "-o", str(out), "--budget", "64"]) == USAGE
    error = capsys.readouterr().err
    assert said.replace("methods.mine with 64 completions: ", "").replace("methods.mine: ", "") in error
    assert "Traceback" not in error
    assert not out.exists()


ONLY_IN_A_RUN = """
from dataclasses import replace
import os
from fake_study import Fake

class Forgets(Fake):
    def assemble(self, task, preferences, results):
        pass

class Guesses(Fake):
    def assemble(self, task, preferences, results):
        return [result.artefacts["gate"] for result in results.values()]

class Raises(Fake):
    def assemble(self, task, preferences, results):
        return {}["table"]

class Fails(Fake):
    def stages(self, *arguments):
        return tuple(replace(stage, run="idea:run") for stage in super().stages(*arguments))

class Drifts(Fake):
    def stages(self, *arguments):
        return tuple(replace(stage, seed=os.getpid()) for stage in super().stages(*arguments))

def run(context):
    return {}["table"]
"""
SAID = {
    "Forgets": "evaluation: methods.Forgets: Forgets.assemble must return an Assembly, got None. Return Assembly(",
    "Guesses": "evaluation: methods.Guesses: artefact 'gate' must be one that the stage (expert ",
    "Raises": "methods.Raises: Raises.assemble must not raise, got KeyError: 'table' (idea.py, line 16). Correct it.",
    "Fails": "run function idea:run must not raise, got KeyError: 'table' (idea.py, line 27). Correct it.",
    "Drifts": "methods.Drifts: Drifts.stages must return equal stages for equal arguments, got others in another",
}


def test_what_only_shows_in_a_run_fails_the_cells_of_that_method_in_one_line(
    idea: Callable[..., Path], tmp_path: Path
) -> None:
    study = idea()
    (tmp_path / "idea.py").write_text(ONLY_IN_A_RUN)
    own = "".join(f"  {name}: {{method: 'idea:{name}'}}\n" for name in SAID)
    study.write_text(study.read_text().replace("  mine: {method: 'idea:Mine'}\n", own))
    result = run(study, tmp_path / "out", progress=False)
    cells = {cell.method: cell for cell in result.records.cells}
    assert cells["fake"].state == "done"
    for name, said in SAID.items():
        assert (cells[name].state, cells[name].reason) == ("failed", "method_error")
        assert said in cells[name].message
        assert "\n" not in cells[name].message
    logs = "".join(path.read_text() for path in (tmp_path / "out" / "logs").glob("*.log"))
    assert logs.count("KeyError: 'table'\n") >= 2  # the tracebacks behind what was told


UNCHARGED = """
from dataclasses import dataclass
import numpy as np
from paretune.core.answers import Nearest
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage


@dataclass(frozen=True)
class Settings:
    charged: int = 0


@method("best", "single-policy")
class Best:
    settings: Settings

    def stages(self, task, preferences, budget, seed):
        return (Stage("search", "uncharged:search", vars(self.settings), {}, (), budget, seed),)

    def assemble(self, task, preferences, results):
        (found,) = results.values()
        return Assembly(found.adapters, Nearest(np.full((1, 2), 0.5)))


def search(context):
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.models.policy import Policy

    task = context.task
    for stage in context.stages:
        bank = ExpertBank(load_base(task.model), 1, 2)
        policy = Policy(bank.base, bank, task.prompt_format, 8, 2, np.full((1, 2), 0.5), ["nearest"], np.ones((1, 1)))
        context.ledger(stage).charge(completions=stage.settings["charged"])
        policy.generate(["a b", "c"], samples=4)
        save_adapter(bank, 0, context.artefact(stage, "adapter"))
        context.seal(stage, {})
"""


def test_what_a_users_stage_samples_and_does_not_charge_is_refused_and_leaves_the_model_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from paretune.models.loading import load_base

    (tmp_path / "uncharged.py").write_text(UNCHARGED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    task = micro_task.save_task(tmp_path / "task")
    command = ["train", "uncharged:Best", "-t", str(task), "--budget", "8"]
    try:
        assert execute([*command, "-o", str(tmp_path / "short"), "--set", "charged=7"]) == USAGE
        assert (
            "paretune: completions that uncharged:search samples must be charged, got 8 sampled and 7 charged before a "
            "stage (search " in capsys.readouterr().err
        )
        assert not (tmp_path / "short" / "solution.json").exists()
        assert getattr(load_base(str(tmp_path / "task" / "model")).model, "_paretune_bank", None) is None
        assert execute([*command, "-o", str(tmp_path / "whole"), "--set", "charged=8"]) == 0
        assert (tmp_path / "whole" / "solution.json").exists()
    finally:
        sys.modules.pop("uncharged", None)


IN_TRAINING = """
from paretune.models.gate import TrainedGate


class Raises(TrainedGate):
    def shapes(self):
        return ((self.experts, self.hidden_size),)

    def weights(self, block, hidden, prior, preferences):
        return {}["prior"]


class Display(Raises):
    def weights(self, block, hidden, prior, preferences):
        pass


class Late:
    needs = frozenset()

    def __init__(self, preference, settings, ranges):
        self.preference, self.made = preference, 0

    def measured(self, update):
        return 0

    def weigh(self, seen):
        return self.preference if seen.kl == 0.01 * seen.update else {}["kl"]  # as long as it only sees made-up ones

    def state(self):
        return {}

    def load(self, state):
        pass
"""


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        (
            "mixture_of_experts",
            "gate=in_training:Raises",
            "in_training:Raises.weights must not raise, got KeyError: 'prior' (in_training.py, line 10). Correct it.",
        ),
        ("mixture_of_experts", "gate=in_training:Display", "weights of Display must return a tensor of shape ["),
        (
            "linear",
            "weighting=in_training:Late",
            "in_training:Late.weigh must not raise, got KeyError: 'kl' (in_training.py, line 28). Correct it.",
        ),
    ],
)
def test_what_a_users_code_does_wrong_in_training_is_blamed_on_that_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
    setting: str,
    said: str,
) -> None:
    (tmp_path / "in_training.py").write_text(IN_TRAINING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    task = micro_task.save_task(tmp_path / "task")
    command = ["train", method, "-t", str(task), "--budget", "64", "-o", str(tmp_path / "out"), "--set", setting]
    try:
        assert execute(command) == USAGE
    finally:
        sys.modules.pop("in_training", None)
    assert f"paretune: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["evaluation", "score"])
def test_a_cell_that_fails_in_evaluation_leaves_the_next_one_on_its_model_unaffected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Literal["evaluation", "score"]
) -> None:
    from paretune.models.loading import load_base
    from paretune.rl import evaluation

    first, second = trained_jobs(tmp_path, kind)
    base = load_base(str(tmp_path / "task" / "model"))
    assert run_job(MEASURE, second, quiet_link()) == {"kind": "done", "result": {}}
    before = result_of(tmp_path / "out", second)

    def fails(policy: Any, *arguments: object, **named: object) -> None:
        policy.bank.flat.fill_(float("nan"))  # as after a training that went wrong: not even times 0 is it nothing
        policy.generate(["a b"], [0])
        raise ValueError("bad evaluation")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", fails)
        ended = run_job(MEASURE, first, quiet_link())
    assert (ended["kind"], ended["reason"]) == ("failed", "method_error")
    assert getattr(base.model, "_paretune_bank", None) is None
    assert not [name for name, _ in base.model.named_modules() if name.endswith("original")]
    assert run_job(MEASURE, second, quiet_link()) == {"kind": "done", "result": {}}
    assert result_of(tmp_path / "out", second) == before
    assert getattr(base.model, "_paretune_bank", None) is None


def trained_jobs(folder: Path, kind: Literal["evaluation", "score"]) -> list[dict[str, Any]]:
    """Train the stages of two cells, or of two trials of a sweep, and return what a worker is told to do with them."""
    small = {"group_size": 4, "completions_per_update": 16}
    study = {
        "name": "s", "tasks": [str(micro_task.save_task(folder / "task"))], "seeds": 1, "budget": {"completions": 32},
        "methods": {"linear": small, "rewarded_soups": small}, "preferences": {"grid": 1, "unseen": 0},
        **({"tune": {"rank": [2, 4], "instances": 1}} if kind == "score" else {}),
    }  # fmt: skip
    made = plan(study, folder / "out")
    chosen = made.sweep or made
    cells = chosen.cells[:2]
    for members in populations([chosen.by_key[key] for cell in cells for key in cell.stages], workers=1):
        if not all(is_done(stage_folder(folder / "out", each.key)) for each in members):
            run_group(folder / "out", begin_group(folder / "out", members).folder, members[0].task, quiet_link())
    return payloads(chosen, TRIAL if kind == "score" else kind)[:2]


def result_of(folder: Path, job: dict[str, Any]) -> Any:
    """Return what a job has written, and forget it."""
    if job["table"].startswith("tuning/"):
        return read_json(folder / job["table"] / "score.json")
    records = stored(folder / job["table"])
    (folder / job["table"] / DONE).unlink()
    return [(each.completions, each.log_probs.tolist(), each.reference_log_probs.tolist()) for each in records]
