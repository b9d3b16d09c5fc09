import numpy as np
import pytest
from scipy import stats

from paretune.statistics import bootstrap
from paretune.statistics.bootstrap import expanded_percentiles, nested_bootstrap


@pytest.mark.parametrize("shared_sd", [0.0, 20.0])
@pytest.mark.parametrize(("seed_sd", "prompt_sd"), [(1.0, 0.0), (1.0, 2.0), (1.0, 0.3)])
def test_resampled_means_vary_as_the_mean_of_the_seeds_does(seed_sd, prompt_sd, shared_sd):
    # The variance of a mean of S seeds is B / S, with B the sample variance of the seeds' means, prompts' noise
    # included, but for what prompts do to all seeds. A variance from 20,000 draws has a relative standard error of
    # sqrt(2 / 20000) = 1 %.
    generator = np.random.default_rng(0)
    values = generator.normal(0, seed_sd, size=(20, 1)) + generator.normal(0, 1, size=(20, 6)) * prompt_sd
    values = values + generator.normal(0, shared_sd, size=6)
    means = nested_bootstrap(values, generator, resamples=20_000)
    expected = values.mean(axis=1).var(ddof=1) / 20
    assert means.var() == pytest.approx(expected, rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), abs=5 * np.sqrt(expected / 20_000))


def test_prompts_are_drawn_within_seeds():
    # Seeds have equal means, and so have prompts: drawing seeds changes nothing, drawing prompts within them does. Each
    # mean of 2 prompts at -1 and 1 has variance 1/2 x 2 (values are stretched by sqrt(P / (P - 1)) = sqrt 2), over 20
    # seeds .05.
    values = np.tile([[-1.0, 1.0], [1.0, -1.0]], (10, 1))
    means = nested_bootstrap(values, np.random.default_rng(0), resamples=20_000)
    assert means.var() == pytest.approx(0.05, rel=0.05)


def test_prompts_that_move_all_seeds_alike_change_no_draw():
    # Powers of 2 give every subset of prompts another mean; seeds that agree on each of them leave nothing to draw.
    values = np.tile(2.0 ** np.arange(10), (20, 1))
    assert nested_bootstrap(values, np.random.default_rng(0), resamples=50) == pytest.approx(102.3)


def test_skewness_survives():
    # One seed of 20 far below: the mean of resamples is skewed to the same side.
    values = np.zeros((20, 3))
    values[0] = -1.0
    means = nested_bootstrap(values, np.random.default_rng(0))
    low, high = expanded_percentiles(means, 20, 0.95)
    assert values.mean() - low > 1.5 * (high - values.mean())


def test_one_prompt_is_a_bootstrap_of_seeds():
    values = np.random.default_rng(1).normal(size=(20, 1))
    means = nested_bootstrap(values, np.random.default_rng(0), resamples=20_000)
    assert means.var() == pytest.approx(values.var(ddof=1) / 20, rel=0.05)


def test_draws_do_not_depend_on_memory_but_on_the_generator(monkeypatch):
    values = np.random.default_rng(1).normal(size=(20, 5))
    whole = nested_bootstrap(values, np.random.default_rng(0), resamples=300)
    assert (nested_bootstrap(values, np.random.default_rng(0), resamples=300) == whole).all()
    assert (nested_bootstrap(values, np.random.default_rng(1), resamples=300) != whole).any()
    monkeypatch.setattr(bootstrap, "CHUNK", 100 * 50)  # 50 resamples at once
    assert nested_bootstrap(values, np.random.default_rng(0), resamples=301).shape == (301,)


def test_expanded_percentiles_of_normal_means_lie_where_student_does():
    # quantiles of a dense standard normal sample at Phi(-t) and Phi(t) are -t and t: 2.093 for 19 degrees of freedom
    means = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert expanded_percentiles(means, 20, 0.95) == pytest.approx((-2.09302, 2.09302), abs=1e-3)
