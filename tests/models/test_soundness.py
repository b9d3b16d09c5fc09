"""What tries a model out must notice each way of being wrong: a model is spoiled in one way at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.errors import MixingError, ModelError
from paretune.models import soundness
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.soundness import check_once, check_sound


@pytest.fixture
def spoiled(llama: BaseModel) -> Iterator[Any]:
    """Let a test change what the first block returns."""
    hooks = []

    def spoil(change: Any) -> BaseModel:
        hooks.append(llama.model.model.layers[0].register_forward_hook(lambda block, args, hidden: change(hidden)))
        return llama

    yield spoil
    for hook in hooks:
        hook.remove()


def test_the_kinds_of_the_tests_are_sound(any_base: BaseModel) -> None:
    check_sound(any_base)
    assert getattr(any_base.model, "_paretune_bank", None) is None


def later_tokens(hidden: Tensor) -> Tensor:
    return hidden + hidden.mean(dim=1, keepdim=True)


def other_rows(hidden: Tensor) -> Tensor:
    return hidden + 0.1 * (hidden.mean(dim=0, keepdim=True) - hidden[:1])  # nothing where a row is alone


def one_token(hidden: Tensor) -> Tensor:
    return hidden * (1.1 if hidden.shape[1] == 1 else 1.0)  # what decoding reads


def no_gradient(hidden: Tensor) -> Tensor:
    return hidden.detach() + 0 * hidden


def not_finite(hidden: Tensor) -> Tensor:
    return hidden / 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (later_tokens, "one whose tokens see later ones"),
        (other_rows, "one whose rows depend on padding or on other rows of a batch"),
        (one_token, "one whose cache does not give what one pass gives"),
        (not_finite, "one whose logits or gradients are not finite"),
    ],
)
def test_a_model_that_computes_something_else_is_refused(spoiled: Any, change: Any, said: str) -> None:
    base = spoiled(change)
    message = rf"^model must be a decoder that reads rows .*of model_type 'llama': {said}\. Take one of .*gpt2, .*llama"
    with pytest.raises(ModelError, match=message):
        check_sound(base)
    assert getattr(base.model, "_paretune_bank", None) is None


def test_a_model_whose_adapters_get_no_gradient_is_refused(llama: BaseModel) -> None:
    hook = llama.model.lm_head.register_forward_pre_hook(lambda head, args: (args[0].detach().requires_grad_(),))
    try:
        with pytest.raises(ModelError, match="one whose adapters get no gradient"):
            check_sound(llama)
    finally:
        hook.remove()


def test_layers_that_see_rows_in_another_order_are_refused(llama: BaseModel) -> None:
    mlp: Any = llama.model.model.layers[0].mlp
    original = mlp.forward
    mlp.forward = lambda x: original(x.transpose(0, 1)).transpose(0, 1)
    try:
        with pytest.raises(ModelError, match=r"layer model\.layers\.0\.mlp\.\w+_proj does not see one row|MixingError"):
            check_sound(llama)
    finally:
        mlp.forward = original


def test_a_sound_configuration_is_tried_once_on_a_machine(llama: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    check_once(llama)  # loading has done so already
    monkeypatch.setattr(soundness, "check_sound", lambda base: pytest.fail("tried again"))
    check_once(llama)
    monkeypatch.setattr(llama.model.config, "rms_norm_eps", 1e-3)
    with pytest.raises(pytest.fail.Exception, match="tried again"):
        check_once(llama)


def test_what_was_refused_is_refused_again(tmp_path: Path) -> None:
    import tiny_models

    folder = tiny_models.save("mamba", tmp_path / "model", tiny_models.REFUSED["mamba"][0])
    for _ in range(2):
        with pytest.raises(ModelError, match="keeps a state of all it has read"):
            load_base(str(folder), device="cpu")


def test_rows_laid_flat_are_those_that_the_model_was_called_with(tmp_path: Path) -> None:
    import tiny_models

    base = load_base(str(tiny_models.save("opt", tmp_path / "model", tiny_models.WORKS["opt"])), device="cpu")
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 1]])
    try:
        with torch.no_grad():
            with bank.using(Mixing.of_rows(torch.eye(2))):
                both = base.model(ids).logits
            for row in range(2):
                with bank.using(Mixing.of_rows(torch.eye(2)[row : row + 1])):
                    torch.testing.assert_close(base.model(ids[row : row + 1]).logits[0], both[row], atol=1e-4, rtol=0)
            for name, module in base.model.named_modules():
                if name.endswith("fc1"):
                    with bank.using(Mixing.of_rows(torch.eye(2))), pytest.raises(MixingError, match="got 8"):
                        module(torch.zeros(8, 16))  # outside a call of the model nobody says how many rows there are
    finally:
        bank.unwrap()
