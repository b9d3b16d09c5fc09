"""What was checked before on this machine and need not be checked again: an empty file named by a digest."""

from __future__ import annotations

import contextlib
from functools import cache
from importlib.metadata import version

from paretune.core.cache import cache_folder

CHECKS_VERSION = 2  # raise it when a check that has passed means more than before


def was_checked(group: str, name: str) -> bool:
    """Whether something passed a check before.

    Args:
        group: Which check.
        name: Digest of all that its outcome depends on, `versions` among it.
    """
    return (cache_folder(group) / name).is_file()


def note_checked(group: str, name: str) -> None:
    """Note that something passed; where the cache cannot be written, it is checked again."""
    with contextlib.suppress(OSError):
        cache_folder(group).mkdir(parents=True, exist_ok=True)
        (cache_folder(group) / name).touch()


@cache
def versions() -> str:
    """Return the versions of what runs models."""
    return f"{version('torch')} {version('transformers')} {CHECKS_VERSION}"
