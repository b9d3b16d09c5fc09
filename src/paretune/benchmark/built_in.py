"""The studies that ship with the package."""

from __future__ import annotations

from pathlib import Path

STUDIES_FOLDER = Path(__file__).resolve().parent / "studies"


def built_in_studies() -> dict[str, Path]:
    """Return the built-in studies, name -> file."""
    return {path.stem: path for path in sorted(STUDIES_FOLDER.glob("*.yaml"))}
