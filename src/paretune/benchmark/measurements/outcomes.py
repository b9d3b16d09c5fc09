"""Outcomes: what the policies of a cell do at every scale of their experts' weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.measurements.evaluation import stored, tested
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.protocols import Table
from paretune.executors.jobs import Link
from paretune.records.layout import OUTCOMES, evaluations_folder, outcomes_folder
from paretune.records.outcomes import SCALES, write_outcome


class Outcomes:
    """Exact where completions can be listed; else from samples, where a study asks for it (`kl_matched`)."""

    name, version, alone = "outcomes", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a cell."""
        return [
            Table(
                outcomes_folder(Path(), cell.name).as_posix(), cell.task.name, cell.seed,
                {**cell.answered, **tested(cell.task, study)}, (cell.name,),
                completions=0 if cell.task.enumeration is not None else _sampled(study, cell),
            )
            for cell in cells
            if cell.task.enumeration is not None or study.kl_matched
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Score the cell's policies at every scale."""
        from paretune.rl.outcomes import outcomes, sampled_outcomes, tables

        policy, task = job.answering(job.preferences, job.rows), job.task
        if task.enumeration is not None:
            log_reference, rewards = tables(task, job.rows, job.scorer())
            found = outcomes(
                policy, job.rows, task.enumeration, log_reference, rewards, seed=job.seed, progress=link.progress
            )
        else:
            records = stored(evaluations_folder(job.root, job.cell["cell"]))
            found = sampled_outcomes(
                policy, records, job.rows, job.scorer(), task.objective_names, [each.name for each in task.audit],
                job.samples, job.seed, link.progress,
            )  # fmt: skip
        write_outcome(job.folder / OUTCOMES, found)


def _sampled(study: Study, cell: PlannedCell) -> int:
    """At scale 0 all policies are the base model, and at scale 1 they have been evaluated."""
    return len(study.test_rows(cell.task)) * study.samples * (len(cell.preferences) * (len(SCALES) - 2) + 1)
