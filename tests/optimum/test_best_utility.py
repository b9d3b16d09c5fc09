from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.core.errors import ConfigError
from paretune.core.preferences import das_dennis
from paretune.optimum.best_utility import (
    BestUtility,
    Envelope,
    best_utility,
    chebyshev_envelope,
    threshold_envelope,
)
from paretune.optimum.exact import optimal_outcome
from paretune.pareto.scalarisation import (
    augmented_chebyshev_utility,
    chebyshev_utility,
    smooth_chebyshev_utility,
    threshold_utility,
)

BETA = 0.2
PROMPTS, COMPLETIONS = 3, 12


def problem(seed: int, objectives: int):
    generator = np.random.default_rng(seed)
    log_reference = np.log(generator.dirichlet(np.ones(COMPLETIONS), PROMPTS))
    return log_reference, generator.random((PROMPTS, COMPLETIONS, objectives)), generator.dirichlet(np.ones(objectives))


def utilities(preference):
    """Return each utility beside its envelope."""
    one, none = np.ones(len(preference)), np.zeros(len(preference))
    limits = np.full(len(preference), 0.6)
    return [
        (lambda s: chebyshev_utility(s, preference, one, none), chebyshev_envelope(preference, one, none)),
        (
            lambda s: smooth_chebyshev_utility(s, preference, one, none, 0.05),
            chebyshev_envelope(preference, one, none, smoothing=0.05),
        ),
        (
            lambda s: augmented_chebyshev_utility(s, preference, one, none, 0.1),
            chebyshev_envelope(preference, one, none, augmentation=0.1),
        ),
        (lambda s: threshold_utility(s, preference, limits, 0.1), threshold_envelope(preference, limits, 0.1)),
    ]


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_no_policy_of_a_dense_front_is_better_and_the_found_one_is_as_good(seed: int) -> None:
    """Every best policy for u is one for some weighted sum, so 400 of those for two objectives are brute force."""
    log_reference, rewards, preference = problem(seed, 2)
    front = optimal_outcome(log_reference, rewards, das_dennis(2, 400), BETA).scores(BETA)
    for utility, envelope in utilities(preference):
        found = best_utility(log_reference, rewards, BETA, envelope)
        brute = float(utility(front).max())
        assert found.utility >= brute - 1e-5
        # along the front neighbours differ by at most var(r_1 - r_2) / beta / 400 = .25 / .2 / 400 in J
        assert found.utility <= brute + 0.004
        assert float(utility(found.scores)) == pytest.approx(found.utility, abs=2e-4)


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 5]))
@settings(max_examples=10, deadline=None)
def test_with_any_number_of_objectives_bounds_meet_and_random_policies_stay_below(seed: int, objectives: int) -> None:
    log_reference, rewards, preference = problem(seed, objectives)
    others = np.random.default_rng(seed).dirichlet(np.ones(objectives), 200)
    front = optimal_outcome(log_reference, rewards, others, BETA).scores(BETA)
    for utility, envelope in utilities(preference):
        found = best_utility(log_reference, rewards, BETA, envelope)
        assert float(utility(found.scores)) == pytest.approx(found.utility, abs=2e-4)
        assert (utility(front) <= found.utility + 1e-5).all()


def test_one_completion_leaves_no_choice_and_the_utility_is_that_of_its_rewards() -> None:
    rewards, preference = np.asarray([[[0.9, 0.3]]]), np.asarray([0.5, 0.5])
    for utility, envelope in utilities(preference):
        found = best_utility(np.zeros((1, 1)), rewards, BETA, envelope)
        assert found.utility == pytest.approx(float(utility(rewards[0, 0])), abs=1e-5)


def test_an_objective_without_weight_is_left_out() -> None:
    log_reference, rewards, _ = problem(0, 3)
    found = best_utility(
        log_reference, rewards, BETA, chebyshev_envelope(np.asarray([0.5, 0.5, 0.0]), np.ones(3), np.zeros(3))
    )
    assert found.preference[2] == 0
    assert isinstance(found, BestUtility)


def test_nothing_to_weigh_is_refused() -> None:
    log_reference, rewards, _ = problem(0, 2)
    with pytest.raises(ConfigError, match=r"slopes must have one above 0, got \[0\.0, 0\.0\]"):
        best_utility(log_reference, rewards, BETA, Envelope(np.zeros(2), np.ones(2)))
    with pytest.raises(ConfigError, match="beta must be finite and positive"):
        best_utility(log_reference, rewards, 0.0, Envelope(np.ones(2), np.ones(2)))
