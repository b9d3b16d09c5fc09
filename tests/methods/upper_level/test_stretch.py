from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Divergence
from paretune.core.task import Task
from paretune.methods.experts import start_of
from paretune.methods.meta_policy.lower_level.mixed_reward import MixedReward
from paretune.methods.meta_policy.mod import MOD, MODSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings
from paretune.methods.meta_policy.upper_level.stretch import Origin, StretchSettings, stretched
from paretune.models.divergences import DIVERGENCES

WANTED = das_dennis(2, 2)


def product(weights: Any, experts: Any, reference: Any) -> Any:
    mixed = weights @ experts + (1 - weights.sum()) * reference
    return mixed - np.logaddexp.reduce(mixed)


@pytest.mark.parametrize(("origin", "rewards_of_second"), [("base", "independent"), ("centre", "opposed")])
def test_half_trained_experts_stretched_by_two_are_the_best_policy(origin: Origin, rewards_of_second: str) -> None:
    """Experts at half of their reward: weights 2 w are exact; so is `centre` where the sum of rewards is constant."""
    generator = np.random.default_rng(0)
    reference = np.log(generator.dirichlet(np.ones(6)))
    rewards = generator.normal(size=(2, 6))
    rewards[1] = rewards[1] if rewards_of_second == "independent" else 1 - rewards[0]
    beta, wanted = 0.5, np.asarray([0.7, 0.3])
    experts = np.stack([product(np.asarray([1.0]), reference[None] + 0.5 * row / beta, reference) for row in rewards])
    best = product(np.asarray([1.0]), reference[None] + (wanted @ rewards)[None] / beta, reference)
    corners = stretched(np.eye(2), StretchSettings(stretch=2.0, stretch_from=origin))
    np.testing.assert_allclose(product(wanted @ corners, experts, reference), best, atol=1e-12)
    assert np.abs(product(wanted, experts, reference) - best).max() > 0.1


@pytest.mark.parametrize("name", get_args(Divergence))
def test_a_stretch_pays_under_the_divergence_of_the_experts_and_is_refused_under_others(
    name: Divergence, task: Task
) -> None:
    """Experts of the reverse KL with .8 of their reward, 64 tokens: J of weights 1.25 w less that of w, eight times."""

    def lost(wanted: list[float], origin: Origin) -> list[float]:
        corners = stretched(np.eye(2), StretchSettings(stretch=1 / 0.8, stretch_from=origin))
        found, beta, preference = [], 0.1, torch.tensor(wanted, dtype=torch.float64)
        for seed in range(8):
            generator = np.random.default_rng(seed)
            reference = torch.tensor(generator.dirichlet(np.ones(64))).log()
            rewards = torch.tensor(generator.uniform(size=(2, 64)))
            experts = (reference + 0.8 * rewards / beta).log_softmax(dim=-1)
            made = [
                DIVERGENCES[name](experts, reference, each) for each in (preference, preference @ torch.tensor(corners))
            ]
            plain, further = (
                float((each.exp() * (preference @ rewards - beta * (each - reference))).sum()) for each in made
            )
            found.append(plain - further)
        return found

    method = [MOD(MODSettings(stretch=1.25, stretch_from=origin, divergence=name)) for origin in get_args(Origin)]
    if name == "reverse_kl":
        assert max(lost([0.7, 0.3], "base")) < 0  # to the optimum itself
        assert max(lost([1.0, 0.0], "centre")) < 0.01  # of .8; weights 1.125 and -.125
        for each in method:
            each.stages(task, WANTED, 1004, 3)
    else:
        assert min(lost([0.7, 0.3], "base")) > 0.001
        assert min(lost([1.0, 0.0], "centre")) > 0.02
        for each in method:
            with pytest.raises(
                ConfigError, match=rf"must not be negative or sum to more than 1 under .* '{name}', got"
            ):
                each.stages(task, WANTED, 1004, 3)


def test_from_the_centre_sum_and_middle_stay_whatever_the_rule() -> None:
    prior = MixedReward(0.7).prior(3)
    moved = stretched(prior, StretchSettings(stretch=1.4))
    np.testing.assert_allclose(moved.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(moved.mean(axis=0), prior.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moved[0] - moved[1], 1.4 * (prior[0] - prior[1]), atol=1e-12)
    assert stretched(prior, StretchSettings()) is prior
    assert stretched(np.eye(1), StretchSettings(stretch=3.0)).tolist() == [[1.0]]  # one expert: nowhere to go


@pytest.mark.parametrize(
    ("kind", "settings"), [(RewardedSoups, RewardedSoupsSettings), (MOD, MODSettings)], ids=["soups", "mod"]
)
def test_stretching_changes_the_answer_and_nothing_that_is_trained(
    kind: Any, settings: Any, task: Task, finish: Any
) -> None:
    plain, further = kind(settings()), kind(settings(stretch=1.5))
    stages = further.stages(task, WANTED, 1004, 3)
    assert [each.key(task) for each in stages] == [each.key(task) for each in plain.stages(task, WANTED, 1004, 3)]
    answer = further.assemble(task, WANTED, finish(stages)).answer
    assert isinstance(answer, Combined)
    # .5 + 1.5 (.9 - .5) = 1.1
    np.testing.assert_allclose(answer.weights(np.asarray([[0.9, 0.1], [0.5, 0.5]]))[0], [[1.1, -0.1], [0.5, 0.5]])


def test_experts_of_their_own_start_differ_in_it_alone_and_share_the_first(task: Task) -> None:
    shared = RewardedSoups(RewardedSoupsSettings()).stages(task, np.eye(3)[:2, :2], 64, 3)
    own = RewardedSoups(RewardedSoupsSettings(start="own")).stages(task, np.eye(3)[:2, :2], 64, 3)
    assert own[0].key(task) == shared[0].key(task)
    assert own[1].key(task) != shared[1].key(task)
    assert len({start_of(each) for each in own}) == 2
    assert {start_of(each) for each in shared} == {3}
    assert [each.seed for each in own] == [3, 3]
    assert own[1].shape_key(task) == shared[1].shape_key(task)  # still one population


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stretch": 0.0}, r"stretch must be finite and above 0, got 0\.0"),
        ({"stretch": math.inf}, "stretch must be finite and above 0, got inf"),
        ({"stretch_from": "corner"}, "stretch_from must be one of base, centre, got 'corner'"),
    ],
)
def test_a_stretch_that_says_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODSettings(**settings)


def test_a_start_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="start must be one of own, shared, got 'both'"):
        RewardedSoupsSettings(start="both")  # type: ignore[arg-type]  # the point of the test
