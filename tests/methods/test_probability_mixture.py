from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Mixer
from paretune.core.task import Task
from paretune.methods.meta_policy.probability_mixture import (
    ProbabilityMixture,
    ProbabilityMixtureSettings,
    member_seed,
)
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings

WANTED = das_dennis(2, 2)


def test_an_ensemble_of_objectives_shares_the_experts_of_rewarded_soups(task: Task, finish: Any) -> None:
    method = ProbabilityMixture(ProbabilityMixtureSettings())
    stages = method.stages(task, WANTED, 1004, 3)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 1004, 3)
    assert [stage.key(task) for stage in stages] == [stage.key(task) for stage in soups]
    assembly = method.assemble(task, WANTED, finish(stages))
    assert assembly.mixer == Mixer("probabilities")
    assert assembly.answer.weights(np.asarray([[0.3, 0.7]]))[0].tolist() == [[0.3, 0.7]]


def test_ensembles_of_seeds_split_the_budget_and_share_the_weight_of_their_objective(task: Task, finish: Any) -> None:
    method = ProbabilityMixture(ProbabilityMixtureSettings(seeds_each=3))
    stages = method.stages(task, WANTED, 1024, 0)
    assert len({stage.key(task) for stage in stages}) == 6
    assert [stage.completions for stage in stages] == [176, 176, 168, 168, 168, 168]  # 128 groups of 8, over six
    assert [stage.member["objective_weights"] for stage in stages] == [[1, 0]] * 3 + [[0, 1]] * 3
    assert [stage.seed for stage in stages[:3]] == [stage.seed for stage in stages[3:]]
    assert len({stage.seed for stage in stages}) == 3
    alone = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 176 * 2, 0)
    assert stages[0].key(task) == alone[0].key(task)
    assembly = method.assemble(task, WANTED, finish(stages))
    assert len(assembly.experts) == 6
    weights, _ = assembly.answer.weights(np.asarray([[0.25, 0.75]]))
    np.testing.assert_allclose(weights, [[1 / 12] * 3 + [1 / 4] * 3])
    others = {member_seed(seed, number) for seed in range(20) for number in range(1, 4)}
    assert len(others) == 60
    assert min(others) > 100_000  # no cell's seed, nor one of a tuning instance


def test_what_is_no_number_of_experts_is_refused(task: Task) -> None:
    for wrong in (0, 1.5, True):
        with pytest.raises(ConfigError, match=r"seeds_each must be a whole number from 1 on, got .*\. Try 2"):
            ProbabilityMixtureSettings(seeds_each=wrong)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(BudgetError, match="budget must give each of 10 experts at least one group of 8"):
        ProbabilityMixture(ProbabilityMixtureSettings(seeds_each=5)).stages(task, WANTED, 64, 0)
