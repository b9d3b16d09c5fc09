"""Experts whose steps are chosen from the gradients of all objectives: `mgda` and `cone`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from paretune.core.errors import ConfigError
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings
from paretune.methods.meta_policy.lower_level.cone import ConeExperts, ConeWeights
from paretune.methods.meta_policy.lower_level.mgda import MGDAExperts, MGDAExpertWeights
from paretune.methods.meta_policy.lower_level.single_objective import SingleObjective
from paretune.methods.meta_policy.lower_level.trained_for import least_norm_prior
from paretune.rl.gradient_step import GradientStep
from paretune.rl.weighting import Seen, check_restores, resolve_weighting

RANGES = np.asarray([[0.0, 1.0]] * 2)
GRAM = np.asarray([[1.0, -1.0], [-1.0, 4.0]])


def weights(kind: Any, expert: int, task: Task, gram: Any = GRAM) -> Any:
    """Return the weights that the weighting of a planned expert chooses."""
    stage = kind.stages(ExpertSettings(), task, 1000, 0)[expert]
    row = np.asarray(stage.member["objective_weights"], dtype=np.float64)
    made = resolve_weighting(str(stage.settings["weighting"]))
    check_restores(made, stage.settings, RANGES)
    seen = Seen(0, row, row, 0.0, np.asarray(gram), None, np.random.default_rng(0))
    return made(row, stage.settings, RANGES).weigh(seen)


def test_cone_experts_take_what_others_need_beside_their_own(task: Task) -> None:
    # g1 + s g2 with -1 + 4 s >= -2 eps, and g2 + s g1 with -1 + s >= -2 eps
    assert_allclose(weights(ConeExperts(), 0, task), [1, 0.25])
    assert_allclose(weights(ConeExperts(), 1, task), [1, 1])
    assert_allclose(weights(ConeExperts(eps=0.2), 1, task), [0.6, 1])
    assert weights(ConeExperts(eps=1.0), 1, task).tolist() == [0, 1]
    assert weights(ConeExperts(), 1, task, np.zeros((2, 2))).tolist() == [0, 1]  # nothing to compare: its own


def test_experts_that_may_do_any_harm_are_those_of_one_objective(task: Task) -> None:
    cone, single = (
        kind.stages(ExpertSettings(), task, 1000, 0) for kind in (ConeExperts(eps="inf"), SingleObjective())
    )
    assert [stage.key(task) for stage in cone] == [stage.key(task) for stage in single]
    assert ConeExperts(eps=math.inf) == ConeExperts(eps="inf")
    for eps in (-math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"eps must lie between 0 and 1, or be inf, got {eps}"):
            ConeExperts(eps=eps)


def test_gains_of_mgda_experts_go_with_their_preferences(task: Task) -> None:
    # moved by .3 towards the centre: (.85, .15); for orthogonal unit gradients the shared form gives the preference
    assert_allclose(MGDAExperts().trained(2), [[0.85, 0.15], [0.15, 0.85]])
    assert_allclose(weights(MGDAExperts(), 0, task, np.eye(2)), [0.85, 0.15])
    # of losses scaled by their weights, the shortest vector has weights in inverse proportion, raw ones alike
    scaled = weights(MGDAExperts(preference="scaled"), 0, task, np.eye(2))
    assert_allclose(scaled, [0.15, 0.85])


@pytest.mark.parametrize(("objectives", "divisions", "experts"), [(2, 1, 2), (2, 4, 5), (3, 1, 3), (3, 2, 6)])
def test_mgda_experts_are_the_points_of_a_grid_inside_the_simplex(
    objectives: int, divisions: int, experts: int
) -> None:
    kind = MGDAExperts(divisions=divisions)
    trained = kind.trained(objectives)
    assert trained.shape == (experts, objectives)
    assert (trained > 0).all()
    assert_allclose(trained.sum(axis=1), 1)
    weights = np.random.default_rng(0).dirichlet(np.ones(objectives), 20) @ kind.prior(objectives)
    assert_allclose(weights.sum(axis=1), 1)


def test_the_prior_is_the_shortest_of_those_that_give_the_preference() -> None:
    trained, rng = MGDAExperts(divisions=4).trained(2), np.random.default_rng(0)
    prior = least_norm_prior(trained)
    for wanted in rng.dirichlet(np.ones(2), 20):
        found = wanted @ prior
        assert_allclose(found @ trained, wanted, atol=1e-12)
        for draw in rng.standard_normal((20, len(trained))):
            other = found + draw - draw @ trained @ prior  # what it adds gives 0
            assert_allclose(other @ trained, wanted, atol=1e-12)
            assert found @ found <= other @ other + 1e-12
    with pytest.raises(ConfigError, match="experts must be trained for objective weights of which"):
        least_norm_prior(np.asarray([[0.5, 0.5], [0.5, 0.5]]))


def test_settings_reach_the_stages_and_the_step_rule(task: Task) -> None:
    for kind, weighting in ((ConeExperts, ConeWeights), (MGDAExperts, MGDAExpertWeights)):
        made = [
            kind(**settings).stages(ExpertSettings(), task, 1000, 0)  # type: ignore[arg-type]  # of either
            for settings in ({}, {"metric": "plain"}, {"optimiser": "sgd"})
        ]
        assert len({stages[0].key(task) for stages in made}) == 3
        rules = [weighting(np.asarray([0.5, 0.5]), stages[0].settings, RANGES).step_rule for stages in made]
        assert rules == [GradientStep(), GradientStep("plain"), GradientStep("optimiser", "sgd")]
