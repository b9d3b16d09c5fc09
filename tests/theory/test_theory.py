"""Each statement of docs/theory.md as a test, on a controlled task of 64 completions whose best policies are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from paretune.core.preferences import random_preferences
from paretune.methods.meta_policy.merged_soups import Products
from paretune.models.banked_linear import BankedLinear, Pin, Pinned
from paretune.models.low_rank import side_by_side
from paretune.models.mixing import Mixing
from paretune.objectives.scoring import Scorer
from paretune.optimum.best_utility import best_utility, chebyshev_envelope
from paretune.optimum.exact import log_optimum, outcome
from paretune.optimum.pattern_search import pattern_search
from paretune.optimum.products import (
    local_normalisers,
    prefix_conditionals,
    product_log_probs,
    token_product_log_probs,
)
from paretune.pareto.scalarisation import chebyshev_utility
from paretune.rl.outcomes import tables
from paretune.tasks import load_task

ALPHABET, LENGTH = 4, 3
CORNERS = np.eye(2)
INNER = [np.asarray(each) for each in ([0.2, 0.8], [0.5, 0.5], [0.7, 0.3])]


@pytest.fixture(scope="module")
def task() -> Any:
    return load_task({"controlled": {"rho": -0.5, "heterogeneity": 0.5, "alphabet": ALPHABET, "length": LENGTH}})


@pytest.fixture(scope="module")
def known(task: Any) -> tuple[Any, Any, float]:
    """Return log-probabilities of the base `[16, 64]`, rewards `[16, 64, 2]` and beta."""
    log_reference, rewards = tables(task, task.splits["test"], Scorer(task.objectives))
    return log_reference - np.logaddexp.reduce(log_reference, axis=1, keepdims=True), rewards, task.beta


@pytest.fixture(scope="module")
def exact(known: Any) -> Any:
    """Return the best policy for each objective alone, `[2, 16, 64]`."""
    return corner_experts(*known)


def corner_experts(log_reference: Any, rewards: Any, beta: float) -> Any:
    return np.stack([log_optimum(log_reference, rewards, corner, beta) for corner in CORNERS])


def value(log_probs: Any, preference: Any, known: Any) -> Any:
    """Return J of each prompt, `[..., P]`; `preference` is `[K]`, or one for each prompt, `[P, K]`."""
    log_reference, rewards, beta = known
    made = outcome(log_probs, log_reference, rewards)
    return (made.rewards * preference).sum(axis=-1) - beta * made.kl


def normalised(tilted: Any) -> Any:
    return tilted - np.logaddexp.reduce(tilted, axis=-1, keepdims=True)


def best_weights(reached: Any, starts: Any) -> Any:
    """Return J at the best free weights found from `starts` `[N, 2]`: `reached` takes `[C, N, 2]` to `[C, N]`."""
    return pattern_search(reached, np.asarray(starts)[None], step=0.5, rounds=25)


# products of whole completions


@pytest.mark.parametrize("preference", [*INNER, *CORNERS])
def test_the_product_of_exact_experts_is_the_best_policy_for_every_prompt(
    known: Any, exact: Any, preference: Any
) -> None:
    """prod (pi_ref e^(r_i / beta) / Z_i)^w_i = pi_ref e^(w.r / beta) / prod Z_i^w_i, as the weights sum to 1."""
    made = product_log_probs(exact, known[0], preference)
    np.testing.assert_allclose(made, log_optimum(known[0], known[1], preference, known[2]), atol=1e-9)


def test_no_weights_fixed_or_of_each_prompt_do_better_than_the_preference(known: Any, exact: Any) -> None:
    random = np.random.default_rng(0)
    for preference in random_preferences(2, 3, random):
        best = value(log_optimum(known[0], known[1], preference, known[2]), preference, known)
        assert value(product_log_probs(exact, known[0], preference), preference, known) == pytest.approx(best, abs=1e-9)
        fixed = random.uniform(-1, 2, size=(100, 1, 2))
        on_simplex = random.dirichlet([1, 1], size=(100, len(best)))
        free = random.uniform(-1, 2, size=(100, len(best), 2))
        for weights in (fixed, on_simplex, free):
            assert (value(product_log_probs(exact, known[0], weights), preference, known) < best).all()


def test_experts_of_other_prices_need_weights_in_proportion_to_them(known: Any) -> None:
    """(pi_ref e^(r_i / beta_i))^(w_i beta_i / beta) = pi_ref^(...) e^(w_i r_i / beta)."""
    log_reference, rewards, beta = known
    betas, preference = np.asarray([0.5 * beta, 2 * beta]), np.asarray([0.3, 0.7])
    experts = np.stack([
        log_optimum(log_reference, rewards, corner, own) for corner, own in zip(CORNERS, betas, strict=True)
    ])  # fmt: skip
    best = log_optimum(log_reference, rewards, preference, beta)
    made = product_log_probs(experts, log_reference, preference * betas / beta)
    np.testing.assert_allclose(made, best, atol=1e-9)
    short = value(best, preference, known) - value(
        product_log_probs(experts, log_reference, preference), preference, known
    )
    assert (short > 1e-3).all()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_weights_that_do_not_sum_to_one_set_another_price_of_kl(known: Any, exact: Any, scale: float) -> None:
    preference = np.asarray([0.4, 0.6])
    made = product_log_probs(exact, known[0], scale * preference)
    np.testing.assert_allclose(made, log_optimum(known[0], known[1], preference, known[2] / scale), atol=1e-9)


# products of tokens


def test_of_one_token_both_products_are_the_same() -> None:
    tables = normalised(np.random.default_rng(1).normal(size=(3, 5, 4)))
    weights = np.random.default_rng(2).uniform(-1, 2, size=(7, 1, 2))
    token = token_product_log_probs(tables[1:], tables[0], weights, alphabet=4)
    np.testing.assert_allclose(token, product_log_probs(tables[1:], tables[0], weights), atol=1e-12)


@pytest.mark.parametrize("preference", INNER)
def test_of_more_tokens_exact_experts_mixed_token_by_token_fall_short(known: Any, exact: Any, preference: Any) -> None:
    best = value(log_optimum(known[0], known[1], preference, known[2]), preference, known)
    made = value(token_product_log_probs(exact, known[0], preference, ALPHABET), preference, known)
    assert (made < best - 1e-6).all()


def test_a_corner_is_its_expert_token_by_token(known: Any, exact: Any) -> None:
    for number, corner in enumerate(CORNERS):
        np.testing.assert_allclose(token_product_log_probs(exact, known[0], corner, ALPHABET), exact[number], atol=1e-9)


def test_what_token_mixing_leaves_out_is_how_far_experts_agree_on_what_follows(known: Any, exact: Any) -> None:
    """pi*(a | prefix) ~ prod pi_e(a | prefix)^w_e M(prefix a), M: the sum of such products over what follows."""
    preference = np.asarray([0.3, 0.7])
    best = prefix_conditionals(log_optimum(known[0], known[1], preference, known[2]), ALPHABET)
    own = prefix_conditionals(exact, ALPHABET)
    agreement: Any = np.zeros((exact.shape[1], ALPHABET**LENGTH))  # log M of whole completions: nothing follows
    for step in reversed(range(LENGTH)):
        mixed = np.einsum("e,e...->...", preference, own[step])  # [P, A^t, A]
        assert (agreement <= 1e-12).all()  # M is at most 1, by Hölder's inequality
        ahead = mixed + agreement.reshape(mixed.shape)
        np.testing.assert_allclose(normalised(ahead), best[step], atol=1e-9)
        if step < LENGTH - 1:
            assert np.abs(normalised(mixed) - best[step]).max() > 0.01
        agreement = np.logaddexp.reduce(ahead, axis=-1)


def test_local_normalisers_are_the_weights_that_correct_samples(known: Any, exact: Any) -> None:
    weights = np.asarray([[[0.3, 0.7]], [[1.2, -0.1]]])
    token = token_product_log_probs(exact, known[0], weights, ALPHABET)
    corrected = normalised(token + local_normalisers(exact, known[0], weights, ALPHABET))
    np.testing.assert_allclose(corrected, product_log_probs(exact, known[0], weights), atol=1e-9)


def test_where_every_token_is_judged_by_itself_token_mixing_is_exact() -> None:
    """Rewards that are sums over places and a base without memory: what follows is alike after all prefixes."""
    random = np.random.default_rng(3)
    base, places = normalised(random.normal(size=(LENGTH, ALPHABET))), random.normal(size=(LENGTH, ALPHABET, 2))
    letters = np.stack(np.unravel_index(np.arange(ALPHABET**LENGTH), (ALPHABET,) * LENGTH))  # [L, Y]
    log_reference = sum(base[step][letters[step]] for step in range(LENGTH))[None]
    rewards = sum(places[step][letters[step]] for step in range(LENGTH))[None]
    experts = corner_experts(log_reference, rewards, 0.5)
    made = token_product_log_probs(experts, log_reference, np.asarray([0.3, 0.7]), ALPHABET)
    np.testing.assert_allclose(made, log_optimum(log_reference, rewards, np.asarray([0.3, 0.7]), 0.5), atol=1e-9)


# the first source: experts that are not exact


def half_hearted(known: Any, strengths: Any) -> Any:
    """Return experts that went part of the way, `pi_ref e^(s r_i / beta)`, s `[P, E]`."""
    log_reference, rewards, beta = known
    return np.stack([normalised(log_reference + strengths[:, e, None] * rewards[..., e] / beta) for e in range(2)])


def test_experts_equally_far_on_all_prompts_need_fixed_weights_off_the_simplex(known: Any) -> None:
    preference = np.asarray([0.4, 0.6])
    experts = half_hearted(known, np.full((16, 2), 0.7))
    best = value(log_optimum(known[0], known[1], preference, known[2]), preference, known)
    assert value(product_log_probs(experts, known[0], preference / 0.7), preference, known) == pytest.approx(
        best, abs=1e-9
    )
    first = np.linspace(0, 1, 101)
    on_simplex = np.stack([first, 1 - first], axis=1)[:, None]
    means = value(product_log_probs(experts, known[0], on_simplex), preference, known).mean(axis=1)
    assert means.max() < best.mean() - 1e-4


def test_experts_unequally_far_on_prompts_need_weights_of_each_prompt(known: Any) -> None:
    """The best weights are w_e / s_e(x), and no fixed ones reach what these do."""
    preference = np.asarray([0.4, 0.6])
    strengths = np.random.default_rng(4).uniform(0.4, 1.2, size=(16, 2))
    experts = half_hearted(known, strengths)
    best = value(log_optimum(known[0], known[1], preference, known[2]), preference, known)
    gated = value(product_log_probs(experts, known[0], preference / strengths), preference, known)
    assert gated == pytest.approx(best, abs=1e-9)

    def reached(tried: Any) -> Any:
        return value(product_log_probs(experts, known[0], tried), preference, known).mean(axis=1, keepdims=True)

    assert best_weights(reached, preference[None]).values[0] < best.mean() - 1e-3


def test_an_error_that_is_no_mixture_of_experts_is_mended_by_no_weights(known: Any) -> None:
    log_reference, rewards, beta = known
    preference = np.asarray([0.5, 0.5])
    wrong = rewards + 0.1 * np.random.default_rng(5).normal(size=rewards.shape)
    experts = corner_experts(log_reference, wrong, beta)
    best = value(log_optimum(log_reference, rewards, preference, beta), preference, known)

    def reached(tried: Any) -> Any:
        return value(product_log_probs(experts, log_reference, tried), preference, known)

    found = best_weights(reached, np.repeat(preference[None], 16, axis=0))
    assert (found.values >= reached(preference[None, None])[0]).all()
    assert (found.values < best - 1e-4).all()


# the third source: utilities that are not linear in the rewards


def test_a_utility_of_mean_scores_is_best_at_fixed_weights_other_than_the_preference(known: Any, exact: Any) -> None:
    log_reference, rewards, beta = known
    preference, ideal, nadir = np.asarray([0.8, 0.2]), np.ones(2), np.zeros(2)
    best = best_utility(log_reference, rewards, beta, chebyshev_envelope(preference, ideal, nadir))

    def utility(weights: Any) -> float:
        scores = outcome(product_log_probs(exact, log_reference, weights), log_reference, rewards).scores(beta)
        return float(chebyshev_utility(scores, preference, ideal, nadir))

    assert utility(best.preference) == pytest.approx(best.utility, abs=1e-5)  # what the solver is exact to
    assert utility(preference) < best.utility - 1e-3


def test_a_utility_of_each_completion_is_beyond_products_and_other_weights_than_the_preference_help(
    known: Any, exact: Any
) -> None:
    """u = min(r_1, r_2) of each completion: the best policy is pi_ref e^(u / beta), no product of the two experts."""
    log_reference, rewards, beta = known
    wanted = rewards.min(axis=2, keepdims=True)

    def reached(tried: Any) -> Any:
        made = outcome(product_log_probs(exact, log_reference, tried), log_reference, wanted)
        return made.rewards[..., 0] - beta * made.kl

    own = outcome(log_optimum(log_reference, wanted, np.ones(1), beta), log_reference, wanted)
    best = own.rewards[..., 0] - beta * own.kl
    equal = np.full((16, 2), 0.5)
    found = best_weights(reached, equal)
    assert (found.values < best - 1e-5).all()
    assert found.values.mean() > reached(equal[None]).mean() + 1e-4


# the fourth source: preferences that depend on the context


def test_where_the_preference_depends_on_the_prompt_weights_must_too(known: Any, exact: Any) -> None:
    log_reference, rewards, beta = known
    first = np.clip(0.5 + 0.3 * np.linspace(-1, 1, 16), 0, 1)
    own = np.stack([first, 1 - first], axis=1)  # w(x), [P, K]
    best = np.concatenate([
        log_optimum(log_reference[p : p + 1], rewards[p : p + 1], own[p], beta) for p in range(16)
    ])  # fmt: skip
    np.testing.assert_allclose(product_log_probs(exact, log_reference, own), best, atol=1e-9)

    def reached(tried: Any) -> Any:
        return value(product_log_probs(exact, log_reference, tried), own, known).mean(axis=1, keepdims=True)

    assert best_weights(reached, [[0.5, 0.5]]).values[0] < value(best, own, known).mean() - 1e-3


# parameters: that of deltas runs the library's layer, of which its soups are made; the other three write out a map from
# parameters to logits, and so prove the statement alone


def test_where_logits_are_linear_in_the_parameters_a_soup_is_the_product(known: Any, exact: Any) -> None:
    """Logits are a linear map of parameters: those of r_i / beta average to those of w.r / beta."""
    log_reference, rewards, beta = known
    preference = np.asarray([0.3, 0.7])
    features = np.random.default_rng(6).normal(size=(64, 64))  # logits = base + features @ parameters
    parameters = np.linalg.solve(features, np.moveaxis(rewards, 2, 0)[..., None] / beta)[..., 0]  # [E, P, 64]
    soup = np.einsum("e,epy->py", preference, parameters)
    made = normalised(log_reference + soup @ features.T)
    np.testing.assert_allclose(made, log_optimum(log_reference, rewards, preference, beta), atol=1e-6)


def test_a_soup_of_the_logits_of_every_prefix_mixes_tokens_and_not_completions(known: Any, exact: Any) -> None:
    """Parameters are the logits themselves, one for each prefix and token."""
    preference = np.asarray([0.3, 0.7])
    logits = [each + 5.0 for each in prefix_conditionals(exact, ALPHABET)]  # logits are free up to a constant
    total: Any = np.zeros((16, 1))
    for each in logits:
        total = (total[..., None] + normalised(np.einsum("e,epxa->pxa", preference, each))).reshape(16, -1)
    np.testing.assert_allclose(total, token_product_log_probs(exact, known[0], preference, ALPHABET), atol=1e-9)
    assert np.abs(total - product_log_probs(exact, known[0], preference)).max() > 0.01


def layer_output(x: Any, base: Any, ups: Any, downs: Any, scale: float, weights: Any) -> Any:
    """Return what a layer of the library's bank makes of x under expert weights: W x and the experts' deltas."""
    layer = BankedLinear(nn.Linear(*base.T.shape, bias=False, dtype=torch.float64), *base.T.shape, 0, Pinned())
    layer.original.weight.data = torch.from_numpy(base)
    layer.A, layer.B = (nn.Parameter(torch.from_numpy(each)) for each in (downs, ups))
    scales = torch.full((len(ups),), scale, dtype=torch.float64)
    mixing = Mixing.of_rows(torch.from_numpy(weights)[None])
    layer.pinned.pin = Pin(mixing, {}, 0, scales, ups.shape[2], torch.float64, merges=False)
    with torch.no_grad():
        return layer(torch.from_numpy(x)[None]).numpy()


def test_a_soup_of_deltas_is_the_product_where_a_soup_of_factors_is_not() -> None:
    """logits = W x + s B A x: (sum w B_i)(sum w A_i) holds cross terms B_i A_j that belong to no expert."""
    random = np.random.default_rng(7)
    ups, downs, x = random.normal(size=(2, 6, 2)), random.normal(size=(2, 2, 3)), random.normal(size=3)
    base, weights, scale = random.normal(size=(6, 3)), np.asarray([0.3, 0.7]), 1.5
    experts = normalised((base @ x)[None, None] + scale * (ups @ downs @ x)[:, None])
    wanted = product_log_probs(experts, normalised(base @ x)[None], weights)

    mixed = normalised(layer_output(x, base, ups, downs, scale, weights))  # as the bank mixes
    np.testing.assert_allclose(mixed, wanted, atol=1e-12)
    down, up = side_by_side(*(torch.from_numpy(each) for each in (downs, ups, scale * weights)))  # as one adapter
    summed = normalised(layer_output(x, base, up[None].numpy(), down[None].numpy(), 1.0, np.ones(1)))
    np.testing.assert_allclose(summed, wanted, atol=1e-12)

    crossed, _ = Products(np.eye(2), "factors").weights(weights[None])  # as merged_soups averages A and B apart
    factors = layer_output(x, base, ups.repeat(2, axis=0), np.concatenate([downs] * 2), scale, crossed[0])
    apart = np.einsum("e,eor->or", weights, ups) @ np.einsum("e,eri->ri", weights, downs)
    np.testing.assert_allclose(factors[0], base @ x + scale * apart @ x, atol=1e-12)
    assert np.abs(normalised(factors) - wanted).max() > 0.1


def test_behind_a_nonlinear_unit_a_soup_of_exact_experts_falls_short(known: Any, exact: Any) -> None:
    """logits = base + c tanh(parameters): both experts are exact, and tanh of the average is no average of tanh."""
    log_reference, rewards, beta = known
    preference = np.asarray([0.5, 0.5])
    wanted = np.moveaxis(rewards - rewards.mean(axis=1, keepdims=True), 2, 0) / beta
    scale = 1.05 * np.abs(wanted).max()
    parameters = np.arctanh(wanted / scale)
    np.testing.assert_allclose(normalised(log_reference + scale * np.tanh(parameters)), exact, atol=1e-9)
    soup = normalised(log_reference + scale * np.tanh(np.einsum("e,epy->py", preference, parameters)))
    best = value(log_optimum(log_reference, rewards, preference, beta), preference, known)
    assert (value(soup, preference, known) < best).all()
    assert value(soup, preference, known).mean() < best.mean() - 1e-3
