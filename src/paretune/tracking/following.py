"""Forwarding logs to trackers while they grow: training writes its log and knows nothing of who reads it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from paretune.core.errors import RecordError
from paretune.core.user_calls import described
from paretune.records.files import SCHEMA_VERSION, read_signed, write_signed
from paretune.tracking import TrackedRun, Tracker, load_tracker
from paretune.tracking.names import metrics_of
from paretune.tracking.updates import Update, Updates

FILE = "tracking.json"  # up to which update each tracker was told of each run
LOOK_SECONDS = 2.0  # between two looks at the logs
FINISH_SECONDS = 60.0  # that the end of a call waits for trackers; nobody's training waits for one

_log = logging.getLogger(__name__)


class Follower:
    """Forwards the updates of a folder's logs to trackers, each at most once, in this call and all that follow.

    What was forwarded is noted before it is sent: a kill in between costs an update, not a second point at its step. A
    tracker that fails is left alone from then on; what it was not told of waits for the next call.
    """

    def __init__(self, root: Path, trackers: Sequence[str]) -> None:
        """Take up what earlier calls have left.

        Args:
            root: Folder with stages, in which it is noted what was forwarded.
            trackers: Their names.
        """
        self._file, self._updates = root / FILE, Updates(root)
        self._runs: dict[str, TrackedRun] = {}
        self._waiting: list[Update] = []  # of runs that nobody has described yet
        marks = self._marks()
        self._sinks = [_Sink(name, marks.get(name, {})) for name in trackers]

    def describe(self, runs: Mapping[str, TrackedRun]) -> None:
        """Say what runs are, by key; only those are forwarded."""
        self._runs = {**self._runs, **runs}

    def look(self) -> int:
        """Forward what the logs have gained, and finish runs that are over; return how many updates were sent.

        Raises:
            RecordError: If the disk is full.
        """
        runs = self._runs  # the thread that describes puts another mapping in its place
        found = [*self._waiting, *self._updates.look()]
        self._waiting = [each for each in found if each.key not in runs]
        known = [each for each in found if each.key in runs]
        pending = [sink.take(known) for sink in self._sinks]
        sent, live = 0, self._updates.live
        if any(pending):
            self._note()
            sent = sum(sink.send(taken, runs, live) for sink, taken in zip(self._sinks, pending, strict=True))
            if any(sink.silent for sink in self._sinks):
                self._note()  # what could not be sent is still to be
        for sink in self._sinks:
            sink.finish(sink.open.keys() - live)
        return sent

    def close(self) -> None:
        """Finish all runs."""
        for sink in self._sinks:
            sink.finish(set(sink.open))

    def _marks(self) -> dict[str, dict[str, int]]:
        if not self._file.exists():
            return {}
        try:
            marks: dict[str, dict[str, int]] = read_signed(self._file)["told"]
        except RecordError:
            _log.warning("damaged: %s. Trackers are told of all updates again.", self._file)
            return {}
        return marks

    def _note(self) -> None:
        told = {**self._marks(), **{sink.name: sink.marks for sink in self._sinks}}
        write_signed(self._file, {"schema_version": SCHEMA_VERSION, "told": told})


class _Sink:
    """One tracker: its open runs, and up to which update it was told of each run."""

    def __init__(self, name: str, marks: Mapping[str, int]) -> None:
        self.name, self.marks = name, dict(marks)
        self.open: dict[str, Tracker] = {}
        self.silent = False
        self._class = load_tracker(name)

    def take(self, updates: Sequence[Update]) -> list[Update]:
        """Return those it was not told of, which count as told from now on."""
        if self.silent:
            return []
        taken = [each for each in updates if each.number > self.marks.get(each.key, 0)]
        self.marks.update({each.key: each.number for each in taken})
        return taken

    def send(self, updates: Sequence[Update], runs: Mapping[str, TrackedRun], live: Collection[str]) -> int:
        """Send updates run by run until one fails, and return how many; those behind count as not told again.

        A run that is over is finished before the next one: a study may have hundreds.
        """
        by_run: dict[str, list[Update]] = {}
        for update in updates:
            by_run.setdefault(update.key, []).append(update)
        sent = 0
        for key, own in by_run.items():
            sent += self._send_run(runs[key], own)
            if key not in live:
                self.finish({key} & self.open.keys())
        return sent

    def _send_run(self, run: TrackedRun, updates: Sequence[Update]) -> int:
        for place, update in enumerate(updates):
            if not self.silent:
                try:
                    if run.key not in self.open:
                        self.open[run.key] = tracker = self._class()
                        tracker.start(run)
                    self.open[run.key].log(update.number, metrics_of(update, run))
                    continue
                except (Exception, SystemExit) as error:  # noqa: BLE001  # somebody else's code, which no result needs
                    self._fall_silent(error)
            self.marks[run.key] = update.number - 1
            return place
        return len(updates)

    def finish(self, keys: set[str]) -> None:
        """Finish runs."""
        for key in sorted(keys):
            tracker = self.open.pop(key)
            try:
                tracker.finish()
            except (Exception, SystemExit) as error:  # noqa: BLE001  # as above
                self._fall_silent(error)

    def _fall_silent(self, error: BaseException) -> None:
        if not self.silent:
            _log.warning(
                "tracker %s: %s. It is told nothing more in this call; training goes on, and its log has all.",
                self.name, described(error),
            )  # fmt: skip
        self.silent = True


@contextmanager
def following(root: Path, trackers: Sequence[str]) -> Iterator[Follower]:
    """Forward a folder's logs while a block trains there, from a thread of its own: a tracker may take its time.

    Args:
        root: Folder with stages.
        trackers: Names of those to tell; without any, nothing is done.
    """
    follower = Follower(root, trackers)
    if not trackers:
        yield follower
        return
    over = threading.Event()

    def follow() -> None:
        try:
            with suppress(RecordError):  # a full disk stops training, which says so
                while not over.wait(LOOK_SECONDS):
                    follower.look()
                follower.look()
        finally:
            follower.close()

    thread = threading.Thread(target=follow, name="trackers", daemon=True)
    thread.start()
    try:
        yield follower
    finally:
        over.set()
        thread.join(FINISH_SECONDS)
        if thread.is_alive():
            _log.warning(
                "trackers: not finished after %.0f seconds, and left alone. The next call tells them what is missing.",
                FINISH_SECONDS,
            )
