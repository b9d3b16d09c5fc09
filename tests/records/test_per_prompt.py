from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import builders
from paretune.core.errors import RecordError
from paretune.metrics import measure_all
from paretune.optimum.exact import captured_share
from paretune.records.per_prompt import PerPrompt, read_per_prompt, write_per_prompt, write_per_prompt_files
from paretune.records.study import StudyRecords

SINGLE = 2e-6  # means of numbers of 32 bits


def blocks(study: StudyRecords, folder: Path) -> dict[tuple[str, str, int], PerPrompt]:
    found = read_per_prompt(write_per_prompt(study, folder / "per_prompt.parquet"))
    return {(each.kind, each.method, each.seed): each for each in found}


def test_utility_and_cost_of_a_report_are_read_off_the_file_alone(tmp_path: Path) -> None:
    study = builders.synthetic_study()
    found = blocks(study, tmp_path)
    rows = {(row.method, row.metric, row.label): row.value.per_seed for row in measure_all(study)}
    assert {kind for kind, _, _ in found} == {"cell", "base"}
    for cell in study.cells:
        mine = found["cell", cell.method, cell.seed]
        assert mine.utilities.mean() == pytest.approx(rows[cell.method, "performance", ""][cell.seed], abs=SINGLE)
        assert mine.kl.mean() == pytest.approx(rows[cell.method, "performance", "kl: all"][cell.seed], abs=1e-5)
        gain = mine.utilities - mine.preferences @ found["base", "", cell.seed].scores[0]
        assert gain.mean() == pytest.approx(rows[cell.method, "performance", "gain over base"][cell.seed], abs=SINGLE)
        for cost in ("completions", "tokens", "seconds", "flops"):
            spent = rows[cell.method, "training_efficiency", f"sum: {cost}"].get(cell.seed)
            assert mine.costs is not None
            assert spent is None or mine.costs[cost] == pytest.approx(spent)
        np.testing.assert_array_equal(mine.preferences, study.tasks[cell.task].preferences)
        assert (mine.budget_completions, mine.family) == (cell.budget_completions, cell.family)


def test_the_base_model_has_scores_and_no_utility_of_its_own(tmp_path: Path) -> None:
    found = blocks(builders.synthetic_study(), tmp_path)
    bases = [each for (kind, _, _), each in found.items() if kind == "base"]
    assert bases
    for base in bases:
        assert np.isfinite(base.scores).all()
        assert np.isnan(base.utilities).all()


def test_captured_share_of_a_report_is_read_off_the_file_alone(tmp_path: Path) -> None:
    study = builders.synthetic_study(exact=True)
    found = blocks(study, tmp_path)
    rows = {row.method: row.value.per_seed for row in measure_all(study, ["captured_share"]) if not row.label}
    assert any(rows.values())
    for method, per_seed in rows.items():
        for seed, share in per_seed.items():
            mine, base, best = found["cell", method, seed], found["base", "", seed], found["optimum", "", seed]
            np.testing.assert_allclose(best.preferences, mine.preferences, atol=1e-12)
            assert captured_share(mine.J, base.J[0], best.J, mine.preferences) == pytest.approx(share, abs=1e-4)


def test_rewards_that_are_missing_count_as_in_the_report(tmp_path: Path) -> None:
    rewards = np.array([[0.25, np.nan, 0.5], [0.75, 1.0, 0.5], [0.5, np.nan, np.nan], [1.0, np.nan, 0.5]])  # 2 prompts
    record = builders.evaluation(rewards, [0.25, 0.25, 0.5], samples=2, kl=1.5)
    info = builders.task_info(preferences=[[0.25, 0.25, 0.5]], audit=())
    study = builders.study([builders.cell(evaluations=(record,))], [info])
    (mine,) = (each for (kind, _, _), each in blocks(study, tmp_path).items() if kind == "cell")
    # prompt 0: (.25 + .75) / 2, 1 of one reward, .5; prompt 1: (.5 + 1) / 2, none, .5 of one
    np.testing.assert_array_equal(mine.rewards, [[[0.5, 1.0, 0.5], [0.75, np.nan, 0.5]]])
    assert mine.made.tolist() == [[[2, 1, 2], [2, 0, 1]]]
    assert mine.kl.tolist() == [[1.5, 1.5]]
    np.testing.assert_allclose(mine.scores[0], record.scores, rtol=1e-12)  # (.25 + .75 + .5 + 1) / 4, 1, .5
    assert mine.utilities.tolist() == [0.25 * 0.625 + 0.25 * 1 + 0.5 * 0.5]


def test_what_users_want_of_each_prompt_is_kept_with_the_prompt(tmp_path: Path) -> None:
    study = builders.synthetic_study(exact=True)
    wanted = np.random.default_rng(0).dirichlet(np.ones(3), size=len(study.cells[0].evaluations[0].prompt_ids))
    prompts = len(dict.fromkeys(study.cells[0].evaluations[0].prompt_ids))
    cells = tuple(
        replace(
            cell, evaluations=tuple(replace(each, prompt_preferences=wanted[:prompts]) for each in cell.evaluations)
        )
        for cell in study.cells
    )
    found = blocks(replace(study, cells=cells), tmp_path)
    for (kind, _, _), block in found.items():
        if kind == "cell":
            assert block.prompt_preferences is not None
            np.testing.assert_array_equal(block.prompt_preferences, np.tile(wanted[:prompts], (len(block.kl), 1, 1)))
        else:
            assert block.prompt_preferences is None
    # each preference has the same here: what many cells repeat takes little room
    plain = len((write_per_prompt(study, tmp_path / "plain.parquet")).read_bytes())
    assert len((tmp_path / "per_prompt.parquet").read_bytes()) < plain + 30 * prompts * 3


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    study = builders.synthetic_study()
    table = pq.read_table(write_per_prompt(study, tmp_path / "new.parquet")).drop_columns(["wanted"])
    shared = json.loads(table.schema.metadata[b"paretune"])
    shared |= json.loads(zlib.decompress(base64.b64decode(shared.pop("content"))))
    count = len(shared["blocks"][0]["preferences"])
    prompts = len(set(table["prompt"].to_pylist()))
    wanted = np.random.default_rng(0).random((count, prompts, 3))
    shared["blocks"][0]["prompt_preferences"] = wanted.tolist()
    old = table.replace_schema_metadata({b"paretune": json.dumps({**shared, "schema_version": 1}).encode()})
    pq.write_table(old, tmp_path / "old.parquet")
    first, second = read_per_prompt(tmp_path / "old.parquet")[:2]
    np.testing.assert_array_equal(first.prompt_preferences, wanted)
    assert second.prompt_preferences is None
    np.testing.assert_array_equal(second.kl, read_per_prompt(tmp_path / "new.parquet")[1].kl)


def test_a_file_is_a_few_kilobytes_a_cell_and_each_finished_part_has_its_own(tmp_path: Path) -> None:
    study = builders.synthetic_study()
    task = next(iter(study.tasks))
    parts = {"first": {"tasks": [task], "seeds": [0]}, "rest": {"tasks": [task], "seeds": [1, 2]}}
    cells = [replace(cell, state="pending", evaluations=()) if cell.seed == 2 else cell for cell in study.cells]
    half = replace(study, cells=tuple(cells), resolved={**study.resolved, "parts": parts})
    files = write_per_prompt_files(half, tmp_path)
    assert [file.name for file in files] == ["per_prompt.parquet", "per_prompt-first.parquet"]
    assert files[0].stat().st_size < 6_000 * sum(cell.state == "done" for cell in cells)
    assert {each.seed for each in read_per_prompt(files[1])} == {0}
    none = replace(study, cells=tuple(replace(cell, state="pending") for cell in study.cells))
    assert write_per_prompt_files(none, tmp_path) == []


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="must exist, got no such file"):
        read_per_prompt(tmp_path / "gone.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="must hold outcomes per prompt, got damaged content"):
        read_per_prompt(tmp_path / "torn.parquet")


def test_the_example_of_the_docs_gives_the_captured_shares_of_the_report(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    code = next(part.partition("```")[0] for part in page.split("```python\n") if "def captured_shares" in part)
    space: dict[str, Any] = {}
    exec(compile(code, "studies.md", "exec"), space)
    study = builders.synthetic_study(exact=True)
    shares = space["captured_shares"](write_per_prompt(study, tmp_path / "per_prompt.parquet"))
    rows = {row.method: row.value.per_seed for row in measure_all(study, ["captured_share"]) if not row.label}
    expected = {(name, 6000, seed): share for name, per_seed in rows.items() for seed, share in per_seed.items()}
    assert shares == pytest.approx(expected, abs=1e-4)
