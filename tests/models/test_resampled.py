from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.core.errors import ConfigError, EnumerationError, MixingError
from paretune.core.ledger import network_flops
from paretune.core.preference_text import PreferenceText
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.core.sampled import counting_samples
from paretune.core.seeds import row_keys
from paretune.models import resampled as resampled_module
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.policy import Policy
from paretune.models.resampled import ResampledPolicy, policy_class, resampled_law
from paretune.models.scoring import completion_log_probs

WEIGHTS = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.5]])  # the second is one expert; the third leaves the base some
ALL = list(range(len(micro_task.TOKENS)))
BETA = 0.5
TEXT = PreferenceText(("x", "y"), "{preference} ", "{number}", " ", (*"abcdefg", "a a", "b b", "c c", "d d"))


def policy_of(base: BaseModel, particles: int, scale: float = 0.4) -> Policy:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2), scale=scale)
    mixer = Mixer("log_probs", particles=particles)
    made = policy_class(mixer)
    return made(base, bank, PromptFormat("{prompt}"), 4, 2, np.eye(3)[:, :2], ["combined"] * 3, WEIGHTS, mixer)


def test_the_law_of_few_particles_is_that_of_all_their_draws() -> None:
    """Of Y = 4 outcomes and N = 3 there are 64 equally ordered draws; one of each is kept in proportion to weights."""
    generator = np.random.default_rng(0)
    q, w = generator.dirichlet(np.ones(4)), generator.exponential(size=4)
    for particles in (1, 2, 3):
        expected = np.zeros(4)
        for drawn in itertools.product(range(4), repeat=particles):
            chosen = w[list(drawn)] / w[list(drawn)].sum()
            for outcome, share in zip(drawn, chosen, strict=True):
                expected[outcome] += q[list(drawn)].prod() * share
        np.testing.assert_allclose(np.exp(resampled_law(np.log(q), np.log(w), particles)), expected, rtol=1e-10)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("particles", [2, 9, 5000])
def test_the_law_sums_to_one_whatever_the_weights_and_is_the_product_in_the_limit(
    spread: float, particles: int
) -> None:
    generator = np.random.default_rng(1)
    log_q, log_w = np.log(generator.dirichlet(np.ones(50))), spread * generator.standard_normal(50)
    log_q[3] = -np.inf
    log_q -= np.logaddexp.reduce(log_q)
    law = resampled_law(log_q, log_w, particles)
    assert np.logaddexp.reduce(law) == pytest.approx(0, abs=1e-9)
    assert law[3] == -np.inf
    product = log_q + log_w - np.logaddexp.reduce(log_q + log_w)
    if spread <= 1 and particles == 5000:
        np.testing.assert_allclose(np.exp(law), np.exp(product), atol=2e-3)
    np.testing.assert_allclose(resampled_law(log_q, log_w + 7, particles), law)  # weights count up to a constant


def tables(policy: Policy, prompts: list[str], index: list[int]) -> Any:
    return policy.completion_table(prompts, ALL, 2, index).double().numpy()


def test_more_particles_come_nearer_to_the_product_over_whole_completions(llama: BaseModel) -> None:
    """For rewards `r_e = beta log(p_e / p_ref)` experts are exact, and the product over completions is the optimum."""
    prompts, one = ["a b", "c", "g d f"], policy_of(llama, 1)
    assert type(one) is Policy
    one.expert_weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    experts, reference = [tables(one, prompts, [row] * 3) for row in range(2)], tables(one, prompts, [2] * 3)
    one.expert_weights = WEIGHTS
    reward = sum(0.5 * BETA * (expert - reference) for expert in experts)

    def j(table: Any) -> float:
        return float((np.exp(table) * (reward - BETA * (table - reference))).sum(axis=1).mean())

    product = sum(0.5 * expert for expert in experts)
    best = j(product - np.logaddexp.reduce(product, axis=1, keepdims=True))
    found = [j(tables(one, prompts, [0] * 3))]
    for particles in (2, 8, 64, 512):
        made = policy_of(llama, particles)
        table = tables(made, prompts, [0] * 3)
        np.testing.assert_allclose(np.logaddexp.reduce(table, axis=1), 0, atol=1e-6)
        found.append(j(table))
        np.testing.assert_allclose(tables(made, prompts, [1] * 3), experts[0], atol=1e-5)  # nothing to correct
    gaps = best - np.array(found)
    assert (np.diff(gaps) < 0).all()
    assert gaps[0] > 1e-3
    assert gaps[2] < 0.5 * gaps[0]
    assert 0 < gaps[-1] < 0.02 * gaps[0]


def test_completions_are_drawn_as_the_table_says(llama: BaseModel) -> None:
    count, policy = 2000, policy_of(llama, 4, scale=1.0)
    made = policy.generate(["a b"], [0], samples=count, seed=3, end_ids=())
    places = made.token_ids[:, 0] * len(ALL) + made.token_ids[:, 1]
    table, local = tables(policy, ["a b"], [0])[0], tables(policy_of(llama, 1, scale=1.0), ["a b"], [0])[0]
    lift = table - local  # where the law and the local product differ
    expected, spread = np.exp(table) @ lift, np.sqrt(np.exp(table) @ lift**2 - (np.exp(table) @ lift) ** 2)
    error = spread / np.sqrt(count)
    assert abs(lift[places].mean() - expected) < 3 * error
    assert abs(np.exp(local) @ lift - expected) > 4 * error  # sampling without the draw would show


def test_noise_depends_on_prompt_seed_and_sample_alone(llama: BaseModel) -> None:
    policy, prompts = policy_of(llama, 3), ["a b", "c", "d e f", "a b"]
    owners, seeds = [0, 1, 2, 1], [5, 6, 7, 8]
    whole = policy.generate(prompts, owners, samples=3, seed=seeds)
    assert whole.row_ids == tuple((owners[p], p, n) for p in range(4) for n in range(3))
    for prompt in range(4):
        alone = policy.generate([prompts[prompt]], [owners[prompt]], samples=2, seed=seeds[prompt])
        assert alone.texts == whole.texts[3 * prompt : 3 * prompt + 2]
    plain = policy_of(llama, 1).generate(prompts, owners, samples=3, seed=seeds, reference=True)
    assert [whole.texts[row] for row in (3, 4, 5, 9, 10, 11)] == [plain.texts[row] for row in (3, 4, 5, 9, 10, 11)]
    assert whole.texts != plain.texts
    assert whole.log_probs[[0, 1, 2, 6, 7, 8]].isnan().all()
    torch.testing.assert_close(whole.log_probs[[3, 9]], plain.log_probs[[3, 9]])
    again = policy.generate(prompts, owners, samples=3, seed=seeds, reference=True)
    assert again.texts == whole.texts
    rows = [row for row in range(12) if again.texts[row] == plain.texts[row]]
    torch.testing.assert_close(again.reference_log_probs[rows], plain.reference_log_probs[rows], atol=1e-5, rtol=0)


def test_a_preference_that_is_said_is_read_by_the_law_its_weights_and_no_reference(llama: BaseModel) -> None:
    """A policy that says `d d a` is the one whose prompts begin with it, beside a base model that is told nothing."""
    said, plain = policy_of(llama, 3), policy_of(llama, 3)
    said.preference_text = TEXT
    assert said.said(0) == "d d a "
    np.testing.assert_allclose(tables(said, ["b"], [0]), tables(plain, ["d d a b"], [0]), atol=1e-5)
    made = said.generate(["b"] * 2, [0, 1], samples=4, seed=5, reference=True)
    ids = said.encode(["b"]) * 8
    reference = completion_log_probs(llama, said.bank, Mixing.reference(8), ids, made.token_ids, made.lengths)
    torch.testing.assert_close(made.reference_log_probs, reference.detach(), atol=1e-5, rtol=0)


def test_noise_of_the_draw_is_that_of_the_prompt_alone(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed: list[Any] = []
    monkeypatch.setattr(resampled_module, "row_keys", lambda *given: keyed.append(given[2]) or row_keys(*given))
    for text in (None, TEXT):
        policy = policy_of(llama, 3)
        policy.preference_text = text
        policy.generate(["a b"], [0])
    assert keyed[0].tolist() == keyed[1].tolist()


def test_all_completions_that_are_sampled_are_counted(llama: BaseModel) -> None:
    policy = policy_of(llama, 3)
    assert [policy.draws(index) for index in range(3)] == [3, 1, 3]
    assert [policy.scaled([0.0]).draws(index) for index in range(3)] == [1, 1, 1]
    with counting_samples() as sampled:
        made = policy.generate(["a b", "c"], [0, 1], samples=2, end_ids=())
    assert sampled.completions == 2 * 3 + 2
    assert made.dropped_tokens == 2 * 2 * 2  # two of three completions, for each of two samples, two tokens long
    parameters = llama.parameters + policy.bank.parameters_each()  # type: ignore[union-attr]
    assert policy.flops([0], 8) == network_flops(parameters, 8, 2)
    identities = {policy.identity(index) for index in range(3)}
    assert len(identities) == 3
    assert identities.isdisjoint({policy_of(llama, 1).identity(0), policy_of(llama, 2).identity(0)})
    assert policy.scaled([1.0]).identity(0) == policy.identity(0)


def test_what_is_not_known_of_a_draw_is_refused(llama: BaseModel) -> None:
    policy = policy_of(llama, 3)
    assert isinstance(policy, ResampledPolicy)
    made = policy.generate(["a", "b"], [0, 1])
    with pytest.raises(EnumerationError, match=r"must say the probability of a token, got one that draws .* out of 3"):
        policy.log_probs(made)
    with pytest.raises(EnumerationError, match=r"\(preference 2\)\. It can be sampled"):
        policy.next_token_log_probs(["a"], [[]], [2])
    own = policy.generate(["b"], [1])
    torch.testing.assert_close(policy.log_probs(own), own.log_probs, atol=1e-5, rtol=0)
    assert policy.next_token_log_probs(["a"], [[]], [1]).shape == (1, len(ALL))
    with pytest.raises(ConfigError, match=r"temperature must be 1 where completions are resampled, got 0\.5"):
        policy.generate(["a"], [0], temperature=0.5)
    with pytest.raises(ConfigError, match=r"top_p must be 1 where"):
        policy.generate(["a", "a"], [1, 0], top_p=[0.9, 0.9])
    policy.generate(["a", "a"], [1, 0], top_p=[0.9, 1.0])  # an expert alone is sampled as ever
    with pytest.raises(EnumerationError, match=r"all completions must be listed .*, got a sum of 0\."):
        policy.completion_table(["a"], ALL[1:], 2, [0])
    bankless = ResampledPolicy(
        llama, None, PromptFormat("{prompt}"), 4, 2, np.eye(2), ["combined"] * 2, WEIGHTS[:2], policy.mixer
    )
    with pytest.raises(MixingError, match="must be sampled with their weights, got no bank"):
        bankless.generate(["a"], [0])


def test_eight_particles_give_back_most_of_what_is_lost_token_by_token() -> None:
    """Random references and rewards, four letters, four tokens, exact experts of beta .25, equal weights.

    The share of `J* - J_ref` that is lost: about a quarter by the local product, as reference/methods.md has it for
    such trees, and about a hundredth by one of eight.
    """
    letters, length, beta = 4, 4, 0.25
    lost: dict[int, list[float]] = {1: [], 2: [], 8: [], 64: []}
    for seed in range(6):
        generator, reference = np.random.default_rng(seed), np.zeros(1)
        for depth in range(length):
            reference = (reference[:, None] + normalised(generator.standard_normal((letters**depth, letters)))).ravel()
        rewards = generator.standard_normal((2, letters**length))
        levels = [by_level(normalised(reference + each / beta), letters, length) for each in rewards]
        utility = rewards.mean(axis=0)
        log_q, log_w = np.zeros(1), np.zeros(1)
        for one, other in zip(*levels, strict=True):
            product = (one + other) / 2
            log_z = np.logaddexp.reduce(product, axis=1, keepdims=True)
            log_q, log_w = (log_q[:, None] + product - log_z).ravel(), np.repeat(log_w[:, None] + log_z, letters)

        def j(table: Any, utility: Any = utility, reference: Any = reference) -> float:
            return float(np.exp(table) @ (utility - beta * (table - reference)))

        best = j(normalised(reference + utility / beta))
        np.testing.assert_allclose(normalised(log_q + log_w), normalised(reference + utility / beta))
        for particles, shares in lost.items():
            shares.append((best - j(resampled_law(log_q, log_w, particles))) / (best - j(reference)))
    means = [float(np.mean(shares)) for shares in lost.values()]
    assert means == sorted(means, reverse=True)
    assert 0.15 < means[0] < 0.35
    assert means[2] < 0.03
    assert 0 < means[3] < 0.002


def normalised(table: Any) -> Any:
    return table - np.logaddexp.reduce(table, axis=-1, keepdims=True)


def by_level(table: Any, letters: int, length: int) -> list[Any]:
    """Return the log-probabilities of the next letter after each prefix, prefixes of equal length together."""
    sums = [np.logaddexp.reduce(table.reshape(letters ** (depth + 1), -1), axis=1) for depth in range(length)]
    return [normalised(each.reshape(-1, letters)) for each in sums]
