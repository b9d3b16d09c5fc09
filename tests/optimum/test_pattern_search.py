from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.optimum.pattern_search import pattern_search

TOPS = np.asarray([[0.3, -0.2], [1.4, 0.9], [-0.05, 0.0]])


def bowls(tried: Any) -> Any:
    """Return three tilted parabolas at `[C, 3, 2]`, each with its own top."""
    away = tried - TOPS
    return -(away**2).sum(axis=2) - 0.8 * away[..., 0] * away[..., 1]


def test_the_top_of_a_parabola_is_found_in_one_round_where_it_is_near() -> None:
    """A parabola through the pattern is the function itself, so its top is exact: .3 and .2 lie within two steps."""
    found = pattern_search(bowls, np.zeros((1, 3, 2)), step=0.25, rounds=1)
    assert found.points[0] == pytest.approx(TOPS[0], abs=1e-9)
    assert found.points[2] == pytest.approx(TOPS[2], abs=1e-9)
    assert found.evaluations == 1 + 9


def test_far_tops_are_walked_to_and_evaluations_are_counted() -> None:
    calls = []

    def counted(tried: Any) -> Any:
        calls.append(len(tried))
        return bowls(tried)

    found = pattern_search(counted, np.zeros((1, 3, 2)), step=0.25, rounds=6)
    assert found.points == pytest.approx(TOPS, abs=1e-6)
    assert found.values == pytest.approx(0.0, abs=1e-9)
    assert found.evaluations == sum(calls) == 1 + 6 * 9


def test_bounds_hold_and_the_best_within_them_is_found() -> None:
    tried_all = []

    def line(tried: Any) -> Any:
        tried_all.append(tried)
        return -((tried[..., 0] - np.asarray([0.42, 1.7, -3.0])) ** 2)

    found = pattern_search(line, np.full((1, 3, 1), 0.5), step=0.1, rounds=8, low=0.0, high=1.0)
    assert found.points[:, 0] == pytest.approx([0.42, 1.0, 0.0], abs=1e-9)
    assert all((each >= 0).all() and (each <= 1).all() for each in tried_all)
    assert found.evaluations == 1 + 8 * 3


@pytest.mark.parametrize("seed", range(3))
def test_no_result_is_worse_than_any_start(seed: int) -> None:
    random = np.random.default_rng(seed)
    centres, starts = random.normal(size=(5, 4, 2)), random.normal(size=(3, 4, 2))

    def rugged(tried: Any) -> Any:
        return np.cos(7 * (tried[..., None, :, :] - centres)).sum(axis=(-3, -1))

    found = pattern_search(rugged, starts, step=0.5, rounds=3)
    assert (found.values >= rugged(starts).max(axis=0)).all()
    assert rugged(found.points[None])[0] == pytest.approx(found.values)


def test_values_that_are_no_number_are_never_the_best() -> None:
    def broken(tried: Any) -> Any:
        return np.where(tried[..., 0] > 0, np.nan, tried[..., 0])

    found = pattern_search(broken, np.full((1, 1, 1), -0.5), step=0.25, rounds=4)
    assert found.values[0] == pytest.approx(0.0, abs=0.25)
    assert np.isfinite(found.points).all()


def test_a_point_without_a_value_hides_no_better_one_beside_it() -> None:
    starts = np.asarray([-1.0, 0.0, 1.0])[:, None, None]

    def holed(tried: Any) -> Any:  # no value at -1 nor, in the first round, at 1.25; the top is at 2
        return np.where(np.isin(tried[..., 0], (-1.0, 1.25)), np.nan, -((tried[..., 0] - 2) ** 2))

    found = pattern_search(holed, starts, step=0.25, rounds=0)
    assert (found.points.item(), found.values.item()) == (1.0, -1.0)
    # of the neighbours of 1, .75 and 1.25, one is worse and one has no value: half the step finds 1.125
    assert pattern_search(holed, starts, step=0.25, rounds=2).values.item() >= -(0.875**2)


def test_a_function_without_a_value_at_any_start_is_refused() -> None:
    def second(tried: Any) -> Any:
        return np.where(np.arange(3) == 1, np.nan, bowls(tried))

    with pytest.raises(NonFiniteError, match=r"starts must have a value .*, got none for function 1 of 3\. Start"):
        pattern_search(second, np.zeros((2, 3, 2)), step=0.25, rounds=1)


def test_flat_functions_leave_searches_where_they_start() -> None:
    found = pattern_search(lambda tried: np.zeros(tried.shape[:2]), np.ones((1, 2, 2)), step=0.5, rounds=2)
    assert found.points.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_starts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"starts must have shape \[S, N, D\], got \(3, 2\)\. Give one row"):
        pattern_search(bowls, np.zeros((3, 2)), step=0.1, rounds=1)
    for step, low in ((0.0, -1.0), (0.1, 0.5)):
        with pytest.raises(ConfigError, match=r"step must be positive and starts between .* Start inside"):
            pattern_search(bowls, np.zeros((1, 3, 2)), step=step, rounds=1, low=low)
