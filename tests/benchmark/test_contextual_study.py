"""A study of a task where what users want depends on the prompt, from training to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paretune.benchmark.runner import run
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons

STUDY = {
    "name": "context",
    "tasks": [{"controlled": {"rho": -0.8, "alphabet": 5, "length": 3, "context": 0.6}}],
    "methods": {
        "linear": {},
        "linear_oracle": {"method": "linear", "feedback": "oracle"},
        "bank_utility": {"method": "preference_conditioned", "feedback": "utility"},
        "bank_oracle": {"method": "preference_conditioned", "feedback": "oracle"},
    },
    "budget": {"completions": 1024},
    "tune": {"learning_rate": [0.005], "instances": 1},
    "seeds": 1,
    "preferences": {"grid": 2, "unseen": 0},
    "workers": 1,
}


@pytest.mark.slow
def test_each_class_is_trained_answered_and_judged_by_what_users_want(tmp_path: Path) -> None:
    result = run(STUDY, tmp_path / "out")
    records = result.records
    cells = {cell.method: cell for cell in records.cells}
    assert {name: cell.state for name, cell in cells.items()} == dict.fromkeys(cells, "done")
    assert {cells[name].feedback for name in ("linear", "base", "one_policy")} == {"told"}
    # an expert of the oracle is that of who is told, trained once
    assert cells["linear"].stages[0].key == cells["linear_oracle"].stages[0].key
    assert cells["bank_utility"].stages[0].key != cells["bank_oracle"].stages[0].key
    shares = {
        row.method: row.value for row in measure_all(records, ["captured_share"]) if row.label == "" and row.value.value
    }
    assert shares["bank_oracle"].value is not None
    assert shares["bank_oracle"].value > 0
    (info,) = records.tasks.values()
    truth = records.truths[info.name, 0]
    assert truth.prompt_preferences is not None
    for place, preference in enumerate(info.preferences):
        record = cells["bank_oracle"].evaluation(preference)
        assert record is not None
        np.testing.assert_allclose(record.prompt_preferences, truth.prompt_preferences[place])
        assert record.utility(preference) == pytest.approx(
            float((record.prompt_preferences * record.exact_rewards).sum(axis=1).mean())
        )
    assert [part.feedback for part in comparisons(records)] == ["told", "utility", "oracle"]
    assert all(each.chosen == 0 and each.measure == "captured_share" for each in records.tuning)
    page = result.page.read_text(encoding="utf-8")
    assert "methods are ranked among those that are told as much" in page
