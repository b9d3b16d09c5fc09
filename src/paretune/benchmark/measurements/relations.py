"""Relations: how the objectives of a task relate under its base model, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.measurements.reference import base_model
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.protocols import Table
from paretune.executors.jobs import Link
from paretune.records.files import write_json
from paretune.records.layout import RELATIONS, relations_folder

SAMPLES = 1024  # completions of the base model, as `paretune probe` takes


class Relations:
    """Rank correlations of rewards and cosines of gradients, once a task: on the instance of its first seed.

    What training did to the objectives, the third level, is in the evaluations of the study's own policies.
    """

    name, version, alone = "relations", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table for each task of two objectives or more."""
        first: dict[str, PlannedCell] = {}
        for cell in sorted(cells, key=lambda cell: cell.seed):
            first.setdefault(cell.task.name, cell)
        return [
            Table(
                relations_folder(Path(), name, cell.seed).as_posix(), name, cell.seed,
                {
                    **base_model(cell.task), "objectives": [each.key() for each in cell.task.objectives],
                    "training prompts": digest(list(cell.task.splits["train"])), "samples": SAMPLES,
                },
                completions=SAMPLES,
            )
            for name, cell in first.items()
            if len(cell.task.objectives) > 1
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Sample, score, and differentiate."""
        from paretune.benchmark.probe import probe

        made = 0

        def hear(doing: str, done: int, total: int) -> None:
            nonlocal made
            link.progress(max(0, done - made) if doing.startswith("sampling") else 0)
            made = max(made, done)

        found = probe(job.task, SAMPLES, job.seed, progress=hear)
        write_json(job.folder / RELATIONS, found.plain())
