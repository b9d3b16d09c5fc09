"""What the source says beside a setting is what `paretune ls methods NAME` says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paretune.cli.settings_text import comments, own_settings, shared_settings
from paretune.methods import METHODS, resolve_method
from paretune.methods.experts import ExpertSettings


@dataclass(frozen=True)
class Above:
    """One that others inherit."""

    pulls: int = 4  # a round; published: 10


@dataclass(frozen=True)
class Mine(ExpertSettings, Above):
    """A comment # in here is none."""

    # two lines above it
    # tell what it is
    share: float = field(default=0.5, metadata={"a": "# no comment"})  # and one at its end
    # not the next field's: a line lies between

    way: Literal["quick", "slow"] = "quick"
    said: str = ""
    between: str = ", "
    given: dict[str, float] = field(default_factory=dict)  # by objective # or by nothing
    epochs: int = 1  # not those of others

    def __post_init__(self) -> None:
        self.share  # no field's


def test_comments_are_found_at_the_end_of_a_field_and_right_above_it() -> None:
    assert comments(Mine) == {
        "share": "two lines above it tell what it is and one at its end", "way": "", "said": "", "between": "",
        "given": "by objective # or by nothing", "epochs": "not those of others",
    }  # fmt: skip
    assert comments(Above) == {"pulls": "a round; published: 10"}
    assert comments(type("Made", (), {})) == {}  # no source


def test_own_settings_have_defaults_as_a_study_writes_them_and_the_words_of_a_choice() -> None:
    found = {each["name"]: (each["default"], each["comment"]) for each in own_settings(Mine)}
    assert found == {
        "pulls": ("4", "a round; published: 10"),
        "share": ("0.5", "two lines above it tell what it is and one at its end"),
        "way": ("quick", "or slow"),
        "said": ('""', ""),
        "between": ('", "', ""),
        "given": ("{}", "by objective # or by nothing"),
        "epochs": ("1", "not those of others"),
    }
    shared = shared_settings(Mine)
    assert {"learning_rate", "rank"} <= set(shared)
    assert not {*found} & {*shared}


def test_every_setting_of_a_method_of_the_library_is_described() -> None:
    for name in METHODS:
        for each in own_settings(resolve_method(name).Settings):
            assert each["comment"], f"{name}: write beside {each['name']} what it is"
