"""Where things are kept that can be made again: drawn instances, measured speeds."""

from __future__ import annotations

import os
from pathlib import Path

from paretune.core.checks import user_path

CACHE_VARIABLE = "PARETUNE_CACHE"


def cache_folder(name: str) -> Path:
    """Return a folder of the cache: of `$PARETUNE_CACHE`, else `paretune` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        ConfigError: If a variable names the home of nobody.
    """
    own, everybodys = (os.environ.get(variable) for variable in (CACHE_VARIABLE, "XDG_CACHE_HOME"))
    return user_path(Path(own) if own else Path(everybodys or "~/.cache") / "paretune") / name
