"""What a search of expert weights costs, factor by factor: memo, one batch a round, keys and values kept.

EMORL's hierarchical grid (three points an axis, five rounds, 32 completions of each mixture) over three experts of a
controlled task, log-probabilities mixed, on development prompts, by CPU seconds of one thread. Variants of one search:

- `memo`: a mixture that an earlier round or another preference asked for is not measured again. Without it every round
  measures all of its grid, for every preference.
- `batch`: all mixtures that a round measures are rows of one batch. Without it they are sampled one after the other.
- `cache`: keys and values are kept while a completion is sampled, and prompts are read once. Without it `Reader.whole`
  reads prompt and completion again for every token.

`all` has the three; `no_memo`, `no_batch` and `no_cache` lack one; `none` lacks all. Every variant draws by the same
noise, scores with the same rewards and reads the base model once for the KL, so all choose the same point: `chosen`,
one for each preference. Each takes turns with `all`; a factor is its seconds over those of `all`, of the least of all
turns and the median of pairs. Prompts have eight letters and completions four: where texts are longer, a cache is worth
more.

Modes: `faithful`, one cube of weights for the plain mean of the objectives, 27 points a round, as published;
`repaired`, the simplex, 9 points a round for each of fifteen preferences.

    python benchmarks/search_cost.py --json search_cost.json
    python benchmarks/search_cost.py --tiny             # one turn of a small search, to see it run
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import paretune
from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.protocols import Mixer
from paretune.core.task import Task
from paretune.methods.experts import DIGITS
from paretune.methods.hierarchical_grid import Found, HierarchicalGrid, Measure, Space, distinct, keys_of
from paretune.methods.judging import judged_scores
from paretune.objectives.scoring import Scorer
from paretune.tasks import load_task

PAIRS, WARM_UP, THREADS = 5, 1, 1
EXPERTS, ROUNDS, EACH, DIVISIONS = 3, 5, 32, 4
COMPLETIONS = 512  # of each expert: enough for them to differ
MIXER = Mixer("log_probs")  # the published level: last hidden states through one head are the same
MODES = ("faithful", "repaired")


@dataclass(frozen=True)
class Variant:
    """Which of the three a search has."""

    memo: bool = True
    batch: bool = True
    cache: bool = True


VARIANTS = {
    "no_memo": Variant(memo=False),
    "no_batch": Variant(batch=False),
    "no_cache": Variant(cache=False),
    "none": Variant(False, False, False),
}


def search(space: Space, rounds: int, measure: Measure, memo: bool) -> tuple[Found, int]:
    """Search expert weights round by round; return what was found, and how many measurements that took.

    With a memo it measures what `hierarchical_search` does before that spends what is left on the winners.

    Args:
        space: What is searched.
        rounds: How often three points an axis are measured.
        measure: Measures candidates `[C, E]`, equal ones equally.
        memo: Whether what is known is not measured again.
    """
    found, made = Found(), 0
    grids = [HierarchicalGrid(space.dimensions) for _ in space.utilities]
    wanted = np.concatenate([space.weights(grid.points()) for grid in grids] + [space.first_candidates])
    for _ in range(rounds):
        asked = distinct(wanted) if memo else wanted
        new = np.asarray(
            [row for row, key in zip(asked, keys_of(asked), strict=True) if key not in found.sums or not memo]
        )
        if len(new):
            scores, made = measure(new, 0), made + len(new)
            first = {key: place for place, key in reversed([*enumerate(keys_of(new))]) if key not in found.sums}
            once = sorted(first.values())
            if once:
                found.add(new[once], scores[once])
        for grid, utility in zip(grids, space.utilities, strict=True):
            grid.narrow(found.of(space.weights(grid.points())) @ utility)
        wanted = np.concatenate([space.weights(grid.points()) for grid in grids])
    return found, made


class Measuring:
    """Measures mixtures of a bank on development prompts, in one of the variants."""

    def __init__(self, task: Task, bank: Any, each: int, variant: Variant, seed: int = 0) -> None:
        self.task, self.bank, self.variant, self.seed = task, bank, variant, seed
        self.rows = task.splits["development"][:each]
        self.samples, self.score = each // len(self.rows), Scorer(task.objectives)

    def __call__(self, candidates: FloatArray, times: int) -> FloatArray:
        """Return the mean scores of candidates `[C, E]` as the task judges them, `[C, K]`."""
        parts = (
            [candidates] if self.variant.batch else [candidates[place : place + 1] for place in range(len(candidates))]
        )
        return np.concatenate([self._measured(part) for part in parts])

    def _measured(self, candidates: FloatArray) -> FloatArray:
        from paretune.models.policy import Policy

        task, count, objectives = self.task, len(candidates), len(self.task.objectives)
        policy = Policy(
            self.bank.base, self.bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            np.full((count, objectives), 1 / objectives), ["combined"] * count, candidates, MIXER,
        )  # fmt: skip
        owners = [index for index in range(count) for _ in self.rows]
        texts = [str(row["prompt"]) for row in self.rows] * count
        if self.variant.cache:
            made = policy.generate(texts, owners, self.samples, seed=self.seed, reference=True)
            said, log_probs, reference = list(made.texts), made.log_probs, made.reference_log_probs
            places = [place for _, place, _ in made.row_ids]
        else:
            said, log_probs, reference, places = without_cache(policy, texts, owners, self.samples, self.seed)
        rows = [self.rows[place % len(self.rows)] for place in places]
        rewards = self.score(rows, said).rewards.reshape(count, -1, objectives).mean(axis=1)
        kl = (log_probs.double() - reference.double()).sum(dim=1).numpy().reshape(count, -1).mean(axis=1)
        return judged_scores(task, rewards, kl)


def without_cache(
    policy: Any, prompts: Sequence[str], owners: Sequence[int], samples: int, seed: int
) -> tuple[list[str], Any, Any, list[int]]:
    """Sample what `Policy.generate` samples, and read prompt and completion again for every token.

    For completions that all run to the limit, as those of controlled tasks do.

    Args:
        policy: The policy, of M mixtures.
        prompts: Raw prompts.
        owners: Which of the M answers each.
        samples: Completions of each prompt.
        seed: Of the noise.

    Returns:
        Texts `B`, log-probabilities of their tokens under the policy and under the base model, `[B, T]` both, and the
        place of each one's prompt.
    """
    import torch

    from paretune.core.seeds import prompt_key, row_keys
    from paretune.models.policy import ROWS_AT_ONCE

    encoded = policy.encode(prompts)
    places = [place for place in range(len(prompts)) for _ in range(samples)]
    rows = [encoded[place] for place in places]
    keys = row_keys(
        [seed] * len(rows), 0, [prompt_key(ids) for ids in rows], [number for _ in prompts for number in range(samples)]
    )
    parts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):  # as many at once as with a cache
        part = slice(start, start + ROWS_AT_ONCE)
        parts.append(_read_again(policy, rows[part], [owners[place] for place in places[part]], keys[part]))
    said, log_probs, reference = (torch.cat(each) for each in zip(*parts, strict=True))
    return [policy.base.decode(row) for row in said.tolist()], log_probs, reference, places


def _read_again(policy: Any, rows: Sequence[Sequence[int]], owners: Sequence[int], keys: Any) -> tuple[Any, Any, Any]:
    """Sample one completion of each row; return ids and log-probabilities under policy and base model, `[B, T]`."""
    import torch

    from paretune.core.seeds import uniforms
    from paretune.models.decoding import draw
    from paretune.models.mixing import Mixing
    from paretune.models.readers.inputs import left_pad
    from paretune.models.readers.reader import Reader
    from paretune.models.scoring import completion_log_probs

    base, length = policy.base, policy.max_completion_tokens
    noise = torch.from_numpy(uniforms(keys, 0, length)).to(base.device)
    with torch.no_grad():
        reader = Reader(base, policy.bank, policy.mixing(owners, rows))
        ids, real = left_pad(base, rows)
        found = []
        for step in range(length):
            logits = reader.whole(ids, real, keep=1)[:, -1].float()
            tokens, log_probs = draw(logits, noise[:, step])
            ids = torch.cat([ids, tokens[:, None]], dim=1)
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
            found.append(log_probs)
        said, lengths = ids[:, -length:], torch.full((len(rows),), length, device=base.device)
        reference = completion_log_probs(base, policy.bank, Mixing.reference(len(rows)), rows, said, lengths)
    return said.cpu(), torch.stack(found, dim=1).cpu(), reference.cpu()


def space_of(mode: str, objectives: int, divisions: int) -> Space:
    """Return what a mode searches."""
    none = np.zeros((0, objectives))
    if mode == "faithful":
        return Space(objectives, np.full((1, objectives), 1 / objectives), False, none)
    return Space(objectives, das_dennis(objectives, divisions), True, none)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pairs: Turns that count.
        rounds: Of a search.
        completions: Of each expert's training.
        shape: Of the task, beside what is the same in all.
        divisions: Of the simplex, for the preferences of `repaired`.
    """

    pairs: int = PAIRS
    rounds: int = ROUNDS
    completions: int = COMPLETIONS
    shape: tuple[tuple[str, int], ...] = ()
    divisions: int = DIVISIONS


def measure(modes: Sequence[str], size: Size) -> dict[str, Any]:
    """Train experts, search with each variant in turn, and return factors and chosen points."""
    import torch

    torch.set_num_threads(THREADS)
    task = load_task({"controlled": {"rho": -0.4, "objectives": EXPERTS, **dict(size.shape)}}).instance(0)
    solutions = paretune.train("rewarded_soups", task, EXPERTS * size.completions)
    found: dict[str, Any] = {}
    for mode in modes:
        space = space_of(mode, EXPERTS, size.divisions)
        found[mode] = {}
        for name, variant in VARIANTS.items():
            one = Side(task, solutions.bank, space, size.rounds, Variant())
            other = Side(task, solutions.bank, space, size.rounds, variant)
            for _ in range(WARM_UP + size.pairs):
                one()
                other()
            found[mode][name] = factor(one.seconds[WARM_UP:], other.seconds[WARM_UP:]) | {
                "measured": other.made,
                "measured_by_all": one.made,
                "same_point": bool(np.array_equal(one.chosen, other.chosen)),
                "chosen": other.chosen.tolist(),
            }
            shown = {key: value for key, value in found[mode][name].items() if key != "chosen"}
            print(mode, name, shown, flush=True)
    solutions.bank.unwrap()  # type: ignore[union-attr]  # of a method that trains experts
    return {
        "modes": found, "threads": THREADS, "pairs": size.pairs, "rounds": size.rounds, "completions_each": EACH,
        "tokens": task.max_completion_tokens, "level": MIXER.level,
    }  # fmt: skip


class Side:
    """One variant: its seconds, what it chose last, and how many measurements that took."""

    def __init__(self, task: Task, bank: Any, space: Space, rounds: int, variant: Variant) -> None:
        self.measuring, self.space, self.rounds = Measuring(task, bank, EACH, variant), space, rounds
        self.seconds: list[float] = []
        self.chosen, self.made = np.zeros((0, space.experts)), 0

    def __call__(self) -> None:
        """Search once."""
        began = time.process_time()
        found, self.made = search(self.space, self.rounds, self.measuring, self.measuring.variant.memo)
        self.seconds.append(time.process_time() - began)
        self.chosen = np.stack([found.best(utility) for utility in self.space.utilities]).round(DIGITS)


def factor(all_three: Sequence[float], lacking: Sequence[float]) -> dict[str, float]:
    """Return how many times the seconds of a whole search one takes that lacks something, from turns of both."""
    return {
        "least": min(lacking) / min(all_three),
        "median": statistics.median(other / one for one, other in zip(all_three, lacking, strict=True)),
        "seconds": min(lacking),
        "seconds_of_all": min(all_three),
    }


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="turns that count")
    parser.add_argument("--tiny", action="store_true", help="one turn of two rounds on a tiny task")
    arguments = parser.parse_args()
    tiny = Size(1, 2, 64, (("alphabet", 4), ("length", 2)), 2)
    result = measure(arguments.modes, tiny if arguments.tiny else replace(Size(), pairs=arguments.pairs))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
