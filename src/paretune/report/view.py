"""What the sections of the page read: a study with its metrics, and one task at one budget of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics.configuration import Finding as ConfigurationFinding
from paretune.metrics.configuration import configuration_check
from paretune.records.study import StudyRecords
from paretune.report.comparison import Comparison, comparisons
from paretune.report.costs import Cost, costs
from paretune.report.measured import judged, rows_of
from paretune.report.palette import Look, looks_of


@dataclass(frozen=True)
class View:
    """A study as the page shows it.

    Attributes:
        study: Its records.
        rows: Its metrics.
    """

    study: StudyRecords
    rows: Sequence[MetricRow]

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """One for each task and budget."""
        return comparisons(self.study)

    @cached_property
    def parts(self) -> tuple[PartView, ...]:
        """The same as sections read them."""
        return tuple(PartView(self, index, each) for index, each in enumerate(self.comparisons))

    @cached_property
    def configuration(self) -> list[ConfigurationFinding]:
        """Whether compared cells were run alike, item by item."""
        return configuration_check(self.study)

    @cached_property
    def looks(self) -> dict[str, Look]:
        """Method -> how it looks in all of the page."""
        given: Any = self.study.resolved.get("methods")
        named = {label: (settings or {}).get("method", label) for label, settings in (given or {}).items()}
        every = [each for part in self.comparisons for each in (*part.methods, *part.untrained)]
        return looks_of({each.name: (each.family, named.get(each.name, each.name)) for each in every})

    def names_of(self, family: str) -> set[str]:
        """Return the rows of a family, `ceiling` or `reference`."""
        return {
            each.name for part in self.comparisons for each in (*part.methods, *part.untrained) if each.family == family
        }


@dataclass(frozen=True)
class PartView:
    """One task at one budget, as sections of the page show it.

    Attributes:
        view: The whole study.
        index: Its place on the page.
        comparison: Its methods.
    """

    view: View
    index: int
    comparison: Comparison

    @cached_property
    def rows(self) -> list[MetricRow]:
        """Its metrics."""
        return rows_of(self.comparison, self.view.rows)

    @cached_property
    def judged(self) -> tuple[str, dict[str, MetricValue]]:
        """What its methods are ranked by: the name, and the value of each."""
        return judged(self.comparison, self.view.rows)

    def by_value(self, names: Sequence[str]) -> list[str]:
        """Order methods by what they are ranked by, the highest first; those without a value last."""
        values = {name: self.judged[1][name].value for name in names}
        return sorted(names, key=lambda name: -math.inf if values[name] is None else values[name] or 0.0, reverse=True)

    def best(self, names: Sequence[str]) -> str:
        """Return the first of those that have a value; empty where there is none."""
        return next((name for name in self.by_value(names) if self.judged[1][name].value is not None), "")

    @cached_property
    def relations(self) -> tuple[int, Mapping[str, Any]] | None:
        """What was measured of how objectives relate under the base model: the seed, and the levels by name."""
        known = self.view.study.relations
        found = ((seed, known.get((self.comparison.task.name, seed))) for seed in self.comparison.seeds)
        return next(((seed, each) for seed, each in found if each is not None), None)

    @property
    def instance(self) -> str:
        """Name the instance whose relations were measured, on a task that is another one with every seed."""
        of_many = self.comparison.task.family_settings and self.relations is not None
        return f"on the instance of seed {self.relations[0]}" if of_many and self.relations else ""

    @cached_property
    def costs(self) -> list[Cost]:
        """What each of its methods cost."""
        return costs(self.comparison, self.view.rows)

    @cached_property
    def _by_label(self) -> Mapping[tuple[str, str], dict[str, MetricValue]]:
        found: dict[tuple[str, str], dict[str, MetricValue]] = {}
        for row in self.rows:
            found.setdefault((row.metric, row.label), {})[row.method] = row.value
        return found

    def labels(self, metric: str) -> list[str]:
        """Return the labels of a metric's rows, in its order."""
        return [label for name, label in self._by_label if name == metric]

    def values(self, metric: str, label: str = "") -> dict[str, MetricValue]:
        """Return one row of a metric by method, in the order of the study; those without such a row are left out."""
        found = self._by_label.get((metric, label), {})
        return {each.name: found[each.name] for each in self.comparison.methods if each.name in found}


def shown_preferences(total: int, corners: int, limit: int) -> list[int]:
    """Choose which preferences to draw: all if they fit, else the corners and the rest evenly spaced."""
    if total <= limit:
        return list(range(total))
    first = list(range(min(corners, limit)))
    rest = np.linspace(len(first), total - 1, limit - len(first)).round().astype(int)
    return first + sorted(set(rest.tolist()))
