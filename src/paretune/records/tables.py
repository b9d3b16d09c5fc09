"""One rule for what has been measured: a table is there if its folder is as it was sealed, and sealed for its key."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paretune.core.errors import RecordError
from paretune.core.protocols import Table
from paretune.records.files import DONE, FAILED, damaged_files, mark_done, read_json, read_marker, replace_folder

NOT_YET = "not measured yet"

TableState = Literal["finished", "stale", "damaged", "failed", "missing"]


@dataclass(frozen=True)
class Found:
    """What a folder of a study holds.

    Attributes:
        state: `finished`, `stale` (of something that has changed since), `damaged`, `failed` or `missing`.
        reason: Why it is not finished, in a few words after the folder's name; empty where it was never begun.
        values: What its marker keeps, where its files are as they were sealed.
        failure: Why it failed, one of the fixed list.
    """

    state: TableState
    reason: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None

    @property
    def why(self) -> str:
        """Why it is not finished, for people."""
        if self.state == "failed":
            return f"failed ({self.failure or 'no reason recorded'}): {self.reason}"
        return self.reason or NOT_YET


def look(study: Path, name: str, key: str | None = None) -> Found:
    """Look at a sealed folder of a study.

    Args:
        study: The study's folder.
        name: Of the folder, relative to the study's.
        key: What it must have been sealed for; None where anything will do.
    """
    folder = study / name
    if (folder / DONE).exists():
        try:
            damaged, values = damaged_files(folder), read_marker(folder)["values"]
        except RecordError:
            return Found("damaged", f"{DONE} is damaged")
        for file, trouble in damaged.items():
            return Found("damaged", f"{file} {trouble}")
        if key in (None, values.get("key")):
            return Found("finished", values=values)
        return Found("stale", "what it depends on has changed", values)
    if (folder / FAILED).exists():
        try:
            failure = read_json(folder / FAILED)
            return Found("failed", str(failure["message"]), failure=str(failure["reason"]))
        except (RecordError, KeyError, TypeError) as error:
            return Found("failed", str(error) if isinstance(error, RecordError) else f"{FAILED} is damaged")
    if folder.is_dir() and any(path.is_file() for path in folder.iterdir()):
        return Found("damaged", f"{DONE} is gone")
    return Found("missing")


def plain_parts(table: Table) -> dict[str, Any]:
    """Return what a table depends on as it is read back."""
    parts: dict[str, Any] = json.loads(json.dumps(table.depends_on))
    return parts


def differing(before: Mapping[str, object], now: Mapping[str, object], but: Collection[str] = ()) -> list[str]:
    """List the keys that only one of two mappings has, or that have another value; leave some out."""
    keys = {*before, *now} - {*but}
    return sorted(key for key in keys if key not in before or key not in now or before[key] != now[key])


def changed_rewards(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str] | None:
    """Name the objectives whose rewards are all that has changed in what a table depends on; None if more has."""
    if differing(before, now, but=("rewards",)):
        return None
    if before.get("rewards") == now.get("rewards"):
        return []
    return differing(dict(before["rewards"]), dict(now["rewards"])) or [name for name, _ in now["rewards"]]  # the order


def scored_before(found: Found, table: Table) -> bool:
    """Whether all that is wrong with a table is that rewards of the same names were changed since."""
    before, now = found.values.get("depends_on", {}), plain_parts(table)
    if found.state != "stale" or not changed_rewards(before, now):
        return False
    return [name for name, _ in before["rewards"]] == [name for name, _ in now["rewards"]]


def seal_table(fresh: Path, target: Path, table: Table, more: Mapping[str, object] | None = None) -> None:
    """Seal a folder that `fresh_folder` made and put it in the place of the table it is to be."""
    mark_done(fresh, {"key": table.key, "depends_on": table.depends_on, **(more or {})})
    replace_folder(fresh, target)
