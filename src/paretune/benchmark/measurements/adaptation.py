"""Adaptation: what users of preferences that no method was given have after some more training for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.measurements.evaluation import tested
from paretune.benchmark.measurements.worth import at_most, spent, worth
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.feedback import feedback_of
from paretune.core.preferences import FloatArray
from paretune.core.protocols import CEILING, REFERENCE, Table
from paretune.core.settings import plain_settings
from paretune.executors.jobs import Link
from paretune.methods.defaults import Continuation, adaptation
from paretune.records.files import write_json
from paretune.records.layout import cell_folder
from paretune.training.continuing import adapted_learning, continued_in

PREFERENCES = 2  # of the unseen ones, the first: what is trained, and costs, is the same for each
LENGTHS = (64, 256, 1024)  # completions to train for one of them; a shorter run is made on the way of the longest


class Adaptation:
    """`paretune.adapt` from the policy that answers an unseen preference, scored at each length on the test prompts.

    The row `base` is adapted too: that is training from scratch, for all methods of its task and seed. It goes on to
    the budgets of the study, as a policy of one's own that had all of a cell's completions. All learn as the task says,
    whatever their method's settings, with a new optimiser and the same prompts and noise.
    """

    name, version, alone = "adaptation", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a cell, of `base` one a task instance; none of a ceiling.

        Raises:
            ConfigError: If the study has no unseen preference.
        """
        if not study.unseen:
            raise ConfigError(
                "preferences.unseen must be at least 1 where adaptation is measured, got 0. Write unseen: 1, or take "
                "adaptation out of measurements."
            )
        first = {(cell.task.name, cell.seed): cell for cell in reversed(cells) if _is_base(cell)}
        measured = [cell for cell in cells if not _is_base(cell) and cell.entry.method.family != CEILING]
        return [self._table(study, cell) for cell in (*measured, *first.values())]

    def _table(self, study: Study, cell: PlannedCell) -> Table:
        task, points = cell.task, unseen_preferences(study, cell)
        lengths = sorted({*LENGTHS, *(study.budgets if _is_base(cell) else ())})
        own = hasattr(cell.entry.method, "adaptation")  # whose lengths need not be prefixes of one another
        trained = sum(lengths) if own else max(lengths)
        scored = at_most(study, task, len(lengths) + 1)
        return Table(
            (cell_folder(Path(), cell.name) / self.name).as_posix(), task.name, cell.seed,
            {
                "training": cell.training_key, "training_preferences": cell.training_preferences.tolist(),
                **tested(task, study), "adapted to": points.tolist(), "lengths": lengths,
                "learning": plain_settings(adapted_learning(task, {})),
            },
            (cell.name,), completions=len(points) * (trained + scored),
        )  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Plan all adaptations, train them side by side, and score start and results."""
        began = time.perf_counter()
        points: FloatArray = np.asarray(job.depends_on["adapted to"])
        plans = [planned(job, point) for point in points]
        asked = [(place, length) for place, each in enumerate(plans) if not isinstance(each, str) for length in each]
        chosen = [plan[length] for plan in plans if not isinstance(plan, str) for length in plan]
        made = continued_in(job.work, job.solutions, chosen, job.task, job.seed, job.training_link)
        starts = worth(job, job.answering(points, job.rows), points, job.task)
        curves = [[{"asked": 0, **spent((), job.task), **start}] for start in starts]
        for (place, length), each in zip(asked, made, strict=True):
            (scored,) = worth(job, each.solutions.policies_for(points[[place]]), points[[place]], job.task)
            curves[place].append({"asked": length, **spent(each.results.values(), job.task), **scored})
        stages = [result for each in made for result in each.results.values()]
        found = [
            {"preference": point.tolist(), "curve": curve, "reason": plan if isinstance(plan, str) else ""}
            for point, curve, plan in zip(points, curves, plans, strict=True)
        ]
        cost = {**spent(stages, job.task), "run_seconds": time.perf_counter() - began}
        write_json(job.folder / f"{self.name}.json", {"preferences": found, "cost": cost})


def unseen_preferences(study: Study, cell: PlannedCell) -> FloatArray:
    """Return the preferences that are adapted to, `[N, K]`."""
    points, unseen = study.preferences(cell.task)
    return np.asarray(points[unseen][:PREFERENCES])


def planned(job: TableJob, preference: FloatArray) -> dict[int, Continuation] | str:
    """Return the adaptations to a preference `[K]`, by the completions asked for, or why there are none."""
    task, method, solutions = job.task, job.method, job.solutions
    if task.contextual and feedback_of(job.cell["settings"]) == "oracle":
        return "its users are answered prompt by prompt, by no one policy that could be adapted"
    own: Any = getattr(method, "adaptation", None)
    try:
        if own is not None:
            return {length: own(solutions, task, preference, length, job.seed) for length in job.depends_on["lengths"]}
        learning = adapted_learning(task, {})
        return {
            length: adaptation(solutions, task, preference, length, job.seed, learning)
            for length in job.depends_on["lengths"]
        }
    except (ConfigError, BudgetError) as error:
        return str(error)


def _is_base(cell: PlannedCell) -> bool:
    return cell.entry.method.family == REFERENCE
