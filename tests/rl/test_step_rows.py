from __future__ import annotations

import pytest
import torch

from paretune.models.mixing import Mixing
from paretune.rl.rollout import Batch
from paretune.rl.step_rows import StepRows


def rows(members: int = 2, own: int = 2, again: int = 4) -> StepRows:
    """Rows whose one token says where they stand."""
    count = members * (own + again)
    numbers = torch.arange(count)
    prompts = [(number,) for number in range(count)]
    return StepRows(
        prompts, numbers[:, None], torch.ones(count), Mixing.population(members, own + again), members, own, again
    )


def test_of_each_member_the_completions_of_the_update_come_first() -> None:
    (only,) = rows().passes()
    # members have rows 0 to 5 and 6 to 11, the first two of each their own
    assert isinstance(only.own_at, torch.Tensor)
    assert only.token_ids[only.own_at, 0].tolist() == [0, 1, 6, 7]
    assert only.token_ids[only.again_at, 0].tolist() == [2, 3, 4, 5, 8, 9, 10, 11]
    assert isinstance(only.own, torch.Tensor)
    assert only.own.tolist() == [0, 1, 2, 3]
    assert only.again.tolist() == list(range(8))
    assert only.mixing.is_population


@pytest.mark.parametrize("micro", [2, 4])
def test_passes_of_some_rows_are_equally_many_of_every_member_and_cover_all(micro: int) -> None:
    parts = list(rows().passes(micro))
    assert [len(part.prompt_ids) for part in parts] == [2 * min(micro, 6 - start) for start in range(0, 6, micro)]
    read = [prompt for part in parts for (prompt,) in part.prompt_ids]
    assert sorted(read) == list(range(12))
    assert all(part.mixing.is_population for part in parts)
    assert sorted(place for part in parts for place in part.own.tolist()) == list(range(4))  # type: ignore[union-attr]
    assert sorted(place for part in parts for place in part.again.tolist()) == list(range(8))
    assert [part.has_own for part in parts] == [True] + [False] * (len(parts) - 1)


def test_an_update_alone_is_read_as_it_is() -> None:
    batch = Batch((), ((0,), (1,)), torch.arange(2)[:, None], torch.ones(2), torch.zeros(2, 1), ("", ""))
    mixing = Mixing.population(1, 2)
    (only,) = StepRows.of(batch, mixing, 1).passes(8)
    assert only.token_ids is batch.token_ids
    assert only.mixing is mixing
    assert only.own == slice(None)
    assert len(only.again) == 0
