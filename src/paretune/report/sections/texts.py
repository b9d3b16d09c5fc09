"""Completions side by side: the same test prompt, answered by every method."""

from __future__ import annotations

from collections.abc import Mapping

from paretune.report.section import Section
from paretune.report.sections.answering import head
from paretune.report.sections.samples import DISAGREEMENTS, FAILED, FIRST_PROMPTS, GAMED, sample_data, shown_seed
from paretune.report.view import PartView, shown_preferences

MAX_PREFERENCES = 12  # whose completions the page holds: the files hold all


def data(part: PartView) -> Mapping[str, object]:
    """Choose prompts by rule."""
    comparison = part.comparison
    shown = shown_preferences(len(comparison.labels), len(comparison.objectives), MAX_PREFERENCES)
    samples = sample_data(comparison, shown, len(part.view.parts))
    return {
        "seed": shown_seed(comparison),
        "first": FIRST_PROMPTS,
        "disagreements": DISAGREEMENTS,
        "gamed": GAMED,
        "failed": FAILED,
        "preferences": [comparison.labels[column] for column in shown],
        "notice": samples["notice"],
        "samples": {
            **samples,
            "points": comparison.task.preferences[shown].tolist(),
            "heads": [head(part, column) for column in shown],
        },
    }


def needs(part: PartView) -> str:
    """Return why there are none."""
    return "No finished cell holds completions yet." if shown_seed(part.comparison) is None else ""


SECTION = Section("texts", "What do they write?", "Completions", data, needs, "texts.html.jinja")
