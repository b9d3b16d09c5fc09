from __future__ import annotations

from typing import Any

import numpy as np

from paretune.core.prompt_format import PromptFormat
from paretune.models.policy import Policy
from paretune.rl.requests import Requests

NO_BASE: Any = None  # nothing is generated here


def test_each_request_keeps_its_own_experts_on_all_its_prompts() -> None:
    """Two users on three prompts; the first is answered by policies 0, 1 and 0, the second by 1 alone."""
    weights = np.array([[0.7, 0.3], [0.2, 0.8]])
    policy = Policy(NO_BASE, None, PromptFormat(), 4, 2, np.eye(2), ["a", "b"], weights)
    asked = Requests(policy, np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[0, 1, 0], [1, 1, 1]]))
    kept = asked.keeping([0, 1, 0, 1], np.array([[True, False], [True, True], [False, False], [False, False]]))
    assert kept.preferences.tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [0.0, 1.0]]
    found = [kept.policy.expert_weights[places].tolist() for places in kept.places]
    assert found == [
        [[0.7, 0.0], [0.2, 0.0], [0.7, 0.0]], [[0.2, 0.8]] * 3, [[0.0, 0.0]] * 3, [[0.0, 0.0]] * 3,
    ]  # fmt: skip
    assert kept.identity(1) == asked.identity(1)
    assert kept.identity(2) == kept.identity(3)  # the base model, whoever is answered
    assert kept.answer(0) == "by prompt"
