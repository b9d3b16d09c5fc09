from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import builders
from paretune.metrics.prompts import prompt_scores, wanted_of_prompts

SAMPLED = builders.evaluation(np.linspace(0, 1, 12).reshape(4, 3), [1, 0, 0], samples=2)
EXACT = replace(SAMPLED, exact_rewards=np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))


def test_scores_by_prompt_are_means_over_its_completions() -> None:
    scores, dropped = prompt_scores([SAMPLED])
    assert dropped == 0
    assert scores == pytest.approx(SAMPLED.rewards.reshape(1, 2, 2, 3).mean(axis=2))


def test_scores_by_prompt_are_exact_where_all_of_them_are() -> None:
    scores, dropped = prompt_scores([EXACT, EXACT])
    assert dropped == 0
    assert scores.tolist() == [EXACT.exact_rewards.tolist()] * 2  # type: ignore[union-attr]
    mixed, _ = prompt_scores([EXACT, SAMPLED])  # exact beside sampled would compare unlike things
    assert mixed[0].tolist() == mixed[1].tolist() == prompt_scores([SAMPLED])[0][0].tolist()


def test_exact_scores_do_not_need_the_samples_rewards() -> None:
    holed = replace(EXACT, rewards=np.full((4, 3), np.nan))
    scores, dropped = prompt_scores([holed])
    assert (scores.shape, dropped) == ((1, 2, 3), 0)
    assert prompt_scores([replace(holed, exact_rewards=None)]) == (
        "has no prompt on which every candidate has all rewards"
    )


def test_what_is_wanted_of_prompts_is_the_preference_where_an_evaluation_does_not_say() -> None:
    assert wanted_of_prompts([SAMPLED, EXACT]) is None
    own = np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    told = replace(SAMPLED, prompt_preferences=own, prompt_ids=("b", "b", "a", "a"))
    silent = replace(told, prompt_preferences=None)  # of the preference [1, 0, 0]
    plain = [[1.0, 0.0, 0.0]] * 2
    found = wanted_of_prompts([silent, told])
    assert found is not None
    assert found.tolist() == [plain, own[::-1].tolist()]  # sorted ids: a before b
    exact = [replace(each, exact_rewards=EXACT.exact_rewards) for each in (told, silent)]
    found = wanted_of_prompts(exact)
    assert found is not None
    assert found.tolist() == [own.tolist(), plain]
