"""The project's promises about itself: light imports, one version, documents that can be found, pinned tools."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

import paretune

HEAVY = ("torch", "transformers", "peft", "datasets", "matplotlib")  # each takes longer than `paretune --help` may
LIGHT = {  # what is run without which libraries
    "import paretune": (*HEAVY, "pydantic"),
    "import paretune.tasks, paretune.objectives": (*HEAVY, "pydantic"),
    "import paretune.methods": HEAVY,
    "import paretune.metrics": HEAVY,
    "import paretune.report": HEAVY,
    "import paretune.rl.weighting": HEAVY,  # methods bring weightings of their own
    "import paretune.cli.main": HEAVY,
    "paretune.cli.main.execute(['probe', '--help'])": HEAVY,
    "paretune.load_task('counselling')": HEAVY,
}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def test_what_needs_no_model_loads_no_heavy_library() -> None:
    """One after another in one process: the first that is told with a library is the one that loads it."""
    code = (
        f"import json, sys\nfor line, without in {LIGHT}.items():\n    exec(line)\n"
        "    print(json.dumps([line, [name for name in without if name in sys.modules]]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stderr.splitlines()] == [[line, []] for line in LIGHT]


def imported(body: Iterable[ast.AST], known: Collection[str]) -> Iterator[str]:
    """Yield the known modules that a module imports from when it is read, or for its types."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (each.name for each in statement.names if each.name in known)
        elif isinstance(statement, ast.ImportFrom) and statement.module in known:
            names = [f"{statement.module}.{each.name}" for each in statement.names]
            yield from (name if name in known else statement.module for name in names)
        elif isinstance(statement, ast.If):
            yield from imported(statement.body, known)


def test_modules_do_not_know_each_other_in_circles_even_for_types(root: Path) -> None:
    source = root / "src"
    names = {path: ".".join(path.relative_to(source).with_suffix("").parts) for path in source.rglob("*.py")}
    known = {name.removesuffix(".__init__"): path for path, name in names.items()}
    graph = {name: {*imported(ast.parse(path.read_text()).body, known)} for name, path in known.items()}
    assert graph["paretune"] == {*known} & {"paretune.core.version", *paretune._PUBLIC.values()}
    assert [name for name, others in graph.items() if "paretune" in others] == []  # it knows everything
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_the_rooms_of_the_docs_and_of_the_linter_are_those_there_are(root: Path) -> None:
    there = sorted(path.parent.name for path in (root / "src" / "paretune").glob("*/__init__.py"))
    conventions = (root / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^  (\w+)/ +L\d", conventions, re.MULTILINE)) == there
    readme = re.search(r"src/paretune/\n(.*?)\nrecipes/", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert readme is not None
    assert sorted(re.findall(r"(?:^  |;  )(\w+)/ ", readme[1], re.MULTILINE)) == there
    with (root / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["id"] == "levels")
    assert sorted(chain(*(re.findall(r"\w+", layer) for layer in layers))) == there


def test_what_of_the_paper_is_missing_is_missing(root: Path) -> None:
    from paretune.methods import METHODS
    from paretune.metrics import METRICS

    readme = (root / "README.md").read_text(encoding="utf-8")
    (missing,) = re.findall(r"## What of the paper is not here yet\n(.*?)\n## ", readme, re.DOTALL)
    for metric in ("stability", "adaptability", "scalability", "explainability"):
        assert (metric in METRICS) != (metric in missing.lower()), metric
    assert [name for name in METHODS if f"`{name}`" not in readme] == []
    assert [name for name in ("modpo", "maml") if name in METHODS] == []


def test_it_says_it_runs_where_it_runs(root: Path, project: dict[str, Any]) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "src").rglob("*.py"))
    needs_posix = re.search(r"^ *import (fcntl|resource)$", sources, re.MULTILINE) is not None
    assert ("Operating System :: POSIX" in project["classifiers"]) == needs_posix
    assert ("Operating System :: OS Independent" in project["classifiers"]) != needs_posix


def test_version_is_the_same_everywhere(root: Path, project: dict[str, Any]) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert paretune.__version__ == project["version"] == citation["version"]


def test_the_public_names_are_those_the_package_hands_out() -> None:
    assert sorted(paretune.__all__) == sorted([*paretune._PUBLIC, "__version__"])
    assert [name for name in paretune.__all__ if not hasattr(paretune, name)] == []


def test_changelog_speaks_of_this_version(root: Path, project: dict[str, Any]) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {project['version']}" in changelog


def test_every_page_of_the_docs_is_linked_from_the_index(root: Path) -> None:
    docs = root / "docs"
    contents = [docs / "index.md", docs / "results" / "README.md", docs / "api" / "index.md"]
    linked = {(page.parent / target).resolve() for page in contents for target in _links(page)}
    pages = {page.resolve() for page in docs.rglob("*.md")} - {(docs / "index.md").resolve()}
    assert sorted(map(str, pages - linked)) == []


def test_every_page_of_the_docs_has_a_place_in_the_site(root: Path) -> None:
    text = (root / "mkdocs.yml").read_text(encoding="utf-8")
    (nav,) = re.findall(r"\nnav:\n(.*?)\n\n", text, re.DOTALL)
    placed = re.findall(r"- ([\w/]+\.md)", nav)
    pages = [page.relative_to(root / "docs").as_posix() for page in (root / "docs").rglob("*.md")]
    assert sorted(each for each in placed if not each.startswith("repository/")) == sorted(pages)


def test_the_api_pages_name_every_room_of_pure_functions(root: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (root / "docs" / "api").glob("*.md"))
    shown = re.findall(r"^::: paretune\.([\w.]+)$", pages, re.MULTILINE)
    with (root / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (rooms,) = (each["source_modules"] for each in contracts if each["id"] == "numpy-rooms")
    pure = {room.removeprefix("paretune.") for room in rooms} - {"records"}  # a format, see docs/studies.md
    named = {each.partition(".")[0] for each in shown}
    assert sorted(pure - named) == []
    public = {f"{module.removeprefix('paretune.')}.{name}" for name, module in paretune._PUBLIC.items()}
    assert sorted(name for name in public if name not in shown and name.rpartition(".")[0] not in shown) == []


def test_no_link_between_documents_is_broken(root: Path) -> None:
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(root)} -> {target}"
        for document in documents
        for target in _links(document)
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_no_link_to_a_heading_is_broken(root: Path) -> None:
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    anchors = {document.resolve(): _anchors(document) for document in documents}
    broken = [
        f"{document.relative_to(root)} -> {target}"
        for document in documents
        for target in _targets(document)
        if "#" in target
        and (page := (document.parent / (target.partition("#")[0] or document.name)).resolve()) in anchors
        and target.partition("#")[2] not in anchors[page]
    ]
    assert broken == []


def test_every_method_has_its_entry_in_papers_in_the_order_of_the_table(root: Path) -> None:
    from paretune.methods import METHODS

    papers = (root / "docs" / "papers.md").read_text(encoding="utf-8")
    assert re.findall(r"^## `(\w+)`$", papers, re.MULTILINE) == list(METHODS)


def test_methods_are_listed_in_one_order_everywhere(root: Path) -> None:
    from paretune.core.protocols import FAMILIES
    from paretune.methods import METHODS, resolve_method

    wanted = [name for name in METHODS if resolve_method(name).family in FAMILIES]
    taxonomy = (root / "docs" / "taxonomy.md").read_text(encoding="utf-8").partition("## Our methods")[2]
    assert re.findall(r"^\| `(\w+)` \|", taxonomy, re.MULTILINE) == wanted
    rows = re.findall(r"^\| \w+-policy \|.*$", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"`(\w+)`", "".join(rows)) == wanted


def test_every_dependency_is_pinned(root: Path, project: dict[str, Any]) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert [name for name in map(_package, requirements) if name not in pins] == []


def test_pins_carry_no_label_of_one_machine(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", pin)] == []


def _package(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def _prose(document: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def _targets(document: Path) -> list[str]:
    """Return the local targets of a document's links."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _prose(document))
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def _links(document: Path) -> list[str]:
    """Return the local targets of a document's links, without anchors and links inside the document."""
    return [name for target in _targets(document) if (name := target.partition("#")[0])]


def _anchors(document: Path) -> set[str]:
    """Return what links to a document's headings are made of, as GitHub and mkdocs make it."""
    headings = re.findall(r"^#+ +(.+?) *$", _prose(document), re.MULTILINE)
    bare = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    found: dict[str, int] = {}  # how often each was there before
    for heading in bare:
        name = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        found[name] = found.get(name, 0) + 1
    return {f"{name}-{number}" if number else name for name, count in found.items() for number in range(count)}
