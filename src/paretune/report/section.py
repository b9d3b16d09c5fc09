"""A section of the page: one question, what it needs, what it shows, and how. The page is a table of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paretune.report.charts import Chart
from paretune.report.view import PartView, View


def always(view: Any) -> str:
    """Need nothing."""
    return ""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: Its anchor.
        title: The reader's question that it answers.
        short: The same in the page's navigation.
        data: What its template is rendered with, from a `PartView`, or from the `View` where it is of the study. Its
            `charts` are also drawn as static figures.
        needs: Why it cannot be shown, from the same; empty where it can. Of a part, the reason is shown in its place;
            a section of the study is left out.
        template: Name of its template in `templates/sections`.
        of: Whether it is rendered once for each task and budget, or once for the study.
    """

    name: str
    title: str
    short: str
    data: Callable[[Any], Mapping[str, object]]
    needs: Callable[[Any], str] = always
    template: str = "metric.html.jinja"
    of: Literal["part", "study"] = "part"


@dataclass(frozen=True)
class Block:
    """A section's content, of one part or of the study.

    Attributes:
        section: The section.
        part: The part; None where it is of the study.
        data: What its template is rendered with.
        missing: Why there is none.
    """

    section: Section
    part: PartView | None
    data: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""


def blocks(view: View, sections: Iterable[Section]) -> list[Block]:
    """Compute the content of all sections of a study."""
    return [block for section in sections for block in _blocks(section, view)]


def _blocks(section: Section, view: View) -> Iterator[Block]:
    if section.of == "study":
        if not section.needs(view):
            yield Block(section, None, section.data(view))
        return
    for part in view.parts:
        missing = section.needs(part)
        yield Block(section, part, {} if missing else section.data(part), missing)


def named_charts(found: Sequence[Block], parts: int) -> Iterator[tuple[str, Chart]]:
    """Name charts for files: by section, and numbered; with several parts by part, and of each section the first."""
    for block in found:
        of = f"_{block.part.index + 1}" if block.part is not None and parts > 1 else ""
        for number, chart in enumerate(block.data.get("charts", ())[: 1 if parts > 1 else None]):
            yield f"{block.section.name}{of}" + (f"-{number + 1}" if number else ""), chart
