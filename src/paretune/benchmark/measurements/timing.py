"""Timing: how fast a method's policy decodes beside its base model, while nothing else runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell
from paretune.benchmark.study import Study
from paretune.core.preferences import centre
from paretune.core.protocols import REFERENCE, Table
from paretune.executors.jobs import Link
from paretune.records.files import write_json
from paretune.records.layout import TIMING, timing_folder
from paretune.records.study import TimingRecord

if TYPE_CHECKING:
    from paretune.models.policy import Policy

ROWS = 64  # decoded at once, as in training
REPEATS = 5  # of each, in turn; the report takes medians


class Timing:
    """The policy for equal weights of one cell of each method on each task: the first that is evaluated."""

    name, version, alone = "timing", 2, True

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
                },
                (first.name, *(cell.name for cell in others)),
            )
            for name, (first, *others) in groups.items()
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Decode with the policy and with the base model in turn."""
        import torch

        from paretune.models.loading import load_base, unwrap
        from paretune.rl.evaluation import reference_policy

        prompts = [str(row["prompt"]) for row in itertools.islice(itertools.cycle(job.task.splits["test"]), ROWS)]
        reference = reference_policy(load_base(job.task.model), job.task)
        policy = job.solutions.policies_for(np.asarray([centre(len(job.task.objectives))]))

        def decode(decoder: Any = policy) -> int:
            link.progress(0)
            return decoded(decoder, prompts, job.seed)

        def decode_base() -> int:
            unwrap(reference.base)  # the base model as it is; a bank puts itself back when it is used
            return decode(reference)

        speed, base_speed = interleave([decode, decode_base], REPEATS, time.perf_counter)
        device = torch.cuda.get_device_name() if reference.base.device.type == "cuda" else "cpu"
        method, threads = str(job.cell["method"]), torch.get_num_threads()
        timed = TimingRecord(job.task.name, method, ROWS, speed, base_speed, threads, device)
        write_json(job.folder / TIMING, vars(timed))


def decoded(policy: Policy, prompts: Sequence[str], seed: int) -> int:
    """Answer prompts as if for the first time, each to the limit, and return how many tokens that made.

    Args:
        policy: Of one preference.
        prompts: Raw prompts.
        seed: Of their noise.
    """
    from paretune.models.prompt_states import forget_prompts

    forget_prompts(policy.base)  # a gate that reads prompts reads them anew, as of requests that arrive
    # every reply runs to the limit: else a policy of long replies would spread its prompts over more tokens
    completions = policy.generate(prompts, policy_index=[0] * len(prompts), seed=seed, end_ids=())
    return int(completions.lengths.sum())


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
