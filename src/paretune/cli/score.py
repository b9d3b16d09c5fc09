"""`paretune score`: stored completions scored again, and every metric made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from paretune.cli.arguments import Output
from paretune.cli.printing import say


def score(
    folder: Path, *, study: Annotated[str | None, Parameter(name="--study")] = None, output: Output | None = None
) -> int:
    """Score a study again from the completions it has stored, after a metric or a reward was changed.

    Metrics are made anew in any case, and so are rewards of a changed audit. Objectives that policies were trained for
    are scored by changed rewards into a report of its own, with --output: the study's folder stays as it is.

    Args:
        folder: Folder of a study.
        study: Its study file; by default the copy in the folder.
        output: Folder of a report under changed rewards of objectives; by default none of these may have changed.

    Example:
        paretune score results/mine
        paretune score results/mine --study study.yaml --output results/mine-rescored
    """
    from paretune.benchmark.score import score as score_study
    from paretune.benchmark.score_apart import score_apart
    from paretune.report.wording import count

    if output is not None:
        apart = score_apart(folder, output, study)
        for task, names in apart.changed.items():
            say(f"{task}: scored again on {', '.join(names)}; its policies were trained before the change")
        say(f"{count(apart.cells, 'cell')} scored again; {folder} is as it was")
        say(f"\nreport: {apart.page}")
        return 0
    done = score_study(folder, study)
    for task, audit in sorted({*done.cells, *done.references}):
        cells, bases = done.cells.get((task, audit), 0), done.references.get((task, audit), 0)
        say(f"audit '{audit}' of {task}: scored again in {count(cells, 'cell')} and {count(bases, 'base model')}")
    if not done.cells and not done.references:
        why = "" if done.left else ": every stored reward of the audit is of the task as it is"
        say(f"nothing to score again{why}; metrics are those of today")
    for name, why in done.left:
        say(f"{name}: left as it is, since {why}; paretune run samples anew")
    say(f"\nreport: {done.page}")
    return 0
