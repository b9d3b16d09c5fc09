from __future__ import annotations

import pytest
import torch
from torch import Tensor

import micro_task
import reader_oracle
from paretune.core.errors import MixingError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from reader_oracle import CLOSE, PROMPTS, ROWS

EXPERTS = 3
WEIGHTS = {
    "on the simplex": reader_oracle.weights_of(ROWS, EXPERTS),
    "corners": torch.eye(EXPERTS)[[0, 2, 1, 0, 2, 2]],
    "less than one": reader_oracle.weights_of(ROWS, EXPERTS) * torch.linspace(0, 1, ROWS)[:, None],
}


def bank_of(base: BaseModel) -> ExpertBank:
    return micro_task.perturb(ExpertBank(base, EXPERTS, rank=2), scale=0.15)


@pytest.mark.parametrize(
    "name", [name if name == "less than one" else pytest.param(name, marks=pytest.mark.slow) for name in WEIGHTS]
)
def test_each_reader_averages_the_probabilities_of_the_experts(base: BaseModel, name: str) -> None:
    """`p = sum_e g_e p_e + (1 - sum_e g_e) p_ref`."""
    bank, weights = bank_of(base), WEIGHTS[name]

    def oracle(row: int, ids: list[int]) -> Tensor:
        each = [reader_oracle.logits(base, bank, one_hot, ids).softmax(dim=0) for one_hot in torch.eye(EXPERTS)]
        reference = reader_oracle.logits(base, bank, torch.zeros(EXPERTS), ids).softmax(dim=0)
        return (weights[row] @ torch.stack(each) + (1 - weights[row].sum()) * reference).log()

    reader_oracle.check(base, bank, Mixing.of_probabilities(weights), oracle)


def test_it_costs_a_pass_for_each_stream_and_gradients_flow_to_experts_with_weight(llama: BaseModel) -> None:
    bank = bank_of(llama)
    mixing = Mixing.of_probabilities(torch.tensor([[0.5, 0.0, 0.5]] * ROWS))
    assert Reader(llama, bank, mixing).cost == 2
    assert Reader(llama, bank, Mixing.of_probabilities(torch.tensor([[0.5, 0.0, 0.4]]))).cost == 3
    ids, lengths = torch.tensor([[1, 2, 3]] * ROWS), torch.tensor([3] * ROWS)
    mixed = Mixing.of_probabilities(torch.eye(EXPERTS)[[0, 2] * (ROWS // 2)])  # an expert without weight in some rows
    for each in (mixing, mixed):
        completion_log_probs(llama, bank, each, PROMPTS, ids, lengths).sum().backward()
        found = bank.take_gradients()
        assert bool(torch.isfinite(found).all())
        assert found.abs().sum(dim=1).bool().tolist() == [True, False, True]


def test_one_expert_is_that_expert(base: BaseModel) -> None:
    bank, ids, lengths = bank_of(base), torch.tensor([[1, 2, 3]] * ROWS), torch.tensor([3] * ROWS)
    one = torch.eye(EXPERTS)[[1] * ROWS]
    with torch.no_grad():
        mixed = completion_log_probs(base, bank, Mixing.of_probabilities(one), PROMPTS, ids, lengths)
        alone = completion_log_probs(base, bank, Mixing.of_rows(one), PROMPTS, ids, lengths)
    torch.testing.assert_close(mixed, alone, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("weights", [[1.5, -0.5], [0.7, 0.7], [-0.1, 0.5]])
def test_weights_that_are_no_distribution_are_refused(weights: list[float]) -> None:
    with pytest.raises(MixingError, match=r"expert_weights must be non-negative and sum to at most 1 .*, got \["):
        Mixing.of_probabilities(torch.tensor([[0.5, 0.5], weights]))
    Mixing.of_probabilities(torch.tensor([[0.01, 0.78, 0.21]]))  # sums to one but for its last bit
