"""Griffe's view of our docstrings: a section `Example` is what its Google parser knows as `Examples`."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class DocstringSections(Extension):
    """Names sections as griffe does, so that examples are read as code and not as quotations."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the sections of one object."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub("Examples:", obj.docstring.value)
