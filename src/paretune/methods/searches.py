"""Searching expert weights: the candidates of a round are rows of one batch, measured on development prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from paretune.core.answers import check_columns, number_table
from paretune.core.checks import check_choice
from paretune.core.digests import file_digest
from paretune.core.errors import ConfigError, RewardError, ShapeError
from paretune.core.preferences import SUM_TOLERANCE, FloatArray
from paretune.core.protocols import Level, Mixer
from paretune.core.settings import OPTIONAL, plain_settings
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import JudgedOn, Task
from paretune.methods.experts import DIGITS, adapters_of, settings_of
from paretune.methods.hierarchical_grid import Found, Measure, Space, hierarchical_search, keys_of
from paretune.methods.judging import judged_scores
from paretune.methods.kept_measurements import KeptMeasurements

if TYPE_CHECKING:
    from paretune.models.bank import ExpertBank

TABLE = "search.json"


@dataclass(frozen=True, eq=False)
class Searched:
    """The mixture that measured best answers: `combined`.

    Attributes:
        candidates: Expert weights that were measured, `[C, E]`.
        scores: Their mean scores as the task judges them, `[C, K]`.
    """

    candidates: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", number_table("candidates", self.candidates))
        object.__setattr__(self, "scores", number_table("scores", self.scores))
        if len(self.candidates) != len(self.scores):
            raise ShapeError(
                f"scores must be of the candidates that were measured, {len(self.candidates)}, got {len(self.scores)}. "
                "Give a row of scores for each."
            )

    @property
    def objectives(self) -> int:
        """Number of objectives K."""
        return int(self.scores.shape[1])

    @property
    def experts(self) -> int:
        """Number of experts E."""
        return int(self.candidates.shape[1])

    def weights(self, preferences: FloatArray) -> tuple[FloatArray, list[str]]:
        """Answer preferences `[M, K]` with the expert weights of candidates, `[M, E]`.

        Raises:
            ShapeError: If the preferences are of another number of objectives.
        """
        check_columns(preferences, self.objectives)
        chosen = (preferences @ self.scores.T).round(DIGITS).argmax(axis=1)
        return np.asarray(self.candidates[chosen]), ["combined"] * len(preferences)


@dataclass(frozen=True, eq=False)
class SearchTable:
    """What a finished search left.

    Attributes:
        search: Its result.
        plain: Its table as it was written: candidates, mean rewards, KL, and how often each was measured.
        found: What answers with its candidates, by what the task judges.
    """

    search: StageResult
    plain: dict[str, Any]
    found: Searched


def read_search(task: Task, results: Iterable[StageResult]) -> SearchTable:
    """Read what the one search among results has measured."""
    (search,) = (each for each in results if each.stage.kind == "search" and TABLE in each.artefacts)
    plain = json.loads(search.artefacts[TABLE].read_text(encoding="utf-8"))
    judged = judged_scores(task, np.asarray(plain["scores"]), np.asarray(plain["kl"]))
    return SearchTable(search, plain, Searched(np.asarray(plain["candidates"]), judged))


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search."""

    utilities: list[list[float]]  # of the preferences that it serves
    simplex: bool  # whether candidates sum to one
    first_candidates: list[list[float]]  # candidates of the first round, beside its own
    rounds: int  # at most so many
    evaluations: int  # so many measurements, exactly
    completions_each: int  # of each
    level: Level  # where the experts are mixed
    block: int | None  # for `hidden`, see `Mixer`
    judged_on: JudgedOn  # what the best is
    beyond: float = field(default=0.0, metadata=OPTIONAL)  # the simplex is enlarged by this share
    memo: bool = field(default=True, metadata=OPTIONAL)  # whether a candidate that was measured is known
    batched: bool = field(default=True, metadata=OPTIONAL)  # whether candidates of a round are rows of one batch


def check_mixable(level: Level, candidates: FloatArray) -> None:
    """Check that experts can be mixed at a level with expert weights `[C, E]` which are known before they are trained.

    Raises:
        ConfigError: If probabilities are to be mixed with weights that are no distribution, as no such mixture has one.
    """
    sums = candidates.sum(axis=1)
    wrong = ((candidates < 0).any(axis=1) | (sums > 1 + SUM_TOLERANCE)).nonzero()[0]
    if level == "probabilities" and len(wrong):
        raise ConfigError(
            "experts whose probabilities are mixed must have weights of 0 or more that sum to at most 1 for every "
            f"preference, got {candidates[wrong[0]].round(4).tolist()} (sum {sums[wrong[0]]:.4g}). Choose a kind of "
            "experts whose prior stays on the simplex, such as single_objective, or write level: log_probs."
        )


def search_stage(
    experts: Sequence[Stage], space: Space, rounds: int, evaluations: int, completions_each: int, level: Level,
    block: int | None, seed: int, judged_on: JudgedOn, memo: bool = True, batched: bool = True,
) -> Stage:  # fmt: skip
    """Describe the search for expert weights, charged like training.

    Without memory or batches it finds the same and takes longer: for measurements of what either saves. (Texts are the
    same but where a draw falls within rounding of a boundary.) The cache of keys and values has no such switch.

    Args:
        experts: What is mixed.
        space: What is searched.
        rounds: At most so many.
        evaluations: So many measurements, exactly.
        completions_each: Of each.
        level: Where the experts are mixed; at `hidden` the base model reads on behind the block.
        block: For `hidden`, see `Mixer`.
        seed: Of the noise.
        judged_on: What the task is judged on.
        memo: Whether a candidate that was measured is known. Without, the stage's budget is what it needs at most.
        batched: Whether the candidates of a round are rows of one batch.
    """
    check_choice("level", level, get_args(Level))
    return Stage(
        kind="search",
        run="paretune.methods.searches:search_weights",
        settings=plain_settings(
            SearchSettings(
                space.utilities.tolist(), space.simplex, space.first_candidates.tolist(), rounds, evaluations,
                completions_each, level, block, judged_on, space.beyond, memo, batched,
            )
        ),
        needs=tuple(experts),
        completions=(evaluations if memo else evaluations + space.repeated(rounds)) * completions_each,
        seed=seed,
    )  # fmt: skip


def search_weights(context: StageContext) -> None:
    """Search expert weights on development prompts, by what the task is judged on.

    It leaves `search.json`: candidates `[C, E]`, mean rewards `[C, K]` and KL `[C]`, and how often each was measured.
    """
    for stage in context.stages:
        settings = settings_of(SearchSettings, stage)

        def find(experts: int, measure: Measure, settings: SearchSettings = settings) -> Found:
            space = Space(
                experts, np.asarray(settings.utilities), settings.simplex,
                np.asarray(settings.first_candidates, dtype=np.float64).reshape(-1, experts), settings.beyond,
            )  # fmt: skip
            return hierarchical_search(space, settings.rounds, settings.evaluations, measure, settings.memo)

        mixer = Mixer(settings.level, settings.block)
        run_search(context, stage, mixer, settings.completions_each, find, settings.batched)


def run_search(
    context: StageContext,
    stage: Stage,
    mixer: Mixer,
    completions_each: int,
    find: Callable[[int, Measure], Found],
    batched: bool = True,
) -> None:
    """Let a search of expert weights measure on development prompts, write its table `search.json` and seal its stage.

    Args:
        context: Of the run function.
        stage: The search; it needs the experts.
        mixer: Where they are mixed.
        completions_each: Of each candidate.
        find: The search: from the number of experts, and what measures candidates by what the task is judged on.
        batched: Whether the candidates of a call are rows of one batch.
    """
    from paretune.models.adapters import load_bank
    from paretune.models.loading import load_base, unwrap

    base, means = load_base(context.task.model), Found()  # of rewards and KL, [C, K + 1]
    try:
        bank = load_bank(base, adapters_of(context.result(need) for need in stage.needs))
        measured = _Measured(context, stage, bank, completions_each, mixer, timed=True)

        def judged(candidates: FloatArray, times: int) -> FloatArray:
            if batched:
                scores, kl = measured(candidates, times)
            else:
                rows = [measured(row[None], times) for row in candidates]
                scores, kl = (np.concatenate(parts) for parts in zip(*rows))
            for place, key in enumerate(keys_of(candidates)):
                if means.times.get(key, 0) == times:  # without a memory the same comes again, under the same noise
                    means.add(candidates[[place]], np.append(scores[place], kl[place])[None])
            return judged_scores(context.task, scores, kl)

        found = find(bank.experts, judged)
    finally:
        unwrap(base)
    table = {
        "candidates": means.candidates.tolist(), "scores": means.scores[:, :-1].tolist(),
        "kl": means.scores[:, -1].tolist(), "times": [*means.times.values()],
    }  # fmt: skip
    context.artefact(stage, TABLE).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    context.seal(stage, {"candidates": len(found.times)})


def measure(
    context: StageContext,
    stage: Stage,
    candidates: FloatArray,
    completions_each: int,
    times: int = 0,
    mixer: Mixer | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Measure mixtures of the experts that a stage needs: what a search of one's own asks.

    What was measured before a stop is known when the stage goes on, and is charged once.

    Args:
        context: Of the run function; completions are charged to the stage.
        stage: It needs the stages that left the experts.
        candidates: Expert weights `[C, E]`, the experts in the order of the stage's needs.
        completions_each: Completions of each: at most as many as there are development prompts, or a multiple of that.
        times: How often they were measured before. Each time has noise of its own, which its candidates share.
        mixer: Where the experts are mixed; the one that the method's `Assembly` has, else other policies are measured
            than are served. By default adapter deltas. A gate reads equal preferences here.

    Returns:
        Mean rewards `[C, K]`, and the mean KL of the same completions in nats, `[C]`; `judging.judged_scores` makes of
        both what the task is judged on.

    Raises:
        ConfigError: If not all development prompts could have equally many completions.
        AdapterError: If the mixer's gate is not one for these experts.
        BudgetError: If the stage's budget does not allow it.
        RewardError: If every reward of an objective is missing.
    """
    from paretune.models.adapters import load_bank
    from paretune.models.loading import load_base

    bank = load_bank(load_base(context.task.model), adapters_of(context.result(need) for need in stage.needs))
    try:
        return _Measured(context, stage, bank, completions_each, mixer or Mixer())(candidates, times)
    finally:
        bank.unwrap()


class _Measured:
    """Measures candidates, all of a call as rows of one batch, under noise that they share."""

    def __init__(
        self, context: StageContext, stage: Stage, bank: ExpertBank, completions_each: int, mixer: Mixer,
        timed: bool = False,
    ) -> None:  # fmt: skip
        from paretune.models.gate import load_gate
        from paretune.objectives.scoring import Scorer

        self.context, self.stage, self.bank, self.mixer, self.timed = context, stage, bank, mixer, timed
        self.kept = KeptMeasurements(context, stage)
        self.gate = None if mixer.gate is None else load_gate(bank, mixer.gate)
        self.ledger, self.score = context.ledger(stage), Scorer(context.task.objectives)
        self.chosen = min(completions_each, len(context.task.development_rows()))
        self.rows, self.samples = context.task.development_rows()[: self.chosen], completions_each // self.chosen
        if self.chosen * self.samples != completions_each:
            raise ConfigError(
                f"completions_each must be at most the {self.chosen} development prompts or a multiple of them, got "
                f"{completions_each}. Take {self.chosen * self.samples}."
            )

    def __call__(self, candidates: FloatArray, times: int) -> tuple[FloatArray, FloatArray]:
        """Return mean rewards `[C, K]` and KL `[C]` of candidates `[C, E]` that were measured so often before."""
        gate = None if self.mixer.gate is None else file_digest(self.mixer.gate)
        asked = {
            "candidates": candidates.tolist(), "measured_before": int(times),
            "completions_each": int(self.chosen * self.samples), "mixer": {**asdict(self.mixer), "gate": gate},
        }  # fmt: skip
        found = self.kept.answer(asked, lambda: self._made(candidates, times))
        return np.asarray(found["scores"]), np.asarray(found["kl"])

    def _made(self, candidates: FloatArray, times: int) -> dict[str, Any]:
        from paretune.core.seeds import stream_key
        from paretune.models.resampled import policy_class
        from paretune.rl.scored_completions import scored_completions

        task, base, count, each = self.context.task, self.bank.base, len(candidates), self.chosen * self.samples
        objectives = len(task.objectives)
        policy = policy_class(self.mixer)(
            base, self.bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            np.full((count, objectives), 1 / objectives), ["combined"] * count, candidates, self.mixer,
            self.gate,
        )  # fmt: skip
        owners = [index for index in range(count) for _ in self.rows]
        seed = stream_key(self.stage.seed, "search", times) % 2**63
        made, scored = scored_completions(
            policy, [*self.rows] * count, owners, self.score, objectives, self.samples, seed, self.ledger, self.timed
        )
        scores = _means(scored.rewards.reshape(count, each, objectives), task.objective_names)
        ratios = (made.log_probs.double() - made.reference_log_probs.double()).sum(dim=1).numpy()
        kl = np.asarray(ratios.reshape(count, each).mean(axis=1))
        found = {"scores": scores.tolist(), "kl": kl.tolist()}
        self.context.log({"candidates": candidates.tolist(), **found, "measured_before": times})
        return found


def _means(rewards: FloatArray, names: Sequence[str]) -> FloatArray:
    """Return the means over completions of `[C, N, K]`, missing rewards left out."""
    present = ~np.isnan(rewards)
    counts = present.sum(axis=1)
    if (counts == 0).any():
        raise RewardError(
            f"every mixture must have a measured score on every objective, got none on "
            f"'{names[int((counts == 0).any(axis=0).argmax())]}'. Mend its reward function; its log says why "
            "scores are missing."
        )
    return np.asarray(np.where(present, rewards, 0.0).sum(axis=1) / counts)
