"""The rows that stand in every study without being named: what every method must be better than."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paretune.core.errors import ConfigError
from paretune.tasks.strict_yaml import Place

STANDING = ("base", "one_policy")  # labels, and names of their methods


def with_standing_rows(methods: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return what a study names under `methods`, and behind it the standing rows that it does not name.

    Raises:
        ConfigError: If the label of a standing row names another method.
    """
    for label in STANDING:
        given = methods.get(label)
        named = given.get("method", label) if isinstance(given, Mapping) else label
        if named != label:
            raise ConfigError(
                f"{place.at('methods', label)} must be the row '{label}' that stands in every study, got method "
                f"{named!r}. Give that method another label."
            )
    return {**methods, **{label: None for label in STANDING if label not in methods}}
