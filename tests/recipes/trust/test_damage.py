"""The recipe that damages files of a study: what it does to them, and what it calls well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
CELL, OTHER = "runs/tiny-linear-256-s0-00000000", "runs/tiny-soups-256-s0-11111111"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for cell in (CELL, OTHER):
        (tmp_path / cell).mkdir(parents=True)
        (tmp_path / cell / "solution.json").write_text('{"a": 10}')
    (tmp_path / "stages" / ("0" * 20)).mkdir(parents=True)
    (tmp_path / "stages" / ("0" * 20) / "ledger.json").write_text('{"counts": {"tokens": 5}, "seconds": {"s": 1}}')
    return tmp_path


def test_files_whose_names_differ_in_keys_and_numbers_are_one_kind(script: Script, study: Path) -> None:
    (study / "timing.json").write_text("[]")
    assert script("damage").kinds_of(study) == {
        "runs/*/solution.json": Path(CELL) / "solution.json",
        "stages/*/ledger.json": Path("stages") / ("0" * 20) / "ledger.json",
        "timing.json": Path("timing.json"),
    }


def test_each_way_of_damage_makes_other_bytes(script: Script) -> None:
    damage = script("damage")
    content = b'{"a": 10}'
    made = {way: damage.damaged(content, way, "x.json") for way in damage.WAYS}
    assert made.pop("gone") is None
    assert len(set(made.values())) == len(made)
    assert content not in made.values()
    assert json.loads(made["changed digit"]) != json.loads(content)
    assert json.loads(made["other content"]) == [1, 2]


def test_a_command_deals_well_with_damage_if_it_mends_it_names_it_and_leaves_the_rest(
    script: Script, study: Path
) -> None:
    damage = script("damage")
    expected, before = script("contents").results(study), damage._stamps(study)
    name, made = f"{CELL}/solution.json", b"[1, 2]"

    def judged(status: int, said: str) -> str:
        return str(damage.judged(name, made, status, said, study, before, expected).word)

    assert judged(0, f"{name} is damaged: made again") == "well"
    assert judged(0, "report: x") == "mended, not named"
    assert judged(2, f"paretune: {name} must be JSON") == "blocked"
    assert judged(70, "Traceback (most recent call last):\nValueError: x") == "traceback"
    assert judged(-14, "") == "hangs"
    (study / name).write_bytes(made)
    assert judged(0, "report: x") == "other results"
    (study / name).write_text('{"a": 10}')
    (study / OTHER / "solution.json").unlink()
    (study / OTHER / "solution.json").write_text('{"a":  10}')
    assert judged(0, f"{name} is damaged") == "others rewritten"


def test_what_the_clock_says_is_no_result(script: Script, study: Path) -> None:
    contents = script("contents")
    ledger = study / "stages" / ("0" * 20) / "ledger.json"
    before = contents.results(study)
    ledger.write_text('{"counts": {"tokens": 5}, "seconds": {"s": 2}}')
    assert contents.results(study) == before
    ledger.write_text('{"counts": {"tokens": 6}, "seconds": {"s": 2}}')
    assert contents.results(study).keys() == before.keys()
    assert contents.results(study) != before
    ledger.write_text("[1, 2]")
    assert contents.results(study) != before


@pytest.mark.slow
def test_two_kinds_of_files_are_damaged_in_every_way(root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(root / "recipes" / "trust" / "damage.py"), "--tiny"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert " kinds of files, 0 faults" in ran.stdout.splitlines()[-1], ran.stdout
    assert ran.returncode == 0
