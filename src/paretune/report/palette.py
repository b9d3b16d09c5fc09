"""How methods look: a built-in one alike in every report, whatever stands beside it.

Hue and marker name a method, dash and marker its family: methods that share a hue differ in both others.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.protocols import CEILING, REFERENCE

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
VIOLET = "#963CFF"
"""Okabe and Ito 2008, safe for colour-blind readers. Their yellow vanishes on white; this violet is as far from the
others for readers of all three kinds of colour blindness, and all seven are seen on white and on the dark page."""
HUES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, VIOLET)
GREY = "#808080"
BROWN = "#8C6D00"
"""Of what is no method but a ceiling; it takes no method's hue."""
OF_FAMILY = {
    "single-policy": ("circle", "dot"),
    "multi-policy": ("square", "dash"),
    "meta-policy": ("diamond", "solid"),
    CEILING: ("triangle-up", "longdash"),
    REFERENCE: ("star", "solid"),
}
MORE_MARKERS = ("triangle-down", "cross", "pentagon", "hourglass")  # when a family's marker is taken in every hue
OWN_HUES = {
    "linear": BLUE, "dynaopt": VIOLET, "mgda": PINK, "one_policy": GREY, "weight_grid": ORANGE, "linear_support": SKY,
    "rewarded_soups": GREEN, "mod": PINK, "hidden_mixing": ORANGE, "emorl": VIOLET, "preference_conditioned": SKY,
    "mixture_of_experts": VERMILION, "exact_gradient": BROWN, "base": GREY,
}  # fmt: skip
"""The main methods, which studies compare most often, with their family's own marker."""
OTHERS = (
    "schedule", "chebyshev", "thresholds", "reward_combination", "lagrangian", "contextual_dynaopt", "dorb",
    "q_weighting", "pcgrad", "cagrad", "upgrad", "prediction_guided", "evolution", "bone_soups", "iterative_soups",
    "merged_soups", "probability_mixture", "searched_soups", "panacea", "preference_in_prompt", "reptile", "bilevel",
    "tree", "gated_experts", "contextual_bandit",
)  # fmt: skip
"""The other built-in methods. Their order is their look, so a new one goes last."""
WITHIN_LABEL = re.compile(r" \(.*\)$")  # of `linear (b)`, which another study's `linear` is called in a comparison


@dataclass(frozen=True)
class Look:
    """How a method looks in every chart."""

    colour: str
    marker: str
    dash: str = "solid"


BASE_LOOK = Look(GREY, *OF_FAMILY[REFERENCE])


def looks_of(methods: Mapping[str, tuple[str, str]]) -> dict[str, Look]:
    """Return how each method of a report looks.

    Args:
        methods: Label -> its family, and the name of its method, which is the label where that says all.

    Example:
        >>> looks_of({"mine": ("meta-policy", "idea:Mine"), "linear": ("single-policy", "linear")})["linear"]
        Look(colour='#0072B2', marker='circle', dash='dot')
    """
    found: dict[str, Look] = {}
    named = {label: WITHIN_LABEL.sub("", name) for label, (_, name) in methods.items()}
    for label in sorted(methods, key=lambda label: (named[label] not in _FIXED, label != named[label])):
        family, name = methods[label][0], named[label]
        marker, dash = OF_FAMILY.get(family, OF_FAMILY["single-policy"])
        first = _FIXED.get(name)
        hues = HUES if first is None else (first[0],)
        markers = (marker, *MORE_MARKERS) if first is None else (first[1] or marker, *MORE_MARKERS)
        taken = {(each.colour, each.marker) for each in found.values()}
        free = ((hue, each) for each in markers for hue in hues if (hue, each) not in taken)
        found[label] = Look(*next(free, (GREY, marker)), dash)
    return {label: found[label] for label in methods}


_FIXED: dict[str, tuple[str, str]] = {name: (hue, "") for name, hue in OWN_HUES.items()} | {
    name: (hue, marker) for name, (marker, hue) in zip(OTHERS, itertools.product(MORE_MARKERS, HUES), strict=False)
}
"""Name -> hue, and marker where it is not the family's own."""
