from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import micro_task
import paretune
from paretune.core.answers import Combined
from paretune.core.errors import BudgetError, ConfigError, PreferenceError, RecordError, StopRequested, TaskError
from paretune.core.stages import in_order
from paretune.core.task import Objective, Task
from paretune.executors.jobs import Link
from paretune.methods import resolve_method
from paretune.methods.addition import addition
from paretune.methods.defaults import adaptation
from paretune.methods.entries import method_entry
from paretune.methods.experts import ExpertSettings, start_of
from paretune.models.loading import load_base, unwrap
from paretune.models.solutions import SolutionSet, load_solutions
from paretune.training.continuing import _continued, adapt, add_objective
from paretune.training.train import train

SMALL = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
}  # fmt: skip
LEFT = np.asarray([0.9, 0.1])


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


@pytest.fixture(autouse=True)
def nothing_stays_wrapped(task: Task) -> Iterator[None]:
    yield
    unwrap(load_base(task.model))


@pytest.fixture(scope="module")
def soup(task: Task, tmp_path_factory: pytest.TempPathFactory) -> SolutionSet:
    return train("rewarded_soups", task, 128, settings=SMALL, output=tmp_path_factory.mktemp("soup") / "out")


def likely(solutions: SolutionSet, preference: Any) -> Any:
    return solutions.policy_for(preference).next_token_log_probs(["b b", "e"], [[], []]).numpy()


def with_third(task: Task) -> Task:
    third = Objective("third", "rewards:first", import_path=task.objectives[0].import_path)
    return replace(task, objectives=(third, *task.objectives), reference_point=(0.0, 0.0, 0.0))


def test_adapting_without_a_completion_returns_what_answers_now(soup: SolutionSet, task: Task, tmp_path: Path) -> None:
    assert adapt(soup, task, LEFT, 0) is soup
    assert adapt(soup, task, LEFT, {"completions": 0}) is soup
    adapt(soup, task, LEFT, 0, output=tmp_path / "same")
    np.testing.assert_array_equal(likely(load_solutions(tmp_path / "same"), LEFT), likely(soup, LEFT))


def test_what_is_adapted_starts_as_the_mixture_that_answered(soup: SolutionSet, task: Task) -> None:
    """A learning rate of 1e-12 leaves the start as it is: the sum of both deltas, at twice their rank."""
    adapted = adapt(soup, task, LEFT, 8, settings={**SMALL, "learning_rate": 1e-12})
    assert adapted.policy_for(LEFT).expert_weights.tolist() == [[0, 0, 1]]
    assert adapted.bank is not None
    assert adapted.bank.rank == 4
    np.testing.assert_allclose(likely(adapted, LEFT), likely(soup, LEFT), atol=1e-5)  # fp32
    assert np.abs(likely(soup, LEFT) - likely(soup, [0.5, 0.5])).max() > 1e-3  # which is no small matter


def test_adapting_gains_for_its_preference_and_leaves_all_others_alone(
    soup: SolutionSet, task: Task, tmp_path: Path
) -> None:
    adapted = adapt(soup, task, {"first": 1.0}, 320, settings=SMALL, output=tmp_path / "out")
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), first_rewards(), strict=True))
    means = []
    for solutions in (soup, adapted):
        texts = solutions.policy_for([1, 0]).generate(list(micro_task.PROMPTS["test"]), samples=128).texts
        means.append(np.mean([values[text] for text in texts]))
    assert means[1] > means[0] + 0.05  # 512 rewards with a deviation below .35: a standard error of .022 at most
    for other in ([0, 1], [0.5, 0.5]):
        # smaller ranks are filled up with zeros, which changes the order of sums in fp32 alone
        np.testing.assert_allclose(likely(adapted, other), likely(soup, other), atol=1e-6)
    (spent,) = adapted.notes["adaptations"]
    assert (spent["preference"], spent["completions"]) == ([1.0, 0.0], 320)
    assert spent["tokens"] > 0
    assert spent["flops"] > 0
    again = adapt(load_solutions(tmp_path / "out"), task, [1, 0], 16, settings=SMALL)
    assert len(again.notes["adaptations"]) == 2
    assert again.policy_for([1, 0]).expert_weights.tolist() == [[0, 0, 0, 1]]


def first_rewards() -> list[float]:
    return [float(row[0]) for row in micro_task.rewards()]


LEARNING = {name: value for name, value in SMALL.items() if name != "rank"}
GATED: dict[str, dict[str, Any]] = {
    "mixture_of_experts": {"width": 2, "gate_learning_rate": 0.3},  # so that the gate is far from its prior
    "gated_experts": {"width": 2, "gate_learning_rate": 0.3},
    "contextual_bandit": {"features": 2, "products": 2},
}


KINDS = ["mixture_of_experts", "gated_experts", pytest.param("contextual_bandit", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=KINDS)
def gated(request: pytest.FixtureRequest, task: Task, tmp_path_factory: pytest.TempPathFactory) -> SolutionSet:
    output = tmp_path_factory.mktemp("gated") / "out"
    return train(request.param, task, 128, settings={**SMALL, **GATED[request.param]}, output=output)


def test_what_is_adapted_behind_a_gate_starts_as_what_answered(gated: SolutionSet, task: Task) -> None:
    adapted = adapt(gated, task, LEFT, 8, settings={**LEARNING, "learning_rate": 1e-12})
    assert adapted.mixer.sets == 2
    assert adapted.policy_for(LEFT).expert_weights.tolist() == [[0, 0, 0.9, 0.1]]
    for preference in (LEFT, [0.5, 0.5]):
        np.testing.assert_allclose(likely(adapted, preference), likely(gated, preference), atol=1e-5)  # fp32


def test_adapting_behind_a_gate_trains_its_experts_for_one_preference_alone(
    gated: SolutionSet, task: Task, tmp_path: Path
) -> None:
    (stage,) = adaptation(gated, task, LEFT, 64, 0, ExpertSettings()).stages
    assert (stage.member["objective_weights"], stage.settings["trains"]) == ([0.9, 0.1], "experts")
    adapted = adapt(gated, task, LEFT, 64, settings=LEARNING, output=tmp_path / "out")
    assert np.abs(likely(adapted, LEFT) - likely(gated, LEFT)).max() > 0.05
    for other in ([0, 1], [0.5, 0.5]):
        np.testing.assert_allclose(likely(adapted, other), likely(gated, other), atol=1e-5)
    mixed = adapted.policies_for([LEFT, [0.5, 0.5], [0, 1]])  # one batch has rows of both sets
    assert mixed.answers == ("exact", "combined", "combined")
    rows = mixed.next_token_log_probs(["b b", "b b", "b b"], [[], [], []], [0, 1, 2]).numpy()
    alone = [likely(adapted, preference)[0] for preference in (LEFT, [0.5, 0.5], [0, 1])]
    np.testing.assert_allclose(rows, alone, atol=1e-5)
    assert adapted.notes["adaptations"][0]["completions"] == 64
    loaded = load_solutions(tmp_path / "out")
    assert loaded.mixer.sets == 2
    np.testing.assert_allclose(likely(loaded, LEFT), likely(adapted, LEFT), atol=1e-6)


@pytest.mark.parametrize("gated", ["mixture_of_experts"], indirect=True)
def test_adapting_again_behind_a_gate_goes_on_from_the_adapted_experts(gated: SolutionSet, task: Task) -> None:
    still = {**LEARNING, "learning_rate": 1e-12}
    once = adapt(gated, task, LEFT, 32, settings=LEARNING)
    twice = adapt(once, task, LEFT, 8, settings=still)
    assert twice.policy_for(LEFT).expert_weights.tolist() == [[0, 0, 0, 0, 0.9, 0.1]]
    np.testing.assert_allclose(likely(twice, LEFT), likely(once, LEFT), atol=1e-5)
    other = adapt(once, task, [0.5, 0.5], 8, settings=still)  # nobody adapted to this one: from the first set
    np.testing.assert_allclose(likely(other, [0.5, 0.5]), likely(gated, [0.5, 0.5]), atol=1e-5)


@pytest.mark.slow
def test_adapting_behind_a_gate_gains_for_its_preference(task: Task) -> None:
    gated = train("mixture_of_experts", task, 64, settings={**SMALL, "width": 2})
    adapted = adapt(gated, task, [1, 0], 320, settings=LEARNING)
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), first_rewards(), strict=True))
    means = []
    for solutions in (gated, adapted):
        texts = solutions.policy_for([1, 0]).generate(list(micro_task.PROMPTS["test"]), samples=128).texts
        means.append(np.mean([values[text] for text in texts]))
    assert means[1] > means[0] + 0.05  # as above


def test_what_is_not_read_behind_a_gate_is_refused(task: Task) -> None:
    gated = train("mixture_of_experts", task, 16, settings={**SMALL, "width": 2})
    with pytest.raises(ConfigError, match="rank must be left out behind a gate, whose experts keep theirs, got 2"):
        adapt(gated, task, LEFT, 16, settings=SMALL)
    nobody = replace(gated, answer=Combined(np.zeros((2, 2))))
    with pytest.raises(ConfigError, match="must weigh an expert for its preference"):
        adapt(nobody, task, LEFT, 16, settings=LEARNING)


def test_adapting_twice_has_prompts_and_noise_of_its_own_each_time(soup: SolutionSet, task: Task) -> None:
    once = replace(soup, notes={"adaptations": [{}]})
    seeds = [
        adaptation(solutions, task, LEFT, 16, 0, ExpertSettings(**SMALL)).stages[0].seed for solutions in (soup, once)
    ]
    assert len({0, *seeds}) == 3


def copied(solutions: SolutionSet, folder: Path) -> SolutionSet:
    """Return the same solution set, in another folder."""
    solutions.save(folder)
    return load_solutions(folder)


def keys(solutions: SolutionSet, task: Task, **learning: Any) -> list[str]:
    made = adaptation(solutions, task, LEFT, 64, 0, ExpertSettings(**learning))
    return [stage.key(task) for stage in in_order(made.stages, task)]


def test_what_is_adapted_is_known_by_its_content_wherever_it_lies(
    soup: SolutionSet, task: Task, tmp_path: Path
) -> None:
    there = copied(soup, tmp_path / "there")
    assert keys(soup, task, **SMALL) == keys(there, task, **SMALL)
    config = tmp_path / "there" / "experts" / "001" / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "base_model_name_or_path": "/somewhere/else"}))
    assert keys(soup, task, **SMALL) == keys(there, task, **SMALL)  # where the base model lies
    config.write_text(json.dumps({**said, "lora_alpha": 2 * said["lora_alpha"]}))
    assert set(keys(soup, task, **SMALL)).isdisjoint(keys(there, task, **SMALL))  # twice as large a delta


@pytest.mark.parametrize("gated", ["mixture_of_experts"], indirect=True)
def test_what_is_adapted_behind_a_gate_is_known_by_its_content_too(
    gated: SolutionSet, task: Task, tmp_path: Path
) -> None:
    there = copied(gated, tmp_path / "there")
    assert keys(gated, task) == keys(there, task)
    config = tmp_path / "there" / "experts" / "001" / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "lora_alpha": 2 * said["lora_alpha"]}))
    assert set(keys(gated, task)).isdisjoint(keys(there, task))


def test_a_killed_adaptation_goes_on_where_the_solution_set_lies_in_another_folder(
    soup: SolutionSet, task: Task, tmp_path: Path
) -> None:
    """A soup that nobody saved lies in a folder of its own each time that it is trained."""
    stops = iter([False, False, True])
    link = Link(lambda message: None, lambda: next(stops), 1)
    first = copied(soup, tmp_path / "first")
    with pytest.raises(StopRequested):
        adapt(first, task, LEFT, 64, settings=SMALL, output=tmp_path / "out", progress=link)
    shutil.rmtree(tmp_path / "first")
    heard: list[int] = []
    quiet = Link(lambda message: heard.append(int(str(message.get("completions", 0)))), lambda: False, 1)
    adapted = adapt(
        copied(soup, tmp_path / "second"), task, LEFT, 64, settings=SMALL, output=tmp_path / "out", progress=quiet
    )
    quiet.flush()
    assert sum(heard) == 64 - 3 * 16  # three updates had been made and kept
    whole = adapt(soup, task, LEFT, 64, settings=SMALL)
    np.testing.assert_array_equal(likely(adapted, LEFT), likely(whole, LEFT))


def test_what_is_not_of_the_solution_set_is_given_to_nobody(soup: SolutionSet, task: Task, tmp_path: Path) -> None:
    other = train("rewarded_soups", task, 16, 1, settings=SMALL, output=tmp_path / "other")
    made = adaptation(other, task, LEFT, 8, 0, ExpertSettings(**SMALL))
    with pytest.raises(RecordError, match="must be the digest of an expert, or of the gate, of the solution set that"):
        _continued(soup, made, task, 0, None, None)


def test_what_is_no_one_delta_is_not_adapted_by_default(task: Task) -> None:
    mod = train("mod", task, 16, settings=SMALL)
    with pytest.raises(ConfigError, match="got one of 2 experts mixed at level 'log_probs'"):
        adapt(mod, task, LEFT, 16)
    corner = adapt(mod, task, [0, 1], 8, settings={**SMALL, "learning_rate": 1e-12})  # one expert alone can be
    np.testing.assert_allclose(likely(corner, [0, 1]), likely(mod, [0, 1]), atol=1e-5)


def test_what_cannot_be_adapted_to_is_refused(soup: SolutionSet, task: Task) -> None:
    with pytest.raises(BudgetError, match="at least one group"):
        adapt(soup, task, LEFT, 3, settings=SMALL)
    with pytest.raises(PreferenceError):
        adapt(soup, task, [0.5, 0.2, 0.3], 16)
    with pytest.raises(TaskError, match="task must be that of the solution set"):
        adapt(soup, with_third(task), LEFT, 16)
    with pytest.raises(ConfigError, match="adapt"):
        adapt(soup, task, LEFT, 16, settings={"ranks": 3})


def test_a_new_objective_gets_an_expert_and_the_old_ones_stay_as_they_are(
    soup: SolutionSet, task: Task, tmp_path: Path
) -> None:
    more = add_objective(soup, with_third(task), 64, settings=SMALL, output=tmp_path / "out")
    assert more.objectives == ("third", "first", "second")
    assert more.policy_for({"third": 0.5, "second": 0.5}).expert_weights.tolist() == [[0.5, 0, 0.5]]
    assert more.bank is not None
    assert soup.bank is not None
    assert more.bank.flat[1:].equal(soup.bank.flat)
    assert (more.notes["added"]["how"], more.notes["added"]["completions"]) == ("modular", 64)
    corner = train("rewarded_soups", task, 128, settings=SMALL)  # its first expert has the third one's reward
    assert corner.bank is not None
    assert more.bank.flat[0].equal(corner.bank.flat[0])


def test_one_more_expert_among_those_of_their_own_start_has_its_own_too(soup: SolutionSet, task: Task) -> None:
    method, more = resolve_method("rewarded_soups"), with_third(task)  # which has the new objective first
    starts = {}
    for start in ("shared", "own"):
        added = addition(soup, method(method.Settings(start=start)), more, np.full((1, 3), 1 / 3), 64, 0, "modular")
        starts[start] = start_of(added.stages[0])
        assert added.stages[0].member["objective_weights"] == [1, 0, 0]
    before = method(method.Settings(start="own")).stages(task, np.full((1, 2), 0.5), 64, 0)
    assert starts["shared"] == 0
    assert starts["own"] not in [start_of(each) for each in before]


def test_settings_that_one_more_expert_does_not_read_are_refused(soup: SolutionSet, task: Task) -> None:
    more, point = with_third(task), np.full((1, 3), 1 / 3)
    message = "must be left out where one expert is added and all are mixed as they were, got"
    with pytest.raises(ConfigError, match=f"stretch {message} 1.5. Remove it, or write how='retrain'"):
        add_objective(soup, more, 64, settings={**SMALL, "stretch": 1.5})
    unread: list[tuple[str, dict[str, Any]]] = [
        ("mod", {"correction": "importance"}), ("mod", {"divergence": "reverse_kl"}), ("hidden_mixing", {"block": 0}),
        ("hidden_mixing", {"block": -1, "norm": "after"}), ("gated_experts", {"gate": "block"}),
        ("iterative_soups", {"merge_every": 2}),
    ]  # fmt: skip
    read: list[tuple[str, dict[str, Any]]] = [
        ("mod", {"experts": "single_objective"}), ("rewarded_soups", {"start": "own"}),
        ("rewarded_soups", {"feedback": "told", "learning_rate": 1e-3}), ("gated_experts", {"gate": "none"}),
    ]  # fmt: skip
    for name, settings in unread + read:
        method = method_entry(name, settings, "x").method
        if (name, settings) in read:
            assert len(addition(soup, method, more, point, 64, 0, given=settings).stages) == 1
            continue
        with pytest.raises(ConfigError, match=f"{' and '.join(sorted(settings))} {message}"):
            addition(soup, method, more, point, 64, 0, given=settings)
        assert addition(soup, method, more, point, 640, 0, "retrain", settings).stages


def test_another_method_or_kind_of_experts_is_trained_again(soup: SolutionSet, task: Task) -> None:
    more = with_third(task)
    asked = {"settings": {**SMALL, "learning_rate": 1e-12}, "preferences": np.eye(3)}
    one = add_objective(soup, more, 48, method="one_policy", **asked)
    assert (one.method, one.notes["added"]["how"], len(one.experts)) == ("one_policy", "retrain", 1)  # type: ignore[index]
    cone: dict[str, Any] = {**asked, "settings": {**asked["settings"], "experts": "mixed_reward"}}
    assert add_objective(soup, more, 48, **cone).notes["added"]["how"] == "retrain"  # type: ignore[index]
    with pytest.raises(ConfigError, match="how must be 'retrain' with another method than the solution set's"):
        add_objective(soup, more, 48, method="mod", how="modular")


def test_a_method_without_an_expert_for_each_objective_is_trained_again(soup: SolutionSet, task: Task) -> None:
    again = add_objective(soup, with_third(task), 96, settings=SMALL, how="retrain")
    assert (again.notes["added"]["how"], again.notes["added"]["completions"]) == ("retrain", 96)
    assert len(again.experts) == 3
    other = add_objective(soup, with_third(task), 64, method="one_policy", settings=SMALL, how="retrain")
    assert (other.method, other.family, len(other.experts)) == ("one_policy", "single-policy", 1)
    one = train("one_policy", task, 16, settings=SMALL)
    with pytest.raises(ConfigError, match="how must be 'retrain'"):
        add_objective(one, with_third(task), 64, settings=SMALL, how="modular")
    with pytest.raises(TaskError, match="first, second and one more, got first, second"):
        add_objective(soup, task, 64)


def test_both_are_what_the_package_hands_out() -> None:
    assert (paretune.adapt, paretune.add_objective) == (adapt, add_objective)
