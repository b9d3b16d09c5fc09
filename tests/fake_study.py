"""A task and a method that need no model: stages write small files, evaluations are made up. For tests of the runner.

In a worker process it also stands in for the rooms that would load torch, so that a whole study takes a second. In
this process `fakes_here` of `conftest.py` does the same.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from paretune.benchmark.measurements.timing import Timing
from paretune.benchmark.measuring import TableJob
from paretune.core.answers import Nearest
from paretune.core.digests import bytes_digest
from paretune.core.errors import BudgetError, ConfigError, NonFiniteError
from paretune.core.preferences import FloatArray, corners
from paretune.core.protocols import Assembly, Family, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Objective, Task
from paretune.executors.jobs import Link
from paretune.methods.experts import adapters_of
from paretune.records.files import write_json
from paretune.records.layout import TIMING
from paretune.records.study import TimedBatch, TimingRecord

if TYPE_CHECKING:
    import pytest

GROUP = 8


class Splits(dict[Any, Any]):
    """Of a tuning instance: whoever reads its test prompts fails."""

    def __getitem__(self, split: Any) -> Any:
        if split == "test":
            raise AssertionError("test prompts of a tuning instance must not be read")
        return super().__getitem__(split)


class FakeTask(Task):
    def instance(self, seed: int) -> Task:
        return self if seed < 10_000 else replace(self, splits=Splits(self.splits))


def warm(completions: list[str], **columns: object) -> list[float]:
    """Read the reward off the completion: a policy writes what its settings say."""
    return [float(completion) for completion in completions]


brief = warm


def task(name: str = "fake", train: int = 4) -> Task:
    rows = {
        split: tuple({"prompt": f"{split} {index}", "prompt_id": f"{split}-{index}"} for index in range(size))
        for split, size in (("train", train), ("development", 2), ("test", 3))
    }
    objectives = tuple(Objective(each, f"fake_study:{each}", pass_threshold=0.5) for each in ("warm", "brief"))
    return FakeTask(
        name, "fake_study:task", "fake-model", "fake", "{prompt}", rows, objectives, reference_point=(0.0, 0.0)
    )


@dataclass(frozen=True)
class FakeSettings:
    per_preference: bool = False  # one stage per preference given, else one per objective
    updates_seconds: float = 0.0  # sleep in every update
    trouble: str = ""  # what goes wrong in the run of the first expert of seeds 0 and 10,000
    trace: str = ""  # file that gets a line for every update made
    reward: float = 0.5  # of every completion of its policies

    def __post_init__(self) -> None:
        if self.updates_seconds < 0:
            raise ConfigError(f"updates_seconds must be at least 0, got {self.updates_seconds}. Raise it.")


@method("fake", "meta-policy")
class Fake:
    settings: FakeSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        points = preferences if self.settings.per_preference else corners(len(task.objectives))
        each = budget // len(points) // GROUP * GROUP
        if each < GROUP:
            raise BudgetError(
                f"budget must give every expert one group of {GROUP} completions, got {budget}. Raise it."
            )
        settings = {**vars(self.settings)}
        return tuple(
            Stage("expert", "fake_study:train", settings, {"objective_weights": row.tolist()}, (), each, seed)
            for row in points
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        experts = tuple(results.values())
        table = np.asarray([expert.stage.member["objective_weights"] for expert in experts])
        return Assembly(adapters_of(experts), Nearest(table))


@dataclass(frozen=True)
class SplittingSettings(FakeSettings):
    completions_each: int = 16  # says nothing


@method("splitting", "meta-policy")
class Splitting(Fake):
    settings: SplittingSettings


class Ceiling(Fake):
    name: ClassVar[str] = "ceiling"
    family: ClassVar[Family] = "ceiling"


def train(context: StageContext) -> None:
    """Each update folds the last state into a hash, so that a lost or repeated update shows."""
    trajectories: dict[str, list[Stage]] = {}
    for stage in context.stages:
        trajectories.setdefault(stage.trajectory_key(context.task), []).append(stage)
    checkpoint = context.checkpoint_folder() / "state.json"
    states = {key: {"made": 0, "hash": ""} for key in trajectories}
    for key, stages in trajectories.items():
        start = context.start_folder(min(stages, key=lambda stage: stage.completions))
        if checkpoint.exists():
            saved = json.loads(checkpoint.read_text())[key]
        elif start is not None:
            saved = json.loads((start / "state.json").read_text())
        else:
            continue
        states[key] = saved["state"]
        context.ledger(stages[0]).restore(saved["ledger"])
    settings = context.stages[0].settings
    handed_over: set[int] = set()
    while True:
        busy = [key for key, stages in trajectories.items() if states[key]["made"] < max(s.completions for s in stages)]
        for key, stages in trajectories.items():
            for stage in stages:
                if states[key]["made"] == stage.completions and id(stage) not in handed_over:
                    _hand_over(context, stage, states[key])
                    handed_over.add(id(stage))
        if not busy:
            return
        for key in busy:
            _trouble(str(settings["trouble"]), trajectories[key][0])
            context.ledger(trajectories[key][0]).charge(completions=GROUP, prompts=1, tokens=10 * GROUP)
            text = f"{states[key]['hash']} {trajectories[key][0].member} {states[key]['made']}"
            states[key] = {"made": states[key]["made"] + GROUP, "hash": hashlib.sha256(text.encode()).hexdigest()}
        if settings["trace"]:
            with Path(str(settings["trace"])).open("a") as file:
                file.write(f"{os.getpid()} {len(trajectories)} {[states[key]['made'] for key in busy]}\n")
        time.sleep(float(str(settings["updates_seconds"])))
        saved = {
            key: {"state": states[key], "ledger": context.ledger(stages[0]).state()}
            for key, stages in trajectories.items()
        }
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps(saved))
        os.replace(temporary, checkpoint)
        context.log({"made": [states[key]["made"] for key in trajectories]})
        context.progress(GROUP * len(busy))


def _hand_over(context: StageContext, stage: Stage, state: dict[str, Any]) -> None:
    folder = context.artefact(stage, "adapter")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter.json").write_text(json.dumps(state))
    kept = context.end_folder(stage)
    kept.mkdir(exist_ok=True)
    ledger = context.ledger(stage).state()
    (kept / "state.json").write_text(json.dumps({"state": state, "ledger": ledger}))
    context.seal(stage, {"hash": state["hash"]})


def _trouble(kind: str, stage: Stage) -> None:
    if stage.seed not in (0, 10_000) or stage.member["objective_weights"] != [1.0, 0.0] or not kind:
        return
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(3)
    raise {
        "memory": MemoryError("no room"),
        "nan": NonFiniteError("loss must be finite, got nan. Lower the learning rate."),
        "bug": ZeroDivisionError("division by zero"),
        "torch": RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        ),
        "disk": OSError(28, "No space left on device"),
    }[kind]


class FakeTiming(Timing):
    def run(self, job: TableJob, link: Link) -> None:
        if os.environ.get("FAKE_TIMING") == "fails":
            raise ValueError("bad timing")
        seconds = {"base": (1.0,), "policy": (2.0,)}
        batch = TimedBatch(2, 1, seconds, seconds, {"base": 1, "policy": 2}, "narrow")
        timed = TimingRecord(job.task.name, str(job.cell["method"]), (batch,), "cpu", 1, "cpu", 0.0)
        write_json(job.folder / TIMING, asdict(timed))


def write_report(folder: Path, *known: object) -> Path:
    page = Path(folder) / "report" / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("<p>a report")
    return page


class FakeSolutions:
    def __init__(self, task: Task, assembly: Assembly, method: str) -> None:
        self.assembly, self.method = assembly, method

    @classmethod
    def from_assembly(cls, task: Task, assembly: Assembly, method: str, family: str) -> FakeSolutions:
        for expert in assembly.experts:
            assert (expert / "adapter.json").is_file()
        return cls(task, assembly, method)

    def policies_for(self, preferences: FloatArray) -> Any:
        weights, answers = self.assembly.answer.weights(preferences)
        stage = json.loads((self.assembly.experts[0].parent / "stage.json").read_text())
        return types.SimpleNamespace(
            preferences=preferences, answers=answers, expert_weights=weights, reward=stage["settings"]["reward"]
        )

    def plain(self, name: Callable[[Path], str]) -> dict[str, object]:
        return {"method": self.method, "experts": [name(expert) for expert in self.assembly.experts]}


def fake_evaluate(policy, rows, score, objectives, audit, samples, seed, split, progress):  # type: ignore[no-untyped-def]
    from paretune.records.evaluation import EvaluationRecord

    if os.environ.get("FAKE_EVALUATION") == "fails":
        raise ValueError("bad evaluation")
    records = []
    count = len(rows) * samples
    texts = (str(policy.reward),) * count
    scores = score([row for row in rows for _ in range(samples)], texts)
    alike = os.environ.get("FAKE_EVALUATION") == "answers alike"
    for preference, answer, weights in zip(policy.preferences, policy.answers, policy.expert_weights, strict=True):
        progress(0 if alike and records else count)
        with Path(os.environ["FAKE_TRACE"]).open("a") as file:
            file.write(f"{split} {preference.tolist()}\n")
        records.append(
            EvaluationRecord(
                split, preference, answer, weights, bytes_digest(weights.tobytes()), tuple(objectives), tuple(audit),
                tuple(str(row["prompt_id"]) for row in rows for _ in range(samples)),
                np.asarray([sample for _ in rows for sample in range(samples)]),
                tuple(str(row["prompt"]) for row in rows for _ in range(samples)), texts, ((1, 2),) * count,
                ("stop",) * count, np.zeros(count), np.zeros(count), scores.rewards, scores.statuses, np.zeros(count),
            )
        )  # fmt: skip
    return tuple(records)


class ForGood:
    """Patches as pytest's does, in a process of its own, which ends with them and need not import pytest."""

    setattr = staticmethod(setattr)
    setitem = staticmethod(operator.setitem)
    delitem = staticmethod(operator.delitem)


def stand_in(patch: pytest.MonkeyPatch | type[ForGood] = ForGood) -> None:
    """Replace what would train or time a real model in a fake study, or write a real report of it."""
    from paretune.benchmark import measurements, runner, study

    patch.setattr(study, "with_standing_rows", lambda methods, place: dict(methods))
    patch.setitem(measurements.MEASUREMENTS, "timing", "fake_study:FakeTiming")
    patch.delitem(measurements.MEASUREMENTS, "relations")
    patch.setattr(runner, "write_report", write_report)


def stand_ins() -> dict[str, types.ModuleType]:
    """Make modules for the rooms that would load torch, by name."""
    nothing = types.SimpleNamespace(
        preferences=np.full((1, 2), np.nan), answers=["reference"], expert_weights=np.zeros((1, 0)), reward=0.5
    )
    contents: dict[str, dict[str, object]] = {
        "paretune.models.solutions": {"SolutionSet": FakeSolutions},
        "paretune.models.loading": {
            "load_base": lambda model: None,
            "unwrap_all": lambda: None,
            "loaded_dtypes": lambda model: [],
        },
        "paretune.rl.evaluation": {"evaluate": fake_evaluate, "reference_policy": lambda base, task: nothing},
    }
    modules = {name: types.ModuleType(name) for name in contents}
    for name, content in contents.items():
        vars(modules[name]).update(content)
    return modules


if getattr(sys.modules["__main__"].__spec__, "name", "") == "paretune.executors.worker":
    sys.modules.update(stand_ins())
