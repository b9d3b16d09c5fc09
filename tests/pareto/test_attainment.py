from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.pareto.attainment import SHARES, attainment_surface, seeds_attaining

ORIGIN = (0.0, 0.0)
# three seeds: the first reaches far in the first objective, the second in the second, the third lies in between
SEEDS = ([[4, 1], [3, 1]], [[1, 4]], [[2, 2]])


def test_the_best_the_median_and_all_of_three_seeds() -> None:
    best, median, every = (attainment_surface(SEEDS, share, ORIGIN).tolist() for share in SHARES)
    assert best == [[0, 4], [1, 4], [1, 2], [2, 2], [2, 1], [4, 1], [4, 0]]  # one seed is enough
    # two seeds: (1, 4) and (2, 2) both attain (1, 2); (4, 1) and (2, 2) both attain (2, 1)
    assert median == [[0, 2], [1, 2], [1, 1], [2, 1], [2, 0]]
    assert every == [[0, 1], [1, 1], [1, 0]]


def test_one_seed_is_its_own_staircase_at_every_share() -> None:
    for share in SHARES:
        assert attainment_surface([[[1, 2], [2, 1]]], share, (0.5, 0)).tolist() == [
            [0.5, 2], [1, 2], [1, 1], [2, 1], [2, 0]
        ]  # fmt: skip


def test_what_is_not_above_the_reference_point_is_left_out_but_its_seed_counts() -> None:
    below = [[-1.0, 5.0]]
    assert attainment_surface([[[1, 1]], below], 0.5, ORIGIN).tolist() == [[0, 1], [1, 1], [1, 0]]
    assert attainment_surface([[[1, 1]], below], 0.9, ORIGIN).shape == (0, 2)  # both seeds attain nothing above it


def test_a_seed_without_points_attains_nothing_and_counts() -> None:
    empty = np.zeros((0, 2))
    seeds = [[[1, 1]], empty, [[2, 1]]]
    assert attainment_surface(seeds, 0.5, ORIGIN).tolist() == [[0, 1], [1, 1], [1, 0]]  # both of the other two
    assert attainment_surface(seeds, 0.9, ORIGIN).shape == (0, 2)
    assert attainment_surface([empty], 0.1, ORIGIN).shape == (0, 2)


def test_how_many_seeds_a_share_is() -> None:
    assert [[seeds_attaining(share, seeds) for share in SHARES] for seeds in (1, 2, 3, 4, 5, 10, 20)] == [
        [1, 1, 1], [1, 1, 2], [1, 2, 3], [1, 2, 4], [1, 3, 5], [1, 5, 9], [2, 10, 18]
    ]  # fmt: skip
    assert seeds_attaining(0.07, 100) == 7  # .07 x 100 is 7.000000000000001
    assert seeds_attaining(1e-12, 3) == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.01, 1.0))
def test_what_lies_inside_is_attained_by_the_share_and_what_lies_outside_is_not(
    seed: int, seeds: int, share: float
) -> None:
    """Against the definition, on the middles of a lattice that all scores lie on."""
    generator = np.random.default_rng(seed)
    points = [generator.integers(-1, 6, size=(generator.integers(0, 5), 2)).astype(float) for _ in range(seeds)]
    edge = attainment_surface(points, share, ORIGIN)
    needed = math.ceil(share * seeds - 1e-9)
    for first in np.arange(0.5, 7):
        for second in np.arange(0.5, 7):
            target = np.array([first, second])
            attained = sum(bool((each >= target).all(axis=1).any()) for each in points) >= needed
            assert bool((edge >= target).all(axis=1).any()) == attained
    steps = np.diff(edge, axis=0)
    assert ((steps == 0).sum(axis=1) >= 1).all()
    assert (steps[:, 0] >= 0).all()
    assert (steps[:, 1] <= 0).all()


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"share must be above 0 and at most 1, got 50. Write 50 % as 0.5."):
        attainment_surface(SEEDS, 50, ORIGIN)
    with pytest.raises(ConfigError, match="seeds must be at least 1, got 0"):
        seeds_attaining(0.5, 0)
    with pytest.raises(ShapeError, match="points must have one set a seed, got none"):
        attainment_surface([], 0.5, ORIGIN)
    with pytest.raises(ShapeError, match="points must have two objectives, got 3"):
        attainment_surface([[[1, 2, 3]]], 0.5, ORIGIN)
    with pytest.raises(NonFiniteError, match="points must be finite"):
        attainment_surface([[[math.nan, 1]]], 0.5, ORIGIN)
