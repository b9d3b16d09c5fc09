"""A gate of its own: how it begins, what it learns from, its file, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import micro_task
from gated import (
    EXPERTS,
    OBJECTIVES,
    PROMPTS,
    ROWS,
    TOKENS,
    bank_of,
    gate_of,
    mixing_of,
    preferences_of,
    prior_of,
    score,
)
from paretune.core.errors import AdapterError, ConfigError, MixingError, ModelError, ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate, TrainedGate, load_gate, resolve_gate
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from reader_oracle import CLOSE, recomputing


def test_equal_seeds_give_equal_gates_and_blocks_differ(llama: BaseModel) -> None:
    bank = bank_of(llama)
    one, two, other = (BlockGate(bank, OBJECTIVES, seed) for seed in (5, 5, 6))
    assert one.flat.equal(two.flat)
    assert not one.flat.equal(other.flat)
    assert not one.networks[0][0].equal(one.networks[1][0])
    # a block: 32 units over 16 hidden numbers and 2 objectives, a last layer of 3 experts over 32 units
    assert one.flat.shape == (1, 2 * (32 * 18 + 32 + 3 * 32 + 3))
    assert one.flat.abs().max() <= 18**-0.5
    # a uniform on [-b, b] has standard deviation b / sqrt(3); 1,216 draws put it within 5 %
    draws = torch.cat([part.detach().flatten() for network in one.networks for part in network[:2]])
    assert float(draws.std()) == pytest.approx((18 * 3) ** -0.5, rel=0.05)


def test_parameters_are_views_of_one_row(llama: BaseModel) -> None:
    gate = gate_of(bank_of(llama))
    gate.flat.copy_(torch.arange(gate.flat.numel(), dtype=torch.float32)[None])
    assert torch.cat([part.detach().flatten() for part in gate.parameters()]).equal(gate.flat[0])


def gradients(bank: ExpertBank, gate: BlockGate, mixing: Mixing, share: bool = True) -> tuple[Tensor, Tensor]:
    """Return the gradients of a weighted sum of log-probabilities in the experts and in the gate."""
    (score(bank, mixing, share).sum(dim=1) * torch.arange(1, ROWS + 1)).sum().backward()
    return bank.take_gradients(), gate.take_gradients()


def test_gradients_of_gate_and_experts_are_finite_differences(folders: dict[str, Path]) -> None:
    base = load_base(str(folders["llama"]), device="cpu", dtype=torch.float64)
    bank = bank_of(base)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.5, 1.5, ROWS))
    by_backward = gradients(bank, gate, mixing)
    weights = torch.arange(1, ROWS + 1)
    for flat, gradient in zip((bank.flat, gate.flat), by_backward, strict=True):
        assert gradient.shape == flat.shape
        random, largest = torch.Generator().manual_seed(2), 0.0
        for _ in range(5):
            start, step = flat.clone(), 2e-4 * torch.randn(flat.shape, generator=random)
            values, ends = [], []
            for sign in (1, -1):
                flat.copy_(start + sign * step)
                ends.append(flat.double())
                with torch.no_grad():
                    values.append(float((score(bank, mixing).double().sum(dim=1) * weights).sum()))
            flat.copy_(start)
            expected = float(((ends[0] - ends[1]) * gradient.double()).sum())
            largest = max(largest, abs(expected))
            # the third derivative adds a part in about 1e-4; log-probs rounded to fp32 are 5e-7 apart, 18 of them 1e-5
            assert values[0] - values[1] == pytest.approx(expected, rel=1e-3, abs=3e-5)
        assert largest > 0.02
    bank.unwrap()


def test_gradients_flow_through_what_the_gate_reads(llama: BaseModel) -> None:
    """Under a gate that is cut off from its input, the experts' gradient is another one."""
    bank = bank_of(llama)
    gate = gate_of(bank)
    whole, _ = gradients(bank, gate, mixing_of(gate))

    class Detached:
        experts, objectives, blocks = gate.experts, gate.objectives, gate.blocks

        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
            return gate.weights(block, hidden.detach(), prior, preferences)

    cut, _ = gradients(bank, gate, Mixing.gated(prior_of(), Detached(), preferences_of()))
    assert (whole - cut).abs().max() > 0.01 * whole.abs().max()


def test_sharing_prompts_changes_no_gradient(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    gate = gate_of(bank)
    for shared, plain in zip(
        gradients(bank, gate, mixing_of(gate)), gradients(bank, gate, mixing_of(gate), share=False), strict=True
    ):
        scale = float(plain.abs().max())
        assert scale > 0.1
        torch.testing.assert_close(shared / scale, plain / scale, rtol=0, atol=2 * CLOSE)


def test_gradients_of_a_gate_are_taken_once(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    assert gradients(bank, gate, mixing_of(gate))[1].any()
    assert not gate.take_gradients().any()


def test_an_untrained_gate_learns_from_its_last_layers_on(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank, trained=False)
    gradients(bank, gate, mixing_of(gate))
    assert not gate.take_gradients().any()
    (score(bank, mixing_of(gate)).sum()).backward()
    for first, first_bias, last, last_bias in gate.networks:
        assert last.grad is not None
        assert last_bias.grad is not None
        assert last.grad.any()
        assert last_bias.grad.any()
        assert not any(part.grad is not None and part.grad.any() for part in (first, first_bias))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("pinned", ["as in the pass", "anew"])
def test_gradient_checkpointing_gives_equal_gradients(blockwise: BaseModel, pinned: str, reentrant: bool) -> None:
    """Whatever tokens the mixing that is pinned during the backward pass gates, those of the pass are recomputed."""
    bank = bank_of(blockwise)
    gate = gate_of(bank)
    mixing = mixing_of(gate, torch.linspace(0.5, 1.5, ROWS))
    plain = gradients(bank, gate, mixing, share=False)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = next(iter(bank.layers.values())).register_forward_hook(count)
    gate_from = max(len(prompt) for prompt in PROMPTS) - 1
    with recomputing(blockwise, reentrant), bank.using(mixing, gate_from if pinned == "as in the pass" else 0):
        recomputed = gradients(bank, gate, mixing)
    hook.remove()
    assert calls == 2  # forward, and again inside backward
    for mine, theirs in zip(recomputed, plain, strict=True):
        # the same operations once more
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_two_passes_are_recomputed_each_as_it_was(llama: BaseModel) -> None:
    bank = bank_of(llama)
    gate = gate_of(bank)
    one = mixing_of(gate)
    other = Mixing.gated(prior_of().flip(0), gate, preferences_of().flip(0))

    def loss(mixing: Mixing) -> Tensor:
        return score(bank, mixing, share=False).sum()

    (loss(one) + loss(other)).backward()
    plain = bank.take_gradients(), gate.take_gradients()
    with recomputing(llama), bank.using(one):
        (loss(one) + loss(other)).backward()
    for mine, theirs in zip((bank.take_gradients(), gate.take_gradients()), plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_a_saved_gate_comes_back_bit_for_bit(blockwise: BaseModel, tmp_path: Path) -> None:
    bank = bank_of(blockwise)
    gate = gate_of(bank)
    path = tmp_path / "stage" / "gate.safetensors"
    gate.save(path)
    again = load_gate(bank, path)
    assert again.flat.equal(gate.flat)
    assert isinstance(again, BlockGate)
    assert (again.width, again.objectives, again.digest) == (5, OBJECTIVES, gate.digest)
    with torch.no_grad():
        assert score(bank, mixing_of(again)).equal(score(bank, mixing_of(gate)))
    again.flat[0, -1] += 1
    assert again.digest != gate.digest
    assert gate_of(bank, width=4, trained=False).digest != gate_of(bank, width=5, trained=False).digest


def edited(change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
        tensors = load_file(path)
        change(tensors, metadata)
        save_file(tensors, path, metadata=metadata)

    return edit


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "must be a safetensors file, got none"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "must be readable, got: .* Copy or train it again"),
        (lambda path: path.write_text("{}"), "must be readable, got"),
        (flip_bit, "must hold what was saved, got other content"),
        (edited(lambda tensors, _: tensors.update(flat=tensors["flat"][:, 1:].contiguous())), "must hold what was sav"),
        (edited(lambda tensors, _: tensors.update(flat=tensors["flat"].double())), "must hold what was saved"),
        (edited(lambda tensors, _: tensors.update(other=tensors.pop("flat"))), "must be readable|no .*in it"),
        (edited(lambda _, metadata: metadata.pop("blocks")), "must be a gate's file, got no 'blocks' in it"),
        (edited(lambda _, metadata: metadata.update(blocks="deep")), "must be readable, got: invalid literal"),
        (edited(lambda _, metadata: metadata.update(settings='{"width":0}')), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update(blocks="3")), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update(settings="[1]")), "must hold what was saved"),
        (edited(lambda _, metadata: metadata.update({"class": "gone:Gate"})), "must be an importable 'module:name'"),
        (
            edited(lambda _, metadata: metadata.update({"class": "subprocess:Popen"})),
            "must be a class that inherits TrainedGate, got 'subprocess:Popen'",
        ),
        (edited(lambda _, metadata: metadata.clear()), "must be a gate's file, got no 'experts' in it"),
    ],
)
def test_a_damaged_gate_is_refused(
    llama: BaseModel, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    bank, path = bank_of(llama), tmp_path / "gate.safetensors"
    gate_of(bank).save(path)
    damage(path)
    with pytest.raises(AdapterError, match=message):
        load_gate(bank, path)


def test_a_gate_of_another_model_or_other_experts_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "gate.safetensors"
    gate_of(bank_of(llama)).save(path)
    with pytest.raises(AdapterError, match="must weigh the 2 experts of the bank, got one for 3"):
        load_gate(bank_of(llama, experts=2), path)
    other = load_base(str(micro_task.save_model(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(AdapterError, match=f"must belong to base model '.*other' .*trained on {llama.digest}"):
        load_gate(bank_of(other), path)


def test_a_gate_used_where_it_does_not_belong_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    larger = load_base(str(micro_task.save_model(tmp_path / "larger", hidden_size=32)), device="cpu")
    deeper = load_base(str(micro_task.save_model(tmp_path / "deeper", num_hidden_layers=3)), device="cpu")
    mixing = mixing_of(gate_of(bank_of(llama)))
    with pytest.raises(MixingError, match="hidden states must be of size 16, which the gate reads, got 32"):
        score(bank_of(larger), mixing)
    with pytest.raises(MixingError, match="for the 3 transformer blocks of the model, got one for 2"):
        score(bank_of(deeper), mixing)
    bank = bank_of(llama)
    with pytest.raises(MixingError, match="must see the 8 rows of its mixing, got 2"), bank.using(mixing):
        llama.model(TOKENS[:2])


def test_a_gate_that_returns_something_else_is_refused(llama: BaseModel) -> None:
    class Narrow:
        experts, objectives, blocks = EXPERTS, OBJECTIVES, 2
        answer: Any = None

        def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Any:
            return self.answer

    gate, bank = Narrow(), bank_of(llama)
    for gate.answer, got in ((prior_of()[:, None], r"shape \[8, 1, 3\]"), (None, "None"), ([[1.0]], r"\[\[1\.0\]\]")):
        message = rf"^weights of Narrow must return a tensor of shape \[8, 4, 3\], \[B, T, E\], got {got}\. Return it"
        with pytest.raises(ShapeError, match=message):
            score(bank, Mixing.gated(prior_of(), gate, preferences_of()), share=False)


class Linear(TrainedGate):
    def shapes(self) -> Any:
        return ((self.experts, self.hidden_size),)

    def weights(self, block: int, hidden: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        return prior[:, None] + hidden @ self.networks[block][0].T


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("shapes", None, r"shapes of Gate must return a tuple of shapes .*, got None\. Return \(\("),
        ("shapes", (3, 16), r"shapes of Gate must return a tuple of shapes .*, got \(3, 16\)\."),
        ("start", None, r"start of Gate must return one tensor for each shape \[\(3, 16\)\], got None\. Return them"),
        ("start", [], r"start of Gate must return one tensor for each shape \[\(3, 16\)\], got \[\]\."),
        ("start", [torch.zeros(16, 3)], r"start of Gate must .*, got \[\(16, 3\)\]\."),
        ("start", [torch.zeros(3, 1)], r"start of Gate must .*, got \[\(3, 1\)\]\."),
    ],
)
def test_a_gate_whose_parameters_are_not_of_its_shapes_is_refused(
    llama: BaseModel, part: str, value: Any, message: str
) -> None:
    bank = bank_of(llama)
    assert Linear(bank, OBJECTIVES, 0).networks[1][0].shape == (3, 16)
    with pytest.raises(ShapeError, match=f"^{message}"):
        type("Gate", (Linear,), {part: lambda self, *arguments: value})(bank, OBJECTIVES, 0)


def test_a_gate_that_could_not_be_loaded_is_refused_before_it_is_trained() -> None:
    assert resolve_gate("paretune.models.gate:BlockGate") is BlockGate
    for name in ("paretune.models.mixing:Gate", "paretune.models.gate:load_gate", "builtins:dict"):
        with pytest.raises(ConfigError, match=f"must be a class that inherits TrainedGate, got '{name}'"):
            resolve_gate(name)
    with pytest.raises(
        ConfigError, match=r"must be a class with shapes, weights .*, got one without shapes, weights\."
    ):
        resolve_gate("paretune.models.gate:TrainedGate")


@pytest.mark.parametrize(
    ("objectives", "width", "message"),
    [(0, 32, "at least one objective, got 0"), (2, 0, r"at least one parameter each, got \(\(0, 18\)")],
)
def test_a_gate_without_objective_or_unit_is_refused(
    llama: BaseModel, objectives: int, width: int, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        BlockGate(bank_of(llama), objectives, 0, {"width": width})


def test_a_model_without_blocks_or_hidden_size_is_refused(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = llama.model
    monkeypatch.setattr(model.model, "bridge", nn.Linear(16, 16), raising=False)
    with pytest.raises(ModelError, match=r"one list of transformer blocks to be gated, got 'model\.bridge' outside it"):
        gate_of(bank_of(llama))
    model._paretune_bank.unwrap()
    monkeypatch.undo()
    bank = bank_of(llama)
    monkeypatch.setattr(type(model.config), "get_text_config", lambda self: object())
    with pytest.raises(ModelError, match="must name its hidden size to be gated, got none"):
        gate_of(bank)
