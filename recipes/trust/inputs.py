"""Inputs that number `n` of a seed names: a mutated file of one kind beside valid others, or a command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import yaml
from mutations import (  # type: ignore[import-not-found]  # the script beside this one
    NUMBERS,
    TEXTS,
    bomb,
    emit,
    emit_yaml,
    encode,
    mutate_bytes,
    mutate_tree,
    pairs,
)
from tables import write_parquet  # type: ignore[import-not-found]
from tiny import PREFERENCE, STUDY, TASK  # type: ignore[import-not-found]
from trials import Trial  # type: ignore[import-not-found]

KINDS = {  # of 100 inputs, how many are of a kind
    "study": 33,
    "task": 24,
    "jsonl": 13,
    "csv": 8,
    "parquet": 8,
    "model": 4,
    "solution": 5,
    "folder": 5,
}
LOADS_TORCH = ("model", "solution", "folder", "line")
BUDGETS = ("0", "-1", "1", "16", "64", "100", "1.5", "nan", "inf", "x", "")  # a large one is a wish to wait


class Maker:
    """Makes inputs below a folder, from valid files.

    Attributes:
        valid: `study.yaml`, `task/`, and, for what loads a model, `solution/` and `results/`.
        place: Folder that gets a folder for each input.
    """

    def __init__(self, valid: Path, place: Path) -> None:
        self.valid, self.place = valid, place

    def make(self, seed: int, number: int, line: bool = False) -> Trial:
        """Write an input of a seed."""
        name = f"{seed}:{'L' if line else ''}{number}"
        random = Random(name)
        kind = "line" if line else random.choices(list(KINDS), list(KINDS.values()))[0]
        folder = self.place / name.replace(":", "-") / "here"  # a path with `..` stays in the input's own folder
        if folder.parent.exists():
            shutil.rmtree(folder.parent)
        folder.mkdir(parents=True)
        notes: list[str] = []
        arguments = getattr(self, f"_{kind}")(folder, random, notes)
        return Trial(name, kind, folder, tuple(arguments), "; ".join(notes))

    def kind_of(self, seed: int, number: int) -> str:
        """Return the kind of an input without making it."""
        return Random(f"{seed}:{number}").choices(list(KINDS), list(KINDS.values()))[0]

    def _study(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._link(folder, "task")
        _write(folder / "study.yaml", STUDY_SEED if random.random() < 0.7 else RICH_STUDY, random, notes, yaml=True)
        return ["plan", "study.yaml", *(["--json"] if random.random() < 0.2 else [])]

    def _task(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._task_files(folder)
        _write(folder / "task" / "task.yaml", yaml.safe_load(TASK), random, notes, yaml=True)
        return ["plan", "study.yaml"]

    def _jsonl(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._task_files(folder)
        file = folder / "task" / f"{random.choice(('train', 'test'))}.jsonl"
        rows = [pairs(json.loads(line)) for line in (self.valid / "task" / file.name).read_text().splitlines()]
        if random.random() < 0.8:
            mutate_tree(rows, random, False, notes)
        ascii_only = random.random() < 0.5
        data = encode("".join(emit(row, ascii_only) + "\n" for row in rows))
        file.write_bytes(mutate_bytes(data, random, notes) if not notes or random.random() < 0.3 else data)
        return ["plan", "study.yaml"]

    def _csv(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        ending = random.choice((".csv", ".tsv"))
        file = self._other_data(folder, ending)
        separator = (
            random.choice((",", "\t", ";", "|")) if random.random() < 0.2 else {".csv": ",", ".tsv": "\t"}[ending]
        )
        rows: Any = [["prompt", "prompt_id", "topic"], *([f"You {i} a", f"id-{i}", "made up"] for i in range(4))]
        if random.random() < 0.8:
            mutate_tree(rows, random, False, notes)
        cells = [row if isinstance(row, list) else [row] for row in rows]
        text = "\n".join(separator.join(c if isinstance(c, str) else emit(c, False) for c in row) for row in cells)
        data = encode(text + "\n")
        file.write_bytes(mutate_bytes(data, random, notes) if not notes or random.random() < 0.4 else data)
        return ["plan", "study.yaml"]

    def _parquet(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        file = self._other_data(folder, ".parquet")
        write_parquet(file, random, notes)
        if random.random() < 0.5:
            file.write_bytes(mutate_bytes(file.read_bytes(), random, notes))
        return ["plan", "study.yaml"]

    def _model(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._task_files(folder, linked=False)
        self._mutate_one(folder / "task" / "model", random, notes)
        if random.random() < 0.5:
            return ["plan", "study.yaml"]
        return ["train", "linear", "--task", "task", "-o", "out", "--budget", "16"]

    def _solution(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._link(folder, "task")
        shutil.copytree(self.valid / "solution", folder / "solution")
        self._mutate_one(folder / "solution", random, notes)
        return ["generate", "solution", "--preference", PREFERENCE, "You feel"]

    def _folder(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        self._link(folder, "task")
        shutil.copy(self.valid / "study.yaml", folder)
        shutil.copytree(self.valid / "results", folder / "results")
        self._mutate_one(folder / "results", random, notes)
        study = ["study.yaml", "-o", "results/tiny_study"]
        return random.choice(
            (["plan", *study], ["report", "results/tiny_study"], ["plan", "results/tiny_study/study.yaml"])
        )

    def _line(self, folder: Path, random: Random, notes: list[str]) -> list[str]:
        shutil.copytree(self.valid, folder, dirs_exist_ok=True)
        (folder / "empty").mkdir()
        (folder / "binary").write_bytes(bytes(range(256)))
        words = list(random.choice(LINES))
        for _ in range(random.choice((1, 1, 2, 3))):
            _mutate_line(words, random, notes)
        return words

    def _link(self, folder: Path, name: str) -> None:
        (folder / name).symlink_to(self.valid / name)

    def _task_files(self, folder: Path, linked: bool = True) -> None:
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
        (folder / "task").mkdir()
        for file in (self.valid / "task").iterdir():
            if file.is_dir() and not linked:
                shutil.copytree(file, folder / "task" / file.name)
            elif file.name != "__pycache__":
                (folder / "task" / file.name).symlink_to(file)
        (folder / "task" / "task.yaml").unlink()
        (folder / "task" / "task.yaml").write_text(TASK, encoding="utf-8")
        for split in ("train", "test"):
            file = folder / "task" / f"{split}.jsonl"
            file.unlink()
            file.write_bytes((self.valid / "task" / file.name).read_bytes())

    def _other_data(self, folder: Path, ending: str) -> Path:
        self._task_files(folder)
        task = folder / "task" / "task.yaml"
        task.write_text(TASK.replace("train.jsonl", f"train{ending}"), encoding="utf-8")
        return folder / "task" / f"train{ending}"

    def _mutate_one(self, folder: Path, random: Random, notes: list[str]) -> None:
        """Mutate one file below a folder: the tree of a JSON file, the bytes of others."""
        file = random.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        notes.append(str(file.relative_to(folder)))
        if file.suffix in (".json", ".jsonl") and random.random() < 0.7:
            lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text()]
            at = random.randrange(len(lines)) if lines else 0
            if lines:
                lines[at] = emit(mutate_tree(pairs(json.loads(lines[at])), random, False, notes), True)
            file.write_bytes(encode("\n".join(lines)))
        elif random.random() < 0.1:
            file.unlink()
            notes.append("gone")
        else:
            file.write_bytes(mutate_bytes(file.read_bytes(), random, notes))


STUDY_SEED = yaml.safe_load(STUDY)
RICH_STUDY = {
    **STUDY_SEED,
    "tasks": ["task/task.yaml", {"controlled": {"rho": 0.8, "alphabet": 4, "length": 3}}],
    "methods": {
        "linear": {"completions_each": 32, "learning_rate": 0.01},
        "soups": {"method": "rewarded_soups", "rank": 2},
        "mixture": {"method": "mixture_of_experts", "experts": {"rank": 8}, "gate": {"level": "block"}},
        "per_preference": {},
    },
    "budget": {"completions": [256, 512]},
    "seeds": [0, 1],
    "tune": {"instances": 2, "completions": 128, "preferences": {"grid": 1}},
    "parts": {"first": {"seeds": [0]}, "tiny": {"tasks": ["tiny"]}},
}
_FOLDER = "results/tiny_study"
LINES: tuple[tuple[str, ...], ...] = (
    ("plan", "study.yaml", "-o", _FOLDER, "--workers", "2", "--json"),
    ("plan", "study.yaml", "--part", "x"),
    ("plan", f"{_FOLDER}/study.yaml"),
    ("run", "study.yaml", "-o", _FOLDER, "--workers", "1", "--quiet"),
    ("report", _FOLDER),
    ("report", _FOLDER, _FOLDER, "-o", "merged"),
    ("score", _FOLDER, "--study", "study.yaml"),
    ("ls", "methods", "--json"),
    ("ls", "tasks"),
    ("train", "linear", "--task", "task", "-o", "out", "--budget", "32", "--seed", "0", "--set", "learning_rate=0.01"),
    ("train", "mixture_of_experts", "-t", "task/task.yaml", "-o", "out", "--budget", "64", "--set", "gate.level=block"),
    ("probe", "task", "--samples", "256", "--seed", "0", "-o", "out", "--json"),
    ("probe", "task", "--from", _FOLDER, "--method", "linear", "--samples", "256", "-o", "out"),
    ("probe", "task", "--pilot", "64", "--samples", "256", "-o", "out"),
    (
        "generate",
        "solution",
        "You feel",
        "I keep",
        "-p",
        PREFERENCE,
        "--samples",
        "2",
        "--temperature",
        "0.7",
        "--json",
    ),
    ("generate", "solution", "You", "--preference", "early=1", "--top-p", "0.9", "--seed", "3"),
    ("generate", f"{_FOLDER}/runs", "You", "--preference", "early=1"),
    ("--help",),
    ("--version",),
)
WORDS = (
    *("--", "-", "--nope", "-x", "--help", "--version", "--output", "--json", "--no-json", "--workers=", "--seed=-1"),
    *(
        "--samples=1e20",
        "--workers=1e20",
        "--set",
        "--set=",
        "--set==",
        "--set=a",
        "--set=.=1",
        "--set=a..b=1",
        "@file",
    ),
    *(
        "--set=learning_rate=" + "[" * 1500,
        "--set=learning_rate=!!int abc",
        "--set=learning_rate=.nan",
        "--set=rank=-1",
    ),
    *(
        "--set=rank=1e20",
        "--set=learning_rate=*a",
        "--set=learning_rate=" + "9" * 5000,
        "--set=__class__=1",
        "-o",
        "-p",
    ),
    *(
        "--set=a=1",
        "--set=rank=true",
        "--set=experts={rank: 2, rank: 3}",
        "--set=rank=010",
        "--set=gate.level=\x1b[31m",
    ),
    *(
        "empty",
        "binary",
        "pipe",
        "task",
        "study.yaml",
        "solution",
        _FOLDER,
        "results",
        "nowhere",
        "task/model",
        "rewards.py",
    ),
    *(
        "early=1",
        "early=nan",
        "early=inf,late=1",
        "early==1",
        "early=1,early=0",
        "=1",
        "early",
        "early=1e400",
        "nope=1",
    ),
    *("early=0.5,late=0.5,", ",", "early=-1,late=2", "early=1_0", "early=\u0663"),
)
ODD_TEXTS = (
    "fr\udcffench",
    "\udced\udca0\udc80",
    "a\u2028b",
    "\x1b[31mred",
    "\x07",
    "\u202eabc",
    "\U0010ffff",
    "a\nb",
    "\r",
)


def _mutate_line(words: list[str], random: Random, notes: list[str]) -> None:
    at = random.randrange(len(words))
    if at == 0 and len(words) > 1 and random.random() < 0.8:
        at = random.randrange(1, len(words))  # another command is seldom more than an unknown one
    act = random.choice(("replace",) * 5 + ("insert", "delete", "double", "cut", "swap", "bytes"))
    notes.append(f"{act} {words[at]!r}")
    before = words[at - 1] if at else ""
    held = before in ("--budget", "--pilot", "-o", "--output")  # counts that would be made, places written to
    number = before.startswith("-") or words[at].replace(".", "").isdigit()
    texts = [text for text in TEXTS if len(text) < 5000 and text not in ("/", "~", "/dev/zero")]
    pools = [texts, ODD_TEXTS, WORDS] + [(*NUMBERS, "0x10", "\u0663", "1_000")] * 3 * number
    text = random.choice(BUDGETS if held else random.choice(pools))
    if act == "replace":
        words[at] = text
    elif act == "insert":
        words.insert(at, random.choice(WORDS) if held else text)
    elif act == "delete":
        del words[at]
        words[:] = words or [""]
    elif act == "double":
        words.insert(at, words[at])
    elif act == "cut":
        words[at] = words[at][: random.randrange(len(words[at]) + 1)]
    elif act == "swap":
        words.append(words.pop(at)) if not held else None
    elif not held:
        words[at] = mutate_bytes(encode(words[at]), random, notes).decode("utf-8", "surrogateescape")[:100_000]
    # what an operating system hands over: no NUL, and bytes that are no text one by one
    words[:] = [encode(word.replace("\0", "\\0")).decode("utf-8", "surrogateescape") for word in words]


def _write(file: Path, tree: Any, random: Random, notes: list[str], yaml: bool) -> None:
    """Write a mutated tree, half of the time of mutated bytes or with a bomb before it."""
    kind = random.random()
    tree = pairs(tree)
    if kind < 0.75:
        tree = mutate_tree(tree, random, yaml, notes)
    text = emit_yaml(tree, random)
    if kind > 0.95:
        notes.append("a bomb")
        text = f"x: {bomb(random, yaml)}\n{text}" if random.random() < 0.5 else str(bomb(random, yaml))
    data = encode(text)
    file.write_bytes(mutate_bytes(data, random, notes) if 0.65 < kind < 0.95 else data)
