"""What every weighting of the single-policy methods promises, whatever it weighs by."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from paretune.bandits.payoffs import FEEDBACK
from paretune.core.preferences import FloatArray, centre, corners
from paretune.methods.pulls import Pulls
from paretune.methods.single_policy.chebyshev import ChebyshevSettings, ChebyshevWeights
from paretune.methods.single_policy.contextual_dynaopt import ContextualBandit, ContextualDynaOptSettings
from paretune.methods.single_policy.dorb import DORBSettings, OneAtATime
from paretune.methods.single_policy.dynaopt import DynaOptSettings, NestedBandits
from paretune.methods.single_policy.lagrangian import LagrangianSettings, LagrangianWeights
from paretune.methods.single_policy.q_weighting import GridWalk, QWeightingSettings
from paretune.methods.single_policy.schedule import Scheduled, ScheduleSettings
from paretune.methods.single_policy.thresholds import ThresholdsSettings, ThresholdWeights
from paretune.rl.weighting import Seen, check_restores, check_weights

PULLED: list[tuple[Any, Any, dict[str, Any]]] = [
    (kind, made, {**changes, "feedback": feedback, "updates_per_pull": 2})
    for feedback in ("measured", "shuffled")
    for kind, made, changes in (
        (NestedBandits, DynaOptSettings, {}),
        (NestedBandits, DynaOptSettings, {"mode": "faithful"}),
        (ContextualBandit, ContextualDynaOptSettings, {}),
        (ContextualBandit, ContextualDynaOptSettings, {"paid": "first"}),
        (OneAtATime, DORBSettings, {}),
        (OneAtATime, DORBSettings, {"variant": "hierarchical"}),
        (GridWalk, QWeightingSettings, {}),
        (GridWalk, QWeightingSettings, {"progress_bins": 3, "divisions": 4}),
    )
]
EVERY = [
    (ChebyshevWeights, ChebyshevSettings, {"form": "plain"}),
    (ChebyshevWeights, ChebyshevSettings, {"form": "smooth"}),
    (ChebyshevWeights, ChebyshevSettings, {"form": "augmented"}),
    (ThresholdWeights, ThresholdsSettings, {}),
    (LagrangianWeights, LagrangianSettings, {}),
    *((Scheduled, ScheduleSettings, {"kind": kind}) for kind in ("uniform", "round_robin", "blocks", "random")),
    *PULLED,
]
IGNORING = (Scheduled, LagrangianWeights)  # what a preference leaves out may have weight


def settings_of(made: Any, changes: dict[str, Any], objectives: int) -> dict[str, Any]:
    limits = [0.6] + [None] * (objectives - 1) if made is LagrangianSettings else [0.5] * objectives
    known = {"ideal_point": [1.0] * objectives, "nadir_point": [0.0] * objectives, "beta": 0.1}
    return {**vars(made(**changes)), **known, "threshold_point": limits}


def ranges(objectives: int) -> FloatArray:
    return np.asarray([[0.0, 1.0]] * objectives)


def trajectory(weighting: Any, preference: FloatArray, updates: range, missing: float = 0.2) -> list[list[float]]:
    weights, count = [], len(preference)
    for update in updates:
        draws = np.random.default_rng([update, 1])
        returns, development = draws.random(count), None
        returns[draws.random(count) < missing] = np.nan
        if number := weighting.measured(update):
            development = draws.random((number, count))
            development[draws.random(development.shape) < missing] = np.nan
            development[:, draws.random(count) < missing] = np.nan  # an outage
        own = np.random.default_rng([update, 2])
        seen = Seen(update, preference.copy(), returns, 0.1 * update, None, development, own)
        weights.append(check_weights(weighting.weigh(seen), count).tolist())
    return weights


@pytest.mark.parametrize(("kind", "made", "changes"), EVERY)
@pytest.mark.parametrize("objectives", [1, 2, 20, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_can_be_used_with_any_number_of_objectives_and_missing_rewards_and_restore(
    kind: Any, made: Any, changes: dict[str, Any], objectives: int
) -> None:
    settings = settings_of(made, changes, objectives)
    check_restores(kind, settings, ranges(objectives))
    mixed = np.random.default_rng(0).dirichlet(np.ones(objectives))
    half = np.where(np.arange(objectives) < (objectives + 1) // 2, 1.0, 0.0)
    for preference in (centre(objectives), mixed, half / half.sum(), *corners(objectives)[:2]):
        whole, part, resumed = (kind(preference.copy(), settings, ranges(objectives)) for _ in range(3))
        expected = trajectory(whole, preference, range(14))
        found = trajectory(part, preference, range(7))
        text = json.dumps(part.state(), allow_nan=False)
        resumed.load(json.loads(text))
        assert found + trajectory(resumed, preference, range(7, 14)) == expected
        assert resumed.state() == whole.state()
        assert json.dumps(part.state()) == text
        ignores = kind in IGNORING or changes.get("mode") == "faithful"
        if not ignores:
            assert not np.asarray(expected)[:, preference == 0].any()
        if (preference == 1).any() and not ignores:  # a corner is trained as by `linear`
            np.testing.assert_allclose(expected, [preference] * 14)
            assert not any(whole.measured(update) for update in range(14))
        if changes.get("mode") != "faithful":
            np.testing.assert_allclose(np.sum(expected, axis=1), 1)


@pytest.mark.parametrize(("kind", "made", "changes"), PULLED[len(PULLED) // 2 :])
def test_shuffled_feedback_measures_as_often_and_is_never_of_the_pull_itself(
    kind: Any, made: Any, changes: dict[str, Any]
) -> None:
    measured = {**changes, "feedback": "measured"}
    one, other = (kind(centre(2), settings_of(made, each, 2), ranges(2)) for each in (changes, measured))
    assert [one.measured(update) for update in range(20)] == [other.measured(update) for update in range(20)]
    assert trajectory(one, centre(2), range(60), 0) != trajectory(other, centre(2), range(60), 0)


def test_the_control_is_told_what_others_were_due_in_their_time() -> None:
    """Gains shrink a thousandfold: what is told in both modes is spread alike, and none is the pull's own."""
    settings = settings_of(DynaOptSettings, {"feedback": "shuffled"}, 2)
    draws, told, due = np.random.default_rng(0), list[float](), list[float]()
    one = Pulls(centre(2), settings)
    other = Pulls(centre(2), {**settings, "feedback": "measured"})
    for pull in range(400):
        gain = float(draws.normal()) * 10 ** (-3 * pull / 400)
        given, own = one.centred(gain, draws), other.centred(gain, draws)
        assert own is not None
        if given is None:
            assert pull == 0
        else:
            assert given in due
            told.append(given)
        due.append(own)
    assert np.mean(np.abs(told) == 0.5) == pytest.approx(np.mean(np.abs(due) == 0.5), abs=0.1)
    assert np.std(told) == pytest.approx(np.std(due), abs=0.04)


def test_the_control_of_one_objective_at_a_time_is_told_how_earlier_levels_stood() -> None:
    """Levels rise all the time, so all stand above those before them: the control pays 1 as measured feedback does."""
    logs = {}
    for feedback in FEEDBACK:
        bandit = OneAtATime(centre(2), settings_of(DORBSettings, {"feedback": feedback, "gamma": 1e-6}, 2), ranges(2))
        draws = np.random.default_rng(0)
        for update in range(0, 200, 4):
            level = np.full((4, 2), update / 200)
            bandit.weigh(Seen(update, centre(2), np.full(2, 0.5), 0.0, None, level, draws))
        logs[feedback] = float(np.abs(bandit.logs).max())
    assert logs["shuffled"] == pytest.approx(logs["measured"], rel=0.2)
