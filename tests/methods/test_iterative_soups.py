from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import set_runs
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import corners
from paretune.core.task import Task
from paretune.methods.meta_policy.iterative_soups import IterativeSoups, IterativeSoupsSettings, train_rounds
from paretune.models.loading import load_base
from paretune.training.train import train

pytestmark = pytest.mark.usefixtures("base")  # training wraps it
SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.9,
}  # fmt: skip


def flat(made: Any) -> torch.Tensor:
    rows: torch.Tensor = made.bank.flat
    return rows


@pytest.mark.slow
def test_rounds_as_long_as_the_training_are_rewarded_soups(task: Task) -> None:
    """136 completions are four updates of 16 for each of two experts, and one group more."""
    soups = flat(train("rewarded_soups", task, 136, settings=SMALL))
    for every in (5, 400):
        rounds = train("iterative_soups", task, 136, settings={**SMALL, "merge_every": every})
        assert flat(rounds).equal(soups)
    assert not flat(train("iterative_soups", task, 136, settings={**SMALL, "merge_every": 4})).equal(soups)


def test_a_length_that_ends_with_a_round_is_not_averaged(task: Task) -> None:
    """128 completions are four updates of 16 for each of two experts: a round of four is all there is."""
    soups = flat(train("rewarded_soups", task, 128, settings=SMALL))
    rounds = flat(train("iterative_soups", task, 128, settings={**SMALL, "merge_every": 4}))
    assert rounds.equal(soups)
    assert not rounds[0].equal(rounds[1])


def learner_of(task: Task, every: int, lengths: tuple[int, ...] = (64,)) -> Any:
    from paretune.core.ledger import Ledger
    from paretune.methods.training import environment
    from paretune.models.bank import ExpertBank
    from paretune.rl.merging import MergingLearner
    from paretune.rl.settings import LearnerSettings
    from paretune.rl.trainees import Member, Population

    base = load_base(task.model)
    bank = ExpertBank(base, 2, 2)
    bank.initialise([0, 0])
    ledger = Ledger()
    members = [Member(row, 0, lengths, ledger) for row in corners(2)]
    settings = LearnerSettings(
        **{name: value for name, value in SMALL.items() if name != "rank"}  # type: ignore[arg-type]  # of its fields
    )
    return MergingLearner(Population(bank, members), environment(base, task), settings, every)


def test_a_length_that_ends_with_a_round_hands_over_experts_and_a_longer_one_goes_on_from_their_average(
    task: Task,
) -> None:
    """A round of two updates is 32 completions of each expert, as many as the first of two budgets has for it."""
    handed: dict[tuple[int, ...], dict[tuple[int, int], torch.Tensor]] = {}
    averaged: dict[tuple[int, ...], int] = {}
    for lengths in ((32,), (32, 64), (64,)):
        learner, made = learner_of(task, 2, lengths), handed.setdefault(lengths, {})

        def hand_over(index: int, length: int, learner: Any = learner, made: Any = made) -> None:
            assert (index, length) not in made
            made[index, length] = learner.trainee.bank.flat[index].clone()

        learner.train(hand_over)
        averaged[lengths] = len(learner.discarded)
    both = handed[32, 64]
    assert sorted(both) == [(0, 32), (0, 64), (1, 32), (1, 64)]
    assert float((both[0, 32] - both[1, 32]).abs().max()) > 0.01
    for index in range(2):
        assert both[index, 32].equal(handed[32,][index, 32])
        assert both[index, 64].equal(handed[64,][index, 64])
    assert averaged == {(32,): 0, (32, 64): 1, (64,): 1}


def test_all_go_on_from_the_average_of_what_each_adds(task: Task) -> None:
    learner = learner_of(task, 2)

    def ignore(*given: object) -> None:
        del given

    learner.update(ignore, ignore)
    learner.update(ignore, ignore)
    bank = learner.trainee.bank
    wanted = {
        path: sum((layer.B[e] @ layer.A[e]).detach() for e in range(2)) / 2 for path, layer in bank.layers.items()
    }
    different = next(iter(bank.layers.values()))
    assert not different.B[0].equal(different.B[1])
    learner._merge(2)
    (lost,) = learner.discarded
    assert 0 < lost < 1  # deltas of two experts of rank 2 do not fit one
    energy = sum(float(each.square().sum()) for each in wanted.values())
    error = 0.0
    for path, layer in bank.layers.items():
        assert layer.B[0].equal(layer.B[1])
        assert layer.A[0].equal(layer.A[1])
        error += float(((layer.B[0] @ layer.A[0]).detach() - wanted[path]).square().sum())
    assert error / energy == pytest.approx(lost, rel=1e-3)  # the energy of what is left out is the squared distance
    optimiser = learner.parameter_groups.optimisers["experts"]
    assert not optimiser.mean.any()
    assert optimiser.average.equal(bank.flat)


@pytest.mark.parametrize("calls", [3, 7])  # within the second round of two updates of two experts, and in the fourth
def test_a_stop_between_updates_loses_nothing(task: Task, tmp_path: Path, calls: int) -> None:
    settings = IterativeSoupsSettings(**SMALL, merge_every=2)  # type: ignore[arg-type]  # of its fields
    (stage,) = IterativeSoups(settings).stages(task, corners(2), 256, 0)
    set_runs.check_that_a_stop_loses_nothing(train_rounds, stage, task, tmp_path, calls)


def test_what_cannot_be_planned_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match="merge_every must be at least 1 update"):
        IterativeSoupsSettings(merge_every=0)
    with pytest.raises(ConfigError, match="advantages must be made without greedy completions"):
        IterativeSoups(IterativeSoupsSettings(advantages="self_critical")).stages(task, corners(2), 640, 0)
    with pytest.raises(BudgetError, match="budget must"):
        IterativeSoups(IterativeSoupsSettings()).stages(task, corners(2), 15, 0)
