"""Every figure of docs/which_method.md stands in a section that its line links to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FIGURE = re.compile(r"(?<![\w.])\d{0,2}(?:,\d{3}|\.\d+)")


def figures(text: str) -> set[str]:
    """Return the figures of a text, each as we write it: without a leading zero."""
    return {found.removeprefix("0") for found in FIGURE.findall(text)}


def section(page: Path, anchor: str) -> str:
    """Return what stands under a heading, without what stands under the next one of its level."""
    lines = page.read_text(encoding="utf-8").splitlines()
    levels = [len(line) - len(line.lstrip("#")) if re.match(r"#+ ", line) else 0 for line in lines]
    names = [re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines]
    start = next(index for index, name in enumerate(names) if levels[index] and name == anchor)
    end = next((index for index in range(start + 1, len(lines)) if 0 < levels[index] <= levels[start]), len(lines))
    return "\n".join(lines[start:end])


def rows(root: Path) -> Iterator[tuple[str, str]]:
    page = (root / "docs" / "which_method.md").read_text(encoding="utf-8")
    for line in re.findall(r"^[|-] .*$", page, re.MULTILINE):
        links = re.findall(r"\]\(([\w/]+\.md)#([\w-]+)\)", line)
        if links:
            yield line, "\n".join(section(root / "docs" / name, anchor) for name, anchor in links)


def test_each_figure_stands_in_a_section_that_its_line_links_to(root: Path) -> None:
    found = list(rows(root))
    assert len(found) > 15
    missing = {line[:60]: lacks for line, evidence in found if (lacks := figures(line) - figures(evidence))}
    assert missing == {}


def test_each_line_of_a_table_names_its_evidence(root: Path) -> None:
    page = (root / "docs" / "which_method.md").read_text(encoding="utf-8")
    lines = [line for line in re.findall(r"^\| .*$", page, re.MULTILINE) if not re.search(r"\| evidence \|$", line)]
    assert [line for line in lines if "](" not in line] == []


def test_methods_that_are_named_are_there(root: Path) -> None:
    from paretune.methods import METHODS

    page = (root / "docs" / "which_method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", page))
    assert named - set(METHODS) == {"add_objective", "gdpo", "grpo", "target_kl"}


@pytest.mark.parametrize(
    ("text", "found"),
    [("+0.035 [+0.013, 9,008]", {".035", ".013", "9,008"}), ("-.068 of 16,384, h .5", {".068", "16,384", ".5"})],
)
def test_figures_are_read_however_they_are_written(text: str, found: set[str]) -> None:
    assert figures(text) == found
