from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.records.files import write_json
from paretune.training import groups
from paretune.training.groups import begin_group, begun_groups, populations, read_spent

Make = Callable[..., dict[str, Any]]


def test_equal_shapes_are_split_evenly_and_lengths_of_a_trajectory_stay_together(study: Make, tmp_path: Path) -> None:
    planned = plan(study(seeds=3, budget={"completions": [64, 128]}), tmp_path)
    parts = populations(planned.stages, workers=2)
    # 3 seeds x 2 experts = 6 trajectories of two lengths each, 3 trajectories a worker
    assert [len(part) for part in parts] == [6, 6]
    for part in parts:
        assert len({each.stage.trajectory_key(each.task) for each in part}) == 3


def test_other_settings_are_another_population(study: Make, tmp_path: Path) -> None:
    methods = {
        "slow": {"method": "fake_study:Fake", "updates_seconds": 0.5},
        "fast": {"method": "fake_study:Fake"},
    }
    parts = populations(plan(study(methods=methods, seeds=1), tmp_path).stages, workers=1)
    assert sorted(len(part) for part in parts) == [2, 2]
    assert all(len({each.stage.shape_key(each.task) for each in part}) == 1 for part in parts)


def test_populations_have_a_largest_size(study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "POPULATION", 3)
    parts = populations(plan(study(seeds=4), tmp_path).stages, workers=1)
    assert sorted(len(part) for part in parts) == [2, 3, 3]


def test_a_group_is_found_again_with_its_members_and_dropped_when_nobody_wants_it(study: Make, tmp_path: Path) -> None:
    stages = plan(study(seeds=2), tmp_path).stages
    group = begin_group(tmp_path, stages[:2], spent={"trajectory": {"completions": 8.0}})
    other = begin_group(tmp_path, stages[2:])
    missing = {each.key: each for each in stages[1:]}  # one member was sealed before the kill: it stays a member
    found = {each.folder: each for each in begun_groups(tmp_path, missing)}
    assert found[group.folder].keys == group.keys
    assert read_spent(group.folder)["spent"] == {"trajectory": {"completions": 8.0}}
    assert begun_groups(tmp_path, {stages[1].key: stages[1]})[0].folder == group.folder
    assert not other.folder.exists()


def test_a_group_whose_file_was_never_written_is_dropped(study: Make, tmp_path: Path) -> None:
    write_json(tmp_path / "groups" / "half" / "spent.json", {})
    assert begun_groups(tmp_path, {}) == []
    assert not (tmp_path / "groups" / "half").exists()
