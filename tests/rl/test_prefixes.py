"""One rule for every trainee, weighting and setting: a run alone is the prefix of a longer one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import NonFiniteError
from paretune.core.ledger import Ledger
from paretune.core.preferences import FloatArray
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate, TrainedGate
from paretune.models.prompt_gate import PromptGate
from paretune.objectives.scoring import Scorer
from paretune.rl.checkpoints import read_state, save_state
from paretune.rl.learner import Learner
from paretune.rl.rollout import Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.slots import Slots
from paretune.rl.trainees import Conditioned, Member, Population
from paretune.rl.weighting import Seen

SETTINGS = LearnerSettings(1e-2, group_size=4, completions_per_update=16, epochs=1, average_decay=0.0)
LONG = 80
Make = Callable[[Task, BaseModel, tuple[int, ...]], Learner]
Handed = dict[tuple[int, int], tuple[dict[str, Tensor], Any, dict[str, float]]]


class Swinging:
    """Weights that follow returns and measured rewards, and so every draw that was ever made."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, object], ranges: FloatArray) -> None:
        self.log_weights = np.zeros(len(preference))

    def measured(self, update: int) -> int:
        return 3 if update % 2 else 0

    def weigh(self, seen: Seen) -> FloatArray:
        assert (seen.development is not None) <= (seen.update % 2 == 1)
        self.log_weights += seen.returns - seen.returns.mean() + 0.1 * seen.generator.standard_normal(2)
        if seen.development is not None:
            self.log_weights += seen.development.mean(axis=0)
        weights = np.exp(self.log_weights - self.log_weights.max())
        return weights / weights.sum()

    def state(self) -> dict[str, object]:
        return {"log_weights": self.log_weights.tolist()}

    def load(self, state: Mapping[str, object]) -> None:
        self.log_weights = np.asarray(state["log_weights"])


class Measuring(Swinging):
    """Before the first update it measures nearly as many completions as a whole update has."""

    def measured(self, update: int) -> int:
        return 12 if update == 0 else 0

    def weigh(self, seen: Seen) -> FloatArray:
        return np.asarray([0.5, 0.5])


class Descending(Swinging):
    """Weights from the gradients themselves."""

    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def weigh(self, seen: Seen) -> FloatArray:
        assert seen.gram is not None
        assert np.allclose(seen.gram, seen.gram.T)
        weights = 1 / np.sqrt(np.diagonal(seen.gram))
        return weights / weights.sum()


def environment(task: Task, base: BaseModel) -> Environment:
    train, development = (
        Prompts(task.splits[split], [tuple(base.encode(str(row["prompt"]))) for row in task.splits[split]])
        for split in ("train", "development")
    )
    widths = np.asarray([objective.range for objective in task.objectives])
    return Environment(Scorer(task.objectives), train, task.beta, micro_task.LENGTH, widths, development)


def population(settings: LearnerSettings = SETTINGS, weightings: tuple[type, ...] = ()) -> Make:
    def make(task: Task, base: BaseModel, lengths: tuple[int, ...]) -> Learner:
        members = [
            Member(np.asarray(weights), seed, lengths, Ledger(max(lengths)))
            for weights, seed in (([0.3, 0.7], 1), ([1.0, 0.0], 2))
        ]
        bank = ExpertBank(base, 2, rank=2)
        bank.initialise([1, 2])
        made = [kind(members[0].objective_weights, {}, np.asarray([[0, 1], [0, 1]])) for kind in weightings]
        slots = Slots(weightings=made)
        return Learner(Population(bank, members), environment(task, base), settings, slots)

    return make


def conditioned(
    settings: LearnerSettings = SETTINGS, gated: type[TrainedGate] | None = None, trains: str = "both"
) -> Make:  # fmt: skip
    def make(task: Task, base: BaseModel, lengths: tuple[int, ...]) -> Learner:
        bank = ExpertBank(base, 2, rank=2)
        bank.initialise([1, 2])
        if trains == "gate":
            micro_task.perturb(bank)  # experts of equal deltas leave a gate nothing to weigh
        gate = gated(bank, 2, 1) if gated else None
        trainee = Conditioned(bank, gate, np.eye(2), 1, lengths, Ledger(max(lengths)), 0.02, trains)
        return Learner(trainee, environment(task, base), settings)

    return make


LEARNERS: dict[str, Make] = {
    "population": population(),
    "epochs": population(replace(SETTINGS, epochs=3)),
    "average": population(replace(SETTINGS, epochs=2, average_decay=0.9)),
    "token ratios": population(replace(SETTINGS, epochs=2, ratio="token")),
    "micro-batches": population(replace(SETTINGS, epochs=2, micro_batch=8)),
    "warm-up": population(replace(SETTINGS, warmup_steps=4)),
    "changing weights": population(replace(SETTINGS, epochs=2, average_decay=0.9), (Swinging, Swinging)),
    "weights from gradients": population(replace(SETTINGS, epochs=2, average_decay=0.9), (Descending, Descending)),
    "grpo": population(replace(SETTINGS, epochs=2, advantages="grpo"), (Swinging, Swinging)),
    "gdpo": population(replace(SETTINGS, advantages="gdpo", loss_type="dapo")),
    "greedy baselines": population(replace(SETTINGS, epochs=2, advantages="self_critical")),
    "greedy and measured": population(replace(SETTINGS, advantages="self_critical"), (Swinging, Swinging)),
    "roots by length": population(replace(SETTINGS, epochs=2, ratio="sequence", loss_type="grpo")),
    "target of KL": population(replace(SETTINGS, epochs=2, target_kl=0.5)),
    "stop within epochs": population(replace(SETTINGS, epochs=4, stop_kl=1e-3)),
    "terms of tokens": population(replace(SETTINGS, epochs=2, kl_estimator="k3", entropy_coef=0.01)),
    "terms and gradients": population(
        replace(SETTINGS, epochs=2, kl_estimator="k3_corrected", entropy_coef=0.01, ratio="token"),
        (Descending, Descending),
    ),
    "replay": population(replace(SETTINGS, epochs=2, replay=8)),
    "replay of the latest": population(
        replace(SETTINGS, epochs=2, replay=24, replay_window=28, micro_batch=8), (Swinging, Swinging)
    ),
    "bank, gate and replay": conditioned(
        replace(SETTINGS, epochs=2, average_decay=0.9, replay=24, target_kl=0.5), gated=BlockGate
    ),
    "preferences by row": conditioned(replace(SETTINGS, epochs=2, average_decay=0.9)),
    "bank and gate": conditioned(replace(SETTINGS, epochs=2, average_decay=0.9), BlockGate),
    "prompt gate alone": conditioned(replace(SETTINGS, epochs=2, average_decay=0.9, micro_batch=8), PromptGate, "gate"),
}

REPEATED = {  # each part of them is in one of the other kinds, or tested alone elsewhere
    "bank and gate",
    "replay of the latest",
    "terms and gradients",
    "target of KL",
    "average",
    "replay",
    "epochs",
    "preferences by row",
    "token ratios",
    "weights from gradients",
    "micro-batches",
    "greedy and measured",
    "grpo",
    "gdpo",
    "greedy baselines",
    "roots by length",
    "stop within epochs",
    "terms of tokens",
    "warm-up",
}
KINDS = [pytest.param(kind, marks=pytest.mark.slow) if kind in REPEATED else kind for kind in LEARNERS]


def train(learner: Learner, stop_at: int | None = None, keep: Path | None = None) -> Handed:
    handed: Handed = {}

    def hand_over(index: int, length: int) -> None:
        rows = {name: each[index].clone() for name, each in learner.trainee.parameters.items()}
        handed[index, length] = rows, learner.member_state(index), dict(learner.members[index].ledger.counts)

    calls = 0

    class Kill(Exception):
        pass

    def before_update() -> None:
        nonlocal calls
        if keep is not None and calls == stop_at:
            save_state(keep, *learner.state())
            raise Kill
        calls += 1

    if keep is None:
        learner.train(hand_over)
    else:
        with pytest.raises(Kill):
            learner.train(hand_over, before_update=before_update)
    return handed


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.fixture(scope="module")
def known() -> dict[str, Handed]:
    """What runs to the whole length alone have handed over, by kind of learner."""
    return {}


@pytest.fixture
def whole(task: Task, base: BaseModel, known: dict[str, Handed]) -> Callable[[str], Handed]:
    """Return what a run to the whole length alone hands over; it is trained once."""

    def of(kind: str) -> Handed:
        if kind not in known:
            known[kind] = train(LEARNERS[kind](task, base, (LONG,)))
        return known[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_alone_is_the_prefix_of_a_longer_one(
    task: Task, base: BaseModel, kind: str, whole: Callable[[str], Handed]
) -> None:
    make, only = LEARNERS[kind], whole(kind)
    group = 5 if "greedy" in kind else SETTINGS.group_size
    lengths = (group, 18, 47)  # in the first update, at the end of one with a rest that is no group, in a later one
    together = train(make(task, base, (*lengths, LONG)))
    for length in lengths:
        alone = train(make(task, base, (length,)))
        for index in range(len(alone)):
            assert equal(together[index, length][0], alone[index, length][0]), f"{kind}, {length}"
            assert together[index, length][2] == alone[index, length][2]
            assert 0 <= length - alone[index, length][2]["completions"] < group
    assert all(equal(together[key][0], only[key][0]) for key in only)
    start = make(task, base, (LONG,)).trainee.parameters
    assert not any(start[name].equal(only[0, LONG][0][name]) for name in start)


# within a later update, and at the end of one
@pytest.mark.parametrize("length", [46, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_run_goes_on_from_a_shorter_one(
    task: Task, base: BaseModel, kind: str, length: int, whole: Callable[[str], Handed], tmp_path: Path
) -> None:
    make = LEARNERS[kind]
    shorter = train(make(task, base, (length,)))
    longer = make(task, base, (LONG,))
    for index in range(len(shorter)):
        save_state(tmp_path / f"{index}.safetensors", *shorter[index, length][1])
    for parameters in longer.trainee.parameters.values():
        parameters.zero_()  # whatever it held before
    for index in range(len(shorter)):
        longer.load_member_state(index, *read_state(tmp_path / f"{index}.safetensors"))
    went_on, only = train(longer), whole(kind)
    assert all(equal(went_on[key][0], only[key][0]) for key in only)
    assert all(went_on[key][2] == only[key][2] for key in only)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_the_uninterrupted_one(
    task: Task, base: BaseModel, kind: str, whole: Callable[[str], Handed], tmp_path: Path
) -> None:
    make, kept = LEARNERS[kind], tmp_path / "state.safetensors"
    train(make(task, base, (30, LONG)), stop_at=2, keep=kept)
    resumed = make(task, base, (30, LONG))
    for parameters in resumed.trainee.parameters.values():
        parameters.zero_()
    resumed.load_state(*read_state(kept))
    rest, only = train(resumed), whole(kind)
    assert rest.keys() == only.keys()  # 30 was handed over before
    assert all(equal(rest[key][0], only[key][0]) and rest[key][2] == only[key][2] for key in rest)


def test_the_last_length_is_reached_last_however_little_its_update_learns_from(task: Task, base: BaseModel) -> None:
    """12 completions leave none to learn from behind the 12 measured ones, so all are learned from; 16 leave four."""
    make = population(weightings=(Measuring, Measuring))
    together, events = {}, []
    learner = make(task, base, (12, 16))
    learner.train(
        lambda index, length: together.update({(index, length): learner.trainee.bank.flat[index].clone()}),
        events.append,
    )
    for length in (12, 16):
        alone = train(make(task, base, (length,)))
        assert all(together[index, length].equal(alone[index, length][0]["experts"]) for index in (0, 1))
    assert [(event["measured"], event["completions"]) for event in events] == [(12, 4)] * 2  # of the last length alone


@pytest.mark.slow
def test_what_varies_changes_what_is_learned(whole: Callable[[str], Handed]) -> None:
    """Else equal runs would prove nothing."""
    results = [whole(kind)[0, LONG][0] for kind in LEARNERS]
    flat = [torch.cat([part.flatten() for part in rows.values()])[:200] for rows in results]
    distinct = {each.numpy().tobytes() for each in flat}
    assert len(distinct) >= len(LEARNERS) - 1  # micro-batches differ from nothing but in rounding


def test_a_gate_that_explodes_is_named_with_the_learning_rate(task: Task, base: BaseModel) -> None:
    learner = LEARNERS["bank and gate"](task, base, (32,))
    learner.trainee.parameters["gate"].fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="Lower the learning rate, or correct what the gate returns"):
        learner.train(lambda index, length: None)
