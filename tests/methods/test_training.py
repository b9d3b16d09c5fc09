"""Run functions that fail before they train leave the base model, which all jobs share, as it was; a stop is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import set_runs
from paretune.core.errors import MethodError, WeightingError
from paretune.core.ledger import Ledger
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.bank_training import train_bank
from paretune.methods.banks import BankSettings, bank_stage
from paretune.methods.experts import ExpertSettings, expert_stage
from paretune.methods.training import slots, train_experts
from paretune.models.gate import TrainedGate
from paretune.models.loading import load_base
from paretune.rl.weighting import Fixed


class NoGate(TrainedGate):
    def shapes(self) -> Any:
        raise ZeroDivisionError

    def weights(self, *arguments: Any) -> Any:
        return None


class Forgets(Fixed):
    def state(self) -> dict[str, object]:
        return {"made": id(self)}


def short(rewards: Any) -> Any:
    """A shaping that does not take the ranges."""
    return rewards


def context(task: Task, *stages: Stage) -> Any:
    return SimpleNamespace(task=task, stages=stages, ledger=lambda stage: Ledger(64))


def expert(**parts: str) -> Stage:
    return expert_stage(ExpertSettings(), np.asarray([0.5, 0.5]), 64, 0, **parts)  # type: ignore[arg-type]  # names


@pytest.mark.parametrize("of", ["bank", "experts"])
def test_a_run_function_that_fails_before_training_takes_its_bank_off(task: Task, of: str) -> None:
    base = load_base(task.model)
    if of == "bank":
        with pytest.raises(ZeroDivisionError):
            train_bank(context(task, bank_stage(BankSettings(), 64, 0, gate=f"{__name__}:NoGate")))
    else:
        stage = replace(expert(), member={"objective_weights": [0.5, 0.5], "start": "first"})
        with pytest.raises(ValueError, match="first"):
            train_experts(context(task, stage))
    assert getattr(base.model, "_paretune_bank", None) is None
    assert not [name for name, _ in base.model.named_modules() if name.endswith("original")]


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("calls", [1, 3])
def test_a_stop_between_updates_loses_nothing(task: Task, tmp_path: Path, calls: int) -> None:
    settings = ExpertSettings(rank=2, group_size=4, completions_per_update=16, learning_rate=0.03)
    stage = expert_stage(settings, np.asarray([0.5, 0.5]), 80, 0)
    set_runs.check_that_a_stop_loses_nothing(train_experts, stage, task, tmp_path, calls)


def test_what_cannot_be_called_in_a_slot_is_refused_with_the_slots_name(task: Task) -> None:
    settings = expert(shaping=f"{__name__}:short").settings
    message = rf"^shaping '{__name__}:short' must take \(rewards \[B, K\], ranges \[K, 2\]\), got \(rewards: 'Any'\)\."
    with pytest.raises(MethodError, match=message):
        slots(task, settings, [np.asarray([0.5, 0.5])])


def test_a_weighting_that_is_not_restored_is_refused_before_training_even_at_a_corner(task: Task) -> None:
    settings = expert(weighting=f"{__name__}:Forgets").settings
    with pytest.raises(WeightingError, match="load of weighting Forgets must restore what state returned"):
        slots(task, settings, [np.asarray([1.0, 0.0])])
