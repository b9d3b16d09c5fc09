"""How the objectives of a task relate before anything long is trained: in rewards, in gradients and in outcomes."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretune.benchmark.probe_outcomes import (
    Outcomes,
    Progress,
    check_pilot,
    nothing_trained,
    pilot_outcomes,
    read_for,
    study_outcomes,
)
from paretune.core.checks import check_seed
from paretune.core.disk_errors import disk_errors
from paretune.core.errors import BudgetError, ConfigError, TaskError
from paretune.core.preferences import FloatArray
from paretune.core.scores import Score
from paretune.core.task import Row, Task
from paretune.methods.experts import ExpertSettings
from paretune.relations.gradients import SMALLEST_BATCHES, GradientRelations, gradient_relations
from paretune.relations.labels import MARGIN, PairEstimates
from paretune.relations.rewards import RewardRelations, reward_relations
from paretune.report.relations_figure import RelationMatrix, estimate_text, write_relations_figure

if TYPE_CHECKING:
    from paretune.models.base import BaseModel
    from paretune.models.completions import Completions

PROMPTS = 16  # the label needs ranks within a prompt more than it needs prompts; 1,024 samples give each 64
BATCH = 64  # completions of a gradient, as many as the learner takes for an update
FEWEST = SMALLEST_BATCHES * BATCH
ROWS_AT_ONCE = 256  # sampled and scored between two signs of progress
FILE = "relations.json"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Probe:
    """How the objectives of a task relate.

    Attributes:
        task: Name of the task.
        objectives: Names of the K objectives.
        seed: Names the task instance, the prompts and the noise.
        prompts: Training prompts that were sampled from.
        samples: Completions of each of them.
        batches: Batches of gradients the completions were divided into.
        rewards: Rank correlations within prompts under the base model.
        gradients: Cosines of policy gradients of a fresh expert, and how often they conflict.
        outcomes: What training for one objective did to the others.
        problems: What rewards did wrong.
        seconds: What it took.
        files: What was written.
    """

    task: str
    objectives: tuple[str, ...]
    seed: int
    prompts: int
    samples: int
    batches: int
    rewards: RewardRelations
    gradients: GradientRelations
    outcomes: Outcomes
    problems: tuple[str, ...]
    seconds: float
    files: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """What was probed, in one line."""
        made = f"{self.prompts * self.samples:,} completions of the base model"
        return f"{self.task}, seed {self.seed}: {made} ({self.prompts} training prompts x {self.samples})"

    def matrices(self) -> tuple[RelationMatrix, ...]:
        """Return the three levels as matrices with labels, in the order rewards, gradients, outcomes."""
        names, own = self.objectives, ("itself",) * len(self.objectives)
        shares = [
            ["" if np.isnan(share) else f"{share:.0%} conflict" for share in row]
            for row in self.gradients.conflicts.values.tolist()
        ]
        return (
            RelationMatrix("rewards: rank correlation within prompts", names, self.rewards.correlations, own),
            RelationMatrix(
                "gradients: cosine of policy gradients", names, self.gradients.cosines, own,
                tuple(tuple(row) for row in shares),
            ),
            self._outcome_matrix(),
        )  # fmt: skip

    def _outcome_matrix(self) -> RelationMatrix:
        title = "outcomes: change of the column per unit gained in the row it was trained for"
        relations = self.outcomes.relations
        if relations is None:
            return RelationMatrix(title, self.objectives, None, missing=self.outcomes.source)
        changes = relations.changes
        gains = [
            estimate_text(float(changes.values[k, k]), float(changes.low[k, k]), float(changes.high[k, k]))
            for k in range(len(self.objectives))
        ]
        return RelationMatrix(title, self.objectives, relations.per_gain, tuple(f"gain {gain}" for gain in gains))

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON: what `relations.json` holds."""
        outcomes = self.outcomes.relations
        found = {
            "rewards": {
                **_plain_pairs(self.rewards.correlations),
                "prompts": self.rewards.prompts.tolist(),
                "left_out": self.rewards.left_out.tolist(),
            },
            "gradients": {
                **_plain_pairs(self.gradients.cosines),
                "conflicts": _plain_pairs(self.gradients.conflicts, labels=False),
            },
            "outcomes": {"missing": self.outcomes.source}
            if outcomes is None
            else {
                **_plain_pairs(outcomes.per_gain),
                "changes": _plain_pairs(outcomes.changes, labels=False),
                "seeds": outcomes.seeds.tolist(),
                "source": self.outcomes.source,
            },
        }
        return {
            "schema_version": SCHEMA, "task": self.task, "objectives": list(self.objectives), "seed": self.seed,
            "margin": MARGIN, "prompts": self.prompts, "samples_per_prompt": self.samples,
            "batches": self.batches, **found, "problems": list(self.problems),
            "cost": {
                "completions": self.prompts * self.samples, "seconds": round(self.seconds, 1),
                "pilot": dict(self.outcomes.charged),
            },
        }  # fmt: skip


def probe(
    task: str | Path | Mapping[str, object] | Task,
    samples: int = 1024,
    seed: int = 0,
    study: str | Path | None = None,
    pilot: int | None = None,
    output: str | Path | None = None,
    progress: Progress = lambda doing, done, total: None,
    method: str | None = None,
) -> Probe:
    """Measure how the objectives of a task relate under its base model, and say it in labels.

    Args:
        task: A task, its name, or the path of its `task.yaml`.
        samples: Completions sampled from the base model, at most.
        seed: Names the task instance, the prompts and the noise; equal seeds give equal results.
        study: Folder of a finished study whose policies tell the outcomes.
        pilot: Completions to train one expert for each objective with, to tell the outcomes instead.
        output: Folder for `relations.json` and the figure; None writes nothing.
        progress: Hears what is being done, how much is done and how much there is.
        method: Method of the study whose policies tell the outcomes; None takes the one with most seeds.

    Returns:
        Relations at three levels, each pair `correlated`, `competing`, `independent` or `undetermined`.

    Raises:
        TaskError: If the task has a single objective, or a prompt is too long.
        ConfigError: If the study is of another task, its method cannot tell outcomes, both a study and a pilot or a
            method without a study are given.
        BudgetError: If there are too few samples, or too few completions for a pilot.
        RecordError: If the study cannot be read, or the output folder cannot be written.
        RewardError: If no reward gives a score.
        ModelError: If the base model or a reward model cannot be loaded.
    """
    from paretune.tasks import load_task

    started = time.perf_counter()
    instance = load_task(task).instance(check_seed(seed))
    _check(instance, samples, study, pilot, method)
    records = None if study is None else read_for(study, instance, method)
    if output is not None:
        _check_output(Path(output))
    from paretune.models.loading import load_base
    from paretune.objectives.scoring import Scorer

    base, scorer = load_base(instance.model), Scorer(instance.objectives)
    rows = _prompts(instance, base, seed)
    each = BATCH // len(rows)  # completions of a prompt in a batch
    count = samples // (len(rows) * each) * each
    parts, rewards = _sample(instance, base, scorer, rows, count, seed, progress)
    gradients = _gradients(base, parts, rewards, each, seed, progress)
    units = np.array([high - low for low, high in (objective.range for objective in instance.objectives)])
    if records is not None:
        outcomes = study_outcomes(records, instance, units, method)
    elif pilot is not None:
        outcomes = pilot_outcomes(instance, pilot, seed, units, progress)
    else:
        outcomes = nothing_trained()
    found = _named(
        Probe(
            instance.name, instance.objective_names, seed, len(rows), count, count // each,
            reward_relations(rewards), gradients, outcomes,
            tuple(f"{each.objective}: {each.count:,} scores {each.status}, {each.example}" for each in scorer.problems),
            time.perf_counter() - started,
        )
    )  # fmt: skip
    return found if output is None else _write(found, Path(output))


def _check(task: Task, samples: int, study: str | Path | None, pilot: int | None, method: str | None) -> None:
    names = task.objective_names
    if len(names) < 2:
        raise TaskError(
            f"task '{task.name}' must have at least two objectives to relate, got one ('{names[0]}'). Add another."
        )
    if samples < FEWEST:
        raise BudgetError(
            f"samples (--samples) must be at least {FEWEST}, {SMALLEST_BATCHES} batches of {BATCH} completions, got "
            f"{samples}. Try 1024."
        )
    if study is not None and pilot is not None:
        raise ConfigError(
            "outcomes must come from one source, got study (--from) and pilot (--pilot). Leave one of them out."
        )
    if method is not None and study is None:
        raise ConfigError(
            f"method (--method) must be one of a study (--from), got '{method}' without a study. Give the study, or "
            "leave it out."
        )
    if pilot is not None:
        check_pilot(pilot)


def _check_output(folder: Path) -> None:
    """Make the folder before anything is sampled: hours of samples must not end at a name that is taken."""
    with disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _prompts(task: Task, base: BaseModel, seed: int) -> list[Row]:
    """Return the first training prompts in the order in which a training seed visits them, equal ones once."""
    from paretune.rl.rollout import Prompts, PromptStream
    from paretune.tasks.checks import check_prompts

    check_prompts(task, base.encoder)
    rows = task.splits["train"]
    ids = [base.encoder.ids(str(row["prompt"]), task.prompt_format) for row in rows]
    order = PromptStream(Prompts(rows, ids), seed).indices(0, len(rows))
    once: dict[tuple[int, ...], Row] = {}  # equal prompts would repeat each other's noise
    for index in order:
        once.setdefault(ids[index], rows[index])
    return list(once.values())[:PROMPTS]


def _sample(
    task: Task, base: BaseModel, score: Score, rows: Sequence[Row], count: int, seed: int, progress: Progress
) -> tuple[list[Completions], FloatArray]:
    """Sample and score completions of the base model, some prompts at a time; return them and rewards `[P, S, K]`."""
    from paretune.rl.evaluation import reference_policy

    policy = reference_policy(base, task)
    step = max(1, ROWS_AT_ONCE // count)
    parts, rewards = [], []
    progress("sampling and scoring", 0, len(rows) * count)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        made = policy.generate([str(row["prompt"]) for row in some], samples=count, seed=seed)
        scores = score([some[prompt] for _, prompt, _ in made.row_ids], made.texts)
        parts.append(made)
        rewards.append(scores.rewards.reshape(len(some), count, -1))
        progress("sampling and scoring", (start + len(some)) * count, len(rows) * count)
    return parts, np.concatenate(rewards)


def _gradients(
    base: BaseModel, parts: Sequence[Completions], rewards: FloatArray, each: int, seed: int, progress: Progress
) -> GradientRelations:
    """Relate the objectives' gradients for a fresh expert, over batches of `each` completions of every prompt.

    KL is left out: at the base model its gradient is zero in expectation, so it would add noise only.
    """
    import torch
    from torch.nn.functional import pad

    from paretune.models.bank import ExpertBank
    from paretune.rl.advantages import leave_one_out
    from paretune.rl.objective_gradients import gram_of, objective_gradients, up_projections

    prompts, count, _ = rewards.shape
    longest = max(part.token_ids.shape[1] for part in parts)
    token_ids = torch.cat([pad(part.token_ids, (0, longest - part.token_ids.shape[1])) for part in parts])
    lengths = torch.cat([part.lengths for part in parts])
    prompt_ids = [ids for part in parts for ids in part.prompt_ids]
    settings = ExpertSettings()
    bank = ExpertBank(base, 1, settings.rank, settings.alpha)
    bank.initialise([seed])
    gradients = []
    try:
        for start in range(0, count, each):
            rows = [prompt * count + start + number for prompt in range(prompts) for number in range(each)]
            batch = torch.from_numpy(rewards[:, start : start + each].reshape(len(rows), -1))
            advantages = leave_one_out(batch, each)
            chosen = [prompt_ids[row] for row in rows]
            gradients.append(
                objective_gradients(bank, chosen, token_ids[rows], lengths[rows], advantages, up_projections(bank))
            )
            progress("computing gradients", (start + each) * prompts, count * prompts)
    finally:
        bank.unwrap()
    return gradient_relations(gram_of(gradients))


def _named(found: Probe) -> Probe:
    """Put the names of objectives into the reasons, which number them."""

    def named(pairs: PairEstimates) -> PairEstimates:
        rows = tuple(tuple(_with_names(reason, found.objectives) for reason in row) for row in pairs.reasons)
        return replace(pairs, reasons=rows)

    outcomes, relations = found.outcomes, found.outcomes.relations
    if relations is not None:
        relations = replace(relations, changes=named(relations.changes), per_gain=named(relations.per_gain))
        outcomes = replace(outcomes, relations=relations)
    gradients = replace(
        found.gradients, cosines=named(found.gradients.cosines), conflicts=named(found.gradients.conflicts)
    )
    rewards = replace(found.rewards, correlations=named(found.rewards.correlations))
    return replace(found, rewards=rewards, gradients=gradients, outcomes=outcomes)


def _with_names(reason: str, names: Sequence[str]) -> str:
    """Return a reason with the name in place of each number.

    Example:
        >>> _with_names("objective 1 has no reward", ["warmth", "brevity"])
        'brevity has no reward'
    """
    return re.sub(r"objective (\d+)", lambda found: names[int(found[1])], reason)


def _plain_pairs(pairs: PairEstimates, labels: bool = True) -> dict[str, object]:
    plain: dict[str, object] = {
        name: [[None if np.isnan(value) else value for value in row] for row in getattr(pairs, name).tolist()]
        for name in ("values", "low", "high")
    }
    if labels:
        plain["labels"] = [list(row) for row in pairs.labels()]
    return {**plain, "reasons": [list(row) for row in pairs.reasons]}


def _write(found: Probe, folder: Path) -> Probe:
    from paretune.records.files import write_json

    file = folder / FILE
    write_json(file, found.plain())
    return replace(found, files=(file, *write_relations_figure(found.matrices(), found.title, folder / "relations")))
