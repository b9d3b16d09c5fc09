"""A gate over two sets of experts: each row is what it is under the gate and its own set alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import micro_task
from gated import EXPERTS, OBJECTIVES, PROMPTS, ROWS, preferences_of, prior_of, score
from paretune.core.errors import AdapterError, ConfigError
from paretune.core.protocols import Mixer
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate, TrainedGate
from paretune.models.gate_sets import GateOfSets, gate_class, load_gate_of
from paretune.models.prompt_gate import PromptGate
from paretune.models.token_gate import TokenGate
from reader_oracle import CLOSE

SECOND = torch.arange(ROWS) % 3 == 0  # rows that the second set answers


def bank_of(base: BaseModel, sets: int = 2) -> ExpertBank:
    bank = ExpertBank(base, sets * EXPERTS, rank=2, alpha=4.0)
    bank.alphas = torch.tensor([4.0, 2.0, 1.0, 3.0, 2.5, 1.5][: sets * EXPERTS])
    return micro_task.perturb(bank)


def gate_of(kind: type[TrainedGate], bank: ExpertBank, **settings: object) -> TrainedGate:
    """Return a trained gate of one set."""
    one = copy.copy(bank)
    one.experts = EXPERTS
    gate = kind(one, OBJECTIVES, 0, {"width": 5, **settings})
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    return gate


def in_sets() -> Tensor:
    """Return the prior of each row, in its set, `[B, 2 E]`."""
    first = (~SECOND)[:, None] * prior_of()
    return torch.cat([first, prior_of() - first], dim=1)


@pytest.mark.parametrize(
    ("kind", "settings"), [(BlockGate, {}), (BlockGate, {"top_1": True}), (TokenGate, {"gate_block": 1}),
                           (PromptGate, {}), (PromptGate, {"top_1": True})],
)  # fmt: skip
def test_a_row_is_what_its_own_set_is_under_the_gate(
    llama: BaseModel, kind: type[TrainedGate], settings: dict[str, object]
) -> None:
    scale = torch.linspace(0.5, 1.0, ROWS)
    bank = bank_of(llama)
    gate = gate_of(kind, bank, **settings)
    both = score(bank, GateOfSets(gate, 2).mixing(in_sets(), preferences_of(), PROMPTS, scale)).detach()
    experts, alphas, alone = bank.flat.clone(), bank.alphas, []
    for place in range(2):
        one = bank_of(llama, 1)
        own = slice(place * EXPERTS, (place + 1) * EXPERTS)
        one.flat.copy_(experts[own])
        one.alphas = alphas[own]
        alone.append(score(one, gate.mixing(prior_of(), preferences_of(), PROMPTS, scale)).detach())
    assert (alone[0] - alone[1]).abs().max() > 0.01
    torch.testing.assert_close(both, torch.where(SECOND[:, None], alone[1], alone[0]), rtol=0, atol=CLOSE)


def test_the_largest_weight_is_looked_for_in_the_own_set(llama: BaseModel) -> None:
    """Where all weights of a row are negative, those of other sets, which are 0, would be larger."""
    gate = gate_of(PromptGate, bank_of(llama), top_1=True)
    gate.flat.zero_()  # g is the prior
    prior = torch.tensor([[0.0, 0.0, 0.0, -1.0, -0.5, -2.0]])
    sets = GateOfSets(gate, 2)
    made = sets.mixing(prior, preferences_of(1), PROMPTS[:1]).resolved()
    assert made.dense().tolist() == [[0.0, 0.0, 0.0, 0.0, -3.5, 0.0]]  # the largest gets the sum of all


def test_a_saved_gate_is_loaded_for_all_sets_of_its_experts(llama: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(llama)
    gate = gate_of(BlockGate, bank)
    gate.save(tmp_path / "gate.safetensors")
    made = load_gate_of(bank, tmp_path / "gate.safetensors", 2)
    assert isinstance(made, GateOfSets)
    assert (made.experts, made.gate.experts, bank.experts) == (6, 3, 6)
    assert made.flat.equal(gate.flat)
    assert gate_class(tmp_path / "gate.safetensors") == "paretune.models.gate:BlockGate"
    with pytest.raises(AdapterError, match="must weigh the 6 experts of the bank, got one for 3"):
        load_gate_of(bank, tmp_path / "gate.safetensors", 1)
    with pytest.raises(AdapterError, match="experts must be 4 sets of equally many, got 6"):
        load_gate_of(bank, tmp_path / "gate.safetensors", 4)


def test_a_file_that_names_no_gate_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    with pytest.raises(AdapterError, match=r"gate '.*other\.safetensors' must be readable, got: "):
        gate_class(other)
    other.write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match=r"gate '.*other\.safetensors' must be readable, got: "):
        gate_class(other)
    save_file({"flat": torch.zeros(1, 1)}, other)
    with pytest.raises(AdapterError, match=r"must be a gate's file, got no 'class' in it\. Name its file"):
        gate_class(other)


def test_sets_are_a_gates_alone_and_written_where_there_are_several() -> None:
    gate = Path("gate.safetensors")
    assert "sets" not in Mixer(gate=gate).plain()
    assert Mixer(gate=gate, sets=2).plain()["sets"] == 2
    for sets, given in ((2, None), (0, gate)):
        with pytest.raises(ConfigError, match="sets of a mixer must be 1 without a gate, and at least 1"):
            Mixer(gate=given, sets=sets)
