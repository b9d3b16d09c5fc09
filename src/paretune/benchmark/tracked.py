"""Studies and their trackers: which runs a plan has, and forwarding what a folder holds already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.folder import check_folder
from paretune.benchmark.plan import plan as make_plan
from paretune.benchmark.planned import Plan
from paretune.benchmark.study import COPY, load_study
from paretune.core.errors import StudyError
from paretune.tracking import TrackedRun, check_trackers
from paretune.tracking.following import Follower
from paretune.tracking.runs import TrackedStage, tracked_runs
from paretune.training.locking import locked

FILES = "tracking"  # folder in a study's for what trackers write there


def runs_of(planned: Plan) -> dict[str, TrackedRun]:
    """Return the runs of a plan by key, those of its sweep too."""
    plans = (planned,) if planned.sweep is None else (planned, planned.sweep)
    labels = {cell.name: cell.entry.label for each in plans for cell in each.cells}
    stages = [
        TrackedStage(stage.stage, stage.task, [labels[cell] for cell in stage.cells if cell in labels])
        for each in plans
        for stage in each.stages
    ]
    return tracked_runs(planned.study.name, planned.folder / FILES, stages)


def track(folder: str | Path, trackers: Sequence[str]) -> int:
    """Tell trackers of what a study's logs hold and they were not told of yet; nothing is trained.

    Args:
        folder: Folder of a study that does not run.
        trackers: Names of built-in trackers, or `module:Class`.

    Returns:
        How many updates each tracker was told of, added up.

    Raises:
        ConfigError: If a tracker is unknown.
        MissingDependencyError: If the package of one is not installed.
        StudyError: If the folder holds no study, or a run works on it.
    """
    root = Path(folder)
    if not (root / COPY).is_file():
        raise StudyError(f"folder must be a study's, got '{root}' without {COPY}. Name what -o named.")
    names = check_trackers(trackers)
    study = load_study(root / COPY)
    check_folder(study, root)
    runs = runs_of(make_plan(study, root))
    with locked(root):
        follower = Follower(root, names)
        follower.describe(runs)
        try:
            return follower.look()
        finally:
            follower.close()
