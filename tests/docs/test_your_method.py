"""The method in docs/your_method.md is complete: it trains, answers and reports as printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import micro_task
import paretune


def test_the_documented_method_runs_beside_a_built_in_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (root / "docs" / "your_method.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    (tmp_path / "idea.py").write_text(code.group(1), encoding="utf-8")
    task = micro_task.save_task(tmp_path / "task")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"tasks: ['{task}']\n"
        "methods:\n"
        "  rewarded_soups: {}\n"
        "  weight_grid: {completions_each: 40, measured_each: 4}\n"
        "  mine: {method: 'idea:OnePolicy', learning_rate: 0.01}\n"
        "budget: {completions: 128}\nseeds: 1\npreferences: {grid: 2}\nworkers: 1\n",
        encoding="utf-8",
    )
    result = paretune.run(study, tmp_path / "out", progress=False)
    assert result.complete
    mine = next(cell for cell in result.records.cells if cell.method == "mine")
    # every preference is answered by the one expert there is
    assert {tuple(evaluation.expert_weights) for evaluation in mine.evaluations} == {(1.0,)}
    assert sum(stage.counts["completions"] for stage in mine.stages) == 128
    # the grid's corners end inside an update of the soups' experts, whose course they share; nothing was done twice
    stages = {stage.key: stage for cell in result.records.cells for stage in cell.stages}
    lengths = {stage.counts["completions"] for stage in stages.values() if stage.kind == "expert"}
    assert {64, 128} < lengths
    assert {stage.repeated["completions"] for stage in stages.values()} == {0}
    base = result.records.references[(mine.task, 0)]
    gain = np.mean([evaluation.scores.mean() for evaluation in mine.evaluations]) - base.scores.mean()
    assert gain > 0.05  # 128 completions at this rate raise the mean reward by more than .1 on the seeds tried
