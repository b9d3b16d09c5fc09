"""What 4,000 completions do to each objective of the embedded task, and to the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import paretune
from paretune.statistics.intervals import mean_interval

SEEDS, COMPLETIONS = 3, 4000


@pytest.mark.slow
def test_experts_raise_their_own_objective_and_brevity_competes(capsys: pytest.CaptureFixture[str]) -> None:
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate, reference_policy

    embedded = paretune.load_task("counselling")
    objectives = (*embedded.objectives, *embedded.audit)  # fluency is trained here, to see that it can be
    task = dataclasses.replace(embedded, objectives=objectives, audit=(), reference_point=(0.0,) * len(objectives))
    names, score = task.objective_names, Scorer(objectives)
    changes = []  # [seed, trained objective, scored objective]
    for seed in range(SEEDS):
        solutions = paretune.train("rewarded_soups", task, budget=COMPLETIONS * len(names), seed=seed)
        policy = solutions.policies_for(np.eye(len(names)))
        trained = evaluate(policy, task.splits["test"], score, names, samples=2)
        (base,) = evaluate(reference_policy(policy.base, task), task.splits["test"], score, names, samples=2)
        changes.append([record.scores - base.scores for record in trained])
    table = np.asarray(changes)
    intervals = {
        (own, other): mean_interval(table[:, row, column])
        for row, own in enumerate(names)
        for column, other in enumerate(names)
    }
    with capsys.disabled():
        print(f"\nchange of the mean reward on {len(task.splits['test'])} test prompts, {SEEDS} seeds, 95 % t-interval")
        for (own, other), change in intervals.items():
            print(f"trained on {own:10s} {other:10s} {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
    for name in names:
        assert intervals[name, name].mean >= 0.15, name
    competing = [pair for pair, change in intervals.items() if change.high is not None and change.high <= -0.05]
    assert competing, "no objective lowers another by 0.05 with an interval that excludes 0"
