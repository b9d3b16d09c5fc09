from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

import builders
from paretune.methods import METHODS, resolve_method
from paretune.report.palette import BROWN, GREY, HUES, OTHERS, OWN_HUES, Look, looks_of
from paretune.report.view import View

GROUNDS = ("#ffffff", "#1c1f25")  # of charts, light and dark
FAMILY = {name: resolve_method(name).family for name in METHODS}


def built_in(*names: str) -> dict[str, Look]:
    return looks_of({name: (FAMILY[name], name) for name in names})


def luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return sum(share * each for share, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_built_in_method_has_a_place_and_looks_like_no_other() -> None:
    assert sorted([*OWN_HUES, *OTHERS]) == sorted(METHODS)
    looks = built_in(*METHODS)
    assert len({(each.colour, each.marker) for each in looks.values()}) == len(METHODS)


def test_main_methods_differ_by_hue_or_else_by_both_marker_and_dash() -> None:
    looks = built_in(*OWN_HUES)
    for one, other in combinations(set(looks) - {"base"}, 2):
        a, b = looks[one], looks[other]
        assert a.colour != b.colour or (a.marker != b.marker and a.dash != b.dash), (one, other)


def test_a_method_looks_alike_whatever_stands_beside_it() -> None:
    every = built_in(*METHODS)
    for name in METHODS:
        assert built_in(name) == {name: every[name]}
    assert looks_of({"mine": ("meta-policy", "idea:Mine"), "mod": ("meta-policy", "mod")})["mod"] == every["mod"]


def test_a_users_own_method_takes_the_first_look_that_is_free() -> None:
    own = {f"own {n}": ("meta-policy", f"idea:Own{n}") for n in range(9)}
    looks = looks_of({**own, "rewarded_soups": ("meta-policy", "rewarded_soups")})
    assert looks["own 0"] == Look(HUES[0], "diamond")
    assert looks["rewarded_soups"].colour == HUES[2]  # green, which is no longer free
    assert [looks[f"own {n}"].colour for n in range(6)] == [hue for hue in HUES if hue != HUES[2]]
    assert looks["own 6"] == Look(HUES[0], "triangle-down")
    assert len(set(looks.values())) == 10


@pytest.mark.parametrize(("label", "name"), [("linear (b)", "linear (b)"), ("long", "linear")])
def test_another_row_of_a_method_has_its_colour_and_another_marker(label: str, name: str) -> None:
    for order in (("linear", label), (label, "linear")):
        rows = {"linear": ("single-policy", "linear"), label: ("single-policy", name)}
        looks = looks_of({each: rows[each] for each in order})
        assert looks["linear"] == Look(HUES[0], "circle", "dot")
        assert looks[label] == Look(HUES[0], "triangle-down", "dot")


def test_the_study_says_which_method_a_label_is_of() -> None:
    study = builders.synthetic_study(seeds=(0,))
    named = replace(study, resolved={"methods": {"linear": {"method": "mgda"}, "weight_grid": None}})
    looks = View(named, []).looks
    assert looks["linear"].colour == built_in("mgda")["mgda"].colour
    assert looks["weight_grid"] == built_in("weight_grid")["weight_grid"]


@pytest.mark.parametrize("colour", [*HUES, GREY, BROWN])
def test_colours_are_seen_on_both_grounds(colour: str) -> None:
    for ground in GROUNDS:
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) > 2.2  # of orange on white, the faintest; marks are large and named
