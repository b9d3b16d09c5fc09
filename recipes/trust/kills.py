"""Kill a small study 50 times, parent, worker or both, and see that it ends as if nothing had happened.

    python recipes/trust/kills.py                   # 50 kills
    python recipes/trust/kills.py --kills 10 --seed 3
    python recipes/trust/kills.py --tiny

The study runs twice undisturbed. Then it is killed at drawn moments and started again until it is complete, in as many
folders as that takes. Each must end with equal tensors, records and charged counts; a file once sealed must never be
written again; and neither a process nor a file must be left over.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import tiny  # type: ignore[import-not-found]  # the scripts beside this one
from contents import names, results, sealed  # type: ignore[import-not-found]

SEED = 0
KILLS, TINY_KILLS = 50, 2
TARGETS = ("parent", "worker", "both")
MOMENTS = 0.1, 0.7  # of an undisturbed run's time; a study is killed several times before it completes
PATIENCE_SECONDS = 300.0  # for one run; far beyond what it takes
TOKEN = "PARETUNE_KILLS_TOKEN"  # marks the processes of this script
STUDY = tiny.STUDY.replace("256", "1024").replace("seeds: 1", "seeds: 2").replace("workers: 1", "workers: 2")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    kills = TINY_KILLS if given.tiny else given.kills
    tiny.offline()
    os.environ[TOKEN] = f"{os.getpid()}-{time.time_ns()}"
    random = Random(given.seed)
    print(f"seed {given.seed}: {kills} kills", flush=True)
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="paretune-kills-") as scratch:
        os.environ["PARETUNE_CACHE"] = f"{scratch}/cache"
        place = Path(scratch)
        tiny.write_study(place)
        (place / "study.yaml").write_text(STUDY, encoding="utf-8")
        _finish(place, place / "whole")
        began = time.monotonic()
        _finish(place, place / "timed")  # the first one has also read all modules from the disk
        seconds = time.monotonic() - began
        expected, files = results(place / "whole"), names(place / "whole")
        faults = [f"undisturbed again: {each}" for each in differences(place / "timed", expected, files)]
        round_ = 0
        while sum(done.values()) < kills and len(faults) < 20:
            round_ += 1
            folder = place / f"killed-{round_}"
            found = _killed_until_complete(place, folder, seconds, random, done, kills)
            found += [f"{folder.name}: {fault}" for fault in differences(folder, expected, files)]
            print(f"{folder.name}: {dict(done)}", *found, sep="\n  ", flush=True)
            faults += found
        left = [f"process {process} is left over" for process in processes()]
        print(*left, sep="\n", end="\n" * bool(left))
        faults += left
    each = ", ".join(f"{done[target]} of {target}" for target in TARGETS)
    print(f"undisturbed: {seconds:.0f} s, {round_} studies killed")
    print(f"{sum(done.values())} kills ({each}), {len(faults)} faults")
    return int(bool(faults))


def _killed_until_complete(
    place: Path, folder: Path, seconds: float, random: Random, done: Counter[str], kills: int
) -> list[str]:
    """Start a study again and again, killing each run but the last, and return what went wrong on the way."""
    faults: list[str] = []
    before: dict[str, tuple[int, int]] = {}
    while sum(done.values()) < kills:
        process = _start(place, folder)
        target = random.choice(TARGETS)
        moment = time.monotonic() + random.uniform(*MOMENTS) * seconds
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.01)
        if process.poll() is None and _kill(process.pid, target, random):
            done[target] += 1
        if target == "worker":
            faults += _ended(process, folder)
        else:
            process.wait()
        now = sealed(folder)
        faults += [f"{folder.name}: {name} was written again" for name in rewritten(before, now)]
        before = now
        if process.returncode == 0:
            return faults
    process = _start(place, folder)
    faults += _ended(process, folder)
    return faults + [f"{folder.name}: {name} was written again" for name in rewritten(before, sealed(folder))]


def rewritten(before: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]) -> list[str]:
    """Return the files that were sealed and are gone or changed."""
    return [name for name, stamp in before.items() if now.get(name) != stamp]


def differences(study: Path, expected: dict[str, str], files: set[str]) -> list[str]:
    """Say where a study's results and files differ from those of an undisturbed one."""
    found, present = results(study), names(study)
    differ = [
        f"{name} differs" for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)
    ]
    more = [f"{name} is left over" for name in sorted(present - files)]
    return differ + more + [f"{name} is missing" for name in sorted(files - present)]


def processes() -> list[int]:
    """Return the processes that this script started, directly or not, and that still run."""
    found, token = [], f"{TOKEN}={os.environ[TOKEN]}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if token in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _start(place: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "paretune.cli.main", "run", "study.yaml", "-o", str(folder)]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(place: Path, folder: Path) -> None:
    process = _start(place, folder)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"the study must finish undisturbed, got status {process.returncode}: {errors}")


def _ended(process: subprocess.Popen[str], folder: Path) -> list[str]:
    """Wait for a run to end and say what is wrong with its end."""
    try:
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return [f"{folder.name}: hangs after a kill"]
    last = errors.strip().splitlines()[-1] if errors.strip() else ""
    if process.returncode or "Traceback" in errors:
        return [f"{folder.name}: status {process.returncode}, {last}"]
    return []


def _kill(parent: int, target: str, random: Random) -> bool:
    """Kill a process, one of its children, or it and all of them; return whether there was anything to kill."""
    workers = [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    chosen = {
        "parent": [parent],
        "worker": [random.choice(workers)] if workers else [],
        "both": [parent, *workers],
    }[target]
    for process in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return bool(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--tiny", action="store_true", help="two kills, to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
