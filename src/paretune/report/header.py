"""The top of the page: what was run, what is missing, how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from paretune.core.seeds import FIRST_TUNING_SEED
from paretune.metrics.configuration import COSTS, ITEMS, Finding
from paretune.records.study import StudyRecords, TaskInfo
from paretune.report.comparison import Comparison
from paretune.report.completeness import STATUSES, failure, missing_rewards, missing_shares, started_parts, state_counts
from paretune.report.wording import count, listing

MOST_SAID = 3  # differences between compared cells, in the banner


def subtitle(study: StudyRecords, parts: Sequence[Comparison]) -> str:
    """Say in one sentence what this is a report of."""
    tasks = list(dict.fromkeys(part.task.name for part in parts))
    methods = list(dict.fromkeys(method.name for part in parts for method in part.ranked))
    ceilings = any(method.ceiling for part in parts for method in part.methods)
    compared = f"{count(len(methods), 'method')}{' and a ceiling' if ceilings else ''}"
    tuning = any(cell.seed >= FIRST_TUNING_SEED for cell in study.cells)
    warning = " On tuning instances: for choosing settings, not for reporting." if tuning else ""
    return (
        f"Report of a paretune study: {compared} compared on {listing(tasks) or 'no task'}, each training language "
        f"models for several objectives at once.{warning}"
    )


def key_figures(study: StudyRecords, parts: Sequence[Comparison]) -> list[dict[str, str]]:
    """Return the figures a reader should see first: name, value, detail."""
    states = state_counts(study)
    lost = missing_rewards(study)
    seeds = sorted({cell.seed for cell in study.cells})
    key_figures = [
        _key_figure("cells finished", f"{states['done']} of {len(study.cells)}", _states(states)),
        _key_figure("seeds", f"{len(seeds)}", listing([str(seed) for seed in seeds]) if len(seeds) <= 10 else ""),
        _key_figure("rewards missing", f"{lost.missing:,}", f"of {lost.total:,}, tests and base model"),
    ]
    by_task = {task: _task_figures(study.tasks[task]) for task in dict.fromkeys(part.task.name for part in parts)}
    for same in zip(*by_task.values(), strict=True):
        if all(figure == same[0] for figure in same):
            key_figures.append(same[0])
        else:
            key_figures += [
                figure | {"name": f"{figure['name']} ({task})"} for task, figure in zip(by_task, same, strict=True)
            ]
    return key_figures


def _task_figures(info: TaskInfo) -> list[dict[str, str]]:
    audits = [each.name for each in info.objectives if each.audit]
    corner = ", ".join(f"{each:g}" for each in info.reference_point)
    model = "one per seed" if info.family_settings else "/".join(info.model.split("/")[-2:])
    beta = ", one per seed" if info.family_settings else f" {info.beta:.3g}"
    sampled = f"{count(info.samples, 'completion')} of each per preference"
    scored = f"scored over all completions; {sampled} to read" if info.listed else sampled
    return [
        _key_figure(
            "objectives",
            listing([each.name for each in info.trained]),
            f"audit, never trained on: {listing(audits)}" if audits else "no audit",
        ),
        _key_figure("preferences", f"{len(info.preferences)}", f"{int(info.unseen.sum())} of them unseen in training"),
        _key_figure("test prompts", f"{info.test_prompts}", scored),
        _key_figure("reference point", f"({corner})", "fixed in the task"),
        _key_figure("base model", model, f"KL coefficient beta{beta}; judged on {info.judged_on}"),
    ]


def configuration_figure(found: Sequence[Finding]) -> list[dict[str, str]]:
    """Return whether the compared cells were run alike, as a key figure; nothing where nothing is compared."""
    if not found:
        return []
    differs = list(dict.fromkeys(each.item for each in found if each.state == "differs"))
    unknown = {each.item for each in found if each.state == "not on record"} - set(differs)
    value = f"{count(len(differs), 'item')} {'differs' if len(differs) == 1 else 'differ'}" if differs else "identical"
    detail = [listing(differs)] * bool(differs) + [f"{len(unknown)} not on record"] * bool(unknown)
    return [_key_figure("configurations", value, "; ".join(detail)) | {"link": "#trust"}]


def unequal(found: Sequence[Finding]) -> list[str]:
    """Say what makes qualities of compared cells mean something else; what changes their seconds is no news here."""
    qualities = {each.name for each in ITEMS if COSTS not in each.suffers}
    said = [
        f"{each.task}, {each.budget_completions:,} completions: {each.sentence}"
        for each in found
        if each.state == "differs" and each.item in qualities
    ]
    more = [f"{len(said) - MOST_SAID} more such differences stand under Trust."] if len(said) > MOST_SAID else []
    return [*said[:MOST_SAID], *more]


def _key_figure(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}


def _states(states: Mapping[str, int]) -> str:
    return f"{states.get('failed', 0)} failed, {states.get('pending', 0)} not run"


def failures(study: StudyRecords) -> list[dict[str, str]]:
    """Return every failed or damaged cell with its reason."""
    return [
        {
            "cell": f"{cell.method}, {cell.task}, {cell.budget_completions:,} completions, seed {cell.seed}",
            "reason": failure(cell),
            "message": cell.message,
        }
        for cell in study.cells
        if cell.state == "failed" or (cell.state == "pending" and cell.message)
    ]


def lost_rewards(study: StudyRecords) -> list[str]:
    """Say how many rewards of which objective are missing, and why."""
    causes = missing_rewards(study).causes.items()
    why = [f"{name}: {amount:,} because {STATUSES.get(status, status)}" for (name, status), amount in causes]
    return [*why, *missing_shares(study)]


def commands(study: StudyRecords) -> list[str]:
    """Return the commands that finish the study, train it anew, and rewrite this page; if merged, only the last."""
    if study.folder is None:  # its parts lie in several folders, and none of them is this one
        return [f"paretune report {' '.join(map(shlex.quote, study.merged_from)) or 'DIR DIR'} -o OUT"]
    folder = study.folder.name or "."
    again = f"{folder}-again" if folder != "." else "again"
    running, waiting = started_parts(study)
    parts = [f" --part {name}" for name in running] if waiting else [""]
    return [
        *(f"paretune run study.yaml{part} -o ." for part in parts),
        *(f"paretune run study.yaml{part} -o ../{again}" for part in parts),
        "paretune report .",
    ]
