"""Tokens per second of mixed experts, beside the plain base model, both in the library's own loop.

The embedded base model, fp32, 64 rows with a prompt each, at most 32 new tokens, rank 8. `mixed3_vs_base`: three
experts mixed by row gates, every row with weights of its own; `one_vs_base`: one expert. Reading the prompts is part of
the time; no two rows share a prompt, so neither side saves a prefill that the other has to make. Interleaved repeats,
medians of the pairwise ratios.

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
ROWS, NEW_TOKENS, RANK = 64, 32, 8


def measure() -> dict[str, Any]:
    """Time the three policies in turn and return ratios of tokens per second."""
    import torch

    torch.set_num_threads(THREADS)
    import numpy as np

    from paretune.core.seeds import prompt_key, row_keys
    from paretune.models.bank import ExpertBank
    from paretune.models.base import load_base
    from paretune.models.decoding import sample
    from paretune.models.mixing import Mixing
    from paretune.tasks import load_task

    task = load_task("counselling")
    base = load_base(task.model)
    prompts = [tuple(base.encode(task.format_prompt(str(row["prompt"])))) for row in task.splits["test"][:ROWS]]
    keys = row_keys(0, 0, [prompt_key(ids) for ids in prompts], 0)
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

    def plain() -> int:
        return int(sample(base, None, prompts, Mixing.reference(ROWS), keys, NEW_TOKENS).lengths.sum())

    def mixed() -> int:
        return int(sample(base, three, prompts, Mixing.of_rows(weights), keys, NEW_TOKENS).lengths.sum())

    def single() -> int:
        return int(sample(base, one, prompts, Mixing.population(1, ROWS), keys, NEW_TOKENS).lengths.sum())

    rates: dict[str, list[float]] = {"base": [], "mixed3": [], "one": []}
    for repeat in range(WARM_UP + REPEATS):
        for name, run, bank in (("base", plain, None), ("mixed3", mixed, three), ("one", single, one)):
            if bank is None:
                current = getattr(base.model, "_paretune_bank", None)
                if current is not None:
                    current.unwrap()  # the plain base model, without a wrapped layer
            else:
                bank.rewrap()
            start = time.perf_counter()
            tokens = run()
            if repeat >= WARM_UP:
                rates[name].append(tokens / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "mixed3_vs_base": statistics.median(a / b for a, b in zip(rates["mixed3"], rates["base"], strict=True)),
        "one_vs_base": statistics.median(a / b for a, b in zip(rates["one"], rates["base"], strict=True)),
        "tokens_per_second": medians,
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
