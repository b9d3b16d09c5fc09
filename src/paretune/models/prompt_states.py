"""What the base model makes of a prompt before it says anything: the context of gates that weigh by prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing

PARTS = 2  # the mean over the prompt's tokens, and its last token
ROWS_AT_ONCE = 64
MOST = 2**27  # numbers that are kept for each base model: half a GB of fp32

Read = Callable[[BaseModel, Sequence[tuple[int, ...]]], Tensor]
_known: WeakKeyDictionary[BaseModel, dict[tuple[str, tuple[int, ...]], Tensor]] = WeakKeyDictionary()


def prompt_states(base: BaseModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return what the base model alone makes of each prompt, `[B, 2 H]`, fp32.

    The states are those that the output head reads, behind the last block and the final norm. Their mean over the
    prompt's tokens and the state of its last token are layer-normed, each for itself, and stand behind each other.
    Each prompt is read once and kept; prompts of equal length are read together, so that nothing is padded.

    Args:
        base: The base model; a bank that wraps it plays no part.
        prompts: Token ids of each row's prompt, at least one token each.
    """
    return _kept(base, prompts, _last_states)


def block_inputs(base: BaseModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return what each block of the base model alone is given for a prompt's last token, `[B, blocks, H]`, fp32.

    Read and kept as `prompt_states` are.

    Args:
        base: The base model; a bank that wraps it plays no part.
        prompts: Token ids of each row's prompt, at least one token each.
    """
    return _kept(base, prompts, _inputs)


def _kept(base: BaseModel, prompts: Sequence[Sequence[int]], read: Read) -> Tensor:
    rows = [(read.__name__, tuple(prompt)) for prompt in prompts]
    kept = _known.setdefault(base, {})
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for key in dict.fromkeys(rows):
        if key not in kept:
            by_length.setdefault(len(key[1]), []).append(key[1])
    for alike in by_length.values():
        for start in range(0, len(alike), ROWS_AT_ONCE):
            part = alike[start : start + ROWS_AT_ONCE]
            kept.update(zip(((read.__name__, each) for each in part), read(base, part), strict=True))
    found = torch.stack([kept[key] for key in rows])
    if by_length:
        size = sum(states.numel() for states in kept.values())
        while size > MOST:
            size -= kept.pop(next(iter(kept))).numel()  # the oldest
    return found


def forget_prompts(base: BaseModel) -> None:
    """Let go of all states that are kept for a base model: what comes next is read as if for the first time."""
    _known.pop(base, None)


def _last_states(base: BaseModel, prompts: Sequence[tuple[int, ...]]) -> Tensor:
    states = _read(base, prompts).last_hidden_state.float()
    size = states.shape[2]
    return torch.cat([F.layer_norm(each, (size,)) for each in (states.mean(dim=1), states[:, -1])], dim=1)


def _inputs(base: BaseModel, prompts: Sequence[tuple[int, ...]]) -> Tensor:
    entering = _read(base, prompts, output_hidden_states=True).hidden_states[:-1]  # the last one leaves the final norm
    return torch.stack([each[:, -1].float() for each in entering], dim=1)


@torch.no_grad()
def _read(base: BaseModel, prompts: Sequence[tuple[int, ...]], **asked: bool) -> Any:
    """Read prompts of equal length in one pass."""
    bank = getattr(base.model, "_paretune_bank", None)
    ids = torch.tensor(prompts, device=base.device)
    with nullcontext() if bank is None else bank.using(Mixing.reference(len(prompts))):
        return base.model.base_model(input_ids=ids, use_cache=False, **asked)
