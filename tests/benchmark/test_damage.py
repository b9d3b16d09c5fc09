"""Damaged files of stages and of populations under way: named, and mended at the cost of what cannot be known."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.benchmark.progress import Display
from paretune.benchmark.runner import run
from paretune.benchmark.summary import plan_text
from paretune.records.files import is_done
from paretune.training.groups import begin_group, begun_groups

pytestmark = pytest.mark.usefixtures("only_what_is_named")

Make = Callable[..., dict[str, Any]]


class Said(Display):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flip": flip,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "other": lambda path: path.write_text("[1, 2]"),
}


FEW = {"flip", "gone"}  # kinds of damage that every file gets in `make test`; the others are for `make slow`


def damages(file: str, few: Collection[str] = FEW) -> list[Any]:
    return [
        pytest.param(file, damage, id=f"{file}-{name}", marks=[] if name in few else pytest.mark.slow)
        for name, damage in DAMAGES.items()
    ]


def files(folder: Path, *parts: str) -> dict[Path, tuple[bytes, int]]:
    found = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *damages("stage.json"),
        *damages("ledger.json", DAMAGES),
        *damages("adapter/adapter.json"),
        *damages("DONE.json"),
    ],
)
def test_a_damaged_file_of_a_stage_is_named_and_costs_that_stage_alone_or_nothing(
    study: Make, tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    trained_again = file != "stage.json"
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    made = study({"trace": str(trace)})
    run(made, folder, progress=False)
    before, trained = files(folder, "stages", "runs", "references"), trace.read_text()
    hurt = sorted((folder / "stages").iterdir())[0]
    damage(hurt / file)

    text = plan_text(plan(made, folder))
    assert f"damaged: stages/{hurt.name}: {file}" in text
    said = Said()
    assert run(made, folder, progress=said).complete
    assert any(line.startswith(f"damaged: stages/{hurt.name}: {file}") for line in said.lines)
    after = files(folder, "stages", "runs", "references")
    assert after.keys() == before.keys()
    changed = {path for path in before if after[path][1] != before[path][1]}
    if trained_again:  # the same stage, bit for bit, and its four updates in the trace
        using = [path.parent for path in before if path.name == "cell.json" and hurt.name in path.read_text()]
        assert all(any(path.is_relative_to(place) for place in (hurt, *using)) for path in changed)
        assert len(trace.read_text().splitlines()) == len(trained.splitlines()) + 4
    else:
        assert changed == {hurt / file}
        assert trace.read_text() == trained
    different = {path for path in changed if after[path][0] != before[path][0]}
    # they hold seconds, and loads of the machine
    assert {path.name for path in different} <= {"ledger.json", "DONE.json", "events.jsonl", "state.json"}
    for path in different:
        if path.name == "state.json":  # beside these what a longer run goes on from
            assert json.loads(after[path][0])["state"] == json.loads(before[path][0])["state"]
    assert "damaged: " not in plan_text(plan(made, folder))


@pytest.mark.parametrize(("file", "damage"), [*damages("events.jsonl"), *damages("checkpoint/state.json")])
def test_what_a_stage_is_finished_without_costs_nothing_until_somebody_needs_it(
    study: Make, tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    folder, trace = tmp_path / "out", tmp_path / "trace.txt"
    run(study({"trace": str(trace)}, seeds=1), folder, progress=False)
    trained = trace.read_text()
    hurt = sorted((folder / "stages").iterdir())[0]
    damage(hurt / file)
    longer = study({"trace": str(trace)}, seeds=1, budget={"completions": [64, 128]})
    whole = plan(longer, folder).completions_to_train
    assert run(study({"trace": str(trace)}, seeds=1), folder, progress=False).complete
    assert trace.read_text() == trained
    assert is_done(hurt)
    # 2 experts of 64: both go on from 32, or one of them starts anew because its state cannot be used
    assert whole == (64 if file == "events.jsonl" else 96)
    assert run(longer, folder, progress=False).complete


def under_way(made: dict[str, Any], root: Path) -> tuple[Any, Path]:
    stages = plan(made, root).stages
    group = begin_group(root, stages, spent={"a": {"completions": 8.0}})
    return {each.key: each for each in stages}, group.folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_population_whose_file_is_damaged_starts_again(
    study: Make, tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    missing, folder = under_way(study(), tmp_path)
    damage(folder / "group.json")
    with caplog.at_level(logging.WARNING):
        assert begun_groups(tmp_path, missing) == []
    assert not folder.exists()
    if damage is not DAMAGES["gone"]:
        assert f"groups/{folder.name}: group.json is damaged" in caplog.text


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "gone"])
def test_damaged_counts_of_lost_work_are_left_out_with_a_warning(
    study: Make, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    missing, folder = under_way(study(), tmp_path)
    DAMAGES[name](folder / "spent.json")
    with caplog.at_level(logging.WARNING):
        (group,) = begun_groups(tmp_path, missing)
    assert not (group.folder / "spent.json").exists()
    assert f"groups/{folder.name}: spent.json is damaged" in caplog.text


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "gone"])
def test_a_damaged_state_of_a_population_is_removed_with_a_warning(
    study: Make, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from paretune.rl.checkpoints import save_state

    missing, folder = under_way(study(), tmp_path)
    save_state(folder / "checkpoint" / "good.safetensors", {"a": torch.ones(3)}, {"made": 8})
    save_state(folder / "checkpoint" / "state.safetensors", {"a": torch.ones(300)}, {"made": 8})
    DAMAGES[name](folder / "checkpoint" / "state.safetensors")
    with caplog.at_level(logging.WARNING):
        begun_groups(tmp_path, missing)
    assert {path.name for path in (folder / "checkpoint").iterdir()} == {"good.safetensors", "good.measured.json"}
    assert "state.safetensors has changed since it was written. Its stages are trained from their start." in caplog.text


def test_a_marker_says_when_anything_in_it_was_changed(study: Make, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(study(), folder, progress=False)
    for marker in folder.rglob("DONE.json"):
        data = json.loads(marker.read_text())
        marker.write_text(json.dumps({**data, "values": {**data["values"], "more": 1}}, indent=1) + "\n")
        assert not is_done(marker.parent)


INTRUDERS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: (path.mkdir(), (path / "mine.txt").write_text("mine")),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("identity", ["study.lock.json", "study.yaml"])
@pytest.mark.parametrize("intruder", INTRUDERS.values(), ids=INTRUDERS)
def test_what_lies_in_the_place_of_a_file_is_put_aside(
    study: Make, tmp_path: Path, intruder: Callable[[Path], object], identity: str
) -> None:
    assert run(study(), tmp_path, progress=False).complete
    patterns = (
        "runs/*/DONE.json", "runs/*/cell.json", "runs/*/evaluations/DONE.json", "runs/*/evaluations/000.parquet",
        "stages/*/DONE.json", "stages/*/stage.json", "references/*/DONE.json", identity,
    )  # fmt: skip
    taken = [min(tmp_path.glob(pattern)) for pattern in patterns]
    for path in taken:
        path.unlink()
        intruder(path)
    plan(study(), tmp_path)  # neither waits for a pipe nor fails
    assert run(study(), tmp_path, progress=(said := Said())).complete
    for path in taken:
        name = path.relative_to(tmp_path).as_posix()
        aside = f"aside/{name.replace('/', '-')}"
        assert f"damaged: {name} is no file. It is put aside as {aside}." in said.lines
        assert os.path.lexists(tmp_path / aside)
        assert path.is_file()
    assert run(study(), tmp_path, progress=(said := Said())).complete
    assert said.lines == []


@pytest.mark.parametrize("name", ["runs", "stages", "report"])
def test_a_file_in_the_place_of_a_folder_is_put_aside(study: Make, tmp_path: Path, name: str) -> None:
    assert run(study(), tmp_path, progress=False).complete
    if (tmp_path / name).exists():
        shutil.rmtree(tmp_path / name)
    (tmp_path / name).write_text("mine")
    assert run(study(), tmp_path, progress=(said := Said())).complete
    assert f"damaged: {name} is no folder. It is put aside as aside/{name}." in said.lines
    assert (tmp_path / "aside" / name).read_text() == "mine"
