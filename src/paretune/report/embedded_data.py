"""The data behind the page's charts, as JSON that cannot break out of its script element."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from markupsafe import Markup

from paretune.core.printable import printable
from paretune.core.protocols import MetricValue
from paretune.report.comparison import Comparison
from paretune.report.costs import Cost
from paretune.report.estimates import column_mean
from paretune.report.heat_map import BASE, HeatMap
from paretune.report.palette import family_marker
from paretune.report.samples import prompt_samples

MAX_POINTS = 4_000  # of one front plot: SVG stays quick and the page below 8 MB
MAX_COLUMNS = 40  # preferences in the heat map and beside completions
MAX_HEAT_CELLS = 20_000  # over all baselines of a heat map
MAX_SAMPLE_CHARACTERS = 1_000_000
DIGITS = 5  # significant, in the page; tables and Parquet hold full precision


def embedded_json(data: object) -> Markup:
    """Serialise for a `<script type="application/json">`: no `<`, `>` or `&` survives, so no markup can begin."""
    text = json.dumps(_printable(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(letter, escape)
    return Markup(text)  # every character that could end the element is escaped above


def _printable(data: object) -> object:
    """Write out the control characters of all text, which a page would obey: a bidi mark turns round what follows."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, Mapping):
        return {printable(str(key)): _printable(value) for key, value in data.items()}
    return [_printable(each) for each in data] if isinstance(data, (list, tuple)) else data


def shown_preferences(total: int, corners: int, limit: int) -> list[int]:
    """Choose which preferences to draw: all if they fit, else the corners and the rest evenly spaced."""
    if total <= limit:
        return list(range(total))
    first = list(range(min(corners, limit)))
    rest = np.linspace(len(first), total - 1, limit - len(first)).round().astype(int)
    return first + sorted(set(rest.tolist()))


def front_data(comparison: Comparison, colours: dict[str, str]) -> dict[str, object]:
    """Return mean scores with intervals per method and preference, the base model and the reference point."""
    total = len(comparison.labels)
    limit = max(MAX_POINTS // max(len(comparison.methods), 1), len(comparison.objectives))
    shown = shown_preferences(total, len(comparison.objectives), limit)
    notice = ""
    if len(shown) < total:
        notice = (
            f"Showing {len(shown):,} of {total:,} preferences (corners first, the rest evenly spaced); "
            "the tables hold all."
        )
    points = []
    for index, method in enumerate(comparison.methods):
        for column in shown:
            scores = [column_mean(each, comparison.seeds) for each in method.scores[:, column].T]
            if any(each.value is None for each in scores):
                continue
            points.append(
                {
                    "method": index,
                    "preference": comparison.labels[column],
                    "unseen": bool(comparison.task.unseen[column]),
                    "scores": [triple(each) for each in scores],
                    "utility": triple(column_mean(method.utilities[:, column], comparison.seeds)),
                    "kl": rounded(float(np.nanmean(method.kl[:, column]))),
                    "answer": method.answers[column],
                    "seeds": min(len(each.per_seed) for each in scores),
                }
            )
    base = [triple(column_mean(each, comparison.seeds)) for each in comparison.base_scores.T]
    return {
        "objectives": list(comparison.objectives),
        "reference": [rounded(float(each)) for each in comparison.task.reference_point],
        "methods": [
            {
                "name": each.name,
                "family": each.family,
                "colour": colours[each.name],
                "marker": family_marker(each.family),
                "ceiling": each.ceiling,
            }
            for each in comparison.methods
        ],
        "points": points,
        "base": base if all(each[0] is not None for each in base) else None,
        "notice": notice,
    }


def heat_data(maps: Sequence[HeatMap]) -> list[dict[str, object]]:
    """Return the differences to each baseline, for switching between baselines in the page."""
    return [
        {
            "baseline": each.baseline,
            "scale": rounded(each.scale),
            "rows": [[quadruple(value) for value in row] for row in each.differences],
            "averages": [quadruple(value) for value in each.averages],
        }
        for each in maps
    ]


def cost_data(spent: Sequence[Cost], scores: dict[str, MetricValue]) -> list[dict[str, object]]:
    """Return cost of each method, and the score that it is ranked by."""
    return [
        {
            "score": triple(scores[cost.method]),
            "completions": rounded(cost.completions.value),
            "sum": rounded(cost.seconds_sum.value),
            "chain": rounded(cost.seconds_chain.value),
            "speed": rounded(cost.speed_ratio.value),
        }
        for cost in spent
    ]


def sample_data(comparison: Comparison, shown: Sequence[int]) -> dict[str, object]:
    """Return completions for each shown preference, until the page's room for text is used up."""
    room, notice = MAX_SAMPLE_CHARACTERS, ""
    chosen = []
    for column in shown:
        prompts = []
        for each in prompt_samples(comparison, comparison.task.preferences[column], BASE):
            room -= len(each.prompt) + sum(len(sample.text) + 200 for sample in each.samples)
            if room < 0:
                notice = "Some completions were left out to keep this page small; the evaluation files hold all."
                break
            prompts.append(asdict(each))
        chosen.append({"preference": comparison.labels[column], "prompts": prompts})
    objectives = [
        {"name": each.name, "audit": each.audit, "low": each.range[0], "high": each.range[1]}
        for each in sorted(comparison.task.objectives, key=lambda each: each.audit)
    ]
    return {"objectives": objectives, "preferences": _rounded_deeply(chosen), "notice": notice}


def triple(value: MetricValue) -> list[float | None]:
    """Return value, low and high for JSON."""
    return [rounded(value.value), rounded(value.low), rounded(value.high)]


def quadruple(value: MetricValue) -> list[float | None]:
    """Return value, low, high and number of seeds for JSON."""
    return [*triple(value), len(value.per_seed)]


def rounded(value: float | None) -> float | None:
    """Round to `DIGITS` significant digits; what is not finite becomes None."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.{DIGITS}g}")


def _rounded_deeply(data: object) -> object:
    if isinstance(data, float):
        return rounded(data)
    if isinstance(data, dict):
        return {key: _rounded_deeply(value) for key, value in data.items()}
    return [_rounded_deeply(value) for value in data] if isinstance(data, (list, tuple)) else data
