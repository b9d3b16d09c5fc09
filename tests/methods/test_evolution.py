from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
import set_runs
from paretune.core.errors import BudgetError, ConfigError, RewardError
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.multi_policy.evolution import Evolution, EvolutionSettings
from paretune.methods.multi_policy.evolution_run import Breeding, evolve, prepared
from paretune.methods.multi_policy.generations import starting_weights
from paretune.methods.multi_policy.individuals import SPREAD, Individual, from_state, to_state
from paretune.methods.multi_policy.rounds import Found
from paretune.methods.multi_policy.set_settings import cost, whole_generations

SMALL: dict[str, Any] = {
    "rank": 2, "group_size": 4, "completions_per_update": 8, "learning_rate": 3e-2, "population": 3, "archive": 4,
    "steps": 8, "measured_each": 4, "crossover": 0.5, "epochs": 1, "average_decay": 0.0,
}  # fmt: skip
FIRST, SECOND = 3 * 12, 3 * 12 + 3 * 4  # completions of the first two generations
ONE, TWO = FIRST + 3 * 4 + 8, FIRST + SECOND + 4 * 4 + 4  # lengths with one and two whole generations, and some more


def stage_of(completions: int, task: Task, **changes: Any) -> Stage:
    settings = EvolutionSettings(**{**SMALL, **changes})
    (stage,) = Evolution(settings).stages(task, das_dennis(2, 2), completions, 0)
    return stage


def run(root: Path, stages: list[Stage], task: Task) -> list[StageResult]:
    return set_runs.run(evolve, root, stages, task)


def test_the_budget_is_planned_to_the_last_group(task: Task) -> None:
    """Whatever the settings: whole generations and a measurement of all that live then fit; one more would not."""
    draws = np.random.default_rng(0)
    for _ in range(200):
        group = int(draws.integers(2, 9))
        settings = EvolutionSettings(
            group_size=group, completions_per_update=2 * group, population=int(draws.integers(2, 9)),
            archive=int(draws.integers(2, 12)), steps=2 * group * int(draws.integers(1, 5)),
            measured_each=group * int(draws.integers(1, 5)),
        )  # fmt: skip
        budget = int(draws.integers(4 * group, 8000))
        (stage,) = Evolution(settings).stages(task, das_dennis(2, 2), budget, 0)
        assert 0 <= budget - stage.completions < group
        count = whole_generations(settings, stage.completions)
        spent = sum(cost(settings, generation) for generation in range(count))
        left = stage.completions - spent
        living = min(settings.archive, settings.population * count)
        assert count == 0 or left >= living * settings.measured_each
        after = min(settings.archive, settings.population * (count + 1))
        assert left < cost(settings, count) + after * settings.measured_each
        longer = whole_generations(settings, stage.completions + group)
        assert longer in (count, count + 1)


@pytest.mark.parametrize(
    "budget", [16, 31, 44, 113, *(pytest.param(each, marks=pytest.mark.slow) for each in (20, 24, 40, 47, 48, 56, 100))]
)
def test_every_budget_is_spent_to_the_last_group(budget: int, task: Task, tmp_path: Path) -> None:
    (result,) = run(tmp_path, [stage_of(budget, task)], task)
    assert result.ledger.completions == budget // 4 * 4 == result.stage.completions
    kept = json.loads(result.artefacts["front.json"].read_text())
    assert len(kept["front"]) == len(result.adapters) == result.values["members"] >= 1
    numbers = [each["number"] for each in kept["lineage"]]
    assert numbers == list(range(len(numbers)))
    for each in kept["front"]:
        assert min(each["counts"]) >= 4
        assert len(each["scores"]) == 2
        assert all(parent < each["number"] for parent in each["parents"])


@pytest.mark.slow  # the contract of methods has it too
def test_a_longer_run_goes_on_where_a_shorter_one_stood(task: Task, tmp_path: Path) -> None:
    """Alone, one after the other, and both in one run: the same files, bit for bit."""
    short, long = stage_of(ONE, task), stage_of(TWO, task)
    assert short.trajectory_key(task) == long.trajectory_key(task)
    alone = [*run(tmp_path / "short", [short], task), *run(tmp_path / "long", [long], task)]
    both = run(tmp_path / "both", [short, long], task)
    after = [*run(tmp_path / "after", [short], task)]
    (tmp_path / "after" / "groups" / "one" / "checkpoint").rename(tmp_path / "gone")
    after += run(tmp_path / "after", [long], task)
    events = (tmp_path / "after" / "groups" / "one" / "events.jsonl").read_text().splitlines()
    assert sum("reward_means" in json.loads(line) for line in events) == 2 * 3  # each generation was trained once
    for one, *others in zip(alone, both, after, strict=True):
        for other in others:
            assert set_runs.contents(other) == set_runs.contents(one)
            assert other.ledger.counts == one.ledger.counts
    assert alone[0].artefacts.keys() <= {"front.json", *(f"experts/{number:03d}" for number in range(4))}


def test_what_a_shorter_length_alone_makes_is_told_to_nobody(task: Task, tmp_path: Path) -> None:
    stages = [stage_of(length, task) for length in (ONE, TWO)]
    told, events = set_runs.reported(evolve, tmp_path, stages, task)
    assert told == TWO
    assert sum("living" in event for event in events) == 2 + 1  # two whole generations, and the end of the longer one


@pytest.mark.parametrize("calls", [9, *(pytest.param(calls, marks=pytest.mark.slow) for calls in (2, 16))])
def test_killed_and_resumed_equals_uninterrupted(calls: int, task: Task, tmp_path: Path) -> None:
    set_runs.check_that_a_kill_changes_nothing(evolve, stage_of(TWO, task), task, tmp_path, calls)


@pytest.fixture(scope="module")
def plain(task: Task, tmp_path_factory: pytest.TempPathFactory) -> StageResult:
    """Return what is left by a run with no settings changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretune.models.loading.default_device", lambda: "cpu")
        (result,) = run(tmp_path_factory.mktemp("plain"), [stage_of(TWO + 60, task)], task)
    return result


@pytest.mark.parametrize(
    "changes",
    [
        {"parameter_noise": 0.1},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in ({"survival": "crowding"}, {"average_decay": 0.9}, {"crossover": 1.0})
        ),
    ],
)
def test_settings_change_what_is_evolved_and_it_repeats(
    changes: dict[str, Any], plain: StageResult, task: Task, tmp_path: Path
) -> None:
    found = [run(tmp_path / name, [stage_of(TWO + 60, task, **changes)], task)[0] for name in ("one", "two")]
    assert set_runs.contents(found[0]) == set_runs.contents(found[1])
    assert set_runs.contents(found[0]) != set_runs.contents(plain)
    assert found[0].key != plain.key


def test_offspring_learn_on_and_crossovers_are_averages(task: Task, tmp_path: Path) -> None:
    stage = stage_of(TWO, task, crossover=0.0, weight_noise=0.0)
    steps = prepared(set_runs.context_of(tmp_path, [stage], task), stage)
    members = steps.members
    first = steps.starters()
    assert [each.objective_weights.tolist() for each in first] == [[1, 0], [0, 1], [0.5, 0.5]]
    elites = members.measure(members.train(first, [8, 8, 8]), 0, 4)
    clever = replace(elites[1], counts=np.full(2, 90.0), sums=np.array([89.0, 89.0]), squares=np.full(2, 89.0))
    children = steps.breed(Found((elites[0], clever, elites[2]), ({},) * 3), 1)
    for child in children:  # the best one for all weights is everybody's parent
        assert child.parents == (1,)
        assert child.trained.equal(elites[1].trained)
        assert child.learner["experts.steps"] == elites[1].learner["experts.steps"] == 1
    assert len(members.train(children, [8, 8, 8])[0].learner["experts.mean"]) == len(children[0].trained)
    crossing = Breeding(members, EvolutionSettings(**{**SMALL, "crossover": 1.0, "weight_noise": 0.0}))
    child = crossing.offspring(Found(tuple(elites[:2]), ({},) * 3), 1)[0]
    assert (child.operation, sorted(child.parents), dict(child.learner)) == ("crossover", [0, 1], {})
    bank = members.bank([*elites[:2], child])
    layer = next(iter(bank.layers.values()))
    deltas = (layer.B @ layer.A).detach()
    wanted = deltas[:2].mean(dim=0)
    kept = torch.linalg.svdvals(wanted)[2:].square().sum()
    torch.testing.assert_close((deltas[2] - wanted).square().sum(), kept, atol=1e-8, rtol=1e-3)  # nearest of rank 2
    bank.unwrap()
    event, *_ = [
        json.loads(line)
        for line in (tmp_path / "groups" / "one" / "events.jsonl").read_text().splitlines()
        if "discarded_energy" in line
    ]
    assert event["operation"] == "crossover"
    assert 0 <= event["discarded_energy"] < 1


def test_elites_are_measured_again_on_fresh_prompts_and_noise(task: Task, tmp_path: Path) -> None:
    stage = stage_of(TWO, task)
    members = prepared(set_runs.context_of(tmp_path, [stage], task), stage).members
    elites = members.train(prepared(members.context, stage).starters()[:2], [8, 8])
    once = members.measure(elites, 0, 4)
    again = members.measure(once, 4, 4)  # the development split has four prompts: the same ones, sampled anew
    assert again[0].counts.tolist() == [8, 8]
    assert not np.array_equal(again[0].sums, 2 * once[0].sums)
    np.testing.assert_allclose(again[0].sums, once[0].sums + members.measure(elites, 4, 4)[0].sums)
    assert members.measure(elites, 2, 7)[0].counts.tolist() == [7, 7]  # across the end of a turn
    np.testing.assert_array_equal(members.measure(elites[1:], 0, 4)[0].sums, once[1].sums)  # whoever is beside it


def individual(number: int, scores: list[float], parameters: float, count: int = 100) -> Individual:
    worth, known = np.array(scores), ~np.isnan(scores)
    sums = np.where(known, worth, 0.0) * count
    return Individual(
        number, 0, "start", (), np.array([0.5, 0.5]), torch.full((3,), parameters), {}, (0, 0),
        np.where(known, count, 0).astype(np.float64), sums, sums**2 / count,
    )  # fmt: skip


def test_the_archive_keeps_equal_policies_and_drops_copies_and_the_unknown_first(task: Task, tmp_path: Path) -> None:
    stage = stage_of(TWO, task, doubt=0.0)
    members = prepared(set_runs.context_of(tmp_path, [stage], task), stage).members
    pool = [
        individual(0, [np.nan, 0.9], 0.0), individual(1, [0.6, 0.6], 1.0), individual(2, [0.6, 0.6], 2.0),
        individual(3, [0.6, 0.6], 1.0), individual(4, [0.9, 0.1], 3.0), individual(5, [0.5, 0.5], 4.0),
    ]  # fmt: skip
    order = [each.number for each in members.ordered(pool)]
    assert sorted(order[:3]) == [1, 2, 4]  # 1 and 2 measure alike, and are two policies
    assert order[3:] == [5, 3, 0]  # dominated; a copy of 1; one that nobody could score


def test_a_badly_measured_policy_has_the_benefit_of_the_doubt(task: Task, tmp_path: Path) -> None:
    stage = stage_of(TWO, task, doubt=1.0)
    members = prepared(set_runs.context_of(tmp_path, [stage], task), stage).members
    known = [individual(0, [0.9, 0.5], 0.0, 1000), individual(1, [0.6, 0.6], 1.0, 1000)]
    worse, unsure = individual(2, [0.59, 0.59], 2.0, 1000), individual(3, [0.58, 0.58], 3.0, 4)
    assert [each.number for each in members.ordered([*known, worse, unsure])] == [0, 3, 1, 2]
    members.settings = replace(members.settings, doubt=0.0)
    assert [each.number for each in members.ordered([*known, worse, unsure])] == [0, 1, 2, 3]


@pytest.mark.parametrize(("doubt", "parent"), [(1.0, 1), (0.1, 0), (0.0, 0)])
def test_a_badly_measured_policy_may_be_a_parent(doubt: float, parent: int, task: Task, tmp_path: Path) -> None:
    """.58 of four completions, each score .25/4 uncertain: at equal weights by .044, more at others; and .6 of many."""
    stage = stage_of(TWO, task)
    members = prepared(set_runs.context_of(tmp_path, [stage], task), stage).members
    elites = individual(0, [0.6, 0.6], 0.0, 100_000), individual(1, [0.58, 0.58], 1.0, 4)
    breeding = Breeding(members, EvolutionSettings(**{**SMALL, "crossover": 0.0, "doubt": doubt}))
    assert {each.parents for each in breeding.offspring(Found(elites, ({},) * 2), 1)} == {(parent,)}


def test_an_individual_that_was_not_trained_has_no_parameters() -> None:
    with pytest.raises(ConfigError, match="individual 3 must be trained to have parameters, got none"):
        Individual(3, 0, "start", (), np.asarray([1.0, 0.0])).trained


def test_running_means_are_those_on_paper() -> None:
    """Worth 1 and 0, then 1; one missing. Means 2/3 and 1/2; squares left: 2 - 4/3 = 2/3 and 1 - 1/2 = 1/2."""
    one = Individual(0, 0, "start", (), np.array([1.0, 0.0]))
    folds = np.array([0, 1])
    measured = one.measured(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.75]), folds)
    measured = measured.measured(np.array([[1.0, np.nan]]), np.array([0.25]), folds[:1])
    assert one.counts.size == 0
    assert measured.counts.tolist() == [3, 2]
    np.testing.assert_allclose(measured.scores, [2 / 3, 1 / 2])
    spread = np.array([SPREAD * 2, SPREAD]) ** 2
    np.testing.assert_allclose(
        measured.errors(np.array([2.0, 1.0])), np.sqrt(np.array([2 / 3, 1 / 2]) + spread) / [3, 2]
    )
    np.testing.assert_allclose(measured.fold_means[:2], [[1, 0, 0.375], [0, 1, 0.75]])  # first and third in fold 0
    assert np.isnan(measured.fold_means[2:]).all()
    assert measured.kl == 0.5
    missing = one.measured(np.array([[1.0, np.nan]]), np.zeros(1), folds[:1])
    assert np.isnan(missing.scores).tolist() == np.isnan(missing.errors(np.ones(2))).tolist() == [False, True]
    assert missing.as_record()["scores"] == [1.0, None]
    (back,) = from_state(*to_state([replace(measured, parameters=torch.ones(3), failing=(1, 0))]))
    assert back.as_record() == measured.as_record()
    assert (back.failing, back.squares.tolist()) == ((1, 0), measured.squares.tolist())
    np.testing.assert_array_equal(back.folds, measured.folds)


@pytest.mark.parametrize(("objectives", "count"), [(1, 3), (2, 2), (2, 7), (3, 5), (4, 12)])
def test_starting_weights_lie_on_the_simplex_corners_first(objectives: int, count: int) -> None:
    rows = starting_weights(objectives, count)
    assert rows.shape == (count, objectives)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    shown = min(count, objectives)
    np.testing.assert_array_equal(rows[:shown], np.eye(objectives)[:shown])
    if objectives > 1:
        assert len({tuple(row.round(9)) for row in rows}) == count


def failing(folder: Path, broken: str) -> Task:
    from paretune.tasks import load_task

    path = micro_task.save_task(folder)
    second = f"""
ALL = {sorted(micro_task.PROMPTS["train"])!r}
KEPT = second


def second(prompts, completions, **columns):
    if {broken}:
        raise RuntimeError("judge is down")
    return KEPT(prompts, completions)
"""
    (folder / "rewards.py").write_text(micro_task.REWARDS + second)
    return load_task(path)


def test_a_reward_that_stays_away_ends_evolution_across_generations(tmp_path: Path) -> None:
    """A generation has one update here, so only a count that is handed on with the policies reaches three."""
    task = failing(tmp_path / "task", "set(prompts) <= set(ALL)")
    with pytest.raises(RewardError, match=r"at least once in 3 updates, got none: .*judge is down"):
        run(tmp_path / "out", [stage_of(1000, task, crossover=0.0)], task)


def test_a_score_that_nobody_has_is_named(tmp_path: Path) -> None:
    task = failing(tmp_path / "task", "not set(prompts) <= set(ALL)")
    with pytest.raises(RewardError, match="measured score on every objective, got none on 'second'"):
        run(tmp_path / "out", [stage_of(ONE, task)], task)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": 1}, "population and archive must be at least 2, got 1 and 4"),
        ({"steps": 12}, "steps must be a positive multiple of completions_per_update"),
        ({"measured_each": 6}, "measured_each must be a positive multiple of group_size"),
        ({"crossover": 1.5}, r"crossover must be a chance from 0 to 1, got 1\.5\. Write 0 for never, 1 for always"),
        ({"crossover": -0.1}, r"crossover must be a chance from 0 to 1, got -0\.1\. Write 0 for never, 1 for always"),
        ({"doubt": -1.0}, "doubt must not be negative"),
        ({"survival": "luck"}, "survival must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        EvolutionSettings(**{**SMALL, **changes})


def test_a_budget_for_less_than_two_individuals_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match=r"budget must give 2 individuals .* 16 completions, got 15"):
        stage_of(15, task)


def test_a_preference_selects_the_member_that_measured_best(task: Task, tmp_path: Path) -> None:
    (result,) = run(tmp_path, [stage_of(TWO, task)], task)
    method = Evolution(EvolutionSettings(**SMALL))
    assembly = method.assemble(task, das_dennis(2, 2), {result.key: result})
    scores = np.asarray([each["scores"] for each in json.loads((result.folder / "front.json").read_text())["front"]])
    weights, words = assembly.answer.weights(np.array([[0.3, 0.7]]))
    assert (words, int(weights[0].argmax())) == (["selected"], int((scores @ [0.3, 0.7]).argmax()))
    assert assembly.experts == result.adapters


GREEDY = "paretune.rl.advantages:self_critical"


@pytest.mark.parametrize("settings", [{"target_kl": 1.0}, {"advantages": "self_critical"}, {"advantages": GREEDY}])
def test_what_offspring_of_a_few_groups_cannot_learn_with_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="target_kl must be 0 and advantages other than self_critical"):
        EvolutionSettings(**settings)


def against_greedy(rewards: Any, group_size: int, greedy_rewards: Any) -> Any:
    """Advantages that nobody makes here."""


def test_advantages_of_a_user_that_ask_for_greedy_completions_are_refused_in_planning(task: Task) -> None:
    with pytest.raises(ConfigError, match=rf"without greedy completions .*, got '{__name__}:against_greedy'"):
        stage_of(TWO, task, advantages=f"{__name__}:against_greedy")
    with pytest.raises(ConfigError, match="advantages must be an importable 'module:name', got 'nowhere_at_all:made'"):
        stage_of(TWO, task, advantages="nowhere_at_all:made")
