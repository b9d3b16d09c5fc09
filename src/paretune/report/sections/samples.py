"""Completions to be read side by side, chosen by a rule that is stated on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from paretune.records.evaluation import EvaluationRecord, utility
from paretune.report.charts import rounded
from paretune.report.comparison import Comparison
from paretune.report.heat_map import BASE

FIRST_PROMPTS = 8
DISAGREEMENTS = 4
GAMED = 2  # prompts where a method earned its utility by length
FAILED = 2  # prompts of which a reward is missing
MAX_SAMPLE_CHARACTERS = 1_000_000  # of all tasks and budgets of a page together
MAX_CHARACTERS = 1_500  # of one text; longer ones are cut with a notice


@dataclass(frozen=True)
class Sample:
    """One completion as shown: who wrote it, how it scored."""

    source: str
    answer: str
    text: str
    cut: bool
    finish: str
    rewards: tuple[float | None, ...]
    statuses: tuple[str, ...]
    utility: float | None


@dataclass(frozen=True)
class PromptSamples:
    """One test prompt with one completion of each method."""

    prompt_id: str
    prompt: str
    why: str
    samples: tuple[Sample, ...]


def shown_seed(comparison: Comparison) -> int | None:
    """Return the lowest seed that most methods finished: all texts shown come from it."""
    finished = {
        seed: sum(seed in (cell.seed for cell in method.done) for method in comparison.ranked)
        for seed in comparison.seeds
    }
    best = max(finished.values(), default=0)
    return min(seed for seed, methods in finished.items() if methods == best) if best else None


def prompt_samples(comparison: Comparison, preference: NDArray[np.float64], base: str) -> list[PromptSamples]:
    """Choose prompts for a preference: the first by id, then those that show most of what goes wrong.

    That is: where the methods' utilities differ most, where a method is longest beside the base model and worth more
    than it, and where a reward is missing.

    Args:
        comparison: The comparison.
        preference: One preference of the task, `[K]`.
        base: Name to show for the base model.
    """
    seed = shown_seed(comparison)
    if seed is None:
        return []
    records = dict(_records(comparison, seed, preference))
    reference = comparison.references.get(seed)
    mine = {
        name: record
        for name, record in records.items()
        if record is not reference and not comparison.method(name).ceiling
    }
    by_method = {name: _utility_by_prompt(record, preference) for name, record in mine.items()}
    ids = sorted({prompt_id for record in records.values() for prompt_id in record.prompt_ids})
    spread = {prompt_id: _spread([each.get(prompt_id) for each in by_method.values()]) for prompt_id in ids}
    longer = {} if reference is None else _longer(mine, by_method, reference, preference)
    lost = sum((_lost(record) for record in mine.values()), Counter())
    why = {prompt_id: [f"first {FIRST_PROMPTS} by id"] for prompt_id in ids[:FIRST_PROMPTS]}
    for measure, most, word in (
        (spread, DISAGREEMENTS, "large disagreement, {:.2f}"),
        (longer, GAMED, "{:.1f} times the base model's length, for more utility"),
        (lost, FAILED, "a reward is missing"),
    ):
        others = [each for each in measure if each not in ids[:FIRST_PROMPTS] and measure[each] > 0]
        for prompt_id in sorted(others, key=lambda each: (-measure[each], each))[:most]:
            why.setdefault(prompt_id, []).append(word.format(measure[prompt_id]))
    if reference is not None:
        records = {base: reference} | records
    return [_prompt_samples(prompt_id, "; ".join(said), records, preference) for prompt_id, said in why.items()]


def _longer(
    records: Mapping[str, EvaluationRecord],
    utilities: Mapping[str, Mapping[str, float]],
    reference: EvaluationRecord,
    preference: NDArray[np.float64],
) -> dict[str, float]:
    """Return by prompt how much longer than the base model's a method's completions are that are worth more."""
    base, worth = _length_by_prompt(reference), _utility_by_prompt(reference, preference)
    found: dict[str, float] = {}
    for name, record in records.items():
        for prompt_id, length in _length_by_prompt(record).items():
            better = utilities[name].get(prompt_id, -np.inf) > worth.get(prompt_id, np.inf)
            if better and length > base.get(prompt_id, np.inf):
                found[prompt_id] = max(found.get(prompt_id, 0.0), length / max(base[prompt_id], 1.0))
    return found


def _length_by_prompt(record: EvaluationRecord) -> dict[str, float]:
    lengths: dict[str, list[int]] = {}
    for prompt_id, tokens in zip(record.prompt_ids, record.token_ids, strict=True):
        lengths.setdefault(prompt_id, []).append(len(tokens))
    return {prompt_id: float(np.mean(each)) for prompt_id, each in lengths.items()}


def _lost(record: EvaluationRecord) -> Counter[str]:
    """Count missing rewards by prompt."""
    return Counter(record.prompt_ids[row] for row in np.flatnonzero(np.isnan(record.rewards).any(axis=1)))


def _records(
    comparison: Comparison, seed: int, preference: NDArray[np.float64]
) -> Iterator[tuple[str, EvaluationRecord]]:
    for method in comparison.methods:
        record = method.evaluation(seed, preference)
        if record is not None:
            yield method.name, record


def _utility_by_prompt(record: EvaluationRecord, preference: NDArray[np.float64]) -> dict[str, float]:
    values = _worth(record, preference)
    by_prompt: dict[str, list[float]] = {}
    for prompt_id, value in zip(record.prompt_ids, values, strict=True):
        if np.isfinite(value):
            by_prompt.setdefault(prompt_id, []).append(float(value))
    return {prompt_id: float(np.mean(each)) for prompt_id, each in by_prompt.items()}


def _worth(record: EvaluationRecord, preference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each completion is worth to the user of a preference, `[N]`."""
    if record.prompt_preferences is not None:
        return record.utilities_of(record.prompt_preferences)
    return utility(record.rewards[:, : len(record.objectives)], preference)


def _spread(values: list[float | None]) -> float:
    present = [value for value in values if value is not None]
    return max(present) - min(present) if len(present) > 1 else 0.0


def _prompt_samples(
    prompt_id: str, why: str, records: dict[str, EvaluationRecord], preference: NDArray[np.float64]
) -> PromptSamples:
    samples, prompt = [], ""
    known = [each.prompt_preferences for each in records.values() if each.prompt_preferences is not None]
    worth = {  # the base model's record is of no preference, and says nothing of what is wanted of a prompt
        source: record.utilities_of(known[0]) if known else _worth(record, preference)
        for source, record in records.items()
    }
    for source, record in records.items():
        rows = [row for row, each in enumerate(record.prompt_ids) if each == prompt_id]
        if not rows:
            continue
        row = min(rows, key=lambda each: int(record.samples[each]))
        prompt = record.prompts[row]
        rewards = record.rewards[row]
        value = worth[source][row]
        text = record.completions[row]
        samples.append(
            Sample(
                source=source,
                answer=record.answer,
                text=text[:MAX_CHARACTERS],
                cut=len(text) > MAX_CHARACTERS,
                finish=record.finish[row],
                rewards=tuple(float(each) if np.isfinite(each) else None for each in rewards),
                statuses=tuple(str(each) for each in record.statuses[row]),
                utility=float(value) if np.isfinite(value) else None,
            )
        )
    return PromptSamples(prompt_id, prompt[:MAX_CHARACTERS], why, tuple(samples))


def sample_data(comparison: Comparison, shown: Sequence[int], parts: int = 1) -> dict[str, object]:
    """Return completions for each shown preference, until the room for text of a page of so many parts is used up."""
    room, notice = MAX_SAMPLE_CHARACTERS // parts, ""
    chosen = []
    for column in shown:
        prompts = []
        for each in prompt_samples(comparison, comparison.task.preferences[column], BASE):
            room -= len(each.prompt) + sum(len(sample.text) + 200 for sample in each.samples)
            if room < 0:
                notice = "Some completions were left out to keep this page small; the evaluation files hold all."
                break
            prompts.append(asdict(each))
        chosen.append({"preference": comparison.labels[column], "prompts": prompts})
    objectives = [
        {"name": each.name, "audit": each.audit, "low": low, "high": high}
        for each, (low, high) in zip(
            sorted(comparison.task.objectives, key=lambda each: each.audit), comparison.ends, strict=True
        )
    ]
    return {"objectives": objectives, "preferences": _rounded_deeply(chosen), "notice": notice}


def _rounded_deeply(data: object) -> object:
    if isinstance(data, float):
        return rounded(data)
    if isinstance(data, dict):
        return {key: _rounded_deeply(value) for key, value in data.items()}
    return [_rounded_deeply(value) for value in data] if isinstance(data, (list, tuple)) else data
