"""Under which conditions seconds were measured, and what makes them mean less than they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from paretune.metrics.seeds import span
from paretune.records.study import CellRecord, StageRecord

BUSY_LOAD = 1.5  # processes a core that run or wait for one: our own workers are one a core at most
BUSY_SHARE = 0.8  # of the seconds on the wall; of three processes on two cores each has a core for .67 of them
COMPUTING = ("sampling", "reference", "update")  # phases in which a thread computes all the time; scoring may wait
LEAST_SECONDS = 1.0  # of computing, below which its share of a core says little


class Busy(NamedTuple):
    """How busy the machine was while a cell was trained.

    Attributes:
        load: Mean load average, weighted by the seconds of stages; None where it was not recorded.
        cores: Of the machines, fewest first, each number once.
        load_per_core: The same mean of each attempt's load divided by the cores of its own machine.
        share: CPU seconds of a second of computing on the CPU, of all threads together; None where that is not known.
            One thread on an idle machine has 1. Two threads have 2, and 1 where each gets half a core: such a worker is
            not marked until it has less than what one thread would need.
    """

    load: float | None
    cores: tuple[int, ...]
    load_per_core: float | None
    share: float | None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the machine counts as busy; empty where it does not."""
        said = []
        if self.load_per_core is not None and self.load_per_core > BUSY_LOAD:
            said.append(f"load {self.load:.1f} on {span(self.cores)} cores")
        if self.share is not None and self.share < BUSY_SHARE:
            said.append(f"a core for {100 * self.share:.0f} % of the time")
        return tuple(said)


def busy(stages: Sequence[StageRecord]) -> Busy:
    """Return how busy the machine was while some stages were trained."""
    loads = [
        (stage.seconds / len(stage.attempts), attempt["load"], attempt["machine_cores"])
        for stage in stages
        for attempt in stage.attempts
        if attempt.get("load") is not None
    ]
    seconds = sum(each[0] for each in loads)
    cores = tuple(sorted({each[2] for each in loads}))
    if not seconds:
        return Busy(None, cores, None, _share_of_a_core(stages))
    load = sum(weight * load for weight, load, _ in loads) / seconds
    per_core = sum(weight * load / mine for weight, load, mine in loads) / seconds
    return Busy(load, cores, per_core, _share_of_a_core(stages))


def _share_of_a_core(stages: Sequence[StageRecord]) -> float | None:
    wall = cpu = 0.0
    for stage in stages:
        phases = [phase for phase in COMPUTING if stage.phases.get(phase)]
        known = [stage.cpu_phases.get(phase) for phase in phases]
        if any(each is None for each in known) or devices(stage) != {"cpu"}:  # beside a GPU, the CPU waits for it
            continue
        wall += sum(stage.phases[phase] for phase in phases)
        cpu += sum(each or 0.0 for each in known)
    return cpu / wall if wall >= LEAST_SECONDS else None


def devices(stage: StageRecord) -> set[str | None]:
    """Return on what a stage was trained, `cpu` or the name of a GPU; None among them where it is not on record."""
    return {attempt.get("device") for attempt in stage.attempts} or {None}


def threads(stages: Iterable[StageRecord]) -> list[int]:
    """Return with how many threads some stages were trained, each number once."""
    return sorted({attempt["threads_per_worker"] for stage in stages for attempt in stage.attempts if attempt})


def seconds_note(cells: Sequence[CellRecord]) -> str:
    """Say why the seconds of cells may not be those of another run: attempts, threads, devices, a busy machine.

    Args:
        cells: One a seed; those that are not finished do not count. What is not on record is not said.
    """
    done = [cell for cell in cells if cell.state == "done"]
    stages = [stage for cell in done for stage in cell.stages]
    tries = {cell.seed: max((len(stage.attempts) for stage in cell.stages), default=1) for cell in done}
    again = [seed for seed, count in tries.items() if count > 1]
    most = max(tries.values(), default=1)
    up_to = "up to " * (len({tries[seed] for seed in again}) > 1)
    said = [f"trained in {up_to}{most} attempts ({seeds(again)})"] if again else []
    counts, places = threads(stages), sorted({each for stage in stages for each in devices(stage) if each})
    said += [f"with {listed(map(str, counts))} threads"] if len(counts) > 1 else []
    said += [f"on {listed(places)}"] if len(places) > 1 else []
    crowded = {cell.seed: found for cell in done if (found := busy(cell.stages)).reasons}
    if crowded:
        worst = max(
            crowded.values(), key=lambda each: (each.load_per_core or 0.0, -1.0 if each.share is None else -each.share)
        )
        said.append(f"machine was busy: {', '.join(worst.reasons)} ({seeds(list(crowded))})")
    return "; ".join(said)


def seeds(numbers: Sequence[int]) -> str:
    """Name some seeds."""
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def listed(words: Iterable[str]) -> str:
    """Name some things, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
