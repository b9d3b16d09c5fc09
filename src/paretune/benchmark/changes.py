"""What a cell is made of, which of it was changed since, and when the old cell goes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretune.core.digests import digest
from paretune.core.errors import RecordError
from paretune.core.stages import Stage, in_order
from paretune.core.task import Objective, Task
from paretune.core.user_code import loaded_files, references_in
from paretune.methods.entries import MethodEntry
from paretune.records.files import DONE, damaged_files, is_done, read_json
from paretune.records.layout import EVALUATIONS, stage_folder
from paretune.records.tables import differing

Identity = tuple[str, str, int, int, str]  # task, method, budget, seed, settings a trial tries: what is asked for
WORDS = {"train": "training prompts", "development": "development prompts"}  # parts of a task that need another name


def made_of(task: Task, entry: MethodEntry, stages: Sequence[Stage]) -> dict[str, object]:
    """Return what the training of a cell depends on, part by part, to say later which of them was changed.

    Args:
        task: Its task instance.
        entry: Its method.
        stages: What the method answered when asked for its stages.
    """
    references = {*([entry.source] if ":" in entry.source else []), *references_in(entry.settings)}
    for stage in in_order(stages, task):
        references.update(stage.references())
    parts = task.training_key()
    files: dict[str, str] = dict(parts.get("code", {}))
    for reference in sorted(references):
        files |= loaded_files(reference)
    return {
        "code": files,
        "objectives": rewards_of(task.objectives),
        "task": {name: digest(part) for name, part in parts.items() if name not in ("code", "objectives")},
        "source": entry.source,
        "version": entry.version if isinstance(entry.version, int) else None,  # else its files say it
        "settings": dict(entry.kept),
    }


def rewards_of(objectives: Sequence[Objective]) -> dict[str, str]:
    """Digest what the scores of objectives depend on, by name."""
    return {objective.name: digest(objective.key()) for objective in objectives}


def changes(before: Mapping[str, Any], now: Mapping[str, Any], open_settings: Collection[str] = ()) -> list[str]:
    """Say in a few words each what differs between two results of `made_of`.

    Args:
        before: The one.
        now: The other.
        open_settings: Names of settings that are still to be chosen, so that nothing is said of them, nor of code that
            one of the two alone is made of.
    """
    code, known = now["code"], before.get("code", {})
    files = [file for file in differing(known, code) if not open_settings or (file in known and file in code)]
    said = [f"{file} changed" for file in files]
    said += [f"objective '{name}' changed" for name in differing(before.get("objectives", {}), now["objectives"])]
    said += [f"{WORDS.get(name, name)} changed" for name in differing(before.get("task", {}), now["task"])]
    if before.get("source") != now["source"]:
        said.append(f"method is now {now['source']}")
    elif before.get("version") != now["version"] and now["version"] is not None:
        said.append(f"version of {now['source']} changed")
    settings = differing(before.get("settings", {}), now["settings"])
    left_out = {name.partition(".")[0] for name in open_settings}
    return said + [f"setting {name} changed" for name in settings if name not in left_out]


@dataclass(frozen=True)
class KeptCell:
    """A cell, or a trial of a sweep, as its folder tells it.

    Attributes:
        file: The file in its folder that says what it is.
        identity: What it was asked for as.
        stages: Keys of the stages it used.
        made_of: See `made_of`.
        finished: Whether it has its markers of success.
    """

    file: Path
    identity: Identity
    stages: tuple[str, ...]
    made_of: Mapping[str, Any]
    finished: bool

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.file.parent


def kept_cells(root: Path) -> list[KeptCell]:
    """Return every cell and trial of which a study's folder holds something readable, asked for or not."""
    cells = []
    for file in sorted((*root.glob("runs/[!.]*/cell.json"), *root.glob("tuning/[!.]*/cell.json"))):
        with contextlib.suppress(RecordError, KeyError, TypeError):  # damaged, or a run under way has removed it
            if (file.parent / DONE).exists() and damaged_files(file.parent, below=file.name):
                continue
            cell = read_json(file)
            identity = (cell["task"], cell["method"], cell["budget_completions"], cell["seed"], cell["tried"])
            finished = all((folder / DONE).exists() for folder in finished_tables(file.parent))
            cells.append(KeptCell(file, identity, tuple(cell["stages"]), cell["made_of"], finished))
    return cells


def finished_tables(folder: Path) -> tuple[Path, ...]:
    """Return the folders that must be sealed for a cell, or a trial of a sweep, to be finished."""
    return (folder, folder / EVALUATIONS) if folder.parent.name == "runs" else (folder,)


def remove_replaced(root: Path, names: Mapping[Identity, str], stages: Collection[str]) -> None:
    """Remove the cells and trials whose replacement is finished, and the stages that no other cell uses.

    Args:
        root: The study's folder.
        names: Name of the folder of every cell of the study, and of every trial of its sweep.
        stages: Keys of all stages of the study.
    """
    kept = kept_cells(root)
    gone = [
        cell
        for cell in kept
        if cell.identity in names
        and names[cell.identity] != cell.folder.name
        and all(is_done(folder) for folder in finished_tables(cell.folder.with_name(names[cell.identity])))
    ]
    used = {key for cell in kept if cell not in gone for key in cell.stages} | set(stages)
    for cell in gone:
        for key in set(cell.stages) - used:
            shutil.rmtree(stage_folder(root, key), ignore_errors=True)
        (cell.folder / DONE).unlink(missing_ok=True)
        for path in [path for path in cell.folder.iterdir() if path != cell.file]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(cell.folder)  # that file last: until it goes, the next call knows what else to remove
