"""Give paretune 10,000 mutated files and 300 mutated command lines: no traceback, none above 10 s or 1 GiB.

    python recipes/trust/fuzz.py                        # all of it
    python recipes/trust/fuzz.py --inputs 2000 --lines 60
    python recipes/trust/fuzz.py --only 0:17 --out found   # one again, its files kept

Every input is made from SEED:NUMBER alone. It runs in a process of its own, forked from one that has imported the
library, and fails with a traceback, a signal, more than 10 s of processor, 30 s of waiting, more than 1 GiB, an
undocumented status, silence, control characters, or an error longer than a screen.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import tiny  # type: ignore[import-not-found]  # the scripts beside this one
from inputs import LOADS_TORCH, Maker  # type: ignore[import-not-found]
from trials import Trial, Verdict, run_all, table  # type: ignore[import-not-found]

SEED = 0
INPUTS, LINES = 10_000, 300
TINY_INPUTS, TINY_LINES = 40, 8
EACH = 1_000  # inputs between two signs of progress
KEPT = 5  # inputs of a fault that are kept in files


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    inputs, lines = (TINY_INPUTS, TINY_LINES) if given.tiny else (given.inputs, given.lines)
    together = given.together or len(os.sched_getaffinity(0))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="paretune-fuzz-") as scratch:
        os.environ["PARETUNE_CACHE"] = f"{scratch}/cache"
        tiny.offline()
        maker = Maker(Path(scratch) / "valid", Path(scratch) / "inputs")
        modules = make_valid(maker.valid)
        wanted = [_named(name) for name in given.only] or [
            *((given.seed, number, False) for number in range(inputs)),
            *((given.seed, number, True) for number in range(lines)),
        ]
        print(f"seed {given.seed}: {len(wanted):,} inputs, {together} at once", flush=True)
        found = Found(given.out)
        for verdict in judged(maker, wanted, together, found, modules):
            found.add(verdict)
            if (done := sum(found.kinds.values())) % EACH == 0:
                print(f"{done:,} done, {sum(map(len, found.faults.values()))} with a fault", flush=True)
            if given.only:
                print(f"{verdict.trial.name} {verdict.trial.note}\n{' '.join(verdict.trial.arguments)!a}")
                print(f"status {verdict.status}: {verdict.fault or 'well'}\n{verdict.detail}")
        found.print()
    print(f"{time.perf_counter() - began:.0f} s")
    return int(bool(found.faults))


def judged(
    maker: Maker,
    wanted: Sequence[tuple[int, int, bool]],
    together: int,
    found: Found,
    modules: tuple[list[str], list[str]],
) -> Iterator[Verdict]:
    """Run inputs, first those that need no torch: a process is forked faster without it."""
    heavy = [each for each in wanted if each[2] or maker.kind_of(*each[:2]) in LOADS_TORCH]
    others = set(heavy)
    light = [each for each in wanted if each not in others]

    def clear(trial: Trial) -> None:
        found.keep(trial)
        shutil.rmtree(trial.folder.parent, ignore_errors=True)

    load(modules[0])
    yield from run_all((maker.make(*each) for each in light), act, together, clear)
    if heavy:
        load(modules[1])
        yield from run_all((maker.make(*each) for each in heavy), act, together, clear)


def act(trial: Trial) -> int:
    """Run a trial's command as the program would."""
    from paretune.cli.main import execute

    return execute(trial.arguments)


def make_valid(folder: Path) -> tuple[list[str], list[str]]:
    """Make a task, a study, a trained solution set and the study finished.

    Returns:
        Modules that reading files imports, and those that running models imports.
    """
    tiny.in_a_child(lambda: tiny.write_study(folder))
    study = "results/tiny_study"
    heavy = _modules_of(
        folder,
        ("train", "rewarded_soups", "--task", "task", "-o", "solution", "--budget", "64"),
        ("run", "study.yaml", "-o", study, "--quiet"),
        ("generate", "solution", "You feel", "--preference", tiny.PREFERENCE),
        ("report", study),
        ("score", study),
        ("probe", "task", "--samples", "256", "-o", "../probe"),
    )
    return _modules_of(folder, ("plan", "study.yaml")), heavy


def _modules_of(folder: Path, *lines: tuple[str, ...]) -> list[str]:
    """Run commands in a process that is forgotten, and return the modules it imported, but for the user's."""

    def act() -> None:
        tiny.in_this_process()
        os.chdir(folder)
        for line in lines:
            status, _, errors = tiny.command(*line)
            if status:
                raise SystemExit(f"paretune {' '.join(line)} must work, got status {status}: {errors}")
        ours = {name for name, module in sys.modules.items() if str(folder) not in str(getattr(module, "__file__", ""))}
        (folder.parent / "modules").write_text("\n".join(sorted(ours)), encoding="utf-8")

    tiny.in_a_child(act)
    return (folder.parent / "modules").read_text(encoding="utf-8").split()


def load(modules: Sequence[str]) -> None:
    """Import modules, so that processes forked later need not."""
    for name in modules:
        with contextlib.suppress(Exception):  # made while others run, under names that cannot be imported
            importlib.import_module(name)
    tiny.in_this_process()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all that they share


class Found:
    """Faults by their words, and what they were found in."""

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.faults: dict[str, list[Verdict]] = defaultdict(list)
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.slowest = self.largest = 0.0
        self._last: Verdict | None = None

    def add(self, verdict: Verdict) -> None:
        """Note a verdict."""
        self.kinds[verdict.trial.kind] += 1
        self.statuses[verdict.status] += 1
        self.slowest, self.largest = max(self.slowest, verdict.seconds), max(self.largest, verdict.growth)
        self._last = verdict
        if verdict.fault:
            self.faults[verdict.fault].append(verdict)

    def keep(self, trial: Trial) -> None:
        """Copy the input of the last verdict where it showed a fault."""
        verdict = self._last
        if self.out is None or verdict is None or verdict.trial != trial or not verdict.fault:
            return
        if len(self.faults[verdict.fault]) > KEPT:
            return
        target = self.out / trial.name.replace(":", "-")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(trial.folder, target, ignore_dangling_symlinks=True)
        about = {"fault": verdict.fault, "kind": trial.kind, "note": trial.note, "arguments": trial.arguments}
        (target / "fuzz.json").write_text(json.dumps({**about, "printed": verdict.detail}, indent=2), encoding="utf-8")

    def print(self) -> None:
        """Print how many inputs of each kind ran, and the faults, the most frequent first."""
        print(", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items())))
        print("status " + ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items())))
        print(f"slowest {self.slowest:.1f} s, largest {self.largest / 2**20:.0f} MiB")
        rows = [("times", "fault", "kinds", "such as")]
        for fault, verdicts in sorted(self.faults.items(), key=lambda item: -len(item[1])):
            kinds = ", ".join(sorted({each.trial.kind for each in verdicts}))
            rows.append((str(len(verdicts)), fault, kinds, " ".join(each.trial.name for each in verdicts[:3])))
        print(table(rows) if len(rows) > 1 else "no fault")


def _named(name: str) -> tuple[int, int, bool]:
    seed, _, number = name.partition(":")
    return int(seed), int(number.lstrip("L")), number.startswith("L")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="mutated files")
    parser.add_argument("--lines", type=int, default=LINES, help="mutated command lines")
    parser.add_argument("--only", nargs="+", default=[], metavar="SEED:NUMBER", help="make and run these again")
    parser.add_argument("--out", type=Path, help="folder that keeps inputs with a fault")
    parser.add_argument("--together", type=int, help="inputs at once; by default one a core")
    parser.add_argument("--tiny", action="store_true", help="a few inputs, to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
