"""How fast this machine is at what a study does: measured for a few seconds, kept in the cache.

As many worker processes measure each probe side by side as a study has, up to four, since workers slow each other down.
"""

from __future__ import annotations

import logging
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from paretune.core.cache import cache_folder
from paretune.core.digests import digest, model_digest
from paretune.core.errors import ParetuneError, RecordError, StopRequested
from paretune.core.scores import Score
from paretune.core.task import Task
from paretune.core.version import VERSION
from paretune.executors import LAST, Executor, Job
from paretune.executors.cores import cores, worker_threads
from paretune.executors.jobs import Link
from paretune.executors.processes import LocalProcesses
from paretune.records.files import read_json, write_json
from paretune.training.groups import PlannedStage, begin_group
from paretune.training.stages import job_task, release_models, run_group, task_payload, use_threads

if TYPE_CHECKING:
    from paretune.models.policy import Policy

UPDATES = 4  # of each kind of training
ENOUGH_SECONDS = 1.0  # of one probe
PROBE_SECONDS = 8.0  # of work, after which none is begun; in four times that all must have ended
IMPORT_SECONDS = 60.0  # for torch, on a busy machine
SIDE_BY_SIDE = 4
MOST_LOAD = 10.0  # times longer than on an idle machine
STOP_SECONDS = 1.0  # for a probe that takes too long
IMPORT, PROBE = "paretune.benchmark.speed:import_torch", "paretune.benchmark.speed:measure_probe"
ROWS_AT_ONCE = 256  # evaluated in a probe at most

_log = logging.getLogger(__name__)


class Range(NamedTuple):
    """Seconds a unit, between two values."""

    low: float
    high: float


@dataclass(frozen=True)
class Probe:
    """Something whose speed is to be known.

    Attributes:
        kind: `train`: seconds a completion, or a listed one; `sample`: a completion evaluated; `list`: a policy whose
            completions are all scored.
        key: Digest of what its cost depends on, the machine apart.
        task: Task instance.
        seed: Seed of the instance.
        stages: For `train`: a population for a few updates.
        samples: Evaluated for each test prompt.
        prompts: Test prompts that are evaluated; None is all.
    """

    kind: Literal["train", "sample", "list"]
    key: str
    task: Task
    seed: int
    stages: tuple[PlannedStage, ...] = ()
    samples: int = 1
    prompts: int | None = None


def known_speeds(probes: Iterable[Probe]) -> dict[str, Range]:
    """Return what the cache has, by the keys of the probes; a damaged file counts as none."""
    found = {}
    for probe in probes:
        with suppress(ParetuneError, OSError, ValueError, KeyError, TypeError):
            low, high = (float(read_json(_path(probe))[name]) for name in ("low", "high"))
            if 0 < low <= high < math.inf:
                found[probe.key] = Range(low, high)
    return found


def measure_speeds(probes: Sequence[Probe], workers: int) -> dict[str, Range]:
    """Measure speeds and keep them; what fails, or is not measured in time, is left out.

    Args:
        probes: The most important first.
        workers: Worker processes of the study.
    """
    distinct = {probe.key: probe for probe in probes}.values()
    _log.info("measuring for some seconds how fast this machine is; what is found is kept in %s", cache_folder("speed"))
    found: dict[str, Range] = {}
    with suppress(OSError, RecordError), tempfile.TemporaryDirectory(prefix="paretune-speed-") as scratch:
        executor = LocalProcesses(Path(scratch), worker_threads(workers), STOP_SECONDS)
        folders = [Path(scratch) / str(number) for number in range(min(workers, SIDE_BY_SIDE))]
        try:
            _side_by_side(executor, IMPORT, [{} for _ in folders], IMPORT_SECONDS)
            deadline, spent = time.monotonic() + 4 * PROBE_SECONDS, 0.0
            for probe in distinct:
                left = deadline - time.monotonic()
                if left <= 0 or spent > PROBE_SECONDS:
                    break
                rows = _side_by_side(executor, PROBE, [_job(probe, folder) for folder in folders], left)
                spent += max((row["spent"] for row in rows), default=0.0)
                if rows and min(row["low"] for row in rows) > 0:
                    found[probe.key] = Range(min(row["low"] for row in rows), max(row["high"] for row in rows))
                    with suppress(OSError, ParetuneError):  # a cache that cannot be written is done without
                        write_json(_path(probe), found[probe.key]._asdict())
        finally:
            executor.stop()
            executor.events(0)  # ends the workers, which have no job now
    return found


def _side_by_side(
    executor: Executor, run: str, payloads: Sequence[Mapping[str, Any]], seconds: float
) -> list[Mapping[str, Any]]:
    """Run a job with each payload; return what those answer that end well in time. None is left when this returns."""
    left, answers, failures = set[str](), list[Mapping[str, Any]](), set[str]()
    deadline = time.monotonic() + seconds

    def hear() -> None:
        for event in executor.events(min(1.0, max(0.0, deadline - time.monotonic()))):
            left.difference_update([event.job] if event.kind in LAST else [])
            answers.extend([event.data["result"]] if event.kind == "done" else [])
            if event.kind == "failed" and event.data["message"] not in failures:
                failures.add(event.data["message"])
                _log.warning("note: measuring it failed, as a run would: %s", event.data["message"])

    try:
        for number, payload in enumerate(payloads):
            executor.submit(Job(f"{run} {number}", run, payload))
            left.add(f"{run} {number}")
        while left and time.monotonic() < deadline:
            hear()
    finally:
        if left:
            executor.stop()
        while left:
            hear()
    return answers


def _path(probe: Probe) -> Path:
    machine = [platform.node(), platform.machine(), cores(), version("torch"), VERSION, Path("/dev/nvidia0").exists()]
    model = None if probe.task.family_settings else model_digest(probe.task.model)  # instances differ in numbers alone
    return cache_folder("speed") / f"{digest([machine, model, probe.key])}.json"


def _job(probe: Probe, folder: Path) -> dict[str, object]:
    group = begin_group(folder, probe.stages).folder if probe.stages else folder
    return {
        "kind": probe.kind,
        "key": probe.key,
        "folder": str(folder),
        "group": str(group),
        "units": sum(each.stage.completions or each.stage.enumerated for each in probe.stages),
        "samples": probe.samples,
        "prompts": probe.prompts,
        **task_payload(probe.task, probe.seed),
    }


def import_torch(payload: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Import torch, which is no part of what is measured: the first job of a worker."""
    import_module("torch")
    return {}


def measure_probe(payload: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Measure one probe: a job of a worker; whatever a user's code raises, a run says so, where it matters."""
    use_threads(link.threads)
    began = Clock.now()
    try:
        found = MEASURES[payload["kind"]](payload, link.threads)
    finally:
        release_models()
    return {**found._asdict(), "spent": Clock.now().since(began, link.threads).low}


class Clock(NamedTuple):
    """A moment, in seconds of this process's work and of the wall."""

    work: float
    wall: float

    @staticmethod
    def now() -> Clock:
        """Return this moment."""
        return Clock(time.process_time(), time.perf_counter())

    def since(self, before: Clock, threads: int, units: float = 1.0) -> Range:
        """Return seconds a unit: at least as on an idle machine, at most as on this one now."""
        high = self.wall - before.wall
        low = max((self.work - before.work) / threads, high / MOST_LOAD)  # waiting for a judge is no work
        return Range(min(low, high) / units, high / units)


def _train(job: Mapping[str, Any], threads: int) -> Range:
    """Train a population for some updates; return seconds a completion from the end of the first one on."""
    calls = [Clock.now()]
    folder, group = Path(job["folder"]), Path(job["group"])
    members = len(read_json(group / "group.json")["keys"])

    def stopped() -> bool:  # asked after each update of each member
        calls.append(Clock.now())
        return len(calls) > 2 * members and calls[-1].work - calls[members].work > ENOUGH_SECONDS

    ended = True
    try:
        run_group(folder, group, job_task(job), Link(lambda message: None, stopped, threads))
    except StopRequested:
        ended = False
    made = len(calls) - 1
    first = members if made > members else 0  # the first update also loads the model
    each = float(job["units"]) / (made if ended else UPDATES * members)
    return calls[-1].since(calls[first], threads, (made - first) * each)


def _policy(task: Task) -> Policy:
    """Return a policy of one expert, as evaluation meets it."""
    from paretune.methods.training import one_by_one
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base

    return one_by_one(ExpertBank(load_base(task.model), 1, 8), task)


def _scorer(task: Task) -> Score:
    from paretune.objectives.scoring import Scorer

    return Scorer((*task.objectives, *task.audit))


def _sample(job: Mapping[str, Any], threads: int) -> Range:
    """Evaluate some test prompts; return seconds a completion."""
    from paretune.rl.evaluation import evaluate

    task, samples = job_task(job), int(job["samples"])
    rows, policy, score = task.splits["test"][: job["prompts"]], _policy(task), _scorer(task)
    names = [objective.name for objective in (*task.objectives, *task.audit)]
    known = len(task.objectives)

    def seconds(count: int) -> Range:
        began, some = Clock.now(), rows[:count]
        evaluate(policy, some, score, names[:known], names[known:], samples, int(job["seed"]))
        return Clock.now().since(began, threads, len(some) * samples)

    seconds(1)  # a judge is loaded when it is first asked
    few = seconds(4)
    return seconds(max(1, ROWS_AT_ONCE // samples)) if few.low * 4 * samples < ENOUGH_SECONDS else few


def _list(job: Mapping[str, Any], threads: int) -> Range:
    """Score all completions of a policy; return seconds a policy."""
    from paretune.rl.outcomes import enumeration_of, outcomes, tables

    task = job_task(job)
    rows = task.splits["test"][: job["prompts"]]
    known, policy = tables(task, rows, _scorer(task)), _policy(task)
    began = Clock.now()
    outcomes(policy, rows, enumeration_of(task), *known, (1.0,))
    return Clock.now().since(began, threads)


MEASURES: dict[str, Callable[[Mapping[str, Any], int], Range]] = {
    "train": _train, "sample": _sample, "list": _list,
}  # fmt: skip
