"""Training efficiency: what a method spends in all, and what it must wait for however many machines there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from paretune.core.protocols import MetricRow
from paretune.metrics.seeds import Group, Measure, groups, over_seeds
from paretune.records.study import CellRecord, StageRecord, StudyRecords

COSTS: Mapping[str, Callable[[StageRecord], float]] = {
    "completions": lambda stage: stage.counts.get("completions", 0.0),
    "tokens": lambda stage: stage.counts.get("tokens", 0.0),
    "seconds": lambda stage: stage.seconds,
    "flops": lambda stage: stage.counts.get("flops", 0.0),
}


class TrainingEfficiency:
    """Completions, tokens, seconds and FLOPs of every stage a cell uses.

    A stage that several cells share is charged in full to each, as if the method had been run alone. What a kill made
    the runner do twice is not charged.

    Rows by label: `sum: ...`, everything the cell uses; `chain: ...`, the most expensive chain of stages that wait for
    one another, which is the cost on unlimited machines; `peak: memory_bytes`, of the largest stage.

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
        return [row for group in groups(study) for row in self._rows(group)]

    def _rows(self, group: Group) -> list[MetricRow]:
        rows = [
            group.row(self.name, f"{way}: {unit}", over_seeds(group.cells, _counted(unit, total)))
            for way, total in (("sum", stage_sum), ("chain", longest_chain))
            for unit in COSTS
        ]
        rows.append(group.row(self.name, "peak: memory_bytes", over_seeds(group.cells, _peak_memory)))
        return rows


def stage_sum(stages: Sequence[StageRecord], cost: Callable[[StageRecord], float]) -> float | str:
    """Return the cost of all stages together, each once."""
    return sum(cost(stage) for stage in {stage.key: stage for stage in stages}.values())


def longest_chain(stages: Sequence[StageRecord], cost: Callable[[StageRecord], float]) -> float | str:
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


def _counted(
    unit: str, total: Callable[[Sequence[StageRecord], Callable[[StageRecord], float]], float | str]
) -> Measure:
    def measure(cell: CellRecord) -> float | str:
        cost = COSTS[unit]
        for stage in cell.stages:
            if cost(stage) == 0 and COSTS["completions"](stage) > 0:  # sampling costs something: 0 was never counted
                return f"has a stage ({stage.kind}) whose {unit} were not counted"
        return total(cell.stages, cost)

    return measure


def _peak_memory(cell: CellRecord) -> float | str:
    peaks = [stage.peak_memory_bytes for stage in cell.stages]
    return float(max(peaks)) if peaks and min(peaks) > 0 else "has stages whose memory was not measured"
