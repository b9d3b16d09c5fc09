"""Tokens per second of mixed experts, beside the plain base model, both in the library's own loop.

The embedded base model, fp32, 64 rows, at most 32 new tokens, rank 8; reading the prompts is part of the time.
Interleaved repeats, medians of the pairwise ratios.

`mixed3_vs_base`: three experts mixed by row gates, every row with weights and a prompt of its own, as requests arrive.
`one_vs_base`: one expert, as in training, where its matrices are merged. `mixed3_shared_prompts_vs_base`: the same
mixture over 8 prompts of 8 samples each, where the base model reads 8 prompts and the mixture, whose rows all differ,
reads 64.

    python benchmarks/decode.py --json decode.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

REPEATS, WARM_UP, THREADS = 15, 3, 2
ROWS, SAMPLES, NEW_TOKENS, RANK = 64, 8, 32, 8


def measure() -> dict[str, Any]:
    """Time the three policies in turn and return ratios of tokens per second."""
    import torch

    torch.set_num_threads(THREADS)
    import numpy as np

    from paretune.core.seeds import prompt_key, row_keys
    from paretune.models.bank import ExpertBank
    from paretune.models.decoding import sample
    from paretune.models.loading import load_base
    from paretune.models.mixing import Mixing
    from paretune.tasks import load_task

    task = load_task("counselling")
    base = load_base(task.model)
    distinct = [tuple(base.encode(str(row["prompt"]), task.prompt_format)) for row in task.splits["test"][:ROWS]]
    shared = [ids for ids in distinct[: ROWS // SAMPLES] for _ in range(SAMPLES)]
    keys = row_keys(0, 0, [prompt_key(ids) for ids in distinct], 0)
    noise = torch.Generator().manual_seed(0)

    def bank_of(experts: int) -> ExpertBank:
        bank = ExpertBank(base, experts, RANK)
        bank.initialise([0] * experts)
        with torch.no_grad():  # away from zero, so that no row may be skipped; small, so that replies keep their length
            bank.flat.add_(torch.randn(bank.flat.shape, generator=noise), alpha=1e-3)
        bank.unwrap()
        return bank

    weights = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(3), size=ROWS), dtype=torch.float32)
    three, one = bank_of(3), bank_of(1)

    def decode(prompts: list[tuple[int, ...]], bank: ExpertBank | None, mixing: Mixing) -> int:
        return int(sample(base, bank, prompts, mixing, keys, NEW_TOKENS).lengths.sum())

    plain = Mixing.reference(ROWS)
    runs = {
        "base": (distinct, None, plain),
        "mixed3": (distinct, three, Mixing.of_rows(weights)),
        "one": (distinct, one, Mixing.population(1, ROWS)),
        "base_shared": (shared, None, plain),
        "mixed3_shared": (shared, three, Mixing.of_rows(weights)),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(WARM_UP + REPEATS):
        for name, (prompts, bank, mixing) in runs.items():
            if bank is not None:
                bank.rewrap()
            start = time.perf_counter()
            tokens = decode(prompts, bank, mixing)
            seconds = time.perf_counter() - start
            if bank is not None:
                bank.unwrap()  # so that the base model is timed without a wrapped layer
            if repeat >= WARM_UP:
                rates[name].append(tokens / seconds)

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True))

    return {
        "mixed3_vs_base": ratio("mixed3", "base"),
        "one_vs_base": ratio("one", "base"),
        "mixed3_shared_prompts_vs_base": ratio("mixed3_shared", "base_shared"),
        "tokens_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "rows": ROWS,
        "new_tokens": NEW_TOKENS,
        "threads": THREADS,
        "repeats": REPEATS,
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    result = measure()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
