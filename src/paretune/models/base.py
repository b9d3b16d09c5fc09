"""The frozen base model and its tokenizer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from paretune.core.model_config import context_limit
from paretune.core.prompt_format import PromptEncoder, PromptFormat
from paretune.models.whole import embedding_rows, named_end


@dataclass(eq=False)
class BaseModel:
    """A frozen decoder-only language model with its tokenizer.

    Attributes:
        name: Folder or hub id it came from.
        digest: Digest of its files, see `core.digests.model_digest`.
        model: The transformers model, in evaluation mode, no parameter of it trainable.
        tokenizer: Its tokenizer.
    """

    name: str
    digest: str
    model: Any
    tokenizer: Any

    @cached_property
    def device(self) -> torch.device:
        """Where it computes; looked up once, as transformers asks the parameters anew each time."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of its parameters."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @cached_property
    def parameters(self) -> int:
        """Number of parameters, tied ones counted once; the same whether a bank wraps the model or not."""
        bank = getattr(self.model, "_paretune_bank", None)
        experts = set() if bank is None else {id(each) for each in bank.expert_parameters()}
        return sum(each.numel() for each in self.model.parameters() if id(each) not in experts)

    @cached_property
    def context_tokens(self) -> int | None:
        """Longest sequence it can read, or None when its configuration names no limit."""
        return context_limit(self.model.config.to_dict())

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end a completion."""
        return named_end(self.model.generation_config, self.model.config, self.tokenizer, self.name)

    @cached_property
    def pad_id(self) -> int:
        """Token id that fills up rows; never read by attention, so any id will do."""
        pad = getattr(self.tokenizer, "pad_token_id", None)
        return int(pad) if pad is not None else next(iter(self.end_ids), 0)

    @cached_property
    def takes_positions(self) -> bool:
        """Whether its forward pass accepts `position_ids`."""
        return "position_ids" in inspect.signature(self.model.forward).parameters

    @cached_property
    def full_attention(self) -> bool:
        """Whether every layer attends to all earlier tokens, so that one ready-made mask serves all of them."""
        config = self.model.config
        kinds = getattr(config, "layer_types", None) or ["full_attention"]
        named = {name: value for name, value in config.to_dict().items() if name != "max_window_layers"}
        if named.get("layer_types") or named.get("use_sliding_window") is False:
            named.pop("sliding_window", None)
        windows = ("window" in name or "chunk" in name for name, value in named.items() if type(value) is int and value)
        if any(windows):
            return False
        if getattr(config, "alibi", False):  # distances are made from the plain mask
            return False
        return set(kinds) == {"full_attention"} and config._attn_implementation == "sdpa"

    @cached_property
    def encoder(self) -> PromptEncoder:
        """What turns prompts into token ids."""
        return PromptEncoder.of(self.tokenizer, self.end_ids, embedding_rows(self.model))

    def encode(self, prompt: str, prompt_format: PromptFormat = PromptFormat()) -> list[int]:  # noqa: B008  # frozen
        """Return the token ids that the model reads for a prompt.

        Raises:
            ShapeError: If it is no text.
            ModelError: If the tokenizer has no token for a part of it and none for what it does not know, or can read
                the text of a special token in no other way.
        """
        return list(self.encoder.ids(prompt, prompt_format))

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of a completion, special tokens left out."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def freeze(base: BaseModel) -> BaseModel:
    """Put a base model in evaluation mode and make none of its parameters trainable."""
    module: nn.Module = base.model
    module.eval()
    module.requires_grad_(False)
    return base
