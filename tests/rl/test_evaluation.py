from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.errors import BudgetError, ShapeError
from paretune.core.ledger import Ledger, network_flops
from paretune.core.protocols import Mixer
from paretune.core.scores import Scores
from paretune.core.task import Row, Task
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate
from paretune.models.policy import Policy
from paretune.models.resampled import ResampledPolicy
from paretune.objectives.scoring import Scorer
from paretune.rl.evaluation import evaluate, reference_policy

WEIGHTS = np.asarray([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
PREFERENCES = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.7, 0.3]])


class Counting:
    """A scorer that remembers what it was asked."""

    def __init__(self, task: Task) -> None:
        self.scorer, self.asked = Scorer(task.objectives), 0

    def __call__(self, rows: Sequence[Row], completions: Sequence[str]) -> Scores:
        self.asked += len(completions)
        return self.scorer(rows, completions)


def policy_of(task: Task, base: BaseModel) -> Policy:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    answers = ["exact", "nearest", "nearest"]
    return Policy(base, bank, task.prompt_format, 4, 2, PREFERENCES, answers, WEIGHTS)


def run(task: Task, policy: Policy, **settings: Any) -> Any:
    score = settings.pop("score", Scorer(task.objectives))
    return evaluate(policy, task.splits["test"], score, task.objective_names, **settings)


def test_every_record_says_what_was_asked_sampled_and_scored(task: Task, base: BaseModel) -> None:
    records = run(task, policy_of(task, base), samples=3)
    assert [record.answer for record in records] == ["exact", "nearest", "nearest"]
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    for index, record in enumerate(records):
        assert record.preference.tolist() == PREFERENCES[index].tolist()
        assert record.expert_weights.tolist() == WEIGHTS[index].tolist()
        assert record.prompts[::3] == tuple(micro_task.PROMPTS["test"])
        assert record.samples.tolist() == [0, 1, 2] * 4
        assert (record.statuses == "ok").all()
        for row, text in enumerate(record.completions):
            assert record.rewards[row].tolist() == pytest.approx(values[text].tolist(), abs=1e-12)  # one sum of two
            assert text == micro_task.text_of(record.token_ids[row])


def test_log_probs_are_exact_under_policy_and_base_model(task: Task, base: BaseModel) -> None:
    policy = policy_of(task, base)
    record = run(task, policy, samples=4)[1]
    listed = micro_task.completions()
    assert policy.bank is not None
    for row, ids in enumerate(record.token_ids):
        prompt = base.encode(record.prompts[row])
        for weights, got in (([0.5, 0.5], record.log_probs), ([0.0, 0.0], record.reference_log_probs)):
            table = micro_task.log_probs(base, policy.bank, weights, prompt).detach()
            assert float(got[row]) == pytest.approx(float(table[listed.index(ids)]), abs=2e-5)  # cached, fp32
    assert record.kl == pytest.approx(float(np.mean(record.log_probs - record.reference_log_probs)))


def test_preferences_of_equal_expert_weights_are_sampled_once(task: Task, base: BaseModel) -> None:
    score, told = Counting(task), []
    records = run(task, policy_of(task, base), samples=5, score=score, progress=told.append)
    assert score.asked == 2 * 4 * 5
    assert told == [20, 20]
    assert records[0].completions == records[2].completions
    assert records[0].preference.tolist() != records[2].preference.tolist()
    assert records[0].identity == records[2].identity != records[1].identity


def test_policies_of_equal_expert_weights_are_told_apart_by_their_gate(
    task: Task, base: BaseModel, tmp_path: Path
) -> None:
    plain = policy_of(task, base)
    plain.expert_weights = np.full((3, 2), 0.5)
    gate = tmp_path / "gate.safetensors"
    gate.write_bytes(b"a gate")
    gated = Policy(
        base, plain.bank, task.prompt_format, 4, 2, PREFERENCES, plain.answers, plain.expert_weights, Mixer(gate=gate)
    )
    for policy, different in ((plain, 1), (gated, 3)):
        score = Counting(task)
        records = run(task, policy, samples=2, score=score)
        assert score.asked == different * 4 * 2
        assert len({record.identity for record in records}) == different
    assert {record.identity for record in run(task, gated)} == {record.identity for record in records}  # of any run


def test_policies_are_compared_under_the_same_noise(task: Task, base: BaseModel) -> None:
    policy = policy_of(task, base)
    one, other, _ = run(task, policy, samples=16, seed=5)
    equal = np.mean([a == b for a, b in zip(one.completions, other.completions, strict=True)])
    unpaired = run(task, policy, samples=16, seed=6)[1]
    by_chance = np.mean([a == b for a, b in zip(one.completions, unpaired.completions, strict=True)])
    assert equal > by_chance + 0.1
    assert run(task, policy, samples=16, seed=5)[1].completions == other.completions


def test_a_ledger_is_charged_for_what_is_sampled(task: Task, base: BaseModel) -> None:
    ledger = Ledger(40)
    records = run(task, policy_of(task, base), samples=5, ledger=ledger)
    assert ledger.completions == 40
    assert ledger.counts["prompts"] == 8
    assert ledger.counts["reward_calls"] == 40 * 2
    assert ledger.counts["tokens"] == sum(len(ids) for record in records[:2] for ids in record.token_ids)


def test_a_ledger_is_charged_for_all_completions_that_one_is_drawn_from(task: Task, base: BaseModel) -> None:
    """Three particles cost three completions, all of their tokens, and a pass of each of two experts over these."""
    plain, mixer = policy_of(task, base), Mixer("log_probs", particles=3)
    assert plain.bank is not None
    policy = ResampledPolicy(
        base, plain.bank, task.prompt_format, 4, 2, PREFERENCES[:1], ["combined"], np.full((1, 2), 0.5), mixer
    )
    ledger = Ledger(60)
    (record,) = run(task, policy, samples=5, ledger=ledger)
    prompts = [str(row["prompt"]) for row in task.splits["test"]]
    made = policy.generate(prompts, [0] * 4, 5, seed=0)
    kept, read = sum(len(ids) for ids in record.token_ids), sum(len(base.encode(prompt)) for prompt in prompts)
    assert record.completions == made.texts
    assert (ledger.completions, ledger.counts["prompts"], ledger.counts["reward_calls"]) == (60, 4, 20 * 2)
    assert ledger.counts["tokens"] == kept + made.dropped_tokens > 2 * kept - 20
    streams = base.parameters + plain.bank.parameters_each()
    assert ledger.counts["flops"] == network_flops(streams, kept + made.dropped_tokens + read, 2) + network_flops(
        base.parameters, kept + read, 1
    )
    assert np.isnan(record.kl)
    with pytest.raises(BudgetError):
        run(task, policy, samples=5, ledger=Ledger(59))


@pytest.mark.parametrize(
    ("mixer", "passes", "experts"),
    [
        (Mixer(), 1, 2),
        (Mixer("log_probs"), 2, 1),
        (Mixer("hidden", 0), 1.5, 1),
        (Mixer("hidden"), 2, 1),
        (Mixer("probabilities"), 2, 1),
        (Mixer("log_probs", divergence="forward_kl"), 3, 1),
    ],
)
def test_a_ledger_is_charged_for_each_expert_of_a_mixture(
    task: Task, base: BaseModel, mixer: Mixer, passes: float, experts: int
) -> None:
    """Two experts have weight: both in one pass, or one for each where they have streams; and the base model a pass."""
    ledger, plain = Ledger(20), policy_of(task, base)
    policy = Policy(
        base, plain.bank, task.prompt_format, 4, 2, PREFERENCES[:1], ["combined"], np.full((1, 2), 0.5), mixer
    )
    (record,) = run(task, policy, samples=5, ledger=ledger)
    assert plain.bank is not None
    read = sum(len(base.encode(str(row["prompt"]))) for row in task.splits["test"])
    tokens = sum(len(ids) for ids in record.token_ids) + read
    parameters = base.parameters + experts * plain.bank.parameters_each()
    assert ledger.counts["flops"] == 2 * tokens * (parameters * passes + base.parameters)


def test_an_expert_without_weight_costs_nothing_and_a_gate_costs_all_and_its_own(task: Task, base: BaseModel) -> None:
    policy = policy_of(task, base)
    assert policy.bank is not None
    each, gate = policy.bank.parameters_each(), BlockGate(policy.bank, 2, 0)
    assert policy.flops([0], 10) == 2 * (base.parameters + each) * 10  # [1, 0]
    assert policy.flops([0, 1], 10) == 2 * (base.parameters + 2 * each) * 10  # [.5, .5] beside it
    assert policy.scaled([0.0]).flops([1], 10) == 2 * base.parameters * 10
    assert reference_policy(base, task).flops([0], 10, 1) == 2 * base.parameters * 10 * 2
    gated = Policy(base, policy.bank, task.prompt_format, 4, 2, PREFERENCES, policy.answers, WEIGHTS, gate=gate)
    assert gated.flops([0], 10) == 2 * (base.parameters + 2 * each + gate.flat.numel()) * 10


def test_a_budget_stops_an_evaluation_before_it_samples(task: Task, base: BaseModel) -> None:
    ledger, score = Ledger(39), Counting(task)
    with pytest.raises(BudgetError, match="within the 39 that it was planned with, got 20 spent and 20 asked for"):
        run(task, policy_of(task, base), samples=5, ledger=ledger, score=score)
    assert score.asked == 20
    assert ledger.completions == 20


def test_the_base_model_is_a_policy_without_kl(task: Task, base: BaseModel) -> None:
    (record,) = run(task, reference_policy(base, task), samples=8)
    assert record.answer == "reference"
    assert np.isnan(record.preference).all()
    assert record.kl == pytest.approx(0, abs=1e-5)  # two passes of one model, fp32
    beside = policy_of(task, base)  # its bank now wraps the model
    assert run(task, reference_policy(base, task), samples=8)[0].completions == record.completions
    assert len(beside) == 3


def test_scores_of_another_number_of_objectives_are_refused(task: Task, base: BaseModel) -> None:
    with pytest.raises(ShapeError, match=r"one column per objective \(3\), got 2"):
        evaluate(
            policy_of(task, base), task.splits["test"], Scorer(task.objectives), task.objective_names, ["fluency"]
        )  # fmt: skip
