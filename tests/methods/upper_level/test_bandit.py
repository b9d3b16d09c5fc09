"""Bandits over expert weights: what is planned, and what a log teaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paretune.bandits import ridge
from paretune.bandits.contexts import context_rows, context_size
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.meta_policy.contextual_bandit import ContextualBandit, ContextualBanditSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings
from paretune.methods.meta_policy.upper_level import bandit as bandit_module
from paretune.methods.meta_policy.upper_level.bandit_log import Pulls, off_policy_values

WANTED = das_dennis(2, 2)


def test_experts_are_those_of_soups_and_the_bandit_gets_whole_rounds(task: Task) -> None:
    *experts, bandit = ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 6000, 3)
    # a quarter of 6,000 is 1,500, in whole rounds of 64 1,472; experts share the other 4,528
    assert (bandit.kind, bandit.completions) == ("bandit", 1472)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 4528, 3)
    assert [stage.key(task) for stage in experts] == [stage.key(task) for stage in soups]
    assert bandit.needs == tuple(experts)
    assert "feedback" not in bandit.settings
    assert bandit.settings["prior"] == [[1.0, 0.0], [0.0, 1.0]]
    *_, short = ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 100, 3)
    assert short.completions == 25  # less than one round


def test_kinds_of_experts_bring_their_prior_and_settings_reach_the_bandit_alone(task: Task) -> None:
    def stages(**changes: Any) -> tuple[Stage, ...]:
        return ContextualBandit(ContextualBanditSettings(**changes)).stages(task, WANTED, 6000, 0)

    *experts, bandit = stages(experts={"kind": "mgda", "divisions": 2})
    assert len(experts) == len(bandit.settings["prior"][0]) == 3  # type: ignore[index]  # [K, E]
    changed = {
        "algorithm": "squarecb", "exploration": 2.0, "floor": 0.1, "divisions": 2, "step": 1.0, "stretch": 1.0,
        "features": 4, "products": 0, "ridge": 1.0, "caution": 0.0, "context": "blind",
    }  # fmt: skip
    plain = [each.key(task) for each in stages()]
    others = [[each.key(task) for each in stages(**{name: value})] for name, value in changed.items()]
    assert all(each[:-1] == plain[:-1] for each in others)
    assert len({each[-1] for each in [plain, *others]}) == 1 + len(changed)
    told, utility = stages(), stages(feedback="utility")
    assert utility[-1].settings["feedback"] == "utility"
    assert told[0].key(task) != utility[0].key(task)


def test_what_a_task_is_judged_on_is_part_of_a_bandit_where_it_is_utility(task: Task) -> None:
    def stages(judged_on: str) -> tuple[Stage, ...]:
        judged = replace(task, judged_on=judged_on)  # type: ignore[arg-type]  # one of both
        return ContextualBandit(ContextualBanditSettings()).stages(judged, WANTED, 6000, 3)

    (*experts, own), (*others, other) = stages("J"), stages("utility")
    assert [each.key(task) for each in experts] == [each.key(task) for each in others]
    assert "judged_on" not in own.settings  # as stages were keyed before there was a choice
    assert other.settings == {**own.settings, "judged_on": "utility"}
    with pytest.raises(ConfigError, match="judged_on must be one of J, utility, got 'KL'"):
        ContextualBanditSettings().bandit([[1.0]], "KL")  # type: ignore[arg-type]  # that is the point


def test_a_control_is_trained_anew_when_what_it_reads_changes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings() -> dict[str, dict[str, object]]:
        kinds = ("own", "blind", "shuffled")
        planned = [ContextualBandit(ContextualBanditSettings(context=kind, features=8, products=4)) for kind in kinds]
        stages = [each.stages(task, WANTED, 6000, 3)[-1] for each in planned]
        return {kind: dict(stage.settings) for kind, stage in zip(kinds, stages, strict=True)}

    before = settings()
    assert not any("context_version" in each for each in before.values())  # keys of before
    monkeypatch.setattr(bandit_module, "SHUFFLED_VERSION", 3)
    after = settings()
    assert after == {**before, "shuffled": {**before["shuffled"], "context_version": 3}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bandit_share": 1.0}, "bandit_share must be between 0 and 1, got 1.0"),
        ({"algorithm": "ucb"}, "algorithm must be one of"),
        ({"floor": 0.0}, "floor must be positive, got 0.0: every arm must have a chance"),
        ({"exploration": -1.0}, "exploration must be finite, not negative"),
        ({"context": "other"}, "context must be one of blind, own, shuffled"),
        ({"features": 33}, "features must be between 1 and 32, got 33"),
        ({"products": -1}, "products must not be negative, got -1"),
        ({"products": 9}, r"products must be at most the number of features \(8\), got 9"),
        ({"features": 3}, r"products must be at most the number of features \(3\), got 4. Write products: 3"),
        ({"pulls_each_round": 0}, "pulls_each_round must be at least 1, got 0"),
        ({"caution": -1.0}, "caution must be finite and not negative, got -1"),
        ({"ridge": 0.0}, "ridge must be positive, got 0"),
        ({"step": 0.0}, "step must be above 0 and at most 1"),
        ({"stretch": 0.0}, "stretch must be positive, got 0"),
        ({"divisions": 0}, "divisions must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContextualBanditSettings(**changes)


def test_more_arms_than_can_be_pulled_are_refused_when_experts_are_known(task: Task) -> None:
    settings = ContextualBanditSettings(divisions=600)  # for two experts 601 points, and all of them stretched
    with pytest.raises(ConfigError, match="arms must be at most 1,000, got 1,204 of 600 divisions between 2 experts"):
        ContextualBandit(settings).stages(task, WANTED, 6000, 0)


def test_a_budget_without_pulls_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="budget must leave a completion for the bandit, got 3"):
        ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 3, 0)


def simulated(read: bool) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return what a log says of a problem whose best arm is that of the prompt's sign, and which arms the gate takes.

    Arm 0, the rule, is always paid .5; arms 1 and 2 get .5 +- .3 by the sign; noise .2. The best earns .8.
    """
    generator = np.random.default_rng(0)
    prompts, preferences = np.arange(600) % 20, generator.dirichlet(np.ones(2), size=600)
    signs = np.where(np.arange(20) % 2 == 0, 1.0, -1.0)
    chances = np.full((600, 3), 1 / 3)
    arms = generator.integers(0, 3, 600)
    paid = 0.5 + 0.3 * np.asarray([0.0, 1.0, -1.0])[arms] * signs[prompts]
    outputs = np.column_stack([paid[:, None] + 0.2 * generator.normal(size=(600, 2)), generator.uniform(size=600)])
    pulls = Pulls(prompts, preferences, chances, arms, preferences, outputs)
    contexts = context_rows(signs[prompts][:, None] * read, preferences, 1)
    model = ridge.updated(ridge.fresh(3, context_size(1, 2, 1), 3, 1.0), arms, contexts, outputs)
    weights = np.column_stack([preferences, np.zeros(600)])
    values: dict[str, Any] = off_policy_values(pulls, contexts, weights, 0.0, model)
    outcomes = np.einsum("nao,no->na", ridge.predicted(ridge.coefficients(model), contexts), weights)
    return values, outcomes.argmax(axis=1) == np.where(signs[prompts] > 0, 1, 2)


def test_a_log_tells_what_context_is_worth_and_that_it_is_worth_nothing_unread() -> None:
    values, right = simulated(read=True)
    assert right.mean() > 0.95
    for name in ("gate", "cross_fitted"):
        for each, found in values["gain"][name].items():
            assert found["low"] <= 0.3 <= found["high"], (name, each)  # .8 by the best arm, .5 by the rule
    rule = values["off_policy"]["rule"]["doubly_robust"]
    assert rule["low"] <= 0.5 <= rule["high"]
    precise = values["gain"]["cross_fitted"]
    assert (
        precise["doubly_robust"]["high"] - precise["doubly_robust"]["low"]
        < precise["ips"]["high"] - precise["ips"]["low"]
    )
    values, _ = simulated(read=False)
    found = values["gain"]["cross_fitted"]["doubly_robust"]
    assert found["low"] <= 0 <= found["high"]
    # the gate was chosen by the log that judges it: what it says is not less than what held-out pulls say
    assert values["gain"]["gate"]["doubly_robust"]["value"] >= found["value"]
