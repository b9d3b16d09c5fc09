"""Terms of a gate in the loss: their values on paper, and their gradients through what was heard."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gated import LENGTHS, OBJECTIVES, PROMPTS, bank_of, preferences_of, prior_of, score
from paretune.core.errors import ConfigError
from paretune.core.ledger import Ledger
from paretune.models.base import BaseModel, load_base
from paretune.models.gate import BlockGate, SmallNetwork
from paretune.models.prompt_gate import PromptGate
from paretune.rl.gate_terms import GateTerms, Heard
from paretune.rl.trainees import Conditioned


@pytest.fixture
def llama(tmp_path: Path) -> BaseModel:
    import micro_task

    return load_base(str(micro_task.save_model(tmp_path / "llama")), device="cpu")


def heard(base: BaseModel, terms: GateTerms, **settings: object) -> Heard:
    return Heard(BlockGate(bank_of(base, 2), OBJECTIVES, 0, settings), terms)


INSIDE = torch.tensor([[True, True], [True, False]])  # the last token is behind the end


def test_terms_of_the_free_form_are_those_on_paper(llama: BaseModel) -> None:
    weights = torch.tensor([[[0.5, 0.7], [0.1, 0.5]], [[0.6, 0.6], [9.0, 9.0]]])
    prior = torch.tensor([[0.5, 0.5], [0.4, 0.6]])
    # squared distances .04, .16 and .04: .24 over three tokens
    listener = heard(llama, GateTerms(kl=2.0))
    listener.hear(weights, prior, INSIDE, 0)
    assert float(listener.penalty()) == pytest.approx(2 * 0.24 / 3, rel=1e-5)
    # the experts get .4 and .6 on average: variance .01 over a squared mean of .25
    listener = heard(llama, GateTerms(balance=3.0))
    for part in (slice(0, 1), slice(1, 2)):  # passes over parts of the rows are one
        listener.hear(weights[part], prior[part], INSIDE[part], 0)
    assert float(listener.penalty()) == pytest.approx(3 * 0.01 / 0.25, rel=1e-4)
    listener.hear(torch.ones(1, 1, 2), prior[:1], INSIDE[:1, :1], 1)  # another block, wholly balanced
    assert float(listener.penalty()) == pytest.approx(3 * 0.01 / 0.25 / 2, rel=1e-4)


def test_terms_of_the_softmax_form_are_of_probabilities(llama: BaseModel) -> None:
    settings = {"form": "softmax", "gate_scale": 2.0}
    prior = torch.tensor([[0.5, 0.5]])
    weights, inside = torch.tensor([[[0.5, 1.5]]]), torch.ones(1, 1, dtype=torch.bool)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    listener = heard(llama, GateTerms(entropy=1.0), **settings)
    listener.hear(weights, prior, inside, 0)
    assert float(listener.penalty()) == pytest.approx(-entropy, rel=1e-5)
    listener = heard(llama, GateTerms(kl=1.0), **settings)
    listener.hear(weights, prior, inside, 0)
    assert float(listener.penalty()) == pytest.approx(math.log(2) - entropy, rel=1e-5)  # the prior is uniform
    listener = heard(llama, GateTerms(kl=1.0), **settings)  # an untrained gate is where the term is least
    listener.hear(2 * torch.tensor([[[0.71, 0.31]]]) / 1.02, torch.tensor([[0.7, 0.3]]), inside, 0)
    assert float(listener.penalty()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", [BlockGate, PromptGate])
@pytest.mark.parametrize(
    ("terms", "settings", "size"),
    [
        (GateTerms(kl=1.0), {}, 1e-3),
        (GateTerms(kl=1.0, entropy=0.5), {"form": "softmax"}, 3e-3),
        (GateTerms(balance=1.0), {}, 3e-4),
    ],
)
def test_gradients_of_terms_are_finite_differences(
    tmp_path: Path, kind: type[SmallNetwork], terms: GateTerms, settings: dict[str, object], size: float
) -> None:
    import micro_task

    base = load_base(str(micro_task.save_model(tmp_path / "llama")), device="cpu", dtype=torch.float64)
    bank = bank_of(base)
    gate = kind(bank, OBJECTIVES, 0, {"width": 5, **settings})
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)

    def penalty() -> Tensor:
        listener = Heard(gate, terms)
        mixing = gate.mixing(prior_of().clamp(min=0.1), preferences_of(), PROMPTS).heard_by(listener, LENGTHS)
        score(bank, mixing.resolved())
        return listener.penalty()

    penalty().backward()
    gradient, largest = gate.take_gradients(), 0.0
    random = torch.Generator().manual_seed(3)
    for _ in range(3):
        start, step, values = gate.flat.clone(), size * torch.randn(gate.flat.shape, generator=random), []
        for sign in (1, -1):
            gate.flat.copy_(start + sign * step)
            with torch.no_grad():
                values.append(float(penalty()))
        gate.flat.copy_(start)
        expected = float((2 * step.double() * gradient.double()).sum())
        largest = max(largest, abs(expected))
        assert values[0] - values[1] == pytest.approx(expected, rel=1e-2, abs=3e-6)  # states are fp32
    assert largest > 3e-4
    bank.unwrap()


def test_settings_without_terms_make_none_and_terms_without_a_gate_that_learns_are_refused(llama: BaseModel) -> None:
    assert GateTerms.of({"gate_kl": 0.0, "width": 8}) is None
    assert GateTerms.of({"gate_balance": 0.1}) == GateTerms(balance=0.1)
    bank = bank_of(llama, 2)
    gate = BlockGate(bank, OBJECTIVES, 0)
    for own, trains in ((None, "both"), (gate, "experts")):
        with pytest.raises(ConfigError, match="terms of a gate must be of one that learns, got none"):
            Conditioned(bank, own, np.eye(2), 0, (8,), Ledger(8), trains=trains, gate_terms=GateTerms(kl=1.0))
    assert Conditioned(bank, gate, np.eye(2), 0, (8,), Ledger(8), gate_terms=GateTerms(kl=1.0)).gate_terms
