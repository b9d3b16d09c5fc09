"""What somebody can choose from in a finished study: the measured policies of one cell, with scores and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, StudyError
from paretune.core.preferences import FloatArray
from paretune.metrics.judged import achieved, less_price, price_of_kl
from paretune.records.evaluation import EvaluationRecord
from paretune.records.layout import cell_folder
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords, TaskInfo


@dataclass(frozen=True, eq=False)
class Candidates:
    """Different policies of one cell, each with the scores of all objectives.

    Attributes:
        study: Name of the study.
        folder: Of the cell, from which `paretune generate` answers.
        task: The task.
        cell: The cell.
        evaluations: One a policy, N in all, on the same prompts.
        beta: What a nat of KL costs, where the task is judged on J; else 0.
    """

    study: str
    folder: Path
    task: TaskInfo
    cell: CellRecord
    evaluations: tuple[EvaluationRecord, ...]
    beta: float

    @property
    def worth(self) -> FloatArray:
        """What a preference weighs, `[N, K]`: scores, and less `beta KL` each where the task is judged on J."""
        return np.stack([less_price(each.scores, np.asarray(each.kl), self.beta) for each in self.evaluations])

    @property
    def units(self) -> FloatArray:
        """The width of each objective's range, `[K]`; where that has no end, how far the policies are apart."""
        widths = np.array([high - low for low, high in (each.range for each in self.task.trained)])
        apart = np.ptp(np.stack([each.scores for each in self.evaluations]), axis=0)
        return np.where(np.isfinite(widths), widths, np.where(apart > 0, apart, 1.0))

    def answering(self, preference: FloatArray) -> int | None:
        """Return which policy answers a preference `[K]` that was measured, None where none did."""
        record = self.cell.evaluation(preference)
        same = [index for index, each in enumerate(self.evaluations) if record and each.identity == record.identity]
        return same[0] if same else None

    def samples(self, first: int, second: int, turn: int, count: int) -> list[tuple[str, str, str]]:
        """Return some prompts, each with what two policies said to it; those only that they answer differently.

        Args:
            first: Number of a policy.
            second: Of another.
            turn: How often something was shown before: other turns, other prompts.
            count: How many prompts; fewer where there are not so many, all the same where they answer all alike.
        """
        a, b = (self.evaluations[each] for each in (first, second))
        said = dict(zip(zip(b.prompt_ids, b.samples.tolist(), strict=True), b.completions, strict=True))
        rows: dict[str, tuple[str, str, str]] = {}
        for name, sample, prompt, text in zip(a.prompt_ids, a.samples.tolist(), a.prompts, a.completions, strict=True):
            other = said.get((name, sample))
            if other is not None and (name not in rows or (text != other and rows[name][1] == rows[name][2])):
                rows[name] = prompt, text, other
        differing = [row for row in rows.values() if row[1] != row[2]] or list(rows.values())
        return [differing[(turn * count + place) % len(differing)] for place in range(min(count, len(differing)))]


def candidates(folder: str | Path, task: str | None = None, method: str | None = None) -> Candidates:
    """Return the measured policies of a study to choose from.

    Those of one method, at its largest budget, of the first seed that has finished.

    Args:
        folder: Folder of a study.
        task: One of its tasks; needed where it has several.
        method: Label of a method; by default the one whose answers are worth most, on average over preferences and
            seeds, of those with several policies.

    Raises:
        RecordError: If the folder is no study.
        UnknownNameError: If it has no such task or method.
        StudyError: If nothing can be compared, with the reason.
    """
    root = Path(folder)
    study = read_study(root)
    if task is None and len(study.tasks) > 1:
        raise ConfigError(f"task must be one of {', '.join(study.tasks)}, got none. Name one with --task.")
    name = next(iter(study.tasks)) if task is None else check_choice("task", task, study.tasks)
    info = study.tasks[name]
    if info.contextual:
        raise StudyError(
            f"users of task '{name}' must want the same of every prompt, got a task whose preferences depend on the "
            "prompt. Compare policies of another task."
        )
    cells = [cell for cell in study.cells if cell.task == name and cell.state == "done"]
    if not cells:
        raise StudyError(f"study '{study.name}' must have a finished cell of '{name}', got none. Run it first.")
    labels = dict.fromkeys(cell.method for cell in cells)
    if method is not None:
        check_choice("method", method, labels)
    offers = {label: _offer(study, root, info, [each for each in cells if each.method == label]) for label in labels}
    choosable = {label: each for label, each in offers.items() if len(each.candidates.evaluations) > 1}
    if not choosable or (method is not None and method not in choosable):
        others = f" Name another with --method: {', '.join(choosable)}." if choosable else " Run a method with several."
        what = f"method '{method}'" if method is not None else f"a method of '{name}'"
        asked = [offers[method]] if method is not None else list(offers.values())
        most = max(len(each.candidates.evaluations) for each in asked)
        lacking = sum((each.lacking for each in asked), Counter[str]())
        left_out = "".join(f"; left out: {count} without {part}" for part, count in lacking.items())
        raise StudyError(f"{what} must have two policies, to compare them, got {most}{left_out}.{others}")
    if method is None:
        ranked = [label for label in choosable if choosable[label].candidates.cell.family != "ceiling"] or list(
            choosable
        )
        method = max(ranked, key=lambda label: choosable[label].worth)  # of equal ones the first
    return choosable[method].candidates


@dataclass(frozen=True, eq=False)
class _Offer:
    """What a method's first cell at its largest budget offers.

    Attributes:
        candidates: Its policies.
        worth: Of the method's answers, mean over preferences and seeds; -inf where one is not known.
        lacking: How many policies are left out, by what they lack.
    """

    candidates: Candidates
    worth: float
    lacking: Counter[str]


def _offer(study: StudyRecords, root: Path, info: TaskInfo, cells: Sequence[CellRecord]) -> _Offer:
    largest = max(cell.budget_completions for cell in cells)
    chosen = sorted((cell for cell in cells if cell.budget_completions == largest), key=lambda cell: cell.seed)
    everything = np.ones(len(info.preferences), dtype=np.bool_)
    worth = [mean for cell in chosen if not isinstance(mean := achieved(study, cell).mean(everything), str)]
    first = chosen[0]
    price = price_of_kl(study, info, first.seed, info.judged_on)
    offered: dict[str, EvaluationRecord] = {}
    lacking: dict[str, str] = {}
    for each in first.evaluations:
        if each.split == "test":
            part = _lacks(each, price)
            if part:
                lacking[each.identity] = part
            else:
                offered.setdefault(each.identity, each)
    made = Candidates(study.name, cell_folder(root, first.cell), info, first, tuple(offered.values()), price or 0.0)
    return _Offer(made, float(np.mean(worth)) if len(worth) == len(chosen) else -np.inf, Counter(lacking.values()))


def _lacks(evaluation: EvaluationRecord, price: float | None) -> str:
    """Say what is missing to know what an evaluation is worth; empty where nothing is."""
    if not np.isfinite(evaluation.scores).all():
        return "a score of every objective"
    if price is None:
        return "a record of what KL costs on their task instance"
    return "a known KL, which the task is judged on" if price and not np.isfinite(evaluation.kl) else ""
