"""The code of docs/tasks.md for users who want different things of different prompts, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import paretune
import small_task
from paretune.records.reading import read_study


@pytest.mark.usefixtures("in_one_process")
def test_a_gate_is_trained_and_judged_on_what_users_want_of_each_prompt(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (root / "docs" / "tasks.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"```python\n# urgent\.py\n(.*?)```", page, re.DOTALL)
    small_task.write_task(tmp_path / "my_task")
    (tmp_path / "urgent.py").write_text(found)
    monkeypatch.chdir(tmp_path)
    gate = {"method": "mixture_of_experts", "gate": "prompt"}
    study = {
        "tasks": ["urgent:make"],
        "methods": {"told": gate, "hears": {**gate, "feedback": "utility"}},
        "budget": {"completions": 64},
        "seeds": 1,
        "preferences": {"grid": 2, "unseen": 0},
    }
    assert paretune.run(study, tmp_path / "out").complete
    records = read_study(tmp_path / "out")
    (name,) = records.tasks
    assert records.tasks[name].contextual
    (hears,) = (cell for cell in records.cells if cell.method == "hears")
    assert hears.feedback == "utility"
    record = next(each for each in hears.evaluations if each.preference.tolist() == [0.5, 0.5])
    sad, tired = record.prompt_preferences
    assert sad == pytest.approx([1 / 3, 2 / 3])  # the first objective counts half
    assert tired == pytest.approx([0.5, 0.5])
    rewards = record.rewards.reshape(2, -1, 2).mean(axis=1)
    assert record.utility(record.preference) == pytest.approx(float((rewards * [sad, tired]).sum(axis=1).mean()))
