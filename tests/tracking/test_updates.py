from __future__ import annotations

import json
import shutil
from pathlib import Path

from paretune.tracking.updates import Updates
from told import append, event, finished


def numbers(updates: Updates) -> list[tuple[str, int, int]]:
    return [(each.key, each.number, each.completions) for each in updates.look()]


def test_updates_are_told_once_as_the_log_grows(tmp_path: Path) -> None:
    log, updates = tmp_path / "groups" / "g" / "events.jsonl", Updates(tmp_path)
    assert numbers(updates) == []
    line = json.dumps(event("one", 2))
    append(log, event("one", 1), event("two", 1, member=1), end=line[:40])
    assert numbers(updates) == [("one", 1, 8), ("two", 1, 8)]
    assert numbers(updates) == []  # a line that is being written waits
    append(log, end=f"{line[40:]}\n")
    assert numbers(updates) == [("one", 2, 16)]
    append(log, end=f"{line[:40]}\n")  # torn by a kill, and closed by the next line
    append(log, event("one", 3, measured=4, greedy=2))
    assert numbers(updates) == [("one", 3, 16 + 8 + 4 + 2)]
    assert updates.live == {"one", "two"}


def test_what_a_resumed_run_makes_again_is_no_new_update(tmp_path: Path) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    append(log, *(event("one", update) for update in (1, 2, 3)))  # then a kill; the checkpoint stands behind update 1
    append(log, *(event("one", update, seconds=9.0) for update in (2, 3, 4)))
    assert numbers(Updates(tmp_path)) == [("one", 1, 8), ("one", 2, 16), ("one", 3, 24), ("one", 4, 32)]


def test_a_finished_stage_tells_only_what_its_population_had_not(tmp_path: Path) -> None:
    log, updates = tmp_path / "groups" / "g" / "events.jsonl", Updates(tmp_path)
    own = [event("one", 1), event("two", 1, member=1), event("one", 2)]
    append(log, *own[:2])
    updates.look()
    finished(tmp_path, "s", "one", *own)
    shutil.rmtree(log.parent)
    assert numbers(updates) == [("one", 2, 16)]  # and nothing of its companion
    assert updates.live == set()
    assert numbers(Updates(tmp_path)) == [("one", 1, 8), ("one", 2, 16)]


def test_a_run_that_goes_on_from_a_shorter_one_is_told_in_its_order(tmp_path: Path) -> None:
    """It logs only what it adds, and makes the last update of the shorter one anew, and whole: 8, the 4 among them.

    Digests name the folders, so that the longest may come first, and the shortest in the middle.
    """
    finished(tmp_path, "a-longest", "one", event("one", 4), event("one", 5, completions=80))
    finished(tmp_path, "b-shortest", "one", event("one", 1), event("one", 2, completions=4))
    finished(tmp_path, "c-longer", "one", event("one", 2), event("one", 3), event("one", 4, completions=4))
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 6))
    found = Updates(tmp_path).look()
    assert [each.event["update"] for each in found] == [each.number for each in found] == [1, 2, 3, 4, 5, 6]
    assert [each.completions for each in found] == [8, 12, 24, 28, 112, 120]


def test_the_log_of_an_attempt_that_began_anew_is_read_from_its_start(tmp_path: Path) -> None:
    log, updates = tmp_path / "groups" / "g" / "events.jsonl", Updates(tmp_path)
    append(log, *(event("one", update) for update in (1, 2, 3, 2, 3)))
    updates.look()
    shutil.rmtree(log.parent)
    append(log, *(event("one", update) for update in (1, 2, 3, 4)))
    assert numbers(updates) == [("one", 4, 32)]


def test_individuals_and_outer_steps_of_one_stage_are_updates_of_one_run(tmp_path: Path) -> None:
    """A member's number tells the copies of an outer step apart; in a population it depends on the company."""
    log = tmp_path / "groups" / "g" / "events.jsonl"
    bred = [event("bred", 1, generation=born, individual=one) for born, one in ((0, 0), (0, 1), (1, 2))]
    start = [event("start", 1, step=step, member=member) for step in (0, 1) for member in (0, 1)]
    append(log, *bred, *start, event("alone", 1, member=3), event("alone", 1, member=0))
    found = numbers(Updates(tmp_path))
    assert [key for key, _, _ in found] == ["bred"] * 3 + ["start"] * 4 + ["alone"]
    assert found[2] == ("bred", 3, 24)


def test_other_lines_of_a_log_and_stages_without_one_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    append(log, {"candidates": [[0.5, 0.5]]}, {"update": 1, "objective": [0.1]}, end="[1]\n\xff\n")
    finished(tmp_path, "s", "one")
    (tmp_path / "stages" / "s" / "events.jsonl").unlink()
    finished(tmp_path, "torn", "two", event("two", 1))
    (tmp_path / "stages" / "torn" / "stage.json").write_text("{")
    assert Updates(tmp_path).look() == []


def test_an_event_of_somebody_elses_shape_is_no_update(tmp_path: Path) -> None:
    log = tmp_path / "groups" / "g" / "events.jsonl"
    wrong = [
        {"completions": None},
        {"update": "2"},
        {"trajectory": ["one"]},
        {"generation": [1]},
        {"reward_means": 0.5},
    ]
    append(log, event("one", 1), *(event("one", 2) | each for each in wrong))
    assert numbers(Updates(tmp_path)) == [("one", 1, 8)]
