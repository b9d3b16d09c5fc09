"""Truth: what can be reached on a task instance, where completions can be listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.measurements.evaluation import tested
from paretune.benchmark.measurements.reference import base_model
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.protocols import Table
from paretune.executors.jobs import Link
from paretune.records.layout import TRUTH, truth_folder
from paretune.records.outcomes import front_divisions, write_outcome


class Truth:
    """The optimum for each preference, and the front."""

    name, version, alone = "truth", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a task instance whose completions can be listed."""
        return [
            Table(truth_folder(Path(), *each).as_posix(), *each, self._depends_on(study, cell))
            for each, cell in {(cell.task.name, cell.seed): cell for cell in cells}.items()
            if cell.task.enumeration is not None
        ]

    def _depends_on(self, study: Study, cell: PlannedCell) -> dict[str, object]:
        objectives = [objective.key() for objective in cell.task.objectives]
        return {
            **base_model(cell.task), **tested(cell.task, study), "objectives": objectives, "beta": cell.task.beta,
            "preferences": cell.preferences.tolist(), "front divisions": front_divisions(len(objectives)),
        }  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Sum over all completions."""
        from paretune.rl.outcomes import tables, truth

        log_reference, rewards = tables(job.task, job.rows, job.scorer())
        wanted = job.task.prompt_preferences(job.rows, job.preferences) if job.task.contextual else None
        write_outcome(job.folder / TRUTH, truth(log_reference, rewards, job.preferences, job.task.beta, wanted))
