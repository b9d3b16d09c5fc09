"""Terms of a gate in the loss: their values on paper, and their gradients through what was heard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gated import LENGTHS, OBJECTIVES, PROMPTS, ROWS, TOKENS, bank_of, preferences_of, prior_of, score
from paretune.core.errors import ConfigError
from paretune.core.ledger import Ledger
from paretune.core.scores import Scores
from paretune.core.task import Row, Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate, SmallNetwork
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.prompt_gate import PromptGate
from paretune.models.scoring import can_share_prompts, completion_log_probs
from paretune.models.token_gate import TokenGate
from paretune.rl.gate_terms import GateTerms, Heard
from paretune.rl.learner import Learner
from paretune.rl.rollout import Batch, Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
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


KINDS = [BlockGate, TokenGate, PromptGate]


class Kept:
    """Keeps the weights that count and their priors, `[n, E]` each, of each block in the order of its passes."""

    def __init__(self) -> None:
        self.weights: dict[int, list[Tensor]] = {}
        self.priors: dict[int, list[Tensor]] = {}

    def hear(self, weights: Tensor, prior: Tensor, inside: Tensor, block: int) -> None:
        self.weights.setdefault(block, []).append(weights[inside])
        self.priors.setdefault(block, []).append(prior[:, None].expand(weights.shape)[inside])


@pytest.mark.parametrize("read", ["shared", "shared in parts", "unshared"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_token_of_a_completion_is_heard_once_and_none_behind_its_end(
    llama: BaseModel, kind: type[SmallNetwork], read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completions are of 1 to 3 tokens and padded to 3; prompts of 1 to 4 tokens."""
    bank = bank_of(llama)
    gate = kind(bank, OBJECTIVES, 0, {"width": 5})
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    assert can_share_prompts(llama)
    if read == "shared in parts":  # rows of similar length together
        monkeypatch.setattr("paretune.models.scoring.PASS_TOKENS", 0)

    def counted(token_ids: Tensor) -> tuple[Kept, float]:
        listener, own = Kept(), Heard(gate, GateTerms(kl=1.0, balance=0.5))
        for each in (listener, own):
            mixing = gate.mixing(prior_of(), preferences_of(), PROMPTS).heard_by(each, LENGTHS).resolved()
            completion_log_probs(llama, bank, mixing, PROMPTS, token_ids, LENGTHS, share_prompts=read != "unshared")
        return listener, float(own.penalty())

    with torch.no_grad():
        listener, penalty = counted(TOKENS)
        behind = torch.arange(TOKENS.shape[1]) >= LENGTHS[:, None]
        _, same = counted(torch.where(behind, 1 + TOKENS % 7, TOKENS))
    # a gate of rows weighs each once; the others the 18 tokens of the completions, in each block that they choose for
    expected, blocks = (ROWS, 1) if kind is PromptGate else (int(LENGTHS.sum()), 2 if kind is BlockGate else 1)
    assert {block: sum(map(len, parts)) for block, parts in listener.weights.items()} == dict.fromkeys(
        range(blocks), expected
    )
    assert (max(map(len, listener.weights.values())) > 1) == (read == "shared in parts" and kind is not PromptGate)
    assert same == pytest.approx(penalty, rel=1e-5)
    assert penalty > 1e-3


def gate_that_learns(base: BaseModel, kind: type[SmallNetwork], form: str) -> SmallNetwork:
    gate = kind(bank_of(base, 2), OBJECTIVES, 0, {"width": 5, "form": form, "gate_scale": 1.5})
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    return gate


def alike(rows: Sequence[Row], completions: Sequence[str]) -> Scores:
    """Reward all completions alike, so that nothing but the terms of the gate moves a policy."""
    rewards = np.full((len(completions), OBJECTIVES), 0.25)
    return Scores(rewards, np.full(rewards.shape, "ok"))


def one_update(
    task: Task, gate: SmallNetwork, bank: ExpertBank, terms: GateTerms, micro_batch: int = 0, longest: int = 2
) -> tuple[Tensor, Mixing, Batch]:
    """Return the gradient of the gate in an update of 16 completions, how these were mixed, and what they are."""
    train, development = (
        Prompts(task.splits[split], [tuple(bank.base.encode(str(row["prompt"]))) for row in task.splits[split]])
        for split in ("train", "development")
    )
    environment = Environment(alike, train, 0.0, longest, np.asarray([[0.0, 1.0]] * OBJECTIVES), development)
    settings = LearnerSettings(group_size=4, completions_per_update=16, epochs=1, micro_batch=micro_batch)
    trainee = Conditioned(bank, gate, np.eye(2), 1, (16,), Ledger(16), gate_terms=terms)
    learner = Learner(trainee, environment, settings)
    taken: list[Tensor] = []
    sampled: list[tuple[Mixing, Batch]] = []
    take, sample = trainee.take_gradients, learner.rollouts.sample

    def keep_gradients(members: Sequence[int]) -> dict[str, Tensor]:
        found = take(members)
        taken.append(found["gate"].clone())
        return found

    def keep_batch(active: Sequence[int], size: int) -> Any:
        made = sample(active, size)
        sampled.append(made[2:])
        return made

    start = gate.flat.clone(), bank.flat.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainee, "take_gradients", keep_gradients)
        patch.setattr(learner.rollouts, "sample", keep_batch)
        learner.update(lambda index, length: None, lambda event: None)
    gate.flat.copy_(start[0])
    bank.flat.copy_(start[1])
    return taken[0], *sampled[0]


def by_hand(kept: Kept, terms: GateTerms, form: str) -> Tensor:
    """Return the penalty by its formulas: means over tokens, then over networks."""
    found = []
    for block, parts in kept.weights.items():
        used, prior = torch.cat(parts), torch.cat(kept.priors[block])
        p, q = used / 1.5, (prior + 0.01) / 1.02  # of the softmax form, whose scale is 1.5
        far = (used - prior).square().sum(dim=1) if form == "free" else (p * (p / q).log()).sum(dim=1)
        shares = (used if form == "free" else p).mean(dim=0)
        balance = ((shares - shares.mean()) / shares.mean()).square().mean()
        found.append(terms.kl * far.mean() + terms.balance * balance)
        if terms.entropy:
            found[-1] = found[-1] + terms.entropy * (p * p.log()).sum(dim=1).mean()
    return torch.stack(found).mean()


@pytest.mark.parametrize("micro_batch", [0, 8])
@pytest.mark.parametrize("kind", [BlockGate, PromptGate])
@pytest.mark.parametrize(
    ("form", "terms"),
    [
        ("free", GateTerms(kl=2.0)),
        ("free", GateTerms(balance=0.5)),
        ("softmax", GateTerms(kl=2.0, balance=0.5)),
        ("softmax", GateTerms(entropy=0.7)),
    ],
)
def test_an_update_adds_terms_to_the_mean_loss_of_its_completions(
    task: Task, base: BaseModel, kind: type[SmallNetwork], form: str, terms: GateTerms, micro_batch: int
) -> None:
    """Where all rewards are alike, the gradient is that of the terms: of each pass as much as it has of their means."""
    gate = gate_that_learns(base, kind, form)
    bank: ExpertBank = base.model._paretune_bank
    gradient, mixing, batch = one_update(task, gate, bank, terms, micro_batch)
    assert len(set(batch.lengths.tolist())) > 1
    size, every = micro_batch or 16, batch.lengths if kind is BlockGate else torch.ones(16)
    for rows in torch.arange(16).split(size):
        kept, lengths = Kept(), batch.lengths[rows]
        own = mixing.rows(rows).heard_by(kept, lengths).resolved()
        prompts = [batch.prompt_ids[row] for row in rows.tolist()]
        completion_log_probs(base, bank, own, prompts, batch.token_ids[rows], lengths, share_prompts=False)
        (by_hand(kept, terms, form) * every[rows].sum() / every.sum()).backward()
    expected = gate.take_gradients()
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))  # fp32


@pytest.mark.parametrize("kind", KINDS)
def test_terms_do_not_depend_on_the_size_of_passes(task: Task, base: BaseModel, kind: type[SmallNetwork]) -> None:
    """What experts get on average is of a pass, see `balance`; distances and entropies add up to those of all."""
    gate, terms = gate_that_learns(base, kind, "softmax"), GateTerms(kl=2.0, entropy=0.7)
    made = [one_update(task, gate, base.model._paretune_bank, terms, micro)[0] for micro in (0, 4, 8)]
    for parts in made[1:]:
        torch.testing.assert_close(parts, made[0], rtol=1e-3, atol=1e-4 * float(made[0].abs().max()))  # fp32


def test_settings_without_terms_make_none_and_terms_without_a_gate_that_learns_are_refused(llama: BaseModel) -> None:
    assert GateTerms.of({"gate_kl": 0.0, "width": 8}) is None
    assert GateTerms.of({"gate_balance": 0.1}) == GateTerms(balance=0.1)
    bank = bank_of(llama, 2)
    gate = BlockGate(bank, OBJECTIVES, 0)
    for own, trains in ((None, "both"), (gate, "experts")):
        with pytest.raises(ConfigError, match="terms of a gate must be of one that learns, got none"):
            Conditioned(bank, own, np.eye(2), 0, (8,), Ledger(8), trains=trains, gate_terms=GateTerms(kl=1.0))
    assert Conditioned(bank, gate, np.eye(2), 0, (8,), Ledger(8), gate_terms=GateTerms(kl=1.0)).gate_terms
