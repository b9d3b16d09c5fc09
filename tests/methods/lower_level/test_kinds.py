"""What every kind of experts promises, and the table that names them."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from paretune.benchmark.keys import training_key
from paretune.core.errors import BudgetError, ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.settings import make_settings
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.methods import resolve_method
from paretune.methods.entries import has_setting, method_entry, with_settings
from paretune.methods.experts import ExpertSettings, start_of
from paretune.methods.meta_policy.lower_level import KINDS, make_kind
from paretune.methods.meta_policy.lower_level.trained_for import least_norm_prior

SETTINGS = ExpertSettings()
WANTED = das_dennis(2, 4)
COMBINING = ("rewarded_soups", "mod", "hidden_mixing", "emorl")
OTHERS: list[dict[str, Any]] = [
    {"kind": "mixed_reward", "beta": 0.6, "extrapolation": 0.25},
    {"kind": "mgda", "divisions": 3},
    {"kind": "cone", "eps": "inf"},
    {"kind": "split_experts", "threshold": 1},
]


@pytest.fixture(scope="module")
def numbered(task: Task) -> Task:
    """The micro-task, whose prompts have a number."""
    splits: Any = {
        split: tuple({**row, "number": index % 4 - 1} for index, row in enumerate(rows))
        for split, rows in task.splits.items()
    }
    return replace(task, splits=splits)


def completed(experts: str | dict[str, Any]) -> dict[str, Any]:
    """Name a column to split by where a kind needs one."""
    given: dict[str, Any] = {"kind": experts} if isinstance(experts, str) else experts
    return {**given, "split_by": "number"} if given["kind"] == "split_experts" else given


@pytest.mark.parametrize("experts", [*KINDS, *OTHERS])
def test_a_kind_plans_the_experts_that_its_prior_weighs(experts: Any, numbered: Task) -> None:
    kind = make_kind(completed(experts))
    assert is_dataclass(kind)
    assert type(kind).__dataclass_params__.frozen  # type: ignore[attr-defined]  # of every dataclass
    assert "Source:" in str(type(kind).__doc__)
    stages, prior = kind.stages(SETTINGS, numbered, 1000, 3), kind.prior(2)
    assert prior.shape == (2, len(stages))
    assert stages == kind.stages(SETTINGS, numbered, 1000, 3)
    assert len({stage.key(numbered) for stage in stages}) == len(stages)
    assert {start_of(stage) for stage in stages} == {3}  # averaged experts start alike
    assert {stage.kind for stage in stages} == {"expert"}
    assert 0 <= 1000 - sum(stage.completions for stage in stages) < 8 * len(stages)  # a group is 8
    with pytest.raises(BudgetError, match="each of"):
        kind.stages(SETTINGS, numbered, 8 * len(stages) - 1, 3)


@pytest.mark.parametrize("experts", [*KINDS, *OTHERS[1:]])
@pytest.mark.parametrize("objectives", [2, 3])
def test_what_experts_are_trained_for_is_on_average_the_preference(
    experts: Any, objectives: int, numbered: Task, finish: Any
) -> None:
    kind = make_kind(completed(experts))
    wanted = das_dennis(objectives, 4)
    some = replace(
        numbered,
        objectives=tuple(replace(numbered.objectives[0], name=f"o{number}") for number in range(objectives)),
        reference_point=(0.0,) * objectives,
    )
    trained = np.asarray([stage.member["objective_weights"] for stage in kind.stages(SETTINGS, some, 10_000, 0)])
    weights = wanted @ kind.prior(objectives)
    assert_allclose(weights @ trained, wanted, atol=1e-12)
    assert_allclose(weights.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", COMBINING)
def test_methods_combine_any_kind_by_its_prior(name: str, numbered: Task) -> None:
    for experts in [*KINDS, *OTHERS]:
        method = method_entry(name, {"experts": completed(experts)}, "methods").method
        kind = make_kind(completed(experts))
        stages = method.stages(numbered, WANTED, 20_000, 0)
        trained = [stage for stage in stages if stage.kind == "expert"]
        spent = sum(stage.completions for stage in stages if stage.kind != "expert")
        assert trained == list(kind.stages(method.settings, numbered, 20_000 - spent, 0))  # type: ignore[attr-defined]
        if name != "emorl":
            continue
        search = stages[-1]
        assert_allclose(np.asarray(search.settings["first_candidates"]), WANTED @ kind.prior(2))


@pytest.mark.parametrize("name", COMBINING[:3])
def test_a_preference_is_answered_by_the_prior(name: str, numbered: Task, finish: Any) -> None:
    method = method_entry(name, {"experts": {"kind": "mixed_reward", "beta": 0.7}}, "methods").method
    assembly = method.assemble(numbered, WANTED, finish(method.stages(numbered, WANTED, 1000, 0)))
    # B^-1 (0, 1) = (-.3, .7) / (.49 - .09)
    assert_allclose(assembly.answer.weights(np.asarray([[0.0, 1.0]]))[0], [[-0.75, 1.75]])


@pytest.mark.parametrize("name", COMBINING)
def test_the_default_is_no_part_of_a_stage_and_other_kinds_are_told_apart(name: str, numbered: Task) -> None:
    found = resolve_method(name)
    assert found.Settings().experts == "single_objective"
    plain = found(found.Settings()).stages(numbered, WANTED, 20_000, 0)
    assert not any("experts" in stage.settings for stage in plain)
    keys = set()
    for experts in [*list(KINDS)[:4], *OTHERS[:2]]:
        stages = found(found.Settings(experts=completed(experts))).stages(numbered, WANTED, 20_000, 0)
        keys.add(tuple(stage.key(numbered) for stage in stages))
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ("soup", "^methods.soups.experts must be one of .*got 'soup'"),
        ({"beta": 0.7}, r"experts must name its kind, got \{'beta': 0.7\}"),
        ({"kind": "mixed_reward", "alpha": 1}, "experts.alpha must be one of the settings of mixed_reward, got"),
        (
            {"kind": "single_objective", "beta": 1},
            "settings of single_objective must be left out, as it has none, got 'beta'",
        ),
        ({"kind": "mixed_reward", "beta": 1.5}, "experts: beta of mixed-reward experts must be above 1/K"),
        ({"kind": "mixed_reward", "beta": "much"}, "experts.beta must"),
        ({"kind": "mixed_reward", "extrapolation": -0.1}, "extrapolation must be finite and not negative, got -0.1"),
        ({"kind": "mgda", "divisions": 0}, "divisions must be at least 1, got 0"),
        ({"kind": "mgda", "towards_centre": 0.0}, "towards_centre must lie between 0 and 1, got 0.0"),
        ({"kind": "mgda", "preference": "ignored"}, "preference of MGDA experts must be one of scaled, shared"),
        ({"kind": "mgda", "normalise": 3}, "normalise must be one of 0, 1, 2"),
        ({"kind": "cone", "eps": -0.1}, "eps must lie between 0 and 1, or be inf, got -0.1"),
        ({"kind": "cone", "metric": "euclidean"}, "metric must be one of optimiser, plain"),
        ({"kind": "json:JSONDecoder"}, "must be a class with stages, prior, got one without stages, prior"),
    ],
)
def test_what_is_no_kind_of_experts_is_refused_with_the_study(experts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method_entry("rewarded_soups", {"experts": experts}, "methods.soups")


def test_a_kind_is_found_by_its_class_and_names_are_checked() -> None:
    for name, path in KINDS.items():
        assert type(make_kind(path)) is type(make_kind(name))
    with pytest.raises(UnknownNameError, match="Did you mean 'mixed_reward'"):
        make_kind("mixed_rewards")


def test_settings_of_a_kind_are_written_below_it_and_can_be_swept() -> None:
    entry = method_entry("mod", {"experts": {"kind": "mixed_reward", "beta": 0.8}}, "methods")
    assert has_setting(entry.settings, "experts.beta")
    changed = with_settings(entry, {"experts.beta": 0.6}, "tune")
    assert changed.method.settings.expert_kind.beta == 0.6  # type: ignore[attr-defined]
    names = {each.name for each in fields(type(make_kind("mixed_reward")))}
    assert make_settings(type(make_kind("mixed_reward")), dict.fromkeys(names, 0.9), "experts").beta == 0.9


def test_a_cell_of_the_default_has_the_key_it_had_before_there_was_a_choice(numbered: Task) -> None:
    def key(entry: Any) -> str:
        return training_key(numbered, entry, 1000, 0, entry.method.stages(numbered, WANTED, 1000, 0))

    entry = method_entry("mod", {}, "methods")
    assert "experts" not in entry.kept
    same_stages = method_entry("mod", {"experts": {"kind": "cone", "eps": "inf"}}, "methods")
    assert key(same_stages) != key(entry)


@pytest.mark.parametrize("name", [*COMBINING, "mixture_of_experts"])
def test_infinity_is_the_word_for_it(name: str, numbered: Task) -> None:
    number, word = (
        method_entry(name, {"experts": {"kind": "cone", "eps": eps}}, "methods") for eps in (math.inf, "inf")
    )
    assert number.kept == word.kept
    keys = [[each.key(numbered) for each in one.method.stages(numbered, WANTED, 20_000, 0)] for one in (number, word)]
    assert keys[0] == keys[1]
    with pytest.raises(ConfigError, match="eps must lie between 0 and 1, or be inf, got -inf"):
        method_entry(name, {"experts": {"kind": "cone", "eps": -math.inf}}, "methods")
    with pytest.raises(ConfigError, match=r"learning_rate must be.*got inf"):  # where there is no such word
        method_entry(name, {"learning_rate": math.inf}, "methods")


@pytest.mark.parametrize("kind", ["mixed_reward", "mgda"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mixture_of_experts", {"prior": "search"}),
        ("contextual_bandit", {}),
        ("emorl", {}),
        ("searched_soups", {"search": "random"}),
    ],
)
def test_keys_do_not_depend_on_the_last_bits_of_an_inverse(
    name: str, settings: dict[str, Any], kind: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's linear algebra rounds in another way: here every number is the next one."""
    method = method_entry(name, {"experts": kind, **settings}, name).method
    found = []
    for nudged in (False, True):
        with monkeypatch.context() as patch:
            for module in ("mixed_reward", "mgda"):
                patch.setattr(
                    f"paretune.methods.meta_policy.lower_level.{module}.least_norm_prior",
                    (lambda trained: np.nextafter(least_norm_prior(trained), np.inf)) if nudged else least_norm_prior,
                )
            found.append([stage.key(task) for stage in in_order(method.stages(task, WANTED, 6000, 0), task)])
    assert found[0] == found[1]
