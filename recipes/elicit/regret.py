"""How well ten questions find what somebody wants: regret by the number of questions on tasks whose optimum is known.

    python recipes/elicit/regret.py -o docs/results/data/elicitation                 # both parts: an hour or two
    python recipes/elicit/regret.py -o docs/results/data/elicitation --part trained  # one of them
    python recipes/elicit/regret.py -o docs/results/data/elicitation --tune          # on tuning instances alone
    python recipes/elicit/regret.py -o /tmp/elicit --tiny                            # to see it run

Users have hidden preferences w and compare two policies at a time by `w . J`. Part `front`: they compare the best
policies for a grid of preferences, and get the best policy for the preference that was inferred. Part `trained`: they
compare the measured policies of a method, and get one of these. `--tune` tries what a nat of information counts in the
choice of a question. One file for each task and instance, `PART-TASK-INSTANCE.csv`: what is there is not run again.
`draw_regret.py` makes table and figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import paretune
from paretune.core.errors import ParetuneError
from paretune.core.preferences import centre, grid_preferences, nearest, random_preferences
from paretune.core.seeds import generator
from paretune.core.task import Task
from paretune.elicitation.answering import Reply
from paretune.elicitation.elicitation import Elicitation, Inferred
from paretune.elicitation.questions import INFORMATION
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import optimal_outcome, outcome
from paretune.rl.outcomes import enumeration_of, outcomes, tables

sys.path.insert(0, str(Path(__file__).parents[1]))
from csv_lines import write_lines  # type: ignore[import-not-found]  # one folder up

FloatArray = NDArray[np.float64]

TASKS = {  # K, rho; no three objectives are all correlated below -.5
    "two-competing": (2, -0.8), "two-independent": (2, 0.0), "two-correlated": (2, 0.8),
    "three-competing": (3, -0.4), "three-independent": (3, 0.0), "three-correlated": (3, 0.8),
}  # fmt: skip
INSTANCES, TUNING_INSTANCES = range(5), range(10_000, 10_003)
PREFERENCES, TUNING_PREFERENCES = 10, 20  # hidden ones of each instance, uniform on the simplex: 50 of each task
QUESTIONS = 15
FRONT_DIVISIONS = {2: 20, 3: 5}  # of the grid whose best policies are compared, the centre included: 21 and 22
TRAINED_DIVISIONS = {2: 10, 3: 4}  # of the grid that a method answers: 11 and 16
METHOD, COMPLETIONS = "rewarded_soups", 4096  # for each of its K experts
USERS = {  # noise of choices, and below which gap they have no preference: shares of the mean possible gain
    "exact": (0.0, 0.0), "noisy": (0.1, 0.0), "very_noisy": (0.3, 0.0), "ties": (0.1, 0.1),
}  # fmt: skip
SWEEP = (0.0, 0.1, 0.5, 2.0, 10.0)  # what a nat of information counts
TINY = {"alphabet": 4, "length": 2}
Answer = Callable[[Inferred], FloatArray]


@dataclass(frozen=True, eq=False)
class Ground:
    """What users of one task instance compare and get.

    Attributes:
        options: `J_k` of the policies that are compared, `[N, K]`.
        reference: `J_k` of the base model, `[K]`.
        best: `J_k` of the best policies for preferences `[M, K]`, `[M, K]`.
        answer: From what was inferred of a preference to `J_k` of the policy that its user gets, `[K]`.
        unasked: `J_k` of what everybody gets without a question: the answer to equal weights, `[K]`.
    """

    options: FloatArray
    reference: FloatArray
    best: Callable[[FloatArray], FloatArray]
    answer: Answer
    unasked: FloatArray


@dataclass(frozen=True, eq=False)
class User:
    """Somebody with a hidden preference.

    Attributes:
        preference: `[K]`.
        noise: Scale of choices in units of utility: a gap of this size is seen right in 73 of 100 cases; 0 sees all.
        unsure: Gap below which they have no preference.
        generator: Draws their slips.
    """

    preference: FloatArray
    noise: float
    unsure: float
    generator: np.random.Generator

    def reply(self, first: FloatArray, second: FloatArray) -> Reply:
        """Compare the scores of two policies, `[K]` each."""
        gap = float(self.preference @ (first - second))
        if abs(gap) <= self.unsure:
            return "="
        if self.noise:
            gap += self.noise * float(self.generator.logistic())
        return "a" if gap > 0 else "b"


def main() -> int:
    """Run what is wanted and missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--part", choices=("front", "trained"), help="one part; by default both")
    parser.add_argument("--tune", action="store_true", help="try question rules on tuning instances, and nothing else")
    parser.add_argument("--tiny", action="store_true", help="one instance of tiny tasks, few users, hardly trained")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = ["tune"] if arguments.tune else [arguments.part] if arguments.part else ["front", "trained"]
    instances: Iterable[int] = TUNING_INSTANCES if arguments.tune else INSTANCES
    try:
        for instance in list(instances)[: 1 if arguments.tiny else None]:  # stopped, it has instances of all tasks
            for part in parts:
                for name in TASKS:
                    file = arguments.output / f"{part}-{name}-{instance}.csv"
                    if not file.exists():
                        began = time.perf_counter()
                        write_lines(run(part, name, instance, arguments.tiny), file)
                        print(f"{file}: {time.perf_counter() - began:.0f} s", flush=True)
    except ParetuneError as error:
        print(f"elicit: {error}", file=sys.stderr)
        return 2
    return 0


def run(part: str, name: str, instance: int, tiny: bool) -> list[dict[str, object]]:
    """Return a line for each kind of users, strategy and number of questions."""
    objectives, rho = TASKS[name]
    family = paretune.load_task({"controlled": {"rho": rho, "objectives": objectives, **(TINY if tiny else {})}})
    ground = GROUNDS[part](family.instance(instance), instance, tiny)
    count = 2 if tiny else TUNING_PREFERENCES if part == "tune" else PREFERENCES
    hidden = random_preferences(objectives, count, generator("hidden preferences", name, instance))
    possible = np.einsum("mk,mk->m", hidden, ground.best(hidden) - ground.reference)
    strategies = {f"information {each:g}": each for each in SWEEP} if part == "tune" else {"asked": INFORMATION}
    lines = [_line(ground, hidden, possible, np.tile(ground.unasked, (count, 1)), users="all", strategy="nothing")]
    for users, (noise, unsure) in list(USERS.items())[: 2 if part == "tune" else None]:
        scales = noise * float(possible.mean()), unsure * float(possible.mean())
        for strategy, information in {**strategies, **({} if part == "tune" else {"random": None})}.items():
            talks = [
                talk(ground, User(each, *scales, generator("user", name, instance, users, number)), number, information)
                for number, each in enumerate(hidden)
            ]
            for asked in range(QUESTIONS + 1):
                given = np.stack([ground.answer(each[asked]) for each in talks])
                inside = [(each[asked].low <= w) & (w <= each[asked].high) for each, w in zip(talks, hidden)]
                lines.append(
                    _line(ground, hidden, possible, given, users, strategy, asked, scales[0], float(np.mean(inside)))
                )
    return [{"part": part, "task": name, "instance": instance, **line} for line in lines]


def _line(
    ground: Ground,
    hidden: FloatArray,
    possible: FloatArray,
    given: FloatArray,
    users: str,
    strategy: str,
    asked: int | None = None,
    noise: float | None = None,
    inside: float | None = None,
) -> dict[str, object]:
    """Return regrets of what users got, `[M, K]`, as shares of `J*(w) - J_ref(w)`, `[M]`."""
    regret = possible - np.einsum("mk,mk->m", hidden, given - ground.reference)
    offered = (hidden @ ground.options.T).max(axis=1) - np.einsum("mk,mk->m", hidden, given)
    return {
        "users": users, "strategy": strategy, "questions": asked, "noise": noise,
        "possible": float(possible.mean()), "regret": float((regret / possible).mean()),
        "regret_to_offered": float((offered / possible).mean()), "worst": float((regret / possible).max()),
        "regret_of_sums": float(regret.sum() / possible.sum()), "inside_interval": inside,
    }  # fmt: skip


def talk(ground: Ground, user: User, seed: int, information: float | None) -> list[Inferred]:
    """Return what is inferred before any question and after each; questions are random where information is None."""
    conversation = Elicitation(ground.options, seed=seed, information=information or 0.0)
    drawn, found = generator("random questions", seed), [conversation.inferred()]
    pairs = [(i, j) for i in range(len(ground.options)) for j in range(len(ground.options)) if i < j]
    at_random = drawn.permutation(pairs)  # none twice, as of those that are chosen
    for number in range(QUESTIONS):
        chosen = conversation.question() if information is not None else tuple(at_random[number].tolist())
        if chosen is None:
            raise ParetuneError(f"policies must make {QUESTIONS} pairs, got {len(pairs)}. Ask fewer questions.")
        first, second = chosen
        conversation.hear(first, second, user.reply(ground.options[first], ground.options[second]))
        found.append(conversation.inferred())
    return found


def front(task: Task, instance: int, tiny: bool) -> Ground:
    """Return best policies to compare, and the best policy for any preference to get."""
    log_reference, rewards = tables(task, task.splits["test"], Scorer(task.objectives))
    objectives = len(task.objectives)

    def best(preferences: FloatArray) -> FloatArray:
        return optimal_outcome(log_reference, rewards, preferences, task.beta).scores(task.beta)

    return Ground(
        options=best(grid_preferences(objectives, FRONT_DIVISIONS[objectives])),
        reference=outcome(log_reference, log_reference, rewards).scores(task.beta),
        best=best,
        answer=lambda inferred: best(inferred.preference[None])[0],
        unasked=best(centre(objectives)[None])[0],
    )


def trained(task: Task, instance: int, tiny: bool) -> Ground:
    """Return measured policies of a method, to compare and to get."""
    ideal = front(task, instance, tiny)
    rows = task.splits["test"]
    objectives = len(task.objectives)
    grid = grid_preferences(objectives, TRAINED_DIVISIONS[objectives])
    solutions = paretune.train(METHOD, task, (64 if tiny else COMPLETIONS) * objectives, instance)
    found = outcomes(
        solutions.policies_for(grid), rows, enumeration_of(task), *tables(task, rows, Scorer(task.objectives)), (1.0,)
    )
    options = (found.rewards - task.beta * found.kl[..., None])[:, 0].mean(axis=1)
    return Ground(
        options=options,
        reference=ideal.reference,
        best=ideal.best,
        answer=lambda inferred: options[inferred.best],
        unasked=options[nearest(grid, centre(objectives)[None])[0]],
    )


def compared(task: Task, instance: int, tiny: bool) -> Ground:
    """Return best policies to compare, and one of these to get: as good for tuning, and quick."""
    ideal = front(task, instance, tiny)
    return replace(ideal, answer=lambda inferred: ideal.options[inferred.best])


GROUNDS = {"front": front, "trained": trained, "tune": compared}

if __name__ == "__main__":
    sys.exit(main())
