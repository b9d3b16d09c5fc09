from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import micro_task
from paretune.core.errors import ModelError
from paretune.core.prompt_format import PromptFormat
from paretune.models import tree
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.policy import Policy
from paretune.models.scoring import completion_log_probs
from paretune.models.tree import tree_log_probs

LETTERS = range(1, 8)  # all but the end
PROMPTS = ["a b c", "d", "e f"]  # of different lengths
PREFERENCES = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
CLOSE = 1e-5  # sums of up to three log-probabilities in fp32, read in another order


def bank_of(base: BaseModel, experts: int = 2) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, experts, rank=2))


def policy_of(base: BaseModel) -> Policy:
    return Policy(base, bank_of(base), PromptFormat("{prompt} g"), 4, 3, PREFERENCES, ["combined"] * 3, PREFERENCES)


def chained(policy: Policy, prompt: str, index: int, letters: Sequence[int], length: int) -> Tensor:
    """Score every completion one token after another, by the pass that sampling is checked against."""
    total = torch.zeros(1)
    for step in range(length):
        prefixes = list(itertools.product(letters, repeat=step))
        following = policy.next_token_log_probs([prompt] * len(prefixes), prefixes, [index] * len(prefixes))
        total = (total[:, None] + following[:, list(letters)]).flatten()
    return total


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_table_is_the_chain_of_next_token_log_probabilities(base: BaseModel, length: int) -> None:
    """Prompts of several lengths share a call, so all but the longest are padded on the left."""
    policy = policy_of(base)
    letters = [5, 1, 3, 2]  # in this order, not by id
    table = policy.completion_table(PROMPTS, letters, length, [2, 0, 1])
    assert table.shape == (3, 4**length)
    for row, (prompt, index) in enumerate(zip(PROMPTS, [2, 0, 1], strict=True)):
        torch.testing.assert_close(table[row], chained(policy, prompt, index, letters, length), atol=CLOSE, rtol=0)


def test_what_the_model_may_say_besides_the_letters_keeps_its_probability(llama: BaseModel) -> None:
    policy = policy_of(llama)
    everything = policy.completion_table(PROMPTS, range(8), 2, [0] * 3).exp()
    assert everything.sum(dim=1).numpy() == pytest.approx(1.0, abs=CLOSE)
    some = policy.completion_table(PROMPTS, LETTERS, 2, [0] * 3).exp()
    torch.testing.assert_close(some, everything.view(3, 8, 8)[:, 1:, 1:].flatten(1), atol=CLOSE, rtol=0)


def test_rows_of_several_policies_in_one_call_are_those_of_one_call_each(base: BaseModel) -> None:
    policy = policy_of(base)
    pairs = list(itertools.product(PROMPTS, range(3)))
    together = policy.completion_table([prompt for prompt, _ in pairs], LETTERS, 3, [index for _, index in pairs])
    alone = torch.cat([policy.completion_table([prompt], LETTERS, 3, [index]) for prompt, index in pairs])
    torch.testing.assert_close(together, alone, atol=CLOSE, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 0.1  # the policies differ


def test_a_call_cut_into_passes_is_the_call_in_one_pass(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(llama)
    prompts = [llama.encode(prompt) for prompt in PROMPTS] * 2
    for mixing in (Mixing.population(2, 3), Mixing.of_rows(torch.linspace(-1, 1, 12).view(6, 2)), Mixing.reference(6)):
        whole = tree_log_probs(llama, bank, mixing, prompts, LETTERS, 2)
        with monkeypatch.context() as patch:
            patch.setattr(tree, "PASS_TOKENS", 100)  # 7 branches of 5 tokens a row: two rows at once
            torch.testing.assert_close(
                tree_log_probs(llama, bank, mixing, prompts, LETTERS, 2), whole, atol=CLOSE, rtol=0
            )


def test_a_population_is_scored_as_rows_of_its_members(base: BaseModel) -> None:
    bank = bank_of(base, 3)
    prompts = [base.encode(prompt) for prompt in PROMPTS]
    population = tree_log_probs(base, bank, Mixing.population(3, 3), prompts * 3, LETTERS, 2)
    rows = Mixing.of_rows(torch.eye(3).repeat_interleave(3, dim=0))
    torch.testing.assert_close(  # sums of another order, of numbers near 6: 25 roundings of fp32 were seen
        population, tree_log_probs(base, bank, rows, prompts * 3, LETTERS, 2), atol=3 * CLOSE, rtol=0
    )


def test_without_a_bank_and_at_weight_zero_it_is_the_base_model(base: BaseModel) -> None:
    prompts = [base.encode(prompt) for prompt in PROMPTS]
    plain = tree_log_probs(base, None, Mixing.reference(3), prompts, LETTERS, 2)
    zero = tree_log_probs(base, bank_of(base), Mixing.of_rows(torch.zeros(3, 2)), prompts, LETTERS, 2)
    torch.testing.assert_close(zero, plain, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("length", [1, 2])
def test_its_gradient_is_that_of_plain_scoring(base: BaseModel, length: int) -> None:
    bank = bank_of(base)
    prompts = [base.encode(prompt) for prompt in PROMPTS]
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(2 * 3, 7**length, generator=random)
    completions = torch.tensor(list(itertools.product(LETTERS, repeat=length))).repeat(6, 1)

    def gradient(table: Tensor) -> Tensor:
        (table.view(6, -1) * weights).sum().backward()
        return bank.take_gradients().clone()

    by_tree = gradient(tree_log_probs(base, bank, Mixing.population(2, 3), prompts * 2, LETTERS, length))
    repeated = [prompt for prompt in prompts * 2 for _ in range(7**length)]
    plain = completion_log_probs(
        base, bank, Mixing.population(2, 3 * 7**length), repeated, completions, torch.full((len(repeated),), length)
    ).sum(dim=1)
    expected = gradient(plain)
    assert expected.abs().max() > 1
    torch.testing.assert_close(by_tree, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)  # fp32 sums


def test_samples_occur_as_often_as_the_table_says(llama: BaseModel) -> None:
    """Pearson's statistic over 64 completions; beyond the 99.9 % quantile the table is not what is sampled."""
    policy, samples = policy_of(llama), 3000
    made = policy.generate(["a b c"], [2], samples=samples, max_new_tokens=2, end_ids=(), seed=5)
    drawn = np.bincount(made.token_ids[:, 0] * 8 + made.token_ids[:, 1], minlength=64)
    expected = policy.completion_table(["a b c"], range(8), 2, [2])[0].double().exp().numpy() * samples
    common = expected >= 5  # the approximation needs as many; the rest is one cell
    counts = np.append(drawn[common], drawn[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert common.sum() > 20
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    assert statistic < stats.chi2.ppf(0.999, len(counts) - 1)
    other = policy.completion_table(["a b c"], range(8), 2, [0])[0].double().exp().numpy() * samples
    assert ((drawn - other) ** 2 / other).sum() > stats.chi2.ppf(0.999, 63)  # it can tell policies apart


def test_a_model_that_cannot_read_a_tree_is_refused(any_base: BaseModel) -> None:
    prompts = [any_base.encode("a b")]
    if any_base.model.config.model_type in ("llama", "gpt2"):
        assert tree_log_probs(any_base, None, Mixing.reference(1), prompts, LETTERS, 2).shape == (1, 49)
    else:
        with pytest.raises(ModelError, match=r"model must take positions and attend to all earlier tokens.*got '"):
            tree_log_probs(any_base, None, Mixing.reference(1), prompts, LETTERS, 2)
