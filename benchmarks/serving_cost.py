"""What a policy of several experts costs to serve, beside the plain base model: CPU seconds of one thread, in turn.

64 requests of 32 new tokens each, whatever they say, from the embedded base model (1.07 M parameters, fp32), through
`Policy.generate`: prompts are encoded and read, texts decoded. Three experts of rank 8, and a preference of its own for
every request. Each policy takes turns with the base model, which has no bank then; a ratio is the base's seconds over
the policy's, of the least of all turns (which other work on a shared machine disturbs least) and the median of pairs:
1 is as fast as the base model, .5 half as fast.

`adapters`: weights for each row, as averaged experts and a preference-conditioned bank are served. `prompt_gate`:
weights for each row that a gate chooses by the prompt, which the base model reads once more, in every turn anew.
`token_gate` and `block_gate`: weights for each token, once and in every block. `log_probs` and `probabilities`: three
streams to the end.
`hidden`: three streams up to block 1, one behind it. Prompts are all `distinct`, or `shared`: 8 prompts of 8 requests,
which the base model reads once each, and a policy once for each preference.

    python benchmarks/serving_cost.py --json serving_cost.json
    python benchmarks/serving_cost.py --tiny            # two turns of few tokens, to see it run
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretune.core.protocols import Mixer

PAIRS, WARM_UP, THREADS = 15, 2, 1
ROWS, SAMPLES, NEW_TOKENS, EXPERTS, RANK, BLOCK = 64, 8, 32, 3, 8, 1
GATE_SPREAD = 0.05  # of a gate's parameters around those it starts with, so that its weights leave the prior
EXPERT_SPREAD = 1e-3  # the same of experts, so that no row may be skipped; small, so that texts stay texts
GOALS = {"adapters": 0.75, "block_gate": 0.6, "log_probs": 0.25}
POLICIES = {  # word for the gate in a study, or none; where experts are mixed
    "adapters": ("none", Mixer()),
    "prompt_gate": ("prompt", Mixer()),
    "token_gate": ("token", Mixer()),
    "block_gate": ("block", Mixer()),
    "log_probs": ("none", Mixer("log_probs")),
    "probabilities": ("none", Mixer("probabilities")),
    "hidden": ("none", Mixer("hidden", block=BLOCK)),
}
PROMPTS = ("distinct", "shared")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pairs: Turns that count.
        rows: Requests of a turn.
        new_tokens: Of each request.
    """

    pairs: int = PAIRS
    rows: int = ROWS
    new_tokens: int = NEW_TOKENS


def ratios(base: Sequence[float], policy: Sequence[float]) -> dict[str, float]:
    """Return how fast a policy is beside the base model, from the seconds of their turns, pair by pair."""
    return {
        "least": min(base) / min(policy),
        "median": statistics.median(mine / other for mine, other in zip(base, policy, strict=True)),
        "base_seconds": min(base),
        "policy_seconds": min(policy),
    }


def in_turn(one: Callable[[], object], other: Callable[[], object], pairs: int) -> tuple[list[float], list[float]]:
    """Run two things in turn, after turns that warm up; return the CPU seconds of each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + pairs):
        for side, run in zip(seconds, (one, other), strict=True):
            began = time.process_time()
            run()
            if turn >= WARM_UP:
                side.append(time.process_time() - began)
    return seconds


class Served:
    """Policies of one bank, each for as many requests as there are preferences."""

    def __init__(self, size: Size) -> None:
        import torch

        from paretune.models.bank import ExpertBank
        from paretune.models.loading import load_base
        from paretune.tasks import load_task

        self.size, self.task = size, load_task("counselling")
        self.base = load_base(self.task.model)
        self.bank = ExpertBank(self.base, EXPERTS, RANK)
        self.bank.initialise([0] * EXPERTS)
        self.noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.bank.flat.add_(torch.randn(self.bank.flat.shape, generator=self.noise), alpha=EXPERT_SPREAD)
        self.bank.unwrap()
        self.preferences = np.random.default_rng(0).dirichlet(np.ones(EXPERTS), size=size.rows)
        texts = [str(row["prompt"]) for row in self.task.splits["test"][: size.rows]]
        few = [text for text in texts[: max(1, size.rows // SAMPLES)] for _ in range(SAMPLES)]
        self.prompts = {"distinct": texts, "shared": few[: size.rows]}

    def runs(self, name: str, prompts: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return what serves all requests by the base model, and what serves them by a policy."""
        from paretune.models.policy import Policy
        from paretune.models.prompt_states import forget_prompts

        word, mixer = POLICIES[name]
        rows, gate = self.size.rows, self._gate(word)

        def policy_of(bank: Any, weights: Any, **how: Any) -> Policy:
            task = self.task
            return Policy(
                self.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
                self.preferences, ["combined"] * rows, weights, **how,
            )  # fmt: skip

        plain = policy_of(None, np.zeros((rows, 0)))
        mixed = policy_of(self.bank, self.preferences, mixer=mixer, gate=gate)

        def generate(policy: Policy) -> object:
            asked = self.prompts[prompts]
            return policy.generate(asked, range(rows), max_new_tokens=self.size.new_tokens, end_ids=())

        def by_base() -> object:
            self.bank.unwrap()  # so that no wrapped layer is timed
            return generate(plain)

        def by_policy() -> object:
            forget_prompts(self.base)  # a gate that reads prompts reads them anew, as of requests that arrive
            self.bank.rewrap()
            return generate(mixed)

        return by_base, by_policy

    def _gate(self, word: str) -> Any:
        import torch

        from paretune.methods.banks import gate_path
        from paretune.models.gate import resolve_gate

        if not gate_path(word):
            return None
        self.bank.rewrap()
        gate = resolve_gate(gate_path(word))(self.bank, EXPERTS, 0)
        with torch.no_grad():
            gate.flat.add_(torch.randn(gate.flat.shape, generator=self.noise), alpha=GATE_SPREAD)
        self.bank.unwrap()
        return gate


def measure(names: Sequence[str], size: Size) -> dict[str, Any]:
    """Time policies beside the base model and return ratios of both kinds of prompts."""
    import torch

    torch.set_num_threads(THREADS)
    served, found = Served(size), dict[str, dict[str, Any]]()
    for name in names:
        found[name] = {}
        for prompts in PROMPTS:
            made = found[name][prompts] = ratios(*in_turn(*served.runs(name, prompts), size.pairs))
            print(f"{name:14} {prompts:9} {made['least']:.3f} ({made['median']:.3f})", flush=True)
    return {
        "ratios": found,
        "goals": reached(found),
        "threads": THREADS,
        "pairs": size.pairs,
        "rows": size.rows,
        "new_tokens": size.new_tokens,
        "experts": EXPERTS,
        "rank": RANK,
    }


def reached(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """Return for each goal what it asks, what was measured on distinct prompts, and whether it is met by the least."""
    return {
        name: {"goal": goal, "least": found[name]["distinct"]["least"], "met": found[name]["distinct"]["least"] >= goal}
        for name, goal in GOALS.items()
        if name in found
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--policies", nargs="+", choices=tuple(POLICIES), default=list(POLICIES))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="turns that count")
    parser.add_argument("--tiny", action="store_true", help="two turns of few requests and tokens")
    arguments = parser.parse_args()
    result = measure(arguments.policies, Size(2, SAMPLES, 2) if arguments.tiny else Size(arguments.pairs))
    print(json.dumps(result["goals"], indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
