"""What people see of a study: one offline page, tables and figures. Never loads a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paretune.core.protocols import MetricRow
    from paretune.records.study import StudyRecords

__all__ = ["summary_table", "write_report"]


def write_report(folder: Path, study: StudyRecords | None = None, measured: Sequence[MetricRow] | None = None) -> Path:
    """Write the report of a study into `report/` of its folder, finished or not.

    Args:
        folder: The study's folder.
        study: Its records; read from the folder if None.
        measured: Rows of `measure_all`, where they are known.

    Returns:
        Path of `index.html`. Beside it: `tables.csv`, `tables.md`, `tables/`, `results.parquet`, `per_prompt.parquet`
        (and one for each finished part) and `figures/`.

    Raises:
        RecordError: If the folder is no study, or the report cannot be written.
    """
    from paretune.core.disk_errors import disk_errors
    from paretune.metrics import measure_all
    from paretune.records.per_prompt import write_per_prompt_files
    from paretune.records.reading import read_study
    from paretune.report.page import page_text
    from paretune.report.section import blocks, named_charts
    from paretune.report.sections import SECTIONS
    from paretune.report.sections.possible import controlled_table
    from paretune.report.sections.split import split_table
    from paretune.report.sections.tuning import tried_table
    from paretune.report.static import write_charts
    from paretune.report.tables import write_tables
    from paretune.report.view import View

    records = read_study(folder) if study is None else study
    if records.folder is not None and records.folder.resolve() != folder.resolve():
        records = replace(records, folder=None)  # `study.yaml` is not here
    view = View(records, measure_all(records) if measured is None else measured)
    more = (controlled_table(view.comparisons, view.rows), tried_table(records), split_table(records))
    target = folder / "report"
    page = target / "index.html"
    with disk_errors():
        target.mkdir(parents=True, exist_ok=True)
        files = write_tables(records, view.rows, target, [table for table in more if table is not None])
        files += write_per_prompt_files(records, target)
        found = blocks(view, SECTIONS)
        files += write_charts(named_charts(found, len(view.parts)), target / "figures")
        names = [file.relative_to(target).as_posix() for file in files]
        page.write_text(page_text(view, found, names), encoding="utf-8")
    return page


def summary_table(study: StudyRecords, measured: Sequence[MetricRow] | None = None) -> str:
    """Return the results as plain text for a terminal: one line per method, for each task and budget.

    Args:
        study: The records of a study.
        measured: Rows of `measure_all`, where they are known.
    """
    from paretune.metrics import measure_all
    from paretune.report.terminal import text_table

    return text_table(study, measure_all(study) if measured is None else measured)
