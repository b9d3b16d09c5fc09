from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import set_runs
from paretune.core.stages import StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of
from paretune.methods.folds import FOLDS, fold_means, fold_numbers, fold_sums
from paretune.methods.multi_policy.weight_grid import WeightGrid, WeightGridSettings
from paretune.methods.training import measure_experts, train_experts


def test_means_by_fold_are_those_on_paper() -> None:
    """Prompts 0 and 8 are one fold, (1 + 3) / 2, and 4 is one of its own; in the second column one value is missing."""
    values = np.asarray([[1.0, np.nan], [2.0, 4.0], [3.0, 5.0], [7.0, 6.0]])
    assert fold_numbers([0, 4, 5, 9], 5).tolist() == [0, 4, 0, 4]
    folds = fold_numbers([0, 1, FOLDS, 4])
    assert folds.tolist() == [0, 1, 0, 4]
    means = fold_means(*fold_sums(values, folds))
    np.testing.assert_allclose(means[[0, 1, 4]], [[2, 5], [2, 4], [7, 6]])
    assert np.isnan(means[[2, 3, 5, 6, 7]]).all()
    counts, sums = fold_sums(values, folds)
    assert counts.sum(axis=0).tolist() == [4, 3]
    assert sums.sum(axis=0).tolist() == [13, 15]


def test_a_measurement_seals_what_folds_add_up_to(task: Task, tmp_path: Path) -> None:
    settings = WeightGridSettings(
        rank=2, group_size=4, completions_per_update=8, learning_rate=3e-2, epochs=1, average_decay=0.0,
        completions_each=24, measured_each=8,
    )  # fmt: skip
    grid = WeightGrid(settings)
    *experts, measurement = grid.stages(task, np.eye(2), 72, 0)
    trained = set_runs.run(train_experts, tmp_path, experts, task)
    (found,) = set_runs.run(measure_experts, tmp_path, [measurement], task)
    values: Any = found.values
    folds = np.asarray(values["folds"], dtype=np.float64)
    assert folds.shape == (3, FOLDS, 3)
    known = ~np.isnan(folds).any(axis=(0, 2))
    assert known.tolist() == [True] * 4 + [False] * 4  # the micro-task has four development prompts
    np.testing.assert_allclose(folds[:, known, :2].mean(axis=1), values["scores"], atol=1e-12)
    np.testing.assert_allclose(folds[:, known, 2].mean(axis=1), values["kl"], atol=1e-12)
    counts = np.asarray(values["fold_counts"])
    assert counts[:, :4].tolist() == [[[1] * 3] * 4] * 3  # one completion of each of four prompts
    assert not counts[:, 4:].any()
    results: dict[str, StageResult] = {result.key: result for result in (*trained, found)}
    assembly = grid.assemble(task, np.eye(2), results)
    assert assembly.experts == adapters_of(trained)
    notes: Any = assembly.notes["selection"]
    assert notes["folds"] == 4
