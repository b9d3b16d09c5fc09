"""Training efficiency: what a method spends in all, what it must wait for, and what one more preference costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from paretune.core.protocols import MetricRow
from paretune.metrics.conditions import devices, listed, seconds_note
from paretune.metrics.covering import Cost, borrowed, cost_of, cost_to_cover, marginal_cost, newcomers, stage_sum
from paretune.metrics.least_budget import least_budgets
from paretune.metrics.seeds import Group, Measure, answers, groups, over_seeds
from paretune.records.study import CellRecord, StageRecord, StudyRecords, TaskInfo

WALL = ("seconds", "gpu_seconds")  # units that depend on what else ran
TO_THE_BEST = "completions to 95 % of the best"
AMOUNT = (0.0, math.inf)
COVERED = ("completions", "seconds")  # units of what covers the grid, and of one more preference


def _counted(name: str) -> Callable[[StageRecord], float | None]:
    def cost(stage: StageRecord) -> float | None:
        return _some(stage, stage.counts.get(name, 0.0))

    return cost


def _some(stage: StageRecord, amount: float | None) -> float | None:
    """Return an amount; None where it was never counted: sampling costs something of everything."""
    return None if amount == 0 and stage.counts.get("completions", 0.0) > 0 else amount


def _gpu_seconds(stage: StageRecord) -> float | None:
    """Return the seconds for which a stage held its GPU, 0 on the CPU; None where its device is not one on record."""
    found = devices(stage)
    if None in found or ("cpu" in found and len(found) > 1):
        return None
    return 0.0 if found == {"cpu"} else _some(stage, stage.seconds)


COSTS: Mapping[str, Callable[[StageRecord], float | None]] = {
    "prompts": _counted("prompts"),
    "completions": lambda stage: stage.counts.get("completions", 0.0),
    "tokens": _counted("tokens"),
    "reward_calls": _counted("reward_calls"),
    "flops": _counted("flops"),
    "seconds": lambda stage: _some(stage, stage.seconds),
    "cpu_seconds": lambda stage: _some(stage, stage.cpu_seconds),
    "gpu_seconds": _gpu_seconds,
}


class TrainingEfficiency:
    """What training costs: prompts, completions, tokens, reward calls, FLOPs, seconds and memory of all stages.

    A stage that several cells share is charged in full to each, as if the method had been run alone. What a kill made
    the runner do twice is not charged. Lower is better. Intervals are Student-t over seeds. A seed has no value where a
    stage sampled and the cost was never counted, and the reason says which.

    Rows by label: `sum: ...`, everything the cell uses; `chain: ...`, the most expensive chain of stages that wait for
    one another, which is the cost on unlimited machines; each in `prompts`, `completions`, `tokens`, `reward_calls`,
    `flops`, `seconds` on the wall, `cpu_seconds` of all cores, and `gpu_seconds` of the GPU held, where one was used;
    `peak: memory_bytes`, of the largest stage.

    `cost to cover the grid: ...` and `marginal: ...`, in completions and in seconds: until each preference of the grid
    has an answer of its own, and for one more preference. A method that selects or combines what it has covers the grid
    with what it spent, and one more costs 0. One that lets the policy of another preference answer is charged the mean
    cost of a policy for each such preference of the grid, and for one more.

    `completions to 95 % of the best`, once a method, in the rows of the largest budget: the least budget of the study
    at which its mean gain over the base model, in what the task is judged on, reaches 95 % of the best method's at the
    largest. No interval; no value where one budget was run, where nothing gains, or where the method stays below.

    Beside seconds on the wall the reason says what makes them mean less, see `metrics.conditions`: several attempts,
    other threads or devices from seed to seed, a busy machine.

    Source:
        Kong et al. 2025, training efficiency.
    """

    name = "training_efficiency"
    title = "Training cost"
    unit = "as labelled"
    higher_is_better = False
    needs = ()

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        rows = [row for group in groups(study) for row in self._rows(group)]
        return rows + [group.row(self.name, TO_THE_BEST, value) for group, value in least_budgets(study)]

    def _rows(self, group: Group) -> list[MetricRow]:
        cells, note = group.cells, seconds_note(group.cells)
        rows = [
            group.row(
                self.name, f"{way}: {unit}", over_seeds(cells, _spent(unit, total), note * (unit in WALL), AMOUNT)
            )
            for way, total in (("sum", stage_sum), ("chain", longest_chain))
            for unit in COSTS
            if unit != "gpu_seconds" or _on_gpu(cells)
        ]
        rows.append(group.row(self.name, "peak: memory_bytes", over_seeds(cells, _peak_memory, within=AMOUNT)))
        for label, measure, said in (
            ("cost to cover the grid", cost_to_cover, _said_of_the_grid(group)),
            ("marginal", marginal_cost, _said_of_newcomers(group)),
        ):
            for unit in COVERED:
                both = "; ".join(each for each in (said, note * (unit in WALL)) if each)
                value = over_seeds(cells, _of_task(measure, group.task, unit), both, AMOUNT)
                rows.append(group.row(self.name, f"{label}: {unit}", value))
        return rows


def longest_chain(stages: Sequence[StageRecord], cost: Cost) -> float | str:
    """Return the cost of the most expensive chain of stages that wait for one another, or why it is unknown."""
    known = {stage.key: stage for stage in stages}
    finished_after: dict[str, float] = {}
    waiting = dict(known)
    while waiting:
        ready = [stage for stage in waiting.values() if all(need in finished_after for need in stage.needs)]
        if not ready:
            return "has no record of a stage that another one needs"
        for stage in ready:
            finished_after[stage.key] = cost(stage) + max((finished_after[need] for need in stage.needs), default=0.0)
            del waiting[stage.key]
    return max(finished_after.values(), default=0.0)


def _spent(unit: str, total: Callable[[Sequence[StageRecord], Cost], float | str]) -> Measure:
    return lambda cell: total(cell.stages, cost_of(cell, COSTS[unit], unit))


def _of_task(total: Callable[[CellRecord, TaskInfo, Cost], float | str], task: TaskInfo, unit: str) -> Measure:
    return lambda cell: total(cell, task, cost_of(cell, COSTS[unit], unit))


def _on_gpu(cells: Sequence[CellRecord]) -> bool:
    return any(device not in (None, "cpu") for cell in cells for stage in cell.stages for device in devices(stage))


def _peak_memory(cell: CellRecord) -> float | str:
    peaks = [stage.peak_memory_bytes for stage in cell.stages]
    return float(max(peaks)) if peaks and min(peaks) > 0 else "has stages whose memory was not measured"


def _said_of_the_grid(group: Group) -> str:
    """Say how many preferences of the grid a neighbour's policy answers; empty where none does."""
    found = [answers(cell, group.task, ~group.task.unseen) for cell in group.cells if cell.state == "done"]
    lacking = sorted({borrowed(records) for records in found if not isinstance(records, str)})
    if not any(lacking):
        return ""
    return (
        f"{' or '.join(map(str, lacking))} of {int((~group.task.unseen).sum())} preferences are answered by the policy "
        "of another one, and counted at the mean cost of a policy"
    )


def _said_of_newcomers(group: Group) -> str:
    """Say how preferences are answered that the method was not given."""
    found = [newcomers(cell, group.task) for cell in group.cells if cell.state == "done"]
    words = sorted({record.answer for records in found if not isinstance(records, str) for record in records})
    return f"preferences it was not given: {listed(words)}" if words else ""
