from __future__ import annotations

from dataclasses import replace

import numpy as np

import builders
from paretune.records.evaluation import EvaluationRecord
from paretune.report.comparison import Comparison, comparisons
from paretune.report.sections.samples import DISAGREEMENTS, FIRST_PROMPTS, MAX_CHARACTERS, prompt_samples, shown_seed

NAMES = ("kind", "short")


def compared(rewards: dict[str, np.ndarray], failed: tuple[tuple[str, int], ...] = ()) -> tuple[Comparison, np.ndarray]:
    count = len(next(iter(rewards.values())))
    info = builders.task_info(preferences=[[1, 0]], objectives=NAMES, audit=(), test_prompts=count, samples=1)
    cells = [
        builders.cell(method, seed, [builders.evaluation(values, info.preferences[0], NAMES)])
        for method, values in rewards.items()
        for seed in (0, 1)
        if (method, seed) not in failed
    ]
    cells += [builders.cell(method, seed, state="failed", reason="crash") for method, seed in failed]
    base = {("counselling", seed): builders.evaluation(np.full((count, 2), 0.1), None, NAMES) for seed in (0, 1)}
    (part,) = comparisons(builders.study(cells, [info], base))
    return part, info.preferences[0]


def test_prompts_are_the_first_by_id_and_then_those_of_largest_disagreement() -> None:
    one, two = np.full((20, 2), 0.5), np.full((20, 2), 0.5)
    two[17, 0], two[11, 0] = 0.9, 0.7  # utilities differ by .4 and .2 under the preference for kind alone
    one[13, 1] = 0.0  # differs in short only, which this preference does not weigh
    part, preference = compared({"linear": one, "weight_grid": two})
    chosen = [each.prompt_id for each in prompt_samples(part, preference, "base model")]
    assert chosen == [f"test-{index:03d}" for index in range(FIRST_PROMPTS)] + ["test-017", "test-011"]


def test_no_more_prompts_are_added_than_the_page_says() -> None:
    generator = np.random.default_rng(0)
    part, preference = compared({"linear": generator.random((30, 2)), "weight_grid": generator.random((30, 2))})
    assert len(prompt_samples(part, preference, "base model")) == FIRST_PROMPTS + DISAGREEMENTS


def test_prompts_of_which_a_reward_is_missing_are_added_and_say_so() -> None:
    lost = np.full((20, 2), 0.5)
    lost[12, 1], lost[3, 1] = np.nan, np.nan  # the second is among the first by id
    part, preference = compared({"linear": lost})
    why = {each.prompt_id: each.why for each in prompt_samples(part, preference, "base model")}
    assert why["test-012"] == "a reward is missing"
    assert len(why) == FIRST_PROMPTS + 1


def test_prompts_where_length_earned_utility_are_added_the_longest_first() -> None:
    """Base completions have 6 tokens and are worth .1; longer ones count where they are worth more than that."""
    values = np.full((20, 2), 0.5)
    values[15, 0] = 0.05  # longest, and worth less than the base model's
    part, preference = compared({"linear": values})
    lengths = {10: 12, 11: 18, 14: 9, 15: 60}
    (method,) = part.methods
    cells = {
        seed: replace(cell, evaluations=tuple(_long(each, lengths) for each in cell.evaluations))
        for seed, cell in method.cells.items()
    }
    references = {seed: _long(each, {}) for seed, each in part.references.items()}
    part = replace(part, methods=(replace(method, cells=cells),), references=references)
    why = {each.prompt_id: each.why for each in prompt_samples(part, preference, "base model")}
    assert [each for each in why if each not in list(why)[:FIRST_PROMPTS]] == ["test-011", "test-010"]
    assert why["test-011"] == "3.0 times the base model's length, for more utility"


def _long(record: EvaluationRecord, lengths: dict[int, int]) -> EvaluationRecord:
    tokens = tuple((1,) * lengths.get(row, 6) for row in range(len(record.token_ids)))
    return replace(record, token_ids=tokens)


def test_every_prompt_shows_the_base_model_and_every_method_in_turn() -> None:
    part, preference = compared({"linear": np.full((2, 2), 0.5), "weight_grid": np.full((2, 2), 0.6)})
    for each in prompt_samples(part, preference, "base model"):
        assert [sample.source for sample in each.samples] == ["base model", "linear", "weight_grid"]
        assert each.samples[2].rewards == (0.6, 0.6)


def test_texts_come_from_the_lowest_seed_that_most_methods_finished() -> None:
    values = {"linear": np.full((2, 2), 0.5), "weight_grid": np.full((2, 2), 0.5)}
    assert shown_seed(compared(values)[0]) == 0
    assert shown_seed(compared(values, (("linear", 0),))[0]) == 1


def test_a_missing_reward_stays_missing_and_its_utility_too() -> None:
    part, preference = compared({"linear": np.array([[np.nan, 0.5]])})
    sample = prompt_samples(part, preference, "base model")[0].samples[1]
    assert sample.rewards == (None, 0.5)
    assert sample.statuses[0] == "raised"
    assert sample.utility is None


def test_a_text_too_long_for_the_page_is_cut_and_marked() -> None:
    part, preference = compared({"linear": np.full((1, 2), 0.5)})
    method = part.methods[0]
    cell = method.cells[0]
    record = replace(cell.evaluations[0], completions=("x" * (MAX_CHARACTERS + 1),))
    method.cells[0] = replace(cell, evaluations=(record,))
    sample = prompt_samples(part, preference, "base model")[0].samples[1]
    assert sample.cut
    assert len(sample.text) == MAX_CHARACTERS
