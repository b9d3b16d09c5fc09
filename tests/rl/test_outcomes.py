from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.errors import RewardError, ShapeError, TaskError
from paretune.core.preferences import das_dennis
from paretune.core.scores import Scores
from paretune.core.task import Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.policy import Policy
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import captured_share, log_optimum, outcome
from paretune.pareto.front import non_dominated
from paretune.records.outcomes import SCALES
from paretune.rl import outcomes as module
from paretune.rl.evaluation import evaluate, reference_policy
from paretune.rl.outcomes import (
    all_rewards,
    all_texts,
    enumeration_of,
    outcomes,
    reference_table,
    sampled_outcomes,
    tables,
    truth,
)
from paretune.rl.requests import Requests
from paretune.tasks import load_task
from paretune.tasks.controlled.store import load_instance
from tabular_policy import TabularPolicy, sampled

PREFERENCES = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
CLOSE = 1e-6  # sums of 64 probabilities of fp32 log-probabilities that are equal but for the order of sums


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task({"controlled": {"rho": -0.2, "heterogeneity": 0.5, "alphabet": 4, "length": 3}})


@pytest.fixture(scope="session")
def known(task: Task) -> Any:
    """All completions of the test prompts under the base model, and their rewards."""
    return tables(task, task.splits["test"], Scorer(task.objectives))


def policy_of(task: Task, base: BaseModel, expert_weights: Any = PREFERENCES) -> Policy:
    weights = np.asarray(expert_weights, dtype=np.float64)
    bank = micro_task.perturb(ExpertBank(base, weights.shape[1], rank=2), 0.12)
    return Policy(
        base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens, PREFERENCES[: len(weights)],
        ["combined"] * len(weights), weights,
    )  # fmt: skip


def optimum(task: Task, known: Any, points: Any) -> TabularPolicy:
    log_reference, rewards = known
    best = np.stack([log_optimum(log_reference, rewards, point, task.beta) for point in points])
    return TabularPolicy(task, task.splits["test"], log_reference, best, points)


def scored(task: Task, known: Any, policy: Policy, **options: Any) -> Any:
    return outcomes(policy, task.splits["test"], enumeration_of(task), *known, **options)


def share(task: Task, known: Any, record: Any, scale: float = 1.0) -> float:
    rewards, kl = record.at_scale(scale)
    best = truth(*known, record.preferences, task.beta)
    scores = (rewards - task.beta * kl[..., None]).mean(axis=1)
    return captured_share(scores, best.reference_scores, best.scores, record.preferences)


def test_texts_are_listed_in_the_order_of_the_table(task: Task, base: BaseModel, known: Any) -> None:
    texts = all_texts(base, enumeration_of(task))
    assert texts[:5] == ["a a a", "a a b", "a a c", "a a d", "a b a"]
    policy = reference_policy(base, task)
    made = policy.generate([str(task.splits["test"][3]["prompt"])] * 40, [0] * 40, seed=range(40))
    log_probs = made.log_probs.double().sum(dim=1).numpy()
    places = [texts.index(text) for text in made.texts]
    assert known[0][3, places] == pytest.approx(log_probs, abs=1e-5)  # cached and uncached passes, fp32


def test_rewards_and_reference_are_those_of_each_prompt(task: Task, base: BaseModel, known: Any) -> None:
    log_reference, rewards = known
    stored = load_instance(task.settings)  # type: ignore[attr-defined]  # of a controlled task
    assert rewards == pytest.approx(stored.fields.rewards(stored.prompts[32:]), abs=1e-12)
    assert log_reference.shape == (16, 64)
    assert np.exp(log_reference).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    for prompt in (0, 7, 15):
        alone = reference_table(base, task, [task.splits["test"][prompt]])
        assert log_reference[prompt] == pytest.approx(alone[0], abs=1e-5)


def test_the_exact_optimum_captures_everything_and_the_base_nothing(task: Task, known: Any) -> None:
    points = das_dennis(2, 4)
    record = scored(task, known, optimum(task, known, points))
    assert record.exact
    assert record.reason == ""
    assert share(task, known, record) == pytest.approx(1.0, abs=1e-6)
    assert share(task, known, record, scale=0.0) == pytest.approx(0.0, abs=1e-6)
    halfway = share(task, known, record, scale=0.5)
    assert 0.5 < halfway < 1  # the first nats gain most
    best = truth(*known, points, task.beta)
    assert record.at_scale(1.0)[0] == pytest.approx(best.rewards)
    assert record.at_scale(1.0)[1] == pytest.approx(best.kl)


def test_no_expert_is_the_base_model_exactly(task: Task, base: BaseModel, known: Any) -> None:
    record = scored(task, known, policy_of(task, base))
    rewards, kl = record.at_scale(0.0)
    reference = outcome(known[0], known[0], known[1])
    assert kl == pytest.approx(0.0, abs=CLOSE)
    assert rewards == pytest.approx(np.stack([reference.rewards] * 3), abs=CLOSE)
    assert share(task, known, scored(task, known, reference_with(task, base)), scale=1.0) == 0


def reference_with(task: Task, base: BaseModel) -> Policy:
    """The base model, answering a preference."""
    policy = reference_policy(base, task)
    policy.preferences = np.asarray([[0.5, 0.5]])
    return policy


def test_at_scale_one_it_is_the_policy_and_between_it_moves_steadily(task: Task, base: BaseModel, known: Any) -> None:
    policy = policy_of(task, base)
    record = scored(task, known, policy)
    prompts = [str(row["prompt"]) for row in task.splits["test"]]
    table = policy.completion_table(prompts, range(4), 3, [2] * 16).double().numpy()
    alone = outcome(table, *known)
    rewards, kl = record.at_scale(1.0)
    assert rewards[2] == pytest.approx(alone.rewards, abs=CLOSE)
    assert kl[2] == pytest.approx(alone.kl, abs=CLOSE)
    assert record.kl.shape == (3, len(SCALES), 16)
    assert (np.diff(record.kl.mean(axis=2), axis=1) > 0).all()


def test_a_soup_of_one_expert_is_that_expert(task: Task, base: BaseModel, known: Any) -> None:
    soup = policy_of(task, base, [[1.0, 0.0]])
    record = scored(task, known, soup)
    assert soup.bank is not None
    factors = soup.bank.flat[:1].clone()
    soup.bank.unwrap()
    alone = policy_of(task, base, [[1.0]])
    assert alone.bank is not None
    alone.bank.flat.copy_(factors)
    single = scored(task, known, alone)
    assert record.rewards == pytest.approx(single.rewards, abs=CLOSE)
    assert record.kl == pytest.approx(single.kl, abs=CLOSE)
    assert record.kl[:, 1:].mean() > 0.01  # it is another policy than the base


def test_equal_expert_weights_are_scored_once(
    task: Task, base: BaseModel, known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    whole = Policy.completion_table
    monkeypatch.setattr(
        Policy, "completion_table", lambda self, *rest: (asked.append(rest[-1][0]), whole(self, *rest))[1]
    )
    told: list[int] = []
    policy = policy_of(task, base, [[1.0, 0.0], [0.0, 1.0], [1.0, -0.0]])
    record = scored(task, known, policy, progress=told.append)
    assert asked == [0, 1, 2, 3, 4, 6, 7, 8, 9]  # zero weights are the base in every block, -0.0 is 0.0
    assert len(told) == len(asked)
    assert np.array_equal(record.rewards[0], record.rewards[2])
    assert not np.allclose(record.rewards[0, -1], record.rewards[1, -1])


def test_a_stop_is_noticed_between_two_policies(task: Task, base: BaseModel, known: Any) -> None:
    def stop(completions: int) -> None:
        assert completions == 0  # nothing was sampled
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(task, known, policy_of(task, base), progress=stop)


def spread(known: Any, table: Any) -> Any:
    """Return the standard deviations of rewards `[P, K]` and of log-ratios `[P]` of one sample."""
    probabilities = np.exp(table)
    ratios = table - known[0]
    mean = np.einsum("py,pyk->pk", probabilities, known[1])
    variance = np.einsum("py,pyk->pk", probabilities, known[1] ** 2) - mean**2
    of_ratio = (probabilities * ratios**2).sum(axis=1) - (probabilities * ratios).sum(axis=1) ** 2
    return np.sqrt(variance), np.sqrt(of_ratio)


def standard_errors(task: Task, known: Any, policy: Policy, samples: int) -> Any:
    """Return standard errors of means over all samples of all prompts at every scale, `[M, S, K]` and `[M, S]`."""
    scaled = policy.scaled(SCALES)
    prompts = [str(row["prompt"]) for row in task.splits["test"]]
    rewards, ratios = [], []
    for index in range(len(scaled)):
        table = scaled.completion_table(prompts, range(4), 3, [index] * 16).double().numpy()
        reward, ratio = spread(known, table)
        rewards.append(np.sqrt((reward**2).mean(axis=0) / (16 * samples)))
        ratios.append(np.sqrt((ratio**2).mean() / (16 * samples)))
    shape = (len(policy), len(SCALES))
    return np.reshape(rewards, (*shape, 2)), np.reshape(ratios, shape)


def test_a_policy_that_can_only_be_sampled_is_sampled_and_has_no_kl(task: Task, base: BaseModel, known: Any) -> None:
    policy = policy_of(task, base)
    exact, record = scored(task, known, policy), scored(task, known, sampled(policy), seed=3)
    assert not record.exact
    assert record.reason == "policy must be sampled, it searches."
    assert np.isnan(record.kl).all()  # not 0, not an estimate
    errors, _ = standard_errors(task, known, policy, module.SAMPLES)
    off = (record.rewards.mean(axis=2) - exact.rewards.mean(axis=2)) / errors
    assert np.abs(off).max() < 4  # of 30 normal numbers, one in 500 runs; the seed is fixed
    assert np.abs(off).max() > 0.1
    assert not np.array_equal(record.rewards, scored(task, known, sampled(policy), seed=4).rewards)


def test_samples_that_are_not_listed_are_refused(task: Task, base: BaseModel, known: Any) -> None:
    policy = sampled(policy_of(task, base))
    policy.max_completion_tokens = 2
    with pytest.raises(ShapeError, match=r"sampled completions must be 3 of the 4 tokens that are listed, got token"):
        scored(task, known, policy)


def test_estimates_of_sampled_outcomes_are_within_their_error_of_the_exact(
    task: Task, base: BaseModel, known: Any
) -> None:
    policy, samples = policy_of(task, base), 32
    scorer, rows = Scorer(task.objectives), task.splits["test"]
    answered = evaluate(policy, rows, scorer, task.objective_names, (), samples, 5)
    record = sampled_outcomes(policy, answered, rows, scorer, task.objective_names, (), samples, 5)
    assert not record.exact
    assert record.reason == "estimated from 32 samples of each prompt"
    exact = scored(task, known, policy)
    assert record.rewards.shape == exact.rewards.shape
    of_rewards, of_ratios = standard_errors(task, known, policy, samples)
    assert np.abs((record.rewards - exact.rewards).mean(axis=2) / of_rewards).max() < 4
    off = (record.kl - exact.kl).mean(axis=2)
    assert off[:, 0] == pytest.approx(0.0, abs=1e-5)  # the base against itself, without noise
    assert np.abs(off[:, 1:] / of_ratios[:, 1:]).max() < 4
    assert record.kl[:, -1].mean() > 5 * of_ratios.max()  # it could tell a wrong sign


def test_what_can_be_reached_is_a_front_above_the_base(task: Task, known: Any) -> None:
    found = truth(*known, PREFERENCES, task.beta)
    assert found.front_preferences.shape == (101, 2)
    assert non_dominated(found.front_scores).all()
    for place, preference in enumerate(found.front_preferences):
        value = task.beta * np.logaddexp.reduce(known[0] + known[1] @ preference / task.beta, axis=1).mean()
        assert preference @ found.front_scores[place] == pytest.approx(value, abs=1e-6)  # rows sum to 1 in fp32
    gained = np.einsum("mk,mk->m", PREFERENCES, found.scores - found.reference_scores)
    assert gained.min() > 0.5 * task.beta  # 1.5 nats at a corner are worth more than they cost
    assert found.reference_rewards == pytest.approx(np.einsum("py,pyk->pk", np.exp(known[0]), known[1]))


@pytest.mark.parametrize(("objectives", "points"), [(2, 101), (3, 231), (4, 165), (5, 126), (6, 56)])
def test_the_front_is_as_dense_as_its_objectives_allow(objectives: int, points: int) -> None:
    random = np.random.default_rng(0)
    found = truth(np.log(np.full((2, 5), 0.2)), random.random((2, 5, objectives)), np.eye(objectives), 0.1)
    assert found.front_scores.shape == (points, objectives)


class Faulty:
    """Scores everything 0.5 but leaves out a few rewards of the second objective."""

    def __call__(self, rows: Any, texts: Any) -> Scores:
        rewards = np.full((len(texts), 2), 0.5)
        statuses = np.full((len(texts), 2), "ok", dtype="<U12")
        rewards[3:5, 1], statuses[3, 1], statuses[4, 1] = np.nan, "raised", "not_finite"
        return Scores(rewards, statuses)


def test_a_missing_reward_is_an_error_and_not_a_zero(task: Task, base: BaseModel) -> None:
    texts = all_texts(base, enumeration_of(task))
    message = r"rewards of all completions must be there, got 2 missing \(not_finite, raised\)\. Correct"
    with pytest.raises(RewardError, match=message):
        all_rewards(task.splits["test"], texts, Faulty(), 2)
    assert all_rewards(task.splits["test"], texts, Faulty(), 1).shape == (16, 64, 1)  # the audit may miss some


@pytest.mark.parametrize("values", [[float("nan")] * 64, None])
def test_a_reward_function_that_fails_everywhere_is_one_error(
    values: Any, task: Task, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(prompts: Any, completions: Any, **columns: Any) -> Any:
        if values is None:
            raise ZeroDivisionError("no luck")
        return values

    scorer = Scorer(task.objectives)
    monkeypatch.setattr(scorer, "_functions", [failing, failing])
    with pytest.raises(RewardError, match=r"rewards must give at least one score .*Correct the reward functions"):
        all_rewards(task.splits["test"], all_texts(base, enumeration_of(task)), scorer, 2)


def test_tables_are_made_once_for_cells_that_follow_each_other(task: Task, known: Any) -> None:
    calls: list[int] = []
    scorer = Scorer(task.objectives)

    def counting(rows: Any, texts: Any) -> Scores:
        calls.append(len(texts))
        return scorer(rows, texts)

    rows = task.splits["development"]
    first = tables(task, rows, counting)
    assert calls == [64] * 16
    assert tables(task, rows, counting)[1] is first[1]
    assert calls == [64] * 16
    assert not np.allclose(tables(task, task.splits["test"], counting)[1], first[1])
    other = replace(task.instance(1), source="other")
    assert not np.allclose(tables(other, other.splits["development"], counting)[1], first[1])
    assert len(calls) == 48
    assert len(module._TABLES) == 1


def test_a_task_whose_completions_cannot_be_listed_is_refused(task: Task) -> None:
    ordinary = replace(task, enumeration=None)
    with pytest.raises(TaskError, match=r"must have completions that can be listed, got an ordinary language model"):
        tables(ordinary, task.splits["train"][:3], Scorer(task.objectives))


class Greedy(Policy):
    """Says what is likeliest: not with the probabilities of the model behind it."""

    def generate(self, *args: Any, **options: Any) -> Any:
        return super().generate(*args, **{**options, "temperature": 1e-4})


def test_a_policy_that_samples_its_own_way_is_not_scored_with_the_models_probabilities(
    task: Task, base: BaseModel, known: Any
) -> None:
    made = policy_of(task, base)
    greedy = Greedy(
        base, made.bank, made.prompt_format, made.max_prompt_tokens, made.max_completion_tokens, made.preferences,
        made.answers, made.expert_weights,
    )  # fmt: skip
    record = scored(task, known, greedy, scales=(1.0,))
    assert not record.exact
    assert record.reason == (
        "Greedy must say with which probabilities it samples, got a generate of its own and no completion_table. "
        "Override that as well; until then it is scored from samples."
    )


def test_preferences_of_a_subclass_are_taken_for_equal_only_where_it_says_so(base: BaseModel, task: Task) -> None:
    class Stateful(Policy):
        """Keeps more than expert weights."""

    weights = np.array([[1.0, 0.0], [1.0, 0.0]])
    plain = policy_of(task, base, weights)
    assert plain.identity(0) == plain.identity(1)
    plain.__class__ = Stateful
    assert plain.identity(0) != plain.identity(1)


@pytest.mark.parametrize("lost", [0.01, -0.01, np.nan])
def test_probabilities_that_do_not_sum_to_1_are_refused(task: Task, known: Any, lost: float) -> None:
    policy = optimum(task, known, PREFERENCES)
    policy.log_tables = policy.log_tables.copy()
    policy.log_tables[1, 4] += np.log1p(-lost)
    policy.scaled = lambda scales: policy  # type: ignore[method-assign]  # which would normalise again
    with pytest.raises(ShapeError, match=r"must sum to 1 for every prompt, got .* from TabularPolicy\. List every tok"):
        scored(task, known, policy, scales=(1.0,))


def test_requests_of_each_prompt_have_the_outcome_of_the_policy_that_answers_it(
    task: Task, base: BaseModel, known: Any
) -> None:
    policy, prompts = policy_of(task, base), len(task.splits["test"])
    places = np.asarray([np.arange(prompts) % 3, np.full(prompts, 1)])
    users = np.asarray([[0.5, 0.5], [0.2, 0.8]])
    alone, mixed = scored(task, known, policy), scored(task, known, Requests(policy, users, places))
    assert mixed.preferences.tolist() == users.tolist()
    for index in range(len(SCALES)):
        expected = np.stack([alone.rewards[place, index, prompt] for prompt, place in enumerate(places[0])])
        assert mixed.rewards[0, index] == pytest.approx(expected, abs=CLOSE)
        assert mixed.kl[1, index] == pytest.approx(alone.kl[1, index], abs=CLOSE)


def test_the_truth_of_wishes_is_the_optimum_of_each_prompt_beside_the_front_of_preferences(known: Any) -> None:
    points = das_dennis(2, 2)
    wanted = np.stack([points[:, None].repeat(16, axis=1)[:, each] for each in range(16)], axis=1)[:, :, ::-1]
    one, other = truth(*known, points, 0.1), truth(*known, points, 0.1, wanted)
    assert other.rewards == pytest.approx(truth(*known, points[:, ::-1], 0.1).rewards)
    assert other.prompt_preferences is wanted
    assert one.prompt_preferences is None
    assert one.front_scores.tolist() == other.front_scores.tolist()
