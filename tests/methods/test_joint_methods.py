from __future__ import annotations

import pytest

from paretune.core.errors import ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.experts import expert_settings
from paretune.methods.meta_policy.mixture_of_experts import MixtureOfExperts, MixtureOfExpertsSettings
from paretune.methods.meta_policy.preference_conditioned import PreferenceConditioned, PreferenceConditionedSettings


def test_one_stage_trains_one_policy_whatever_the_preferences(task: Task) -> None:
    gated, plain = MixtureOfExperts(MixtureOfExpertsSettings()), PreferenceConditioned(PreferenceConditionedSettings())
    for method in (gated, plain):
        (stage,) = method.stages(task, das_dennis(2, 2), 6000, 3)
        (same,) = method.stages(task, das_dennis(2, 10), 6000, 3)
        assert stage.key(task) == same.key(task)
        assert (stage.kind, stage.completions, stage.member) == ("bank", 6000, {})
    stages = [method.stages(task, das_dennis(2, 2), 6000, 3)[0] for method in (gated, plain)]
    assert [stage.settings["gate"] for stage in stages] == ["paretune.models.gate:BlockGate", ""]
    assert stages[0].trajectory_key(task) != stages[1].trajectory_key(task)


def test_the_stage_of_the_default_gate_is_as_it_was_when_gates_had_no_words(task: Task) -> None:
    """Finished studies are found by the digest of just these settings."""
    (stage,) = MixtureOfExperts(MixtureOfExpertsSettings()).stages(task, das_dennis(2, 2), 6000, 3)
    learner = expert_settings(PreferenceConditionedSettings())
    assert stage.settings == {
        **learner, "gate": "paretune.models.gate:BlockGate", "gate_learning_rate": 0.0, "width": 32
    }  # fmt: skip
    named = MixtureOfExperts(MixtureOfExpertsSettings(gate="paretune.models.gate:BlockGate"))
    assert named.stages(task, das_dennis(2, 2), 6000, 3)[0].key(task) == stage.key(task)
    (plain,) = MixtureOfExperts(MixtureOfExpertsSettings(gate="none")).stages(task, das_dennis(2, 2), 6000, 3)
    assert plain.settings["gate"] == ""


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"width must be at least 1, got 0"):
        MixtureOfExpertsSettings(width=0)
    with pytest.raises(ConfigError, match=r"gate must be one of block, .*, got ''"):
        MixtureOfExpertsSettings(gate="")
    with pytest.raises(ConfigError, match="gate_learning_rate must not be negative, got -1"):
        MixtureOfExpertsSettings(gate_learning_rate=-1)
