import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.cross_fitting import prompt_halves
from paretune.pareto.hypervolume import hypervolume
from paretune.pareto.polar import cross_fitted_hypervolume, hypervolume_pair, polar_directions, polar_hypervolume

seeds = st.integers(0, 2**32 - 1)


def sphere(count, objectives):
    points = np.abs(np.random.default_rng(1).normal(size=(count, objectives)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def noisy(true, sd, prompts, generator):
    """Scores `[N, P, K]` whose mean over prompts is the true score with a noise of `sd`."""
    return true[:, None] + generator.normal(0, sd * math.sqrt(prompts), size=(len(true), prompts, true.shape[1]))


def by_loops(first, second, corner, directions):
    """The definition, one direction and one candidate at a time."""
    objectives, total = len(corner), 0.0
    for direction in directions:
        radii = [
            [min(max(0, f - z) / d for f, z, d in zip(row, corner, direction)) for row in half]
            for half in (first, second)
        ]
        for chooser, judge in (radii, radii[::-1]):
            total += judge[chooser.index(max(chooser))] ** objectives / 2
    return math.pi ** (objectives / 2) / 2**objectives / math.gamma(objectives / 2 + 1) * total / len(directions)


def test_directions_are_even_unit_vectors_and_always_the_same():
    for objectives in (1, 2, 3, 6):
        directions = polar_directions(objectives)
        assert (directions > 0).all()
        assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(len(directions)))
        # E theta_k^2 = 1/K on the sphere; 4,096 random directions would be within .005, even ones are within .002
        assert (directions**2).mean(axis=0) == pytest.approx(np.full(objectives, 1 / objectives), abs=0.002)
        assert (polar_directions(objectives) == directions).all()


def test_angles_of_two_objectives_are_even():
    angles = np.sort(np.arctan2(*polar_directions(2).T))
    even = (np.arange(len(angles)) + 0.5) / len(angles) * math.pi / 2
    assert angles == pytest.approx(
        even, abs=0.01
    )  # random ones would be off by about pi/2 / sqrt(4 x 4096) = .012 or more


@pytest.mark.parametrize(("objectives", "volume"), [(1, 1.0), (2, math.pi / 4), (3, math.pi / 6), (4, math.pi**2 / 32)])
def test_volume_of_a_dense_sphere_in_polar_form(objectives, volume):
    # A front with a point in each direction of the sphere has radius 1 there: pi^(K/2) / (2^K Gamma(K/2 + 1)) exactly.
    directions = polar_directions(objectives, 300)
    assert polar_hypervolume(directions, np.zeros(objectives), directions) == pytest.approx(volume, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(1, 12))
def test_polar_form_tends_to_the_exact_volume(seed, objectives, count):
    scores = np.random.default_rng(seed).uniform(0.3, 1, size=(count, objectives))
    corner = np.full(objectives, 0.1)
    # 4,096 directions: at most 2 % off in 4 objectives where no box is thinner than 2 : 9
    assert polar_hypervolume(scores, corner, polar_directions(objectives)) == pytest.approx(
        hypervolume(scores, corner), rel=0.03
    )


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 5))
def test_cross_fitting_agrees_with_the_definition(seed, objectives, count):
    generator = np.random.default_rng(seed)
    first, second = generator.uniform(-0.2, 1, size=(2, count, objectives))
    corner, directions = np.full(objectives, 0.05), polar_directions(objectives, 60)
    found = cross_fitted_hypervolume(first, second, corner, directions)
    assert found == pytest.approx(
        by_loops(first.tolist(), second.tolist(), corner.tolist(), directions.tolist()), abs=1e-12
    )


def test_one_objective_is_chosen_on_one_half_and_valued_on_the_other():
    # Half A is prompts 0 and 1: means 3 and 2, choice 0, worth 1 on half B. There the means are 1 and 4, choice 1,
    # worth 2 on half A. ((1 - .5) + (2 - .5)) / 2 = 1. Naive: overall means 2 and 3, the larger less .5.
    scores = [[[2.0], [4.0], [0.0], [2.0]], [[1.0], [3.0], [5.0], [3.0]]]
    pair = hypervolume_pair(scores, [0.5], halves=[[True, True, False, False]])
    assert pair.naive == 2.5
    assert pair.cross_fitted == pytest.approx(1.0, abs=1e-12)
    assert (pair.candidates, pair.prompts, pair.reason) == (2, 4, "")
    # sample variances over prompts 8/3 and 8/3, over 4 prompts: sqrt(2/3)
    assert pair.evaluation_sd == pytest.approx((math.sqrt(2 / 3),))


def test_every_prompt_counts():
    # One candidate, one objective: halves of equal size have the overall mean as the mean of their means, so that both
    # figures are the mean over all prompts. Powers of 2 give every subset of prompts another mean.
    scores = 2.0 ** np.arange(10).reshape(1, 10, 1)
    pair = hypervolume_pair(scores, [0.0])
    assert pair.naive == pytest.approx(102.3)
    assert pair.cross_fitted == pytest.approx(102.3)


def test_reference_point_counts_for_both_figures():
    # One policy without noise: the box from the reference point. 4,096 directions leave no error, since it is
    # corrected.
    scores = np.tile([0.9, 0.6, 0.7], (1, 4, 1))
    for corner, volume in (([0, 0, 0], 0.378), ([0.1, 0.1, 0.2], 0.2), ([0.4, -0.4, 0.2], 0.25)):
        pair = hypervolume_pair(scores, corner)
        assert pair.naive == pytest.approx(volume, rel=1e-9)
        assert pair.cross_fitted == pytest.approx(volume, rel=1e-9)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_without_noise_both_figures_are_the_hypervolume(objectives):
    scores = np.repeat(sphere(6, objectives)[:, None], 5, axis=1)
    pair = hypervolume_pair(scores, np.zeros(objectives))
    assert pair.naive == pytest.approx(hypervolume(scores[:, 0], np.zeros(objectives)), rel=1e-12)
    assert pair.cross_fitted == pytest.approx(pair.naive, rel=1e-9)  # what the directions miss is added back
    assert pair.evaluation_sd == pytest.approx(np.zeros(objectives), abs=1e-12)


def test_noise_raises_the_naive_volume_of_equal_policies_and_not_the_cross_fitted_one():
    """50 policies that all score .5 have a volume of .125, whatever the noise."""
    generator, true, volume = np.random.default_rng(3), np.full((50, 3), 0.5), 0.125
    for sd, rise, sway in ((0.01, 0.14, 0.016), (0.03, 0.43, 0.047), (0.05, 0.74, 0.062)):
        halves = prompt_halves(20, 1)
        pairs = [hypervolume_pair(noisy(true, sd, 20, generator), [0, 0, 0], halves) for _ in range(40)]
        naive = np.mean([pair.naive for pair in pairs]) / volume - 1
        cross_fitted = np.mean([pair.cross_fitted for pair in pairs]) / volume - 1
        print(f"evaluation sd {sd}: naive {naive:+.1%}, cross-fitted {cross_fitted:+.1%}")
        # One cross-fitted figure varies by 3, 10 and 13 % of the volume, one naive figure by 2, 6 and 9 %. `sway` is
        # three standard errors of a mean of 40; a tenth of the rise is more than that of the naive means.
        assert naive == pytest.approx(rise, rel=0.1)
        assert abs(cross_fitted) < sway
        assert np.mean([pair.evaluation_sd for pair in pairs]) == pytest.approx(sd, rel=0.05)


def test_truth_of_a_real_front_lies_between_the_two_figures():
    generator, true = np.random.default_rng(4), sphere(20, 3)
    volume = hypervolume(true, [0, 0, 0])
    pairs = [hypervolume_pair(noisy(true, 0.03, 20, generator), [0, 0, 0], prompt_halves(20, 2)) for _ in range(40)]
    naive = np.mean([pair.naive for pair in pairs]) / volume - 1
    cross_fitted = np.mean([pair.cross_fitted for pair in pairs]) / volume - 1
    print(f"20 points of a sphere, evaluation sd .03: naive {naive:+.1%}, cross-fitted {cross_fitted:+.1%}")
    assert 0 < naive < 0.05  # +1 to +2 %
    assert -0.2 < cross_fitted < -0.05  # about -12 %: half of the prompts often choose a neighbour


def test_order_of_candidates_and_prompts_does_not_matter():
    generator = np.random.default_rng(6)
    scores, halves = generator.uniform(0, 1, size=(5, 8, 3)), prompt_halves(8, 3)
    pair = hypervolume_pair(scores, [0, 0, 0], halves)
    candidates, prompts = generator.permutation(5), generator.permutation(8)
    other = hypervolume_pair(scores[candidates][:, prompts], [0, 0, 0], halves[:, prompts])
    assert other.naive == pytest.approx(pair.naive, rel=1e-12)
    assert other.cross_fitted == pytest.approx(pair.cross_fitted, rel=1e-12)


def test_equal_candidates_do_not_change_the_figures():
    scores = np.random.default_rng(7).uniform(0, 1, size=(3, 6, 2))
    pair, doubled = hypervolume_pair(scores, [0, 0]), hypervolume_pair(np.concatenate([scores, scores]), [0, 0])
    assert doubled.cross_fitted == pytest.approx(pair.cross_fitted, rel=1e-12)
    assert doubled.candidates == 6


def test_nothing_has_no_volume_and_one_prompt_no_halves():
    nothing = hypervolume_pair(np.zeros((0, 3, 2)), [0, 0])
    assert (nothing.naive, nothing.cross_fitted, nothing.evaluation_sd) == (0.0, 0.0, None)
    assert nothing.reason == "no candidates: no evaluation noise"
    one = hypervolume_pair([[[0.5, 0.5]]], [0, 0])
    assert (one.naive, one.cross_fitted, one.evaluation_sd) == (0.25, None, None)
    assert one.reason == "one prompt: no halves and no evaluation noise"


def test_policies_below_the_reference_point_have_no_volume():
    pair = hypervolume_pair(np.full((2, 4, 2), 0.5), [0.5, 0.7])
    assert (pair.naive, pair.cross_fitted) == (0.0, 0.0)


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ShapeError, match=r"reference_point must have one entry per objective \(2\).* Give the lowest"):
        hypervolume_pair(np.zeros((1, 2, 2)), [0])
    with pytest.raises(NonFiniteError, match="reference_point must be finite"):
        hypervolume_pair(np.zeros((1, 2, 2)), [0, float("nan")])
    with pytest.raises(NonFiniteError, match="prompt_scores must be finite"):
        hypervolume_pair(np.full((1, 2, 2), float("nan")), [0, 0])
    with pytest.raises(ShapeError, match=r"same candidates, got 1 and 2\. Score every candidate"):
        cross_fitted_hypervolume([[1, 1]], [[1, 1], [2, 2]], [0, 0], polar_directions(2))
    with pytest.raises(ShapeError, match="at least one row"):
        polar_hypervolume(np.zeros((0, 2)), [0, 0], polar_directions(2))
