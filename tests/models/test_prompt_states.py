"""States of prompts: what they are, and that each prompt is read once, whatever wraps the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from gated import PROMPTS, bank_of
from paretune.models.mixing import Mixing
from paretune.models.prompt_states import _known, block_inputs, forget_prompts, prompt_states
from reader_oracle import CLOSE

if TYPE_CHECKING:
    from paretune.models.base import BaseModel


@pytest.fixture(autouse=True)
def nothing_is_known(any_base: BaseModel) -> None:
    _known.pop(any_base, None)


def by_formula(base: BaseModel, prompt: tuple[int, ...]) -> Any:
    """Read one prompt on a model of its own: mean and last of its final states, to mean 0 and variance 1 each."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base.name).eval()
    with torch.no_grad():
        states = model(torch.tensor([prompt]), output_hidden_states=True, use_cache=False).hidden_states[-1][0]
    parts = []
    for each in (states.mean(dim=0), states[-1]):
        centred = each - each.mean()
        parts.append(centred / (centred.square().mean() + 1e-5).sqrt())  # 1e-5 is the eps of torch's layer norm
    return torch.cat(parts)


def test_states_are_the_mean_and_the_last_of_the_final_ones(any_base: BaseModel) -> None:
    bank_of(any_base)  # perturbed experts wrap the model, and play no part
    got = prompt_states(any_base, PROMPTS)
    assert got.shape == (len(PROMPTS), 2 * any_base.model.config.hidden_size)
    assert not got.requires_grad
    for prompt, row in zip(PROMPTS, got, strict=True):
        torch.testing.assert_close(row, by_formula(any_base, prompt), rtol=0, atol=CLOSE)


def test_each_prompt_is_read_once_and_equal_ones_are_equal_bit_for_bit(any_base: BaseModel) -> None:
    read: list[int] = []
    hook = any_base.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    one = prompt_states(any_base, PROMPTS)
    # four prompts are different, of lengths 4, 1, 2 and 3; each length is a pass
    assert read == [1, 1, 1, 1]
    again = prompt_states(any_base, [(7, 2), (1, 2, 3, 4), (5, 4)])
    hook.remove()
    assert read == [1, 1, 1, 1, 1]
    assert again[0].equal(one[3])
    assert again[1].equal(one[0])
    assert again[1].equal(one[2])


def test_the_oldest_states_go_where_more_numbers_than_allowed_are_kept(
    any_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = prompt_states(any_base, [(1,)]).numel()
    several = block_inputs(any_base, [(1,)]).numel()
    monkeypatch.setattr("paretune.models.prompt_states.MOST", 2 * each + several)
    for prompt in ((2,), (3,)):
        prompt_states(any_base, [prompt])
    assert list(_known[any_base]) == [("_inputs", (1,)), ("_last_states", (2,)), ("_last_states", (3,))]
    block_inputs(any_base, [(2,)])
    assert list(_known[any_base]) == [("_last_states", (2,)), ("_last_states", (3,)), ("_inputs", (2,))]


def test_what_is_forgotten_is_read_again_to_the_same_states(any_base: BaseModel) -> None:
    forget_prompts(any_base)  # of nothing: no error
    one = prompt_states(any_base, PROMPTS)
    forget_prompts(any_base)
    assert any_base not in _known
    assert prompt_states(any_base, PROMPTS).equal(one)


def test_a_pinned_mixing_goes_on_behind_it(any_base: BaseModel) -> None:
    bank = bank_of(any_base)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), bank.using(Mixing.of_rows(torch.tensor([[0.5, 0.2, 0.3]]))):
        before = any_base.model(ids).logits
        prompt_states(any_base, PROMPTS)
        assert any_base.model(ids).logits.equal(before)
