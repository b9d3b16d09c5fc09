from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import builders
from compared_studies import records, source
from paretune.benchmark.pairing import Pairing, pair
from paretune.core.digests import digest
from paretune.records.compact import compact
from paretune.records.study import StudyRecords
from paretune.tasks import load_task

THREE = {"mine": (0.6, 0.7, 0.8), "linear": (0.5, 0.6, 0.6)}


def together(first: StudyRecords, second: StudyRecords, *methods: str) -> Pairing:
    return pair([source("a", first), source("b", second)], methods)


def labels(made: Pairing) -> list[list[str]]:
    return [[row.label for row in lineup.rows] for lineup in made.lineups]


def test_methods_of_two_studies_on_one_task_instance_stand_side_by_side() -> None:
    made = together(records({"mine": (0.6, 0.7)}), records({"linear": (0.5, 0.6)}))
    assert labels(made) == [["mine", "linear"]]
    assert made.lineups[0].seeds == (0, 1)
    assert sorted(made.lineups[0].base) == [0, 1]
    assert made.unpaired == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"made_of": {"task": {"train": "t2", "model": "m1", "beta": "b1"}}}, "other training prompts"),
        ({"made_of": {"task": {"train": "t1", "model": "m2", "beta": "b1"}}}, "other base model"),
        ({"made_of": {"objectives": {"first": "r1", "second": "changed"}}}, "another reward of second"),
        ({"tested": {"test prompts": "p2"}}, "other test prompts"),
        ({"tested": {"decoding": {"samples": 2}}}, "other evaluation"),
        ({"tested": {"scored": {"first": "r9"}}}, "other reward that scored it"),
        ({"preference": [0.4, 0.6]}, "other preferences (1 in place of 1)"),
        ({"made_of": {"task": None, "objectives": None}, "tested": {}}, None),
    ],
)
def test_what_is_not_the_same_task_instance_is_refused_and_said(changed: dict[str, object], said: str | None) -> None:
    if said is None:
        made = together(records({"mine": (0.6,)}), replace(records({"linear": (0.5,)}), tables=()))
        said = "unknown digests"
    else:
        made = together(records({"mine": (0.6,)}), records({"linear": (0.5,)}, **changed))  # type: ignore[arg-type]
    assert labels(made) == [["mine"]]
    (line,) = made.unpaired
    assert line.startswith("b on small at 100: ")
    assert said in line
    assert "linear seed 0" in line


def test_the_bytes_of_a_model_that_is_drawn_from_the_seed_need_not_agree() -> None:
    first, second = (
        records({"mine": (0.6,)}),
        records({"linear": (0.5,)}, made_of={"task": {"train": "t1", "model": "m2", "beta": "b1"}}),
    )
    drawn = {"small": replace(first.tasks["small"], family_settings={"rho": 0.8})}
    made = together(replace(first, tasks=drawn), replace(second, tasks=drawn))
    assert labels(made) == [["mine", "linear"]]


def test_a_base_model_that_scores_otherwise_gives_another_instance_away() -> None:
    exact = builders.synthetic_study(exact=True, methods=("linear",), seeds=(0,))
    made_of = {"code": {}, "objectives": {}, "task": {}, "source": "linear", "version": 1, "settings": {}}
    first = compact(replace(exact, cells=tuple(replace(cell, made_of=made_of) for cell in exact.cells)))
    first = replace(first, blocks=tuple(replace(each, tested={"test prompts": "p"}) for each in first.blocks))

    def moved(by: float) -> Pairing:
        blocks = [replace(each, method="other" if each.kind == "cell" else "") for each in first.blocks]
        blocks = [replace(each, rewards=each.rewards + by) if each.kind == "base" else each for each in blocks]
        sources = [source("a", exact), source("b", exact)]
        return pair([replace(sources[0], study=first), replace(sources[1], study=replace(first, blocks=tuple(blocks)))])

    assert labels(moved(1e-6)) == [["linear", "other"]]
    assert labels(moved(0.01)) == [["linear"]]
    assert "a base model that scores 0.01 apart" in moved(0.01).unpaired[0]


def test_another_budget_is_named_with_the_one_it_should_be() -> None:
    made = together(records({"mine": (0.6,)}), records({"linear": (0.5,)}, budget=200))
    assert labels(made) == [["mine"]]
    assert made.unpaired == ["b on small: budget of 200 completions, where a has 100"]


def test_seeds_that_one_method_lacks_count_for_none() -> None:
    made = pair([source("a", records({**THREE, "short": (0.5, np.nan, 0.5)}))])
    assert made.lineups[0].seeds == (0, 2)
    assert "a on small at 100: seeds 1 of short pending" in made.unpaired
    assert any("seeds 1 of mine, linear" in each for each in made.unpaired)
    assert pair([source("a", records({**THREE, "short": (0.5, np.nan, 0.5)}))], ("mine", "linear")).lineups[
        0
    ].seeds == (0, 1, 2)


def test_seeds_of_the_first_source_are_those_that_count() -> None:
    made = together(records({"mine": (0.6, 0.7)}), records({"linear": (0.5, 0.6, 0.6), "late": (0.1,)}))
    assert made.lineups[0].seeds == (0,)
    assert "b on small at 100: seeds 2 of linear, of which a has no finished cell" in made.unpaired
    other = together(records({"mine": (0.6, 0.7)}), records({"late": (0.1,)}, seeds=(2,)))
    assert other.unpaired == ["b on small at 100: seeds 2 of late, of which a has no finished cell"]
    assert labels(other) == [["mine"]]
    assert other.lineups[0].seeds == (0, 1)


def test_one_method_made_alike_in_two_sources_stands_once_and_another_of_its_name_beside_it() -> None:
    alike = together(records(THREE), records({"linear": (0.5, 0.6, 0.6)}))
    assert labels(alike) == [["mine", "linear"]]
    assert "linear of b: made as that of a, which stands for both" in alike.unpaired[0]
    tuned = together(records(THREE), records({"linear": (0.5, 0.6, 0.6)}, made_of={"settings": {"rank": 2}}))
    assert labels(tuned) == [["mine", "linear", "linear (b)"]]


def test_classes_of_feedback_are_apart() -> None:
    study = records(THREE)
    info = replace(study.tasks["small"], contextual=True)
    cells = tuple(replace(cell, feedback="oracle") if cell.method == "mine" else cell for cell in study.cells)
    made = pair([source("a", replace(study, tasks={"small": info}, cells=cells))])
    assert [(lineup.feedback, [row.label for row in lineup.rows]) for lineup in made.lineups] == [
        ("told", ["linear"]), ("oracle", ["mine"]),
    ]  # fmt: skip


def digests_of_an_instance() -> dict[str, str]:
    task = load_task({"controlled": {"alphabet": 3, "length": 2}}).instance(1)
    keys = {**task.training_key(), "test": digest(list(task.splits["test"]))}
    return {name: digest(key) for name, key in keys.items()}


def test_an_instance_has_the_same_digests_in_another_process_and_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import json; from paretune.core.digests import digest; from paretune.tasks import load_task\n"
        f"{inspect.getsource(digests_of_an_instance)}\nprint(json.dumps(digests_of_an_instance()))"
    )
    other = {**os.environ, "PARETUNE_CACHE": str(tmp_path / "there")}
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"  # here it is drawn, or given
    done = subprocess.run(
        [sys.executable, "-c", code], env={**other, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "here"))
    here = digests_of_an_instance()
    assert json.loads(done.stdout) == here
    assert {"model", "train", "test", "beta"} <= here.keys()
    assert all(any((tmp_path / folder).iterdir()) for folder in ("here", "there"))  # drawn by both
