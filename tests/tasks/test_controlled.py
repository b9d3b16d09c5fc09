from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import pytest

from paretune.core.errors import TaskError, UnknownNameError
from paretune.core.task import SPLITS
from paretune.models.loading import load_base
from paretune.objectives.scoring import Scorer
from paretune.rl.outcomes import all_rewards, all_texts, enumeration_of, reference_table
from paretune.tasks import load_task
from paretune.tasks.controlled import ControlledTask
from paretune.tasks.controlled.fields import (
    CORNER_KL,
    Fields,
    all_completions,
    corner_kl,
    covariance,
    features,
    make_fields,
    random_field,
    rank_correlations,
)
from paretune.tasks.controlled.settings import ControlledSettings
from paretune.tasks.controlled.store import load_instance

SMALL = {"alphabet": 6, "length": 3}  # 216 completions: drawn in a tenth of the time
THREE = {"alphabet": 6, "length": 4, "objectives": 3}  # three objectives need more of them
NEAR = 0.05  # what a setting promises on training prompts
NEAR_ON_OTHERS = 0.1  # on test prompts nothing is calibrated


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")


def load(seed: int = 0, **settings: Any) -> ControlledTask:
    task = load_task({"controlled": settings})
    assert isinstance(task, ControlledTask)
    made = task.instance(seed)
    assert isinstance(made, ControlledTask)
    return made


def listed(task: ControlledTask, split: Any = "train") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return all completions under the base model `[P, Y]` and their rewards `[P, Y, K]`."""
    stored = load_instance(task.settings)
    start = 16 * SPLITS.index(split)
    rewards = stored.fields.rewards(stored.prompts[start : start + 16])
    return reference_table(load_base(task.model), task, task.splits[split]), rewards


def pairs(task: ControlledTask, split: str = "train") -> Any:
    log_reference, rewards = listed(task, split)
    return rank_correlations(rewards, np.exp(log_reference))[np.triu_indices(rewards.shape[2], k=1)]


def own_share(task: ControlledTask, split: str = "train") -> Any:
    """Return the share of the rewards' variance that is not that of their mean over prompts, `[K]`."""
    log_reference, rewards = listed(task, split)
    probabilities = np.exp(log_reference)
    own = covariance(rewards - rewards.mean(axis=0), probabilities)
    return np.diag(own) / np.diag(covariance(rewards, probabilities))


@pytest.mark.parametrize("rho", [-1, -0.8, -0.2, 0.0, 0.2, 0.8, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_objectives_are_as_correlated_as_rho_says(rho: float, seed: int) -> None:
    task = load(seed, rho=rho, **SMALL)
    assert pairs(task) == pytest.approx(rho, abs=NEAR)
    assert pairs(task, "test") == pytest.approx(rho, abs=NEAR_ON_OTHERS)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_each_pair_of_three_objectives_is_as_correlated_as_rho_says(rho: float) -> None:
    task = load(1, rho=rho, **THREE)
    assert pairs(task).shape == (3,)
    assert pairs(task) == pytest.approx(rho, abs=NEAR)
    assert pairs(task, "test") == pytest.approx(rho, abs=NEAR_ON_OTHERS)


def test_the_default_task_keeps_its_settings_at_full_size() -> None:
    task = load(0, rho=-0.8)
    log_reference, rewards = listed(task)
    assert log_reference.shape == (16, 4096)
    assert np.exp(log_reference).sum(axis=1) == pytest.approx(1.0, abs=1e-5)  # letters are all it can say
    assert pairs(task) == pytest.approx(-0.8, abs=NEAR)
    assert own_share(task) == pytest.approx(0.1, abs=NEAR)
    assert corner_kl(log_reference, rewards, task.beta) == pytest.approx(CORNER_KL, abs=0.01)


def test_rank_correlation_is_spearmans_where_completions_are_equally_likely() -> None:
    from scipy.stats import spearmanr

    values = np.random.default_rng(0).integers(0, 9, (3, 40, 2)).astype(float)  # with ties
    found = rank_correlations(values, np.full((3, 40), 1 / 40))
    assert found[0, 1] == pytest.approx(np.mean([spearmanr(each).statistic for each in values]), abs=1e-12)
    assert np.diag(found) == pytest.approx(1.0)


def test_rank_correlation_counts_a_completion_by_its_probability() -> None:
    """Weights 2, 1, 1 are a completion said twice: ranks 1.5, 1.5, 3, 4 and 4, 4, 2, 1 before ties share them."""
    from scipy.stats import spearmanr

    found = rank_correlations(np.asarray([[[0.0, 5.0], [1.0, 2.0], [2.0, 3.0]]]), np.asarray([[0.5, 0.25, 0.25]]))
    assert found[0, 1] == pytest.approx(spearmanr([0, 0, 1, 2], [5, 5, 2, 3]).statistic)


@pytest.mark.parametrize("heterogeneity", [0.0, 0.1, 0.5, 1.0])
def test_prompts_matter_as_much_as_heterogeneity_says(heterogeneity: float) -> None:
    task = load(1, heterogeneity=heterogeneity, **SMALL)
    assert own_share(task) == pytest.approx(heterogeneity, abs=NEAR)
    if heterogeneity == 0:
        assert own_share(task, "test") == pytest.approx(0, abs=1e-9)
    else:
        assert own_share(task, "test").min() > heterogeneity / 3  # test prompts' features spread as they do


@pytest.mark.parametrize(
    "settings",
    [
        {"rho": -0.8, **SMALL},
        {"rho": 0.8, "heterogeneity": 0.5, **SMALL},
        {"heterogeneity": 0.0, **SMALL},
        {"rho": -0.5, **THREE},
    ],
)
def test_corners_are_one_to_two_nats_from_the_base_and_rewards_within_their_range(settings: dict[str, Any]) -> None:
    task = load(0, **settings)
    for split in ("train", "test"):
        log_reference, rewards = listed(task, split)
        assert rewards.min() >= 0
        assert rewards.max() <= 1
        distances = corner_kl(log_reference, rewards, task.beta)
        assert distances.shape == (task.settings.objectives,)
        assert distances.min() > 1
        assert distances.max() < 2
        if split == "train":
            assert distances == pytest.approx(CORNER_KL, abs=0.01)
    means = np.einsum("py,pyk->k", np.exp(listed(task)[0]), listed(task)[1]) / 16
    assert means == pytest.approx(0.5, abs=1e-6)  # of the base on training prompts, as PASS assumes


def test_the_corner_kl_of_two_completions_is_that_of_a_coin() -> None:
    """A fair coin with reward ln 3 on one side: the optimum says it with 3/4, KL = 3/4 ln 3/2 + 1/4 ln 1/2."""
    found = corner_kl(np.log(np.asarray([[0.5, 0.5]])), np.asarray([[[math.log(3)], [0.0]]]), 1.0)
    assert found == pytest.approx([0.75 * math.log(1.5) + 0.25 * math.log(0.5)])


def test_prompts_are_forty_eight_different_ones_and_end_alike() -> None:
    task = load(3, **SMALL)
    prompts = [[str(row["prompt"]) for row in task.splits[split]] for split in SPLITS]
    assert [len(each) for each in prompts] == [16, 16, 16]
    together = [tuple(sorted(prompt.split())) for each in prompts for prompt in each]
    assert len(set(together)) == 48  # not even the same letters in another order
    assert {task.prompt_format.text(prompt).split()[-1] for each in prompts for prompt in each} == {"a"}
    assert len({str(row["prompt_id"]) for split in SPLITS for row in task.splits[split]}) == 48


def test_settings_of_the_rewards_leave_model_and_prompts_as_they_are() -> None:
    tasks = [load(2, rho=rho, heterogeneity=share, **SMALL) for rho, share in ((0.0, 0.1), (-0.8, 0.1), (0.0, 0.5))]
    assert len({task.model_digest for task in tasks}) == 1
    assert len({str([row["prompt"] for row in task.splits["test"]]) for task in tasks}) == 1
    assert len({str(task.training_key()) for task in tasks}) == 3


def test_other_seeds_are_other_tasks() -> None:
    tasks = [load(seed, **SMALL) for seed in range(3)]
    assert len({task.model_digest for task in tasks}) == 3
    assert len({str([row["prompt"] for row in task.splits["train"]]) for task in tasks}) == 3
    assert len({str(task.training_key()) for task in tasks}) == 3
    assert len({task.name for task in tasks}) == 1
    assert len({str(task.source) for task in tasks}) == 1


def test_a_worker_makes_the_same_instance_from_the_source() -> None:
    task = load_task({"controlled": {"rho": -0.2, **SMALL}})
    assert load_task(task.source) == task
    assert load_task(task.source).instance(2) == task.instance(2)
    assert load_task(task.instance(2).source).instance(2).training_key() == task.instance(2).training_key()
    assert task.instance(0).training_key() == task.training_key()
    assert task.instance(2).instance(0).training_key() == task.training_key()
    assert pickle.loads(pickle.dumps(task.instance(2))) == task.instance(2)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rho": 0.2, **SMALL}, "controlled-rho+0.2-a6-l3"),
        ({"rho": -0.8, "heterogeneity": 0.5, **SMALL}, "controlled-rho-0.8-h0.5-a6-l3"),
        (THREE, "controlled-rho+0-k3-a6"),
        ({"rho": -1 / 3, **SMALL}, "controlled-rho-0.3333333333333333-a6-l3"),
        ({"rho": -0.0, **SMALL}, "controlled-rho+0-a6-l3"),
    ],
)
def test_a_task_is_named_by_the_settings_that_were_changed_and_found_by_that_name(
    settings: dict[str, Any], name: str
) -> None:
    assert load(**settings).name == name
    found = load_task(name)
    assert found.training_key() == load(**settings).training_key()
    assert load_task(found.source) == found


def test_completions_are_listed_with_the_last_letter_changing_fastest() -> None:
    assert all_completions(3, 2).tolist() == [[x, y] for x in range(3) for y in range(3)]
    task = load(**SMALL)
    assert task.enumeration is not None
    assert task.enumeration.completions == 216
    assert load_base(task.model).end_ids == ()  # every completion has its full length


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_field_has_mean_0_and_variance_1(length: int) -> None:
    field = random_field(all_completions(5, length), 5, np.random.default_rng(length))
    assert field.shape == (5**length,)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)


def test_a_fields_variance_comes_from_places_neighbours_and_ends_in_their_shares() -> None:
    letters, draws, random = 6, 60, np.random.default_rng(0)
    alone, ends = [], []
    for _ in range(draws):
        cube = random_field(all_completions(letters, 3), letters, random).reshape(letters, letters, letters)
        first, middle, last = (cube.mean(axis=tuple({0, 1, 2} - {axis})) for axis in range(3))
        alone.append(sum(float(np.var(each)) for each in (first, middle, last)))
        both = cube.mean(axis=1) - first[:, None] - last
        ends.append(float(np.var(both)))
    # a table of pairs drawn at random spends 2 / (letters + 1) of its variance on its letters alone
    leaked = 2 / (letters + 1)
    assert np.mean(alone) == pytest.approx(0.5 + leaked * 0.5, abs=0.03)
    assert np.mean(ends) == pytest.approx((1 - leaked) * 0.2, abs=0.02)


@pytest.mark.parametrize("seed", range(6))  # of six scales about three would be rounded up to the nearest
def test_rewards_of_the_splits_reach_their_range_and_never_leave_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    log_reference = np.log(random.dirichlet(np.ones(64), 16))
    prompts = random.integers(0, 4, (48, 7))
    made = make_fields(0.0, 0.1, all_completions(4, 3), prompts, 16, log_reference, 4, 2, random)
    raw = made.offset + made.scale * (
        made.shared + np.tensordot(features(made.codes, prompts), made.by_feature, axes=1)
    )
    extreme = np.abs(raw - 0.5).max()  # 0.5 but for the sixth digit of the scale, at most 1 in 10,000
    assert 0.5 * (1 - 1e-4) <= extreme <= 0.5 + 1e-12  # rounding of sums in float64
    assert made.scale == float(f"{made.scale:.5g}")


def test_rewards_beyond_the_range_of_the_splits_are_cut_to_it() -> None:
    """Codes 1 and -1 make a feature of 3 and -3 for prompts of one letter; 0.5 + 0.25 * 3 is 1.25."""
    fields = Fields(np.zeros((2, 1)), np.ones((1, 2, 1)), np.asarray([[3.0, -3.0]]), 0.25, np.asarray([0.5]))
    assert fields.rewards(np.asarray([[0, 0], [0, 1], [1, 1]]))[:, 0, 0].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": -1.01}, r"rho of a controlled task must be between -1 and 1, got -1\.01\."),
        ({"rho": 1.5}, r"rho of a controlled task must be between -1 and 1, got 1\.5\."),
        ({"rho": math.nan}, r"rho .* must be between -1 and 1, got nan\."),
        ({"rho": -0.6, "objectives": 3}, r"rho .* between -0\.5 and 1, got -0\.6\. 3 objectives cannot all be"),
        ({"rho": -0.3, "objectives": 5}, r"rho .* between -0\.25 and 1, got -0\.3"),
        ({"rho": "0.2"}, r"rho of a controlled task must be a number, got '0\.2'\. Write one, like 0\.2\."),
        ({"rho": True}, r"rho of a controlled task must be a number, got True"),
        ({"heterogeneity": 1.1}, r"heterogeneity of a controlled task must be between 0 and 1, got 1\.1\."),
        ({"heterogeneity": -0.1}, r"heterogeneity .* between 0 and 1, got -0\.1"),
        ({"heterogeneity": None}, r"heterogeneity .* must be a number, got None"),
        ({"objectives": 1}, r"objectives of a controlled task must be a whole number from 2 to 5, got 1\."),
        ({"objectives": 6}, r"objectives .* from 2 to 5, got 6"),
        ({"objectives": 2.0}, r"objectives .* must be a whole number from 2 to 5, got 2\.0"),
        ({"alphabet": 2}, r"alphabet of a controlled task must be a whole number from 3 to 16, got 2\."),
        ({"alphabet": 17}, r"alphabet .* from 3 to 16, got 17"),
        ({"length": 0}, r"length of a controlled task must be a whole number from 1 to 6, got 0\."),
        ({"length": True}, r"length .* must be a whole number from 1 to 6, got True"),
        ({"length": 6}, r"must give at most 32,768 completions, got 8\^6 = 262,144\. Lower one of them\."),
        ({"alphabet": 16}, r"must give at most 32,768 completions, got 16\^4 = 65,536"),
        (
            {"alphabet": 3, "length": 1, "objectives": 3},
            r"must give more completions than objectives, got 3 for 3\. Raise",
        ),
        (
            {"alphabet": 5, "length": 1, "objectives": 5},
            r"must give more completions than objectives, got 5 for 5\. Raise",
        ),
        ({"alphabet": 3, "length": 1}, r"must leave room for an optimum 1\.5 nats from the base, got 3 completions"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load_task({"controlled": settings})


@pytest.mark.parametrize(
    ("setting", "rest"),
    [("rhoo", r" Did you mean 'rho'\?"), ("colour", r" Name one of these\."), ("seed", r" Name one of these\.")],
)  # a seed is a study's to name
def test_an_unknown_setting_is_refused_with_those_there_are(setting: str, rest: str) -> None:
    known = "alphabet, context, heterogeneity, length, objectives, rho"
    message = rf"argument of task 'controlled' must be one of {known}, got '{setting}'\.{rest}$"
    with pytest.raises(UnknownNameError, match=message):
        load_task({"controlled": {setting: 1}})


def test_the_largest_task_is_not_refused() -> None:
    assert ControlledSettings(alphabet=8, length=5).completions == 32_768
    assert ControlledSettings(rho=-0.25, objectives=5).rho == -0.25


def test_pairs_that_one_pearson_for_all_leaves_apart_are_brought_to_their_target() -> None:
    """With these few completions the first guess leaves a pair of three 0.09 away."""
    for seed in range(3):
        assert pairs(load(seed, rho=0.0, objectives=3, **SMALL)) == pytest.approx(0.0, abs=NEAR)


def test_a_correlation_that_few_completions_cannot_have_is_refused() -> None:
    """Ranks of nine completions of very different probability come in steps."""
    with pytest.raises(TaskError, match=r"rho .* must be reached within 0\.05, got a pair 0\.\d+ away from -0\.5\."):
        load(1, rho=-0.5, objectives=3, alphabet=3, length=2)


@pytest.mark.parametrize("name", ["controlled-rho", "controlled-rho0.5", "controlled-rho+0-x3", "controlled-rho+1.2.3"])
def test_what_only_begins_like_the_name_of_a_controlled_task_is_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"task must be one of controlled, .* got '{re.escape(name)}'"):
        load_task(name)


def test_a_name_with_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(TaskError, match=r"rho of a controlled task must be between -1 and 1, got -1\.5"):
        load_task("controlled-rho-1.5")


def scored(task: Any) -> np.ndarray[Any, Any]:
    """Return rewards of all completions of the first test prompt by the task's own functions, `[Y, K]`."""
    base, row = load_base(task.model), task.splits["test"][0]
    texts = all_texts(base, enumeration_of(task))
    return all_rewards([row], texts, Scorer(task.objectives), len(task.objectives))[0]


@pytest.mark.parametrize("rho", [-0.8, 0.8])  # three objectives cannot all compete at -.8: the new one does not
def test_one_objective_more_leaves_all_else_and_is_correlated_by_chance_alone(rho: float) -> None:
    task = load(1, rho=rho, **SMALL)
    more = task.with_one_more()
    assert more.objective_names == ("first", "second", "third")
    assert (more.model_digest, more.splits, more.beta) == (task.model_digest, task.splits, task.beta)
    before, after = scored(task), scored(more)
    np.testing.assert_array_equal(after[:, :2], before)
    third = load_instance(ControlledSettings(rho=0.0, objectives=3, seed=1, **SMALL))
    np.testing.assert_array_equal(after[:, 2], third.fields.rewards(third.prompts[32:33])[0][:, 2])
    assert 0 <= after[:, 2].min() < after[:, 2].max() <= 1
    # fields of a few dozen random numbers: chance leaves up to .4 here, and half of it on average; rho would be .8
    assert np.abs(np.corrcoef(after.T)[2, :2]).max() < 0.5


def test_an_instance_of_a_task_with_one_objective_more_has_it_too() -> None:
    more = load(1, rho=0.0, **SMALL).with_one_more()
    assert more.instance(1) is more
    assert more.instance(2).objective_names == ("first", "second", "third")
    assert more.instance(2).splits == load(2, rho=0.0, **SMALL).splits


def test_there_are_names_for_five_objectives_and_one_is_added_at_a_time() -> None:
    five = load(rho=0.0, objectives=5, **{**SMALL, "length": 4})
    for task in (five, load(rho=0.0, **SMALL).with_one_more()):
        with pytest.raises(TaskError, match="must have fewer than 5 objectives, and none that was added"):
            task.with_one_more()
