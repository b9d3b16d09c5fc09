"""Scaling: what one objective more, and one preference more, cost a method, and what they cost the users it had."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.measurements.adaptation import unseen_preferences
from paretune.benchmark.measurements.evaluation import tested
from paretune.benchmark.measurements.worth import at_most, base_policy, spent, worth
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.digests import file_digest
from paretune.core.errors import BudgetError, ConfigError, TaskError
from paretune.core.preferences import FloatArray, centre, corners
from paretune.core.protocols import FAMILIES, Table
from paretune.core.stages import StageResult
from paretune.core.task import Task
from paretune.executors.jobs import Link
from paretune.methods.addition import addition, takes_one_expert
from paretune.methods.asking import asked_stages, assembled
from paretune.methods.defaults import Continuation
from paretune.records.files import write_json
from paretune.records.layout import cell_folder
from paretune.training.continuing import continued_in

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet

SEEDS = 3  # of the study, the first: a method that trains all again costs as much as its cell


class Scaling:
    """Both changes for real: `paretune.add_objective`, and a preference that no method was given.

    One expert more is trained with the completions that each objective had, a K-th of the budget; a method that trains
    all again has the whole budget once more. A single-policy method that trains for the preferences it is given trains
    one policy more, as long as its longest; any other answers the new preference as it is.
    """

    name, version, alone = "scaling", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table for each cell of a method, of the first seeds."""
        seeds = study.seeds[:SEEDS]
        return [
            self._table(study, cell) for cell in cells if cell.entry.method.family in FAMILIES and cell.seed in seeds
        ]

    def _table(self, study: Study, cell: PlannedCell) -> Table:
        task, unseen = cell.task, unseen_preferences(study, cell)[:1]
        more = with_one_more(task)
        users = len(task.objectives) + 1  # the old objectives one by one, and all of them alike
        scored = (0 if isinstance(more, str) else 3 * users + 2) + 2 * len(unseen)
        trained = (not isinstance(more, str)) + (cell.entry.method.family == "single-policy") * len(unseen)
        return Table(
            (cell_folder(Path(), cell.name) / self.name).as_posix(), task.name, cell.seed,
            {
                "training": cell.training_key, "training_preferences": cell.training_preferences.tolist(),
                **tested(task, study), "new preference": unseen.tolist(),
                "new objective": more if isinstance(more, str) else more.objectives[-1].key(),
            },
            (cell.name,), completions=trained * cell.budget + at_most(study, task, scored),
        )  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Make both changes, and score the users that there were and the new ones."""
        began = time.perf_counter()
        made = {"objective": new_objective(job), "preference": new_preference(job)}
        cost = {"run_seconds": time.perf_counter() - began}
        write_json(job.folder / f"{self.name}.json", {**made, "cost": cost})


def with_one_more(task: Task) -> Task | str:
    """Return a task with one objective more, or why there is none."""
    try:
        return task.with_one_more()
    except TaskError as error:
        return str(error)


def new_objective(job: TableJob) -> dict[str, object]:
    """Add an objective, and return what that took and what the users of the old ones and of the new one have."""
    task, old = with_one_more(job.task), job.solutions
    if isinstance(task, str):
        return {"reason": task}
    count = len(job.task.objectives)
    known = np.vstack([corners(count), centre(count)])
    before = np.hstack([known, np.zeros((len(known), 1))])
    users = np.vstack([before, corners(count + 1)[-1]])
    plan = _addition(job, task)
    if isinstance(plan, str):
        return {"reason": plan}
    how, continuation = plan
    (made,) = continued_in(job.work, old, [continuation], task, job.seed, job.training_link)
    had = worth(job, job.answering(known, job.rows), before, task)
    has = worth(job, job.answering(users, job.rows, made.solutions, task), users, task)
    base = worth(job, base_policy(task, users, len(job.rows)), users, task)
    return {
        "name": task.objective_names[-1], "how": how, **spent(made.results.values(), task),
        **_experts(old, made.solutions), "old": _side_by_side(base, had, has),
        "new": {"base": base[-1], "after": has[-1]}, "reason": "",
    }  # fmt: skip


def _addition(job: TableJob, task: Task) -> tuple[str, Continuation] | str:
    """Return how an objective is added, and what is to be trained for it; or why it cannot be."""
    method, budget, count = job.method, int(job.cell["budget_completions"]), len(task.objectives)
    given: FloatArray = np.asarray(job.cell["training_preferences"], dtype=np.float64)
    points = np.vstack([np.hstack([given, np.zeros((len(given), 1))]), corners(count)[-1], centre(count)])
    own: Any = getattr(method, "addition", None)
    modular = takes_one_expert(job.solutions, method)
    try:
        if own is not None:
            return "own", own(job.solutions, task, points, budget, job.seed, None)
        if modular:
            return "modular", addition(job.solutions, method, task, points, budget // (count - 1), job.seed, "modular")
        return "retrain", addition(job.solutions, method, task, points, budget, job.seed, "retrain")
    except (ConfigError, BudgetError) as error:
        return str(error)


def new_preference(job: TableJob) -> dict[str, object]:
    """Let the method answer a preference that it was not given, and return what that took and what its user has."""
    points: FloatArray = np.asarray(job.depends_on["new preference"], dtype=np.float64)
    if not len(points):
        return {"reason": "the study has no unseen preference: write preferences.unseen: 1"}
    (before,) = worth(job, job.answering(points, job.rows), points, job.task)
    unchanged = {**spent((), job.task), "trained": 0, "parameters": 0, "before": before, "after": before, "reason": ""}
    plan = _one_policy_more(job, points)
    if plan is None:
        return unchanged
    if isinstance(plan, str):
        return {**unchanged, "reason": plan}
    (made,) = continued_in(job.work, job.solutions, [plan], job.task, job.seed, job.training_link)
    (after,) = worth(job, job.answering(points, job.rows, made.solutions), points, job.task)
    experts = _experts(job.solutions, made.solutions)
    return {**unchanged, **spent(made.results.values(), job.task), **experts, "after": after}


def _one_policy_more(job: TableJob, points: FloatArray) -> Continuation | str | None:
    """Return how a single-policy method trains for a preference `[1, K]`; None where it does not, or why it cannot."""
    method, task = job.method, job.task
    if method.family != "single-policy":
        return None
    given: FloatArray = np.asarray(job.cell["training_preferences"], dtype=np.float64)
    planned = asked_stages(method, task, given, int(job.cell["budget_completions"]), job.seed)
    longest = max((stage.completions for stage in planned), default=0)
    try:
        stages = asked_stages(method, task, points, longest, job.seed)
        for_others = asked_stages(method, task, given[:1], longest, job.seed)
    except (ConfigError, BudgetError) as error:
        return str(error)
    if stages == for_others:
        return None  # it trains the same policy, whatever it is given

    def assemble(results: Mapping[str, StageResult], kept: tuple[Path, ...]) -> Any:
        return assembled(method, task, points, results)

    return Continuation(stages, assemble)


def _side_by_side(*users: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [dict(zip(("base", "before", "after"), each, strict=True)) for each in zip(*users, strict=False)]


def _experts(old: SolutionSet, new: SolutionSet) -> dict[str, int]:
    """Count experts by their content, kept and trained, and the parameters that were trained, those of a gate too."""
    from paretune.models.adapters import adapter_digest

    before, after = ({adapter_digest(each): each for each in made.experts} for made in (old, new))
    trained = [folder for name, folder in after.items() if name not in before]
    files = [path for folder in trained for path in folder.glob("*.safetensors")]
    gates = [made.mixer.gate for made in (old, new)]
    if gates[1] is not None and (gates[0] is None or file_digest(gates[0]) != file_digest(gates[1])):
        files.append(gates[1])
    kept = len(before.keys() & after.keys())
    return {
        "experts": len(before), "kept": kept, "trained": len(trained),
        "parameters": sum(parameters_of(file) for file in files),
    }  # fmt: skip


def parameters_of(file: Path) -> int:
    """Count the numbers in a file of tensors."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        return sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118  # no mapping
