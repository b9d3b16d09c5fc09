"""The code of docs/comparing.md runs, and its study can be compared with the records of the built-in one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from compared_studies import records
from paretune.benchmark.study import load_study
from paretune.records.per_prompt import write_per_prompt

PAGE = "comparing.md"


def block(root: Path, language: str) -> str:
    page = (root / "docs" / PAGE).read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return str(found)


def test_the_function_gives_the_verdicts(root: Path, tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    exec(compile(block(root, "python"), PAGE, "exec"), space)
    mine = write_per_prompt(records({"mine": (0.60, 0.70, 0.81)}), tmp_path / "mine.parquet")
    theirs = records({"linear": (0.50, 0.60, 0.70), "grid": (0.60, 0.69, 0.82)})
    found = space["verdicts"](mine, write_per_prompt(theirs, tmp_path / "theirs.parquet"), "mine")
    assert found == {"linear": "higher", "grid": "not told apart"}


def test_the_study_asks_for_what_the_built_in_one_has(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "your_method.md").read_text(encoding="utf-8")
    (tmp_path / "idea.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    (tmp_path / "mine.yaml").write_text(block(root, "yaml"))
    mine, known = load_study(tmp_path / "mine.yaml"), load_study("controlled")
    assert {task.name for task in mine.tasks} <= {task.name for task in known.tasks}
    assert set(mine.seeds) <= set(known.seeds)
    assert (mine.budgets, mine.wanted, mine.unseen, mine.decoding()) == (
        known.budgets, known.wanted, known.unseen, known.decoding(),
    )  # fmt: skip
