"""What improving one objective does to the others: from a finished study, or from a pilot trained for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.core.checks import did_you_mean
from paretune.core.errors import BudgetError, ConfigError, UnknownNameError
from paretune.core.preferences import FloatArray, corners
from paretune.core.protocols import FAMILIES
from paretune.core.task import Task
from paretune.executors.cores import cores
from paretune.executors.jobs import Link
from paretune.methods.experts import ExpertSettings
from paretune.records.evaluation import EvaluationRecord
from paretune.records.reading import read_stage, read_study
from paretune.records.study import CellRecord, StudyRecords
from paretune.relations.outcomes import OutcomeRelations, outcome_relations

PILOT_METHOD = "rewarded_soups"  # trains one expert for each objective alone
PILOT_EVALUATED = 256  # completions at least of each policy on development prompts: a standard error of .02 at sd .3
ADVICE = "Give a finished study (--from STUDY), or train a pilot (--pilot 1500)."

Progress = Callable[[str, int, int], None]  # what is done, how much of it is done, how much there is


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The level of outcomes.

    Attributes:
        relations: What training changed, in units of each objective; None where nothing trained was at hand.
        source: Where the policies are from, for people; why there are none where there are none.
        charged: What training them was charged here; empty for a study, which was paid for already.
    """

    relations: OutcomeRelations | None
    source: str
    charged: Mapping[str, float]


def nothing_trained() -> Outcomes:
    """Return the level without any trained policy."""
    return Outcomes(None, f"no policy was trained for one objective alone. {ADVICE}", {})


def read_for(folder: str | Path, task: Task, method: str | None = None) -> StudyRecords:
    """Read a study, of which a method, or any if None, is to tell the outcomes of a task.

    Raises:
        RecordError: If the folder is no study.
        ConfigError: If the study has no such task, or one with other objectives.
        UnknownNameError: If the method cannot tell outcomes; the message lists those that can.
    """
    study = read_study(Path(folder))
    if task.name not in study.tasks:
        raise ConfigError(
            f"study (--from) must be one of the task '{task.name}', got one of {', '.join(study.tasks)}. Name another "
            "study, or probe that task."
        )
    names = tuple(objective.name for objective in study.tasks[task.name].trained)
    if names != task.objective_names:
        raise ConfigError(
            f"study (--from) must be one with the objectives {', '.join(task.objective_names)}, got "
            f"{', '.join(names)}. Run the study again with the task as it is now."
        )
    if method is not None:
        _check_method(study, task, method)
    return study


def _check_method(study: StudyRecords, task: Task, method: str) -> None:
    usable = sorted({name for name, _ in _answering(study, task)})
    if method in usable:
        return
    if not usable:
        raise UnknownNameError(
            f"method (--method) must have a policy of its own for each objective alone, got '{method}', and no "
            f"finished method of study '{study.name}' has. Finish it, or add rewarded_soups to it."
        )
    raise UnknownNameError(
        f"method (--method) must be one that has finished in study '{study.name}' with a policy of its own for each "
        f"objective alone ({', '.join(usable)}), got '{method}'. Name one of them.{did_you_mean(method, usable)}"
    )


def study_outcomes(study: StudyRecords, task: Task, units: FloatArray, method: str | None = None) -> Outcomes:
    """Compare a study's policies for one objective alone with the base model, paired by prompt and seed.

    Of the methods (ceiling and base model are none) that answer each of the K corner preferences with a policy of its
    own, the one with most seeds is taken; of several, one that trained for the preference rather than selected a policy
    for it, then the one with the largest budget, then the first of the study.

    Args:
        study: The study.
        task: A task of it.
        units: What to divide each objective's scores by `[K]`.
        method: The only method to take; None takes any.
    """
    found = []
    for (name, budget), answers in _answering(study, task).items():
        if method in (None, name):
            trained = all(record.answer != "selected" for each in answers.values() for record in each)
            found.append(((len(answers), trained, budget), name, answers))
    if not found:
        reason = f"study '{study.name}' has no finished method with a policy of its own for each objective alone"
        lost = [f"{each.folder}: {study.missing[each.folder]}" for each in study.tables if each.folder in study.missing]
        reason += f" ({lost[0]})" if lost else ""
        return Outcomes(None, f"{reason}. Finish it, or add rewarded_soups to it. {ADVICE}", {})
    (_, _, budget), name, answers = max(found, key=lambda each: each[0])
    pairs = [_paired(study.references[task.name, seed], answers[seed], units) for seed in sorted(answers)]
    source = f"{name} of study '{study.name}', {budget:,} completions, seeds {', '.join(map(str, sorted(answers)))}"
    return Outcomes(_relations(pairs), source, {})


def _answering(study: StudyRecords, task: Task) -> dict[tuple[str, int], dict[int, list[EvaluationRecord]]]:
    """Return what answered each corner preference with a policy of its own: (method, budget) -> seed -> K answers."""
    groups: dict[tuple[str, int], dict[int, list[EvaluationRecord]]] = {}
    for cell in study.cells:
        if cell.family not in FAMILIES:  # trained on what no sampler sees, or not at all
            continue
        if cell.task == task.name and (cell.task, cell.seed) in study.references:
            answers = _corner_answers(cell, len(task.objectives))
            if answers:
                groups.setdefault((cell.method, cell.budget_completions), {})[cell.seed] = answers
    return {key: seeds for key, seeds in groups.items() if all(_differ(each) for each in seeds.values())}


def check_pilot(completions: int) -> None:
    """Check the length of a pilot.

    Raises:
        BudgetError: If no update fits in it.
    """
    least = ExpertSettings().group_size
    if completions < least:
        raise BudgetError(
            f"pilot (--pilot) must be at least {least} completions for each objective, one group, got {completions}. "
            "Try 1500."
        )


def pilot_outcomes(task: Task, completions: int, seed: int, units: FloatArray, progress: Progress) -> Outcomes:
    """Train one expert for each objective alone and compare them with the base model on development prompts.

    Args:
        task: The task instance.
        completions: Of each expert, rounded down to whole groups.
        seed: Training seed.
        units: What to divide each objective's scores by `[K]`.
        progress: Hears of completions.
    """
    from paretune.models.loading import unwrap
    from paretune.objectives.scoring import Scorer
    from paretune.rl.evaluation import evaluate, reference_policy
    from paretune.training.train import train

    count, group = len(task.objectives), ExpertSettings().group_size
    budget = completions // group * group * count
    solutions = train(PILOT_METHOD, task, budget, seed, progress=_link(progress, budget))
    stages = [read_stage(adapter.parents[2], adapter.parent.name) for adapter in solutions.experts]
    rows = task.development_rows()
    samples = -(-PILOT_EVALUATED // len(rows))
    policies = solutions.policies_for(corners(count))
    made = len(rows) * samples
    records: list[EvaluationRecord] = []
    for policy in (reference_policy(solutions.base, task), policies):
        records += evaluate(
            policy, rows, Scorer(task.objectives), task.objective_names, samples=samples, seed=seed,
            split="development",
        )  # fmt: skip
        progress("evaluating the pilot", len(records) * made, (count + 1) * made)
    unwrap(solutions.base)
    charged = {name: sum(stage.counts[name] for stage in stages) for name in stages[0].counts}
    charged["seconds"] = sum(stage.seconds for stage in stages)
    source = (
        f"a pilot of {budget // count:,} completions for each objective, {len(rows)} development prompts x {samples}"
    )
    return Outcomes(_relations([_paired(records[0], records[1:], units)]), source, charged)


def _corner_answers(cell: CellRecord, objectives: int) -> list[EvaluationRecord]:
    """Return a cell's answers to the corner preferences, or nothing where one is missing."""
    if cell.state != "done":
        return []
    answers = [cell.evaluation(corner) for corner in corners(objectives)]
    return [answer for answer in answers if answer is not None] if None not in answers else []


def _differ(answers: Sequence[EvaluationRecord]) -> bool:
    return len({each.identity for each in answers}) == len(answers)


def _paired(base: EvaluationRecord, trained: Sequence[EvaluationRecord], units: FloatArray) -> FloatArray:
    """Return mean scores of base and trained policies, `[1 + K, K]`, over prompts on which all of them have a score."""
    tables = [_by_prompt(record) for record in (base, *trained)]
    prompts = [prompt for prompt in tables[0] if all(prompt in table for table in tables)]
    scores = np.array([[table[prompt] for prompt in prompts] for table in tables])  # [1 + K, P, K]
    kept = ~np.isnan(scores).any(axis=0)  # [P, K]
    total = np.where(kept, scores, 0.0).sum(axis=1)
    count = kept.sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan) / units)


def _by_prompt(record: EvaluationRecord) -> dict[str, FloatArray]:
    """Return the expected or mean reward of each prompt in the K objectives, NaN where all are missing."""
    if record.exact_rewards is not None:
        return dict(zip(dict.fromkeys(record.prompt_ids), record.exact_rewards, strict=True))
    rewards = record.rewards[:, : len(record.objectives)]
    ids = np.asarray(record.prompt_ids)
    known = ~np.isnan(rewards)
    found = {}
    for prompt in dict.fromkeys(record.prompt_ids):
        mine = ids == prompt
        count = known[mine].sum(axis=0)
        total = np.where(known[mine], rewards[mine], 0.0).sum(axis=0)
        found[prompt] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _relations(pairs: Sequence[FloatArray]) -> OutcomeRelations:
    """Relate outcomes of seeds, each `[1 + K, K]`."""
    scores = np.stack(pairs)  # [S, 1 + K, K]
    return outcome_relations(scores[:, :1], scores[:, 1:].transpose(1, 0, 2)[:, :, None, :])


def _link(progress: Progress, budget: int) -> Link:
    made = 0

    def hear(message: Mapping[str, object]) -> None:
        nonlocal made
        if message["kind"] == "progress":
            made += int(str(message["completions"]))
            progress("training the pilot", made, budget)

    return Link(hear, lambda: False, cores())
