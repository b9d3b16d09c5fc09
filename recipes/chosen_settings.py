"""What a finished sweep chose for each of its rows, for the recipes that write studies of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from csv_lines import write_lines  # type: ignore[import-not-found]  # beside this file

from paretune.benchmark.study import load_study
from paretune.core.errors import RecordError
from paretune.records.reading import read_study


@dataclass(frozen=True)
class Choice:
    """What a sweep chose for a row.

    Attributes:
        row: The row's method and settings, as a study has them.
        score: Mean over all tasks of what these settings scored on tuning instances.
    """

    row: dict[str, Any]
    score: float


def choices(folder: Path) -> dict[str, Choice]:
    """Return what a sweep chose for each row: one choice for all of its tasks, by the mean of their scores.

    Rows that are only held against, such as `base`, are left out.

    Args:
        folder: Of the sweep's study.

    Raises:
        RecordError: If the sweep of a row is not finished on every task, or gave no score.
    """
    study, named = read_study(folder), load_study(folder / "study.yaml")
    written: Any = study.resolved["methods"]
    found: dict[str, Choice] = {}
    for entry in (each for each in named.methods if each.method.family != "reference"):
        swept = [each.points for each in study.tuning if each.method == entry.label]
        scores = [_mean([point.score for point in points]) for points in zip(*swept, strict=True)]
        if len(swept) < len(named.tasks) or max(scores, default=-inf) == -inf:
            raise RecordError(
                f"the sweep of {entry.label} must be finished, got no choice. Run the same command again."
            )
        place = scores.index(max(scores))
        default = json.loads(json.dumps(vars(entry.method.Settings())))  # as a file has it: no tuples
        given = dict(written[entry.label])
        own = {name: value for name, value in given.items() if default.get(name, value) != value}
        found[entry.label] = Choice({"method": entry.source, **own, **swept[0][place].settings}, scores[place])
    return found


def save_choices(chosen: Mapping[str, Choice], file: Path) -> None:
    """Write choices as JSON: with them studies can be written again where the sweep's folder is gone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {label: vars(each) for label, each in chosen.items()}
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def load_choices(source: Path) -> dict[str, Choice]:
    """Return the choices of a file that `save_choices` wrote, or of a sweep's folder."""
    if source.is_dir():
        return choices(source)
    try:
        return {label: Choice(**each) for label, each in json.loads(source.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecordError(
            f"choices must come from a sweep's folder or a file that studies.py wrote, got '{source}' ({error}). "
            "Correct the path."
        ) from error


def _mean(scores: Sequence[float | None]) -> float:
    """Return the mean; minus infinity where one is missing, as such settings cannot be chosen."""
    known = [each for each in scores if each is not None]
    return sum(known) / len(known) if len(known) == len(scores) else -inf


def write_points(folder: Path, file: Path) -> None:
    """Write all settings that a sweep tried, and what they scored on tuning instances, as comma-separated values."""
    lines: list[dict[str, object]] = []
    for each in read_study(folder).tuning:
        for place, point in enumerate(each.points):
            seeds = {f"instance_{seed}": score for seed, score in point.per_seed.items()}
            chosen = "here" if place == each.chosen else ""
            head = {
                "task": each.task,
                "row": each.method,
                **{name: str(value) for name, value in point.settings.items()},
            }
            lines.append({**head, each.measure: point.score, **seeds, "best": chosen})
    write_lines(lines, file)
