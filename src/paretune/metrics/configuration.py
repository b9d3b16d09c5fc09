"""Whether compared cells were run alike: the paper's "identical configurations", checked and not assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from paretune.core.protocols import FAMILIES
from paretune.metrics.conditions import listed, seeds
from paretune.records.study import CellRecord, StudyRecords

Agreement = Literal["agreed", "differs", "not on record"]
PACKAGES = ("python", "torch", "transformers", "tokenizers", "numpy", "safetensors")
EVALUATION = "evaluation"  # the measurement that decodes


@dataclass(frozen=True)
class Finding:
    """How one item of the configuration stands among the cells that are compared: one task, one budget.

    Attributes:
        task: The task.
        budget_completions: The budget.
        item: What was compared, `batch` for example.
        state: `agreed`, `differs`, or `not on record` where some cell does not tell and the others agree.
        values: What cells have -> the names of those cells; those of which nothing is on record are left out.
        sentence: The finding in words, with what does not compare where cells differ.
    """

    task: str
    budget_completions: int
    item: str
    state: Agreement
    values: Mapping[str, tuple[str, ...]]
    sentence: str


class Item(NamedTuple):
    """Something that compared cells should have in common.

    Attributes:
        name: Its name.
        read: From a study and a finished cell to what the cell has, in words: one where all of it agrees, none where
            that is not on record.
        suffers: What does not compare where it differs.
    """

    name: str
    read: Callable[[StudyRecords, CellRecord], Iterable[str]]
    suffers: str


def configuration_check(study: StudyRecords) -> list[Finding]:
    """Check that the finished cells of each task and budget were run alike.

    Batch, group, lengths, decoding, number format, seeds, threads, hardware, code and packages are compared. What sets
    a method apart, such as its learning rate, its epochs or the shape of its experts, is not: this asks whether costs,
    speeds and qualities mean the same in every row. Ceilings and the base model are compared with nobody.

    Args:
        study: Its records.

    Returns:
        A finding for each task, budget and item, in the order of the study's cells and of `ITEMS`; none where fewer
        than two methods have a finished cell.

    Source:
        Kong et al. 2025, "identical configurations".
    """
    compared: dict[tuple[str, int], list[CellRecord]] = {}
    for cell in study.cells:
        if cell.state == "done" and cell.family in FAMILIES:
            compared.setdefault((cell.task, cell.budget_completions), []).append(cell)
    return [
        _finding(study, cells, item)
        for cells in compared.values()
        if len({cell.method for cell in cells}) > 1
        for item in ITEMS
    ]


def _finding(study: StudyRecords, cells: Sequence[CellRecord], item: Item) -> Finding:
    found: dict[str, list[CellRecord]] = {}
    for cell in cells:
        known = sorted(set(item.read(study, cell)))
        found.setdefault(listed(known) if known else "", []).append(cell)
    unknown = found.pop("", [])
    state: Agreement = "differs" if len(found) > 1 else "not on record" if unknown else "agreed"
    return Finding(
        cells[0].task,
        cells[0].budget_completions,
        item.name,
        state,
        {value: tuple(cell.cell for cell in having) for value, having in found.items()},
        _sentence(item, state, found, unknown, cells),
    )


def _sentence(
    item: Item,
    state: Agreement,
    found: Mapping[str, Sequence[CellRecord]],
    unknown: Sequence[CellRecord],
    cells: Sequence[CellRecord],
) -> str:
    parts = [f"{value} ({_named(mine, cells)})" for value, mine in found.items()]
    if state == "agreed":
        return f"{item.name}: {next(iter(found))}, in all {len(cells)} cells."
    if unknown:
        parts.append(f"not on record of {_named(unknown, cells)}")
    if state == "not on record":
        return f"{item.name}: {'; '.join(parts)}."
    return f"differing {item.name}: {'; '.join(parts)}. {item.suffers} do not compare."


def _named(mine: Sequence[CellRecord], cells: Sequence[CellRecord]) -> str:
    """Name cells by their methods, and by their seeds where it is not all of a method's."""
    if len(mine) == len(cells):
        return f"all {len(cells)} cells"
    names = []
    for method in dict.fromkeys(cell.method for cell in mine):
        own = [cell.seed for cell in mine if cell.method == method]
        whole = len(own) == sum(cell.method == method for cell in cells)
        names.append(method if whole else f"{method}, {seeds(own)}")
    return listed(names)


def _setting(name: str, noun: str) -> Callable[[StudyRecords, CellRecord], Iterable[str]]:
    def read(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
        return [f"{stage.settings[name]} {noun}" for stage in cell.stages if name in stage.settings]

    return read


def _limit(name: str) -> Callable[[StudyRecords, CellRecord], Iterable[str]]:
    def read(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
        known = cell.made_of.get("task", {}).get(name)  # its digest: what differs is one task before and after an edit
        return [] if known is None else [f"limit with digest {known[:8]}"]

    return read


def _decoding(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    for table in study.tables:
        decoding: Any = table.depends_on.get("decoding")
        if table.measurement == EVALUATION and cell.cell in table.cells and decoding is not None:
            prompts = decoding["prompts"]
            yield (
                f"temperature {decoding['temperature']:g}, top_p {decoding['top_p']:g}, {decoding['samples']} sampled "
                f"of {'each test prompt' if prompts is None else f'the first {prompts} test prompts'}"
            )


def _number_format(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    for stage in cell.stages:
        update = stage.settings.get("update_dtype", "model")
        own = f", updates in {update}" if update != "model" else ""
        yield from (f"{dtype}{own}" for attempt in stage.attempts for dtype in attempt.get("dtypes", ()))


def _seeds(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    group = (cell.task, cell.method, cell.budget_completions)
    mine = [
        each.seed
        for each in study.cells
        if (each.task, each.method, each.budget_completions) == group and each.state == "done"
    ]
    return [", ".join(map(str, sorted(mine)))]


def _machines(cell: CellRecord) -> Iterable[Mapping[str, Any]]:
    """Return what the attempts at a cell's stages ran on, and what it was evaluated on, as far as on record."""
    return filter(None, (*(attempt for stage in cell.stages for attempt in stage.attempts), cell.environment))


def _threads(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    return [str(each["threads_per_worker"]) for each in _machines(cell) if "threads_per_worker" in each]


def _hardware(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    return [
        f"{(each.get('device') != 'cpu' and each.get('gpu')) or each['cpu']}, {each['cores']} cores"
        for each in _machines(cell)
        if "cpu" in each
    ]


def _code(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    return [f"paretune {each['paretune']}, code {each['code']}" for each in _machines(cell) if "code" in each]


def _packages(study: StudyRecords, cell: CellRecord) -> Iterable[str]:
    return [
        ", ".join(f"{name} {each[name]}" for name in PACKAGES if name in each)
        for each in _machines(cell)
        if "torch" in each
    ]


COSTS = "Seconds and speeds"
ITEMS = (
    Item("batch", _setting("completions_per_update", "completions an update"), "Qualities at equal completions"),
    Item("group", _setting("group_size", "completions a prompt"), "Qualities at equal completions"),
    Item("prompt length", _limit("max_prompt_tokens"), "Qualities and costs"),
    Item("completion length", _limit("max_completion_tokens"), "Qualities and costs"),
    Item("decoding", _decoding, "Scores"),
    Item("number format", _number_format, f"{COSTS}, and peak memory,"),
    Item("seeds", _seeds, "Means over seeds"),
    Item("threads", _threads, COSTS),
    Item("hardware", _hardware, COSTS),
    Item("code", _code, COSTS),
    Item("packages", _packages, COSTS),
)
