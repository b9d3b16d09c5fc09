from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import builders
from compared_studies import records
from paretune.core.errors import RecordError
from paretune.records.compact import CompactStudy, compact, read_compact
from paretune.records.per_prompt import write_per_prompt


def read(study: object, folder: Path) -> CompactStudy:
    return read_compact(write_per_prompt(study, folder / "records.parquet"))  # type: ignore[arg-type]


def test_a_file_says_what_its_study_says(tmp_path: Path) -> None:
    study = builders.synthetic_study(exact=True, failed={("linear", 1): "crash"})
    kept, known = read(study, tmp_path), compact(study)
    assert (kept.name, kept.environment) == (known.name, known.environment)
    assert [*kept.timings] == json.loads(json.dumps(known.timings))
    assert {each["method"] for each in kept.timings} == {timing.method for timing in study.timings}
    builders.assert_same(dict(kept.tasks), dict(study.tasks))
    builders.assert_same(dict(kept.stages), dict(known.stages))
    assert {(each["method"], each["seed"], each["reason"]) for each in kept.unfinished.values()} == {
        ("linear", 1, "crash")
    }
    assert [each.cell for each in kept.cells] == [cell.cell for cell in study.cells if cell.state == "done"]
    for mine, theirs in zip(kept.blocks, known.blocks, strict=True):
        np.testing.assert_allclose(mine.rewards, theirs.rewards, atol=1e-7)  # numbers of 32 bits
        assert (mine.stages, mine.kind, mine.seed) == (theirs.stages, theirs.kind, theirs.seed)
        assert set(mine.stages) <= kept.stages.keys()


def test_what_a_cell_is_made_of_and_was_tested_by_is_kept(tmp_path: Path) -> None:
    study = records({"mine": (0.6,)})
    (cell,) = read(study, tmp_path).cells
    assert cell.made_of == study.cells[0].made_of
    assert cell.tested == {"test prompts": "p1", "decoding": {"samples": 1}, "rewards": []}
    base = read(study, tmp_path).instance("base", "small", 0)
    assert base is not None
    assert base.tested["test prompts"] == "p1"
    assert read(study, tmp_path).instance("base", "small", 7) is None


def test_a_cell_whose_rewards_have_changed_since_says_nothing_of_what_it_was_tested_by(tmp_path: Path) -> None:
    study = records({"mine": (0.6,)})
    outdated = replace(study, missing={study.tables[0].folder: "scored before a change"})
    assert read(outdated, tmp_path).cells[0].tested == {}


def test_what_was_measured_on_request_is_kept(tmp_path: Path) -> None:
    study = records({"mine": (0.6,)})
    table = {"adaptation": {"curve": [[0, 0.5], [64, 0.6]], "reason": None}}
    (cell,) = read(replace(study, cells=(replace(study.cells[0], measured=table),)), tmp_path).cells
    assert cell.measured == table


def test_a_file_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_per_prompt(builders.synthetic_study(), tmp_path / "new.parquet")
    table = pq.read_table(path)
    old = {"schema_version": 2, "study": "s", "blocks": []}
    pq.write_table(table.replace_schema_metadata({b"paretune": json.dumps(old).encode()}), tmp_path / "old.parquet")
    with pytest.raises(RecordError, match=r"of an earlier version without them\. Write it again with `paretune report"):
        read_compact(tmp_path / "old.parquet")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_per_prompt(builders.synthetic_study(), tmp_path / "records.parquet")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"content": "', b'"content": "AAAA'))
    with pytest.raises(RecordError, match="damaged content"):
        read_compact(path)
