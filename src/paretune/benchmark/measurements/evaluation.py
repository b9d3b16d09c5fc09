"""Evaluation: what the policies of a cell answer to every preference on the test prompts, and its rewards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.changes import rewards_of
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.protocols import Table
from paretune.core.scores import Score, check_statuses
from paretune.core.task import Objective, Task
from paretune.executors.jobs import Link
from paretune.records.evaluation import EvaluationRecord
from paretune.records.evaluations import read_evaluation, write_evaluation
from paretune.records.files import fresh_folder
from paretune.records.layout import evaluation_path
from paretune.records.tables import changed_rewards, differing, look, plain_parts, seal_table


class Evaluation:
    """A sealed solution set, and an evaluation for each preference.

    Evaluations that an earlier, smaller version of the study made of the same policies are kept; where rewards of the
    audit have changed since, their completions are scored again.
    """

    name, version, alone = "evaluation", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a cell."""
        return [
            Table(
                cell.table, cell.task.name, cell.seed, {**cell.answered, **self.asked(cell.task, study)},
                (cell.name,), cell.stages, len(study.test_rows(cell.task)) * _policies(cell) * study.samples,
            )
            for cell in cells
        ]  # fmt: skip

    def asked(self, task: Task, study: Study) -> dict[str, object]:
        """Return what it depends on beside its cell and preferences."""
        return {**tested(task, study), "rewards": reward_pairs(task.audit)}

    def run(self, job: TableJob, link: Link) -> dict[str, object]:
        """Assemble the cell's solution set, seal it, and evaluate it for each preference that is not yet."""
        from paretune.rl.evaluation import evaluate

        before, now = job.before.get("depends_on", {}), job.depends_on
        same = not {"training", "training_preferences"}.intersection(differing(before, now))
        answer = job.before["answer"] if same else digest(job.answer)
        kept = {}
        if (
            job.before.get("answer") == answer
            and differing(before, now, but=("training_preferences", "preferences", "rewards")) == []
        ):
            records = scored_anew(stored(job.root / job.table), before, now, job.task)
            kept = {record.preference.tobytes(): record for record in records}
        job.seal_cell()
        missing = [point for point in job.preferences if point.tobytes() not in kept]
        if missing:
            made = job.with_prompt_preferences(
                evaluate(job.answering(np.stack(missing), job.rows), **job.evaluation_arguments())
            )
            kept.update(zip((point.tobytes() for point in missing), made, strict=True))
        write([kept[point.tobytes()] for point in job.preferences], job.folder)
        return {"answer": answer}


def _policies(cell: PlannedCell) -> int:
    """Return how many policies answer at most: where nothing is trained, the base model answers every preference."""
    return len(cell.preferences) if cell.stages else 1


def tested(task: Task, study: Study) -> dict[str, object]:
    """Return what completions are made for, and how."""
    return {"test prompts": digest(list(task.splits["test"])), "decoding": study.decoding(), **context_of(task)}


def context_of(task: Task) -> dict[str, object]:
    """Return what the worth of completions to users depends on beside their preferences; nothing without context."""
    return {"context": task.context_key()} if task.contextual else {}


def reward_pairs(objectives: Sequence[Objective]) -> list[list[str]]:
    """Return names and digests of objectives in their order: the part `rewards` of what a table depends on."""
    return [list(pair) for pair in rewards_of(objectives).items()]


def stored(folder: Path) -> list[EvaluationRecord]:
    """Read all evaluations of a sealed table."""
    return [read_evaluation(path) for path in sorted(folder.glob("*.parquet"))]


def write(records: Sequence[EvaluationRecord], folder: Path) -> None:
    """Write evaluations in their order."""
    for index, record in enumerate(records):
        write_evaluation(record, evaluation_path(folder, index))


def rescore(root: Path, table: Table, task: Task, asked: Mapping[str, object]) -> tuple[Table, list[str], str]:
    """Score the completions in a sealed table again, if those are all that is asked for.

    Args:
        root: The study's folder.
        table: The table, of evaluations.
        task: Its task instance.
        asked: What it depends on beside its cell and preferences, see `Evaluation.asked`.

    Returns:
        The table as it is now, the names of the objectives that were scored, and why it was left as it is, or nothing.
    """
    found = look(root, table.folder)
    before = found.values.get("depends_on", {})
    scored = replace(table, depends_on={**before, **asked})
    now = plain_parts(scored)
    changed = changed_rewards(before, now)
    if found.state != "finished":
        return table, [], f"{table.folder}: {found.why}"
    if changed is None:
        return table, [], "other completions are asked for now"
    if changed:
        folder = root / table.folder
        records, fresh = scored_anew(stored(folder), before, now, task), fresh_folder(folder)
        for path, record in zip(sorted(folder.glob("*.parquet")), records, strict=True):
            write_evaluation(record, fresh / path.name)
        seal_table(fresh, folder, scored, {name: value for name, value in found.values.items() if name == "answer"})
    return scored, changed, ""


def scored_anew(
    records: Sequence[EvaluationRecord], before: Mapping[str, Any], now: Mapping[str, Any], task: Task
) -> list[EvaluationRecord]:
    """Return evaluations with the rewards of today; those that have not changed stay as they are.

    Args:
        records: Of the task's test prompts.
        before: What they depended on.
        now: What they are to depend on.
        task: The task instance.

    Raises:
        RewardError: If a reward function failed on every completion.
    """
    changed = changed_rewards({"rewards": before["rewards"]}, {"rewards": now["rewards"]})
    if not changed:
        return list(records)
    from paretune.objectives.scoring import Scorer

    again = [each for each in (*task.objectives, *task.audit) if each.name in changed]
    score = Scorer(again) if again else None
    anew = [_rescored(record, task, score, changed) for record in records]
    own = [k for k, name in enumerate((*anew[0].objectives, *anew[0].audit)) if name in changed]
    faults = [
        f"{each.name} ({anew[0].statuses[0, k]}), logs say what it did" for each, k in zip(again, own, strict=True)
    ]
    check_statuses([record.statuses[:, own] for record in anew], faults)
    return anew


def _rescored(record: EvaluationRecord, task: Task, score: Score | None, changed: Collection[str]) -> EvaluationRecord:
    everything = (*task.objectives, *task.audit)
    columns = {
        name: (record.rewards[:, index], record.statuses[:, index])
        for index, name in enumerate((*record.objectives, *record.audit))
    }
    if score is not None:
        rows = {str(row["prompt_id"]): row for row in task.splits["test"]}
        scores = score([rows[prompt] for prompt in record.prompt_ids], record.completions)
        again = [each.name for each in everything if each.name in changed]
        columns |= {name: (scores.rewards[:, k], scores.statuses[:, k]) for k, name in enumerate(again)}
    wanted = [columns[each.name] for each in everything]
    return replace(
        record,
        audit=tuple(each.name for each in task.audit),
        rewards=np.stack([rewards for rewards, _ in wanted], axis=1),
        statuses=np.stack([statuses for _, statuses in wanted], axis=1),
    )
