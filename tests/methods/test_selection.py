from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from paretune.core.task import Task
from paretune.methods.folds import FOLDS, fold_means, fold_numbers, fold_sums
from paretune.methods.multi_policy.selection import MeasuredSet, selected
from paretune.pareto.cross_fitting import prompt_halves

WANTED = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])


def measured_of(rewards: np.ndarray, kl: np.ndarray, prompts: np.ndarray) -> MeasuredSet:
    """Return what members measured with rewards `[N, S, K]`, NaN where one is missing, and KL `[N, S]`."""
    parts = [
        fold_sums(np.column_stack([own, one]), fold_numbers(prompts.tolist()))
        for own, one in zip(rewards, kl, strict=True)
    ]
    folds, counts = np.stack([fold_means(*each) for each in parts]), np.stack([each[0] for each in parts])
    scores = np.nanmean(rewards, axis=1)
    return MeasuredSet(scores, kl.mean(axis=1), folds[:, :, :-1], folds[:, :, -1], counts[:, :, :-1])


@pytest.mark.parametrize(
    ("select", "point"), [("linear", ()), ("J", ()), ("chebyshev", ()), ("thresholds", (0.55, 0.5))]
)
def test_notes_are_on_what_the_answer_chooses(task: Task, select: str, point: tuple[float, ...]) -> None:
    """Folds of one to nine completions, rewards that are missing, and members that are not served."""
    draws, judged = np.random.default_rng(0), replace(task, judged_on="utility")
    for _ in range(30):
        prompts = draws.choice(FOLDS, size=40, p=np.arange(1, FOLDS + 1) / 36)
        rewards, kl = draws.random((5, 40, 2)), draws.random((5, 40))
        rewards[draws.random(rewards.shape) < 0.2] = np.nan
        measured, served = measured_of(rewards, kl, prompts), sorted(draws.choice(5, 3, replace=False).tolist())
        answer, found = selected(judged, select, point, measured, served, WANTED)
        notes: Any = found["selection"]
        chosen = answer.weights(WANTED)[0].argmax(axis=1)
        value = (WANTED @ answer.scores.T) if select == "thresholds" else answer.worth(WANTED)
        np.testing.assert_allclose(notes["naive"], value[np.arange(len(WANTED)), chosen], atol=1e-12)


def test_who_is_not_served_chooses_nothing_and_leaves_no_fold_out(task: Task) -> None:
    """The best member is not served, and has nothing in the first fold."""
    rewards = np.asarray([[[0.4, 0.4]] * 8, [[0.5, 0.3]] * 8, [[np.nan, np.nan], *[[0.9, 0.9]] * 7]])
    measured = measured_of(rewards, np.zeros((3, 8)), np.arange(8))
    _, found = selected(task, "linear", (), measured, [0, 1], np.asarray([[0.5, 0.5], [1.0, 0.0]]))
    notes: Any = found["selection"]
    assert notes["folds"] == 8
    np.testing.assert_allclose(notes["naive"], [0.4, 0.5])
    np.testing.assert_allclose(notes["cross_fitted"], [0.4, 0.5])


def test_halves_of_the_folds_count_completions(task: Task) -> None:
    """One member, so that nothing is chosen: what halves measured, where one prompt has five of eight completions."""
    prompts, rewards = np.asarray([0, 1, 1, 2, 2, 2, 2, 2]), np.asarray([0.0, 0.5, 0.5, *[1.0] * 5])
    measured = measured_of(np.stack([rewards] * 2, axis=1)[None], np.zeros((1, 8)), prompts)
    _, found = selected(task, "linear", (), measured, [0], np.asarray([[0.5, 0.5]]))
    notes: Any = found["selection"]
    inside = [half[prompts] for each in prompt_halves(3) for half in (each, ~each)]
    np.testing.assert_allclose(notes["cross_fitted"], [np.mean([rewards[each].mean() for each in inside])])
