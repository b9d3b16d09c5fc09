"""The parts of a mixture of experts: which stages they are, how a budget is shared, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError, UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.settings import plain_settings
from paretune.core.stages import Stage, in_order
from paretune.core.task import Task
from paretune.methods.banks import GATES
from paretune.methods.entries import method_entry
from paretune.methods.experts import LATER, start_of
from paretune.methods.meta_policy.lower_level.mixed_reward import MixedReward
from paretune.methods.meta_policy.mixture_of_experts import MixtureOfExperts, MixtureOfExpertsSettings
from paretune.training.train import train

WANTED = das_dennis(2, 2)
CORNERS: dict[str, Any] = {"experts": "single_objective"}
SEARCH = {"kind": "search", "rounds": 1}
FORMS: list[dict[str, Any]] = [
    {},
    {"gate": "none", "start": "shared", "draw": "stratified"},
    {"polish_share": 0.2},
    {"size": 4, "draw": "corners"},
    CORNERS,
    {**CORNERS, "trains": "gate"},
    {**CORNERS, "trains": "gate", "polish_share": 0.3},
    {**CORNERS, "trains": "experts", "gate": "none"},
    {**CORNERS, "prior": SEARCH, "experts_share": 0.5},
    {**CORNERS, "prior": SEARCH, "trains": "gate", "gate": "prompt", "polish_share": 0.2},
    {**CORNERS, "prior": SEARCH, "experts_share": 1, "gate": "none"},
    {"experts": {"kind": "mixed_reward", "beta": 0.8}, "experts_share": 1, "gate": "none"},
    {"experts": {"kind": "mgda", "divisions": 2}, "start": "independent"},
]


def planned(task: Task, budget: int = 6000, seed: int = 3, name: str = "mixture_of_experts", **given: Any) -> Any:
    """Return the stages of a method with some settings, needs first."""
    return in_order(method_entry(name, given, name).method.stages(task, WANTED, budget, seed), task)


def parts(stages: list[Stage]) -> list[tuple[str, int]]:
    return [(stage.kind, stage.completions) for stage in stages]


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("budget", [999, 4480, 8960])
def test_a_budget_is_shared_among_all_parts_and_never_exceeded(task: Task, budget: int, given: dict[str, Any]) -> None:
    stages = planned(task, budget, **given)
    trained = [stage for stage in stages if stage.kind != "search"]
    assert 0 <= budget - sum(stage.completions for stage in stages) < 8 * len(trained)  # a group is 8
    assert all(stage.completions % 8 == 0 for stage in trained)
    assert [stage.key(task) for stage in stages] == [stage.key(task) for stage in planned(task, budget, **given)]
    many = method_entry("mixture_of_experts", given, "x").method.stages(task, das_dennis(2, 10), budget, 3)
    assert [stage.key(task) for stage in in_order(many, task)] == [stage.key(task) for stage in stages]


def test_all_parts_together_are_another_trajectory_each(task: Task) -> None:
    last = [planned(task, **given)[-1].trajectory_key(task) for given in FORMS]
    assert len(set(last)) == len(FORMS)


def test_parts_that_are_off_leave_no_trace_in_stages_or_settings(task: Task) -> None:
    (stage,) = planned(task)
    later = {name for name, each in MixtureOfExpertsSettings.__dataclass_fields__.items() if each.metadata == LATER}
    assert {"experts", "size", "start", "prior", "trains", "polish_share", "draw"} <= later
    assert not later & {*stage.settings, *plain_settings(MixtureOfExpertsSettings())}
    assert not {"prior_from", "start", "trains"} & set(stage.settings)
    assert planned(task, size=2)[0].key(task) == stage.key(task)  # one for each objective, as by default
    assert planned(task, start="independent")[0].key(task) == stage.key(task)


def test_experts_first_are_those_of_soups_and_the_bank_goes_on_from_them(task: Task) -> None:
    *experts, bank = planned(task, **CORNERS)
    # a quarter of 6,000 is 1,500: 187 groups of 8, so 94 and 93; the bank has the other 4,504
    assert parts([*experts, bank]) == [("expert", 752), ("expert", 744), ("bank", 4504)]
    assert bank.needs == tuple(experts)
    assert "trains" not in bank.settings
    soups = planned(task, 1500, name="rewarded_soups", epochs=2)
    assert [stage.key(task) for stage in experts] == [stage.key(task) for stage in soups]
    others = planned(task, width=8, draw="stratified", context="blind", **CORNERS)
    assert [stage.key(task) for stage in others[:2]] == [stage.key(task) for stage in experts]
    assert others[-1].settings["draw"] == "stratified"


def test_experts_may_be_all_there_is(task: Task) -> None:
    alone = planned(task, experts_share=1, gate="none", **CORNERS)
    soups = planned(task, name="rewarded_soups", epochs=2)
    assert [stage.key(task) for stage in alone] == [stage.key(task) for stage in soups]
    searched = planned(task, experts_share=1, gate="none", prior=SEARCH, **CORNERS)
    # 3 mixtures, 32 completions each; of the other 5,904 each expert gets half
    assert parts(searched) == [("expert", 2952), ("expert", 2952), ("search", 96)]


def test_a_gate_alone_and_a_polish_under_it(task: Task) -> None:
    *experts, gate, polish = planned(task, trains="gate", polish_share=0.2, **CORNERS)
    assert parts([*experts, gate, polish])[2:] == [("gate", 3304), ("bank", 1200)]
    assert [gate.settings["trains"], polish.settings["trains"]] == ["gate", "experts"]
    assert gate.needs == tuple(experts)
    assert polish.needs == (*experts, gate)
    assert polish.seed != gate.seed == 3  # prompts and noise of its own
    joint, polish = planned(task, polish_share=0.25)
    # a quarter, 1,500, in whole groups is 1,496
    assert (parts([joint, polish]), polish.needs) == ([("bank", 4504), ("bank", 1496)], (joint,))


def test_a_searched_prior_is_found_on_the_experts_and_told_to_what_is_trained_under_it(task: Task) -> None:
    *experts, search, gate, polish = planned(task, trains="gate", polish_share=0.2, prior=SEARCH, **CORNERS)
    assert search.needs == tuple(experts)
    assert gate.needs == (*experts, search)
    assert polish.needs == (*experts, gate, search)
    told = {"kind": "paretune.methods.priors:SearchedPrior", "rounds": 1, "measured_each": 32, "simplex": True}
    assert gate.settings["prior_from"] == polish.settings["prior_from"] == told


def test_experts_of_mixed_rewards_are_weighed_by_their_own_rule(task: Task, finish: Any) -> None:
    given = {"experts": {"kind": "mixed_reward", "beta": 0.8}, "experts_share": 1, "gate": "none"}
    method = MixtureOfExperts(MixtureOfExpertsSettings(**given))
    assembly = method.assemble(task, WANTED, finish(method.stages(task, WANTED, 6000, 0)))
    np.testing.assert_allclose(assembly.answer.weights(np.eye(2))[0], MixedReward(0.8).prior(2))
    prior = planned(task, **{**given, "experts_share": 0.5})[-1].settings["prior"]
    np.testing.assert_allclose(
        prior, MixedReward(0.8).prior(2), atol=1e-12
    )  # rounded, so that keys are the same anywhere


def test_more_experts_than_objectives_are_weighed_by_the_shortest_weights_that_make_the_preference(task: Task) -> None:
    (stage,) = planned(task, size=3)
    # P = (1, 0), (0, 1), (1/2, 1/2): P'P = [[5/4, 1/4], [1/4, 5/4]], its inverse [[5, -1], [-1, 5]] / 6, and
    # g = P (P'P)^-1 w is (5, -1, 2) / 6 for the first corner
    np.testing.assert_allclose(stage.settings["prior"], np.array([[5, -1, 2], [-1, 5, 2]]) / 6)
    with pytest.raises(ConfigError, match=r"a regular grid over 3 objectives, 3, 6, 10, 15, 21 and so on, got 4"):
        MixtureOfExpertsSettings(size=4).rule(3)
    assert MixtureOfExpertsSettings(size=6).rule(3).shape == (3, 6)


def test_experts_start_from_a_common_or_from_their_own_a(task: Task) -> None:
    assert planned(task, start="shared")[0].settings["start"] == "shared"
    alike, own = (planned(task, start=start, **CORNERS) for start in ("by_place", "independent"))
    assert {start_of(each) for each in alike[:2]} == {3}
    assert len({start_of(each) for each in own[:2]}) == 2
    assert "start" not in own[2].settings
    assert [each.key(task) for each in planned(task, start="shared", **CORNERS)] == [each.key(task) for each in alike]


def test_without_a_gate_what_trains_is_one_and_the_same(task: Task) -> None:
    plain, named = (planned(task, gate="none", trains=trains, **CORNERS) for trains in ("both", "experts"))
    assert [each.key(task) for each in plain] == [each.key(task) for each in named]
    assert plain[-1].settings["gate"] == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trains": "gate"}, "trains must be 'both' without experts of a lower level and a gate, got 'gate'"),
        ({**CORNERS, "gate": "none", "trains": "gate"}, "trains must be 'both' without experts of a lower level"),
        ({**CORNERS, "trains": "experts"}, "trains must not be 'experts' with a gate that nothing would train"),
        ({"gate": "none", "polish_share": 0.1}, r"polish_share must be 0 without a gate to train on under, got 0\.1"),
        ({**CORNERS, "experts_share": 1}, "experts_share must be below 1 with a gate, which has to be trained"),
        ({**CORNERS, "experts_share": 0}, "experts_share must be above 0 and at most 1, got 0"),
        ({"polish_share": 1.0}, r"polish_share must be at least 0 and below 1, got 1\.0"),
        ({**CORNERS, "experts_share": 0.7, "polish_share": 0.3}, "must leave something to train with, got 1 together"),
        ({**CORNERS, "size": 3}, "size must be 0 behind a lower level, .* got 3"),
        ({"size": -1}, "size must be 0 behind a lower level, .* and not negative, got -1"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixtureOfExpertsSettings(**given)


def test_words_that_name_nothing_are_refused() -> None:
    for name in ("trains", "start", "draw", "experts", "prior"):
        with pytest.raises(UnknownNameError, match=f"{name} must be one of .*, got 'other'"):
            MixtureOfExpertsSettings(**{name: "other"})


def test_budgets_that_are_too_small_for_a_part_are_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="budget must give each of 1 experts"):
        planned(task, 16, **CORNERS)  # both experts take it all
    with pytest.raises(BudgetError, match="a completion to measure each of 3 mixtures"):
        planned(task, 29, prior=SEARCH, **CORNERS)
    # experts alone: of 48, 43 for a search of three candidates: 12 completions each, three a prompt; 12 are left
    alone = {**CORNERS, "experts_share": 1, "gate": "none"}
    with pytest.raises(
        BudgetError, match=r"got 12 for all of them\. That is what prior_share leaves of 48 completions"
    ):
        planned(task, 48, prior="search", prior_share=0.9, **alone)
    with pytest.raises(BudgetError, match=r"got 12 for all of them\. Raise it by at least 4"):
        planned(task, 12, **alone)
    with pytest.raises(ConfigError, match="prior must be 'rule' without a lower level, got 'search'"):
        planned(task, prior="search")


def test_gates_are_named_by_word(task: Task) -> None:
    for word in ("block", "token", "prompt"):
        assert planned(task, gate=word)[-1].settings["gate"] == GATES[word]


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("method", "streams"), [("mixture_of_experts", 1), ("preference_conditioned", 1), ("hidden_mixing", 2), ("mod", 2)]
)
def test_a_mixture_answers_in_one_stream(method: str, streams: int, task: Task) -> None:
    """Each token enters the model once; mixing hidden states or log-probabilities takes an entry for each expert."""
    solutions = train(method, task, 64, settings={"rank": 2, "group_size": 4, "completions_per_update": 16})
    assert solutions.bank is not None
    policy = solutions.policies_for([[0.5, 0.5], [0.3, 0.7]])
    passed: list[int] = []
    entry = solutions.bank.base.model.get_input_embeddings()
    handle = entry.register_forward_hook(lambda module, arguments, output: passed.append(len(output)))
    made = policy.generate(["b b", "e"], [0, 1])
    handle.remove()
    assert passed[0] == streams * len(made.texts) == streams * 2
    assert max(passed) == passed[0]
