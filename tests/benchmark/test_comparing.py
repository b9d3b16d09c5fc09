from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import builders
from compared_studies import records, source
from paretune.benchmark.comparing import KL, Compared, Measure, compared
from paretune.benchmark.pairing import pair
from paretune.metrics import measure_all
from paretune.metrics.judged import SHARE
from paretune.records.study import StudyRecords


def only(study: StudyRecords, subject: str = "") -> Compared:
    (lineup,) = pair([source("a", study)]).lineups
    return compared(lineup, subject)


def named(found: Compared, name: str) -> Measure:
    return next(measure for measure in found.measures if measure.name == name)


def test_a_difference_is_that_of_each_seed_over_the_same_prompts() -> None:
    found = only(records({"mine": (0.6, 0.7, 0.8), "linear": (0.5, 0.6, 0.6)}), "mine")
    (pair_,) = found.against_subject(named(found, "utility"))
    # differences .1, .1, .2: mean .4/3, sd .1/sqrt(3), error 1/30, t = 4; Student's .975 quantile at 2 degrees is
    # 4.302653, so the half width is .143422; p = 2 P(T_2 > 4) = 1 - 4 / sqrt(4^2 + 2) = .057191
    assert pair_.interval.mean == pytest.approx(0.4 / 3)
    assert pair_.interval.low == pytest.approx(0.4 / 3 - 0.143422, abs=1e-6)
    assert pair_.interval.high == pytest.approx(0.4 / 3 + 0.143422, abs=1e-6)
    assert pair_.p_value == pytest.approx(0.057191, abs=1e-6)
    assert pair_.verdict == "not told apart"
    assert found.ranks["utility"] == {"mine": 1, "linear": 1}


def test_a_steady_difference_is_told_apart_and_holm_counts_the_other_methods() -> None:
    study = records({"mine": (0.60, 0.70, 0.81), "linear": (0.50, 0.60, 0.70), "far": (0.1, 0.2, 0.3)})
    found = only(study, "mine")
    near, far = found.against_subject(named(found, "utility"))
    # differences .10, .10, .11: mean .31/3, error .01/3, t = 31, p = 1 - 31 / sqrt(31^2 + 2) = .001039;
    # .5, .5, .51: t = 151, p = 1 - 151 / sqrt(151^2 + 2) = .00004385. Holm doubles the smaller one
    assert (near.second, far.second) == ("linear", "far")
    assert near.adjusted == pytest.approx(0.001039, abs=1e-6)
    assert far.adjusted == pytest.approx(2 * 0.00004385, abs=2e-8)
    assert near.verdict == far.verdict == "higher"
    assert found.ranks["utility"] == {"mine": 1, "linear": 2, "far": 3}
    assert [(each.first, each.second) for each in found.all_pairs(named(found, "utility"))] == [
        ("mine", "linear"), ("mine", "far"), ("linear", "far"),
    ]  # fmt: skip


def test_a_difference_that_would_count_alone_does_not_among_several() -> None:
    # differences .077, .077, .137: mean .097, error .02, t = 4.85, p = 1 - 4.85 / sqrt(4.85^2 + 2) = .03998
    mine, other = (0.6, 0.7, 0.8), (0.523, 0.623, 0.663)
    alone = only(records({"mine": mine, "linear": other}), "mine")
    (pair_,) = alone.against_subject(named(alone, "utility"))
    assert (pair_.p_value, pair_.verdict) == (pytest.approx(0.03998, abs=1e-5), "higher")
    among = only(records({"mine": mine, "linear": other, "grid": other}), "mine")
    found = among.against_subject(named(among, "utility"))
    assert [each.adjusted for each in found] == pytest.approx([0.07996, 0.07996], abs=2e-5)
    assert [each.verdict for each in found] == ["not told apart", "not told apart"]


def test_one_seed_gives_no_verdict_no_rank_and_no_interval() -> None:
    found = only(records({"mine": (0.9,), "linear": (0.1,)}), "mine")
    (pair_,) = found.against_subject(named(found, "utility"))
    assert (pair_.interval.mean, pair_.interval.low) == (pytest.approx(0.8), None)
    assert pair_.verdict == "no verdict: one seed"
    assert found.ranks == {}


def test_kl_is_compared_and_ranks_nobody() -> None:
    study = records({"mine": (0.6, 0.7), "linear": (0.5, 0.6)})
    assert named(only(study), KL).mean("mine") is not None
    assert KL not in only(study).ranks


def test_without_a_subject_the_leader_is_held_against_the_others() -> None:
    assert only(records({"low": (0.1, 0.2), "high": (0.8, 0.9)})).subject == "high"


def test_a_prompt_that_one_method_lacks_counts_for_none() -> None:
    study = records({"mine": (0.6, 0.7), "linear": (0.5, 0.6)})
    cells = list(study.cells)
    answer = cells[0].evaluations[0]
    rewards = answer.rewards.copy()
    rewards[0, 0] = np.nan  # mine, seed 0, the first prompt
    cells[0] = replace(cells[0], evaluations=(replace(answer, rewards=rewards),))
    found = only(replace(study, cells=tuple(cells)), "mine")
    utility = named(found, "utility")
    # seed 0 rests on the second prompt, which is .1 below the mean: .5 and .4; seed 1 on both: .7 and .6
    np.testing.assert_allclose(utility.per_seed("mine"), [0.5, 0.7])
    np.testing.assert_allclose(utility.per_seed("linear"), [0.4, 0.6])
    assert "1 of 4 prompts" in utility.note
    assert named(found, "second").note == ""  # that reward is there


def test_a_method_without_a_score_is_left_out_with_the_reason() -> None:
    study = records({"mine": (0.6, 0.7), "linear": (0.5, 0.6)})
    cells = [
        replace(cell, evaluations=tuple(replace(each, rewards=each.rewards * np.nan) for each in cell.evaluations))
        if cell.method == "mine" and cell.seed == 1
        else cell
        for cell in study.cells
    ]
    found = only(replace(study, cells=tuple(cells)))
    assert found.rivals(named(found, "utility")) == ["linear"]
    assert named(found, "utility").reasons == {"mine": "no utility of any prompt, seed 1"}


def test_captured_share_is_that_of_the_metric() -> None:
    study = builders.synthetic_study(exact=True)
    made_of = {"objectives": {}, "task": {}, "code": {}, "version": 1, "settings": {}}
    cells = tuple(replace(cell, made_of={**made_of, "source": cell.method}) for cell in study.cells)
    block = source("a", replace(study, cells=cells))
    tested = {"test prompts": "p", "rewards": []}
    blocks = tuple(replace(each, tested=tested) for each in block.study.blocks)
    (lineup,) = pair([replace(block, study=replace(block.study, blocks=blocks))]).lineups
    found = compared(lineup)
    rows = {row.method: row.value.per_seed for row in measure_all(study, ["captured_share"]) if not row.label}
    assert found.measures[0].name == SHARE
    for name, per_seed in rows.items():
        assert found.measures[0].per_seed(name).tolist() == pytest.approx([per_seed[seed] for seed in (0, 1, 2)])
    # per seed as the metrics say it, so are the means
    means = {row.method: row.value.value for row in measure_all(study, ["performance"]) if not row.label}
    for name, value in means.items():
        mean = named(found, "utility").mean(name)
        assert mean is not None
        assert mean.mean == pytest.approx(value)


def test_from_twenty_seeds_prompts_are_drawn_within_seeds() -> None:
    generator = np.random.default_rng(0)
    first = 0.5 + 0.02 * generator.standard_normal(20)
    study = records({"mine": tuple(first + 0.1), "linear": tuple(first + 0.01 * generator.standard_normal(20))})
    found = only(study, "mine")
    (pair_,) = found.against_subject(named(found, "utility"))
    assert pair_.interval.method == "nested bootstrap over 20 seeds and 2 prompts"
    assert pair_.verdict == "higher"
