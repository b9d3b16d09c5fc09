"""Fluency: a reply that a separate language model finds likely, without repeating itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paretune.core.checks import text_pairs
from paretune.core.progress_bars import no_progress_bars
from paretune.objectives import lexicon

if TYPE_CHECKING:
    from torch import Tensor

JUDGE: Final = Path(__file__).parent / "fluency_judge"
TEMPLATE: Final = "Client: {prompt}\nCounselor:"
LOW: Final = -0.75  # mean log-probability per token that scores 0: a quarter of the base model's replies lie below
HIGH: Final = -0.25  # ... and that scores 1: one in twenty lies above
MAX_PROMPT_TOKENS: Final = 64  # the judge learned from statements of up to 44; of a longer one it reads the end
MAX_REPLY_TOKENS: Final = 96  # ... and of a reply the beginning
BATCH_SIZE: Final = 64


def fluency(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Score how likely each reply is, token by token, under a judge trained on other text than the base model.

    The mean log-probability per token, end included, maps to [0, 1] in a straight line from `LOW` to `HIGH` and is
    multiplied by the share of distinct word pairs. A reply without a word scores 0.

    Args:
        prompts: Client statements; the judge reads them first, so that their words are no surprise in the reply.
        completions: Replies.
        **columns: Further columns of the task, not read.

    Returns:
        One reward in [0, 1] a reply.

    Raises:
        ShapeError: If prompts and completions are not two lists of texts of one length.
    """
    replies = [" ".join(completion.split()) for _, completion in text_pairs(prompts, completions)]
    scores: list[float | None] = [0.0] * len(replies)
    spoken = [index for index, text in enumerate(replies) if lexicon.words(text)]
    for start in range(0, len(spoken), BATCH_SIZE):
        rows = spoken[start : start + BATCH_SIZE]
        likelihoods = mean_log_probs([prompts[i] for i in rows], [replies[i] for i in rows])
        for index, likelihood in zip(rows, likelihoods, strict=True):
            share = (likelihood - LOW) / (HIGH - LOW)
            scores[index] = min(1.0, max(0.0, share)) * lexicon.distinct_share(lexicon.words(replies[index]))
    return scores


def mean_log_probs(prompts: list[str], replies: list[str]) -> list[float]:
    """Mean log-probability per token of each reply and its end, given its statement, under the judge.

    Args:
        prompts: Client statements.
        replies: Non-empty replies without leading space.
    """
    import torch

    model, tokenizer = _judge()
    end, rows, starts = tokenizer.eos_token_id, [], []
    for prompt, reply in zip(prompts, replies, strict=True):
        asked = tokenizer(TEMPLATE.format(prompt=prompt), verbose=False)["input_ids"][-MAX_PROMPT_TOKENS:]
        rows.append(asked + tokenizer(" " + reply, verbose=False)["input_ids"][:MAX_REPLY_TOKENS] + [end])
        starts.append(len(asked))
    longest = max(map(len, rows))
    ids = torch.tensor(
        [row + [end] * (longest - len(row)) for row in rows]
    )  # right padding: a causal model never sees it
    with torch.inference_mode():
        log_probs: Tensor = model(input_ids=ids[:, :-1]).logits.float().log_softmax(-1)
    picked = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return [picked[i, starts[i] - 1 : len(row) - 1].mean().item() for i, row in enumerate(rows)]


@cache
def _judge() -> tuple[Any, Any]:
    """Load the judge and its tokenizer, once a process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(JUDGE, dtype=torch.float32)
    model.train(False)
    return model, AutoTokenizer.from_pretrained(JUDGE)
