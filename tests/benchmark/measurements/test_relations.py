"""Relations of a task's objectives, measured once a task and shown by every report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretune.benchmark.measurements.relations import SAMPLES, Relations
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.runner import StudyResult
from paretune.benchmark.study import Study
from paretune.records.reading import read_study
from paretune.report.sections.related import data
from paretune.report.view import View

Make = Callable[..., dict[str, Any]]


def planned(study: dict[str, Any], folder: Path) -> tuple[Study, tuple[PlannedCell, ...]]:
    made = plan(study, folder)
    return made.study, made.cells


def test_there_is_one_table_a_task_of_its_first_seed(study: Make, tmp_path: Path) -> None:
    (table,) = Relations().jobs(*planned(study(seeds=[2, 1]), tmp_path / "out"))
    assert table.folder == "relations/fake-1"
    assert (table.seed, table.completions, table.cells) == (1, SAMPLES, ())


def test_it_depends_on_the_model_the_rewards_and_the_training_prompts(study: Make, tmp_path: Path) -> None:
    (table,) = Relations().jobs(*planned(study(), tmp_path / "out"))
    assert {"model", "objectives", "training prompts", "samples"} <= table.depends_on.keys()
    assert "test prompts" not in table.depends_on


def test_a_study_measures_it_and_reads_it_back(asked: StudyResult) -> None:
    ((name, found),) = read_study(asked.folder).relations.items()
    assert name[1] == 0
    assert found["objectives"] == ["first", "second"]
    assert found["rewards"]["labels"][0][1] == "correlated"  # an empty completion scores 0 in both
    assert found["cost"]["completions"] == SAMPLES


def test_the_report_says_it_for_every_pair(asked: StudyResult) -> None:
    (part,) = View(read_study(asked.folder), ()).parts
    said: Any = data(part)["sentences"]
    assert said[0] == "Before any training: first and second are correlated."


def test_one_that_is_damaged_is_reported_as_missing(asked: StudyResult, tmp_path: Path) -> None:
    copy = shutil.copytree(asked.folder, tmp_path / "copy")
    (file,) = copy.glob("relations/*/relations.json")
    file.write_text("{")
    records = read_study(copy)
    assert not records.relations
    assert any("relations" in folder for folder in records.missing)
