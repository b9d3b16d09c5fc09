"""Write docs/results/pair_reflection.md from a finished run of `run.py`.

    python recipes/pair_reflection/summarise.py results/pair_reflection

Every number and every sentence about an outcome is made from the records, whatever they say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import ParetuneError, RecordError
from paretune.core.preferences import centre, preference_label
from paretune.core.protocols import FAMILIES
from paretune.records.evaluation import EvaluationRecord, utility
from paretune.records.reading import read_study
from paretune.records.study import CellRecord, StudyRecords, TaskInfo
from paretune.report.wording import count
from paretune.statistics.intervals import Interval, mean_interval

FloatArray = NDArray[np.float64]
PAGE, FRONT = "pair_reflection.md", "pair_reflection_front.png"
SHOWN = 5  # completions
NOT_SHOWN = re.compile(
    r"\b(suicid|kill|die\b|dying|dead|death|abus|rape|depress|giving up|sex|condom|vagina|hiv|std|sti\b|coke\b|heroin"
    r"|meth\b|needle|gun\b|hurt myself|hurting myself)|\*\*",
    re.IGNORECASE,
)
"""Texts that stay out of the samples: nobody should meet these by surprise on a page about methods."""

LIMITS = """\
- One training seed. The intervals are over test prompts with these policies as they are; they do not say what another
  seed would give, and a difference between two methods here may be one between two runs.
- The reflection judge is a small classifier, trained on the same collection as the prompts. A higher score is a higher
  score of that judge. It can be misled: `recipes/pair_reflection/README.md` names a sentence that fits anybody and
  scores as people's reflections do.
- Empathy and brevity are rules over words. They do not notice a feeling that does not fit, or words that make no sense.
- The fluency audit is an n-gram model of PAIR's training text, and the base model has read that text, too. It tells
  usual word order from unusual. It reads neither the prompt nor the meaning, and rare but good words cost.
- The base model is small and speaks plausible short English, no more. Nothing here is about large
  models, about counselling, or about what helps anyone. **No completion is advice.**
- All methods share one learning rate, found on development prompts with a tuning seed; none was tuned on its own."""


@dataclass(frozen=True)
class Outcome:
    """One method's finished cell, or the base model, by preference and test prompt.

    Attributes:
        name: Of the method.
        records: One evaluation a preference; for the base model the same one each time.
        rewards: Mean over samples, `[M, N, K + audit]` for M preferences and N prompts.
        utility: `preference . rewards`, `[M, N]`.
        cell: Where it comes from; None for the base model.
    """

    name: str
    records: tuple[EvaluationRecord, ...]
    rewards: FloatArray
    utility: FloatArray
    cell: CellRecord | None


def main() -> int:
    """Read the study, write the page and its figure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what run.py wrote, its --output")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of the page")
    arguments = parser.parse_args()
    try:
        text = page(read_study(arguments.folder / "study"), command(arguments.folder), duration(arguments.folder))
        figure = arguments.folder / "study" / "report" / "figures" / "front.png"
        if not figure.is_file():
            raise RecordError(f"{figure} must exist, got no such file. Run run.py again, or `paretune report`.")
    except ParetuneError as error:
        print(f"pair_reflection: {error}", file=sys.stderr)
        return 2
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / PAGE).write_text(text, encoding="utf-8")
    shutil.copy(figure, arguments.results / FRONT)
    print(arguments.results / PAGE)
    return 0


def command(folder: Path) -> str:
    """Return the command that made a run.

    Raises:
        RecordError: If `run.py` has not come to its end there.
    """
    file = folder / "command.txt"
    if not file.is_file():
        raise RecordError(f"{file} must exist, got no such file. Let recipes/pair_reflection/run.py come to its end.")
    return file.read_text(encoding="utf-8").strip()


def duration(folder: Path) -> str:
    """Say how long the last call of `run.py` took, and whether it did everything."""
    file = folder / "call.json"
    call = json.loads(file.read_text(encoding="utf-8"))
    minutes, seconds = divmod(call["seconds"], 60)
    what = "The command took" if call["from_nothing"] else "The last call, which finished what earlier ones left, took"
    return f"{what} {minutes}:{seconds:02d} minutes, report included."


def page(study: StudyRecords, command_line: str, took: str) -> str:
    """Return the page.

    Args:
        study: What was run.
        command_line: The command that ran it.
        took: A sentence: how long it took.

    Raises:
        RecordError: If no method is finished, or the base model was not evaluated.
    """
    task = next(iter(study.tasks.values()))
    base, methods = outcomes(study, task)
    budget = study.cells[0].budget_completions
    unfinished = [
        f"`{cell.method}` is {cell.state}: {cell.message or cell.reason}"
        for cell in study.cells
        if cell.state != "done"
    ]
    return "\n".join(
        [
            "# PAIR: three methods on real counselling prompts",
            "",
            f"One method of each family, {budget:,} completions each, seed {study.cells[0].seed}. Objectives: "
            "reflection (a small classifier), empathy and brevity (rules); fluency is an audit no method trains on. "
            f"{task.test_prompts} test prompts, {count(task.samples, 'completion')} for each prompt and preference, "
            "temperature 1.",
            "",
            "```bash",
            command_line,
            "```",
            f"{machine(study)}. {took} The prompts are people's own words from PAIR (Min et "
            "al. 2022, Apache 2.0); `recipes/pair_reflection/README.md` says what each score is.",
            "",
            *([*unfinished, ""] if unfinished else []),
            "## Methods",
            *method_table(task, base, methods),
            "",
            "Brackets: 95 % Student-t interval over test prompts, paired with the base model's. KL in nats a reply.",
            "",
            "## Every preference",
            *preference_table(task, base, methods),
            "",
            f"![Front: mean rewards of every policy, one panel a pair of objectives]({FRONT})",
            "",
            "## Five completions",
            *samples(task, base, methods),
            "",
            "## What it shows",
            *findings(task, base, methods),
            "",
            "## What it does not show",
            LIMITS,
            "",
        ]
    )


def outcomes(study: StudyRecords, task: TaskInfo) -> tuple[Outcome, list[Outcome]]:
    """Return the base model and every finished method.

    Raises:
        RecordError: If one side is missing.
    """
    cells = [cell for cell in study.cells if cell.state == "done" and cell.family in FAMILIES]  # the base model apart
    reference = next(iter(study.references.values()), None)
    if not cells or reference is None:
        what = "no finished method" if not cells else "no evaluation of the base model"
        raise RecordError(f"{study.folder} must hold finished methods and the base model, got {what}. Run it again.")
    base = outcome(task, "base model", (reference,) * len(task.preferences), None)
    return base, [outcome(task, cell.method, cell.evaluations, cell) for cell in cells]


def outcome(task: TaskInfo, name: str, records: tuple[EvaluationRecord, ...], cell: CellRecord | None) -> Outcome:
    """Average each record over the samples of a prompt."""
    rewards = np.stack([by_prompt(record) for record in records])
    scores = rewards[:, :, : len(task.trained)]
    utilities = np.stack([utility(each, preference) for each, preference in zip(scores, task.preferences, strict=True)])
    return Outcome(name, records, rewards, utilities, cell)


def by_prompt(record: EvaluationRecord) -> FloatArray:
    """Return mean rewards `[N, K + audit]`, prompts in the order of their ids; NaN where all samples miss."""
    ids = np.asarray(record.prompt_ids)
    present = ~np.isnan(record.rewards)
    filled = np.where(present, record.rewards, 0.0)
    return np.stack(
        [
            np.where(
                present[ids == each].any(axis=0),
                filled[ids == each].sum(axis=0) / np.maximum(1, present[ids == each].sum(axis=0)),
                np.nan,
            )
            for each in sorted(set(record.prompt_ids))
        ]
    )


def machine(study: StudyRecords) -> str:
    """Name the versions and the processor."""
    known = study.environment
    return (
        f"paretune {known.get('paretune')}, torch {known.get('torch')}, Python {known.get('python')}, "
        f"{known.get('gpu') or known.get('cpu')}, {known.get('cores')} cores"
    )


def method_table(task: TaskInfo, base: Outcome, methods: list[Outcome]) -> list[str]:
    """Return one line a method: means over all preferences."""
    audit = [each.name for each in task.objectives if each.audit]
    head = [
        "method",
        "family",
        "mean utility",
        "gain over base",
        *(f"{name} (audit)" for name in audit),
        "KL",
        "policies",
    ]
    rows = [["base model", "", f"{mean(base.utility):.3f}", "", *audit_means(task, base), "0", "1"]]
    for each in methods:
        gain = over_prompts(each.utility - base.utility)
        policies = len({record.identity for record in each.records})
        kl = float(np.mean([record.kl for record in each.records]))
        family = each.cell.family if each.cell else ""
        rows.append(
            [
                f"`{each.name}`",
                family,
                f"{mean(each.utility):.3f}",
                signed(gain),
                *audit_means(task, each),
                f"{kl:.1f}",
                str(policies),
            ]
        )
    return table(head, rows)


def preference_table(task: TaskInfo, base: Outcome, methods: list[Outcome]) -> list[str]:
    """Return one line a preference and method."""
    names = [each.name for each in task.objectives]
    head = ["preference", "method", "answered by", *names, "KL", "words", "different replies"]
    rows = [["none", "base model", "", *scores(base, 0), "0", *shape(base.records[0])]]
    for index, preference in enumerate(task.preferences):
        label = preference_label(preference, [each.name for each in task.trained])
        label += " (given to no method)" if task.unseen[index] else ""
        for each in methods:
            record = each.records[index]
            rows.append(
                [label, f"`{each.name}`", record.answer, *scores(each, index), f"{record.kl:.1f}", *shape(record)]
            )
    return table(head, rows)


def findings(task: TaskInfo, base: Outcome, methods: list[Outcome]) -> list[str]:
    """Say what the records say, interval by interval."""
    lines = []
    for each in methods:
        gain = over_prompts(each.utility - base.utility)
        lines.append(
            f"- `{each.name}`: utility over all preferences {verdict(gain)} that of the base model, {signed(gain)}."
        )
    for one, two in itertools.combinations(methods, 2):
        gap = over_prompts(one.utility - two.utility)
        lines.append(
            f"- `{one.name}` minus `{two.name}`: {signed(gap)}; the first {verdict(gap)} the second on these prompts."
        )
    for k, objective in enumerate(task.trained):
        corner = corner_index(task, k)
        if corner is not None:
            changes = at_corner(task, base, methods, k, corner)
            lines.append(f"- All weight on {objective.name}, against the base model: {changes}.")
    for j, audit in enumerate(task.objectives):
        if audit.audit:
            audited = {each.name: over_prompts((each.rewards - base.rewards)[:, :, j]) for each in methods}
            told = [f"`{name}` {verdict(change)} the base model, {signed(change)}" for name, change in audited.items()]
            lines.append(f"- The audit, {audit.name} over all preferences: {'; '.join(told)}.")
    lines.append("- Where an audit falls while rewards rise, the rewards were paid for in language.")
    return lines


def at_corner(task: TaskInfo, base: Outcome, methods: list[Outcome], k: int, corner: int) -> str:
    """Say how an objective changes where it has all weight, and which other scores fall there for certain."""
    own, falls = [], []
    for each in methods:
        for j, other in enumerate(task.objectives):
            change = over_prompts((each.rewards - base.rewards)[corner, :, j])
            if j == k:
                own.append(f"`{each.name}` {signed(change)}")
            elif verdict(change) == "is below":
                falls.append(f"{other.name} of `{each.name}` {signed(change)}")
    cost = (
        f"below 0 with the whole interval: {', '.join(falls)}"
        if falls
        else "no other score falls with its whole interval"
    )
    return f"it changes by {', '.join(own)}; {cost}"


def samples(task: TaskInfo, base: Outcome, methods: list[Outcome]) -> list[str]:
    """Show five completions for equal weights, chosen by position, not by score."""
    best = max(methods, key=lambda each: mean(each.utility))
    target = centre(len(task.trained))
    index = int(np.abs(task.preferences - target).sum(axis=1).argmin())
    record = best.records[index]
    first = {prompt_id: row for row, prompt_id in reversed(list(enumerate(record.prompt_ids)))}
    before = {prompt_id: row for row, prompt_id in reversed(list(enumerate(base.records[0].prompt_ids)))}
    fit = [
        prompt_id
        for prompt_id, row in sorted(first.items())
        if not any(
            NOT_SHOWN.search(text)
            for text in (record.prompts[row], record.completions[row], base.records[0].completions[before[prompt_id]])
        )
    ]
    chosen = [fit[place] for place in np.linspace(0, len(fit) - 1, min(SHOWN, len(fit))).astype(int)]
    label = preference_label(task.preferences[index], [each.name for each in task.trained])
    lines = [
        f"Of `{best.name}`, the method with the highest mean utility here, for the preference nearest to equal weights "
        f"({label}). The rule: where the prompt or a reply has words for violence, death, sex, hard drugs or "
        "depression, it is left out "
        f"({len(first) - len(fit)} of {len(first)}); of the rest, {len(chosen)} evenly spaced by id, the first sample "
        "of each, whatever it says. **They are samples of a small model that has learned to score, and no advice.**",
        "",
    ]
    names = [each.name for each in task.objectives]
    for prompt_id in chosen:
        row = first[prompt_id]
        rewards = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, record.rewards[row], strict=True))
        lines += [
            f"- {quoted(record.prompts[row])}",
            f"  - `{best.name}`: {quoted(record.completions[row])} ({rewards})",
            f"  - base model: {quoted(base.records[0].completions[before[prompt_id]])}",
        ]
    return lines


def corner_index(task: TaskInfo, k: int) -> int | None:
    """Return which preference has all weight on objective k, if one has."""
    found = np.flatnonzero(task.preferences[:, k] == 1.0)
    return int(found[0]) if len(found) else None


def over_prompts(values: FloatArray) -> Interval | None:
    """Return the interval over prompts of values `[M, N]` or `[N]`, preferences averaged; None where all miss."""
    each = values if values.ndim == 1 else values.mean(axis=0)
    measured = each[np.isfinite(each)]
    return mean_interval(measured) if len(measured) else None


def mean(values: FloatArray) -> float:
    """Return the mean over preferences and those prompts that were measured."""
    found = over_prompts(values)
    return found.mean if found else float("nan")


def signed(value: Interval | None) -> str:
    """Write a difference with its interval."""
    if value is None:
        return "not measured"
    ends = "" if value.low is None or value.high is None else f" [{value.low:+.3f}, {value.high:+.3f}]"
    return f"{value.mean:+.3f}{ends}"


def verdict(value: Interval | None) -> str:
    """Say on which side of 0 an interval lies."""
    if value is None or value.low is None or value.high is None:
        return "cannot be compared with"
    return "is above" if value.low > 0 else "is below" if value.high < 0 else "cannot be told from"


def audit_means(task: TaskInfo, each: Outcome) -> list[str]:
    """Return the mean of each audit over preferences and prompts."""
    return [f"{mean(each.rewards[:, :, j]):.3f}" for j, objective in enumerate(task.objectives) if objective.audit]


def scores(each: Outcome, index: int) -> list[str]:
    """Return the mean of each objective and audit for one preference."""
    return [f"{mean(each.rewards[index, :, j]):.3f}" for j in range(each.rewards.shape[2])]


def shape(record: EvaluationRecord) -> list[str]:
    """Return the mean number of words, and the share of replies that are not the same as another."""
    words = float(np.mean([len(text.split()) for text in record.completions]))
    return [f"{words:.1f}", f"{len(set(record.completions)) / len(record.completions):.0%}"]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return Markdown lines."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def quoted(text: str) -> str:
    """Return a text as one line that Markdown leaves alone."""
    return "“" + re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split())) + "”"


if __name__ == "__main__":
    sys.exit(main())
