from __future__ import annotations

import importlib

import numpy as np
import pytest

from paretune.core.errors import RewardError, TaskError
from paretune.core.task import Task
from paretune.objectives.scoring import Scorer
from paretune.tasks import load_task
from paretune.tasks.controlled import rewards
from paretune.tasks.controlled.fields import all_completions
from paretune.tasks.controlled.settings import LETTERS, NAMES, ControlledSettings
from paretune.tasks.controlled.store import load_instance

SETTINGS = {"rho": 0.2, "alphabet": 4, "length": 3, "heterogeneity": 0.5}
FUNCTIONS = [getattr(rewards, name) for name in NAMES]


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task({"controlled": SETTINGS}).instance(1)


def texts() -> list[str]:
    return [" ".join(LETTERS[letter] for letter in row) for row in all_completions(4, 3)]


def test_reward_functions_read_the_fields_of_their_instance(task: Task) -> None:
    stored = load_instance(ControlledSettings(**SETTINGS, seed=1))
    expected = stored.fields.rewards(stored.prompts)  # [48, Y, K]
    rows = [row for split in ("train", "development", "test") for row in task.splits[split]]
    for prompt in (0, 17, 47):
        column = {"instance": [str(rows[prompt]["instance"])] * 64, "prompt_id": ["0"] * 64}
        for objective in range(2):
            found = FUNCTIONS[objective]([str(rows[prompt]["prompt"])] * 64, texts(), **column)
            assert found == pytest.approx(expected[prompt, :, objective], abs=1e-12)
    assert np.abs(expected[0] - expected[17]).max() > 0.01  # prompts differ


def test_a_scorer_calls_them_on_rows_of_several_prompts(task: Task) -> None:
    rows = [task.splits["test"][index % 16] for index in range(64)]
    scores = Scorer(task.objectives)(rows, texts())
    assert set(scores.statuses.flatten().tolist()) == {"ok"}
    stored = load_instance(ControlledSettings(**SETTINGS, seed=1))
    expected = stored.fields.rewards(stored.prompts[32:])
    assert scores.rewards == pytest.approx(np.stack([expected[index % 16, index] for index in range(64)]), abs=1e-12)


@pytest.mark.parametrize("completion", ["", "a b", "a b c d", "a b e", "abc", "a b z", "A b c"])
def test_a_completion_that_the_model_cannot_have_said_is_refused(task: Task, completion: str) -> None:
    row = task.splits["train"][0]
    with pytest.raises(RewardError, match=f"must be 3 of the letters abcd, got '{completion}'. Sample it"):
        rewards.first([str(row["prompt"])], [completion], [str(row["instance"])])


def test_an_objective_that_the_task_does_not_have_is_refused(task: Task) -> None:
    row = task.splits["train"][0]
    with pytest.raises(RewardError, match=r"must be one of the task's: first, second, got 'third'\. Name"):
        rewards.third([str(row["prompt"])], ["a b c"], [str(row["instance"])])


def test_an_instance_of_another_version_of_the_generator_is_refused(task: Task) -> None:
    row = task.splits["train"][0]
    other = str(row["instance"]).replace('"generator": 1', '"generator": 999')
    assert other != row["instance"]
    with pytest.raises(TaskError, match="instance must be drawn by version 1 of the generator"):
        rewards.first([str(row["prompt"])], ["a b c"], [other])


def test_settings_survive_being_written_as_text() -> None:
    settings = ControlledSettings(rho=-0.2, objectives=3, alphabet=5, seed=7)
    assert ControlledSettings.from_text(settings.text()) == settings
    assert ControlledSettings(rho=1).text() == ControlledSettings(rho=1.0).text()  # 1 and 1.0 are one task


def test_every_objective_has_a_function_of_its_name() -> None:
    module = importlib.import_module("paretune.tasks.controlled.rewards")
    five = load_task({"controlled": {"objectives": 5, "alphabet": 6, "length": 4, "rho": 0.3}})
    assert five.objective_names == NAMES
    row = five.splits["train"][0]
    values = [getattr(module, name)([str(row["prompt"])], ["a b c d"], [str(row["instance"])])[0] for name in NAMES]
    stored = load_instance(ControlledSettings(objectives=5, alphabet=6, length=4, rho=0.3))
    assert values == pytest.approx(stored.fields.rewards(stored.prompts[:1])[0, 0 * 216 + 1 * 36 + 2 * 6 + 3])
    assert len(set(values)) == 5
