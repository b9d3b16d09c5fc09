from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import AdapterError, BudgetError, ConfigError, TaskError
from paretune.core.ledger import Ledger
from paretune.core.settings import plain_settings
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.banks import BankSettings, bank_stage
from paretune.methods.entries import method_entry
from paretune.methods.experts import (
    PLANNING,
    ExpertSettings,
    adapters_of,
    expert_settings,
    expert_stage,
    left_by,
    measurement_stage,
    settings_of,
    split_budget,
    weighed,
    whole_passes,
)
from paretune.methods.meta_policy.bone_soups import BoneSoups, BoneSoupsSettings
from paretune.methods.meta_policy.emorl import EMORL, EMORLSettings
from paretune.methods.meta_policy.hidden_mixing import HiddenMixingSettings
from paretune.methods.meta_policy.searched_soups import SearchedSoups, SearchedSoupsSettings
from paretune.methods.multi_policy.evolution import Evolution, EvolutionSettings
from paretune.methods.multi_policy.weight_grid import WeightGrid, WeightGridSettings
from paretune.methods.single_policy.linear import Linear, LinearSettings
from paretune.rl.settings import LearnerSettings


@given(budget=st.integers(1, 20_000), parts=st.integers(1, 40), group=st.integers(1, 64))
def test_a_budget_is_split_into_whole_groups_and_left_short_by_less_than_one(
    budget: int, parts: int, group: int
) -> None:
    if budget // group < parts:
        with pytest.raises(BudgetError, match=f"each of {parts} experts at least one group of {group}"):
            split_budget(budget, parts, group)
        return
    lengths = split_budget(budget, parts, group)
    assert len(lengths) == parts
    assert all(length % group == 0 for length in lengths)
    assert 0 <= budget - sum(lengths) < group
    assert lengths == sorted(lengths, reverse=True)  # a remainder goes to the first
    assert max(lengths) - min(lengths) <= group


def test_a_key_holds_weights_that_are_the_same_on_every_machine() -> None:
    """`[[.7, .3], [.3, .7]]^-1 = [[.7, -.3], [-.3, .7]] / .4`, here as LAPACK gives it: off in the last bits."""
    rule = np.asarray([[1.7500000000000002, -0.7500000000000001], [-0.7499999999999999, 1.75]])
    assert weighed(np.eye(2), rule).tolist() == [[1.75, -0.75], [-0.75, 1.75]]
    # 1/3 of the one and 2/3 of the other: (1.75 - 1.5) / 3 = 1/12, to 12 digits
    assert weighed(np.asarray([[1 / 3, 2 / 3]]), rule).tolist() == [[0.083333333333, 0.916666666667]]
    assert weighed(np.asarray([[1 / 3, 2 / 3]]), np.eye(2)).tolist() == [[1 / 3, 2 / 3]]  # as keys have been


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (15, r"got 15 for all of them\. Raise it by at least 1\."),
        (0, r"got none: all of it is spent elsewhere\. Raise it by at least 16\."),
        (-256, r"got none: all of it is spent elsewhere\. Raise it by at least 272\."),  # a search took more than all
    ],
)
def test_a_budget_that_others_have_spent_is_refused_without_a_negative_number(budget: int, message: str) -> None:
    with pytest.raises(
        BudgetError, match=rf"^budget must give each of 2 experts at least one group of 8 .*, {message}$"
    ):
        split_budget(budget, 2, 8)


@pytest.mark.parametrize(
    ("name", "settings", "budget", "setting"),
    [
        ("bone_soups", {"pilot_share": 0.9, "pilot_measured_each": 1}, 100, "pilot_share"),
        ("contextual_bandit", {}, 16, "bandit_share"),
        ("contextual_bandit", {}, 20, "bandit_share"),  # 4 more give the bandit one more
        ("emorl", {"search_share": 0.5}, 20, "search_share"),
        ("searched_soups", {"search_share": 0.5}, 20, "search_share"),
        ("gated_experts", {}, 20, "gate_share"),
        (
            "mixture_of_experts", {"experts": "single_objective"}, 16, "experts_share, prior_share or polish_share"
        ),
        ("weight_grid", {}, 25, "measured_each"),
    ],
)  # fmt: skip
def test_experts_that_get_a_part_of_a_budget_are_told_what_leaves_them_too_little(
    task: Task, name: str, settings: dict[str, Any], budget: int, setting: str
) -> None:
    """By how much the part is too small is not by how much the whole is: a number would not help."""
    message = rf"That is what {setting} leaves of {budget:,} completions\. Raise these, or change {setting}\.$"
    with pytest.raises(BudgetError, match=rf"^budget must give each of .*[^ ]\. {message}") as caught:
        method_entry(name, settings, "x").method.stages(task, np.eye(2), budget, 0)
    assert "at least one group" in str(caught.value)
    assert "Raise it by" not in str(caught.value)


def test_pilots_are_told_who_gives_them_a_budget_and_what_spends_it(task: Task) -> None:
    # pilot_share gives 5 % of 4096, and 3 betas at 3 preferences with 64 completions each are 576: more than all of it
    with pytest.raises(
        BudgetError,
        match=r"^budget must give each of 6 experts at least one group of 8 completions, got none: .*\. That is what "
        r"pilot_measured_each leaves of 204 completions that pilot_share gives\. Raise pilot_share, or change "
        r"pilot_measured_each\.$",
    ):
        method_entry("bone_soups", {"pilot_share": 0.05}, "x").method.stages(task, np.eye(2), 4096, 0)


@pytest.mark.parametrize("mine", ["experts must have 9 each, got 1. Raise it by at least 8.", "budget must be even."])
def test_a_budget_error_of_code_of_a_users_own_is_left_as_it_is(mine: str) -> None:
    """It may have another rule, and its advice may be worded as that of a budget that is split."""
    with pytest.raises(BudgetError) as caught, left_by("gate_share", 9, 100):
        raise BudgetError(mine)
    assert str(caught.value) == mine


def test_a_part_that_is_the_whole_is_told_by_how_much_it_must_rise(task: Task) -> None:
    with pytest.raises(BudgetError, match=r"got 7 for all of them\. Raise it by at least 1\.$"):
        method_entry("mixture_of_experts", {}, "x").method.stages(task, np.eye(2), 7, 0)


def test_a_stage_without_an_adapter_is_told_where_adapters_are_asked_for() -> None:
    stage = Stage("search", "a:b", {})
    left = StageResult(stage, "0a", Path("s"), {"scores.json": Path("s/scores.json")}, {}, Ledger(), 0.0)
    with pytest.raises(
        AdapterError, match=r"must have left some, got scores\.json artefacts of search 0a\. Name an adapter's artefact"
    ):
        adapters_of([left])


def test_experts_of_two_methods_with_equal_settings_are_one_stage(task: Task) -> None:
    linear, grid = LinearSettings(completions_each=800), WeightGridSettings(measured_each=7)
    stages = [expert_stage(settings, np.asarray([1.0, 0.0]), 64, 3) for settings in (linear, grid)]
    assert stages[0].key(task) == stages[1].key(task)
    assert expert_settings(grid) == expert_settings(linear) == plain_settings(ExpertSettings())
    other = expert_stage(LinearSettings(rank=4), np.asarray([1.0, 0.0]), 64, 3)
    assert other.shape_key(task) != stages[0].shape_key(task)


@dataclass(frozen=True)
class Inner:
    """Settings inside settings."""

    depth: int = 2


@dataclass(frozen=True)
class OwnSettings(ExpertSettings):
    """A user's settings: one field shapes the training, one says how many stages there are."""

    temperature: float = 1.0
    inner: Inner = Inner()
    members: int = field(default=3, metadata=PLANNING)


def test_a_methods_own_settings_reach_its_stages_unless_they_only_plan(task: Task) -> None:
    def key(**settings: Any) -> str:
        return expert_stage(OwnSettings(**settings), np.asarray([1.0, 0.0]), 64, 3).key(task)

    stage = expert_stage(OwnSettings(temperature=0.5), np.asarray([1.0, 0.0]), 64, 3)
    assert dict(stage.settings) == {**plain_settings(ExpertSettings()), "temperature": 0.5, "inner": {"depth": 2}}
    assert key(temperature=0.5) != key()  # else two methods would share an expert that differs
    assert key(inner=Inner(3)) != key()
    assert key(members=4) == key()
    assert key() != expert_stage(ExpertSettings(), np.asarray([1.0, 0.0]), 64, 3).key(task)


def test_settings_that_training_does_not_know_are_left_to_others(task: Task, tmp_path: Path) -> None:
    """Experts trained with a setting of a user's own are those trained without it."""
    from paretune.executors.jobs import quiet_link
    from paretune.models.adapters import read_adapter
    from paretune.training.finished import stage_result
    from paretune.training.groups import PlannedStage, begin_group
    from paretune.training.stages import run_group

    small = {"rank": 2, "group_size": 4, "completions_per_update": 16}
    factors = []
    for settings in (ExpertSettings(**small), OwnSettings(**small)):  # type: ignore[arg-type]  # of one dict
        stage = expert_stage(settings, np.asarray([1.0, 0.0]), 16, 3)
        planned = PlannedStage(stage.key(task), stage, task, 0, "new", (), 16)
        run_group(tmp_path, begin_group(tmp_path, [planned]).folder, task, quiet_link())
        factors.append(read_adapter(stage_result(tmp_path, stage, task).artefacts["adapter"]).factors)
    for path, (down, up) in factors[0].items():
        assert down.equal(factors[1][path][0])
        assert up.equal(factors[1][path][1])


@pytest.mark.parametrize("length", [16, 24, 32])
def test_all_updates_of_a_stage_are_among_its_events_the_last_one_too(task: Task, tmp_path: Path, length: int) -> None:
    from paretune.executors.jobs import Link
    from paretune.training.finished import stage_result
    from paretune.training.groups import PlannedStage, begin_group
    from paretune.training.stages import run_group

    settings = ExpertSettings(rank=2, group_size=4, completions_per_update=16)
    stage = expert_stage(settings, np.asarray([1.0, 0.0]), length, 3)
    planned = PlannedStage(stage.key(task), stage, task, 0, "new", (), length)
    heard: list[Any] = []
    run_group(tmp_path, begin_group(tmp_path, [planned]).folder, task, link := Link(heard.append, lambda: False, 1))
    link.flush()
    lines = (stage_result(tmp_path, stage, task).folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["completions"] for event in events] == [16, length - 16][: 1 + (length > 16)]
    assert sum(each["completions"] for each in heard if each["kind"] == "progress") == length


def test_settings_are_read_from_a_stage_as_they_were_written() -> None:
    written = HiddenMixingSettings(rank=3, epochs=2, block=1)
    stage = expert_stage(written, np.asarray([1.0, 0.0]), 64, 3, weighting="my_slot:Mine")
    assert settings_of(HiddenMixingSettings, stage) == HiddenMixingSettings(rank=3, epochs=2)  # its block is planning
    assert settings_of(LearnerSettings, stage) == LearnerSettings(epochs=2)
    bare = replace(stage, settings={name: value for name, value in stage.settings.items() if name != "clip"})
    with pytest.raises(ConfigError, match=r"settings of a stage must have clip to be trained by paretune\.methods\.tr"):
        settings_of(LearnerSettings, bare)


@pytest.mark.parametrize("slot", ["weighting", "advantages", "shaping", "gate"])
def test_an_edit_of_code_that_a_stage_names_makes_another_stage_of_it(
    slot: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paretune.core.user_code import loaded_files

    def stage(**given: Any) -> Stage:
        if slot == "gate":
            return bank_stage(BankSettings(), 64, 3, **given)
        return expert_stage(ExpertSettings(), np.asarray([1.0, 0.0]), 64, 3, **given)

    def keys() -> tuple[str, str, str, str]:
        loaded_files.cache_clear()  # as a new process
        named, plain = (stage(**given) for given in ({slot: "my_slot:Mine"}, {}))
        return named.shape_key(task), named.trajectory_key(task), named.key(task), plain.key(task)

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_slot.py").write_text("import my_curve\n\nclass Mine:\n    bend = my_curve.BEND\n")
    (tmp_path / "my_curve.py").write_text("BEND = 1\n")
    before = keys()
    (tmp_path / "my_curve.py").write_text("BEND = 1  # so far\n")
    assert keys() == before
    (tmp_path / "my_curve.py").write_text("BEND = 2\n")
    after = keys()
    assert not set(before[:3]) & set(after)
    assert before[3] == after[3]  # a stage that does not name it stays
    loaded_files.cache_clear()


def test_names_and_a_start_are_part_of_a_stage_where_they_are_given(task: Task) -> None:
    def stage(**given: Any) -> Stage:
        return expert_stage(ExpertSettings(), np.asarray([1.0, 0.0]), 64, 3, **given)

    plain = stage()
    assert stage(weighting="", advantages="", shaping="", start=None) == plain
    for name in ("weighting", "advantages", "shaping"):
        named = stage(**{name: "my_idea:Mine"})
        assert dict(named.settings) == {**plain_settings(ExpertSettings()), name: "my_idea:Mine"}
        assert named.shape_key(task) != plain.shape_key(task)
    started = [stage(start=number) for number in (0, 1)]
    assert [each.member["start"] for each in started] == [0, 1]
    assert {each.shape_key(task) for each in started} == {plain.shape_key(task)}  # may train as one population
    assert len({each.key(task) for each in (plain, *started)}) == 3


def test_experts_of_other_weights_or_seeds_may_train_as_one_population(task: Task) -> None:
    settings = ExpertSettings()
    stages = [
        expert_stage(settings, np.asarray(weights), completions, seed)
        for weights, completions, seed in (([1.0, 0.0], 64, 0), ([0.5, 0.5], 64, 0), ([1.0, 0.0], 128, 1))
    ]
    assert len({stage.shape_key(task) for stage in stages}) == 1
    assert len({stage.trajectory_key(task) for stage in stages}) == 3


def test_a_measurement_is_charged_for_every_expert_it_measures(task: Task) -> None:
    experts = [expert_stage(ExpertSettings(), np.asarray(row), 64, 0) for row in ([1.0, 0.0], [0.0, 1.0])]
    stage = measurement_stage(experts, 12, 0)
    assert stage.completions == 24
    assert stage.needs == tuple(experts)


@given(prompts=st.integers(1, 200), completions=st.integers(1, 300))
def test_a_measurement_uses_every_prompt_equally_often_or_some_once(prompts: int, completions: int) -> None:
    whole = whole_passes(completions, prompts)
    assert whole % min(prompts, completions) == 0  # no prompt counts more than another
    assert completions - whole < prompts  # and less than one more pass is left out
    assert whole >= min(prompts, completions)


def test_a_task_without_development_prompts_is_refused_where_something_is_measured(task: Task) -> None:
    bare = replace(task, splits={**task.splits, "development": ()})
    assert Linear(LinearSettings()).stages(bare, np.eye(2), 999, 0)  # measures nothing
    measuring: tuple[Any, ...] = (
        WeightGrid(WeightGridSettings()), EMORL(EMORLSettings()), SearchedSoups(SearchedSoupsSettings(search="random")),
        BoneSoups(BoneSoupsSettings(pilot_share=0.4)), Evolution(EvolutionSettings()),
    )  # fmt: skip
    for method in measuring:
        with pytest.raises(TaskError, match=r"development prompts of task '.+' must be at least one where"):
            method.stages(bare, np.eye(2), 9999, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be positive, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"group_size": 1}, "must be at least 2, got 64 and 1"),
        ({"completions_per_update": 60}, "multiple of group_size"),
        ({"completions_per_update": 0}, "completions_per_update must be at least one group"),
        ({"warmup_steps": -1}, "warmup_steps and weight_decay must not be negative, got -1"),
        ({"weight_decay": -0.1}, "warmup_steps and weight_decay must not be negative"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive, got 0.0"),
        ({"micro_batch": 12}, r"micro_batch must be a multiple of group_size \(8\), got 12"),
        ({"micro_batch": -8}, r"micro_batch must be a multiple of group_size \(8\), got -8"),
        ({"update_dtype": "float16"}, "update_dtype must be one of bfloat16, model, got 'float16'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"clip": 1.0}, "clip between 0 and 1, got 4 and 1.0"),
        ({"ratio": "word"}, "ratio must be one of completion, sequence, token, got 'word'"),
        ({"loss_type": "mean"}, "loss_type must be one of bnpo, dapo, dr_grpo, grpo, sum, got 'mean'"),
        ({"kl_estimator": "k2"}, "kl_estimator must be one of k1, k3, k3_corrected, got 'k2'"),
        ({"advantages": "gpro"}, "advantages must be one of .*Did you mean 'grpo'"),
        ({"entropy_coef": -0.1}, "entropy_coef, target_kl and stop_kl must not be negative, got -0.1"),
        ({"target_kl": float("nan")}, "entropy_coef, target_kl and stop_kl must not be negative, got 0.0, nan"),
        ({"stop_kl": 0.1, "epochs": 1}, "stop_kl must be 0 where epochs is 1, got 0.1"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_planned(settings: dict[str, Any], message: str) -> None:
    for kind in (ExpertSettings, LinearSettings, WeightGridSettings):
        with pytest.raises(ConfigError, match=message):
            kind(**settings)
