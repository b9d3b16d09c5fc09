"""The version of this library, in a module of its own: what shows it need not import the whole package."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"  # the same as in pyproject.toml and CITATION.cff
