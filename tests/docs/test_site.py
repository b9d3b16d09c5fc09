"""What scripts/site_pages.py makes of pages; `make docs` builds the site with it and checks its links."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="the documentation tools are not installed; make docs does")


@pytest.fixture(scope="module")
def site(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "scripts" / "site_pages.py"))


def shown(site: dict[str, Any], root: Path, page: str, markdown: str) -> str:
    """Return what the site shows of a page of docs/."""
    source = root / "docs" / page
    file = SimpleNamespace(abs_src_path=str(source), src_uri=page)
    found: str = site["on_page_markdown"](markdown, SimpleNamespace(file=file), {"docs_dir": str(root / "docs")}, None)
    return found


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("index.md", "../CONTRIBUTING.md", "repository/CONTRIBUTING.md"),
        ("results/quick.md", "../../README.md#which-method", "../repository/README.md#which-method"),
        ("results/quick.md", "../metrics.md#words", "../metrics.md#words"),
        ("results/speed.md", "data/quick", "data/quick/index.md"),
        ("index.md", "https://example.org/x.md", "https://example.org/x.md"),
        ("index.md", "#words", "#words"),
    ],
)
def test_links_lead_to_where_the_site_has_the_file(
    site: dict[str, Any], root: Path, page: str, link: str, target: str
) -> None:
    assert shown(site, root, page, f"See [it]({link}).\n") == f"See [it]({target}).\n"


def test_code_is_left_as_it_is(site: dict[str, Any], root: Path) -> None:
    code = "```text\nSee [it](../README.md):\n- one\n```\n"
    assert shown(site, root, "index.md", code) == code


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("A sentence:\n- one\n- two\n", "A sentence:\n\n- one\n- two\n"),
        ("Words.\n| a | b |\n|---|---|\n", "Words.\n\n| a | b |\n|---|---|\n"),
        ("- one\n  goes on\n- two\n", "- one\n  goes on\n- two\n"),
        ("A sentence\n2024 was - not - a list\n", "A sentence\n2024 was - not - a list\n"),
    ],
)
def test_lists_and_tables_are_parted_from_the_sentence_above(
    site: dict[str, Any], root: Path, text: str, parted: str
) -> None:
    assert shown(site, root, "index.md", text) == parted


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("a.html", '<script src="https://cdn.example.org/x.js"></script>', True),
        ("a.html", '<link href="//fonts.example.org/x.css" rel="stylesheet">', True),
        ("a.css", "@font-face { src: url('https://fonts.example.org/x.woff2') }", True),
        ("a.html", '<script src="assets/x.js"></script><a href="https://example.org">there</a>', False),
        ("a.html", '<link rel="canonical" href="https://example.org/a.html">', False),
        ("a.css", "a { background: url('data:image/svg+xml;x') }", False),
    ],
)
def test_a_site_that_loads_something_from_elsewhere_is_refused(
    site: dict[str, Any], tmp_path: Path, name: str, content: str, refused: bool
) -> None:
    from mkdocs.exceptions import PluginError

    (tmp_path / name).write_text(content)
    if refused:
        with pytest.raises(PluginError, match=rf"pages must load nothing from elsewhere, got: {name} loads "):
            site["on_post_build"]({"site_dir": str(tmp_path)})
    else:
        site["on_post_build"]({"site_dir": str(tmp_path)})
