"""Whether timings of one policy, made in processes of their own, agree within their intervals.

Each run is a fresh process that does what a study does to time a method: the embedded base model beside three experts
of rank 8 that are averaged by rows. Every second run has company: one process a core that computes without end.

For every figure that has an interval: `overlap` is the share of pairs of runs whose intervals overlap, which is what
two runs of one study are asked for; `covers` the share of runs whose interval holds the median of all runs' values,
.95 where nothing but the rounds' own noise tells runs apart; `half width` that of the median interval, as a share of
the value; `spread` the standard deviation of the runs' values, as a share of their median.

    python benchmarks/timing_agreement.py --runs 20 --json timing_agreement.json
    python benchmarks/timing_agreement.py --tiny            # two runs of one row, to see it run
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

RUNS, EXPERTS, RANK = 20, 3, 8
EXPERT_SPREAD = 1e-3  # of their parameters, so that no row may be skipped; small, so that texts stay texts
ENDLESS = "while True: pass"

Figure = tuple[float, float, float]  # value, low, high


def agreement(runs: Sequence[Mapping[str, Figure]]) -> dict[str, dict[str, float]]:
    """Return how the runs' values and intervals of every figure agree."""
    found = {}
    for name in runs[0]:
        values, lows, highs = (np.array(each) for each in zip(*(run[name] for run in runs), strict=True))
        middle = float(np.median(values))
        pairs = list(itertools.combinations(range(len(runs)), 2))
        found[name] = {
            "overlap": statistics.fmean(bool(max(lows[a], lows[b]) <= min(highs[a], highs[b])) for a, b in pairs),
            "covers": float(((lows <= middle) & (middle <= highs)).mean()),
            "half width": float(np.median((highs - lows) / 2 / values)),
            "spread": float(values.std(ddof=1) / middle),
            "median": middle,
        }
    return found


def one(sizes: Sequence[int] | None) -> dict[str, Any]:
    """Time the policy in this process, as `Timing` does."""
    import torch

    from paretune.benchmark.measurements.timing import SIZES, Served, clock_of, in_rounds, threads_of
    from paretune.core.preferences import centre
    from paretune.core.seeds import generator
    from paretune.metrics.inference_efficiency import figures
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.models.policy import Policy
    from paretune.records.study import TimingRecord
    from paretune.rl.evaluation import reference_policy
    from paretune.tasks import load_task

    task = load_task("counselling")
    reference = reference_policy(load_base(task.model), task)
    bank = ExpertBank(reference.base, EXPERTS, RANK)
    bank.initialise([0] * EXPERTS)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bank.flat.add_(torch.randn(bank.flat.shape, generator=noise), alpha=EXPERT_SPREAD)
    weights = np.concatenate([[centre(EXPERTS)], np.eye(EXPERTS), (1 - np.eye(EXPERTS)) / 2])
    policy = Policy(
        reference.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens, weights,
        ["combined"] * len(weights), weights,
    )  # fmt: skip
    served = Served(reference, policy, [str(row["prompt"]) for row in task.splits["test"]], 0)
    kind, clock = clock_of(reference.base.device)
    began = clock()
    with threads_of(reference.base.device):
        batches, busy = in_rounds(
            served.ready, served.decoders, clock, generator("timing", 0), SIZES if sizes is None else sizes
        )
    timed = TimingRecord(
        task.name, "soup", tuple(each.record(task.max_completion_tokens) for each in batches), kind, 1, "", busy
    )
    return {
        "seconds": clock() - began,
        "busy": busy,
        "rounds": {str(each.rows): [len(each.latency["base"]), each.ended] for each in batches},
        "figures": {
            name: (value.value, value.low, value.high)
            for name, value in figures(timed).items()
            if value.low is not None and value.high is not None and value.low < value.high
        },
    }


@contextmanager
def company(processes: int) -> Iterator[None]:
    """Keep so many processes computing."""
    others = [subprocess.Popen([sys.executable, "-c", ENDLESS]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def measure(runs: int, arguments: Sequence[str], kept: Path | None) -> dict[str, dict[str, float]]:
    """Run a process after the other, every second one in company, and hold them against each other.

    Args:
        runs: How many, two at least.
        arguments: Of each process.
        kept: Where the runs are written, anew after each.
    """
    found: list[dict[str, Any]] = []
    held: dict[str, dict[str, float]] = {}
    for number in range(runs):
        with company((os.cpu_count() or 1) * (number % 2)):
            command = [sys.executable, __file__, "--one", *arguments]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append({"company": bool(number % 2), **json.loads(said.stdout.splitlines()[-1])})
        print(f"run {number}: {found[-1]['seconds']:.1f} s, busy {found[-1]['busy']:.2f}, {found[-1]['rounds']}")
        held = agreement([each["figures"] for each in found]) if number else {}
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"agreement": held, "runs": found}, indent=1) + "\n")
    return held


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--tiny", action="store_true", help="two runs of one row")
    parser.add_argument("--one", action="store_true", help="a single run, in this process")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one((1,) if given.tiny else None)))
        return
    held = measure(2 if given.tiny else given.runs, ["--tiny"] if given.tiny else [], given.json)
    for name, each in held.items():
        print(f"{name}: " + ", ".join(f"{what} {value:.3g}" for what, value in each.items()))


if __name__ == "__main__":
    main()
