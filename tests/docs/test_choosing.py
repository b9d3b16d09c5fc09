"""The code and the file of docs/choosing.md, as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paretune.cli.values import parse_preference
from paretune.records.choices import OPTIONAL, REQUIRED, load_choice


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "choosing.md").read_text(encoding="utf-8")


def test_somebody_who_wants_the_first_objective_gets_the_policy_with_most_of_it(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n# compare.py\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    best, weights, *_ = re.findall(r"\d+|\[.*?\]", capsys.readouterr().out)
    assert best == "0"
    assert float(weights.strip("[]").split()[0]) > 0.6


def test_the_file_that_is_shown_is_a_choice(page: str, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "choice.json"
    path.write_text(shown)
    assert load_choice(path).plain() == json.loads(shown)
    assert parse_preference(f"@{path}") == load_choice(path)


def test_every_key_of_the_file_is_explained(page: str) -> None:
    table = page.partition("| key | holds |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {*REQUIRED, *OPTIONAL}
