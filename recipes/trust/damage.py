"""Damage each kind of file of a study in turn, run the same command again, and say what became of it.

    python recipes/trust/damage.py                  # every kind, every way
    python recipes/trust/damage.py --kinds ledger   # kinds whose name contains a word
    python recipes/trust/damage.py --tiny

Each damage is done to a copy of a study that has finished, or, for what only a study under way has, of one that was
killed. The command must end complete with the results it had, leave other cells alone, and name the damage. What a run
writes anew each time (the report, its copy of the study, logs) need not be named, nor what a stage is whole without
and may never have had (a checkpoint, a file of a run under way) when it is gone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tiny  # type: ignore[import-not-found]  # the scripts beside this one
from contents import results  # type: ignore[import-not-found]
from trials import table, where_raised  # type: ignore[import-not-found]

WAYS = ("bit flip", "truncated", "empty", "gone", "other content", "changed digit")
WRITTEN_ANEW = ("report/", "logs/", ".lock", "study.yaml")
LOGS = re.compile(r"groups/.*/events\.jsonl")  # of stages under way, which nothing reads
DONE_WITHOUT = re.compile(r"groups/|stages/\w+/(checkpoint/|events\.jsonl)")  # gone, it looks as if never written
FOLDER = Path("results/tiny_study")
KEYS = re.compile(  # what names of one kind differ in
    r"\b[0-9a-f]{20}\b|tiny-\w+-\d+-s\d+-[0-9a-f]{8}|tiny-\d+|(?<=timing/)tiny-\w+|(?<=report/figures/)\w+|(?<=report/tables/)\w+|\b\d{3}\b|worker-\d+"
)
TINY_KINDS = ("ledger.json", "timing.json")
HANG_SECONDS = 60.0


@dataclass
class Outcome:
    """What became of a damage.

    Attributes:
        word: `well`, or what was wrong.
        said: What the command said, or raised.
    """

    word: str
    said: str = ""
    rewritten: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    words = TINY_KINDS if given.tiny else given.kinds
    began = time.perf_counter()
    tiny.offline()
    faults = 0
    rows: list[tuple[str, ...]] = [("kind of file", *WAYS)]
    with tempfile.TemporaryDirectory(prefix="paretune-damage-") as scratch:
        os.environ["PARETUNE_CACHE"] = f"{scratch}/cache"
        place, finished, killed = (Path(scratch) / name for name in ("place", "finished", "killed"))
        tiny.in_a_child(lambda: tiny.write_study(place))
        tiny.in_this_process()
        for module in tiny.RUNS_MODELS:
            importlib.import_module(module)
        if not given.tiny:
            _kill_under_way(place)
            (place / "results").rename(killed)
        status, said = _run(place)
        if status:
            raise SystemExit(f"the study must finish, got status {status}: {said}")
        expected = results(place / FOLDER)
        (place / "results").rename(finished)
        kinds = {kind: (finished, file) for kind, file in kinds_of(finished / FOLDER.name).items()}
        if not given.tiny:
            under_way = kinds_of(killed / FOLDER.name).items()
            kinds |= {kind: (killed, file) for kind, file in under_way if kind not in kinds}
        for kind, (source, file) in sorted(kinds.items()):
            if words and not any(word in kind for word in words):
                continue
            cells = []
            print(f"{kind}:", flush=True)
            for way in WAYS:
                outcome = _tried(source, file, way, expected, place)
                cells.append(outcome.word)
                faults += outcome.word not in ("well", "-")
                print(
                    f"  {way}: {outcome.word}. {outcome.said[:400]}", *outcome.rewritten[:3], sep="\n    ", flush=True
                )
            rows.append((kind, *cells))
    print(table(rows))
    print(f"{len(rows) - 1} kinds of files, {faults} faults, {time.perf_counter() - began:.0f} s")
    return int(bool(faults))


def kinds_of(study: Path) -> dict[str, Path]:
    """Return the first file of each kind in a study's folder: files whose names differ in keys and numbers alone."""
    found: dict[str, Path] = {}
    for file in sorted(path for path in study.rglob("*") if path.is_file()):
        name = file.relative_to(study)
        found.setdefault(KEYS.sub("*", name.as_posix()), name)
    return found


def damaged(content: bytes, way: str, file: str) -> bytes | None:
    """Return other bytes in place of a file's; None where it goes, or where the way does not apply to it.

    Args:
        content: The file's bytes.
        way: One of `WAYS`.
        file: Its name.
    """
    if way == "bit flip":  # in the middle: of the tensors of a file of tensors, not of its header
        at = len(content) * 3 // 4
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"\x01"
    if way == "truncated":
        return content[: len(content) // 2]
    if way == "empty":
        return b""
    if way == "other content":
        return {".json": b"[1, 2]\n", ".jsonl": b"[1, 2]\n", ".yaml": b"a: 1\n", ".lock": b"1"}.get(
            Path(file).suffix or file, content[::-1]
        )
    if way == "changed digit":
        digits = [match.start() for match in re.finditer(rb"[0-9]", content)]
        if not digits or Path(file).suffix not in (".json", ".jsonl", ".yaml", ".csv", ".md"):
            return None
        at = digits[len(digits) // 2]
        return content[:at] + (b"7" if content[at : at + 1] != b"7" else b"3") + content[at + 1 :]
    return None


def _tried(source: Path, name: Path, way: str, expected: dict[str, str], place: Path) -> Outcome:
    """Damage a copy of a study, run it, and judge what became of it."""
    shutil.rmtree(place / "results", ignore_errors=True)
    shutil.copytree(source, place / "results")
    file = place / FOLDER / name
    made = damaged(file.read_bytes(), way, name.name)
    if made is None and way != "gone":
        return Outcome("-")
    if made is None:
        file.unlink()
    else:
        file.write_bytes(made)
    before = _stamps(place / FOLDER)
    status, said = _run(place)
    return judged(name.as_posix(), made, status, said, place / FOLDER, before, expected)


def judged(
    name: str,
    made: bytes | None,
    status: int,
    said: str,
    study: Path,
    before: dict[str, tuple[int, int]],
    expected: dict[str, str],
) -> Outcome:
    """Say whether a command dealt with a damaged file as it must.

    Args:
        name: The file, from the study's folder.
        made: What it held after the damage; None where it was removed.
        status: Of the command; negative for a signal.
        said: What the command printed.
        study: The study's folder, after the command.
        before: Size and time of each file before the command.
        expected: The results of the study without damage.
    """
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if status == -signal.SIGALRM:
        return Outcome("hangs", last)
    if "Traceback" in said:
        return Outcome("traceback", where_raised(said))
    if status:
        return Outcome("blocked", last)
    differ = [key for key, value in results(study).items() if expected.get(key) != value]
    differ += [key for key in expected if key not in results(study)]
    if differ:
        return Outcome("other results", last, differ)
    after = _stamps(study)
    own = _owner(name)
    rewritten = [
        key
        for key, stamp in before.items()
        if key.split("/")[0] in ("stages", "runs") and _owner(key) != own and after.get(key) != stamp and key != name
    ]
    if own.startswith("stages/") and rewritten:  # a stage may take with it the cells that use it
        using = {_owner(key) for key in before if key.startswith("runs/") and _uses(study / _owner(key), own)}
        rewritten = [key for key in rewritten if _owner(key) not in using]
    if rewritten:
        return Outcome("others rewritten", last, rewritten)
    if name.startswith(WRITTEN_ANEW) or LOGS.fullmatch(name) or (made is None and DONE_WITHOUT.match(name)):
        return Outcome("well")
    still = (study / name).read_bytes() if (study / name).is_file() else None
    known = name.rsplit("/", 1)[-1] in said or own.split("/")[-1] in said
    if still == made and name in before | {name: (0, 0)} and (made is not None or _was_needed(name, expected)):
        return Outcome("noticed, not mended" if known else "unnoticed", last)
    return Outcome("well" if known else "mended, not named", last)


def _was_needed(name: str, expected: dict[str, str]) -> bool:
    return name in expected


def _owner(name: str) -> str:
    """Return the cell or stage that a file belongs to."""
    return "/".join(name.split("/")[:2])


def _uses(cell: Path, stage: str) -> bool:
    key = stage.split("/")[1]
    return any(key in file.read_text(encoding="utf-8", errors="replace") for file in cell.glob("*.json"))


def _stamps(study: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(study).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in study.rglob("*")
        if path.is_file()
    }


def _run(place: Path) -> tuple[int, str]:
    """Run the study in a child process; return its status and what it said."""
    reader, writer = os.pipe()
    if not (process := os.fork()):
        _become(place, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, said


def _become(place: Path, writer: int) -> None:
    """Run the study in this process and end it."""
    from paretune.cli.main import execute

    status = 70
    try:
        tiny.take_output(writer, writer)
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        os.chdir(place)
        status = execute(["run", "study.yaml", "-o", str(FOLDER)])
    except BaseException:  # noqa: BLE001  # whatever the command lets through is what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def _kill_under_way(place: Path) -> None:
    """Run the study and kill it when it has begun all that a study under way has."""
    reader, writer = os.pipe()
    if not (process := os.fork()):
        os.close(reader)
        _become(place, writer)
    os.close(writer)
    wanted = ("group.json", "spent.json")
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if all(any((place / FOLDER).glob(f"groups/*/{name}")) for name in wanted):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            break
        time.sleep(0.002)
    os.close(reader)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=[], help="words of the kinds to damage; by default all")
    parser.add_argument("--tiny", action="store_true", help="two kinds of files, to see that it runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
