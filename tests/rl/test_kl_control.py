from __future__ import annotations

import pytest
import torch

from paretune.core.errors import ConfigError
from paretune.rl.kl_control import KlControl, adapted, distance


def test_beta_rises_above_the_target_and_falls_below_it_by_two_percent_at_most() -> None:
    assert adapted(0.5, 2.0, 2.0) == 0.5
    assert adapted(0.5, 2.2, 2.0) == pytest.approx(0.5 * (1 + 0.1 * 0.1))  # 10 % above
    assert adapted(0.5, 200.0, 2.0) == pytest.approx(0.5 * 1.02)
    assert adapted(0.5, -3.0, 2.0) == pytest.approx(0.5 * 0.98)


def test_each_member_has_a_coefficient_of_its_own() -> None:
    control = KlControl(0.1, 1.0, 3)
    control.observe(2, 5.0)
    assert control.betas == pytest.approx([0.1, 0.1, 0.102])
    assert control.rows([2, 0], 2).tolist() == pytest.approx([0.102, 0.102, 0.1, 0.1])


def test_without_a_target_beta_stays_the_tasks() -> None:
    control = KlControl(0.1, 0.0, 1)
    control.observe(0, 50.0)
    assert control.betas == [0.1]


def test_a_beta_of_0_cannot_be_steered() -> None:
    KlControl(0.0, 0.0, 1)
    with pytest.raises(ConfigError, match=r"target_kl must be 0 where the task's beta is 0, got 2\.0"):
        KlControl(0.0, 2.0, 1)


def test_distance_is_the_mean_of_ratio_less_one_less_log_ratio() -> None:
    """`2 - 1 - ln 2` and 0 for the first member, `.5 - 1 + ln 2` twice for the second."""
    log2 = 0.6931471805599453
    found = distance(torch.tensor([log2, 0.0, -log2, -log2], dtype=torch.float64), 2)
    assert found.tolist() == pytest.approx([(1 - log2) / 2, log2 - 0.5])
