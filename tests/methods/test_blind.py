"""Methods never read enumerated outcomes or test prompts: what they choose would be chosen by the answer's own judge.

That no method does it while it trains is seen in tests/contracts, whose task is blindfolded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import blind
import paretune
from paretune.core.task import Task

ROOMS = ("methods", "rl", "training", "bandits", "gradients")
ALLOWED = {"methods/exact_gradient.py", "rl/outcomes.py"}  # the ceiling, and what measures policies
NAMES = {
    "enumeration",
    "enumeration_of",
    "optimum",
    "outcome",
    "outcomes",
    "completion_table",
    "tree_log_probs",
    "truth",
}
MODULES = ("paretune.optimum", "paretune.rl.outcomes", "paretune.records.outcomes", "paretune.models.tree")
SOURCES = Path(paretune.__file__).parent


def looks(code: str) -> Iterator[str]:
    """Yield what code names that a method must not look at; also in strings that name code."""
    for node in ast.walk(ast.parse(code)):
        named = {
            ast.Name: "id", ast.Attribute: "attr", ast.alias: "name", ast.ImportFrom: "module", ast.arg: "arg",
            ast.keyword: "arg",
        }.get(type(node))  # fmt: skip
        name = getattr(node, named) if named else node.value if isinstance(node, ast.Constant) else None
        if isinstance(name, str) and (name.startswith(MODULES) or (named and name in NAMES)):
            yield name
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "test":
            yield "test prompts"


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_that_trains_names_listed_completions_or_test_prompts(room: str) -> None:
    files = {path.relative_to(SOURCES).as_posix(): path for path in (SOURCES / room).rglob("*.py")}
    assert files
    found = {name: sorted(set(looks(path.read_text()))) for name, path in files.items() if name not in ALLOWED}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "code",
    [
        "task.enumeration.length",
        "from paretune.rl.outcomes import tables",
        "from paretune.optimum.exact import optimal_outcome",
        "import paretune.models.tree",
        "run = 'paretune.rl.outcomes:outcomes'",
        "policy.completion_table(prompts, ids, 3)",
        "task.splits['test']",
    ],
)
def test_a_look_would_be_noticed(code: str) -> None:
    assert list(looks(code))


def test_the_ceiling_and_the_judge_are_the_only_ones_that_look() -> None:
    assert all(list(looks((SOURCES / name).read_text())) for name in ALLOWED)


def test_a_blindfolded_task_is_the_same_task_and_fails_who_looks(task: Task) -> None:
    made = blind.blindfolded(task)
    assert made.training_key() == task.training_key()
    assert made.splits["train"] == task.splits["train"]
    with pytest.raises(AssertionError, match="looked at listed completions"):
        _ = made.enumeration
    with pytest.raises(AssertionError, match="looked at test prompts"):
        made.splits["test"]
