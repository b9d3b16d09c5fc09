"""Attribution: what each expert of a policy adds, what another preference changes, where a gate uses which expert."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paretune.attribution.games import FEWEST_ORDERS, Game, Shares
from paretune.attribution.gates import gate_use
from paretune.attribution.prompt_means import PromptMeans
from paretune.attribution.shapley import MOST_EXACT
from paretune.benchmark.measurements.evaluation import context_of
from paretune.benchmark.measurements.expert_names import expert_names
from paretune.benchmark.measurements.weights_in_force import weights_in_force
from paretune.benchmark.measuring import TableJob
from paretune.benchmark.planned import PlannedCell, picked
from paretune.benchmark.study import Study
from paretune.core.digests import digest
from paretune.core.preferences import FloatArray, centre
from paretune.core.protocols import REFERENCE, Table
from paretune.core.seeds import stream_key
from paretune.core.task import Row
from paretune.executors.jobs import Link
from paretune.records.files import write_json
from paretune.records.layout import stage_folder

if TYPE_CHECKING:
    from paretune.models.policy import Policy
    from paretune.rl.outcomes import PromptScores
    from paretune.rl.requests import Requests

STEPS = (0.1, 0.2)  # by which one weight is raised: what is told, and what that is checked against
PROMPTS, SAMPLES = 32, 4  # test prompts, the first ones, and completions of each where a policy has to be sampled
TRACED = 2  # completions of each prompt that a gate is followed through
MOST_POLICIES = 80  # scored for coalitions: 76 are all those of four experts at five preferences
EVEN = "equal weights"
UNGATED = "its experts are mixed by the preference alone"


class Attribution:
    """What the policy for equal weights, and for each objective's weight .2 higher, owes to what.

    The players are the experts that the answer to a preference weighs; behind a gate all of them, since it may weigh
    any. A coalition is scored as the policy with the weights of these experts as they are and all others 0, nothing
    renormalised: see `Policy.keeping`. No expert is the base model. All coalitions of up to six experts are scored; of
    more, those of orders drawn at random. Preferences beside equal weights are left out where coalitions of all would
    be more than 80 policies. Scores are exact where completions can be listed, else means over 4 samples, with the same
    noise for all, of the first 32 test prompts.

    `attribution.json` holds, with S columns, the K objectives, `KL` and `utility` (the weighed sum of scores):

    - `columns`: names of the S columns. `scores`: `exact`, or how they were estimated.
    - `points`: one for each preference, `at` (`equal weights`, `OBJECTIVE +.2`) and `preference` `[K]`. `experts` names
      the players, E of them, and `expert_weights` `[E]` are what the answer gives them, mean over prompts. `base`,
      `policy` `[S]`: scores of the base model and of the policy. `shapley` `[E, S]`, with its `standard_error` over
      prompts, and `order_error` where orders were drawn. `removal` `[E, S]`: what the score loses without that expert.
      `prompts` `[S]`: those with a value for every coalition. `coalitions`: how many were scored. `reason`: why there
      are no values.
    - `sensitivity`: `steps` `[2]`; `changes` `[2, K, K + 1]`, how the objectives and the KL change when the weight of
      each objective in turn is raised from equal weights by a step, all others shrunk in proportion; `standard_error`
      likewise; `same_policy` `[2, K]`, whether the very same policy answers. Or a `reason`.
    - `gate`: `points` like those above, each with `experts`, `blocks`, `positions` (first and last token of each bin),
      `mean` `[E]`, `by_block` `[L, E]`, `by_position` `[Q, E]`, `by_prompt` `[P, E]`, `spread` `[E]` and `entropy`; see
      `attribution.gates.GateUse`. Or a `reason`.
    - `training`: `shares` `[K]` and `conflicts` `[K]` of the stages behind the policy for equal weights, see
      `weights_in_force`.
    - `cost`: `seconds`, `policies` and `completions` of this measurement.

    None stands for a number that could not be made.
    """

    name, version, alone = "attribution", 1, False

    def jobs(self, study: Study, cells: Sequence[PlannedCell]) -> list[Table]:
        """Return one table a cell that has experts."""
        return [
            Table(
                f"{cell.folder}/{self.name}", cell.task.name, cell.seed,
                {
                    **picked(cell, "training:training_key training_preferences"), **context_of(cell.task),
                    "test prompts": digest(list(study.test_rows(cell.task)[:PROMPTS])),
                },
                (cell.name,), completions=_completions(cell, len(study.test_rows(cell.task)[:PROMPTS])),
            )
            for cell in cells
            if cell.entry.method.family != REFERENCE
        ]  # fmt: skip

    def run(self, job: TableJob, link: Link) -> None:
        """Score coalitions, follow the gate and read the logs of the cell's stages."""
        write_json(job.folder / f"{self.name}.json", _Attributing(job, link).table())


def _completions(cell: PlannedCell, prompts: int) -> int:
    """Return how many completions a cell's table takes at most; its experts are no more than its stages train."""
    preferences = 1 + len(cell.task.objectives)
    several = cell.entry.method.family == "meta-policy"
    experts = (cell.policies or MOST_EXACT) if several else 1
    coalitions = min(MOST_POLICIES, 1 + preferences * (2 ** min(experts, MOST_EXACT) - 1))
    sampled = 0 if cell.task.enumeration is not None else (coalitions + preferences - 1) * SAMPLES
    return prompts * (sampled + preferences * TRACED * several)


@dataclass(frozen=True, eq=False)
class _Point:
    """A preference whose policy is taken apart.

    Attributes:
        at: Its name.
        place: Its number among all that are answered.
        game: Its experts, and which coalitions of them are scored.
    """

    at: str
    place: int
    game: Game


class _Attributing:
    """One cell while it is measured.

    Attributes:
        job: Its task instance, solution set and seed.
        link: Is told of completions, and raises where the run is to stop.
        rows: The P test prompts.
        preferences: Those that are answered, `[M, K]`: equal weights, and each objective raised by a step, the larger
            step first.
        asked: What answers them.
        names: Of all experts.
        columns: Names of the S columns of scores.
        completions: Sampled so far.
    """

    def __init__(self, job: TableJob, link: Link) -> None:
        from paretune.rl.requests import Requests

        self.began = time.perf_counter()
        self.job, self.link, self.task = job, link, job.task
        self.objectives = self.task.objective_names
        self.rows: Sequence[Row] = job.rows[:PROMPTS]
        middle = centre(len(self.objectives))
        raised = [raised_weight(middle, k, step) for step in STEPS[::-1] for k in range(len(middle)) if len(middle) > 1]
        self.preferences: FloatArray = np.stack([middle, *raised])
        self.asked: Requests = Requests.of(job.answering(self.preferences, self.rows), len(self.rows))
        self.names = expert_names(job.solutions, self.objectives)
        self.columns = (*self.objectives, "KL", "utility")
        self.completions = 0

    def table(self) -> dict[str, object]:
        """Return all that `attribution.json` holds."""
        points, experts = self._points(), self.asked.policy.expert_weights.shape[1]
        places = [each.place for each in points for _ in each.game.coalitions] + list(range(len(self.preferences)))
        whole = np.ones((len(self.preferences), experts), dtype=np.bool_)
        asked = self.asked.keeping(places, np.vstack([*(each.game.within(experts) for each in points), whole]))
        scored = self._scores(asked)
        values = self._values(scored, places)  # [R, P, S]
        starts = np.cumsum([0, *(len(each.game.coalitions) for each in points)])
        parts = [values[low:high] for low, high in itertools.pairwise(starts)]
        sensitivity = self._sensitivity(values[starts[-1] :, :, : len(self.objectives) + 1], asked, int(starts[-1]))
        return {
            "columns": list(self.columns),
            "scores": scored.reason or "exact",
            "points": [self._shared_out(each, part) for each, part in zip(points, parts, strict=True)],
            "sensitivity": sensitivity,
            "gate": self._gate(points),
            "training": weights_in_force(self._stages(points[0].game.players)),
            "cost": {
                "seconds": time.perf_counter() - self.began,
                "policies": scored.policies,
                "completions": self.completions,
            },
        }

    def _points(self) -> list[_Point]:
        """Return the preferences that are taken apart: as many as there may be policies, or equal weights alone."""
        names = [EVEN, *(f"{each} +{_short(STEPS[1])}" for each in self.objectives)]
        players = [self._players(place) for place in range(len(names) if len(self.preferences) > 1 else 1)]
        all_of_them = sum(2 ** len(each) - 1 for each in players) + 1
        if all_of_them > MOST_POLICIES or max(map(len, players)) > MOST_EXACT:
            players = players[:1]
        drawing = [np.random.default_rng(stream_key(self.job.seed, "attribution")) for _ in players]
        games = [Game.of(each, MOST_POLICIES, draw) for each, draw in zip(players, drawing, strict=True)]
        return [_Point(name, place, game) for place, (name, game) in enumerate(zip(names, games, strict=False))]

    def _players(self, place: int) -> NDArray[np.int64]:
        """Return the experts that a preference's policies weigh, or that their gate may."""
        policy, own = self.asked.policy, np.unique(self.asked.places[place])
        weighed = np.abs(policy.expert_weights[own]).max(axis=0) > 0 if policy.expert_weights.size else np.zeros(0)
        return np.flatnonzero(weighed if policy.gate is None else np.ones_like(weighed))

    def _scores(self, asked: Requests) -> PromptScores:
        """Score requests on the prompts, equal policies once."""
        from paretune.objectives.scoring import Scorer
        from paretune.rl.evaluation import evaluate
        from paretune.rl.outcomes import listed_scores, sampled_scores, tables

        task, job = self.task, self.job
        score = Scorer(task.objectives)
        if task.enumeration is not None:
            log_reference, rewards = tables(task, self.rows, score)
            return listed_scores(
                asked, self.rows, task.enumeration, log_reference, rewards, job.seed, self.link.progress
            )

        def made(completions: int) -> None:
            self.completions += completions
            self.link.progress(completions)

        records = evaluate(asked, self.rows, score, self.objectives, samples=SAMPLES, seed=job.seed, progress=made)
        return sampled_scores(records, len(self.rows), SAMPLES)

    def _values(self, scored: PromptScores, places: Sequence[int]) -> FloatArray:
        """Return what requests get in every column, `[R, P, S]`."""
        wanted = np.repeat(self.preferences[:, None], len(self.rows), axis=1)
        if self.task.contextual:
            wanted = self.task.prompt_preferences(self.rows, self.preferences)
        utility = np.einsum("rpk,rpk->rp", wanted[list(places)], scored.rewards)
        return np.concatenate([scored.rewards, scored.kl[..., None], utility[..., None]], axis=2)

    def _shared_out(self, point: _Point, values: FloatArray) -> dict[str, object]:
        """Return what the experts of one preference add, from the scores of its coalitions `[C, P, S]`."""
        game, own = point.game, self.asked.places[point.place]  # [P]
        plain: dict[str, object] = {
            "at": point.at,
            "preference": self.preferences[point.place].tolist(),
            "experts": [self.names[each] for each in game.players],
            "expert_weights": self.asked.policy.expert_weights[own].mean(axis=0)[game.players].tolist(),
            "coalitions": len(game.coalitions),
        }
        if len(game.coalitions):
            return {**plain, **_shares(game.shared_out(values)), "reason": ""}
        why = "no expert is weighed: the base model answers"
        if len(game.players):
            why = f"{len(game.players)} experts are too many: {FEWEST_ORDERS} orders need over {MOST_POLICIES} policies"
        return {**plain, "reason": why}

    def _sensitivity(self, values: FloatArray, asked: Requests, start: int) -> dict[str, object]:
        """Return how scores change with the preference, from those of equal weights and of what is raised from it.

        Args:
            values: Objectives and KL of all preferences, `[M, P, K + 1]`.
            asked: All requests.
            start: Number of the request for equal weights; those for the others follow.
        """
        objectives = len(self.objectives)
        if objectives < 2:
            return {"reason": "there is one objective: a preference has nothing to move"}
        mean = PromptMeans.of(values)
        moved = (values[1:] - values[0]).reshape(len(STEPS), objectives, *values.shape[1:])[::-1]  # the smaller first
        same = [asked.identity(start + each) == asked.identity(start) for each in range(1, len(values))]
        return {
            "steps": list(STEPS),
            "changes": _plain(mean.over_prompts(moved)),
            "standard_error": _plain(mean.errors(moved)),
            "same_policy": np.asarray(same).reshape(len(STEPS), objectives)[::-1].tolist(),
            "reason": "",
        }

    def _gate(self, points: Sequence[_Point]) -> dict[str, object]:
        """Return where the gate uses which expert, at each preference that is taken apart."""
        from paretune.models.gate_use import gate_weights

        policy: Policy = self.asked.policy
        if policy.gate is None:
            return {"reason": UNGATED}
        prompts, found = [str(row["prompt"]) for row in self.rows], []
        for point in points:
            made = policy.generate(prompts, self.asked.places[point.place].tolist(), TRACED, seed=self.job.seed)
            self.completions += len(made.texts)
            self.link.progress(len(made.texts))
            weights = gate_weights(policy, made)[..., point.game.players]
            use = gate_use(weights, np.asarray([prompt for _, prompt, _ in made.row_ids], dtype=np.int64))
            found.append(
                {
                    "at": point.at,
                    "preference": self.preferences[point.place].tolist(),
                    "experts": [self.names[each] for each in point.game.players],
                    "blocks": list(range(len(use.by_block))),
                    "positions": [list(each) for each in use.positions],
                    **{name: _plain(getattr(use, name)) for name in ("mean", "by_block", "by_position", "by_prompt")},
                    "spread": _plain(use.spread),
                    "entropy": _plain(np.asarray(use.entropy)),
                }
            )
        return {"points": found, "reason": ""}

    def _stages(self, players: NDArray[np.int64]) -> list[Path]:
        """Return the folders of the stages that some experts, and the gate, are from."""
        solutions, root = self.job.solutions, self.job.root.resolve()
        files = [solutions.experts[each] for each in players]
        files += [] if solutions.mixer.gate is None else [solutions.mixer.gate]
        home = stage_folder(root, "any").parent
        inside = [each.resolve().relative_to(home) for each in files if each.resolve().is_relative_to(home)]
        return [home / each.parts[0] for each in inside]


def raised_weight(preference: FloatArray, objective: int, step: float) -> FloatArray:
    """Return a preference `[K]` with one weight higher by a step, the others shrunk in proportion.

    Example:
        >>> raised_weight(np.array([0.5, 0.25, 0.25]), 0, 0.1).tolist()
        [0.6, 0.2, 0.2]
    """
    left = 1 - preference[objective]
    moved: FloatArray = preference * (left - step) / left
    moved[objective] = preference[objective] + step
    return moved


def _short(step: float) -> str:
    return f"{step:g}".removeprefix("0")


def _shares(made: Shares) -> dict[str, object]:
    plain = {
        name: _plain(getattr(made, name))
        for name in ("base", "policy", "shapley", "standard_error", "removal", "prompts")
    }
    return {**plain, "order_error": None if made.order_error is None else _plain(made.order_error)}


def _plain(values: NDArray[Any]) -> Any:
    """Return numbers as plain data, None for NaN."""
    numbers = np.asarray(values, dtype=object)
    numbers[np.isnan(np.asarray(values, dtype=np.float64))] = None
    return numbers.tolist()
