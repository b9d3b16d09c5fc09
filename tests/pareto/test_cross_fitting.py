import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.pareto.cross_fitting import (
    EstimatePair,
    check_halves,
    check_prompt_scores,
    evaluation_sd,
    half_means,
    prompt_halves,
)


@pytest.mark.parametrize("prompts", [2, 3, 10, 11])
def test_halves_are_disjoint_complete_and_as_equal_as_they_can_be(prompts):
    halves = prompt_halves(prompts, splits=5)
    assert halves.shape == (5, prompts)
    assert (halves.sum(axis=1) == prompts // 2).all()


def test_every_method_gets_the_same_halves_and_a_generator_others():
    assert (prompt_halves(30) == prompt_halves(30)).all()
    assert (prompt_halves(30) != prompt_halves(30, generator=np.random.default_rng(0))).any()


def test_splits_of_one_call_differ_and_favour_no_prompt():
    halves = prompt_halves(8, splits=4000)
    # each prompt is in the first half with chance 1/2: standard error sqrt(.25 / 4000) = .008; .04 is five of them
    assert np.abs(halves.mean(axis=0) - 0.5).max() < 0.04
    assert len(np.unique(halves, axis=0)) == 70  # all C(8, 4) occur


def test_half_means_are_means_over_their_own_prompts():
    scores = np.array([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]], [[0.0, 0.0], [4.0, 4.0], [8.0, 8.0]]])  # [2, 3, 2]
    first, second = half_means(scores, np.array([[True, False, False], [False, True, True]]))
    assert first.tolist() == [[[1, 10], [0, 0]], [[4, 40], [6, 6]]]
    assert second.tolist() == [[[4, 40], [6, 6]], [[1, 10], [0, 0]]]


def test_evaluation_sd_is_the_root_mean_square_of_the_standard_errors():
    # Objective 1: values 0, 2 (variance 2) and 0, 0 (variance 0): sqrt(((2 + 0) / 2) / 2) = sqrt(.5). Objective 2: 0.
    scores = [[[0.0, 1.0], [2.0, 1.0]], [[0.0, 5.0], [0.0, 5.0]]]
    assert evaluation_sd(np.array(scores)) == pytest.approx((0.5**0.5, 0.0))


def test_evaluation_sd_is_what_means_of_new_prompts_vary_by():
    # 200 prompts with an sd of .2 give .2 / sqrt(200) = .01414; from 40 candidates within 1 / sqrt(2 x 40 x 200) = 0.8
    # %
    scores = np.random.default_rng(0).normal(0.5, 0.2, size=(40, 200, 2))
    assert evaluation_sd(scores) == pytest.approx((0.01414, 0.01414), rel=0.03)


def test_gap_is_relative_to_the_cross_fitted_figure():
    assert EstimatePair(0.5, 0.4, None, 3, 10).gap == pytest.approx(0.25)
    assert EstimatePair(0.5, 0.0, None, 3, 10).gap is None
    assert EstimatePair(0.5, None, None, 3, 1, "one prompt").gap is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused_with_their_place(value):
    scores = np.zeros((2, 3, 2))
    scores[1, 2, 0] = value
    with pytest.raises(
        NonFiniteError, match=r"for candidate 1 on prompt 2\. Leave that prompt out for every candidate"
    ):
        check_prompt_scores(scores)


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (2, 3, 0), (2,)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match="candidates x prompts x objectives"):
        check_prompt_scores(np.zeros(shape))


def test_halves_that_are_no_halves_are_refused():
    for halves in ([[True, True]], [[False, False]], [[True, False, False]], [True, False], np.zeros((0, 2))):
        with pytest.raises(ShapeError, match=r"a column a prompt \(2\).*Take them from prompt_halves"):
            check_halves(halves, 2)
    with pytest.raises(ShapeError, match=r"at least two prompts and one split, got 1 and 3\. Evaluate more prompts"):
        prompt_halves(1, splits=3)
