"""The appendix: how numbers come about, how settings were chosen, files, ledgers, the resolved study."""

from __future__ import annotations

import json
from collections.abc import Mapping

from paretune.report.section import Section
from paretune.report.sections.split import split_charts, split_sentence, split_table
from paretune.report.sections.terms import TERMS
from paretune.report.sections.tuning import chosen_table, tuning_sentence
from paretune.report.tables import Table, stages_table
from paretune.report.view import View
from paretune.tasks.strict_yaml import to_yaml

MAX_TABLE_ROWS = 500


def data(view: View) -> Mapping[str, object]:
    """Collect what a reader looks up."""
    study, stages = view.study, stages_table(view.study)
    left_out = f"Showing {MAX_TABLE_ROWS} of {len(stages.rows):,} stages; tables/stages.csv holds all."
    return {
        "terms": TERMS,
        "tuning_sentence": " ".join(each for each in (tuning_sentence(study), split_sentence(study)) if each),
        "split": split_table(study),
        "charts": split_charts(view),
        "tuning": chosen_table(study.tuning),
        "stages": Table(stages.name, stages.title, stages.columns, stages.rows[:MAX_TABLE_ROWS]),
        "stages_left_out": left_out if len(stages.rows) > MAX_TABLE_ROWS else "",
        "task_settings": bool(study.resolved.get("learner")),
        "resolved": to_yaml(json.loads(json.dumps(study.resolved, default=str))),
    }


SECTION = Section("appendix", "Appendix", "Appendix", data, template="appendix.html.jinja", of="study")
