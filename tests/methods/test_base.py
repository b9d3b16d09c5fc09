from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paretune.core.answers import Untrained
from paretune.core.errors import AdapterError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import FAMILIES, Assembly, Mixer
from paretune.core.task import Task
from paretune.methods.base import Base, BaseSettings
from paretune.models.loading import load_base, unwrap
from paretune.models.solutions import SolutionSet, load_solutions
from paretune.rl.evaluation import reference_policy
from paretune.training.train import train

WANTED = das_dennis(2, 2)
PROMPTS = ["a b", "c"]


def test_it_trains_nothing_and_is_no_method_to_be_ranked(task: Task) -> None:
    assert Base(BaseSettings()).stages(task, WANTED, 1, 0) == ()
    assert Base.family == "reference"
    assert Base.family not in FAMILIES


def test_every_preference_is_answered_by_the_reference_policy(task: Task, tmp_path: Path) -> None:
    solutions = train("base", task, 1, output=tmp_path / "out")
    policy = solutions.policies_for(WANTED)
    assert (policy.answers, policy.expert_weights.shape) == (("untrained",) * 3, (3, 0))
    assert policy.identity(0) == policy.identity(2)  # so that it is sampled once
    made = policy.generate(PROMPTS, [0, 2], samples=4, seed=3, reference=True)
    expected = reference_policy(load_base(task.model), task).generate(PROMPTS, samples=4, seed=3)
    assert made.texts == expected.texts
    np.testing.assert_allclose(made.log_probs, made.reference_log_probs, atol=1e-6)  # its KL is 0
    again = load_solutions(tmp_path / "out").policy_for({"first": 1, "second": 1})
    assert again.generate(PROMPTS, samples=4, seed=3).texts == expected.texts


def test_it_answers_while_experts_of_others_lie_over_the_model(task: Task) -> None:
    settings = {"rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 0.5, "epochs": 1}
    trained = train("one_policy", task, 64, settings=settings).policy_for([1, 1])
    assert trained.generate(PROMPTS, samples=8, seed=3).texts  # wraps the model
    untrained = train("base", task, 1).policy_for([1, 1])
    found = untrained.generate(PROMPTS, samples=8, seed=3).texts
    unwrap(untrained.base)
    assert found == untrained.generate(PROMPTS, samples=8, seed=3).texts


def test_an_answer_without_experts_mixes_nothing(task: Task) -> None:
    with pytest.raises(AdapterError, match="mixer of method 'mine' must be left out without experts, got one at level"):
        SolutionSet.from_assembly(task, Assembly((), Untrained(2), Mixer("log_probs")), "mine", "reference")
    with pytest.raises(ShapeError, match=r"one column per objective \(2\), got 3"):
        Untrained(2).weights(das_dennis(3, 1))
