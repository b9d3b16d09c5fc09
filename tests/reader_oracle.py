"""All ways to read rows, against one plain pass over each prefix: `import reader_oracle`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bank import ExpertBank
    from paretune.models.base import BaseModel
    from paretune.models.mixing import Mixing

PROMPTS = [[1, 2], [3], [4, 5, 6, 2], [1, 2], [1, 2], [7, 7]]  # of several lengths; the fourth and fifth are the first
ROWS = len(PROMPTS)
LETTERS = [5, 1, 3]
NEW = 6
CLOSE = 1e-5  # fp32, and sums in another order

Oracle = Callable[[int, list[int]], "Tensor"]  # (row, prompt and completion so far) -> log-probabilities [V]


def check(base: BaseModel, bank: ExpertBank, mixing: Mixing, oracle: Oracle) -> None:
    """Compare sampling, both ways of scoring, and the tree with an oracle."""
    import torch

    from paretune.core.seeds import row_keys
    from paretune.models.decoding import sample
    from paretune.models.scoring import completion_log_probs
    from paretune.models.tree import tree_log_probs

    with torch.no_grad():
        keys = row_keys([2] * ROWS, 0, list(range(ROWS)), [0] * ROWS)
        rollout = sample(base, bank, PROMPTS, mixing, keys, NEW)
        assert len(set(rollout.lengths.tolist())) > 1  # some rows left early
        ids = [rollout.token_ids[row, : int(rollout.lengths[row])].tolist() for row in range(ROWS)]
        expected = torch.zeros_like(rollout.log_probs)
        for row, own in enumerate(ids):
            for place, token in enumerate(own):
                expected[row, place] = oracle(row, [*PROMPTS[row], *own[:place]])[token]
        torch.testing.assert_close(rollout.log_probs, expected, atol=CLOSE, rtol=0)
        alone = sample(base, bank, PROMPTS, mixing, keys, NEW, share_prefill=False)
        assert alone.token_ids.equal(rollout.token_ids)
        with two_parts_at(0):  # prompts are too short here to be worth it
            parts = sample(base, bank, PROMPTS, mixing, keys, NEW)
            alone = sample(base, bank, PROMPTS, mixing, keys, NEW, share_prefill=False)
        assert parts.token_ids.equal(rollout.token_ids)
        assert alone.token_ids.equal(rollout.token_ids)
        torch.testing.assert_close(parts.log_probs, expected, atol=CLOSE, rtol=0)
        for share in (True, False):
            scored = completion_log_probs(
                base, bank, mixing, PROMPTS, rollout.token_ids, rollout.lengths, share_prompts=share
            )
            torch.testing.assert_close(scored, expected, atol=CLOSE, rtol=0)
        table = tree_log_probs(base, bank, mixing, PROMPTS, LETTERS, 2)
        for row in range(ROWS):
            first = oracle(row, PROMPTS[row])
            listed = [first[letter] + oracle(row, [*PROMPTS[row], letter])[LETTERS] for letter in LETTERS]
            torch.testing.assert_close(table[row], torch.cat(listed), atol=CLOSE, rtol=0)


@contextmanager
def two_parts_at(least: int) -> Iterator[None]:
    """Decode in two parts from another size on, see `readers.two_parts`."""
    from paretune.models.readers import two_parts

    before, two_parts.LEAST = two_parts.LEAST, least
    try:
        yield
    finally:
        two_parts.LEAST = before


def logits(base: BaseModel, bank: ExpertBank, weights: Tensor, ids: list[int]) -> Tensor:
    """Return the logits of the next token under adapters mixed with weights `[E]`, by one plain pass, `[V]`."""
    import torch

    from paretune.models.mixing import Mixing

    with bank.using(Mixing.of_rows(weights[None])):
        out: Tensor = base.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return out


@contextmanager
def recomputing(base: BaseModel, reentrant: bool = False) -> Iterator[None]:
    """Train under gradient checkpointing, without dropout."""
    from torch import nn

    base.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    base.model.train()  # transformers recomputes in training mode only
    dropouts = [(module, module.p) for module in base.model.modules() if isinstance(module, nn.Dropout)]
    for dropout, _ in dropouts:
        dropout.p = 0.0
    try:
        yield
    finally:
        base.model.activation_checkpointing_disable()
        base.model.disable_input_require_grads()
        base.model.eval()
        for dropout, p in dropouts:
            dropout.p = p


def weights_of(rows: int, experts: int, seed: int = 0) -> Tensor:
    """Return weights on the simplex that differ from row to row, `[rows, experts]`."""
    import torch

    drawn = np.random.default_rng(seed).dirichlet(np.ones(experts), rows)
    return torch.tensor(drawn, dtype=torch.float32)
