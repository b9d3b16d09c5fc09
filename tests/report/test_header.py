from __future__ import annotations

import builders
from paretune.report.comparison import comparisons
from paretune.report.header import tiles


def test_beta_of_a_controlled_task_is_one_per_seed() -> None:
    details = []
    for dials in ({}, {"rho": 0.6}):
        records = builders.synthetic_study(seeds=(0,), task=builders.task_info(dials=dials))
        (tile,) = (tile for tile in tiles(records, comparisons(records)) if tile["name"] == "base model")
        details.append(tile["detail"])
    assert details == ["KL coefficient beta 0.05", "KL coefficient beta, one per seed"]
