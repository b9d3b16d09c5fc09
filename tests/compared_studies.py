"""Small studies that can be compared, made by hand: two prompts, two objectives, equal weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builders import cell, evaluation, stage, study, task_info
from paretune.benchmark.pairing import Source
from paretune.core.protocols import Table
from paretune.records.compact import compact
from paretune.records.layout import evaluations_folder, reference_folder
from paretune.records.study import StudyRecords

TWO = ("first", "second")
HALF = [0.5, 0.5]
INFO = task_info("small", [HALF], objectives=TWO, audit=(), test_prompts=2, samples=1)
MADE_OF = {
    "code": {}, "objectives": {"first": "r1", "second": "r2"}, "task": {"train": "t1", "model": "m1", "beta": "b1"},
    "version": 1,
}  # fmt: skip
TESTED = {"test prompts": "p1", "decoding": {"samples": 1}, "rewards": []}


def records(
    methods: Mapping[str, Sequence[float]],
    budget: int = 100,
    seeds: Sequence[int] | None = None,
    made_of: Mapping[str, object] | None = None,
    tested: Mapping[str, object] | None = None,
    preference: Sequence[float] = HALF,
    kl: float = 1.0,
) -> StudyRecords:
    """Return a study whose methods reach given utilities, one a seed; the first prompt is .2 easier than the second.

    Args:
        methods: Name -> utility of each seed, NaN for a cell that is pending.
        budget: Of all cells.
        seeds: Their names; 0, 1, ... by default.
        made_of: What differs from `MADE_OF`.
        tested: What differs from `TESTED`.
        preference: The one preference.
        kl: Of every completion.
    """
    cells = []
    for name, utilities in methods.items():
        for seed, reached in zip(seeds or range(len(utilities)), utilities, strict=False):
            if reached != reached:
                cells.append(cell(name, seed, (), (), "small", budget, "pending"))
                continue
            rewards = [[reached + 0.1, reached + 0.1], [reached - 0.1, reached - 0.1]]
            answer = evaluation(rewards, preference, TWO, kl=kl)
            made = {**MADE_OF, "source": name, "settings": {"method": name}, **(made_of or {})}
            spent = [stage(f"{name} {seed}", budget)]
            cells.append(replace(cell(name, seed, (answer,), spent, "small", budget), made_of=made))
    info = replace(INFO, preferences=evaluation([[0.0, 0.0]], preference, TWO).preference[None])
    depends_on = {**TESTED, **(tested or {}), "training": "x", "preferences": [list(preference)]}
    tables = [
        Table(
            evaluations_folder(Path(), each.cell).as_posix(),
            "small",
            each.seed,
            depends_on,
            (each.cell,),
            measurement="evaluation",
        )
        for each in cells
    ]
    made = study(cells, [info], {("small", seed): evaluation([[0.2, 0.2]] * 2, None, TWO) for seed in range(3)})
    tables += [
        Table(reference_folder(Path(), "small", seed).as_posix(), "small", seed, depends_on, measurement="reference")
        for seed in range(3)
    ]
    return replace(made, tables=tuple(tables))


def source(name: str, found: StudyRecords) -> Source:
    return Source(name, compact(found))
