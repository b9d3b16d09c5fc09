"""What is said of a change; whole studies are in `test_author.py`."""

from __future__ import annotations

from paretune.benchmark.changes import changes

MADE = {
    "code": {"idea.py": "a", "words.py": "a"},
    "objectives": {"warm": "a"},
    "task": {"beta": "a", "train": "a"},
    "source": "idea:Mine",
    "version": None,
    "settings": {"rank": 4, "gate": {"level": "block"}},
}


def test_every_part_that_differs_is_named() -> None:
    assert changes(MADE, MADE) == []
    now = {
        **MADE,
        "code": {"idea.py": "b", "more.py": "a"},
        "objectives": {"warm": "b"},
        "task": {"beta": "a", "train": "b"},
        "settings": {"rank": 8, "gate": {"level": "block"}},
    }
    assert changes(MADE, now) == [
        "idea.py changed", "more.py changed", "words.py changed", "objective 'warm' changed",
        "training prompts changed", "setting rank changed",
    ]  # fmt: skip
    assert changes(MADE, {**MADE, "source": "idea:Other"}) == ["method is now idea:Other"]
    assert changes({**MADE, "version": 1}, {**MADE, "version": 2}) == ["version of idea:Mine changed"]


def test_nothing_is_said_of_settings_that_a_sweep_is_still_to_choose_nor_of_the_code_they_may_name() -> None:
    now = {**MADE, "code": {"idea.py": "a"}, "settings": {"rank": 8, "gate": {"level": "row"}}}
    assert changes(MADE, now, ["rank", "gate.level"]) == []
    assert changes(MADE, now, ["rank"]) == ["setting gate changed"]
    assert changes(MADE, {**now, "code": {"idea.py": "b"}}, ["rank", "gate.level"]) == ["idea.py changed"]
