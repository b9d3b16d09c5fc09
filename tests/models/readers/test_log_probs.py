from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
import reader_oracle
from paretune.core.errors import MixingError
from paretune.core.protocols import Divergence
from paretune.core.seeds import row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import sample
from paretune.models.divergences import DIVERGENCES
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from reader_oracle import CLOSE, NEW, PROMPTS, ROWS

EXPERTS = 3


def bank_of(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, EXPERTS, rank=2), scale=0.15)  # stronger ones amplify rounding


WEIGHTS = {
    "on the simplex": reader_oracle.weights_of(ROWS, EXPERTS),
    "corners": torch.eye(EXPERTS)[[0, 2, 1, 0, 2, 2]],
    "one expert": torch.eye(EXPERTS)[[1] * ROWS],
    "less than one": reader_oracle.weights_of(ROWS, EXPERTS) * torch.linspace(0, 1, ROWS)[:, None],
    "beyond the simplex": torch.tensor([[1.5, -0.5, 0.2]]).repeat(ROWS, 1),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("corners", "one expert", "on the simplex")))
        for name in WEIGHTS
    ],
)
def test_each_reader_mixes_the_log_probabilities_of_the_experts(base: BaseModel, name: str) -> None:
    """`log p = sum_e g_e log p_e + (1 - sum_e g_e) log p_ref - log Z`."""
    bank, weights = bank_of(base), WEIGHTS[name]

    def oracle(row: int, ids: list[int]) -> Tensor:
        each = [reader_oracle.logits(base, bank, one_hot, ids).log_softmax(dim=0) for one_hot in torch.eye(EXPERTS)]
        reference = reader_oracle.logits(base, bank, torch.zeros(EXPERTS), ids).log_softmax(dim=0)
        mixed = weights[row] @ torch.stack(each) + (1 - weights[row].sum()) * reference
        return mixed.log_softmax(dim=0)

    reader_oracle.check(base, bank, Mixing.of_log_probs(weights), oracle)


@torch.no_grad()
def test_a_model_of_any_kind_is_read(any_base: BaseModel) -> None:
    bank, weights = bank_of(any_base), WEIGHTS["less than one"]
    mixing = Mixing.of_log_probs(weights)
    rollout = sample(any_base, bank, PROMPTS, mixing, row_keys([0] * ROWS, 0, list(range(ROWS)), [0] * ROWS), NEW)
    for share in (True, False):
        scored = completion_log_probs(
            any_base, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths, share_prompts=share
        )
        torch.testing.assert_close(scored, rollout.log_probs, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_one_expert_is_that_expert_and_no_expert_the_base_model(base: BaseModel) -> None:
    bank, keys = bank_of(base), row_keys([0] * ROWS, 0, list(range(ROWS)), [0] * ROWS)
    for weights, same in (
        (torch.eye(EXPERTS)[[1] * ROWS], Mixing.population(EXPERTS, ROWS, (1,))),
        (torch.zeros(ROWS, EXPERTS), Mixing.reference(ROWS)),
    ):
        mixed, alone = (
            sample(base, bank, PROMPTS, mixing, keys, NEW) for mixing in (Mixing.of_log_probs(weights), same)
        )
        assert mixed.token_ids.equal(alone.token_ids)
        torch.testing.assert_close(mixed.log_probs, alone.log_probs, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(
    ("weights", "streams"),
    [
        ([[0.5, 0.5, 0.0]], 2),  # no stream of an expert without weight
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], 2),
        ([[0.2, 0.3, 0.5]], 3),
        ([[0.2, 0.3, 0.4]], 4),  # and one of the base model
        ([[0.0, 0.0, 0.0]], 1),
        ([[0.01, 0.78, 0.21]], 3),  # sums to one but for its last bit
    ],
)
def test_a_token_costs_a_pass_for_each_stream(llama: BaseModel, weights: list[list[float]], streams: int) -> None:
    reader = Reader(llama, bank_of(llama), Mixing.of_log_probs(torch.tensor(weights)))
    assert reader.cost == streams


def test_gradients_flow_to_every_expert_that_has_weight(base: BaseModel) -> None:
    bank = bank_of(base)
    mixing = Mixing.of_log_probs(torch.tensor([[0.5, 0.0, 0.5]] * ROWS))
    ids, lengths = torch.tensor([[1, 2, 3]] * ROWS), torch.tensor([3] * ROWS)
    found = []
    for share in (True, False):
        scored = completion_log_probs(base, bank, mixing, PROMPTS, ids, lengths, share_prompts=share)
        scored.sum().backward()
        found.append(bank.take_gradients())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert found[0].abs().sum(dim=1).bool().tolist() == [True, False, True]
    step = 1e-3 * found[0] / found[0].norm()
    with torch.no_grad():
        bank.flat.add_(step)
        after = completion_log_probs(base, bank, mixing, PROMPTS, ids, lengths).sum()
    # to first order a step along the gradient gains its length times the norm
    assert float(after - scored.sum().detach()) == pytest.approx(1e-3 * float(found[0].norm()), rel=0.05)


@torch.no_grad()
def test_scoring_under_checkpointing_agrees(base: BaseModel) -> None:
    bank, mixing = bank_of(base), Mixing.of_log_probs(WEIGHTS["less than one"])
    ids, lengths = torch.tensor([[1, 2, 3]] * ROWS), torch.tensor([3] * ROWS)
    plain = completion_log_probs(base, bank, mixing, PROMPTS, ids, lengths)
    with reader_oracle.recomputing(base):
        again = completion_log_probs(base, bank, mixing, PROMPTS, ids, lengths)
    torch.testing.assert_close(again, plain, atol=CLOSE, rtol=0)


def test_streams_need_a_bank_of_their_experts_and_are_not_pinned(llama: BaseModel) -> None:
    bank, mixing = bank_of(llama), Mixing.of_log_probs(torch.ones(2, 2))
    with pytest.raises(MixingError, match=r"must have a bank of its 2 experts, got a bank of 3\. Load"):
        Reader(llama, bank, mixing)
    with (
        pytest.raises(MixingError, match="a mixing that is pinned must be one of adapters, got one of log_probs"),
        bank.using(Mixing.of_log_probs(torch.ones(2, EXPERTS))),
    ):
        pass


@pytest.mark.parametrize("divergence", ["forward_kl", pytest.param("jensen_shannon", marks=pytest.mark.slow)])
def test_each_reader_mixes_by_another_divergence(base: BaseModel, divergence: Divergence) -> None:
    bank, weights = bank_of(base), WEIGHTS["less than one"]

    def oracle(row: int, ids: list[int]) -> Tensor:
        each = [reader_oracle.logits(base, bank, one_hot, ids).log_softmax(dim=0) for one_hot in torch.eye(EXPERTS)]
        reference = reader_oracle.logits(base, bank, torch.zeros(EXPERTS), ids).log_softmax(dim=0)
        return DIVERGENCES[divergence](torch.stack(each), reference, weights[row])

    reader_oracle.check(base, bank, Mixing.of_log_probs(weights, divergence), oracle)


def test_another_divergence_reads_the_base_model_as_well(llama: BaseModel) -> None:
    mixing = Mixing.of_log_probs(torch.tensor([[0.2, 0.3, 0.5]]), "forward_kl")
    assert Reader(llama, bank_of(llama), mixing).cost == EXPERTS + 1


@torch.no_grad()
def test_weighed_logits_sum_to_z_and_their_sum_over_tokens_is_the_log_weight_of_a_completion(base: BaseModel) -> None:
    """`log sum_y prod_e p_e(y)^{g_e}` at every token, added up to the completion's end."""
    bank, weights = bank_of(base), WEIGHTS["less than one"]
    keys = row_keys([2] * ROWS, 0, list(range(ROWS)), [0] * ROWS)
    made = sample(base, bank, PROMPTS, Mixing.of_log_probs(weights, weighed=True), keys, NEW)
    plain = sample(base, bank, PROMPTS, Mixing.of_log_probs(weights), keys, NEW)
    assert plain.log_weights is None
    assert made.token_ids.equal(plain.token_ids)
    torch.testing.assert_close(made.log_probs, plain.log_probs, atol=CLOSE, rtol=0)
    assert made.log_weights is not None
    for row in range(ROWS):
        expected = 0.0
        for place in range(int(made.lengths[row])):
            ids = [*PROMPTS[row], *made.token_ids[row, :place].tolist()]
            each = [reader_oracle.logits(base, bank, one_hot, ids).log_softmax(dim=0) for one_hot in torch.eye(EXPERTS)]
            reference = reader_oracle.logits(base, bank, torch.zeros(EXPERTS), ids).log_softmax(dim=0)
            mixed = weights[row] @ torch.stack(each) + (1 - weights[row].sum()) * reference
            expected += float(mixed.logsumexp(dim=0))
        assert float(made.log_weights[row]) == pytest.approx(expected, abs=CLOSE)
    assert float(made.log_weights.min()) < -0.01  # by Hölder's inequality none is above 0
    assert float(made.log_weights.max()) < CLOSE
