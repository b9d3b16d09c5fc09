"""Completions of policies with their scores, charged for: what evaluations, searches and bandits have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from paretune.core.errors import ShapeError
from paretune.core.ledger import Ledger
from paretune.core.scores import Score, Scores
from paretune.core.task import Row

if TYPE_CHECKING:
    from paretune.models.completions import Completions
    from paretune.models.policy import Policy


def scored_completions(
    policy: Policy,
    rows: Sequence[Row],
    owners: Sequence[int],
    score: Score,
    columns: int,
    samples: int = 1,
    seed: int | Sequence[int] = 0,
    ledger: Ledger | None = None,
    timed: bool = False,
) -> tuple[Completions, Scores]:
    """Sample completions at temperature 1, score them, and charge both.

    Args:
        policy: M preferences; each prompt is read once, and under the base model, for the KL.
        rows: Prompts with their columns; one that several preferences answer is there for each.
        owners: Which of the M preferences answers each.
        score: Scores completions.
        columns: Objectives that it scores, audit objectives among them.
        samples: Completions per prompt.
        seed: Of the noise; one for all, or one per prompt.
        ledger: Charged, of completions before they are sampled; None where they are free.
        timed: Whether it is told of the seconds too: a stage that times nothing is given the time of all it does.

    Returns:
        Completions with log-probabilities under the base model, the samples of a prompt next to each other, and their
        scores.

    Raises:
        BudgetError: If the ledger's budget does not allow it.
        ShapeError: If the score does not have as many columns.
    """
    own = Ledger() if ledger is None else ledger  # nobody looks at one that is made here
    phase: Callable[[str], AbstractContextManager[None]] = own.timed if timed else lambda name: nullcontext()
    own.charge(completions=samples * sum(policy.draws(owner) for owner in owners), prompts=len(rows))
    with phase("sampling"):
        made = policy.generate([str(row["prompt"]) for row in rows], owners, samples, seed=seed, reference=True)
    with phase("scoring"):
        scores = score([rows[prompt] for _, prompt, _ in made.row_ids], made.texts)
    if scores.rewards.shape[1] != columns:
        raise ShapeError(
            f"score must have one column per objective ({columns}), got {scores.rewards.shape[1]}. Name those that it "
            "scores, audit objectives behind the others."
        )
    kept, dropped, who = int(made.lengths.sum()), made.dropped_tokens, sorted(set(owners))
    read = sum(len(ids) for ids in made.prompt_ids[::samples])
    flops = policy.flops(who, kept + read, reference_passes=1, prompt_tokens=read) + policy.flops(who, dropped)
    own.charge(tokens=kept + dropped, flops=flops)
    own.count_rewards((scores.statuses == "ok").sum(axis=0).tolist(), len(scores.rewards), scores.faults)
    return made, scores
