"""What a step that is applied does to each objective: over thousands of conflicting gradients, and in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.ledger import Ledger
from paretune.core.task import Task
from paretune.methods import resolve_method
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.objectives.scoring import Scorer
from paretune.rl.conflicts import Conflicts
from paretune.rl.learner import Learner
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.objective_steps import ObjectiveSteps, turned_against
from paretune.rl.parameter_groups import ParameterGroups
from paretune.rl.rollout import Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.slots import Slots
from paretune.rl.trainees import Member, Population
from paretune.rl.weighting import Weighting

SETTINGS = LearnerSettings(1e-2, group_size=2, completions_per_update=4, average_decay=0.0)
ROUNDING = 1e-6  # cosine: nearly opposite gradients in doubles, whose weights are large
MEMBERS, PARAMETERS, STEPS = 120, 10, 20


def weightings(name: str, preferences: np.ndarray, **settings: Any) -> list[Weighting]:
    """Make the weighting of a method for each member."""
    module = resolve_method(name)
    kind = getattr(__import__(module.__module__, fromlist=["x"]), f"{module.__name__}Weights")
    made = vars(module.Settings(**settings))
    return [kind(row, made, np.zeros((len(row), 2))) for row in preferences]


@dataclass
class Made:
    """Steps of members that have parameters and nothing else, in double precision."""

    preferences: np.ndarray
    weightings: Sequence[Weighting]
    steps: ObjectiveSteps = field(init=False)

    def __post_init__(self) -> None:
        members = [SimpleNamespace(objective_weights=row, seed=seed) for seed, row in enumerate(self.preferences)]
        self.parameters = torch.zeros(len(members), PARAMETERS, dtype=torch.float64)
        trainee: Any = SimpleNamespace(
            parameters={"experts": self.parameters}, members=members, learning_rates={}, conditioned=False
        )
        chosen = MemberWeightings(trainee, self.weightings)
        groups = ParameterGroups(trainee, SETTINGS, self.preferences.shape[1] if chosen.step_rule.smoothed else 0)
        self.steps, self.chosen, self.groups = ObjectiveSteps(trainee, SETTINGS, groups, chosen), chosen, groups
        self.all = list(range(len(members)))
        rows = torch.zeros(len(members), self.preferences.shape[1], dtype=torch.float64)
        chosen.see(self.all, [0] * len(members), rows, rows[:, 0], None)

    def take(self, gradients: Tensor) -> tuple[Any, Tensor]:
        """Take a step of all members; return the report, and how far each was moved, `[R, P]`."""
        before = self.parameters.clone()
        report = self.steps.take(self.all, gradients, [True] * len(self.all))
        return report, self.parameters - before

    def smoothed(self) -> Tensor:
        optimiser = self.groups.optimisers["experts"]
        return optimiser.objective_means if self.steps.weightings.step_rule.smoothed else optimiser.mean[None]


def conflicting(rng: np.random.Generator, objectives: int) -> Iterator[Tensor]:
    """Yield gradients `[K, R, P]` step by step: a lasting part that conflicts, and noise of another draw each time."""
    lasting = rng.standard_normal((objectives, MEMBERS, PARAMETERS))
    lasting[-1] = -lasting[:-1].sum(axis=0) * rng.uniform(0.5, 2, (MEMBERS, 1)) + 0.1 * lasting[-1]
    lasting *= np.exp(rng.standard_normal((objectives, MEMBERS, 1)))
    lasting *= np.exp(2 * rng.standard_normal(PARAMETERS))  # a metric that is far from the plain one
    for _ in range(STEPS):
        yield torch.tensor(lasting + 0.5 * rng.standard_normal(lasting.shape) * np.abs(lasting))


def cosines(gradients: Tensor, move: Tensor) -> np.ndarray:
    """Return `[R, K]`, positive where a loss rises along a move."""
    inner = torch.einsum("krp,rp->rk", gradients, move)
    return (inner / (gradients.norm(dim=2).T * move.norm(dim=1)[:, None]).clamp(min=1e-300)).numpy()


STRATEGIES = [
    ("mgda", 3, {"normalise": 1}), ("upgrad", 3, {}), ("pcgrad", 2, {}),
    *(
        pytest.param(*each, marks=pytest.mark.slow)
        for each in (
            ("mgda", 3, {"normalise": 0}), ("mgda", 4, {"normalise": 2}), ("mgda", 3, {"preference": "scaled"}),
            ("upgrad", 5, {}),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "objectives", "settings"), STRATEGIES)
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_applied_step_makes_no_objective_worse(
    name: str, objectives: int, settings: dict[str, Any], optimiser: str
) -> None:
    """Of 2,400 steps of Adam along smoothed gradients none turns against one of them; of SGD, none of the raw ones."""
    rng = np.random.default_rng(objectives)
    preferences = rng.dirichlet(np.ones(objectives), MEMBERS)
    made = Made(preferences, weightings(name, preferences, optimiser=optimiser, **settings))
    conflicts, worst = 0, -1.0
    for gradients in conflicting(rng, objectives):
        report, move = made.take(gradients)
        judged = made.smoothed() if optimiser == "adamw" else gradients
        gram = torch.einsum("krp,lrp->rkl", judged, judged)
        conflicts += int((gram < 0).any(dim=2).any(dim=1).sum())
        worst = max(worst, float(cosines(judged, move).max()))
        assert (report.objective_weights >= 0).all()
        if optimiser == "sgd":
            assert not report.against.any()
    assert conflicts > 0.9 * MEMBERS * STEPS
    assert worst <= ROUNDING


@pytest.mark.parametrize(("name", "objectives", "settings"), STRATEGIES)
def test_plain_inner_products_before_adam_make_objectives_worse(
    name: str, objectives: int, settings: dict[str, Any]
) -> None:
    rng = np.random.default_rng(objectives)
    preferences = rng.dirichlet(np.ones(objectives), MEMBERS)
    made = Made(preferences, weightings(name, preferences, metric="plain", **settings))
    worse = []
    for gradients in conflicting(rng, objectives):
        report, move = made.take(gradients)
        worse.append((cosines(gradients, move) > 0.01).any(axis=1).mean())
        np.testing.assert_array_equal(report.against, cosines(gradients, move) > 1e-3)
    assert np.mean(worse) > 0.1
    shares = np.asarray([made.steps.conflicts.shares(index) for index in made.all], dtype=np.float64)
    assert (shares.max(axis=1) > 0).mean() > 0.5


def test_plain_weights_are_of_raw_gradients_and_adam_takes_their_sum() -> None:
    """The published way: two steps equal `torch.optim.AdamW` on the gradients weighed by `mgda` of their own Gram."""
    from paretune.gradients.mgda import mgda

    rng = np.random.default_rng(0)
    made = Made(np.full((1, 2), 0.5), weightings("mgda", np.full((1, 2), 0.5), metric="plain", preference="ignored"))
    parameter = torch.nn.Parameter(torch.zeros(PARAMETERS, dtype=torch.float64))
    reference = torch.optim.AdamW([parameter], 1e-2, betas=(0.9, 0.99), weight_decay=0)
    for _ in range(2):
        gradients = 0.1 * rng.standard_normal((2, 1, PARAMETERS))
        weights = mgda(gradients[:, 0] @ gradients[:, 0].T, norm_power=1)
        parameter.grad = torch.tensor(weights / weights.sum() @ gradients[:, 0])
        reference.step()
        report, _ = made.take(torch.tensor(gradients))
        np.testing.assert_allclose(report.objective_weights[0], weights / weights.sum(), rtol=1e-9)
    np.testing.assert_allclose(made.parameters[0], parameter.detach(), rtol=1e-9)


def test_sgd_moves_against_the_combined_gradient_clipped() -> None:
    made = Made(np.full((1, 2), 0.5), weightings("upgrad", np.full((1, 2), 0.5), optimiser="sgd"))
    gradients = torch.zeros(2, 1, PARAMETERS, dtype=torch.float64)
    gradients[0, 0, 0], gradients[1, 0, 1] = 6.0, 8.0  # half of each: (3, 4), five times the limit of 1
    _, move = made.take(gradients)
    np.testing.assert_allclose(move[0, :3], [-0.01 * 0.6, -0.01 * 0.8, 0.0])


def test_a_step_at_a_right_angle_turns_against_nothing() -> None:
    gradients = torch.eye(3)[:, None]  # [3, 1, 3]
    assert turned_against(gradients, torch.tensor([[1.0, -1.0, -1e-4]])).tolist() == [[False, True, False]]
    assert not turned_against(0 * gradients, torch.ones(1, 3)).any()


def test_conflicts_are_counted_for_objectives_of_the_preference_and_go_on_from_their_state() -> None:
    conflicts = Conflicts(np.asarray([[0.5, 0.5], [1.0, 0.0]]))
    assert conflicts.shares(0) == [0, 0]
    conflicts.add([0, 1], np.asarray([[True, False], [True, True]]))
    conflicts.add([0], np.asarray([[False, False]]))
    assert conflicts.shares(0) == [0.5, 0]
    assert conflicts.shares(1) == [1, None]
    other = Conflicts(conflicts.wanted.astype(float))
    other.load(0, conflicts.state(0))
    assert other.shares(0) == [0.5, 0]
    assert other.shares(1) == [0, None]


def test_members_with_steps_of_different_kinds_are_refused() -> None:
    row = np.full((1, 2), 0.5)
    mixed = [*weightings("mgda", row), *weightings("mgda", row, metric="plain")]
    with pytest.raises(ConfigError, match="step_rule must be the same for all members, got 2 of them"):
        Made(np.full((2, 2), 0.5), mixed)
    (wrong,) = weightings("mgda", row)
    vars(wrong)["step_rule"] = {"metric": "plain"}
    with pytest.raises(ConfigError, match="step_rule of MGDAWeights must be a GradientStep, got"):
        Made(row, [wrong])


def learner(task: Task, base: BaseModel, name: str, lengths: tuple[int, ...], **settings: Any) -> Learner:
    preferences = np.asarray([[0.5, 0.5], [0.2, 0.8]])
    members = [Member(row, seed, lengths, Ledger(max(lengths))) for seed, row in enumerate(preferences)]
    bank = ExpertBank(base, 2, rank=2)
    bank.initialise([1, 2])
    train, development = (
        Prompts(task.splits[split], [tuple(base.encode(str(row["prompt"]))) for row in task.splits[split]])
        for split in ("train", "development")
    )
    ranges = np.asarray([objective.range for objective in task.objectives])
    environment = Environment(Scorer(task.objectives), train, task.beta, micro_task.LENGTH, ranges, development)
    own = LearnerSettings(3e-2, group_size=4, completions_per_update=16, epochs=3, average_decay=0.0)
    chosen = weightings(name, preferences, **settings) if name else []
    return Learner(Population(bank, members), environment, own, Slots(weightings=chosen))


@pytest.mark.parametrize(
    "name", ["upgrad", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mgda", "pcgrad"))]
)
def test_in_training_every_step_of_every_epoch_follows_all_smoothed_gradients(
    task: Task, base: BaseModel, name: str
) -> None:
    made = learner(task, base, name, (160,))
    optimiser, worst, steps = made.parameter_groups.optimisers["experts"], [], 0
    before = optimiser.apply

    def apply(parameters: Tensor, direction: Tensor, diagonal: Tensor, rows: Sequence[int], warmup: int) -> None:
        nonlocal steps
        steps += len(rows)
        means = optimiser.objective_means[:, list(rows)].double()
        worst.append(cosines(means, -(direction * diagonal).double()).max())
        before(parameters, direction, diagonal, rows, warmup)

    optimiser.apply = apply  # type: ignore[method-assign]
    made.train(lambda index, length: None)
    assert steps == 2 * 10 * 3  # members, updates, epochs
    assert max(worst) < 1e-3  # fp32, of gradients that nearly cancel


@pytest.mark.slow
def test_events_and_members_say_which_share_of_steps_turned_against_an_objective(task: Task, base: BaseModel) -> None:
    def run(name: str, lengths: tuple[int, ...], **settings: Any) -> tuple[list[Any], dict[int, Any]]:
        made, events = learner(task, base, name, lengths, **settings), list[Any]()
        handed: dict[int, Any] = {}
        made.train(lambda index, length: handed.update({length: made.conflicts(index)} if index else {}), events.append)
        made.trainee.bank.unwrap()
        return events, handed

    events, handed = run("upgrad", (80, 160), metric="plain")
    own = np.asarray([event["conflicts"] for event in events if event["member"] == 1])
    assert own.shape == (10, 2)
    assert set(own.ravel().round(6)) <= {0, 0.333333, 0.666667, 1}  # of three steps
    np.testing.assert_allclose(handed[160]["conflicts"], own.mean(axis=0))
    np.testing.assert_allclose(handed[80]["conflicts"], own[:5].mean(axis=0))
    _, shorter = run("upgrad", (80,), metric="plain")
    assert shorter[80] == handed[80]
    events, handed = run("", (32,))
    assert handed == {32: {}}  # nothing is paid to know it
    assert "conflicts" not in events[0]


def test_gradients_of_more_than_experts_are_refused() -> None:
    trainee: Any = SimpleNamespace(parameters={"experts": torch.zeros(1, 2), "gate": torch.zeros(1, 2)}, members=[],
                                   conditioned=False, learning_rates={})  # fmt: skip
    with pytest.raises(ShapeError, match="weights must be chosen from gradients of experts alone"):
        ObjectiveSteps(trainee, SETTINGS, ParameterGroups(trainee, SETTINGS), MemberWeightings(trainee, []))
