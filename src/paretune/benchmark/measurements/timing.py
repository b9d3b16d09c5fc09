"""Timing: what decoding with a method's policy costs beside its base model, while nothing else runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.preferences import centre
from paretune.core.protocols import REFERENCE, Table
from paretune.core.seeds import generator
from paretune.executors.jobs import Link
from paretune.records.files import write_json
from paretune.records.layout import TIMING, timing_folder
from paretune.records.study import TimedBatch, TimingRecord
from paretune.statistics.quantiles import median_interval

if TYPE_CHECKING:
    import torch

    from paretune.models.policy import Policy

SIZES = (1, 8)  # rows decoded at once: a single request, and a batch; more rows would take most of the seconds below
LEAST = 6  # rounds: of fewer values the median has no 95 % interval
MOST = 20  # rounds; stopping where an interval is narrow then costs it at most 1.5 points of its coverage (simulated)
NARROW = 0.025  # half the width of a ratio's interval, as a share of it, that is narrow enough
SECONDS = 8.0  # after which no round begins beyond the least
COMPLETIONS = (1 + LEAST) * sum(rows * (2 if rows == 1 else 3) for rows in SIZES)  # that a timing decodes at least

BASE, POLICY, MIXED = "base", "policy", "mixed"  # what decodes

Ready = Callable[[str, int, int, bool], Callable[[], object]]
Clock = Callable[[], float]


class Timing:
    """Latency, time to first token and memory of one cell of each method on each task: the first budget's, first seed.

    Three decoders answer the same prompts: the **base** model without experts, the **policy** for equal weights, and,
    from two rows on, the method's policies **mixed**, each row for another of the study's preferences. In a *round*
    each decodes once at every number of rows, in an order drawn anew, on the next test prompts. What a ratio compares
    is thus seconds apart, and the ratio of each round is one draw.

    A latency goes from the raw prompts to the texts, every reply run to the task's limit, so that a policy of long
    replies does not spread the reading of its prompts over more tokens than another. Rows of a batch step together and
    end together: the latency of the batch is that of each of its requests. The time to first token is that of an
    answer of one token; a policy that draws one of several whole completions shows none before these are there.

    **Clock.** On a processor CPU seconds of one thread: what a clock on the wall shows on an idle machine. Wall time
    hardly says anything while other work runs, and CPU seconds of several threads count those that wait for each
    other. On a GPU wall time, once the device has done its work. The record says which.

    **Rounds.** Six at least, then until the interval of every ratio at that number of rows is narrow, or there are 20,
    or the seconds are spent; the record says what ended them. So a large model is decoded seven times at each number of
    rows, whatever that takes.

    **Memory.** Of base and policy, once, in the call that warms up: see `TensorMemory`.
    """

    name, version, alone = "timing", 4, True

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table for each task and method."""
        groups: dict[tuple[str, str], list[PlannedCell]] = {}
        for cell in (each for each in cells if each.entry.method.family != REFERENCE):  # timed beside each of them
            groups.setdefault((cell.task.name, cell.entry.label), []).append(cell)
        return [
            Table(
                timing_folder(Path(), *name).as_posix(), first.task.name, first.seed,
                {
                    "method": [first.entry.source, first.entry.version, dict(first.entry.kept)],
                    "method code": first.made_of["code"], "model": first.task.model_digest,
                    "max_completion_tokens": first.task.max_completion_tokens,
                    "preferences": first.preferences.tolist(),  # those of a mixed batch
                    "prompts": digest([row["prompt"] for row in first.task.splits["test"]]),
                },
                (first.name, *(cell.name for cell in others)),
            )
            for name, (first, *others) in groups.items()
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Decode round by round."""
        import torch

        from paretune.models.loading import load_base
        from paretune.rl.evaluation import reference_policy

        reference = reference_policy(load_base(job.task.model), job.task)
        middle = centre(len(job.task.objectives))
        policy = job.solutions.policies_for(np.stack([middle, *job.preferences]))
        prompts = [str(row["prompt"]) for row in job.task.splits["test"]]
        served = Served(reference, policy, prompts, job.seed)

        def ready(decoder: str, rows: int, number: int, first: bool) -> Callable[[], object]:
            link.progress(0)  # raises where the run is to stop
            return served.ready(decoder, rows, number, first)

        device = reference.base.device
        kind, clock = clock_of(device)
        with threads_of(device):
            batches, busy = in_rounds(ready, served.decoders, clock, generator("timing", job.seed))
            threads = torch.get_num_threads()
        method, name = str(job.cell["method"]), "cpu" if kind == "cpu" else torch.cuda.get_device_name(device)
        tokens = job.task.max_completion_tokens
        timed = tuple(each.record(tokens) for each in batches)
        record = TimingRecord(job.task.name, method, timed, kind, threads, name, busy if kind == "cpu" else None)
        write_json(job.folder / TIMING, asdict(record))


class Served:
    """A policy and its base model, asked for completions as if they were requests that arrive.

    Attributes:
        reference: The base model.
        policy: Of the preference that is timed, then of those that are mixed.
        prompts: Raw prompts, taken in an order that the seed draws.
        seed: Of the noise.
    """

    def __init__(self, reference: Policy, policy: Policy, prompts: Sequence[str], seed: int) -> None:
        self.reference, self.policy, self.seed = reference, policy, seed
        self.prompts = [prompts[place] for place in generator("timed prompts", seed).permutation(len(prompts))]

    def decoders(self, rows: int) -> tuple[str, ...]:
        """Name what decodes so many rows: no mixture of preferences where there is one row, or one preference."""
        return (BASE, POLICY, MIXED) if rows > 1 and len(self.policy) > 2 else (BASE, POLICY)

    def ready(self, decoder: str, rows: int, number: int, first: bool) -> Callable[[], int]:
        """Return what answers the prompts of a round, and says how many tokens that made.

        Args:
            decoder: Its name.
            rows: Rows of the batch.
            number: Of the round.
            first: Answer with the first token alone, where the policy can.
        """
        from paretune.models.loading import unwrap
        from paretune.models.prompt_states import forget_prompts

        asked = list(itertools.islice(itertools.cycle(self.prompts), number * rows, (number + 1) * rows))
        policy = self.reference if decoder == BASE else self.policy
        index = [1 + row % (len(policy) - 1) if decoder == MIXED else 0 for row in range(rows)]
        forget_prompts(policy.base)  # a gate that reads prompts reads them anew, as of requests that arrive
        if policy.bank is None:
            unwrap(policy.base)  # the base model as it is
        else:
            policy.bank.rewrap()
        whole = not first or any(policy.draws(each) > 1 for each in index)
        limit = None if whole else 1

        def answer() -> int:
            completions = policy.generate(asked, index, seed=self.seed, max_new_tokens=limit, end_ids=())
            return int(completions.lengths.sum())

        return answer


@dataclass
class Batch:
    """Rounds of one number of rows, as they are timed; see `TimedBatch`."""

    rows: int
    latency: dict[str, list[float]]
    first: dict[str, list[float]]
    peak_bytes: dict[str, int] = field(default_factory=dict)
    ended: str = ""

    def end(self, rounds: int, seconds: float) -> None:
        """Say why no further round is needed, if none is."""
        if rounds < LEAST:
            return
        if self._narrow():
            self.ended = "narrow"
        elif rounds >= MOST:
            self.ended = "rounds"
        elif seconds >= SECONDS:
            self.ended = "seconds"

    def _narrow(self) -> bool:
        base, policy = self.latency[BASE], self.latency[POLICY]
        pairs = [(base, policy), *([(policy, self.latency[MIXED])] if MIXED in self.latency else [])]
        for one, other in pairs:
            found = median_interval(np.array(one) / np.array(other))
            if found.low is None or found.high is None or found.high - found.low > 2 * NARROW * found.value:
                return False
        return True

    def record(self, new_tokens: int) -> TimedBatch:
        """Return what is kept of it."""
        latency, first = ({name: tuple(each) for name, each in by.items()} for by in (self.latency, self.first))
        return TimedBatch(self.rows, new_tokens, latency, first, self.peak_bytes, self.ended)


def in_rounds(
    ready: Ready,
    decoders: Callable[[int], Sequence[str]],
    clock: Clock,
    order: np.random.Generator,
    sizes: Sequence[int] = SIZES,
    wall: Clock = time.perf_counter,
) -> tuple[list[Batch], float]:
    """Time several decoders round by round, so that a slow spell of the machine hits all of them.

    Args:
        ready: Returns what decodes once: by which decoder, how many rows, the number of the round, whether the first
            token alone.
        decoders: Names those that decode a number of rows.
        clock: Seconds.
        order: Draws the order in each round.
        sizes: Numbers of rows.
        wall: Seconds on the wall.

    Returns:
        What was timed of each number of rows; and the share of the time on the wall in which the clock stood still.
    """
    from paretune.models.tensor_memory import TensorMemory

    began, began_wall = clock(), wall()
    batches = []
    for name in decoders(sizes[0]):  # what a first call alone makes would count at one number of rows
        ready(name, sizes[0], 0, False)()
    for rows in sizes:
        names = decoders(rows)
        batch = Batch(rows, {name: [] for name in names}, {BASE: [], POLICY: []})
        for name in names:
            answer = ready(name, rows, 0, False)
            with TensorMemory() if name != MIXED else nullcontext() as memory:
                answer()
            if memory is not None:
                batch.peak_bytes[name] = memory.peak_bytes
        batches.append(batch)
    left, number = batches, 0
    while left:
        for batch in left:
            for name in order.permutation(list(batch.latency)):
                for by, first in ((batch.first, True), (batch.latency, False)):
                    if name in by:
                        answer = ready(str(name), batch.rows, number, first)
                        start = clock()
                        answer()
                        by[str(name)].append(clock() - start)
        number += 1
        for batch in left:
            batch.end(number, clock() - began)
        left = [batch for batch in left if not batch.ended]
    return batches, max(0.0, 1 - (clock() - began) / (wall() - began_wall))


def clock_of(device: torch.device) -> tuple[Literal["cpu", "wall"], Clock]:
    """Return the clock that suits a device, and its name."""
    import torch

    if device.type != "cuda":
        return "cpu", time.process_time

    def after_all_work() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return "wall", after_all_work


@contextmanager
def threads_of(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a processor, whose CPU seconds are then those of the work alone."""
    import torch

    before = torch.get_num_threads()
    try:
        if device.type != "cuda":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
