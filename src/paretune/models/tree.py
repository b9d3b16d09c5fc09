"""Log-probabilities of all completions of fixed length, as one tree of prefixes: each prefix is read once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from paretune.core.errors import ModelError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.models.readers.inputs import left_pad, positions_of
from paretune.models.readers.reader import Reader

PASS_TOKENS = 16_384  # of one pass; more does not make it faster on a CPU


def tree_log_probs(
    base: BaseModel,
    bank: ExpertBank | None,
    mixing: Mixing,
    prompts: Sequence[Sequence[int]],
    token_ids: Sequence[int],
    length: int,
    normalised: bool = True,
) -> Tensor:
    """Return the log-probability of every sequence of `length` tokens after each prompt, `[B, A^length]`, in nats.

    Each row is split by the first token, and the prefixes behind it are packed into one sequence in which every token
    attends to its ancestors only. Tokens that are not among `token_ids` keep their probability: a row sums to less than
    1 where the model may also say something else. Differentiable in the parameters of experts and gate.

    Args:
        base: The base model; its attention must read a ready-made mask.
        bank: Its bank of experts; None scores under the base model alone.
        mixing: Expert weights of the B rows.
        prompts: Token ids of each row's prompt.
        token_ids: The A tokens a completion may be made of.
        length: Tokens of every completion.
        normalised: False sums the logits of a completion's tokens in the place of their log-probabilities.

    Returns:
        Completions in lexicographic order of `token_ids`, the last token changing fastest.

    Raises:
        ModelError: If the model cannot read a tree.
    """
    if not (base.full_attention and base.takes_positions):
        raise ModelError(
            f"model must take positions and attend to all earlier tokens to score all completions at once, got "
            f"'{base.name}'. Score samples instead."
        )
    tree = _tree(len(token_ids), length)
    ids, real = left_pad(base, prompts)
    branches, size = tree.branches, ids.shape[1] + len(tree.token)
    parts = []
    reader = Reader(base, bank, mixing)
    mixing = reader.mixing
    each = max(1, PASS_TOKENS // (branches * size * reader.level.widest))
    for start in range(0, len(prompts), each):
        rows = torch.arange(start, min(start + each, len(prompts)))
        parts.append(_rows(base, bank, mixing, ids[rows], real[rows], rows, token_ids, tree, normalised))
    return torch.cat(parts)


class _Tree:
    """Shape of the prefixes behind one first token (or behind the prompt itself where completions are one token)."""

    def __init__(self, alphabet: int, length: int) -> None:
        self.alphabet, self.length = alphabet, length
        self.branches = alphabet if length > 1 else 1
        token, parent, depth = ([-1], [-1], [1]) if length > 1 else ([], [], [])  # -1: the branch's own token
        level = list(range(len(token)))
        for step in range(2, length):
            following = []
            for node in level:
                for each in range(alphabet):
                    following.append(len(token))
                    token.append(each)
                    parent.append(node)
                    depth.append(step)
            level = following
        self.token, self.depth = torch.tensor(token, dtype=torch.long), torch.tensor(depth, dtype=torch.long)
        count = len(token)
        self.ancestors = torch.eye(count, dtype=torch.bool)
        for node in range(count):  # parents come before their children
            if parent[node] >= 0:
                self.ancestors[node] |= self.ancestors[parent[node]]


@lru_cache(maxsize=8)
def _tree(alphabet: int, length: int) -> _Tree:
    return _Tree(alphabet, length)


def _rows(
    base: BaseModel, bank: ExpertBank | None, mixing: Mixing, ids: Tensor, real: Tensor, rows: Tensor,
    token_ids: Sequence[int], tree: _Tree, normalised: bool,
) -> Tensor:  # fmt: skip
    """Score some rows in one pass."""
    count, prompt = ids.shape
    branches, nodes, device = tree.branches, len(tree.token), base.device
    choices = torch.tensor(list(token_ids), device=device)
    first = choices[:branches].repeat(count)[:, None]  # [count * branches, 1]
    node_ids = torch.where(tree.token.to(device)[None] < 0, first, choices[tree.token.clamp(min=0).to(device)])
    ids, real = ids.repeat_interleave(branches, dim=0), real.repeat_interleave(branches, dim=0)
    mask = torch.zeros(len(ids), prompt + nodes, prompt + nodes, dtype=torch.bool, device=device)
    causal = torch.ones(prompt, prompt, dtype=torch.bool, device=device).tril()
    mask[:, :prompt, :prompt] = (causal[None] & real[:, None, :]) | torch.eye(prompt, dtype=torch.bool, device=device)
    mask[:, prompt:, :prompt] = real[:, None, :]
    mask[:, prompt:, prompt:] = tree.ancestors.to(device)
    before = real.sum(dim=1, keepdim=True)
    positions = torch.cat([positions_of(real), before - 1 + tree.depth.to(device)[None]], dim=1)
    whole = torch.cat([ids, node_ids[:, :nodes].expand(len(ids), nodes)], dim=1)
    reader = Reader(base, bank, mixing.rows(rows.repeat_interleave(branches)))
    logits = reader.whole(whole, real, nodes + 1, prompt - 1, mask[:, None], positions).float()
    said = logits.log_softmax(dim=-1) if normalised else logits
    table = said[:, :, choices].view(count, branches, nodes + 1, tree.alphabet)
    total = table[:, 0, 0]  # [count, A]: the first token, read in every branch alike
    if tree.length == 1:
        return total
    total = total[:, :, None]  # [count, A, prefixes so far]
    start, width = 1, 1
    for _ in range(1, tree.length):
        level = table[:, :, start : start + width]  # [count, A, width, A]
        total = (total[:, :, :, None] + level).flatten(2)
        start, width = start + width, width * tree.alphabet
    return total.flatten(1)
