from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import set_runs
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.multi_policy.evolution import Evolution, EvolutionSettings
from paretune.methods.multi_policy.individuals import SPREAD, Individual
from paretune.methods.multi_policy.prediction_guided import PredictionGuided, PredictionGuidedSettings
from paretune.methods.multi_policy.prediction_run import Guidance, guide, prepared
from paretune.methods.multi_policy.rounds import Found
from paretune.methods.multi_policy.set_settings import cost

SMALL: dict[str, Any] = {
    "rank": 2, "group_size": 4, "completions_per_update": 8, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
    "population": 2, "archive": 3, "steps": 8, "measured_each": 4, "directions": 5, "draws": 2,
}  # fmt: skip
SETTINGS = PredictionGuidedSettings(**SMALL)
FOUR = sum(cost(SETTINGS, generation) for generation in range(4)) + 3 * 4 + 8  # four generations, and some more


def stage_of(completions: int, task: Task, **changes: Any) -> Stage:
    settings = PredictionGuidedSettings(**{**SMALL, **changes})
    (stage,) = PredictionGuided(settings).stages(task, das_dennis(2, 2), completions, 0)
    return stage


def guidance_of(task: Task, root: Path, **changes: Any) -> Guidance:
    stage = stage_of(FOUR, task, **changes)
    members = prepared(set_runs.context_of(root, [stage], task), stage).members
    return Guidance(members, PredictionGuidedSettings(**{**SMALL, **changes}))


def member(number: int, weights: list[float], scores: list[float]) -> Individual:
    """Return one that was measured 10,000 times, so that noise is below .005."""
    sums = np.asarray(scores) * 10_000
    return Individual(
        number, 0, "start", (), np.asarray(weights), torch.full((3,), float(number)), {}, (0, 0), np.full(2, 1e4),
        sums, np.asarray(scores) ** 2 * 1e4,
    )  # fmt: skip


def steps(count: int, useful: bool) -> tuple[dict[str, Any], ...]:
    """Return steps in which the first objective alone can still be learned, or gains follow nothing."""
    draws, found = np.random.default_rng(0), list[dict[str, Any]]()
    for _ in range(count):
        before, weights = draws.random(2) * 0.5, draws.dirichlet(np.ones(2))
        gain = np.asarray([0.3 * weights[0], 0.0]) if useful else 0.1 * draws.standard_normal(2)
        found.append(
            {
                "before": before.tolist(),
                "objective_weights": weights.tolist(),
                "gain": gain.tolist(),
                "noise": [1e-4] * 2,
            }
        )
    return tuple(found)


def test_the_pair_that_adds_most_learns_on_where_the_model_predicts(task: Task, tmp_path: Path) -> None:
    guidance = guidance_of(task, tmp_path)
    living = (member(0, [1, 0], [0.5, 0.1]), member(1, [0, 1], [0.1, 0.5]))
    found = Found(living, steps(30, useful=True))
    model = guidance.model(found)
    assert model is not None
    assert model.trusted
    chosen = guidance.offspring(found, 3)
    assert [each.number for each in chosen] == [30, 31]
    # both for the first objective: the policy that is good at the second has most of the volume to win there
    assert [each.objective_weights.tolist() for each in chosen] == [[1, 0], [1, 0]]
    assert {each.parents for each in chosen} == {(0,), (1,)}
    assert all(each.operation == "training" and each.counts.size == 0 for each in chosen)


class Promises:
    """A model that promises a sure gain for some weights, and an unsure one for others."""

    def __init__(self, sure: list[float], unsure: list[float]) -> None:
        self.sure, self.unsure = np.asarray(sure), np.asarray(unsure)

    def predict(self, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        del scores
        sure, unsure = (
            np.isclose(weights, each, atol=1e-3).all(axis=1)[:, None] * np.ones(2) for each in (self.sure, self.unsure)
        )
        return 0.1 * sure, 0.5 * unsure


def weights_for(guidance: Guidance, promises: Any) -> list[list[float]]:
    """Return the weights that the first of two policies is chosen for, and the second."""
    living = [member(0, [1, 0], [0.5, 0.1]), member(1, [0, 1], [0.1, 0.5])]
    return [weights.round(3).tolist() for _, weights in guidance.guided(promises, living, 3)]


@pytest.mark.parametrize(("directions", "found"), [(2, False), (3, False), (4, True), (5, True)])
def test_directions_say_for_which_weights_a_policy_may_learn_on(
    directions: int, found: bool, task: Task, tmp_path: Path
) -> None:
    """(2/3, 1/3) is the fourth of them, behind corners and centre."""
    guidance = guidance_of(task, tmp_path, directions=directions, draws=0)
    chosen = weights_for(guidance, Promises([2 / 3, 1 / 3], [-1.0, -1.0]))
    assert ([0.667, 0.333] in chosen) == found


def test_draws_let_a_gain_that_is_not_sure_be_hoped_for(task: Task, tmp_path: Path) -> None:
    """.1 for sure, or .5 up or down: by the prediction alone the first; what is lost below adds no volume."""
    promises = Promises([1.0, 0.0], [0.5, 0.5])
    alone, drawn = (weights_for(guidance_of(task, tmp_path / str(draws), draws=draws), promises) for draws in (0, 32))
    assert alone == [[1.0, 0.0]] * 2
    assert drawn[0] == [0.5, 0.5]


def test_without_a_model_to_trust_those_that_contribute_most_go_on_for_their_own_weights(
    task: Task, tmp_path: Path
) -> None:
    guidance = guidance_of(task, tmp_path)
    ends = member(0, [1, 0], [0.9, 0.1]), member(1, [0, 1], [0.1, 0.9])
    between = member(2, [0.5, 0.5], [0.45, 0.5])
    for lineage in ((), steps(3, useful=True), steps(30, useful=False)):
        found = Found((between, *ends), lineage)
        chosen = guidance.offspring(found, 1)
        assert {each.parents for each in chosen} == {(0,), (1,)}
        for each in chosen:
            (parent,) = (one for one in ends if one.number == each.parents[0])
            assert each.objective_weights.tolist() == parent.objective_weights.tolist()
    events = [json.loads(line) for line in (tmp_path / "groups" / "one" / "events.jsonl").read_text().splitlines()]
    assert [event["trusted"] for event in events] == [False] * 3
    alone = guidance.offspring(Found((between,), ()), 1)
    assert [each.parents for each in alone] == [(2,), (2,)]


def test_its_version_is_written_down_apart_from_that_of_other_sets(task: Task) -> None:
    (evolution,) = Evolution(EvolutionSettings()).stages(task, das_dennis(2, 2), 4500, 0)
    assert (stage_of(FOUR, task).version, evolution.version) == (3, 2)


@pytest.mark.parametrize("budget", [30, 113, *(pytest.param(each, marks=pytest.mark.slow) for each in (16, 44))])
def test_every_budget_is_spent_to_the_last_group(budget: int, task: Task, tmp_path: Path) -> None:
    (result,) = set_runs.run(guide, tmp_path, [stage_of(budget, task)], task)
    assert result.ledger.completions == budget // 4 * 4 == result.stage.completions


def test_a_longer_run_goes_on_where_a_shorter_one_stood_and_keeps_what_was_gained(task: Task, tmp_path: Path) -> None:
    short, long = stage_of(FOUR - 40, task), stage_of(FOUR, task)
    set_runs.check_that_longer_runs_go_on(guide, short, long, task, tmp_path)
    kept = json.loads(next((tmp_path / "after").glob(f"stages/{long.key(task)}/front.json")).read_text())
    born = [each for each in kept["lineage"] if each["generation"] > 0]
    assert all(len(each["gain"]) == len(each["noise"]) == 2 for each in born)
    assert len(born) == 6


def test_a_gain_is_over_what_the_parent_measures_beside_its_child(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lucky parent: .9 when it was chosen, .5 on the prompts that its child has .6 on. The gain is .1 and not -.3."""
    stage = stage_of(FOUR, task)
    generations = prepared(set_runs.context_of(tmp_path, [stage], task), stage)

    def measure(everyone: list[Individual], first: int, count: int) -> list[Individual]:
        del first
        parts = [np.full((count, 2), 0.5 if each.counts.size else 0.6) for each in everyone]
        folds = np.zeros(count, dtype=np.int64)
        return [each.measured(part, np.zeros(count), folds) for each, part in zip(everyone, parts, strict=True)]

    monkeypatch.setattr(generations.members, "train", lambda chosen, lengths: list(chosen))
    monkeypatch.setattr(generations.members, "measure", measure)
    lucky, other = (
        Individual(number, 0, "start", (), np.eye(2)[number], torch.zeros(3)).measured(
            np.full((4, 2), 0.9), np.zeros(4), np.zeros(4, dtype=np.int64)
        )
        for number in range(2)
    )
    made = generations.make(Found((lucky, other), (lucky.origin(), other.origin())), 1)
    for each in made.lineage[2:]:
        assert each["before"] == pytest.approx([0.9, 0.9])  # what a prediction was asked from
        assert each["gain"] == pytest.approx([0.1, 0.1])
        # four equal completions each: a standard error of SPREAD / 4 for the parent and for the child
        assert each["noise"] == pytest.approx([2 * (SPREAD / 4) ** 2] * 2)


@pytest.mark.parametrize("calls", [12, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(calls: int, task: Task, tmp_path: Path) -> None:
    set_runs.check_that_a_kill_changes_nothing(guide, stage_of(FOUR, task), task, tmp_path, calls)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"directions": 1}, "directions must be at least the population"),
        ({"draws": -1}, "draws must not be negative, got -1"),
        ({"steps": 12}, "steps must be a positive multiple of completions_per_update"),
        ({"population": 1}, "population and archive must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PredictionGuidedSettings(**{**SMALL, **changes})


def test_a_budget_for_less_than_two_individuals_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match=r"budget must give 2 individuals .* 16 completions, got 15"):
        stage_of(15, task)
