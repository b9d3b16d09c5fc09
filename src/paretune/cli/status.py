"""`paretune status`: where a study stands, told by its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from paretune.cli.printing import say, say_json

WATCH_SECONDS = 5.0  # as often as a run notes where it stands


def status(
    folder: Path,
    *,
    watch: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Say where a study stands, running or not: cells, what runs now, time left, what failed. Changes nothing.

    The exit code is 1 where something has failed or the study was stopped before its end, else 0.

    Args:
        folder: Folder of a study.
        watch: Say it again every five seconds while the study runs.
        as_json: Print JSON.

    Example:
        paretune status results/mine
        paretune status results/mine --json
    """
    from paretune.benchmark.status import status as find_status
    from paretune.benchmark.status import status_text

    while True:
        found = find_status(folder)
        say_json(found.plain()) if as_json else say(status_text(found))
        if not watch or found.state != "running":
            return 0 if found.ok else 1
        time.sleep(WATCH_SECONDS)
        say()
