"""Count lines of code, without blanks, comments and docstrings, by room and by file.

    python recipes/count_lines.py                           # rooms
    python recipes/count_lines.py benchmark                 # files of a room
    python recipes/count_lines.py --baseline 0d70057        # beside an older revision

The exit status is 1 where a file has more than 400.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = "src/paretune"
LIMIT = 400
SAYS_NOTHING = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help="rooms whose files to list")
    parser.add_argument("--baseline", metavar="REVISION", help="git revision to compare with")
    given = parser.parse_args(arguments)
    now = {path.relative_to(root / SOURCES).as_posix(): path for path in sorted((root / SOURCES).rglob("*.py"))}
    files = {name: code_lines(path.read_text(encoding="utf-8")) for name, path in now.items()}
    before = {} if given.baseline is None else files_of(given.baseline, root)
    rooms, rooms_before = by_room(files), by_room(before)
    if given.rooms:
        unknown = sorted(set(given.rooms) - rooms.keys() - rooms_before.keys())
        if unknown:
            parser.error(f"rooms must be among {', '.join(sorted(rooms))}, got {', '.join(unknown)}")
        for room in given.rooms:
            print_table(*({k: v for k, v in each.items() if room_of(k) == room} for each in (files, before)))
    else:
        print_table(rooms, rooms_before)
    long = {name: count for name, count in files.items() if count > LIMIT}
    for name, count in sorted(long.items(), key=lambda item: -item[1]):
        print(f"above {LIMIT}: {SOURCES}/{name} {count}")
    return int(bool(long))


def code_lines(source: str) -> int:
    """Count the lines of a module that hold code; a text over several lines counts each, a docstring none."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SAYS_NOTHING:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def files_of(revision: str, root: Path) -> dict[str, int]:
    """Count the lines of each module of a git revision."""
    listed = _git(root, "ls-tree", "-r", "--name-only", revision, "--", SOURCES).splitlines()
    names = [name for name in listed if name.endswith(".py")]
    return {name.removeprefix(f"{SOURCES}/"): code_lines(_git(root, "show", f"{revision}:{name}")) for name in names}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def room_of(name: str) -> str:
    """Return the room of a module, named from the package's folder."""
    return name.split("/")[0] if "/" in name else "."


def by_room(files: Mapping[str, int]) -> Counter[str]:
    """Add the lines of the files of each room."""
    rooms: Counter[str] = Counter()
    for name, count in files.items():
        rooms[room_of(name)] += count
    return rooms


def print_table(now: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Print counts, the change since the older revision beside them, and their sum."""
    names = sorted({*now, *before}, key=lambda name: (-now.get(name, 0), name))
    rows = [*((name, now.get(name, 0), before.get(name, 0)) for name in names), _sum(now, before)]
    width = max(len(name) for name, _, _ in rows)
    for name, count, old in rows:
        change = f"{old:>8,} {count - old:>+7,}" + (f" {(count - old) / old:>+7.1%}" if old else "") if before else ""
        print(f"{name:<{width}} {count:>8,}{change}")


def _sum(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[str, int, int]:
    return "all", sum(now.values()), sum(before.values())


if __name__ == "__main__":
    sys.exit(main())
