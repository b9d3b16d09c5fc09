from __future__ import annotations

from pathlib import Path

import builders
from paretune.benchmark.runner import StudyResult
from paretune.benchmark.summary import summary


def test_missing_rewards_are_said_in_the_terminal_with_objective_cause_and_what_to_do() -> None:
    whole, holed = builders.synthetic_study(), builders.synthetic_study(missing=3)
    assert "rewards are missing" not in summary(StudyResult(Path("s"), Path("s/index.html"), whole))
    text = summary(StudyResult(Path("s"), Path("s/index.html"), holed))
    assert "test rewards are missing: " in text
    assert "Mend the reward function" in text
