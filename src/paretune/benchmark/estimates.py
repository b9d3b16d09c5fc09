"""How many completions a plan still takes, and how fast they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretune.benchmark.planned import PlannedStage
from paretune.records.reading import read_stage

TRAINING_RATE = 3_200.0  # tokens per second and worker, quick study on two busy laptop cores; until measured
EVALUATION_RATE = 2_400.0  # the same for evaluation: longer texts, read again by the base and by the audit
ENUMERATION_RATE = 600_000.0  # completions a second and worker that an exact gradient reads, study `controlled`
START_SECONDS = 20.0  # imports of a worker, and the report


def missing_completions(stages: Sequence[PlannedStage]) -> int:
    """Add up what is to be trained; a shorter run is made on the way of a longer one."""
    longest: dict[str, int] = {}
    for planned in stages:
        if planned.state != "finished":
            trajectory = planned.stage.trajectory_key(planned.task)
            longest[trajectory] = max(longest.get(trajectory, 0), planned.missing)
    return sum(longest.values())


def rate_of(
    stages: Sequence[PlannedStage], root: Path, spent: Sequence[tuple[float, float]]
) -> tuple[float | None, bool]:
    """Return completions per second and worker, and whether finished stages say so: else it is `TRAINING_RATE`.

    None where no stage is charged for any. `spent` are completions and seconds of finished stages beside these.
    """
    charged = [each for each in stages if each.stage.completions]
    records = [read_stage(root, each.key) for each in charged if each.state == "finished" and not each.trouble]
    seconds = sum(record.seconds for record in records) + sum(each for made, each in spent if made)
    completions = sum(record.counts["completions"] for record in records) + sum(made for made, _ in spent)
    if charged and seconds > 0 and completions > 0:
        return completions / seconds, True
    tokens = sum(each.stage.completions * each.task.max_completion_tokens for each in charged)
    return (TRAINING_RATE * sum(each.stage.completions for each in charged) / tokens if tokens else None), False
