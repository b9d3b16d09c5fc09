"""Bone soups whose mixing matrix short runs choose; the experts themselves: lower_level/test_mixed_reward.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.testing import assert_allclose

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.methods.meta_policy.bone_soups import (
    BETAS,
    BoneSoups,
    BoneSoupsSettings,
    ChoiceSettings,
    choose_beta,
    pilot_mixtures,
)
from paretune.training.train import train

WANTED = np.asarray([[0.5, 0.5]])
PILOTS = BoneSoupsSettings(pilot_share=0.4, pilot_measured_each=8)


def test_pilots_and_their_measurement_are_charged(task: Task) -> None:
    # 4000 of 10,000 for pilots: three betas at three preferences with 8 completions each are 72, and 3928 for six
    # pilots are 81 groups of 8 each and 5 groups more; what is left, 10,000 - 72 - 491 * 8, is 6000 for two experts
    stages = in_order(BoneSoups(PILOTS).stages(task, WANTED, 10_000, 0), task)
    assert [stage.kind for stage in stages] == ["expert"] * 6 + ["choice"] + ["expert"] * 2
    assert [stage.completions for stage in stages] == [656] * 5 + [648, 72, 3000, 3000]
    assert [stage.member["objective_weights"] for stage in stages[:6]] == [
        pytest.approx(row) for row in ([0.6, 0.4], [0.4, 0.6], [0.7, 0.3], [0.3, 0.7], [0.8, 0.2], [0.2, 0.8])
    ]
    assert [stage.member for stage in stages[7:]] == [{"chosen": 0}, {"chosen": 1}]
    assert all(stage.needs == (stages[6],) for stage in stages[7:])
    with pytest.raises(BudgetError, match="each of 6 experts at least one group"):
        BoneSoups(PILOTS).stages(task, WANTED, 290, 0)


def test_without_pilots_nothing_is_planned_otherwise(task: Task) -> None:
    plain, with_none = (BoneSoups(BoneSoupsSettings(**more)) for more in ({}, {"pilot_share": 0.0}))
    keys = [[stage.key(task) for stage in method.stages(task, WANTED, 1004, 0)] for method in (plain, with_none)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 2


def test_mixtures_of_pilots_are_what_their_beta_would_serve() -> None:
    # at (0, 1) the weights are B^-1's second column, (-2, 3) for .6 and (-1/3, 4/3) for .8, half as much again with
    # an extrapolation of a half
    settings = ChoiceSettings([0.6, 0.8], 0.5, [[0.5, 0.5], [0.0, 1.0]], 8, "J", [0.0, 0.0])
    assert_allclose(
        pilot_mixtures(settings, 2), [[0.75, 0.75, 0, 0], [-3, 4.5, 0, 0], [0, 0, 0.75, 0.75], [0, 0, -0.5, 2]]
    )


@pytest.mark.parametrize(("judged_on", "chosen"), [("utility", 0.8), ("J", 0.7)])
def test_the_beta_of_the_largest_hypervolume_is_chosen(
    monkeypatch: pytest.MonkeyPatch, task: Task, judged_on: Any, chosen: float
) -> None:
    """Fronts of one point each: boxes of .2 x .5, .4 x .5 and .5 x .5, the last at a KL that J counts .2 (beta .1)."""
    scores = np.repeat([[0.2, 0.5], [0.4, 0.5], [0.5, 0.5]], 3, axis=0)
    kl = np.repeat([0.0, 0.0, 2.0], 3)
    monkeypatch.setattr("paretune.methods.searches.measure", lambda *given: (scores, kl))
    stage = BoneSoups(PILOTS).stages(task, WANTED, 10_000, 0)[6]
    sealed: dict[str, Any] = {}
    judged = SimpleNamespace(judged_on=judged_on, beta=task.beta, objectives=task.objectives)
    context = SimpleNamespace(task=judged, stages=(stage,), seal=lambda stage, values: sealed.update(values))
    choose_beta(cast(Any, context))
    assert sealed["beta"] == chosen
    assert_allclose(sealed["objective_weights"], [[chosen, 1 - chosen], [1 - chosen, chosen]])
    third = 0.25 if judged_on == "utility" else 0.3 * 0.3
    assert_allclose(sealed["hypervolumes"], [0.1, 0.2, third])


def test_experts_are_weighed_by_what_was_chosen(task: Task, finish: Any) -> None:
    method = BoneSoups(PILOTS)
    results = finish(method.stages(task, WANTED, 10_000, 0), {"choice": {"beta": 0.6, "hypervolumes": [1, 0, 0]}})
    assembly = method.assemble(task, WANTED, results)
    assert_allclose(assembly.answer.weights(np.asarray([[0.0, 1.0]]))[0], [[-2, 3]])
    assert assembly.experts == tuple(each.adapters[0] for each in [*results.values()][-2:])
    assert assembly.notes["pilots"] == {"beta": 0.6, "hypervolumes": [1, 0, 0]}


@pytest.mark.slow
def test_what_pilots_chose_is_trained(task: Task) -> None:
    small = {"rank": 2, "group_size": 4, "completions_per_update": 16, "learning_rate": 3e-2, "epochs": 1}
    made = train("bone_soups", task, 240, settings={**small, "pilot_share": 0.6, "pilot_measured_each": 4})
    pilots: Any = made.notes["pilots"]
    assert pilots["beta"] == BETAS[int(np.argmax(pilots["hypervolumes"]))]
    # trained as the experts of that beta alone are with as much: 240 less 36 measured and 108 of pilots are 96
    alone = train("bone_soups", task, 96, settings={**small, "beta": pilots["beta"]})
    assert made.bank is not None
    flat = made.bank.flat.clone()
    assert alone.bank is not None
    assert alone.bank.flat.equal(flat)


def test_what_pilots_leave_no_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pilot_share must be at least 0 and below 1, got 1\.0"):
        BoneSoupsSettings(pilot_share=1.0)
    with pytest.raises(ConfigError, match=r"beta must be left out where pilots choose it, got 0\.6"):
        BoneSoupsSettings(pilot_share=0.4, beta=0.6)
    with pytest.raises(ConfigError, match="pilot_measured_each must be at least 1, got 0"):
        BoneSoupsSettings(pilot_measured_each=0)
    with pytest.raises(ConfigError, match="pilot_measured_each must be left out without pilots, got 8"):
        BoneSoupsSettings(pilot_measured_each=8)
