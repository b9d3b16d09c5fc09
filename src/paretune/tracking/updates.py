"""The updates that logs of stages tell of, each once, however often a kill had it made and wherever it was copied."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretune.core.errors import RecordError
from paretune.records.files import DONE, read_json

EVENTS = "events.jsonl"
MADE = ("completions", "measured", "greedy")  # all that an update has sampled
OUTER = ("generation", "individual", "step")  # of an update, where a run trains many policies for a while each

Identity = tuple[object, ...]


@dataclass(frozen=True)
class Update:
    """An update of a run.

    Attributes:
        key: Trajectory of the stage that it is part of.
        number: In the order of the run, from 1.
        completions: That the run has made so far, those of this update included.
        event: What its log says of it.
    """

    key: str
    number: int
    completions: int
    event: Mapping[str, Any]


class Updates:
    """Reads what the logs of a folder have gained since the last look.

    A population under way has one log; a finished stage keeps a copy of it. What a resumed run makes again is the same
    update, and so is what a longer run makes again of the end of a shorter one.
    """

    def __init__(self, root: Path) -> None:
        """Read from the beginning.

        Args:
            root: Folder of a study, or another that has stages.
        """
        self._root = root
        self._read: dict[Path, int] = {}  # bytes of each population's log
        self._told: dict[Path, set[str]] = {}  # keys of the runs that each tells of
        self._whole: set[Path] = set()  # finished stages
        self._made: dict[str, dict[Identity, int]] = {}
        self._total: dict[str, int] = {}

    @property
    def live(self) -> set[str]:
        """Keys of the runs that a population under way tells of."""
        return set().union(*self._told.values())

    def look(self) -> list[Update]:
        """Return what is new, each run's in its order: a run that goes on from a shorter one logs only what it adds."""
        logs = sorted(self._root.glob(f"groups/*/{EVENTS}"))
        under_way = [(log, [*_events(self._gained(log))]) for log in logs]
        self._told = {log: self._told.get(log, set()) | {each["trajectory"] for each in own} for log, own in under_way}
        found = [self._update(event) for event in (*self._finished(), *itertools.chain(*(own for _, own in under_way)))]
        return [each for each in found if each is not None]

    def _finished(self) -> list[dict[str, Any]]:
        """Return what stages tell that have finished since the last look, shorter ones before those that extend them.

        To be asked when the logs of populations are read: a population that finishes in between would be seen nowhere.
        """
        done = sorted({path.parent for path in self._root.glob(f"stages/*/{DONE}")} - self._whole)
        self._whole.update(done)
        lengths = sorted((_own_events(stage) for stage in done), key=operator.itemgetter(0))
        return [event for _, events in lengths for event in events]

    def _gained(self, log: Path) -> bytes:
        """Return the lines that a log has gained; the end of one that is being written waits."""
        try:
            data = log.read_bytes()
        except OSError:  # its population has finished between two lines of ours
            return b""
        start = self._read.get(log, 0)
        start = start if start <= len(data) else 0  # of an attempt that began anew
        self._read[log] = data.rfind(b"\n") + 1
        return data[start : self._read[log]]

    def _update(self, event: Mapping[str, Any]) -> Update | None:
        """Return an update, or None for one that was told before."""
        key, identity = event["trajectory"], _identity(event)
        made, size = self._made.setdefault(key, {}), sum(event.get(name, 0) for name in MADE)
        before = made.get(identity)
        made[identity] = size  # a longer run makes the last update of a shorter one anew, and whole
        self._total[key] = self._total.get(key, 0) + size - (before or 0)
        return Update(key, len(made), self._total[key], event) if before is None else None


def updates_behind(stage: Path) -> list[Mapping[str, Any]]:
    """Return what the updates behind a finished stage logged, each once; empty where they left no log.

    A run that goes on from a shorter one logs only what it adds, so the shorter ones' logs are read, too.

    Args:
        stage: Its folder, beside those of the other stages.
    """
    length, own = _own_events(stage)
    logs = [(length, own)]
    if own and min(each["update"] for each in own) > 1:
        others = (path.parent for path in stage.parent.glob(f"*/{DONE}") if path.parent != stage)
        logs += [log for log in map(_own_events, others) if log[0] < length]
    run, made = own[0]["trajectory"] if own else "", {}
    for _, events in sorted(logs, key=operator.itemgetter(0)):
        made.update({_identity(each): each for each in events if each["trajectory"] == run})
    return list(made.values())


def _identity(event: Mapping[str, Any]) -> Identity:
    """Return what tells an update from the others of its run.

    Where a run trains many policies for a while each, these are individuals of generations, or members of outer steps;
    in a population that is a member's number, which depends on the company.
    """
    generation, individual, outer = (event.get(name) for name in OUTER)
    return generation, individual, outer, None if outer is None else event["member"], event["update"]


def _events(lines: bytes) -> Iterator[dict[str, Any]]:
    """Yield the updates of a learner among the lines of a log, which a user's own stage may fill as it likes."""
    for line in lines.splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if isinstance(event, dict) and _is_update(event):
            yield event


def _is_update(event: Mapping[str, Any]) -> bool:
    counts = [event.get("member"), event.get("update"), *(event.get(name, 0) for name in (*MADE, *OUTER))]
    return (
        isinstance(event.get("trajectory"), str)
        and isinstance(event.get("reward_means"), list)
        and all(isinstance(each, int) for each in counts)
    )


def _own_events(stage: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return a finished stage's length, and its updates in the copy that it keeps of its population's log."""
    try:
        record, lines = read_json(stage / "stage.json"), (stage / EVENTS).read_bytes()
    except (RecordError, OSError):  # it is finished without a log
        return 0, []
    key = record["trajectory"]
    own = b"\n".join(line for line in lines.splitlines() if key.encode() in line)
    return record["completions"], [event for event in _events(own) if event["trajectory"] == key]
