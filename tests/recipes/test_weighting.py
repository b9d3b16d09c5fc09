"""The recipe of a first look at weightings: what it divides by, and that it runs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paretune.optimum.best_utility import best_utility


@pytest.fixture(scope="module")
def recipe(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "recipes" / "weighting" / "first_look.py"))


def test_each_utility_is_its_envelope_where_there_is_no_choice(recipe: dict[str, Any]) -> None:
    task = SimpleNamespace(objectives=[SimpleNamespace(range=(0, 1), pass_threshold=0.5)] * 2)
    scores, preference = np.asarray([0.9, 0.3]), np.asarray([0.25, 0.75])
    found = {
        name: (
            value(scores, preference),
            best_utility(np.zeros((1, 1)), scores[None, None], 0.1, of(preference)).utility,
        )
        for name, (value, of) in recipe["utilities"](task).items()
    }
    assert list(found) == ["linear", "chebyshev", "thresholds"]
    for value, best in found.values():
        assert value == pytest.approx(best, abs=1e-6)


@pytest.mark.slow
def test_the_recipe_runs(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["first_look.py", "--tiny"])
    recipe["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["linear", "chebyshev"]
