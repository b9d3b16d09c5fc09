from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from paretune.core.errors import ConfigError, TaskError
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Split, Task
from paretune.methods import METHODS, resolve_method
from paretune.methods.exact_gradient import ExactGradient, ExactGradientSettings, train_exactly
from paretune.models.loading import load_base, unwrap
from paretune.models.solutions import SolutionSet
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import captured_share
from paretune.rl.outcomes import enumeration_of, outcomes, tables, truth
from paretune.tasks import load_task

WANTED = das_dennis(2, 2)
SMALL = ExactGradientSettings(updates=60, rank=4)


@pytest.fixture(scope="module")
def small() -> Task:
    return load_task({"controlled": {"rho": -0.2, "alphabet": 4, "length": 3}})


@pytest.fixture(autouse=True)
def nothing_stays_wrapped(small: Task) -> Iterator[None]:
    yield
    unwrap(load_base(small.model, device="cpu"))


@dataclass
class InOneFolder:
    """The least a stage needs."""

    root: Path
    task: Task
    stages: tuple[Stage, ...]
    results: dict[str, StageResult] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    ledgers: dict[str, Ledger] = field(default_factory=dict)

    def ledger(self, stage: Stage) -> Ledger:
        return self.ledgers.setdefault(stage.key(self.task), Ledger())

    def artefact(self, stage: Stage, name: str) -> Path:
        return self.root / stage.key(self.task) / name

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        key, folder = stage.key(self.task), self.artefact(stage, "adapter")
        assert key not in self.results
        self.results[key] = StageResult(
            stage, key, folder.parent, {"adapter": folder}, dict(values), self.ledger(stage), 0.0
        )

    def progress(self, completions: int, message: str = "") -> None:
        self.reported.append(completions)

    def log(self, event: Mapping[str, object]) -> None:
        self.events.append(event)


def train(
    task: Task, folder: Path, settings: ExactGradientSettings = SMALL, wanted: Any = WANTED, seed: int = 0
) -> tuple[InOneFolder, SolutionSet]:
    method = ExactGradient(settings)
    context = InOneFolder(folder, task, method.stages(task, wanted, 1000, seed))
    train_exactly(cast(StageContext, context))
    assembly = method.assemble(
        task, wanted, {stage.key(task): context.results[stage.key(task)] for stage in context.stages}
    )
    return context, SolutionSet.from_assembly(task, assembly, "exact_gradient", "ceiling")


@pytest.fixture(scope="module")
def trained(small: Task, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InOneFolder, SolutionSet]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretune.models.loading.default_device", lambda: "cpu")
        yield train(small, tmp_path_factory.mktemp("exact"))


def captured(solutions: SolutionSet, task: Task, split: Split, wanted: Any) -> float:
    rows = task.splits[split]
    known = tables(task, rows, Scorer(task.objectives))
    record = outcomes(solutions.policies_for(wanted), rows, enumeration_of(task), *known, scales=(1.0,))
    best = truth(*known, np.asarray(wanted), task.beta)
    rewards, kl = record.at_scale(1.0)
    scores = (rewards - task.beta * kl[..., None]).mean(axis=1)
    return captured_share(scores, best.reference_scores, best.scores, np.asarray(wanted))


def test_it_is_a_ceiling_and_no_method_of_a_family() -> None:
    assert resolve_method("exact_gradient") is ExactGradient
    assert "exact_gradient" in METHODS
    assert ExactGradient.family == "ceiling"


def test_every_wanted_preference_gets_an_expert_that_is_charged_nothing(small: Task) -> None:
    stages = ExactGradient(SMALL).stages(small, WANTED, 1000, 7)
    assert [stage.member["objective_weights"] for stage in stages] == WANTED.tolist()
    assert sum(stage.completions for stage in stages) == 0
    assert {stage.seed for stage in stages} == {7}
    assert len({stage.shape_key(small) for stage in stages}) == 1  # one population
    assert stages == ExactGradient(SMALL).stages(small, WANTED, 5, 7)  # whatever the budget
    assert ExactGradientSettings(**stages[0].settings) == SMALL  # type: ignore[arg-type]  # asdict of it
    assert asdict(SMALL) == dict(stages[0].settings)


def test_the_learning_rate_falls_over_the_last_third(
    small: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    class Noted(torch.optim.AdamW):
        """Notes the rate of each step."""

        def step(self, *arguments: Any) -> Any:
            used.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    monkeypatch.setattr("torch.optim.AdamW", Noted)
    context, _ = train(small, tmp_path, ExactGradientSettings(updates=6, rank=1, learning_rate=0.1), WANTED[:1])
    assert used == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1, 0.05])
    assert [event["learning_rate"] for event in context.events] == used


def test_a_task_whose_completions_cannot_be_listed_is_refused(task: Task) -> None:
    message = (
        rf"exact_gradient must have a task whose completions can be listed, got '{task.name}'\. Use a controlled task, "
        r"or leave the method out\."
    )
    with pytest.raises(TaskError, match=message):
        ExactGradient(SMALL).stages(task, WANTED, 1000, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"rank and updates must be at least 1, got 0 and 200\. Raise them\."),
        ({"updates": 0}, r"rank and updates must be at least 1, got 8 and 0\. Raise them\."),
        (
            {"alpha": 0.0},
            r"alpha and learning_rate must be positive, got 0\.0 and 0\.02\. Leave them out to take 16 and 0\.02\.",
        ),
        ({"learning_rate": -1.0}, "alpha and learning_rate must be positive, got .* -1.0"),
        ({"learning_rate": float("nan")}, "alpha and learning_rate must be positive, got .* nan"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExactGradientSettings(**settings)


def test_the_objective_starts_at_the_base_and_rises(trained: tuple[InOneFolder, SolutionSet], small: Task) -> None:
    context, _ = trained
    values = np.asarray([event["objective"] for event in context.events])  # [updates, E]
    assert values.shape == (60, 3)
    assert [event["update"] for event in context.events] == list(range(1, 61))
    spent = [ledger.seconds for ledger in context.ledgers.values()]
    assert [list(each) for each in spent] == [["update"]] * 3  # loading the model is nobody's training
    assert len({each["update"] for each in spent}) == 1
    known = tables(small, small.splits["train"], Scorer(small.objectives))
    best = truth(*known, WANTED, small.beta)
    assert values[0] == pytest.approx(WANTED @ best.reference_scores, abs=1e-5)  # B is 0
    every = values[[0, 10, 20, 40, 59]]
    assert (np.diff(every, axis=0) > 0).all()
    possible = np.einsum("mk,mk->m", WANTED, best.scores)
    assert (values < possible).all()  # J* is above everything
    assert ((values[-1] - values[0]) / (possible - values[0])).min() > 0.9


def test_every_stage_is_sealed_with_its_adapter_and_its_objective(trained: tuple[InOneFolder, SolutionSet]) -> None:
    context, _ = trained
    assert len(context.results) == 3
    last = context.events[-1]["objective"]
    for place, stage in enumerate(context.stages):
        result = context.results[stage.key(context.task)]
        assert result.values == {"objective_before_last_update": last[place]}
        assert (context.artefact(stage, "adapter") / "adapter_model.safetensors").is_file()
    assert context.reported == [0] * 60  # a stop is noticed at every update, and nothing is charged


def test_its_policies_come_close_to_the_optimum(trained: tuple[InOneFolder, SolutionSet], small: Task) -> None:
    _, solutions = trained
    assert captured(solutions, small, "train", WANTED) > 0.9
    assert captured(solutions, small, "test", WANTED) > 0.8  # prompts it was not trained on
    assert solutions.policies_for(WANTED).expert_weights.tolist() == np.eye(3).tolist()
    assert solutions.policies_for([[0.9, 0.1]]).answers == ("nearest",)
    solutions.bank.unwrap()


def test_a_preference_is_trained_alike_alone_and_beside_others(
    trained: tuple[InOneFolder, SolutionSet], small: Task, tmp_path: Path
) -> None:
    together, _ = trained
    few = ExactGradientSettings(updates=8, rank=4)
    one, _ = train(small, tmp_path / "one", few, WANTED[1:2])
    again, _ = train(small, tmp_path / "again", few, WANTED)
    other, _ = train(small, tmp_path / "other", few, WANTED[1:2], seed=1)
    values = [context.events[-1]["objective"] for context in (one, again, other)]
    assert values[0][0] == pytest.approx(values[1][1], abs=1e-5)  # fp32 sums of other shapes, eight updates
    assert abs(values[0][0] - values[2][0]) > 1e-5
    assert together.events[0]["objective"] == pytest.approx(again.events[0]["objective"], abs=1e-6)


def test_prompts_are_all_counted_whatever_fits_into_a_pass(
    small: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ExactGradientSettings(updates=3, rank=4)
    values = []
    for number in (3, 16):  # 3 does not divide the 16 prompts
        monkeypatch.setattr("paretune.methods.exact_gradient.PROMPTS_AT_ONCE", number)
        values.append(train(small, tmp_path / str(number), few)[0].events[-1]["objective"])
    assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.8])
def test_an_expert_of_the_methods_shape_can_reach_nearly_all_there_is(rho: float, tmp_path: Path) -> None:
    task, wanted = load_task({"controlled": {"rho": rho}}), das_dennis(2, 10)
    _, solutions = train(task, tmp_path, ExactGradientSettings(), wanted)
    shares = {split: captured(solutions, task, split, wanted) for split in ("train", "development", "test")}
    solutions.bank.unwrap()
    print(f"rho {rho:+.1f}: captured {', '.join(f'{split} {share:.4f}' for split, share in shares.items())}")
    assert min(shares["train"], shares["test"]) >= 0.97
