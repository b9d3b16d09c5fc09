"""How fast a method's policy decodes beside its base model, measured while nothing else runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paretune.benchmark.evaluating import assemble
from paretune.benchmark.executors.jobs import Link
from paretune.benchmark.stages import job_task, release_models, use_threads
from paretune.core.preferences import centre
from paretune.records.study import TimingRecord

ROWS = 64  # decoded at once, as in training
REPEATS = 5  # of each, in turn; the report takes medians


def interleave(runs: Sequence[Callable[[], int]], repeats: int, clock: Callable[[], float]) -> list[tuple[float, ...]]:
    """Time several decoders in turn, so that a slow spell of the machine hits all of them.

    Args:
        runs: Each decodes once and returns how many tokens it made; called once more before, to warm up.
        repeats: Timed calls of each.
        clock: Seconds.

    Returns:
        Tokens per second of every repeat, for each of `runs`.
    """
    for run in runs:
        run()
    rates: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, rate in zip(runs, rates, strict=True):
            start = clock()
            tokens = run()
            rate.append(tokens / (clock() - start))
    return [tuple(rate) for rate in rates]


def time_methods(job: Mapping[str, Any], link: Link) -> dict[str, object]:
    """Time the policies of several methods on one task for the preference of equal weights; the job of a worker.

    Args:
        job: `folder`, `task`, `seed`, `task_key` and `cells`, one job of `evaluate_cell` per method.
        link: To the parent.

    Returns:
        `timings`: plain data of a `TimingRecord` each.
    """
    try:
        return {"timings": _timings(job, link)}
    finally:
        release_models()


def _timings(job: Mapping[str, Any], link: Link) -> list[dict[str, object]]:
    import torch

    from paretune.models.base import load_base
    from paretune.models.solutions import SolutionSet
    from paretune.rl.evaluation import reference_policy

    use_threads(link.threads)
    root, task = Path(job["folder"]), job_task(job)
    rows = list(itertools.islice(itertools.cycle(task.splits["test"]), ROWS))
    prompts = [str(row["prompt"]) for row in rows]
    reference = reference_policy(load_base(task.model), task)
    device = torch.cuda.get_device_name() if reference.base.device.type == "cuda" else "cpu"
    timings = []
    for cell in job["cells"]:
        entry, assembly, _ = assemble(cell, root, task)
        solutions = SolutionSet.from_assembly(task, assembly, entry.label, entry.method.family)
        policy = solutions.policies_for(np.asarray([centre(len(task.objectives))]))

        def decode(decoder: Any = policy) -> int:
            link.progress(0)
            # every reply runs to the limit: else a policy of long replies would spread its prompts over more tokens
            completions = decoder.generate(prompts, policy_index=[0] * len(prompts), seed=int(job["seed"]), end_ids=())
            return int(completions.lengths.sum())

        def decode_base(bank: Any = solutions.bank) -> int:
            bank.unwrap()  # the base model as it is; the bank puts itself back when it is used
            return decode(reference)

        speed, base_speed = interleave([decode, decode_base], REPEATS, time.perf_counter)
        solutions.bank.unwrap()
        timing = TimingRecord(task.name, entry.label, ROWS, speed, base_speed, torch.get_num_threads(), device)
        timings.append(vars(timing))
    return timings
