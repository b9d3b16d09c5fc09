from __future__ import annotations

import pytest

from paretune.core.errors import BudgetError
from paretune.rl.lengths import Lengths, Update


def last(length: int, measured: int, step: int = 16, group: int = 4) -> Update:
    """Return the update that a run ends with which measures before its second update, and has made the first."""
    lengths = Lengths((length,), step, group, lambda update: measured if update == 1 else 0, updates=1)
    ((found, update),) = lengths.before_whole()
    assert found == length
    return update


@pytest.mark.parametrize(
    ("room", "update"),
    [
        (0, Update(0, 0)),
        (3, Update(0, 0)),  # less than a group
        (4, Update(0, 4)),  # nothing would be left to learn from behind 8 measured ones
        (11, Update(0, 8)),
        (12, Update(8, 4)),
        (23, Update(8, 12)),
    ],
)
def test_a_length_ends_with_what_measuring_leaves(room: int, update: Update) -> None:
    assert last(16 + room, 8) == update


@pytest.mark.parametrize(
    ("room", "update"),
    [
        (16, Update(0, 16)),
        (19, Update(0, 16)),
        (20, Update(4, 16)),
        (43, Update(24, 16)),  # 43 = 24 + 16 and less than a group
        (44, Update(40, 4)),
        (55, Update(40, 12)),
    ],
)
def test_no_update_is_longer_than_a_whole_one_where_more_are_measured_than_that(room: int, update: Update) -> None:
    """Of 40 wanted development completions, as many are made as a whole update of 16 leaves."""
    assert last(16 + room, 40) == update


def test_every_length_is_spent_but_for_less_than_a_group() -> None:
    for measured in (0, 4, 16, 40):
        for length in range(16, 16 + measured + 16):
            update = last(length, measured)
            assert 0 <= length - 16 - update.measured - update.size < 4
            assert update.size <= 16
            assert update.measured <= measured


@pytest.mark.parametrize(
    ("length", "update"),
    [(5, Update(0, 4, 1)), (9, Update(0, 4, 1)), (10, Update(0, 8, 2)), (19, Update(0, 12, 3))],
)
def test_a_greedy_completion_of_each_prompt_is_paid_for(length: int, update: Update) -> None:
    ((found, last),) = Lengths((length,), 16, 4, greedy=1).before_whole()
    assert (found, last) == (length, update)


def test_a_whole_update_costs_its_greedy_completions_too() -> None:
    lengths = Lengths((39, 45), 16, 4, greedy=1)
    assert lengths.whole() == Update(0, 16, 4)
    lengths.updates = 1
    assert lengths.done == 20
    assert lengths.whole() == Update(0, 16, 4)
    assert lengths.before_whole() == [(39, Update(0, 12, 3))]
    with pytest.raises(BudgetError, match="at least one group of 5 for each expert, got 4"):
        Lengths((4,), 16, 4, greedy=1)


def test_a_length_below_one_group_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one group of 4 for each expert, got 3"):
        Lengths((16, 3), 16, 4)
