"""Training one method on one task, in this process: what `paretune.train` does."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from paretune.core.checks import check_count, check_seed
from paretune.core.errors import ConfigError, StudyError
from paretune.core.ledger import Ledger
from paretune.core.limits import MAX_COMPLETIONS
from paretune.core.preferences import grid_preferences, wanted_preferences
from paretune.core.scores import check_scored, missing_share
from paretune.core.stages import Stage, StageResult, in_order
from paretune.core.task import Task
from paretune.executors.jobs import Link, quiet_link
from paretune.methods import check_method_name
from paretune.methods.asking import asked_stages, assembled
from paretune.methods.entries import method_entry, on_task
from paretune.records.files import DONE, read_json
from paretune.records.layout import stage_folder
from paretune.tracking import check_trackers
from paretune.tracking.following import following
from paretune.tracking.runs import TrackedStage, tracked_runs
from paretune.training.finished import mend_stage, stage_result, stage_trouble
from paretune.training.groups import PlannedStage, begin_group, begun_groups, needs, populations
from paretune.training.locking import locked
from paretune.training.stages import run_group

if TYPE_CHECKING:
    from paretune.models.solutions import SolutionSet

_LOG = logging.getLogger(__name__)
TRACKED = "tracking"  # folder for what trackers write, inside the output folder or the current one
WORK = "training"  # inside the output folder until training has ended; a killed call goes on from it


def train(
    method: str,
    task: str | Path | Task,
    budget: Mapping[str, int] | int = 6000,
    seed: int = 0,
    preferences: ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
    settings: Mapping[str, object] | None = None,
    output: str | Path | None = None,
    progress: Link | None = None,
    trackers: Sequence[str] = (),
) -> SolutionSet:
    """Train a method on a task and return policies for any preference.

    Args:
        method: Name of a built-in method, or `module:Class`.
        task: A task, its name, or the path of its `task.yaml`.
        budget: `{"completions": n}`, or just n.
        seed: Training seed; it also names the task instance.
        preferences: What the method is given, and trains policies for where it trains one for each: `[M, K]`, shares
            or ratios, or mappings from objectives to weights; by default the grid with two divisions, and its centre.
        settings: What differs from the method's defaults.
        output: Folder to save to. A call that was killed goes on where it stopped when it is made again.
        progress: Hears of completions made.
        trackers: Names of trackers to tell of training: `tensorboard`, `wandb`, `mlflow`, `trackio`, or `module:Class`.

    Raises:
        ConfigError: If the method, a setting, the budget, the seed or a tracker cannot be used.
        MissingDependencyError: If the package of a tracker is not installed.
        PreferenceError: If a preference cannot be one, or is given twice.
        BudgetError: If the budget is too small for the method.
        RewardError: If an objective was never scored.
        StudyError: If the output folder already holds something else, or another call is training into it.
    """
    from paretune.models.solutions import SolutionSet
    from paretune.tasks import load_task

    check_seed(seed)
    check_method_name(method)
    told = check_trackers(trackers)
    instance = (task if isinstance(task, Task) else load_task(task)).instance(seed)
    entry = on_task(method_entry(method, dict(settings or {}), "train"), instance)
    if preferences is None:
        given = grid_preferences(len(instance.objectives), 2)
    else:
        given = wanted_preferences(preferences, instance.objective_names)
    stages = in_order(asked_stages(entry.method, instance, given, completions_of(budget), seed), instance)
    files = Path(TRACKED) if output is None else Path(output) / TRACKED
    runs = tracked_runs(instance.name, files, [TrackedStage(each, instance, [entry.label]) for each in stages])

    def solutions_in(work: Path) -> SolutionSet:
        with following(work, told) as follower:
            follower.describe(runs)
            results = finished_results(work, stages, instance, seed, progress)
        assembly = assembled(entry.method, instance, given, results)
        return SolutionSet.from_assembly(instance, assembly, entry.label, entry.method.family)

    return made_in(output, solutions_in)


def finished_results(
    work: Path, stages: Sequence[Stage], task: Task, seed: int, progress: Link | None
) -> dict[str, StageResult]:
    """Train what is missing of stages, needs first, and return the results of all by key.

    Args:
        work: Folder of the stages.
        stages: In an order where needs come first.
        task: The task instance.
        seed: That names it.
        progress: Hears of completions made.

    Raises:
        RewardError: If an objective was never scored.
    """
    missing = {}
    for stage in stages:
        wanted, trouble = stage_trouble(work, stage, task)
        if trouble:
            _LOG.warning("damaged: %s", trouble)
        if wanted:
            key = stage.key(task)
            missing[key] = PlannedStage(key, stage, task, seed, "new", (), stage.completions)
        elif trouble:
            mend_stage(work, stage, task)
    _train_missing(work, missing, progress or quiet_link())
    _say_missing_rewards(work, stages, task)
    return {stage.key(task): stage_result(work, stage, task) for stage in stages}


def made_in(output: str | Path | None, solutions_in: Callable[[Path], SolutionSet]) -> SolutionSet:
    """Make a solution set in a work folder: one inside the output, or one that lasts as long as the solution set.

    Args:
        output: Where it is saved to, or None. Only one call at a time makes something there.
        solutions_in: Makes it; in the same folder again after a kill.

    Raises:
        StudyError: If the output folder already holds something else, or another call is training into it.
    """
    from paretune.models.solutions import load_solutions

    if output is None:
        scratch = Path(tempfile.mkdtemp(prefix="paretune-"))
        solutions = solutions_in(scratch)
        weakref.finalize(solutions, shutil.rmtree, scratch, ignore_errors=True)
        return solutions
    folder = Path(output)
    _check_output(folder)
    work = folder / WORK
    with locked(work, shown=folder):  # the lock file goes with the work folder
        if (folder / DONE).exists():  # another call has finished since we looked
            shutil.rmtree(work)
            _check_output(folder)
        solutions_in(work).save(folder)
        shutil.rmtree(work)
    return load_solutions(folder)


def completions_of(budget: Mapping[str, int] | int) -> int:
    """Return a budget, `{"completions": n}` or just n, as a number.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(budget, Mapping):
        if set(budget) != {"completions"}:
            raise ConfigError(f"budget must be {{'completions': n}}, got {dict(budget)}. Name completions only.")
        budget = budget["completions"]
    return check_count("budget", budget, 1, MAX_COMPLETIONS, "Write a number of completions.")


def _check_output(folder: Path) -> None:
    if (folder / DONE).exists():
        raise StudyError(
            f"output folder must not hold a solution set yet, got '{folder}' with {DONE}. Name another folder."
        )
    begun = (folder / WORK).is_dir()  # then the rest is a copy of what lies there, which a kill has torn
    if folder.is_dir() and not begun and any(folder.iterdir()):
        raise StudyError(f"output folder must be empty, got '{folder}' with other files. Name another folder.")


def _train_missing(work: Path, missing: dict[str, PlannedStage], link: Link) -> None:
    for group in begun_groups(work, missing):
        run_group(work, group.folder, group.task, link)
        for key in group.keys:
            missing.pop(key, None)
    while missing:
        ready = [each for each in missing.values() if not needs(each) & missing.keys()]
        for members in populations(ready, workers=1):
            run_group(work, begin_group(work, members).folder, members[0].task, link)
        for each in ready:
            del missing[each.key]


def _say_missing_rewards(work: Path, stages: Sequence[Stage], task: Task) -> None:
    """Say at the end of a training of which objectives rewards are missing, and what they did last.

    Raises:
        RewardError: If an objective was never scored.
    """
    longest = {each.trajectory_key(task): each for each in sorted(stages, key=lambda each: each.completions)}
    total = Ledger()
    for each in longest.values():
        spent = Ledger.from_state(read_json(stage_folder(work, each.key(task)) / "ledger.json"))
        if spent.missing:
            total.count_rewards(spent.scored, spent.scored[0] + spent.missing[0], spent.faults)
    faults = total.fault_lines(task.objective_names)
    check_scored(total.scored, total.missing, faults)
    for name, made, lost, fault in zip(task.objective_names, total.scored, total.missing, faults, strict=False):
        if lost:
            said = missing_share(name, lost, lost + made, "training")
            _LOG.warning("%s They count for nothing. The last: %s", said, fault)
