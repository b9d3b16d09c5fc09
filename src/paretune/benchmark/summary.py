"""What a run or a plan says in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paretune.benchmark.planned import Plan, PlannedCell, StudyResult
from paretune.benchmark.study import Tune
from paretune.benchmark.undivided import undivided
from paretune.core.feedback import feedback_of
from paretune.core.protocols import CEILING, FAMILIES, REFERENCE, Family
from paretune.methods.banks import BANK
from paretune.methods.entries import MethodEntry, has_setting
from paretune.report import summary_table
from paretune.report.comparison import comparisons
from paretune.report.completeness import lone_policies, missing_rewards, missing_shares, one_policy, other_utility
from paretune.report.wording import MANY, count, listing
from paretune.tasks.checks import input_line

LITTLE = 0.01  # of a row's completions: remainders of another division are not worth a line
ONE_POLICY = "one_policy"  # which stands in every study
META: Family = "meta-policy"  # of methods that combine experts: none of these is a policy by itself
FEW_UPDATES = 10  # of a policy: fewer move it hardly away from the base model


def summary(result: StudyResult) -> str:
    """Return the table of a finished run, what failed, and where the report is."""
    lines = [summary_table(result.records, result.measured)]
    lines += [
        f"{cell.cell}: {cell.state}" + (f" ({cell.reason}): {cell.message}" if cell.reason else "")
        for cell in result.failed
    ]
    lines += result.problems
    lines += [f"note: {each}" for each in lone_policies(result.records, comparisons(result.records))]
    lines += missing_shares(result.records)
    missing = missing_rewards(result.records)
    if missing.missing:
        causes = ", ".join(f"{name} {number:,} ({status})" for (name, status), number in missing.causes.items())
        lines.append(
            f"{missing.missing:,} of {missing.total:,} test rewards are missing: {causes}. Mend the reward function "
            "(logs/ says what it did), raise its version in the task file, and run again."
        )
    if not result.complete:
        lines.append("run the same command again to retry what failed")
    lines.append(f"\nreport: {result.page}")
    return "\n".join(lines)


def state_lines(plan: Plan) -> list[str]:
    """Say which files are damaged, and which finished cells or trials of a sweep an edit has made stale, and why."""
    found: dict[tuple[str, str, str, str, bool], int] = {}
    for cell in plan.cells:
        if cell.state == "stale":
            noun = "cell" if cell.point is None else "trial"
            key = (cell.reason, noun, cell.entry.label, cell.task.name, cell.rescored)
            found[key] = found.get(key, 0) + 1
    tables = [each.reason for each in plan.tables if each.found.state == "damaged"]
    tables += [cell.reason for cell in plan.cells if cell.damaged]
    damaged = [f"damaged: {plan.trouble}. It is written again."] if plan.trouble else []
    damaged += [f"damaged: {each.trouble}" for each in plan.stages if each.trouble]
    damaged += [f"damaged: {reason}. It is measured again." for reason in dict.fromkeys(tables)]
    return damaged + [
        f"stale: {reason}; {count(cells, noun)} of {method} on {task} to "
        + ("score again from stored completions" if rescored else "do again")
        for (reason, noun, method, task, rescored), cells in found.items()
    ]


def plan_text(plan: Plan) -> str:
    """Return a plan for people."""
    width = max(len(cell.name) for cell in plan.cells)
    lines = [f"{cell.name:<{width}}  {cell.state:<10}  {cell.reason}".rstrip() for cell in plan.cells]
    states = ", ".join(
        f"{plan.count(state)} {state}"
        for state in ("finished", "stale", "unfinished", "failed", "new")
        if plan.count(state)
    )
    missing = sum(stage.state != "finished" for stage in plan.stages)
    begun = sum(stage.state == "unfinished" for stage in plan.stages)
    so_far = f" ({begun} of them begun: each goes on from its last checkpoint, with less to make)" if begun else ""
    lines += [
        "",
        *([] if plan.sweep is None else state_lines(plan.sweep)),
        *state_lines(plan),
        f"folder:   {plan.folder}",
        *_tuning(plan),
        f"cells:    {len(plan.cells)} ({states})",
        f"stages:   {len(plan.stages)}, {missing} to train{so_far}",
        *_policies(plan),
        *[f"input:    {input_line(task)}" for task in plan.tasks],
        f"training: {plan.completions_to_train:,} completions to make; {plan.completions_charged:,} charged to all "
        "cells, shared stages to each",
        f"testing:  {plan.completions_to_evaluate:,} completions to make, charged to nobody",
        f"time:     {_minutes(*plan.minutes)} with {count(plan.workers, 'worker')} (speed {plan.speed})",
    ]
    return "\n".join(lines)


def _minutes(low: float, high: float) -> str:
    """Return a range of minutes as people say it, in hours where it is long."""
    if high == 0:
        return "nothing left to do"
    if low < 1:
        return f"less than {count(math.ceil(high), 'minute')}"
    by, unit, digits = (60, "hours", 1) if low >= 120 else (1, "minutes", 0)
    shown = [
        f"{each / by:,.{digits if each / by < 10 else 0}f}"
        for each in (math.floor(low) if by == 1 else low, math.ceil(high))
    ]
    return f"{'–'.join(dict.fromkeys(shown))} {unit}"


def _tuning(plan: Plan) -> list[str]:
    """Say what is tuned, at which cost, and what was chosen."""
    sweep, tune = plan.sweep, plan.study.tune
    if sweep is None or tune is None:
        return []
    left = sum(cell.state != "finished" for cell in sweep.cells)
    factors = [
        _choices(tune, [entry for entry in plan.study.methods if entry.method.family in FAMILIES]),
        count(tune.instances, "instance"),
        count(len({cell.entry.label for cell in sweep.cells}), "method"),
        *([count(tasks, "task")] if (tasks := len({cell.task.name for cell in sweep.cells})) > 1 else []),
    ]
    make = sweep.completions_to_train + sweep.completions_to_evaluate
    rest = [entry.label for entry in plan.study.methods if entry.method.family == CEILING]
    lines = [
        f"tuning:   {' x '.join(factors)}, {left} of {len(sweep.cells)} trials left, {make:,} completions to make, "
        f"charged to nobody{f'; not tuned, as a ceiling: {listing(rest)}' if rest else ''}"
    ]
    lines += [
        f"left out: {name}, which {listing(lacking)} cannot set" for name, lacking in _lacking(plan, tune).items()
    ]
    for each in plan.tuned:
        chosen = "nothing could be scored" if each.chosen is None else each.points[each.chosen].text
        lines.append(f"chosen:   {chosen} ({each.method} on {each.task})")
    return lines


def _choices(tune: Tune, entries: Sequence[MethodEntry]) -> str:
    """Say how many points the grid of each method has."""
    sizes: dict[int, list[str]] = {}
    for entry in entries:
        sizes.setdefault(len(tune.points(entry)), []).append(entry.label)
    sizes.pop(0, None)  # these are not tuned
    if len(sizes) == 1:
        return count(next(iter(sizes)), "choice") + " of settings"
    each = [
        f"{size} ({listing(labels) if len(labels) <= MANY else count(len(labels), 'row')})"
        for size, labels in sizes.items()
    ]
    return f"{' or '.join(each)} choices of settings"


def _lacking(plan: Plan, tune: Tune) -> dict[str, list[str]]:
    """Return the settings of the sweep that some methods lack, and those methods."""
    entries = [entry for entry in plan.study.methods if entry.method.family in FAMILIES]
    found = {name: [each.label for each in entries if not has_setting(each.settings, name)] for name in tune.settings}
    return {name: labels for name, labels in found.items() if labels}


def _policies(plan: Plan) -> list[str]:
    """Say how many policies or experts each method trains, and of which one policy must answer every preference."""
    lines, notes, whole = [], [], undivided(plan.cells)
    first = {(cell.task.name, cell.budget, cell.entry.label): cell for cell in reversed(plan.cells)}
    for task, budget in dict.fromkeys((cell.task.name, cell.budget) for cell in plan.cells):
        mine = [cell for cell in first.values() if (cell.task.name, cell.budget) == (task, budget)][::-1]
        cells = [cell for cell in mine if cell.entry.method.family != REFERENCE]
        where = f"(trained for {task}, {budget:,} completions)"
        combining = [cell for cell in cells if cell.entry.method.family == META]
        lines += _trained("policies: ", [cell for cell in cells if cell not in combining], where)
        lines += _trained("experts:  ", combining, f"(combined to a policy for each preference; {where[1:]}")
        notes += [
            f"note:     {one_policy(label, budget, {'method': cell.entry.source, **settings}, label not in whole)}"
            for cell in cells
            for label, settings in [(cell.entry.label, cell.entry.settings)]
            if cell.policies == 1 and len(cell.training_preferences) > 1 and cell.entry.source != ONE_POLICY
        ]
    own = [
        other_utility(entry.label, {"method": entry.source, **entry.settings}, plan.study.metrics)
        for entry in plan.study.methods
    ]
    notes += [f"note:     {each}" for each in own if each]
    return lines + notes + _told(plan) + _few_updates(plan, list(first.values())[::-1]) + _trained_again(plan)


def _trained(noun: str, cells: Sequence[PlannedCell], where: str) -> list[str]:
    counts = ", ".join(f"{cell.entry.label} {cell.policies or 'as many as it finds'}" for cell in cells)
    return [f"{noun}{counts} {where}"] if cells else []


def _told(plan: Plan) -> list[str]:
    """Say, where what users want depends on the prompt, which rows cannot learn how, as they hear of none of it."""
    tasks = dict.fromkeys(cell.task.name for cell in plan.cells if cell.task.contextual)
    labels = [
        each.label
        for each in plan.study.methods
        if each.method.family in FAMILIES and each.source != ONE_POLICY and feedback_of(each.settings) == "told"
    ]
    if not tasks or not labels:
        return []
    return [
        f"note:     what users want depends on the prompt ({listing(list(tasks))}), and {listing(labels)} "
        f"{'is' if len(labels) == 1 else 'are'} told weights alone, from which it cannot be learnt. With feedback: "
        "utility a method hears what each completion is worth to its user (docs/learning.md)"
    ]


def _few_updates(plan: Plan, cells: Sequence[PlannedCell]) -> list[str]:
    """Say of each row where its shortest policy gets few updates, that its differences to others may not show."""
    fewest: dict[str, tuple[int, int]] = {}
    for cell in cells:
        for stage in (plan.by_key[key].stage for key in cell.stages):
            update = stage.settings.get("completions_per_update")
            if stage.completions and isinstance(update, int) and (stage.kind == "expert" or stage.run == BANK):
                mine = (math.ceil(stage.completions / update), stage.completions)
                fewest[cell.entry.label] = min(fewest.get(cell.entry.label, mine), mine)
    return [
        f"note:     {label} trains policies of {completions:,} completions, {count(updates, 'update')} each: often too "
        "few to tell methods apart"
        for label, (updates, completions) in fewest.items()
        if updates < FEW_UPDATES
    ]


def _trained_again(plan: Plan) -> list[str]:
    """Say of each row whose longer budgets do not go on from its shorter ones what that costs, over all its cells."""
    lines = []
    if len(plan.study.budgets) > 1:
        for label in dict.fromkeys(cell.entry.label for cell in plan.cells):
            mine = [cell for cell in plan.cells if cell.entry.label == label]
            longest = _made(plan, [cell for cell in mine if cell.budget == max(plan.study.budgets)])
            made = _made(plan, mine)
            if made > longest * (1 + LITTLE):
                lines.append(
                    f"note:     {label} trains some or all of its stages anew for each budget: {made:,} completions "
                    f"together, where the longest budget alone takes {longest:,}"
                )
    return lines


def _made(plan: Plan, cells: Sequence[PlannedCell]) -> int:
    """Return what some cells' stages make: of each trajectory as much as its longest, shorter ones on the way."""
    lengths: dict[str, int] = {}
    for each in {key: plan.by_key[key] for cell in cells for key in cell.stages}.values():
        trajectory = each.stage.trajectory_key(each.task)
        lengths[trajectory] = max(lengths.get(trajectory, 0), each.stage.completions)
    return sum(lengths.values())
