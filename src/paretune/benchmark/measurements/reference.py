"""Reference: the base model on the test prompts of a task instance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.measurements.evaluation import reward_pairs, scored_anew, stored, tested
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.protocols import Table
from paretune.core.task import Task
from paretune.executors.jobs import Link
from paretune.records.evaluations import write_evaluation
from paretune.records.layout import EVALUATION, reference_folder
from paretune.records.tables import differing


class Reference:
    """One evaluation; where rewards have changed since, its completions are scored again."""

    name, version, alone = "reference", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a task instance."""
        return [
            Table(
                reference_folder(Path(), cell.task.name, cell.seed).as_posix(), cell.task.name, cell.seed,
                self.asked(cell.task, study), completions=len(study.test_rows(cell.task)) * study.samples,
            )
            for cell in {(cell.task.name, cell.seed): cell for cell in cells}.values()
        ]  # fmt: skip

    def asked(self, task: Task, study: Study) -> dict[str, object]:
        """Return what it depends on."""
        return {**base_model(task), **tested(task, study), "rewards": reward_pairs((*task.objectives, *task.audit))}

    def run(self, job: TableJob, link: Link) -> None:
        """Sample, or score again what it said before."""
        before = job.before.get("depends_on", {})
        if differing(before, job.depends_on, but=("rewards",)):
            from paretune.models.loading import load_base
            from paretune.rl.evaluation import evaluate, reference_policy

            base = reference_policy(load_base(job.task.model), job.task)
            (record,) = evaluate(base, **job.evaluation_arguments())
        else:
            (record,) = scored_anew(stored(job.root / job.table), before, job.depends_on, job.task)
        write_evaluation(record, job.folder / EVALUATION)


def base_model(task: Task) -> dict[str, object]:
    """Return what the base model says depends on, beside prompts and decoding."""
    lengths = [task.max_prompt_tokens, task.max_completion_tokens]
    return {"model": task.model_digest, **task.prompt_format.plain(), "lengths": lengths}
