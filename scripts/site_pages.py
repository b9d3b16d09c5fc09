"""Hooks of the documentation's site: what pages link to beside docs/, GitHub's markdown, and no external request.

The pages of docs/ are written to be read where they lie, in a folder of the repository. So they link to files beside
docs/, to folders, and put lists directly below a sentence, which GitHub shows and mkdocs does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
BESIDE = "repository"  # folder of the site for files beside docs/
FENCE = re.compile(r"^ *```", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)((?:#[^)\s]*)?)(?=\))")
BLOCK = re.compile(r"( *)([-*] |\d+\. |\|)")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*canonical))\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)"
)
STYLED = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)")


def on_files(files: Files, config: Any) -> Files:
    """Take into the site the files beside docs/ that pages link to, and a page for each folder that they link to."""
    docs = Path(config["docs_dir"])
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path is not None]
    seen = set(waiting)
    while waiting:
        for target in _targets(waiting.pop()):
            if target in seen:
                continue
            seen.add(target)
            new: dict[str, str] = {}
            if target.is_dir():
                new = {"content": _listing(target)}
            elif target.is_file() and not target.is_relative_to(docs):
                new = {"abs_src_path": str(target)}
            if new:
                name = _site_name(target, docs)
                files.append(File.generated(config, name, inclusion=InclusionLevel.NOT_IN_NAV, **new))
            if new and target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point a page's links to where the site has the files, and part lists and tables from the sentence above."""
    if page.file.abs_src_path is None:  # the page of a folder
        return markdown
    docs, source = Path(config["docs_dir"]), Path(page.file.abs_src_path)
    here = PurePosixPath(page.file.src_uri).parent

    def moved(found: re.Match[str]) -> str:
        name = _site_name(_resolved(source, found[1]), docs)
        return os.path.relpath(name, here) + found[2]

    parts = _code_apart(markdown)
    return "".join(part if code else LINK.sub(moved, _blocks_apart(part)) for part, code in parts)


def on_post_build(config: Any) -> None:
    """Refuse a site that makes a browser ask another host for anything."""
    site = Path(config["site_dir"])
    found = [
        f"{file.relative_to(site)} loads {address}"
        for pattern, ending in ((LOADED, "*.html"), (STYLED, "*.css"))
        for file in sorted(site.rglob(ending))
        for address in pattern.findall(file.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError(f"pages must load nothing from elsewhere, got: {'; '.join(found[:5])}. Keep it in docs/.")


def _code_apart(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a page, each with whether it is a block of code."""
    lines: list[str] = []
    code = False
    for line in markdown.splitlines(keepends=True):
        fence = FENCE.match(line) is not None
        if fence and not code and lines:
            yield "".join(lines), False
            lines = []
        lines.append(line)
        if fence:
            if code:
                yield "".join(lines), True
                lines = []
            code = not code
    if lines:
        yield "".join(lines), code


def _blocks_apart(text: str) -> str:
    """Put an empty line above a list or table that follows a sentence."""
    lines = text.splitlines(keepends=True)
    found: list[str] = []
    for line in lines:
        above = found[-1] if found else ""
        starts = BLOCK.match(line)
        inside = BLOCK.match(above) or above.startswith(" ")
        if starts and above.strip() and not inside:
            found.append("\n")
        found.append(line)
    return "".join(found)


def _targets(page: Path) -> Iterator[Path]:
    """Yield the files that a page links to."""
    for part, code in _code_apart(page.read_text(encoding="utf-8")):
        if not code:
            yield from (_resolved(page, found[1]) for found in LINK.finditer(part))


def _resolved(page: Path, target: str) -> Path:
    return Path(os.path.normpath(page.parent / target))


def _site_name(target: Path, docs: Path) -> str:
    """Return where the site has a file of the repository."""
    named = target.relative_to(docs) if target.is_relative_to(docs) else BESIDE / target.relative_to(ROOT)
    return (named / "index.md" if target.is_dir() else named).as_posix()


def _listing(folder: Path) -> str:
    """Return a page that names the files of a folder."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    head = ("---", "search: {exclude: true}", "---", f"# {folder.name}", "")
    return "\n".join([*head, *(f"- [{name}]({name})" for name in names), ""])
