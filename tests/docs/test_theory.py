from __future__ import annotations

import re
from pathlib import Path


def test_each_statement_names_tests_that_exist_and_each_test_is_named(root: Path) -> None:
    page = (root / "docs" / "theory.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    files = [root / "tests" / "theory" / "test_theory.py", root / "tests" / "optimum" / "test_exact.py"]
    there = [set(re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)) for file in files]
    assert not named - there[0] - there[1]
    assert not there[0] - named
