from __future__ import annotations

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.banks import GATES
from paretune.methods.entries import method_entry
from paretune.methods.meta_policy.gated_experts import GatedExperts, GatedExpertsSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings

WANTED = das_dennis(2, 2)
CHANGED: list[dict[str, object]] = [  # settings that reach the gate's stage alone
    {"gate": "token"}, {"gate": "token", "gate_block": 1}, {"context": "blind"}, {"form": "softmax"},
    {"form": "softmax", "gate_scale": 2.0}, {"form": "softmax", "gate_temperature": 0.5}, {"gate_kl": 0.1},
    {"gate_balance": 0.1}, {"top_1": True},
]  # fmt: skip


def test_experts_are_those_of_soups_and_the_gate_gets_its_share(task: Task) -> None:
    *experts, gate = GatedExperts(GatedExpertsSettings(gate_share=0.25)).stages(task, WANTED, 6000, 3)
    # a quarter of 6,000 is 1,500, in whole groups of eight 1,496; experts share the other 4,504
    assert (gate.kind, gate.completions) == ("gate", 1496)
    assert [stage.completions for stage in experts] == [2256, 2248]
    assert gate.settings["trains"] == "gate"
    assert gate.settings["gate"] == GATES["prompt"]
    assert gate.needs == tuple(experts)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 4504, 3)
    assert [stage.key(task) for stage in experts] == [stage.key(task) for stage in soups]


def test_without_a_gate_it_is_soups(task: Task) -> None:
    plain = GatedExperts(GatedExpertsSettings(gate="none")).stages(task, WANTED, 6000, 0)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 6000, 0)
    assert [stage.key(task) for stage in plain] == [stage.key(task) for stage in soups]


def test_gates_are_stages_of_their_own_and_preferences_play_no_part(task: Task) -> None:
    def keys(preferences: int, **changes: object) -> list[str]:
        settings = GatedExpertsSettings(**changes)  # type: ignore[arg-type]  # names of settings
        return [each.key(task) for each in GatedExperts(settings).stages(task, das_dennis(2, preferences), 6000, 0)]

    assert keys(2) == keys(10)
    others = [keys(2, gate="block"), keys(2, width=8), keys(2, gate_learning_rate=0.01), keys(2)]
    others += [keys(2, **changes) for changes in CHANGED]
    assert len({tuple(each[:-1]) for each in others}) == 1  # the experts
    assert len({each[-1] for each in others}) == 4 + len(CHANGED)
    assert GatedExpertsSettings(gate="mine:Gate").gate == "mine:Gate"


def test_a_block_that_the_model_does_not_have_is_refused_before_experts_are_paid_for(task: Task) -> None:
    for gate in ("token", GATES["token"]):
        for name in ("gated_experts", "mixture_of_experts"):
            fits = method_entry(name, {"gate": gate, "gate_block": 1}, name).method
            assert fits.stages(task, WANTED, 6000, 0)[-1].settings["gate_block"] == 1
            method = method_entry(name, {"gate": gate, "gate_block": 2}, name).method
            with pytest.raises(ConfigError, match=r"gate_block must be one of the model's 2 blocks, 0\.\.1, got 2"):
                method.stages(task, WANTED, 6000, 0)
    own = GatedExpertsSettings(gate="mine:Gate", gate_block=2)  # which may mean something else by it
    assert GatedExperts(own).stages(task, WANTED, 6000, 0)


def test_settings_and_budgets_out_of_range_are_refused(task: Task) -> None:
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="gate_share must be between 0 and 1"):
            GatedExpertsSettings(gate_share=share)
    with pytest.raises(ConfigError, match=r"gate must be one of block, .*got 'blok'"):
        GatedExpertsSettings(gate="blok")
    with pytest.raises(ConfigError, match="width must be at least 1, got 0"):
        GatedExpertsSettings(width=0)
    for name in ("gate_kl", "gate_balance", "gate_entropy", "gate_block"):
        with pytest.raises(ConfigError, match=f"{name} must not be negative, got -1"):
            GatedExpertsSettings(form="softmax", **{name: -1})
    for name in ("gate_scale", "gate_temperature"):
        with pytest.raises(ConfigError, match=f"{name} must be positive, got 0"):
            GatedExpertsSettings(**{name: 0})
    with pytest.raises(ConfigError, match="gate_entropy must be 0 in the free form"):
        GatedExpertsSettings(gate_entropy=0.1)
    for name, choices in (("context", "blind, own, shuffled"), ("form", "free, softmax")):
        with pytest.raises(ConfigError, match=f"{name} must be one of {choices}, got 'other'"):
            GatedExpertsSettings(**{name: "other"})  # type: ignore[arg-type]  # names of settings
    with pytest.raises(BudgetError, match="budget must give each of 2 experts"):
        GatedExperts(GatedExpertsSettings()).stages(task, WANTED, 16, 0)
    assert np.isclose(GatedExpertsSettings().gate_share, 0.25)
