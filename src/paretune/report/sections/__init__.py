"""The sections of the page, in the order of a reader's questions. One more is one file and one line here."""

from __future__ import annotations

from paretune.report.section import Section
from paretune.report.sections import (
    across,
    adaptability,
    answer,
    appendix,
    equal_kl,
    explainability,
    front,
    inference,
    more_metrics,
    overall,
    pareto,
    performance,
    possible,
    related,
    scalability,
    stability,
    texts,
    training,
    trust,
)

SECTIONS: tuple[Section, ...] = (
    answer.SECTION,
    front.SECTION,
    related.SECTION,
    across.SECTION,
    possible.SECTION,
    performance.SECTION,
    pareto.SECTION,
    training.SECTION,
    inference.SECTION,
    stability.SECTION,
    adaptability.SECTION,
    scalability.SECTION,
    explainability.SECTION,
    equal_kl.SECTION,
    overall.SECTION,
    more_metrics.SECTION,
    texts.SECTION,
    trust.SECTION,
    appendix.SECTION,
)
