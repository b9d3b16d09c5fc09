"""How fast this machine is at what a study does: measured for a few seconds, kept in the cache.

`python -m paretune.benchmark.speed FOLDER` measures the probes of `FOLDER/probes.json` one after another and appends
what it finds to `FOLDER/found.jsonl`. As many run side by side as a study has workers, up to four, since workers slow
each other down.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import signal
import subprocess
import sys
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
from paretune.core.errors import ParetuneError
from paretune.core.scores import Score
from paretune.core.task import Task
from paretune.core.version import VERSION
from paretune.executors.cores import cores, worker_threads
from paretune.executors.jobs import Link
from paretune.records.files import append_jsonl, read_json, read_jsonl, write_json
from paretune.training.groups import PlannedStage, begin_group
from paretune.training.stages import job_task, release_models, run_group, use_threads

if TYPE_CHECKING:
    from paretune.models.policy import Policy

UPDATES = 4  # of each kind of training
ENOUGH_SECONDS = 1.0  # of one probe
PROBE_SECONDS = 8.0  # of work, after which none is begun; in four times that all must have ended
IMPORT_SECONDS = 60.0  # for torch, on a busy machine
SIDE_BY_SIDE = 4
MOST_LOAD = 10.0  # times longer than on an idle machine
READY = "ready"  # file that says torch is imported
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
    distinct = list({probe.key: probe for probe in probes}.values())
    _log.info("measuring for some seconds how fast this machine is, once: it is kept in %s", cache_folder("speed"))
    with tempfile.TemporaryDirectory(prefix="paretune-speed-") as scratch:
        folders = [Path(scratch) / str(number) for number in range(min(workers, SIDE_BY_SIDE))]
        for folder in folders:
            write_json(folder / "probes.json", [_job(probe, folder) for probe in distinct])
        _run(folders, worker_threads(workers))
        rows = [row for folder in folders for row in _found(folder / "found.jsonl")]
    found: dict[str, Range] = {}
    for probe in distinct:
        own = [row for row in rows if row["key"] == probe.key and row["low"] > 0]
        if own:
            found[probe.key] = Range(min(row["low"] for row in own), max(row["high"] for row in own))
            with suppress(OSError, ParetuneError):  # a cache that cannot be written is done without
                write_json(_path(probe), found[probe.key]._asdict())
    return found


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
        "imports": [os.path.abspath(entry) for entry in sys.path],
        "task": probe.task.source,
        "seed": probe.seed,
        "task_key": digest(probe.task.training_key()),
        "samples": probe.samples,
        "prompts": probe.prompts,
    }


def _run(folders: Sequence[Path], threads: int) -> None:
    """Run a process in each folder until all are done or it takes too long; none is left over."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "paretune.benchmark.speed", str(folder), str(threads)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        for folder in folders
    ]
    ready, deadline = False, time.monotonic() + IMPORT_SECONDS
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if not ready and all((folder / READY).exists() for folder in folders):
                ready, deadline = True, time.monotonic() + 4 * PROBE_SECONDS
            time.sleep(0.05)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a reward may have started, too
            process.wait()


def _found(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path)[0] if path.exists() else []


def main(folder: Path, threads: int) -> None:
    """Measure the probes of a folder until time is up."""
    import_module("torch")  # whose import is no part of what is measured
    use_threads(threads)
    (folder / READY).touch()
    began = Clock.now()
    for job in read_json(folder / "probes.json"):
        sys.path[:] = dict.fromkeys([*sys.path, *job["imports"]])
        if Clock.now().since(began, threads).low > PROBE_SECONDS:
            return
        with suppress(Exception):  # whatever a user's code raises: a run says so, where it matters
            append_jsonl(folder / "found.jsonl", {"key": job["key"], **MEASURES[job["kind"]](job, threads)._asdict()})
        release_models()


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
    except KeyboardInterrupt:
        ended = False
    made = len(calls) - 1
    first = members if made > members else 0  # the first update also loads the model
    each = float(job["units"]) / (made if ended else UPDATES * members)
    return calls[-1].since(calls[first], threads, (made - first) * each)


def _policy(task: Task) -> Policy:
    """Return a policy of one expert, as evaluation meets it."""
    from paretune.methods.training import one_by_one
    from paretune.models.bank import ExpertBank
    from paretune.models.base import load_base

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

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
