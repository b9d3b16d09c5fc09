from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from paretune.core.errors import UnknownNameError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.single_policy.reward_combination import (
    FORMS,
    RewardCombination,
    RewardCombinationSettings,
)
from paretune.methods.training import slots
from paretune.rl.shaping import Product, to_unit
from paretune.rl.slots import Slots

RANGES = np.asarray([[0.0, 1.0], [-1.0, 1.0]])
REWARDS = torch.tensor([[0.5, 0.0], [0.25, 0.5]], dtype=torch.float64)  # scores (.5, .5) and (.25, .75)


def product(preference: list[float], rewards: Tensor = REWARDS) -> Tensor:
    return Product(np.asarray(preference), {}, RANGES).shape(rewards)


def test_rewards_are_mapped_to_0_to_1_by_their_range() -> None:
    assert to_unit(REWARDS, RANGES).tolist() == [[0.5, 0.5], [0.25, 0.75]]


def test_the_product_of_equal_weights_is_the_product_and_a_corner_is_its_objective() -> None:
    np.testing.assert_allclose(product([0.5, 0.5]), [[0.25] * 2, [0.1875] * 2])
    np.testing.assert_allclose(product([1.0, 0.0]), [[0.5] * 2, [0.25] * 2])
    # powers 1/3 and 1: .5^(1/3) * .5 and .25^(1/3) * .75
    np.testing.assert_allclose(product([0.25, 0.75])[:, 0], [0.5 ** (4 / 3), 0.25 ** (1 / 3) * 0.75])


def test_a_product_needs_the_scores_that_count_and_no_others() -> None:
    rewards = torch.tensor([[0.5, float("nan")]], dtype=torch.float64)
    assert product([0.5, 0.5], rewards).isnan().all()
    np.testing.assert_allclose(product([1.0, 0.0], rewards), [[0.5, 0.5]])


def test_each_member_of_a_population_is_shaped_by_its_own_preference() -> None:
    """Rows of active members follow each other: here those of the second and of the third of three."""
    shapings = [Product(np.asarray(row), {}, RANGES) for row in ([0.0, 1.0], [1.0, 0.0], [0.5, 0.5])]
    shaped = Slots(shapings=shapings).shaped(torch.cat([REWARDS, REWARDS]), RANGES, [1, 2])
    np.testing.assert_allclose(shaped[:, 0], [0.5, 0.25, 0.25, 0.1875])


@pytest.mark.parametrize("form", FORMS)
def test_stages_name_their_shaping_and_it_fills_the_slot(task: Task, form: str) -> None:
    stage = RewardCombination(RewardCombinationSettings(form=form)).stages(task, das_dennis(2, 2), 4500, 0)[0]
    filled = slots(task, stage.settings, [np.asarray([0.5, 0.5])])
    shaped = filled.shaped(torch.full((4, 2), 0.5, dtype=torch.float64), np.asarray([[0.0, 1.0]] * 2), [0])
    expected = {"sum": 0.5, "product": 0.25, "log_sum": np.log(0.5)}[form]
    np.testing.assert_allclose(shaped, np.full((4, 2), expected))


def test_a_form_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="form must be one of log_sum, product, sum, got 'logsum'"):
        RewardCombinationSettings(form="logsum")
