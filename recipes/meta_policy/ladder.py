"""The ladder: what combining frozen experts reaches, rung by rung, on tasks whose best policies are known.

    python recipes/meta_policy/ladder.py -o docs/results/data/meta_policy/ladder               # all parts
    python recipes/meta_policy/ladder.py -o docs/results/data/meta_policy/ladder --part competing
    python recipes/meta_policy/ladder.py -o /tmp/ladder --tiny                                 # to see it run

Two experts, one for each objective: the best policies themselves (`exact`), experts trained on the enumerated J
(`exact_gradient`), and experts trained on samples as in the studies, at the learning rate that the sweep chose
(`trained`) and at half of it (`trained_slower`). Combined as whole completions (`sequence`), token by token (`token`)
and as adapter deltas (`parameter`); exact experts have no parameters. At each, weights g: the preference
(`preference`), the best fixed ones (`fixed`) and the best for each prompt (`prompt`), on the simplex and free, fitted
on training or test prompts, scored on test prompts. One file for each instance, `PART-INSTANCE.csv`: what is there is
not run again. `draw_ladder.py` makes table and figure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import paretune
from paretune.core.errors import ConfigError, ParetuneError
from paretune.core.task import Row, Task
from paretune.models.adapters import load_bank
from paretune.models.bank import ExpertBank
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.tree import tree_log_probs
from paretune.objectives.scoring import Scorer
from paretune.optimum.exact import Outcome, log_optimum, optimal_outcome, outcome
from paretune.optimum.pattern_search import Found, pattern_search
from paretune.optimum.products import product_log_probs, token_product_log_probs
from paretune.rl.outcomes import enumeration_of, tables

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from chosen_settings import load_choices  # type: ignore[import-not-found]  # noqa: E402  # one folder up
from csv_lines import write_lines  # type: ignore[import-not-found]  # noqa: E402
from studies import DATA, Studies, at_both_rates  # type: ignore[import-not-found]  # noqa: E402  # beside this file

FloatArray = NDArray[np.float64]
Level = Callable[[FloatArray], Outcome]  # expert weights [R, 1 or P, E] -> what these R policies do on P prompts

PARTS = {  # rho, heterogeneity
    "competing": (-0.8, 0.0), "independent": (0.0, 0.0),
    "competing_mixed": (-0.8, 0.5), "independent_mixed": (0.0, 0.5),
}  # fmt: skip
INSTANCES = 3
COMPLETIONS = 4096  # R, of each trained expert
UPDATES = 200  # of each expert of exact gradients, the default of that method
WEIGHTS = 6  # 0, .2, ..., 1
SIMPLEX = np.linspace(0, 1, 11)  # g_1 of what every search on the simplex begins with
SIMPLEX_STEP, SIMPLEX_ROUNDS = 0.05, 3  # 1 + 3 evaluations a round
FREE_STEP, FREE_ROUNDS = 0.25, 4  # 1 + 9 a round
DECIMALS = 6
MOST = 60  # evaluations of one fit, all it starts from included
ROWS_AT_ONCE = 8  # policies whose tables are made together
TINY = {"alphabet": 4, "length": 2}


@dataclass(frozen=True, eq=False)
class Ground:
    """All completions of the prompts of one split.

    Attributes:
        rows: The prompts.
        log_reference: `[P, Y]`.
        rewards: `[P, Y, K]`.
    """

    rows: tuple[Row, ...]
    log_reference: FloatArray
    rewards: FloatArray

    def score(self, log_probs: FloatArray) -> Outcome:
        """Return what policies `[..., P, Y]` do."""
        return outcome(log_probs, self.log_reference, self.rewards)


@dataclass(frozen=True, eq=False)
class Fit:
    """Expert weights for every preference and prompt, and what finding them took.

    Attributes:
        weights: `[M, 1 or P, E]`.
        evaluations: Of each of the functions maximised.
    """

    weights: FloatArray
    evaluations: int


def main() -> int:
    """Run the parts that are wanted and missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--part", choices=sorted(PARTS), help="one part; by default all")
    parser.add_argument("--tiny", action="store_true", help="one instance of a tiny task, hardly trained")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        for instance in range(1 if arguments.tiny else INSTANCES):  # a run that is stopped has instances of all parts
            for part in [arguments.part] if arguments.part else PARTS:
                file = arguments.output / f"{part}-{instance}.csv"
                if not file.exists():
                    began = time.perf_counter()
                    write_lines(run_instance(part, instance, arguments.tiny), file, DECIMALS)
                    print(f"{file}: {time.perf_counter() - began:.0f} s", flush=True)
    except ParetuneError as error:
        print(f"ladder: {error}", file=sys.stderr)
        return 2
    return 0


def run_instance(part: str, instance: int, tiny: bool) -> list[dict[str, object]]:
    """Return one line for each kind of experts, level, rung and preference."""
    rho, heterogeneity = PARTS[part]
    task = paretune.load_task(
        {"controlled": {"rho": rho, "heterogeneity": heterogeneity, **(TINY if tiny else {})}}
    ).instance(instance)
    first = np.linspace(0, 1, WEIGHTS)
    wanted = np.stack([first, 1 - first], axis=1)
    grounds = {
        split: Ground(task.splits[split], *tables(task, task.splits[split], Scorer(task.objectives)))
        for split in ("train", "test")
    }
    test = grounds["test"]
    best = optimal_outcome(test.log_reference, test.rewards, wanted, task.beta)
    ends = {
        "optimum": (wanted * best.scores(task.beta)).sum(axis=1),
        "base": wanted @ test.score(test.log_reference).scores(task.beta),
    }
    lines: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for experts, levels in all_levels(task, grounds, instance, tiny, Path(scratch)):
            for level, at in levels.items():
                for rung, (fit, values) in climb(at, wanted, task.beta, len(test.rows)).items():
                    lines += [
                        {
                            "part": part, "instance": instance, "experts": experts, "level": level, "rung": rung,
                            "preference": float(wanted[m, 0]), "J": float(values[m]), "base": float(ends["base"][m]),
                            "optimum": float(ends["optimum"][m]), "g_first": float(fit.weights[m, :, 0].mean()),
                            "g_second": float(fit.weights[m, :, 1].mean()), "evaluations": fit.evaluations,
                        }
                        for m in range(len(wanted))
                    ]  # fmt: skip
    return lines


def all_levels(
    task: Task, grounds: dict[str, Ground], instance: int, tiny: bool, scratch: Path
) -> list[tuple[str, dict[str, dict[str, Level]]]]:
    """Return for each kind of experts and level what weights do, on prompts of either split."""
    corners = np.eye(len(task.objectives))
    exact = {
        split: np.stack([log_optimum(each.log_reference, each.rewards, row, task.beta) for row in corners])
        for split, each in grounds.items()
    }
    updates, completions = (2, 64) if tiny else (UPDATES, COMPLETIONS)
    made = [("exact", table_levels(task, grounds, exact))]
    rows = {"exact_gradient": {"method": "exact_gradient", "updates": updates}}
    rows |= {name: {"method": "rewarded_soups"} if tiny else dict(row) for name, row in soups().items()}
    for name, settings in rows.items():
        method = str(settings.pop("method"))
        solutions = paretune.train(
            method, task, len(corners) * completions, instance, corners, settings, scratch / name
        )
        bank = load_bank(load_base(task.model), solutions.experts)
        own = {split: expert_tables(task, bank, each) for split, each in grounds.items()}
        levels = table_levels(task, grounds, own)
        levels["parameter"] = {split: delta_level(task, bank, each) for split, each in grounds.items()}
        made.append((name, levels))
    return made


def soups() -> dict[str, dict[str, Any]]:
    """Return the rows of the studies whose experts these are."""
    rows: dict[str, dict[str, Any]] = at_both_rates({"trained": Studies(load_choices(DATA / "chosen.json")).soups})
    return rows


def table_levels(task: Task, grounds: dict[str, Ground], experts: dict[str, FloatArray]) -> dict[str, dict[str, Level]]:
    """Return the two levels that the experts' tables, `[E, P, Y]` of each split, are enough for."""
    alphabet = len(enumeration_of(task).token_ids)

    def by_parts(log_probs: Callable[[FloatArray], FloatArray], ground: Ground) -> Level:
        def level(weights: FloatArray) -> Outcome:
            starts = range(0, len(weights), ROWS_AT_ONCE)
            return joined([ground.score(log_probs(weights[start : start + ROWS_AT_ONCE])) for start in starts])

        return level

    def sequence(split: str) -> Level:
        ground, own = grounds[split], experts[split]
        return by_parts(lambda weights: product_log_probs(own, ground.log_reference, weights), ground)

    def token(split: str) -> Level:
        ground, own = grounds[split], experts[split]
        return by_parts(lambda weights: token_product_log_probs(own, ground.log_reference, weights, alphabet), ground)

    return {"sequence": {each: sequence(each) for each in grounds}, "token": {each: token(each) for each in grounds}}


def delta_level(task: Task, bank: ExpertBank, ground: Ground) -> Level:
    """Return what policies of mixed adapter deltas do: a pass through the model for each."""

    def level(weights: FloatArray) -> Outcome:
        prompts = len(ground.rows)
        whole = np.broadcast_to(weights, (len(weights), prompts, weights.shape[-1]))
        starts = range(0, len(whole), ROWS_AT_ONCE)
        parts = [whole[start : start + ROWS_AT_ONCE] for start in starts]
        return joined([ground.score(delta_table(task, bank, ground, each)) for each in parts])

    return level


@torch.no_grad()
def delta_table(task: Task, bank: ExpertBank, ground: Ground, weights: FloatArray) -> FloatArray:
    """Return all completions under mixed deltas, `[R, P, Y]` of weights `[R, P, E]`; rows sum to one."""
    enumeration = enumeration_of(task)
    prompts = [bank.base.encode(str(row["prompt"]), task.prompt_format) for row in ground.rows]
    rows = torch.from_numpy(np.array(weights)).float().flatten(0, 1)
    table = tree_log_probs(
        bank.base, bank, Mixing.of_rows(rows), prompts * len(weights), enumeration.token_ids, enumeration.length
    )
    values = table.double().numpy().reshape(*weights.shape[:2], -1)
    return np.asarray(values - np.logaddexp.reduce(values, axis=-1, keepdims=True))  # rounding of fp32


def expert_tables(task: Task, bank: ExpertBank, ground: Ground) -> FloatArray:
    """Return all completions under each expert alone, `[E, P, Y]`."""
    corners = np.eye(bank.experts)[:, None].repeat(len(ground.rows), axis=1)
    return delta_table(task, bank, ground, corners)


def joined(parts: list[Outcome]) -> Outcome:
    """Return what all rows do."""
    return Outcome(np.concatenate([each.rewards for each in parts]), np.concatenate([each.kl for each in parts]))


def climb(at: dict[str, Level], wanted: FloatArray, beta: float, prompts: int) -> dict[str, tuple[Fit, FloatArray]]:
    """Return the weights of every rung and their J on test prompts, `[M]`, for each preference `[M, K]`.

    Best weights of a prompt say nothing about another prompt: they are fitted on the test prompts themselves.
    """
    lattice = np.stack([SIMPLEX, 1 - SIMPLEX], axis=1)[:, None, None]  # [11, 1, 1, E]
    fits = {"preference": Fit(wanted[:, None], 0)}
    for split, level in at.items():
        grid = values_of(level, np.repeat(lattice, len(wanted), axis=1), wanted, beta)  # [11, M, 1]
        start = lattice[grid.argmax(axis=0), 0, 0]  # [M, 1, E]
        simplex, free = fitted(level, wanted, beta, (start,), ())
        fits |= {f"fixed_simplex_{split}": simplex, f"fixed_free_{split}": free}
    level = at["test"]
    each = np.broadcast_to(lattice, (len(lattice), len(wanted), prompts, 2))
    best = lattice[values_of(level, each, wanted, beta).argmax(axis=0), 0, 0]  # [M, P, E]
    fixed = [np.broadcast_to(fits[f"fixed_{space}_test"].weights, best.shape) for space in ("simplex", "free")]
    simplex, free = fitted(level, wanted, beta, (best, fixed[0]), (fixed[1],))
    fits |= {"prompt_simplex_test": simplex, "prompt_free_test": free}
    for rung, found in fits.items():
        if found.evaluations > MOST:
            raise ConfigError(f"evaluations of {rung} must be at most {MOST}, got {found.evaluations}. Search less.")
    return {
        rung: (each, values_of(level, each.weights[None], wanted, beta).mean(axis=(0, 2)))
        for rung, each in fits.items()
    }


def fitted(
    level: Level,
    wanted: FloatArray,
    beta: float,
    starts: tuple[FloatArray, ...],
    free_starts: tuple[FloatArray, ...],
) -> tuple[Fit, Fit]:
    """Return best weights on the simplex and free, of each preference and, if starts have them, each prompt.

    Args:
        level: What weights do.
        wanted: `[M, K]`.
        beta: What a nat of KL costs.
        starts: Where the search on the simplex may start, `[M, 1 or P, E]` each, the first the best of the lattice.
        free_starts: Where the free one may, beside what was found on the simplex.
    """
    shape = starts[0].shape[:2]

    def search(weigh: Callable[[FloatArray], FloatArray], points: list[FloatArray], *how: float) -> Found:
        def evaluate(tried: FloatArray) -> FloatArray:  # [C, M * Q, D] -> [C, M * Q]
            weights = weigh(tried).reshape(len(tried), *shape, 2)
            return values_of(level, weights, wanted, beta).reshape(len(tried), -1)

        flat = np.stack([each.reshape(-1, each.shape[-1]) for each in points])
        return pattern_search(evaluate, flat, how[0], int(how[1]), *how[2:])

    on_line = search(
        lambda tried: np.concatenate([tried, 1 - tried], axis=2), [each[..., :1] for each in starts],
        SIMPLEX_STEP, SIMPLEX_ROUNDS, 0.0, 1.0,
    )  # fmt: skip
    simplex = Fit(np.concatenate([on_line.points, 1 - on_line.points], axis=1).reshape(*shape, 2),
                  len(SIMPLEX) + on_line.evaluations)  # fmt: skip
    found = search(lambda tried: tried, [simplex.weights, *free_starts], FREE_STEP, FREE_ROUNDS)
    return simplex, Fit(found.points.reshape(*shape, 2), simplex.evaluations + found.evaluations)


def values_of(level: Level, weights: FloatArray, wanted: FloatArray, beta: float) -> FloatArray:
    """Return J of weights `[C, M, 1 or P, E]` under the preference of each: of all prompts `[C, M, 1]`, or of each."""
    candidates, preferences, own, experts = weights.shape
    made = level(weights.reshape(candidates * preferences, own, experts))
    rewards = made.rewards.reshape(candidates, preferences, -1, wanted.shape[1])
    values = np.einsum("cmpk,mk->cmp", rewards, wanted) - beta * made.kl.reshape(rewards.shape[:3])
    return np.asarray(values.mean(axis=2, keepdims=True) if own == 1 else values)


if __name__ == "__main__":
    sys.exit(main())
