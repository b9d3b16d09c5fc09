"""The recipe that counts right labels: what it holds them against, and that it runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import paretune


@pytest.fixture(scope="module")
def recipe(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "recipes" / "controlled_labels.py"))


def test_the_numbers_over_all_completions_are_the_settings(recipe: dict[str, Any]) -> None:
    family = paretune.load_task({"controlled": {"rho": 0.8, "alphabet": 4, "length": 3}})
    listed = recipe["Listed"](family, 0)
    assert listed.rank_correlation() == pytest.approx(0.8, abs=0.05)  # the task's own tolerance
    listed.rewards[:, :, 1] = listed.rewards[:, :, 0]
    assert listed.cosine() == pytest.approx(1.0, abs=1e-6)  # float32
    listed.rewards[:, :, 1] = 1 - listed.rewards[:, :, 0]
    assert listed.cosine() == pytest.approx(-1.0, abs=1e-6)


def test_a_label_is_wrong_only_where_it_contradicts_what_is_so(recipe: dict[str, Any]) -> None:
    labelled, line = recipe["Labelled"], recipe["line"]
    rows = [
        labelled("correlated", 0.3, 0.1, True, 0.25),
        labelled("correlated", 0.3, 0.1, False, 0.1),
        labelled("undetermined", 0.2, 0.1, True, 0.1),
        labelled("missing", float("nan"), float("nan"), False, 0.1),
    ]
    assert line(rows, ("correlated",)).split()[:3] == ["2/4", "2/4", "1"]


@pytest.mark.slow
def test_the_recipe_runs(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["controlled_labels.py", "--tiny"])
    recipe["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [row.split()[2] for row in lines if " rewards " in row] == ["2/2"] * 5
    assert sum(" gradients " in row for row in lines) == 5
