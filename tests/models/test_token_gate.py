"""A gate that reads one block for all blocks from there on; and controls of context for gates that read tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gated import EXPERTS, LENGTHS, OBJECTIVES, PROMPTS, ROWS, TOKENS, bank_of, keys, preferences_of, prior_of, score
from paretune.core.errors import ConfigError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.decoding import sample
from paretune.models.foreign_context import exchanged
from paretune.models.gate import BlockGate, SmallNetwork, load_gate
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.prompt_gate import PromptGate
from paretune.models.scoring import completion_log_probs
from paretune.models.token_gate import TokenGate
from paretune.models.tree import tree_log_probs
from reader_oracle import CLOSE, recomputing

LETTERS = range(1, 8)
POOL = [[1, 2, 3, 4], [7, 2], [5]]  # of training prompts
GATED = {"block 0": {}, "block 1": {"gate_block": 1}, "softmax": {"form": "softmax", "gate_scale": 1.5},
         "temperature": {"form": "softmax", "gate_scale": 1.5, "gate_temperature": 2.0}}  # fmt: skip


def gate_of(bank: ExpertBank, kind: type[SmallNetwork] = TokenGate, **settings: object) -> Any:
    gate = kind(bank, OBJECTIVES, 0, {"width": 5, **settings})
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)).to(gate.flat.device) * 0.3)
    return gate


def mixing_of(gate: Any, scale: Tensor | None = None) -> Mixing:
    made: Mixing = gate.mixing(prior_of(), preferences_of(), PROMPTS, scale)
    return made


def by_formula(bank: ExpertBank, gate: TokenGate, row: int, completion: list[int]) -> Tensor:
    """Return the log-probabilities of one row's completion by the formula, on the untouched model, nothing shared."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(bank.base.name).eval()
    prior, preference, prompt = prior_of()[row], preferences_of()[row], PROMPTS[row]
    size = model.config.hidden_size
    network = nn.Sequential(nn.Linear(size + OBJECTIVES, 5), nn.SiLU(), nn.Linear(5, EXPERTS))
    with torch.no_grad():
        for own, given in zip(network.parameters(), gate.networks[0], strict=True):
            own.copy_(given)
    now: dict[str, Tensor] = {"g": prior.expand(1, len(prompt) + len(completion), -1)}

    def read(_: nn.Module, args: tuple[Any, ...]) -> None:
        context = nn.LayerNorm(size, elementwise_affine=False)(args[0])
        offset = network(torch.cat([context, preference.expand(*context.shape[:2], -1)], dim=2))
        g = prior + offset
        if gate.form == "softmax":
            raised = torch.exp(offset / gate.settings.get("gate_temperature", 1.0)) * (prior.clamp(min=0) + 0.01)
            g = 1.5 * raised / raised.sum(dim=2, keepdim=True)
        g[:, : len(prompt) - 1] = prior  # tokens before the last of the prompt
        now["g"] = g

    def adapted(down: Tensor, up: Tensor) -> Callable[..., Tensor]:
        def hook(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
            for e in range(EXPERTS):
                y = y + now["g"][:, :, e, None] * float(bank.alphas[e]) / bank.rank * (args[0] @ down[e].T @ up[e].T)
            return y

        return hook

    model.get_submodule("model.layers")[gate.reads_block].register_forward_pre_hook(read)
    for path, layer in bank.layers.items():
        model.get_submodule(path).register_forward_hook(adapted(layer.A.detach(), layer.B.detach()))
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
    places = range(len(prompt) - 1, len(prompt) - 1 + len(completion))
    return torch.stack([logits[at].log_softmax(dim=-1)[token] for at, token in zip(places, completion, strict=True)])


@torch.no_grad()
@pytest.mark.parametrize("kind", [BlockGate, TokenGate, PromptGate])
def test_an_untrained_gate_is_its_prior_or_next_to_it_in_the_softmax_form(
    llama: BaseModel, kind: type[SmallNetwork]
) -> None:
    bank, prior = bank_of(llama), torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    nothing = torch.zeros(2, EXPERTS)
    assert kind(bank, OBJECTIVES, 0).combined(prior, nothing).equal(prior)
    gate = kind(bank, OBJECTIVES, 0, {"form": "softmax", "gate_scale": 1.5, "gate_temperature": 2.0})
    torch.testing.assert_close(gate.combined(prior, nothing), 1.5 * (prior + 0.01) / 1.03)


@torch.no_grad()
@pytest.mark.parametrize("settings", GATED.values(), ids=GATED)
def test_a_trained_gate_follows_the_formula(llama: BaseModel, settings: dict[str, object]) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank, **settings)
    # 5 units over 16 hidden numbers and 2 objectives, a last layer of 3 experts over 5 units: one network alone
    assert gate.flat.shape == (1, 5 * 18 + 5 + 3 * 5 + 3)
    mixing = mixing_of(gate)
    got = {share: score(bank, mixing, share) for share in (True, False)}
    assert (got[True] - score(bank, Mixing.of_rows(prior_of()))).abs().max() > 0.05
    for row in range(ROWS):
        size = int(LENGTHS[row])
        expected = by_formula(bank, gate, row, TOKENS[row].tolist())[:size]
        for share in (True, False):
            torch.testing.assert_close(got[share][row, :size], expected, rtol=0, atol=CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("context", ["own", "blind", "shuffled"])
@pytest.mark.parametrize(("kind", "settings"), [(TokenGate, {}), (TokenGate, {"gate_block": 1}), (BlockGate, {})])
def test_cached_decoding_agrees_with_one_pass(
    blockwise: BaseModel, kind: type[SmallNetwork], settings: dict[str, object], context: str
) -> None:
    bank = bank_of(blockwise)
    mixing = mixing_of(
        gate_of(bank, kind, context=context, context_prompts=POOL, **settings), torch.linspace(0.2, 1.2, ROWS)
    )
    rollout = sample(blockwise, bank, PROMPTS, mixing, keys(), 6)
    alone = sample(blockwise, bank, PROMPTS, mixing, keys(), 6, share_prefill=False)
    assert len(set(rollout.lengths.tolist())) > 1  # some rows left early
    assert alone.token_ids.equal(rollout.token_ids)
    for share in (True, False):
        scored = completion_log_probs(
            blockwise, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths, share_prompts=share
        )
        torch.testing.assert_close(rollout.log_probs, scored, rtol=CLOSE, atol=CLOSE)
    table = tree_log_probs(blockwise, bank, mixing, PROMPTS, LETTERS, 2)
    pairs = torch.cartesian_prod(torch.tensor(LETTERS), torch.tensor(LETTERS))
    chosen = pairs[torch.arange(ROWS) * 5]
    scored = completion_log_probs(blockwise, bank, mixing, PROMPTS, chosen, torch.full((ROWS,), 2)).sum(dim=1)
    torch.testing.assert_close(table[torch.arange(ROWS), torch.arange(ROWS) * 5], scored, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [TokenGate, PromptGate])
def test_gradient_checkpointing_gives_equal_gradients(
    blockwise: BaseModel, kind: type[SmallNetwork], reentrant: bool
) -> None:
    """Weights that were chosen before a block reach it as an argument, and gradients find their way back."""
    bank = bank_of(blockwise)
    gate = gate_of(bank, kind)

    def gradients() -> tuple[Tensor, Tensor]:
        mixing = mixing_of(gate).resolved()
        with bank.using(mixing):
            (score(bank, mixing, share=False).sum(dim=1) * torch.arange(1, ROWS + 1)).sum().backward()
        return bank.take_gradients(), gate.take_gradients()

    plain = gradients()
    assert plain[1].any()
    with recomputing(blockwise, reentrant):
        recomputed = gradients()
    for mine, theirs in zip(recomputed, plain, strict=True):
        # fp32, and what blocks add to the gate's gradient in another order
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("settings", GATED.values(), ids=GATED)
def test_gradients_are_finite_differences(folders: dict[str, Path], settings: dict[str, object]) -> None:
    base = load_base(str(folders["llama"]), device="cpu", dtype=torch.float64)
    bank = bank_of(base)
    gate = gate_of(bank, **settings)
    weights = torch.arange(1, ROWS + 1)
    (score(bank, mixing_of(gate)).sum(dim=1) * weights).sum().backward()
    gradient, largest = gate.take_gradients(), 0.0
    random = torch.Generator().manual_seed(2)
    for _ in range(4):
        start, step, values = gate.flat.clone(), 2e-4 * torch.randn(gate.flat.shape, generator=random), []
        for sign in (1, -1):
            gate.flat.copy_(start + sign * step)
            with torch.no_grad():
                values.append(float((score(bank, mixing_of(gate)).double().sum(dim=1) * weights).sum()))
        gate.flat.copy_(start)
        expected = float((2 * step.double() * gradient.double()).sum())
        largest = max(largest, abs(expected))
        # the third derivative adds a part in about 1e-4; log-probs rounded to fp32 are 5e-7 apart, 18 of them 1e-5
        assert values[0] - values[1] == pytest.approx(expected, rel=2e-3, abs=3e-5)
    assert largest > 0.005
    bank.unwrap()


def test_with_top_1_the_largest_gets_all_and_gradients_go_straight_through(llama: BaseModel) -> None:
    gate = gate_of(bank_of(llama), top_1=True)
    weights = torch.tensor([[0.2, 0.5, 0.1], [-1.0, -2.0, 0.5]], requires_grad=True)
    made = gate.selected(weights)
    # sums .8 and -2.5 go to the largest, numbers 1 and 2
    torch.testing.assert_close(made, torch.tensor([[0.0, 0.8, 0.0], [0.0, 0.0, -2.5]]))
    (made * torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [[1, 2, 3], [4, 5, 6]]
    plain = mixing_of(gate_of(gate_bank := bank_of(llama), PromptGate)).resolved().dense().detach()
    one = mixing_of(gate_of(gate_bank, PromptGate, top_1=True)).resolved().dense().detach()
    assert one.abs().argmax(dim=1).equal(plain.argmax(dim=1))
    assert ((one != 0).sum(dim=1) == 1).all()
    torch.testing.assert_close(one.sum(dim=1), plain.sum(dim=1))
    with torch.no_grad():
        assert (score(gate_bank, mixing_of(gate_of(gate_bank))) - score(gate_bank, mixing_of(gate))).abs().max() > 0.01


@torch.no_grad()
def test_a_blind_gate_reads_the_preference_and_nothing_else(llama: BaseModel) -> None:
    """Whatever the prompt, equal preferences and priors get equal weights, by the same parameters."""
    bank = bank_of(llama)
    for kind in (BlockGate, TokenGate):
        gate = gate_of(bank, kind, context="blind")
        assert not gate.reads_prompts
        assert gate.flat.equal(gate_of(bank, kind).flat)
        expected = gate.weights(0, torch.zeros(ROWS, 1, 16), prior_of(), preferences_of())[:, 0]
        if kind is TokenGate:  # the same g for all tokens that are gated, in all blocks
            ids = [(5,)] * ROWS
            one = completion_log_probs(llama, bank, gate.mixing(prior_of(), preferences_of()), ids, TOKENS, LENGTHS)
            other = completion_log_probs(llama, bank, Mixing.of_rows(expected), ids, TOKENS, LENGTHS)
            torch.testing.assert_close(one, other, rtol=0, atol=CLOSE)
    gate = gate_of(bank, PromptGate, context="blind")
    assert (gate.reads_prompts, gate.prompt_passes) == (False, 0)
    rows = gate.mixing(prior_of(1).expand(2, 3), preferences_of(1).expand(2, 2)).resolved().dense()
    assert rows[0].equal(rows[1])


@torch.no_grad()
@pytest.mark.parametrize("kind", [BlockGate, TokenGate])
def test_a_shuffled_gate_of_blocks_reads_the_block_inputs_of_another_prompt(
    kind: type[SmallNetwork], llama: BaseModel
) -> None:
    from transformers import AutoModelForCausalLM

    bank = bank_of(llama)
    seen: list[Tensor] = []

    class Listening(kind):  # type: ignore[valid-type, misc]
        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Any:
            seen.append(hidden)
            return super().weights(block, hidden, prior, preferences)

    gate = Listening(bank, OBJECTIVES, 0, {"width": 5, "context": "shuffled", "context_prompts": POOL})
    assert (gate.reads_prompts, gate.prompt_passes) == (True, 1)
    score(bank, mixing_of(gate), share=False)
    model: Any = AutoModelForCausalLM.from_pretrained(llama.name).eval()
    for row, prompt in enumerate(exchanged(PROMPTS, POOL)):
        assert prompt != tuple(PROMPTS[row])
        states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        for block, hidden in enumerate(seen):
            expected = states[block][0, -1].expand(hidden.shape[1], -1)  # of all tokens alike
            torch.testing.assert_close(hidden[row], expected, rtol=0, atol=CLOSE)
    own, other = (score(bank, mixing_of(gate_of(bank, kind, **each))) for each in ({}, gate.settings))
    assert (own - other).abs().max() > 0.01


@torch.no_grad()
def test_a_shuffled_gate_of_prompts_reads_another_training_prompt(llama: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank, PromptGate, context="shuffled", context_prompts=POOL)
    own = gate_of(bank, PromptGate)
    context = gate.context_of(PROMPTS)
    known = own.context_of([tuple(each) for each in POOL])
    for prompt, row in zip(PROMPTS, context, strict=True):
        assert any(row.equal(each) for each in known)
        assert not row.equal(own.context_of([prompt])[0])
    assert context.equal(gate.context_of(PROMPTS))
    gate.save(tmp_path / "gate.safetensors")
    assert load_gate(bank, tmp_path / "gate.safetensors").context_of(PROMPTS).equal(context)
    with pytest.raises(ConfigError, match="at least 2 different training prompts to choose from, got 1"):
        gate_of(bank, PromptGate, context="shuffled", context_prompts=[[5], [5]]).context_of(PROMPTS)


@torch.no_grad()
def test_the_softmax_form_starts_next_to_its_prior_and_recruits(llama: BaseModel) -> None:
    gate = PromptGate(bank_of(llama), OBJECTIVES, 0, {"form": "softmax", "gate_scale": 2.0})
    prior = torch.tensor([[0.7, 0.3, 0.0]])
    made = gate.row_weights(torch.ones(1, 32), prior, torch.tensor([[0.7, 0.3]]))
    # (.71, .31, .01) / 1.03, twice
    torch.testing.assert_close(made, torch.tensor([[1.42, 0.62, 0.02]]) / 1.03)


def test_gates_come_back_as_they_were_and_misfits_are_refused(llama: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank, gate_block=1, form="softmax", top_1=True)
    gate.save(tmp_path / "gate.safetensors")
    again = load_gate(bank, tmp_path / "gate.safetensors")
    assert type(again) is TokenGate
    assert (again.reads_block, again.form, again.digest) == (1, "softmax", gate.digest)
    with torch.no_grad():
        assert score(bank, mixing_of(again)).equal(score(bank, mixing_of(gate)))
    with pytest.raises(ConfigError, match=r"gate_block must be one of the model's 2 blocks, 0\.\.1, got 2"):
        TokenGate(bank, OBJECTIVES, 0, {"gate_block": 2})
