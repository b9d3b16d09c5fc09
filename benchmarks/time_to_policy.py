"""CPU seconds until every preference is served: eleven runs of TRL's GRPOTrainer, beside one mixture of experts.

On one controlled task instance TRL trains one adapter for each of eleven preferences, R completions each. Then one
`mixture_of_experts` is trained along one trajectory, with a budget every 128 completions, and scored at one after the
other until what it gains in J over the base model, summed over the same preferences and exact on test prompts, is what
TRL's eleven gain. `cpu_seconds_ratio` is TRL's seconds over the mixture's, by one thread: how much sooner it is there.

Counted of TRL: `GRPOTrainer.train()`: sampling, rewards, updates. Counted of ours: the whole training, from loading the
base model until the adapters and the gate are written at that budget, checkpoints and all earlier budgets included.
Left out on both sides: imports, drawing the task, making TRL's trainer, exact scores. Both sides run once for a batch
before, which is not counted.

    python benchmarks/time_to_policy.py --json time_to_policy.json
    python benchmarks/time_to_policy.py --gates none --part competing_mixed
    python benchmarks/time_to_policy.py --tiny          # a tiny task and few completions, to see it run
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes" / "meta_policy"))  # the rival's folder
from trl_rival import (  # type: ignore[import-not-found]
    BATCH,
    COMPLETIONS,
    DIVISIONS,
    PARTS,
    TrlSettings,
    exact_gains,
    prepare,
    task_of,
    trained,
)

from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.task import Task

SETTINGS = {"epochs": 4, "replay": 192}
GATES = ("block", "none")
STEP, MOST = 128, 0.2  # completions between two budgets; the last one, a share of all that TRL makes
GOAL = 20.0


@dataclass(frozen=True)
class Reached:
    """A mixture at one budget.

    Attributes:
        completions: Its budget.
        gained: J above the base model's, summed over preferences.
        seconds: CPU seconds of its training until then.
    """

    completions: int
    gained: float
    seconds: float


class Clock:
    """Hears of completions as they are made, and notes how many CPU seconds have gone by then."""

    def __init__(self) -> None:
        self.began = time.process_time()
        self.made = 0
        self.notes: list[tuple[int, float]] = []

    def hear(self, completions: int) -> None:
        """Note completions made since the last call."""
        self.made += completions
        self.notes.append((self.made, time.process_time() - self.began))

    def seconds_at(self, completions: int) -> float:
        """Return the seconds until so many completions had been learned from, and what they gave was written."""
        return next(seconds for made, seconds in reversed(self.notes) if made <= completions)


def first_to_reach(reached: Sequence[Reached], gained: float) -> Reached | None:
    """Return the first of growing budgets that gains as much, or None."""
    return next((each for each in reached if each.gained >= gained), None)


def mixtures(
    task: Task, preferences: FloatArray, budgets: Sequence[int], seed: int, settings: Mapping[str, object],
    until: float = np.inf,
) -> list[Reached]:  # fmt: skip
    """Train one mixture along one trajectory, and return what it reached at its budgets.

    Args:
        task: The task instance.
        preferences: `[M, K]`.
        budgets: Growing; it is trained to all of them.
        seed: Of the training.
        settings: Of the method.
        until: The gain, summed over preferences, of which later budgets are not scored any more.
    """
    from paretune.executors.jobs import Link, Message
    from paretune.methods.asking import asked_stages, assembled
    from paretune.methods.entries import method_entry, on_task
    from paretune.models.solutions import SolutionSet
    from paretune.training.train import finished_results

    class Listening(Link):
        def __init__(self, hear: Callable[[int], None]) -> None:
            super().__init__(self._told, lambda: False, threads=1)
            self._hear = hear

        def _told(self, message: Message) -> None:
            if message["kind"] == "sealed":  # what so many completions gave is written by now
                self._hear(0)

        def progress(self, completions: int, message: str = "") -> None:
            self._hear(completions)

    entry = on_task(method_entry("mixture_of_experts", dict(settings), "time_to_policy"), task)
    asked = [asked_stages(entry.method, task, preferences, budget, seed) for budget in budgets]
    stages, found = [stage for each in asked for stage in each], list[Reached]()
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        results = finished_results(Path(folder), stages, task, seed, Listening(clock.hear))
        for own in asked:
            mine = {stage.key(task): results[stage.key(task)] for stage in own}
            assembly = assembled(entry.method, task, preferences, mine)
            solutions = SolutionSet.from_assembly(task, assembly, entry.label, entry.method.family)
            gained = float(exact_gains(solutions, task, preferences)[0].sum())
            length = sum(stage.completions for stage in own)
            found.append(Reached(length, gained, clock.seconds_at(length)))
            if gained >= until:
                break
    return found


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
        part: Of `trl_rival.PARTS`.
        instance: Of the task.
        completions: R, of each of TRL's runs.
        divisions: Of the simplex: one more preference than that.
        budgets: Of the mixture, growing.
        tiny: Whether the task is.
    """

    part: str
    instance: int
    completions: int
    divisions: int
    budgets: tuple[int, ...]
    tiny: bool


def measure(asked: Asked, trl: TrlSettings, settings: Mapping[str, object], gates: Sequence[str]) -> dict[str, Any]:
    """Train both sides and return figures and ratios."""
    task = task_of(asked.part, asked.instance, asked.tiny)
    preferences = das_dennis(len(task.objectives), asked.divisions)
    trained(task, preferences[:1], BATCH, 0, trl)
    rival = trained(task, preferences, asked.completions, asked.instance, trl)
    gained, seconds = float(rival.gained.sum()), float(rival.seconds.sum())
    print(f"TRL: share {rival.share:.3f}, {seconds:.1f} CPU s in {len(preferences)} runs", flush=True)
    sides = {}
    for gate in gates:
        mixtures(task, preferences[:1], [BATCH], 0, {**settings, "gate": gate})
        reached = mixtures(task, preferences, asked.budgets, asked.instance, {**settings, "gate": gate}, gained)
        sides[gate] = compared(reached, gained, seconds, float(rival.possible.sum()))
        print(gate, {name: value for name, value in sides[gate].items() if name != "curve"}, flush=True)
    return {
        "part": asked.part, "instance": asked.instance, "goal": GOAL, "threads": 1,
        "trl": {**vars(trl), "cpu_seconds": seconds, "share": rival.share, "completions_each": asked.completions},
        "mixture_of_experts": {"settings": dict(settings), "gates": sides},
        "cpu_seconds_ratio": sides[gates[0]]["cpu_seconds_ratio"],  # of the others beside their curves
    }  # fmt: skip


def compared(reached: Sequence[Reached], gained: float, seconds: float, possible: float) -> dict[str, Any]:
    """Return at which budget a mixture gains what TRL's runs gain together, and how much sooner.

    Args:
        reached: A mixture at growing budgets.
        gained: By TRL, summed over preferences.
        seconds: CPU seconds of TRL.
        possible: The most that could be gained.
    """
    equal = first_to_reach(reached, gained)
    curve = [{"completions": each.completions, "share": each.gained / possible, "cpu_seconds": each.seconds}
             for each in reached]  # fmt: skip
    if equal is None:
        reason = f"gained {max(each.gained for each in reached) / gained:.3f} of what TRL gained, at most"
        return {"cpu_seconds_ratio": None, "reason": reason, "curve": curve}
    return {
        "cpu_seconds_ratio": seconds / equal.seconds,
        "completions": equal.completions,
        "cpu_seconds": equal.seconds,
        "share": equal.gained / possible,
        "curve": curve,
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    trl = TrlSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--part", choices=sorted(PARTS), default="competing")
    parser.add_argument("--instance", type=int, default=0)
    parser.add_argument("--completions", type=int, default=COMPLETIONS, help="R, of each of TRL's runs")
    parser.add_argument("--gates", nargs="+", choices=GATES, default=list(GATES), help="of the first the ratio is told")
    parser.add_argument("--step", type=int, default=STEP, help="completions between two budgets of the mixture")
    parser.add_argument("--most", type=float, default=MOST, help="budget of the mixture, a share of TRL's in all")
    parser.add_argument("--settings", type=json.loads, default=SETTINGS, help="of mixture_of_experts, as JSON")
    parser.add_argument(
        "--trl", type=json.loads, default={}, help="of TRL, as JSON: num_iterations, learning_rate, ..."
    )
    parser.add_argument("--tiny", action="store_true", help="three preferences of a tiny task, four batches each")
    arguments = parser.parse_args()
    prepare()
    completions, divisions = (4 * BATCH, 2) if arguments.tiny else (arguments.completions, DIVISIONS)
    step = BATCH if arguments.tiny else arguments.step
    most = int(arguments.most * completions * (divisions + 1)) if not arguments.tiny else 8 * BATCH
    if most < step:
        parser.error(f"--most must leave the mixture one step of {step} completions at least, got {most}. Raise it.")
    asked = Asked(
        arguments.part, arguments.instance, completions, divisions, tuple(range(step, most + 1, step)), arguments.tiny
    )
    result = measure(asked, TrlSettings(**{**vars(trl), **arguments.trl}), arguments.settings, arguments.gates)
    print(json.dumps(result["cpu_seconds_ratio"]))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
