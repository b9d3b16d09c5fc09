"""Colours and markers: a method keeps its colour and a family its marker through the whole report."""

from __future__ import annotations

from collections.abc import Collection, Sequence

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00")
"""Okabe and Ito 2008, safe for colour-blind readers; their yellow is darkened, since it vanishes on white."""
GREYS = ("#6B6B6B", "#9A9A9A")
"""For methods beyond the seventh, in turn: nobody tells ten hues apart."""
BASE_COLOUR = "#777777"
CEILING_COLOUR = "#7F5FC7"
"""Of what is no method but a ceiling; it takes no method's hue."""
MARKERS = {
    "single-policy": "circle",
    "multi-policy": "square",
    "meta-policy": "diamond",
    "ceiling": "triangle-up",
    "reference": "star",
}
MATPLOTLIB_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "star": "*"}


def method_colours(methods: Sequence[str], ceilings: Collection[str] = ()) -> dict[str, str]:
    """Return a colour for each method, in the order of the study.

    Args:
        methods: Names; a repeated one counts once.
        ceilings: Which of them are ceilings.

    Example:
        >>> method_colours(["linear", "soups"])
        {'linear': '#0072B2', 'soups': '#D55E00'}
    """
    hues = len(OKABE_ITO)
    colours = {
        name: OKABE_ITO[index] if index < hues else GREYS[(index - hues) % len(GREYS)]
        for index, name in enumerate(name for name in dict.fromkeys(methods) if name not in ceilings)
    }
    return colours | {name: CEILING_COLOUR for name in methods if name in ceilings}


def family_marker(family: str) -> str:
    """Return the marker of a family; an unknown family gets a circle."""
    return MARKERS.get(family, "circle")
