from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import builders
from paretune.metrics import measure_all
from paretune.optimum.estimated import estimated_front
from paretune.records.study import StudyRecords
from paretune.report.comparison import comparisons
from paretune.report.page import render_page
from paretune.report.sections.optimum import OptimumEstimate, optimum_estimate, optimum_sentence, optimum_table

NAMES = ("kind", "short")
PROMPTS = 3


def base_rewards(samples: int, spread: float) -> NDArray[np.float64]:
    """Rewards of the base model, `[P, S, 2]`; the second objective hardly varies."""
    drawn = np.random.default_rng(0).normal(0.5, 1.0, (PROMPTS, samples, 2))
    return 0.5 + (drawn - 0.5) * np.array([spread, 0.01])


def study(rewards: NDArray[np.float64], seeds: int = 2) -> StudyRecords:
    """Each seed has its share of the base model's samples; a policy reaches .6 and .5 at a KL of 2 nats."""
    each = rewards.shape[1] // seeds
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=PROMPTS)
    references = {
        ("counselling", seed): builders.evaluation(
            rewards[:, seed * each : (seed + 1) * each].reshape(-1, 2), None, NAMES, samples=each
        )
        for seed in range(seeds)
    }
    cells = [
        builders.cell(
            "linear", seed, [builders.evaluation([[0.6, 0.5]] * PROMPTS, w, NAMES, kl=2.0) for w in info.preferences]
        )
        for seed in range(seeds)
    ]
    return builders.study(cells, [info], references)


def estimated(records: StudyRecords) -> OptimumEstimate:
    (part,) = comparisons(records)
    found = optimum_estimate(part, records)
    assert found is not None
    return found


def test_samples_of_all_seeds_are_taken_together() -> None:
    rewards = base_rewards(200, 0.02)
    found = estimated(study(rewards))
    front = estimated_front(rewards, [[1, 0], [0, 1]], 0.05)
    assert found.samples == 200
    assert [value.value for value in found.best] == pytest.approx(front.best.values.tolist())
    assert [value.high for value in found.best] == pytest.approx(front.best.high.tolist())


def test_what_can_be_told_and_what_cannot_is_one_line() -> None:
    found = estimated(study(base_rewards(60, 0.3)))  # too wide a spread for 60 completions at beta .05
    said = optimum_sentence(found, ["kind", "short"])
    assert "From 60 completions of the base model per prompt" in said
    assert "averaged over 1 of 2 preferences, is estimated at 0.5" in said
    assert (
        "For 1 of 2 preferences it cannot be told: effective completions of the median prompt must be at least" in said
    )
    # the policy's J for kind: .6 - .05 x 2
    assert said.endswith("A lower bound, J of the best trained policy: 0.500.")


def test_one_completion_a_prompt_tells_nothing_but_the_lower_bound() -> None:
    found = estimated(study(base_rewards(1, 0.02), seeds=1))
    said = optimum_sentence(found, ["kind", "short"])
    assert said.startswith("For all 2 preferences it cannot be told: one completion of the base model per prompt")
    assert found.trained[0] == (pytest.approx(0.5), "linear")
    assert found.trained[1] == (pytest.approx(0.4), "linear")
    assert "–" in {row[1] for row in optimum_table(found, ["kind", "short"], [0, 1]).rows}


def test_a_ceiling_bounds_nothing() -> None:
    records = study(base_rewards(1, 0.02), seeds=1)
    info = records.tasks["counselling"]
    perfect = [builders.evaluation([[1.0, 1.0]] * PROMPTS, w, NAMES) for w in info.preferences]
    both = replace(records, cells=(*records.cells, builders.cell(builders.CEILING, 0, perfect)))
    assert estimated(both).trained == estimated(records).trained


def test_prompts_with_a_missing_reward_are_left_out_and_none_left_is_said() -> None:
    rewards = base_rewards(200, 0.02)
    rewards[0, 5] = np.nan
    found = estimated(study(rewards))
    assert [value.value for value in found.best] == pytest.approx(
        estimated_front(rewards[1:], [[1, 0], [0, 1]], 0.05).best.values.tolist()
    )
    assert optimum_sentence(found, ["kind", "short"]).endswith(
        "Left out: 1 of 3 prompts, with a missing reward of the base model or fewer completions than others."
    )
    assert "Left out" not in optimum_sentence(estimated(study(base_rewards(200, 0.02))), ["kind", "short"])
    rewards[:, 5] = np.nan
    assert {value.reason for value in estimated(study(rewards)).best} == {
        "the base model was not evaluated on common prompts with all rewards"
    }


def test_beta_of_0_has_no_optimum_to_estimate() -> None:
    records = study(base_rewards(60, 0.02))
    info = replace(records.tasks["counselling"], beta=0.0)
    found = estimated(replace(records, tasks={"counselling": info}))
    assert all("beta must be finite and positive" in value.reason for value in found.best)


def other_reference(records: StudyRecords, **changes: object) -> StudyRecords:
    """The study, whose second seed has another reference evaluation."""
    key = ("counselling", 1)
    return replace(records, references={**records.references, key: replace(records.references[key], **changes)})


def test_completions_of_other_prompts_are_not_taken_together() -> None:
    records = study(base_rewards(200, 0.02))
    prompts = list(records.references["counselling", 1].prompts)
    prompts[100:200] = ["Another question."] * 100
    found = estimated(other_reference(records, prompts=tuple(prompts)))
    said = optimum_sentence(found, NAMES)
    assert {value.value for value in found.best} == {None}
    assert "cannot be told: prompt 'test-001' has another text with seed 1 than with seed 0. A lower bound" in said
    assert found.trained[0] == (pytest.approx(0.5), "linear")


def test_completions_of_another_base_model_are_not_taken_together() -> None:
    records = study(base_rewards(200, 0.02))
    record = records.references["counselling", 1]
    tokens = np.array([len(ids) for ids in record.token_ids])
    noisy = other_reference(records, reference_log_probs=record.reference_log_probs + 0.09 * tokens)  # as of bf16
    assert estimated(noisy).best == estimated(records).best
    found = estimated(other_reference(records, reference_log_probs=record.reference_log_probs - 0.11 * tokens))
    assert {value.value for value in found.best} == {None}
    assert found.best[0].reason.startswith("the base model of seed 1 is another than that of seed 0: it gives one ")


def test_nothing_is_estimated_for_instances_of_a_family_with_one_beta() -> None:
    records = study(base_rewards(200, 0.02))
    info = replace(records.tasks["counselling"], family_settings={"rho": 0.5})
    found = estimated(replace(records, tasks={"counselling": info}))
    assert {value.reason for value in found.best} == {
        "every seed names an instance of the task, with rewards and beta of its own"
    }
    assert found.trained == (None, None)


def test_an_optimum_whose_record_is_lost_is_not_estimated() -> None:
    exact = builders.synthetic_study(exact=True)
    (part,) = comparisons(lost := replace(exact, truths={}))
    found = optimum_estimate(part, lost)
    assert found is not None
    assert {(value.value, value.reason) for value in found.best} == {
        (None, "the record of what can be reached is missing or damaged: use paretune run on the study again")
    }
    assert optimum_sentence(found, part.labels).endswith(
        "it cannot be told: the record of what can be reached is missing or damaged: use paretune run on the study "
        "again."
    )
    assert set(found.trained) == {None}  # with which beta?
    one = replace(exact, truths=dict(list(exact.truths.items())[:1]))
    assert optimum_estimate(comparisons(one)[0], one) is None


def test_a_known_optimum_is_not_estimated_and_an_unknown_one_is_on_the_page() -> None:
    exact = builders.synthetic_study(exact=True)
    assert optimum_estimate(comparisons(exact)[0], exact) is None
    ordinary = builders.synthetic_study()
    assert "What could be reached?" in render_page(ordinary, measure_all(ordinary))
