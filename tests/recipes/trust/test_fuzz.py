"""The fuzz: an input is made from its number alone, and whatever goes wrong with it is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

Script = Callable[[str], ModuleType]

TRIALS = """
import os, sys, time
from pathlib import Path
from trials import Trial, run_all


def act(trial):
    if trial.kind == "raises":
        raise ZeroDivisionError("of the trial")
    if trial.kind == "killed":
        os.kill(os.getpid(), 11)
    if trial.kind == "large":
        bytearray(b"x" * (1200 * 2**20))
    if trial.kind == "silent":
        return 2
    if trial.kind == "coloured":
        print("\\x1b[31mred")
    if trial.kind == "long":
        print("a" * 3000, file=sys.stderr)
        return 2
    if trial.kind == "leaves":
        if not os.fork():
            time.sleep(60)
    if trial.kind == "status":
        return 9
    if trial.kind == "surrogates":
        print("\\ud800")
    if trial.kind == "refused":
        print("paretune: no", file=sys.stderr)
        return 2
    return 0


kinds = sys.argv[1].split()
trials = [Trial(str(i), kind, Path.cwd(), (), "") for i, kind in enumerate(kinds)]
found = {verdict.trial.kind: verdict.fault for verdict in run_all(trials, act, 2, lambda trial: None)}
print(*(f"{kind}={found[kind]}" for kind in kinds), sep="\\n")
"""
FAULTS = {
    "raises": "traceback: ZeroDivisionError in ? (",
    "killed": "signal: SIGSEGV",
    "large": "memory: more than 1 GiB",
    "silent": "silence: status 2 and no word",
    "coloured": "control characters",
    "long": "long error: characters",
    "leaves": "left over",
    "status": "status: 9",
    "surrogates": "traceback: UnicodeEncodeError",
    "refused": "",
    "well": "",
}


def test_whatever_goes_wrong_with_an_input_has_a_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "some_trials.py").write_text(TRIALS)
    environment = {**os.environ, "PYTHONPATH": str(root / "recipes" / "trust")}
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "some_trials.py"), " ".join(FAULTS)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = dict(line.split("=", 1) for line in ran.stdout.splitlines())
    for kind, fault in FAULTS.items():
        assert found[kind].startswith(fault), kind
        assert bool(found[kind]) == bool(fault), kind


@pytest.fixture
def valid(script: Script, tmp_path: Path) -> Path:
    folder = tmp_path / "valid"
    script("tiny").write_study(folder)
    for name in ("solution", "results"):
        (folder / name).mkdir()
        (folder / name / "some.json").write_text('{"a": [1, 2], "b": {"c": "d"}}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_number_makes_the_same_input_again_and_others_make_others(
    script: Script, valid: Path, tmp_path: Path
) -> None:
    inputs = script("inputs")
    makers = [inputs.Maker(valid, tmp_path / name) for name in ("one", "two")]
    made: set[str] = set()
    kinds: set[str] = set()
    for number in range(60):
        one, two = (maker.make(3, number, number % 6 == 0) for maker in makers)
        assert (one.kind, one.arguments, one.note) == (two.kind, two.arguments, two.note)
        if one.kind != "parquet":  # its writer names the moment
            assert contents(one.folder) == contents(two.folder)
        made.add(repr(contents(one.folder)) + repr(one.arguments))
        kinds.add(one.kind)
    assert len(made) >= 58
    assert kinds == {*inputs.KINDS, "line"}


def test_trees_that_are_not_mutated_read_as_they_were_written(script: Script) -> None:
    mutations, random = script("mutations"), __import__("random").Random(0)
    tree = yaml.safe_load(script("tiny").TASK)
    for _ in range(20):  # of each style
        assert yaml.safe_load(mutations.emit_yaml(mutations.pairs(tree), random)) == tree
    assert json.loads(mutations.emit(mutations.pairs(tree), False)) == tree


@pytest.mark.slow  # make check runs 2,000 of them
def test_a_few_inputs_run_and_faults_set_the_status(root: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(root / "recipes" / "trust" / "fuzz.py"), "--tiny", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("seed 0: 48 inputs"), ran.stderr
    assert ran.returncode == ("no fault" not in lines)
