from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from paretune.core.answers import Nearest
from paretune.core.errors import ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.settings import plain_settings
from paretune.core.task import Task
from paretune.methods import METHODS, resolve_method
from paretune.methods.asking import asked_stages
from paretune.methods.entries import method_entry
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.mixture_of_experts import MixtureOfExpertsSettings
from paretune.methods.single_policy.linear import Linear, LinearSettings

HAVE = (
    "linear",
    "weight_grid",
    "rewarded_soups",
    "mod",
    "hidden_mixing",
    "preference_conditioned",
    "mixture_of_experts",
)


@pytest.mark.parametrize("name", HAVE)
def test_the_default_is_in_no_setting_of_a_study_or_stage_and_makes_the_same_stages(task: Task, name: str) -> None:
    plain, told = (method_entry(name, given, name) for given in ({}, {"feedback": "told"}))
    assert "feedback" not in plain.kept
    stages = [each.method.stages(task, das_dennis(2, 2), 6000, 0) for each in (plain, told)]
    assert stages[0] == stages[1]
    assert not any("feedback" in stage.settings for stage in stages[0])


@pytest.mark.parametrize("name", HAVE)
def test_other_classes_are_written_down(name: str) -> None:
    entry = method_entry(name, {"feedback": "oracle"}, name)
    assert entry.settings["feedback"] == "oracle"


def test_utility_reaches_every_stage_and_the_oracle_those_alone_whose_requests_are_drawn(task: Task) -> None:
    made = {
        (name, feedback): method_entry(name, {"feedback": feedback}, name).method.stages(
            task, das_dennis(2, 2), 6000, 0
        )
        for name in ("rewarded_soups", "mixture_of_experts")
        for feedback in ("told", "utility", "oracle")
    }
    assert made["rewarded_soups", "oracle"] == made["rewarded_soups", "told"]
    assert [each.settings["feedback"] for each in made["rewarded_soups", "utility"]] == ["utility"] * 2
    for feedback in ("utility", "oracle"):
        assert made["mixture_of_experts", feedback][0].settings["feedback"] == feedback


@pytest.mark.parametrize("name", ["mgda", "chebyshev", "dynaopt", "dorb", "evolution", "lagrangian", "emorl", "base"])
def test_a_method_that_reads_the_reward_of_each_objective_has_no_such_class(name: str) -> None:
    with pytest.raises(ConfigError, match=r"x.feedback must be left out: .* got 'utility'\. Take linear"):
        method_entry(name, {"feedback": "utility"}, "x")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("linear", {"advantages": "gdpo"}, "advantages must be one of leave_one_out, grpo where feedback is utility"),
        ("linear", {"weighting": "mine:Mine"}, "weighting must be left out where feedback is utility, got 'mine:Mine'"),
        ("linear", {"shaping": "mine:shape"}, "shaping must be left out where feedback is utility"),
        ("mixture_of_experts", {"advantages": "k_sample_mean"}, "advantages must be one of leave_one_out, grpo"),
    ],
)
def test_what_needs_more_than_one_number_a_completion_is_refused(name: str, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method_entry(name, {"feedback": "utility", **settings}, name)


@pytest.mark.parametrize(
    ("name", "has", "refused", "why"),
    [
        ("weight_grid", "oracle", "utility", "reads the reward of each objective"),
        ("preference_in_prompt", "utility", "oracle", "writes preferences in tenths"),
    ],
)
def test_a_method_without_all_classes_refuses_one_and_says_why(name: str, has: str, refused: str, why: str) -> None:
    assert method_entry(name, {"feedback": has}, name).settings["feedback"] == has
    message = f"feedback must be one of told, {has} for a method that {why}, got '{refused}'"
    with pytest.raises(ConfigError, match=message):
        method_entry(name, {"feedback": refused}, name)


def test_docs_name_the_methods_that_have_classes_of_feedback(root: Path) -> None:
    kinds = {name: resolve_method(name).Settings for name in METHODS}
    have = {name: kind.feedbacks for name, kind in kinds.items() if issubclass(kind, FeedbackSettings)}
    assert set(have.values()) == {("told", "utility", "oracle"), ("told", "oracle"), ("told", "utility")}
    page = (root / "docs" / "learning.md").read_text(encoding="utf-8")
    line = next(each for each in page.split("\n\n") if "have all three" in each)
    whole, _, others = line.partition(" have all three")
    listed = [
        set(re.findall(r"`(\w+)`", part)) & set(METHODS) for part in (whole, others.partition("other methods")[0])
    ]
    assert listed[0] == {name for name, each in have.items() if len(each) == 3}
    assert listed[1] == {name for name, each in have.items() if len(each) < 3}


def test_a_refused_class_of_feedback_names_the_methods_that_have_it() -> None:
    with pytest.raises(ConfigError, match="feedback must be left out") as utility:
        method_entry("mgda", {"feedback": "utility"}, "x")
    with pytest.raises(ConfigError, match="feedback must be left out") as oracle:
        method_entry("mgda", {"feedback": "oracle"}, "x")
    assert "contextual_bandit" in str(utility.value)
    assert "preference_in_prompt" in str(utility.value)
    assert "weight_grid" not in str(utility.value)  # which selects by the reward of each objective
    assert "weight_grid" in str(oracle.value)


@pytest.mark.parametrize("name", ["rewarded_soups", "mod", "hidden_mixing", "contextual_bandit", "mixture_of_experts"])
@pytest.mark.parametrize("experts", ["mgda", "cone"])
def test_experts_that_read_gradients_of_each_objective_are_refused_when_planned(
    task: Task, name: str, experts: str
) -> None:
    entry = method_entry(name, {"feedback": "utility", "experts": experts}, name)
    with pytest.raises(
        ConfigError, match=r"stage 'expert' of \w+.stages: weighting must be left out where feedback is"
    ):
        asked_stages(entry.method, task, das_dennis(2, 2), 6000, 0)
    told = method_entry(name, {"experts": experts}, name)
    assert asked_stages(told.method, task, das_dennis(2, 2), 6000, 0)


def test_what_a_stage_needs_is_looked_at_too(task: Task) -> None:
    """A method may return the last of its stages alone."""
    entry = method_entry("contextual_bandit", {"feedback": "utility", "experts": "cone"}, "x")

    class LastAlone:
        def stages(self, *given: Any, **named: Any) -> Any:
            return entry.method.stages(*given, **named)[-1:]

    one: Any = LastAlone()
    with pytest.raises(ConfigError, match="weighting must be left out where feedback is utility"):
        asked_stages(one, task, das_dennis(2, 2), 6000, 0)


def test_another_word_is_refused_and_the_shuffled_control_is_another_setting() -> None:
    with pytest.raises(ConfigError, match=r"feedback must be one of oracle, told, utility, got 'oracel'"):
        LinearSettings(feedback="oracel")
    assert method_entry("dorb", {"feedback": "shuffled"}, "dorb").settings["feedback"] == "shuffled"


def test_one_number_a_completion_does_not_tell_what_a_policy_is_worth_to_others(task: Task, finish: Any) -> None:
    method = Linear(LinearSettings(feedback="utility", completions_each=1000))
    stages = method.stages(task, das_dennis(2, 2), 6000, 0)
    known = {"expert": {"returns": [0.5, 0.5], "kl": 0.1, "counted": 10**6}}
    assembly = method.assemble(task, das_dennis(2, 2), finish(stages, known))
    assert isinstance(assembly.answer, Nearest)


def test_a_setting_that_is_not_its_default_is_plain_data() -> None:
    assert "feedback" not in plain_settings(MixtureOfExpertsSettings())
    assert plain_settings(MixtureOfExpertsSettings(feedback="utility"))["feedback"] == "utility"
