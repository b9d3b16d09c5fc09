"""The code and the table of docs/tracking.md, as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from paretune.tracking import TRACKERS, TrackedRun
from paretune.tracking.following import Follower
from paretune.tracking.names import metrics_of
from paretune.tracking.updates import Update
from told import append, event


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "tracking.md").read_text(encoding="utf-8")


def run(key: str) -> TrackedRun:
    return TrackedRun(key, f"run-{key}", "mine", {}, Path(), ("NAME", "other"), 0.1)


def test_every_tracker_is_named_with_its_extra(page: str) -> None:
    assert sorted(re.findall(r"\| `(\w+)` \| `pip install 'paretune\[\1\]'`", page)) == sorted(TRACKERS)


def test_every_number_that_is_told_stands_in_the_table_and_no_other(page: str) -> None:
    everything = event(
        "k", 1, reward_stds=[0.1, 0.1], clipped=[0.1], ratio=[1.0], entropy=0.5, conflicts=[0.0, 0.0], generation=1,
        individual=2, step=3,
    )  # fmt: skip
    told = {name for name in metrics_of(Update("k", 1, 8, everything), run("k")) if "other" not in name}
    rows = [line.split("|")[1] for line in page.partition("| name | is | in TRL |")[2].splitlines() if "| `" in line]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    named = {f"completions{name}" if name.startswith("/") else name for name in named}
    assert told == named | {"generation", "individual", "outer_step"}  # these stand above the table
    assert all(f"`{name}`" in page for name in told - named)


def test_the_tracker_of_ones_own_writes_what_it_is_told(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n# my_tracker.py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "tracker_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    append(tmp_path / "groups" / "g" / "events.jsonl", event("k", 1), event("k", 2))
    follower = Follower(tmp_path, ["tracker_of_the_page:Lines"])
    follower.describe({"k": run("k")})
    follower.look()
    follower.close()
    lines = [json.loads(line) for line in (tmp_path / "run-k.jsonl").read_text().splitlines()]
    assert [(line["step"], line["reward"]) for line in lines] == [(1, 0.375), (2, 0.375)]
