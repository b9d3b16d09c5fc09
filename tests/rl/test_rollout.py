from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import micro_task
from paretune.core.errors import ShapeError
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing
from paretune.rl.rollout import BankSampler, Prompts, PromptStream

IDS = [(1,), (2, 2), (3,), (2, 2), (4, 5)]  # two prompts are equal
ROWS = [{"prompt": str(number), "prompt_id": str(number)} for number in range(len(IDS))]


def stream(seed: int = 0) -> PromptStream:
    return PromptStream(Prompts(ROWS, IDS), seed)


@given(first=st.integers(0, 40), count=st.integers(0, 20), split=st.integers(0, 20))
def test_prompts_depend_on_the_position_alone(first: int, count: int, split: int) -> None:
    whole = stream().indices(0, 80)
    mine = stream()
    split = min(split, count)
    assert mine.indices(first, split) + mine.indices(first + split, count - split) == whole[first : first + count]


def test_every_epoch_visits_every_prompt_once_in_another_order() -> None:
    epochs = np.reshape(stream().indices(0, 50), (10, 5))
    assert (np.sort(epochs, axis=1) == np.arange(5)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1
    assert stream(1).indices(0, 50) != stream(0).indices(0, 50)


def test_every_completion_of_a_step_has_its_own_noise_even_where_a_prompt_comes_up_again() -> None:
    keys = stream().keys([0, 1, 2, 3, 1, 0], step=4, group_size=3)
    assert len(set(keys.tolist())) == 18


def test_noise_of_a_prefix_of_a_step_is_the_prefix_of_its_noise() -> None:
    whole = stream().keys([1, 3, 1, 0], 4, 2)
    np.testing.assert_array_equal(stream().keys([1, 3], 4, 2), whole[:4])


def test_noise_differs_between_steps_and_seeds() -> None:
    keys = [*stream().keys([0], 0, 2), *stream().keys([0], 1, 2), *stream(1).keys([0], 0, 2)]
    assert len({int(key) for key in keys}) == 6


def test_a_batch_keeps_rows_prompts_ids_and_texts_together(base: BaseModel) -> None:
    bank = micro_task.perturb(ExpertBank(base, 3, rank=2))
    rows, ids = [ROWS[0]] * 4 + [ROWS[4]] * 4, [IDS[0]] * 4 + [IDS[4]] * 4
    batch = BankSampler(bank)(Mixing.population(3, 4, (2, 0)), rows, ids, stream().keys([0, 4], 0, 4), 2)
    assert (batch.rows, batch.prompt_ids) == (tuple(rows), tuple(ids))
    for row, size in enumerate(batch.lengths.tolist()):
        assert batch.texts[row] == micro_task.text_of(tuple(batch.token_ids[row, :size].tolist()))


def test_a_stream_may_visit_some_prompts_alone_each_once_an_epoch() -> None:
    some = PromptStream(Prompts(ROWS, IDS), 0, (4, 1))
    epochs = np.reshape(some.indices(0, 40), (20, 2))
    assert (np.sort(epochs, axis=1) == [1, 4]).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 2
    assert PromptStream(Prompts(ROWS, IDS), 0, range(5)).indices(0, 50) == stream().indices(0, 50)
    np.testing.assert_array_equal(some.keys([4, 1], 3, 2), stream().keys([4, 1], 3, 2))  # noise goes with the prompt


@pytest.mark.parametrize(
    ("among", "got"), [((), "none"), ((5,), r"\[5\]"), ((-1, 0), r"\[-1\]"), ((0, 3, 1, 3), r"\[3\]")]
)
def test_prompts_that_are_not_there_or_named_twice_cannot_be_visited(among: tuple[int, ...], got: str) -> None:
    message = rf"among must name some of the 5 prompts by their numbers, none twice, got {got}\. Leave it out"
    with pytest.raises(ShapeError, match=message):
        PromptStream(Prompts(ROWS, IDS), 0, among)
