"""The data behind the page's charts, as JSON that cannot break out of its script element."""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from paretune.core.printable import printable


def embedded_json(data: object) -> Markup:
    """Serialise for a `<script type="application/json">`: no `<`, `>` or `&` survives, so no markup can begin."""
    text = json.dumps(_printable(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(letter, escape)
    return Markup(text)  # every character that could end the element is escaped above


def _printable(data: object) -> object:
    """Write out the control characters of all text, which a page would obey: a bidi mark turns round what follows."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, Mapping):
        return {printable(str(key)): _printable(value) for key, value in data.items()}
    return [_printable(each) for each in data] if isinstance(data, (list, tuple)) else data
