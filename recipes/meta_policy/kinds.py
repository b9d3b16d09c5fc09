"""What kinds of experts do: own gain, loss on other objectives, and what they give under the same upper level.

    python recipes/meta_policy/kinds.py -o docs/results/data/meta_policy/kinds.csv
    python recipes/meta_policy/kinds.py -o /tmp/kinds.csv --tiny     # to see it run

Every kind is trained with the same completions in all and the default learner, as experts of gradients cannot learn
from earlier completions. Its experts are averaged by its prior, `g = w @ prior`, for eleven preferences. All figures
are exact, on test prompts, in shares of what the best policy could gain over the base model. An expert's own
objective is the one it was trained for most, the first of equals. Of `split_experts` the gain is also shown on
prompts of the half that each was trained on, and the share of somebody who knows the half of each prompt. About
a minute of one core for each instance of both tasks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import paretune
from paretune.core.errors import ParetuneError
from paretune.core.preferences import FloatArray, corners, das_dennis
from paretune.methods.meta_policy.lower_level import make_kind
from paretune.methods.meta_policy.lower_level.split_experts import SplitExperts
from paretune.methods.prompt_halves import above
from paretune.methods.training import one_by_one
from paretune.models.bank import ExpertBank
from paretune.models.loading import unwrap
from paretune.models.policy import Policy
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import captured_share, optimal_outcome, outcome
from paretune.rl.outcomes import enumeration_of, outcomes, tables
from paretune.tasks import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import continued  # type: ignore[import-not-found]  # one folder up

TASKS = [{"rho": -0.8, "heterogeneity": 0.0}, {"rho": -0.8, "heterogeneity": 0.5}]
INSTANCES, COMPLETIONS, GRID = (0, 1, 2), 4_096, 10
TINY = {"alphabet": 5, "length": 3}
KINDS: list[dict[str, Any]] = [
    {"kind": "single_objective"},
    {"kind": "mixed_reward", "beta": 0.8},
    {"kind": "mixed_reward", "beta": 0.7},
    {"kind": "mixed_reward", "beta": 0.6},
    {"kind": "mgda"},
    {"kind": "mgda", "divisions": 2},
    {"kind": "cone", "eps": 0.0},
    {"kind": "cone", "eps": 0.2},
    {"kind": "cone", "eps": 0.5},
    {"kind": "split_experts"},
]


def gains_and_losses(
    scores: FloatArray, reference: FloatArray, best: FloatArray, own: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Return what each expert gains on its own objective `[E]`, and loses on the others, on average, `[E]`.

    Both in shares of what a policy for the objective alone would gain on it.

    Args:
        scores: J of each expert on each objective, `[E, K]`.
        reference: J of the base model, `[K]`.
        best: Highest J of each objective, `[K]`.
        own: The own objective of each expert, `[E]`.
    """
    shares = (scores - reference) / (best - reference)
    mine = np.eye(scores.shape[1], dtype=bool)[own]
    return shares[mine], -shares[~mine].reshape(len(scores), -1).mean(axis=1)


class Exact:
    """Scores policies exactly on the test prompts of a task instance."""

    def __init__(self, task: paretune.Task, wanted: FloatArray) -> None:
        self.task, self.rows, self.wanted = task, task.splits["test"], wanted
        self.log_reference, self.rewards = tables(task, self.rows, Scorer(task.objectives))
        self.base = outcome(self.log_reference, self.log_reference, self.rewards).rewards  # [P, K]
        self.best = self._best(wanted)  # [M, P, K]

    def _best(self, wanted: FloatArray) -> FloatArray:
        found = optimal_outcome(self.log_reference, self.rewards, wanted, self.task.beta)
        return np.asarray(found.rewards - self.task.beta * found.kl[..., None])

    def scores(self, policy: Policy) -> FloatArray:
        """Return J of each of a policy's members, prompt and objective, `[M, P, K]`."""
        found = outcomes(policy, self.rows, enumeration_of(self.task), self.log_reference, self.rewards, (1.0,))
        return np.asarray((found.rewards - self.task.beta * found.kl[..., None])[:, 0])

    def share(self, scores: FloatArray) -> float:
        """Return the captured share of scores `[M, P, K]` for the wanted preferences."""
        return captured_share(scores.mean(axis=1), self.base.mean(axis=0), self.best.mean(axis=1), self.wanted)

    def own(
        self, scores: FloatArray, trained: NDArray[np.int64], prompts: list[NDArray[np.bool_]]
    ) -> tuple[float, float]:
        """Return mean gain and loss of experts of scores `[E, P, K]`, each on prompts of its own."""
        best = self._best(corners(len(self.task.objectives)))  # [K, P, K]
        gains, losses = [], []
        for expert, here in enumerate(prompts):
            most = np.diagonal(best[:, here].mean(axis=1))
            base, mine = self.base[here].mean(axis=0), scores[expert : expert + 1, here].mean(axis=1)
            gain, loss = gains_and_losses(mine, base, most, trained[expert : expert + 1])
            gains.append(float(gain[0]))
            losses.append(float(loss[0]))
        return float(np.mean(gains)), float(np.mean(losses))


def with_weights(bank: ExpertBank, task: paretune.Task, wanted: FloatArray, weights: FloatArray) -> Policy:
    """Return the experts of a bank, averaged with expert weights `[M, E]`."""
    return Policy(
        bank.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
        wanted, ["combined"] * len(wanted), weights,
    )  # fmt: skip


def measured(
    kind: Mapping[str, Any], family: paretune.Task, seed: int, completions: int, grid: int
) -> dict[str, object]:
    """Train a kind of experts; return gain and loss of its experts, the share by its prior, and the same by halves."""
    task, objectives = family.instance(seed), len(family.objectives)
    wanted = das_dennis(objectives, grid)
    made = make_kind(kind)
    solutions = paretune.train("rewarded_soups", family, completions, seed, wanted, {"experts": dict(kind)})
    bank: Any = solutions.bank  # of experts, which every kind trains
    exact, experts = Exact(task, wanted), bank.experts
    scores = exact.scores(one_by_one(bank, task))
    trained = made.prior(objectives).argmax(axis=0)  # each counts most for the objective it was trained for most
    everywhere = [np.ones(len(exact.rows), dtype=bool)] * experts
    gain, loss = exact.own(scores, trained, everywhere)
    found: dict[str, object] = {
        "own_gain": gain, "loss": loss, "share": exact.share(exact.scores(solutions.policies_for(wanted))),
        "own_gain_on_half": "", "share_by_half": "",
    }  # fmt: skip
    if isinstance(made, SplitExperts):
        upper = above(task, exact.rows, made.split_by, made.threshold)
        halves = [upper if expert % 2 else ~upper for expert in range(experts)]
        low, high = (
            exact.scores(with_weights(bank, task, wanted, wanted @ prior)) for prior in made.prior_by_half(objectives)
        )
        found["own_gain_on_half"] = exact.own(scores, trained, halves)[0]
        found["share_by_half"] = exact.share(np.where(upper[None, :, None], high, low))
    unwrap(solutions.base)
    return found


def main() -> int:
    """Train, score and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file; lines in it are not made again")
    parser.add_argument("--tiny", action="store_true", help="a smaller task, few completions and preferences")
    arguments = parser.parse_args()
    tiny: bool = arguments.tiny
    tasks, instances = (TASKS[:1], INSTANCES[:1]) if tiny else (TASKS, INSTANCES)
    completions, grid = (320, 2) if tiny else (COMPLETIONS, GRID)
    kinds = {",".join(f"{name}={value}" for name, value in each.items()): each for each in KINDS}

    def make(key: Mapping[str, Any]) -> dict[str, object]:
        task = {"rho": key["rho"], "heterogeneity": key["heterogeneity"], **(TINY if tiny else {})}
        return measured(kinds[key["experts"]], load_task({"controlled": task}), key["instance"], completions, grid)

    keys = [
        {**task, "instance": instance, "experts": name} for instance in instances for task in tasks for name in kinds
    ]
    try:
        continued(arguments.output, keys, make, tiny)
    except ParetuneError as error:
        print(f"kinds: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
