"""The report as one offline HTML page: order of the reader's questions, everything escaped, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from paretune.core.printable import printable
from paretune.core.protocols import MetricRow
from paretune.core.version import VERSION
from paretune.pareto.front import non_dominated
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison, comparisons, shown_colours
from paretune.report.completeness import failure, warnings
from paretune.report.controlled import panel_data, panels, share_table, volume_table
from paretune.report.controls import controls_of
from paretune.report.costs import Cost, costs
from paretune.report.embedded_data import (
    MAX_COLUMNS,
    MAX_HEAT_CELLS,
    cost_data,
    embedded_json,
    front_data,
    heat_data,
    sample_data,
    shown_preferences,
)
from paretune.report.estimates import column_mean
from paretune.report.findings import findings
from paretune.report.header import commands, failures, key_figures, lost_rewards, subtitle
from paretune.report.heat_map import BASE, HeatMap, baselines, heat_map, separable
from paretune.report.kl_curves import kl_curves, kl_data, kl_notes, kl_tables
from paretune.report.measured import achieved, judged
from paretune.report.metric_lines import metric_lines
from paretune.report.optimum import optimum_estimate, optimum_sentence, optimum_table
from paretune.report.overall import (
    Overall,
    improvement_table,
    mean_table,
    overall_sentence,
    overalls,
    profile_data,
    profiles,
)
from paretune.report.palette import family_marker
from paretune.report.ranking import interval_rule, main_table
from paretune.report.samples import DISAGREEMENTS, FIRST_PROMPTS, shown_seed
from paretune.report.split import split_sentence, split_table
from paretune.report.tables import Table, stages_table
from paretune.report.terms import TERMS
from paretune.report.tuning import chosen_table, tuning_sentence
from paretune.report.wording import count, interval, listing, number, seconds, table_cell
from paretune.tasks.strict_yaml import to_yaml

SCRIPTS = ("words", "charts", "heat_map", "completions", "sorting", "page")  # one script, joined in this order
MAX_TABLE_ROWS = 500


def render_page(study: StudyRecords, rows: Sequence[MetricRow], files: Sequence[str] = ()) -> str:
    """Return the page as text.

    Args:
        study: The study.
        rows: Its metrics.
        files: Relative names of files written beside the page, to link to.
    """
    parts = comparisons(study)
    colours = shown_colours(parts)
    shapes = {method.name: family_marker(method.family) for part in parts for method in part.methods}
    plotly, script = _plotly(), _script()
    stages = stages_table(study)
    shares, together = panels(parts, rows), overalls(parts, rows)
    environment = _environment()
    ceilings = {method.name for part in parts for method in part.methods if method.ceiling}
    environment.globals |= {"colours": colours, "shapes": shapes, "base": BASE, "ceilings": ceilings}
    environment.globals["untrained"] = {each.name for part in parts for each in part.untrained}
    return environment.get_template("report.html.jinja").render(
        study=study,
        policy=content_policy(plotly, script),
        css=_own("report.css"),
        plotly=plotly,
        script=script,
        subtitle=subtitle(study, parts),
        warnings=warnings(study, parts),
        key_figures=key_figures(study, parts),
        parts=[_part(study, part, rows, colours, parts) for part in parts],
        panels=[
            {
                "title": each.title,
                "drawn": each.drawn,
                "outside": listing(each.outside(rows)),
                "tables": [share_table(each, rows), volume_table(each, rows)],
            }
            for each in shares
        ],
        has_kl=any(kl_curves(part, ()) for part in parts),
        overalls=[_together(each) for each in together],
        study_data=embedded_json(
            {
                "panels": [panel_data(each, rows, colours) for each in shares],
                "profiles": [profile_data(each, colours) for each in together],
            }
        ),
        failures=failures(study),
        lost=lost_rewards(study),
        commands=commands(study),
        environment=[(name, str(value)) for name, value in study.environment.items()],
        first_prompts=FIRST_PROMPTS,
        disagreements=DISAGREEMENTS,
        terms=TERMS,
        tuning_sentence=" ".join(each for each in (tuning_sentence(study), split_sentence(study)) if each),
        split=split_table(study),
        tuning=chosen_table(study.tuning),
        files=files,
        stages=Table(stages.name, stages.title, stages.columns, stages.rows[:MAX_TABLE_ROWS]),
        stages_left_out=_left_out(len(stages.rows), "stages", "tables/stages.csv"),
        task_settings=bool(study.resolved.get("learner")),
        resolved=to_yaml(json.loads(json.dumps(study.resolved, default=str))),
        version=VERSION,
    )


def content_policy(*scripts: str) -> str:
    """Return a content security policy that runs these scripts only and fetches nothing.

    Styles may be inline: Plotly sets them on the elements it draws.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src 'none'; "
        "form-action 'none'; base-uri 'none'"
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("paretune.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # Markup is our own
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = table_cell
    return environment


def _own(name: str) -> Markup:
    """Read a style sheet or script of this package; only our own text is ever passed through unescaped."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))  # our file


def _script() -> Markup:
    joined = Markup("\n").join(_own(f"scripts/{name}.js") for name in SCRIPTS)
    return Markup('"use strict";\n(() => {\n') + joined + Markup("})();")


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))  # the library's own file


def _left_out(total: int, what: str, where: str) -> str:
    return f"Showing {MAX_TABLE_ROWS} of {total:,} {what}; {where} holds all." if total > MAX_TABLE_ROWS else ""


def _part(
    study: StudyRecords,
    part: Comparison,
    rows: Sequence[MetricRow],
    colours: dict[str, str],
    parts: Sequence[Comparison],
) -> dict[str, object]:
    spent, (score, scores) = costs(part, rows), judged(part, rows)
    shown = shown_preferences(len(part.labels), len(part.objectives), MAX_COLUMNS)
    maps = _heat_maps(part, shown)
    front, samples = front_data(part, colours), sample_data(part, shown)
    lines, optimum = metric_lines(part, rows), optimum_estimate(part, study)
    data = {
        "front": front,
        "heat": heat_data(maps),
        "costs": cost_data(spent, scores),
        "judged": score,
        "samples": samples,
        "kl": kl_data(kl_curves(part, parts), part, study, colours),
    }
    return {
        "title": part.title,
        "judged_on": part.task.judged_on,
        "seeds": part.seeds,
        "preferences": len(part.labels),
        "matrix": [_matrix_row(part, method.name) for method in part.methods],
        "findings": findings(part, rows, controls_of(study.resolved.get("methods"))),
        "ranking": main_table(part, rows),
        "interval_rule": interval_rule(list(achieved(part, rows).values())),
        "optimum": None if optimum is None else optimum_sentence(optimum, part.labels),
        "optimum_table": None if optimum is None else optimum_table(optimum, part.labels),
        "kl_notes": kl_notes(part, rows) if data["kl"] else [],
        "kl_tables": kl_tables(part, rows) if data["kl"] else [],
        "front_sentence": _front_sentence(part),
        "front_notice": front["notice"],
        "front_table": _front_table(part),
        "few_points": len(part.methods) * len(part.labels) <= 60,
        "pairs": _pairs(part),
        "baselines": [each.baseline for each in maps],
        "heat_scale": number(maps[0].scale) if maps else "",
        "heat_notice": _heat_notice(part, len(shown), len(maps)),
        "heat_columns": [
            {"lines": part.labels[column].split(", "), "unseen": bool(part.task.unseen[column])} for column in shown
        ],
        "heat_rows": _heat_rows(maps[0]) if maps else [],
        "metrics": lines,
        "metric_titles": list(dict.fromkeys(line.title for line in lines)),
        "cost_sentence": _cost_sentence(part),
        "judged": score,
        "cost_rows": [_cost_row(cost, scores[cost.method].value, part.method(cost.method).ceiling) for cost in spent],
        "timing_note": _timing_note(study, part),
        "text_seed": shown_seed(part),
        "text_preferences": [part.labels[column] for column in shown],
        "text_notice": samples["notice"],
        "data": embedded_json(data),
    }


def _together(overall: Overall) -> dict[str, object]:
    found = profiles(overall)
    return {
        "title": overall.title,
        "sentence": overall_sentence(overall),
        "tables": [each for each in (mean_table(overall), improvement_table(overall)) if each is not None],
        "notice": found if isinstance(found, str) else "",
        "score": overall.score,
    }


def _matrix_row(part: Comparison, name: str) -> dict[str, object]:
    method = part.method(name)
    cells = []
    for seed in part.seeds:
        cell = method.cells.get(seed)
        if cell is None:
            cells.append({"state": "pending", "text": "not planned"})
        elif cell.state == "failed":
            cells.append({"state": "failed", "text": f"✕ failed: {failure(cell)}"})
        else:
            cells.append({"state": cell.state, "text": "✓ done" if cell.state == "done" else "… not run"})
    return {"method": name, "family": method.family, "cells": cells}


def _pairs(part: Comparison) -> list[dict[str, str]]:
    names = part.objectives
    drawn = listing([method.name for method in part.methods])
    return [
        {
            "key": f"{first}-{second}",
            "across": names[first],
            "up": names[second],
            "alt": f"Mean reward on {names[first]} (across) and {names[second]} (up) for {drawn}, with the base model "
            "and the reference point. The table below holds the same numbers.",
        }
        for first, second in itertools.combinations(range(len(names)), 2)
    ]


def _front_sentence(part: Comparison) -> str:
    owners, points = [], []
    for method in part.ranked:
        for scores in _mean_scores(part, method.name):
            owners.append(method.name)
            points.append(scores)
    if not points:
        return "No method has finished a cell yet, so there are no points."
    kept = [owner for owner, keep in zip(owners, non_dominated(np.array(points)), strict=True) if keep]
    shares = [
        f"{method.name} {kept.count(method.name)} of {owners.count(method.name)}"
        for method in part.ranked
        if method.name in owners
    ]
    return (
        f"Of {count(len(points), 'mean point')} of different policies, {len(kept)} {'is' if len(kept) == 1 else 'are'} "
        f"non-dominated in all {count(len(part.objectives), 'objective')} together: {listing(shares)}. These "
        "are means; the intervals say how far chance may have moved them."
    )


def _mean_scores(part: Comparison, name: str) -> list[list[float]]:
    """Return mean scores over seeds, of each policy once: several preferences may be answered by the same."""
    method = part.method(name)
    found: dict[tuple[str | None, ...], list[float]] = {}
    for column, preference in enumerate(part.task.preferences):
        means = [column_mean(each, part.seeds).value for each in method.scores[:, column].T]
        present = [each for each in means if each is not None]
        if len(present) == len(means):
            answers = (method.evaluation(seed, preference) for seed in part.seeds)
            found.setdefault(tuple(None if each is None else each.identity for each in answers), present)
    return list(found.values())


def _front_table(part: Comparison) -> Table:
    shown = shown_preferences(
        len(part.labels), len(part.objectives), max(MAX_TABLE_ROWS // max(len(part.methods), 1), 1)
    )
    rows: list[tuple[str | int, ...]] = []
    if part.references:
        base = [interval(column_mean(each, part.seeds)) for each in part.base_scores.T]
        rows.append((BASE, "", "reference", *base, "", len(part.references)))
    for method in part.methods:
        for column in shown:
            values = [column_mean(each, part.seeds) for each in method.scores[:, column].T]
            utility = column_mean(method.utilities[:, column], part.seeds)
            label = part.labels[column] + (" (unseen)" if part.task.unseen[column] else "")
            texts = (*(interval(each) for each in values), interval(utility))
            rows.append((method.name, label, method.answers[column], *texts, len(utility.per_seed)))
    title = "Mean reward [95 % Student-t interval over seeds]"
    return Table("front", title, ("method", "preference", "answer", *part.objectives, "utility", "seeds"), tuple(rows))


def _heat_maps(part: Comparison, shown: Sequence[int]) -> list[HeatMap]:
    """Compare with as many baselines as the page has room for."""
    room = max(MAX_HEAT_CELLS // max(len(part.methods) * len(shown), 1), 1)
    return [heat_map(part, name, shown) for name in baselines(part)[:room]]


def _heat_notice(part: Comparison, columns: int, maps: int) -> str:
    notes = []
    if columns < len(part.labels):
        notes.append(f"Showing {columns} of {len(part.labels):,} preferences; the average covers all.")
    if maps < len(baselines(part)):
        notes.append(f"Offering {maps} of {len(baselines(part))} baselines.")
    return " ".join(notes)


def _heat_rows(differences: HeatMap) -> list[dict[str, Any]]:
    """Draw the first map without scripts; the page fills in the others."""
    rows = []
    for index, name in enumerate(differences.methods):
        values = [*differences.differences[index], differences.averages[index]]
        cells = []
        for place, value in enumerate(values):
            average = " average" if place == len(values) - 1 else ""
            if value.value is None:
                cells.append({"classes": "absent" + average, "strength": "", "value": "", "interval": ""})
                continue
            hue = "below" if value.value < 0 else "above"
            strength = min(62.0, 62 * abs(value.value) / (differences.scale or 1))
            bounds = f"[{number(value.low)}, {number(value.high)}]" if value.low is not None else "no interval"
            classes = hue + ("" if separable(value) else " unclear") + average
            text = number(value.value, signed=True)
            cells.append({"classes": classes, "strength": f"{strength:.1f}", "value": text, "interval": bounds})
        rows.append({"method": name, "cells": cells})
    return rows


def _cost_sentence(part: Comparison) -> str:
    return (
        f"Every cell might spend {part.budget_completions:,} completions on training, selection and search together. "
        "Achieved utility is averaged over all preferences; bars are 95 % Student-t intervals over seeds."
    )


def _cost_row(cost: Cost, utility: float | None, ceiling: bool) -> dict[str, object]:
    memory = cost.peak_memory_bytes.value
    cells = [
        number(utility),
        table_cell(cost.policies),
        number(cost.completions.value),
        seconds(cost.seconds_sum.value),
        seconds(cost.seconds_chain.value),
        "–" if memory is None else f"{memory / 1e6:,.0f} MB",
        number(cost.tokens_per_second.value),
        number(cost.speed_ratio.value),
    ]
    if ceiling:
        cells[2] = "not charged"
    return {"method": cost.method, "cells": cells}


def _timing_note(study: StudyRecords, part: Comparison) -> str:
    timings = [timing for timing in study.timings if timing.task == part.task.name]
    if not timings:
        return "Decoding was not timed."
    settings = dict.fromkeys(
        f"{count(timing.rows, 'row')} at once, {count(timing.threads, 'thread')}, {timing.device}, "
        f"{count(len(timing.tokens_per_second), 'repeat')}"
        for timing in timings
    )
    return f"Decoding timed with {listing(list(settings))}; the policy of the centre preference and the first seed."
