from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.meta_policy.preference_in_prompt import PreferenceInPrompt, PreferenceInPromptSettings
from paretune.models.solutions import SolutionSet, load_solutions
from paretune.training.continuing import adapt
from paretune.training.train import train

pytestmark = pytest.mark.usefixtures("base")  # training wraps it
LETTERS: dict[str, Any] = {
    "text": "{preference} ", "pair": "{number}", "between": " ",
    "numerals": [f"{first} {second}" for first in "abc" for second in "abcd"][:11],
}  # fmt: skip
SMALL: dict[str, Any] = {
    "rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 2e-2, "epochs": 1, "average_decay": 0.0,
    **LETTERS,
}  # fmt: skip


@pytest.fixture(scope="module")
def told(task: Task, tmp_path_factory: pytest.TempPathFactory) -> SolutionSet:
    return train("preference_in_prompt", task, 64, settings=SMALL, output=tmp_path_factory.mktemp("told") / "out")


def test_each_row_reads_its_own_preference_and_the_base_model_the_prompt_alone(told: SolutionSet) -> None:
    """Tenths 10 and 0 are 'c c' and 'a a', 3 and 2 + 5 are 'a d' and 'b d'; 'b b' is [2, 2]."""
    policy = told.policies_for([[1, 0], [0.3, 0.7]])
    made = policy.generate(["b b", "b b"], [0, 1], reference=True)
    assert made.prompt_ids == ((3, 3, 1, 1, 2, 2), (1, 4, 2, 4, 2, 2))
    by_prompt = policy.scaled([0.0])
    base = by_prompt.generate(["b b"], [0])
    assert base.prompt_ids == ((2, 2),)
    again = by_prompt.next_token_log_probs(["b b"], [[]], [0])
    first = made.reference_log_probs[0, 0]
    assert float(again[0, int(made.token_ids[0, 0])]) == pytest.approx(float(first), abs=1e-5)  # fp32
    own = policy.log_probs(made)
    np.testing.assert_allclose(own.numpy(), made.log_probs.numpy(), atol=1e-5)
    table = policy.completion_table(["b b"], range(1, 8), 1, [1])
    np.testing.assert_allclose(table.numpy(), policy.next_token_log_probs(["b b"], [[]], [1])[:, 1:].numpy(), atol=1e-5)


def test_preferences_of_the_same_tenths_are_one_policy(told: SolutionSet) -> None:
    policy = told.policies_for([[0.3, 0.7], [0.32, 0.68], [0.4, 0.6]])
    assert policy.identity(0) == policy.identity(1) != policy.identity(2)
    assert policy.scaled([0.0]).identity(0) == policy.scaled([0.0]).identity(2)  # the base model


def test_what_is_written_survives_save_and_load(told: SolutionSet, tmp_path: Path) -> None:
    loaded = load_solutions(told.save(tmp_path / "again"))
    assert loaded.preference_text == told.preference_text is not None
    prompts = ["b b", "e"] * 4
    texts = [each.policies_for([[1, 0]]).generate(prompts, [0] * 8).texts for each in (loaded, told)]
    assert texts[0] == texts[1]


def test_the_task_counts_the_prompt_alone(told: SolutionSet) -> None:
    policy = told.policy_for([0.5, 0.5])
    policy.generate(["a b c d"])  # four tokens, as many as the task allows, behind four of the preference
    with pytest.raises(ShapeError, match="prompt must have at most 4 tokens, got 5"):
        policy.generate(["a b c d e"])


def test_a_base_model_that_cannot_read_the_text_is_refused_when_stages_are_planned(task: Task) -> None:
    wanted = das_dennis(2, 2)
    with pytest.raises(ConfigError, match="text must be of tokens that the base model"):
        PreferenceInPrompt(PreferenceInPromptSettings()).stages(task, wanted, 640, 0)
    # two spaces are no token, so .7 and .3 read as .8 and .2
    same = ["a", "b", "c d", "c  d", "e", "f", "g", "a a", "a  a", "b b", "c c"]
    with pytest.raises(ConfigError, match="text must tell preferences apart"):
        PreferenceInPrompt(PreferenceInPromptSettings(**{**LETTERS, "numerals": same})).stages(task, wanted, 640, 0)
    long = replace(task, max_prompt_tokens=28)  # 28 + 2 of the completion fit 32 positions, 4 more do not
    with pytest.raises(ConfigError, match="context of 32 tokens"):
        PreferenceInPrompt(PreferenceInPromptSettings(**LETTERS)).stages(long, wanted, 640, 0)


def test_it_is_not_adapted_as_if_it_read_nothing(told: SolutionSet, task: Task) -> None:
    with pytest.raises(ConfigError, match="must not read the preference in its prompt"):
        adapt(told, task, [0.5, 0.5], 16)


@pytest.mark.slow
def test_with_more_completions_the_text_is_heeded(task: Task) -> None:
    settings = {**SMALL, "rank": 8, "completions_per_update": 48, "learning_rate": 1e-2, "epochs": 2}
    solutions = train("preference_in_prompt", task, 4000, settings={**settings, "average_decay": 0.9})
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    policy, prompts = solutions.policies_for(np.eye(2)), list(micro_task.PROMPTS["test"])
    texts = [policy.generate(prompts, [index] * 4, samples=128).texts for index in range(2)]
    means = [np.mean([values[text] for text in each], axis=0) for each in texts]
    assert means[0][0] > means[1][0] + 0.1  # 512 rewards: a difference has a standard error below .022
    assert means[1][1] > means[0][1] + 0.1
