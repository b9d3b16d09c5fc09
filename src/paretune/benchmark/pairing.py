"""Which cells of one or several studies may be compared: same task instance, same preferences, same budget."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from paretune.benchmark.changes import WORDS
from paretune.core.feedback import FEEDBACKS
from paretune.core.preferences import SAME_PREFERENCE
from paretune.core.protocols import CEILING, FAMILIES, REFERENCE
from paretune.records.compact import CompactStudy
from paretune.records.per_prompt import PerPrompt
from paretune.records.study import TaskInfo
from paretune.records.tables import differing

SAME_REWARD = 1e-4  # of the base model on one task instance on two machines; they agree to about seven digits
PARTS = {**WORDS, "model": "base model", "decoding": "evaluation", "scored": "reward that scored it"}  # by their keys
SHOWN = 3  # names in a line, of more their number


@dataclass(frozen=True)
class Source:
    """Where cells come from.

    Attributes:
        name: How messages and tables call it.
        study: What it holds.
    """

    name: str
    study: CompactStudy


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        label: Its name; with its source where two sources have one of the name.
        source: Name of its source.
        family: Its family.
        cells: By seed.
    """

    label: str
    source: Source
    family: str
    cells: Mapping[int, PerPrompt]

    @property
    def ranked(self) -> bool:
        """Whether it is a method: the base model and a ceiling are shown, and compared with nobody."""
        return self.family not in (CEILING, REFERENCE)


@dataclass(frozen=True)
class Lineup:
    """Methods that may be compared: on one task, at one budget, told as much of what users want.

    Attributes:
        task: The task.
        budget_completions: What each cell might use.
        feedback: Class of the methods where what users want depends on the prompt; else empty.
        seeds: That every method has.
        rows: Its methods, in the order of their sources.
        base: What the base model does on each seed's instance; without seeds whose record is lost.
        best: The same of the best policies, where they are known.
    """

    task: TaskInfo
    budget_completions: int
    feedback: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    base: Mapping[int, PerPrompt]
    best: Mapping[int, PerPrompt]

    @property
    def title(self) -> str:
        """Name it: `counselling, 6,000 completions`."""
        known = f", feedback {self.feedback}" if self.feedback else ""
        return f"{self.task.name}, {self.budget_completions:,} completions{known}"


@dataclass
class Pairing:
    """What may be compared, and what may not.

    Attributes:
        lineups: Methods that may be compared.
        unpaired: What is left out, and why, for people.
    """

    lineups: list[Lineup] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)


def pair(sources: Sequence[Source], methods: Sequence[str] = ()) -> Pairing:
    """Find what may be compared.

    The first source says what the tasks, instances, preferences and budgets are; what differs from them in another is
    left out. So are seeds that not every method has: otherwise one method's mean would be over easier instances.

    Args:
        sources: Where cells come from.
        methods: Names of the methods to compare; all by default.
    """
    made, first = Pairing(), sources[0]
    made.unpaired += _unfinished(sources, methods)
    for source in sources[1:]:
        made.unpaired += _elsewhere(first, source)
    keys = dict.fromkeys((cell.task, cell.budget_completions) for cell in first.study.cells)
    for task, budget in keys:
        rows = list(_rows(sources, task, budget, methods, made.unpaired))
        for feedback in _classes(first.study.tasks[task], rows):
            lineup = _lineup(sources, task, budget, feedback, rows, made.unpaired)
            if lineup is not None:
                made.lineups.append(lineup)
    return made


def differences(first: PerPrompt, other: PerPrompt, task: TaskInfo) -> list[str]:
    """Say in which parts the task instances, preferences and evaluation of two cells differ; nothing if in none.

    Audit objectives may differ: they are compared where they agree. So may the bytes of a base model that is drawn from
    the seed, since versions of libraries write it differently: its prompts name what it is drawn from.
    """
    if not (first.made_of and other.made_of and first.tested and other.tested):
        return ["unknown digests, as its records were written by an earlier version or its rewards have changed since"]
    found = []
    if first.objectives != other.objectives:
        found.append(f"objectives {', '.join(other.objectives)} in place of {', '.join(first.objectives)}")
    else:
        mine, theirs = first.made_of["objectives"], other.made_of["objectives"]
        found += [f"another reward of {name}" for name in differing(mine, theirs)]
    named = differing(first.made_of["task"], other.made_of["task"], but=("model",) if task.family_settings else ())
    named += differing(first.tested, other.tested, but=("rewards",))  # of the audit
    named += ["test prompts"] if first.prompts != other.prompts and "test prompts" not in named else []
    found += [f"other {PARTS.get(name, name.replace('_', ' '))}" for name in named]
    points = first.preferences, other.preferences
    if points[0].shape != points[1].shape or np.abs(points[0] - points[1]).max() > SAME_PREFERENCE:
        found.append(f"other preferences ({len(points[1])} in place of {len(points[0])})")
    return found


def _unfinished(sources: Sequence[Source], methods: Sequence[str]) -> list[str]:
    """Say which cells are not finished, and why."""
    seeds: dict[tuple[str, str, int, str, str], list[int]] = {}
    for source in sources:
        for cell in source.study.unfinished.values():
            if not methods or cell["method"] in methods:
                why = f"failed, {cell['reason']}" if cell["reason"] else str(cell["state"])
                key = (source.name, cell["task"], cell["budget_completions"], why, cell["method"])
                seeds.setdefault(key, []).append(cell["seed"])
    found: dict[tuple[str, str, int, str, str], list[str]] = {}
    for (name, task, budget, why, method), mine in seeds.items():
        found.setdefault((name, task, budget, why, _listed(mine)), []).append(method)
    return [
        f"{name} on {task} at {budget:,}: seeds {numbers} of {_few(names)} {why}"
        for (name, task, budget, why, numbers), names in found.items()
    ]


def _elsewhere(first: Source, other: Source) -> Iterator[str]:
    """Say which tasks and budgets of another source the first does not have."""
    mine, theirs = ({(cell.task, cell.budget_completions) for cell in each.study.cells} for each in (first, other))
    tasks, others = ({task for task, _ in each} for each in (mine, theirs))
    if gone := sorted(others - tasks):
        yield f"{other.name}: {', '.join(gone)}, which {first.name} does not have"
    for task in sorted(tasks & others):
        budgets = sorted(budget for name, budget in theirs - mine if name == task)
        if budgets:
            own = ", ".join(f"{budget:,}" for name, budget in sorted(mine) if name == task)
            given = ", ".join(f"{budget:,}" for budget in budgets)
            yield f"{other.name} on {task}: budget of {given} completions, where {first.name} has {own}"


def _rows(
    sources: Sequence[Source], task: str, budget: int, methods: Sequence[str], unpaired: list[str]
) -> Iterator[Row]:
    """Yield the methods whose cells may be compared with those of the first source."""
    instances: dict[int, PerPrompt] = {}
    seen: dict[str, tuple[Row, dict[str, object]]] = {}
    for source in sources:
        by_method: dict[str, dict[int, PerPrompt]] = {}
        refused: dict[tuple[str, ...], list[str]] = {}
        unknown: dict[str, list[int]] = {}
        for cell in source.study.cells:
            if (cell.task, cell.budget_completions) != (task, budget):
                continue
            if source is sources[0]:
                instances.setdefault(cell.seed, cell)
            if methods and cell.method not in methods:
                continue
            known = instances.get(cell.seed)
            if known is None:
                unknown.setdefault(cell.method, []).append(cell.seed)
            elif found := _differs(sources[0], source, known, cell):
                refused.setdefault(tuple(found), []).append(f"{cell.method} seed {cell.seed}")
            else:
                by_method.setdefault(cell.method, {})[cell.seed] = cell
        where = f"{source.name} on {task} at {budget:,}"
        for reasons, names in refused.items():
            unpaired.append(f"{where}: {'; '.join(reasons)} ({_few(names)})")
        for seeds, names in _by_seeds(unknown).items():
            unpaired.append(f"{where}: seeds {seeds} of {_few(names)}, of which {sources[0].name} has no finished cell")
        for method, cells in by_method.items():
            made_of = _made_of(next(iter(cells.values())))
            if method in seen and seen[method][1] == made_of:
                line = (
                    f"{method} of {source.name}: made as that of {seen[method][0].source.name}, which stands for both"
                )
                unpaired += [] if line in unpaired else [line]
                continue
            label = f"{method} ({source.name})" if method in seen else method
            row = Row(label, source, next(iter(cells.values())).family, cells)
            seen.setdefault(method, (row, made_of))
            yield row


def _differs(first: Source, source: Source, known: PerPrompt, cell: PerPrompt) -> list[str]:
    info = first.study.tasks[cell.task]
    found = differences(known, cell, info)
    if found or source is first or not info.listed:
        return found
    bases = [each.study.instance("base", cell.task, cell.seed) for each in (first, source)]
    if bases[0] is not None and bases[1] is not None:
        gap = float(np.abs(bases[0].rewards - bases[1].rewards).max())
        if gap > SAME_REWARD:
            return [f"a base model that scores {gap:.2g} apart"]
    return []


def _made_of(cell: PerPrompt) -> dict[str, object]:
    """Return what tells a method from another of its name."""
    return {name: cell.made_of.get(name) for name in ("source", "version", "settings", "code")}


def _classes(task: TaskInfo, rows: Sequence[Row]) -> list[str]:
    if not task.contextual:
        return [""]
    told = {cell.feedback for row in rows if row.family in FAMILIES for cell in row.cells.values()}
    return sorted(told or {"told"}, key=FEEDBACKS.index)


def _lineup(
    sources: Sequence[Source], task: str, budget: int, feedback: str, rows: Sequence[Row], unpaired: list[str]
) -> Lineup | None:
    mine = [
        row
        for row in rows
        if not feedback or row.family not in FAMILIES or feedback in {each.feedback for each in row.cells.values()}
    ]
    own = {seed for row in mine if row.source is sources[0] for seed in row.cells} or {
        seed for row in mine for seed in row.cells
    }
    together = [row for row in mine if own & row.cells.keys()]
    if not any(row.ranked for row in together):
        return None
    seeds = tuple(sorted(own.intersection(*(row.cells for row in together if row.ranked))))
    unpaired += _left_out(f"{task} at {budget:,}", mine, together, own, set(seeds))
    if not seeds:
        return None
    kept = tuple(row for row in together if row.cells.keys() >= set(seeds))
    studies = [source.study for source in sources]
    base, best = (_instances(studies, kind, task, seeds) for kind in ("base", "optimum"))
    return Lineup(sources[0].study.tasks[task], budget, feedback, seeds, kept, base, best)


def _left_out(
    where: str, rows: Sequence[Row], together: Sequence[Row], own: set[int], seeds: set[int]
) -> Iterator[str]:
    """Say which rows take no part, and which seeds of the others.

    Args:
        where: The task and budget.
        rows: All of them.
        together: Those that have a seed in common with the first source.
        own: Seeds of the first source.
        seeds: Those that are compared.
    """
    for row in rows:
        if row not in together or not (row.ranked or row.cells.keys() >= seeds):
            yield f"{row.label} on {where}: not all of the seeds {_listed(own)}"
    more = {row.label: row.cells.keys() - seeds for row in together if row.ranked}
    for numbers, labels in _by_seeds({label: lost for label, lost in more.items() if lost}).items():
        why = "which another method lacks; compare without that method to use them"
        yield f"{where}: seeds {numbers} of {_few(labels)}, {why}"


def _by_seeds(seeds: Mapping[str, Collection[int]]) -> dict[str, list[str]]:
    """Return names by their seeds, so that a line tells of all that have the same."""
    found: dict[str, list[str]] = {}
    for name, own in seeds.items():
        found.setdefault(_listed(own), []).append(name)
    return found


def _instances(studies: Sequence[CompactStudy], kind: str, task: str, seeds: Sequence[int]) -> dict[int, PerPrompt]:
    found = {seed: next((each for study in studies if (each := study.instance(kind, task, seed))), None)
             for seed in seeds}  # fmt: skip
    return {seed: each for seed, each in found.items() if each is not None}


def _few(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed(seeds: Collection[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))
