"""Methods that mix the experts of rewarded soups elsewhere: `mod` and `hidden_mixing`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.core.errors import ConfigError, ModelError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Divergence, Mixer
from paretune.core.task import Task
from paretune.methods.meta_policy.hidden_mixing import HiddenMixing, HiddenMixingSettings
from paretune.methods.meta_policy.mod import MOD, MODSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings

WANTED = das_dennis(2, 2)
METHODS = [
    (MOD(MODSettings()), Mixer("log_probs")),
    (HiddenMixing(HiddenMixingSettings()), Mixer("hidden", -2, continued="soup")),
    (HiddenMixing(HiddenMixingSettings(block=0, continued="base")), Mixer("hidden", 0)),
    (HiddenMixing(HiddenMixingSettings(block=-1, norm="after")), Mixer("hidden", -1, continued="soup", norm="after")),
    (MOD(MODSettings(divergence="jensen_shannon")), Mixer("log_probs", divergence="jensen_shannon")),
    (MOD(MODSettings(correction="importance")), Mixer("log_probs", particles=8)),
    (MOD(MODSettings(correction="importance", particles=3)), Mixer("log_probs", particles=3)),
]


@pytest.mark.parametrize(("method", "mixer"), METHODS)
def test_the_experts_of_rewarded_soups_are_mixed_elsewhere(method: Any, mixer: Mixer, task: Task, finish: Any) -> None:
    stages = method.stages(task, WANTED, 1004, 3)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 1004, 3)
    assert [stage.key(task) for stage in stages] == [stage.key(task) for stage in soups]
    assembly = method.assemble(task, WANTED, finish(stages))
    assert assembly.mixer == mixer
    assert len(assembly.experts) == 2
    weights, words = assembly.answer.weights(np.asarray([[0.3, 0.7]]))
    assert (weights.tolist(), words) == ([[0.3, 0.7]], ["combined"])


def test_models_and_blocks_whose_states_cannot_be_mixed_are_refused_when_planned(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"block must be one of the model's 2 blocks, .* got 2 for"):
        HiddenMixing(HiddenMixingSettings(block=2)).stages(task, WANTED, 1004, 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "falcon", "num_hidden_layers": 2}))
    with pytest.raises(ModelError, match="got model_type 'falcon'"):
        HiddenMixing(HiddenMixingSettings()).stages(replace(task, model=str(tmp_path)), WANTED, 1004, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 4}, "particles must be left out where correction is 'none', got 4. Remove it, or write corr"),
        ({"correction": "importance", "particles": 1}, "particles must be a whole number from 2 on, got 1. Try 8"),
        ({"correction": "importance", "divergence": "forward_kl"}, "correction must be none but under the reverse KL"),
        ({"correction": "resampling"}, "correction must be one of importance, none, got 'resampling'"),
        ({"divergence": "kl"}, "divergence must be one of forward_kl, jensen_shannon, reverse_kl, got 'kl'"),
    ],
)
def test_settings_of_mod_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODSettings(**settings)


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_weights_that_undo_mixed_rewards_are_refused_under_a_divergence_of_no_expert(
    divergence: Divergence, task: Task, finish: Any
) -> None:
    """The inverse of .7 and .3 is 1.75 and -.75; a stretch below 1 brings weights inwards."""
    method = MOD(MODSettings(experts="mixed_reward", divergence=divergence))
    with pytest.raises(ConfigError, match=rf"'{divergence}', got \[1.75, -0.75\]. Experts are trained under the rev"):
        method.stages(task, WANTED, 1004, 3)
    with pytest.raises(ConfigError, match="Leave out divergence, or stretch and mixed rewards"):
        method.assemble(task, WANTED, {})
    for fine in ({"stretch": 0.5}, {"experts": {"kind": "mixed_reward", "beta": 1.0}}):
        assert MOD(MODSettings(divergence=divergence, **fine)).stages(task, WANTED, 1004, 3)  # type: ignore[arg-type]


def test_a_side_of_the_norm_where_there_is_none_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"norm must be 'before' but behind the last block, -1, got 'after' behind bl"
    ):
        HiddenMixingSettings(norm="after")
    with pytest.raises(ConfigError, match="norm must be one of after, before, got 'behind'"):
        HiddenMixingSettings(block=-1, norm="behind")  # type: ignore[arg-type]  # the point of the test


def test_a_continuation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"continued must be one of base, soup, got 'expert'"):
        HiddenMixingSettings(continued="expert")  # type: ignore[arg-type]  # the point of the test
