"""CPU seconds of an update whose weights are chosen from gradients, beside a scalar update; and of a population.

All sides take turns in one process on one thread. Sides for each model: `scalar`, one policy for equal weights; `gram`,
the same policy with weights chosen from the K = 4 gradients of its objectives (the weights stay the preference, so both
learn the same); `population`, six policies in one batch; `alone`, the same six one after the other.

Models: the controlled one (16 tokens a completion at most, a tiny transformer), and the embedded one of 1.07 M
parameters with exactly 32 new tokens. Rewards of the latter are cheap stand-ins: what is measured is the learner.
Ratios are of the least CPU seconds of a step, which other work on a shared machine disturbs least; medians beside them.

    python benchmarks/gram_step.py --json gram_step.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rl_step import Clock, endless_base  # type: ignore[import-not-found]  # beside this file

PAIRS, WARM_UP, THREADS = 9, 2, 1
OBJECTIVES, POPULATION = 4, 6
GROUP, COMPLETIONS, NEW_TOKENS, RANK, ALPHA = 8, 64, 32, 8, 16
COMPARED = {"gradients": ("scalar", "gram"), "population": ("population", "alone")}


class Staying:
    """Weights that ask for the gradients and stay what they were."""

    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __init__(self, preference: Any) -> None:
        self.preference = preference

    def measured(self, update: int) -> int:
        """Measure nothing."""
        return 0

    def weigh(self, seen: Any) -> Any:
        """Return the preference."""
        return self.preference

    def state(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def load(self, state: Any) -> None:
        """Take over nothing."""


def counted(rows: Sequence[Any], texts: Sequence[str]) -> Any:
    """Score texts by the shares of four letters: a stand-in for rewards that cost nothing."""
    from paretune.core.scores import Scores

    rewards = np.asarray([[text.count(letter) / (1 + len(text)) for letter in "aeio"] for text in texts])
    return Scores(rewards, np.full(rewards.shape, "ok"), ("",) * OBJECTIVES)


class Side:
    """Updates of some policies, all in one learner or each in its own."""

    def __init__(self, model: str, name: str, folder: Path, epochs: int) -> None:
        experts = POPULATION if name in ("population", "alone") else 1
        together = [[seed] for seed in range(experts)] if name == "alone" else [list(range(experts))]
        self.learners = [make_learner(model, folder, seeds, name == "gram", epochs) for seeds in together]
        self.clock, self.engines = Clock(), set[str]()

    def __call__(self) -> None:
        """Make one update of every policy."""
        self.clock.start()
        for learner in self.learners:
            learner.update(lambda member, length: None, self._note)
        self.clock.stop()

    def _note(self, event: Any) -> None:
        if "engine" in event:
            self.engines.add(event["engine"])


def make_learner(model: str, folder: Path, seeds: Sequence[int], gram: bool, epochs: int) -> Any:
    """Return a learner of one policy for each seed, for equal weights, with a base model of its own."""
    from paretune.core.ledger import Ledger
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.objectives.scoring import Scorer
    from paretune.rl.learner import Learner
    from paretune.rl.rollout import Prompts
    from paretune.rl.rollouts import Environment
    from paretune.rl.settings import LearnerSettings
    from paretune.rl.slots import Slots
    from paretune.rl.trainees import Member, Population

    task, controlled = task_of(model), model == "controlled"
    base = load_base(task.model if controlled else str(folder))
    bank = ExpertBank(base, len(seeds), RANK, ALPHA)
    bank.initialise(list(seeds))
    weights = np.full(OBJECTIVES, 1 / OBJECTIVES)
    rows = task.splits["train"]
    prompts = Prompts(rows, [tuple(base.encode(str(row["prompt"]), task.prompt_format)) for row in rows])
    environment = Environment(
        Scorer(task.objectives) if controlled else counted, prompts, 0.05,
        task.max_completion_tokens if controlled else NEW_TOKENS, np.asarray([[0.0, 1.0]] * OBJECTIVES), prompts,
    )  # fmt: skip
    settings = LearnerSettings(
        learning_rate=1e-3, group_size=GROUP, completions_per_update=COMPLETIONS, epochs=epochs, average_decay=0.0
    )
    members = [Member(weights, seed, (10**9,), Ledger()) for seed in seeds]
    slots = Slots(weightings=[Staying(weights)] if gram else [])
    return Learner(Population(bank, members), environment, settings, slots)


def task_of(model: str) -> Any:
    """Return the task of a model."""
    import paretune
    from paretune.tasks import load_task

    if model == "controlled":
        return load_task({"controlled": {"rho": 0.0, "objectives": OBJECTIVES}})
    return paretune.load_task("counselling")


def measure(models: Sequence[str], names: Sequence[str], epochs: int, pairs: int) -> dict[str, Any]:
    """Run the sides of each model in turn and return figures and ratios."""
    import torch

    torch.set_num_threads(THREADS)
    found: dict[str, Any] = {"threads": THREADS, "steps": pairs, "epochs": epochs, "objectives": OBJECTIVES}
    for model in models:
        with tempfile.TemporaryDirectory() as temporary:
            folder = endless_base(Path(task_of("embedded").model), Path(temporary) / "base")
            sides = {name: Side(model, name, folder, epochs) for name in names}
            for _ in range(WARM_UP + pairs):
                for side in sides.values():
                    side()
                print(model, " ".join(f"{name} {side.clock.cpu[-1]:.3f}s" for name, side in sides.items()), flush=True)
        figures = {name: side.clock.figures() for name, side in sides.items()}

        found[model] = {
            "engines": sorted({engine for side in sides.values() for engine in side.engines}),
            "figures": figures,
            **(ratios(figures, "gram_vs_scalar", "gram", "scalar") if "gram" in names else {}),
            **(ratios(figures, "single_runs_vs_population", "alone", "population") if "alone" in names else {}),
        }
    return found


def ratios(figures: dict[str, Any], name: str, one: str, other: str) -> dict[str, float]:
    """Return how many times the seconds of another side one side takes, by the least and by the median."""
    seconds = [figures[side]["cpu_seconds"] for side in (one, other)]
    return {f"{name}{end}": seconds[0][of] / seconds[1][of] for end, of in (("", "min"), ("_median", "median"))}


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--models", nargs="+", choices=("controlled", "embedded"), default=["controlled", "embedded"])
    parser.add_argument("--compare", nargs="+", choices=tuple(COMPARED), default=list(COMPARED))
    parser.add_argument("--epochs", type=int, default=1, help="optimiser steps from each batch")
    parser.add_argument("--steps", type=int, default=PAIRS, help="measured steps of each side")
    arguments = parser.parse_args()
    names = [name for each in arguments.compare for name in COMPARED[each]]
    result = measure(arguments.models, names, arguments.epochs, arguments.steps)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
