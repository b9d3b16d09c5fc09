from __future__ import annotations

import json
from dataclasses import replace
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
from paretune.methods.multi_policy.individuals import Individual
from paretune.methods.multi_policy.linear_support import LinearSupport, LinearSupportSettings
from paretune.methods.multi_policy.rounds import Found
from paretune.methods.multi_policy.support_rounds import SupportRounds, prepared, support

SMALL: dict[str, Any] = {
    "rank": 2, "group_size": 4, "completions_per_update": 8, "learning_rate": 3e-2, "epochs": 1, "average_decay": 0.0,
    "completions_each": 24, "measured_each": 8,
}  # fmt: skip


def stage_of(completions: int, task: Task, **changes: Any) -> Stage:
    settings = LinearSupportSettings(**{**SMALL, **changes})
    (stage,) = LinearSupport(settings).stages(task, das_dennis(2, 2), completions, 0)
    return stage


def rounds_of(task: Task, root: Path, **changes: Any) -> SupportRounds:
    stage = stage_of(200, task, **changes)
    return prepared(set_runs.context_of(root, [stage], task), stage)


def member(number: int, weights: list[float], scores: list[float], parents: tuple[int, ...] = ()) -> Individual:
    """Return one that was measured 10,000 times, so that noise is below .005."""
    sums = np.asarray(scores) * 10_000
    return Individual(
        number, 0, "training" if parents else "start", parents, np.asarray(weights), torch.full((3,), float(number)),
        {"place": torch.zeros(1)}, (0, 0), np.full(2, 1e4), sums, np.asarray(scores) ** 2 * 1e4,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 3])
def test_rounds_are_planned_to_the_last_whole_one(size: int, task: Task, tmp_path: Path) -> None:
    rounds = rounds_of(task, tmp_path, round_size=size)
    for length in range(0, 400, 4):
        count = rounds.whole(length)
        spent = 0 if count == 0 else 2 * 24 + (count - 1) * size * 24
        coming = 2 * 24 if count == 0 else size * 24
        assert spent <= length < spent + coming


@pytest.mark.parametrize(
    "budget", [16, 44, 73, *(pytest.param(each, marks=pytest.mark.slow) for each in (19, 48, 52, 68, 100))]
)
def test_every_budget_is_spent_to_the_last_group(budget: int, task: Task, tmp_path: Path) -> None:
    (result,) = set_runs.run(support, tmp_path, [stage_of(budget, task)], task)
    assert result.ledger.completions == budget // 4 * 4 == result.stage.completions
    kept = json.loads(result.artefacts["front.json"].read_text())
    whole, left = divmod(budget // 4 * 4, 24)
    assert len(kept["lineage"]) == max(2, whole + (left > 12))  # the last one shorter, if it has more than half
    assert kept["lineage"][0]["objective_weights"] == [1, 0]
    assert kept["certificate"]["remaining_gain"] >= 0
    assert result.values["certificate"] == kept["certificate"]


@pytest.mark.parametrize(
    "changes",
    [
        {"doubt": 100.0},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in ({"reuse": "nearest"}, {"round_size": 2, "doubt": 0.0})
        ),
    ],
)
def test_settings_change_what_is_found_and_it_repeats(changes: dict[str, Any], task: Task, tmp_path: Path) -> None:
    """With doubt 100 nothing is ever open: after the ends they learn on in turn."""
    stage = stage_of(112, task, **changes)
    found = [set_runs.run(support, tmp_path / name, [stage], task)[0] for name in ("one", "two")]
    assert set_runs.contents(found[0]) == set_runs.contents(found[1])
    assert found[0].ledger.completions == 112
    lineage = json.loads((found[0].folder / "front.json").read_text())["lineage"]
    assert [each["number"] for each in lineage] == [0, 1, 2, 3, 4]
    if "reuse" in changes or changes["doubt"] == 100:
        assert [each["operation"] for each in lineage] == ["start"] * 2 + ["training"] * 3
    if changes.get("doubt") == 100:
        assert [each["parents"] for each in lineage[2:]] == [[0], [1], [2]]


@pytest.mark.slow  # the contract of methods has it too
def test_a_longer_run_goes_on_where_a_shorter_one_stood(task: Task, tmp_path: Path) -> None:
    set_runs.check_that_longer_runs_go_on(support, stage_of(56, task), stage_of(100, task), task, tmp_path)


@pytest.mark.parametrize("calls", [9, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(calls: int, task: Task, tmp_path: Path) -> None:
    set_runs.check_that_a_kill_changes_nothing(support, stage_of(80, task), task, tmp_path, calls)


def test_the_next_member_is_trained_where_most_can_be_gained(task: Task, tmp_path: Path) -> None:
    """Ends (1, 0) and (0, .5): their lines t and (1 - t) / 2 meet at 1/3; (1, .5) may exist, worth 1/3 more there."""
    rounds = rounds_of(task, tmp_path)
    living = (member(0, [1, 0], [1, 0]), member(1, [0, 1], [0, 0.5]))
    (chosen,) = rounds.next_members(Found(living, ({}, {})), 1, 1)
    np.testing.assert_allclose(chosen.objective_weights, [1 / 3, 2 / 3], atol=1e-9)
    assert (chosen.number, chosen.operation, chosen.parameters) == (2, "start", None)
    outlook = rounds.outlook(living)
    assert outlook is not None
    assert outlook.support.certificate == pytest.approx(1 / 3)
    assert 1 / 3 < outlook.doubted.certificate < 1 / 3 + 0.01  # with a standard error below .005 on either bound


def test_the_certificate_says_where_its_gain_may_be_had(task: Task, tmp_path: Path) -> None:
    """Without noise most can be gained at (.39, .61); the first member was measured four times, so at (.61, .39)."""
    rounds = rounds_of(task, tmp_path)
    first, second, between = member(0, [1, 0], [1, 0]), member(1, [0, 1], [0, 1]), member(2, [0.5, 0.5], [0.62, 0.6])
    few = np.full(2, 4.0)
    first = replace(first, counts=few, sums=np.asarray([4.0, 0.0]), squares=np.asarray([4.0, 0.0]))
    living = (first, second, between)
    outlook, notes = rounds.outlook(living), rounds.notes(Found(living, ({}, {}, {})))
    assert outlook is not None
    assert outlook.support.corners[0] == pytest.approx([0.392, 0.608], abs=1e-3)
    certificate: Any = notes["certificate"]
    assert certificate["at"] == pytest.approx([0.612, 0.388], abs=1e-3)
    assert certificate["remaining_gain"] == pytest.approx(0.115, abs=0.02)


def test_reuse_starts_from_the_member_of_the_nearest_weights(task: Task, tmp_path: Path) -> None:
    rounds = rounds_of(task, tmp_path, reuse="nearest")
    living = (member(0, [1, 0], [1, 0]), member(1, [0, 1], [0, 0.5]))
    (chosen,) = rounds.next_members(Found(living, ({}, {})), 1, 1)
    assert (chosen.parents, chosen.operation) == ((1,), "training")
    assert chosen.trained.equal(living[1].trained)
    assert chosen.learner == living[1].learner
    assert chosen.counts.size == 0


def test_what_noise_may_explain_is_no_gain_and_the_least_trained_learn_on(task: Task, tmp_path: Path) -> None:
    """(.5, .5) is the best everywhere: nothing is left to be gained, so members learn on, each in its turn."""
    rounds = rounds_of(task, tmp_path)
    half = [0.5, 0.5]
    living = (member(0, [1, 0], half), member(1, [0, 1], half), member(2, half, half), member(3, [1, 0], half, (0,)))
    chosen = rounds.next_members(Found(living, ({},) * 4), 2, 2)
    assert [each.parents for each in chosen] == [(1,), (2,)]  # 0 was learned on from, by 3, which comes last
    assert [each.objective_weights.tolist() for each in chosen] == [[0, 1], half]
    outlook = rounds.outlook(living)
    assert outlook is not None
    assert len(outlook.open) == 0
    assert 0 < outlook.doubted.certificate < 0.02
    small = [
        replace(each, counts=np.full(2, 4.0), sums=each.sums / 2500, squares=each.squares / 2500) for each in living
    ]
    noisy = rounds.outlook(small)
    assert noisy is not None
    assert noisy.doubted.certificate == pytest.approx(0.25 / 4)  # four equal completions prove little: SPREAD over four


def test_a_round_of_several_takes_several_corners(task: Task, tmp_path: Path) -> None:
    rounds = rounds_of(task, tmp_path)
    living = (member(0, [1, 0], [1, 0]), member(1, [0, 1], [0, 1]), member(2, [0.5, 0.5], [0.7, 0.7]))
    chosen = rounds.next_members(Found(living, ({},) * 3), 1, 3)
    assert [each.number for each in chosen] == [3, 4, 5]
    np.testing.assert_allclose(chosen[0].objective_weights + chosen[1].objective_weights, [1, 1])  # mirrored corners
    assert chosen[2].operation == "training"  # no third corner is open


def test_a_preference_selects_by_the_utility_of_the_settings(task: Task, tmp_path: Path) -> None:
    (result,) = set_runs.run(support, tmp_path, [stage_of(100, task)], task)
    kept = json.loads((result.folder / "front.json").read_text())
    scores = np.asarray([each["scores"] for each in kept["front"]])
    linear = LinearSupport(LinearSupportSettings(**SMALL)).assemble(task, das_dennis(2, 2), {"one": result})
    assert linear.answer.weights(np.asarray([[0.3, 0.7]]))[0].argmax() == (scores @ [0.3, 0.7]).argmax()
    notes: Any = linear.notes["selection"]
    assert len(notes["naive"]) == len(notes["cross_fitted"]) == 3
    assert notes["folds"] == 4  # one a development prompt
    other = LinearSupport(LinearSupportSettings(**SMALL, select="thresholds", select_point=(0.0, 0.0)))
    assert other.assemble(task, das_dennis(2, 2), {"one": result}).notes["selection"]["by"] == "thresholds"  # type: ignore[index]  # plain data


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round_size": 0}, "round_size must be at least 1, got 0"),
        ({"measured_each": 16}, "leave an update of 8 to train on, got 16 of 24"),
        ({"reuse": "all"}, "reuse must be one of"),
        ({"doubt": -1.0}, "doubt must not be negative"),
        ({"select": "luck"}, "select must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LinearSupportSettings(**{**SMALL, **changes})


def test_a_budget_that_leaves_an_objective_without_a_policy_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match=r"budget must give 2 individuals .* 16 completions, got 15"):
        stage_of(15, task)


def test_three_objectives_are_searched_on_their_simplex(task: Task, tmp_path: Path) -> None:
    """Ends worth 1 each: (1, 1, 1) may exist, and is worth 2/3 more than any end for equal weights."""
    from types import SimpleNamespace

    rounds = rounds_of(task, tmp_path)
    rounds.members.task = SimpleNamespace(objectives=(1, 2, 3), objective_names="abc")  # type: ignore[assignment]  # all that is asked
    rounds.members.ranges = np.asarray([[0.0, 1.0]] * 3)
    assert rounds.whole(3 * 24 - 1) == 0
    assert rounds.whole(4 * 24) == 2
    base, many = Individual(0, 0, "start", (), np.eye(3)[0]), np.full(3, 1e4)
    ends = [
        replace(
            base, number=place, objective_weights=row, parameters=torch.full((3,), float(place)), counts=many,
            sums=row * many, squares=row * many,
        )
        for place, row in enumerate(np.eye(3))
    ]  # fmt: skip
    (chosen,) = rounds.next_members(Found(tuple(ends), ({},) * 3), 1, 1)
    np.testing.assert_allclose(chosen.objective_weights, np.full(3, 1 / 3), atol=1e-6)
    outlook = rounds.outlook(ends)
    assert outlook is not None
    assert outlook.support.certificate == pytest.approx(2 / 3)
