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


def test_a_longer_run_makes_the_last_update_of_a_shorter_one_anew_and_whole(tmp_path: Path) -> None:
    finished(tmp_path, "short", "one", event("one", 1), event("one", 2, completions=4))
    append(tmp_path / "groups" / "g" / "events.jsonl", event("one", 2), event("one", 3))
    updates = Updates(tmp_path)
    told = {number: completions for _, number, completions in numbers(updates)}
    assert told[3] == 24  # 8 a whole update, the 4 are among them
    assert sorted(told) == [1, 2, 3]


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
