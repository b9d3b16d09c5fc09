from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
from paretune.report import write_report
from paretune.report.comparison import comparisons
from paretune.report.header import commands, tiles


def test_beta_of_a_controlled_task_is_one_per_seed() -> None:
    details = []
    for dials in ({}, {"rho": 0.6}):
        records = builders.synthetic_study(seeds=(0,), task=builders.task_info(dials=dials))
        (tile,) = (tile for tile in tiles(records, comparisons(records)) if tile["name"] == "base model")
        details.append(tile["detail"])
    assert details == ["KL coefficient beta 0.05", "KL coefficient beta, one per seed"]


def test_a_report_beside_no_study_file_says_how_it_is_merged_again(tmp_path: Path) -> None:
    records = builders.synthetic_study(seeds=(0,))
    assert commands(records) == ["paretune report DIR DIR -o OUT"]
    here = replace(records, folder=tmp_path)
    assert commands(here)[0] == "paretune run study.yaml -o ."
    own, elsewhere = (write_report(folder, here).read_text() for folder in (tmp_path, tmp_path / "elsewhere"))
    for page, merged in ((own, False), (elsewhere, True)):
        assert ("paretune report DIR DIR -o OUT" in page) is merged
        assert ("paretune run study.yaml" in page) is not merged
