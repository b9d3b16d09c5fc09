from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import micro_task
from paretune.core.errors import RewardError, ShapeError, UnknownNameError
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Mixer
from paretune.core.scores import Scores
from paretune.core.seeds import stream_key
from paretune.core.stages import GATE, Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods import searches
from paretune.methods.experts import ExpertSettings, corner_experts
from paretune.methods.hierarchical_grid import Space
from paretune.methods.meta_policy.rewarded_soups import RewardedSoupsSettings
from paretune.methods.priors import SearchedPrior
from paretune.methods.searches import TABLE, Searched, measure, search_stage, search_weights
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.gate import BlockGate
from paretune.models.loading import load_base
from paretune.models.policy import Policy
from paretune.objectives.scoring import Scorer

WANTED = das_dennis(2, 2)
SPACE = Space(2, WANTED, simplex=True, first_candidates=WANTED)
EXPERTS = corner_experts(RewardedSoupsSettings(), 2, 64, 0)


@dataclass
class Alone:
    """One stage whose needs are finished."""

    task: Task
    stages: tuple[Stage, ...]
    adapters: Mapping[int, Path]
    folder: Path
    spent: Ledger = field(default_factory=Ledger)
    reported: int = 0
    events: list[Mapping[str, object]] = field(default_factory=list)
    sealed: Mapping[str, object] = field(default_factory=dict)

    def result(self, stage: Stage) -> Any:
        return SimpleNamespace(adapters=(self.adapters[EXPERTS.index(stage)],))

    def ledger(self, stage: Stage) -> Ledger:
        return self.spent

    def artefact(self, stage: Stage, name: str) -> Path:
        return self.folder / name

    def checkpoint_folder(self) -> Path:
        return self.folder / f"checkpoint-{id(self)}"

    def log(self, event: Mapping[str, object]) -> None:
        self.events.append(event)

    def progress(self, completions: int) -> None:
        self.reported += completions

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        self.sealed = values


@pytest.fixture
def adapters(task: Task, tmp_path: Path) -> dict[int, Path]:
    bank = micro_task.perturb(ExpertBank(load_base(task.model, device="cpu"), 2, rank=2), scale=0.15)
    for expert in range(2):
        save_adapter(bank, expert, tmp_path / str(expert))
    bank.unwrap()
    return {expert: tmp_path / str(expert) for expert in range(2)}


def searched(task: Task, adapters: Mapping[int, Path], folder: Path, evaluations: int = 6, **settings: Any) -> Alone:
    chosen = {"completions_each": 8, "level": "adapters", "block": None, "judged_on": "utility", **settings}
    stage = search_stage(EXPERTS, SPACE, 2, evaluations, seed=5, **chosen)
    context = Alone(task, (stage,), adapters, folder, Ledger(stage.completions))
    search_weights(cast(StageContext, context))
    return context


def test_a_search_leaves_what_it_measured_and_is_charged_for_it(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    context = searched(task, adapters, tmp_path)
    table = json.loads((tmp_path / "search.json").read_text())
    assert table["candidates"][:3] == [[0, 1], [0.5, 0.5], [1, 0]]
    assert sum(table["times"]) == 6
    assert context.sealed == {"candidates": len(table["candidates"])}
    assert context.spent.completions == context.reported == 6 * 8 == context.spent.budget_completions
    assert context.spent.seconds.keys() == {"sampling", "scoring"}
    assert (context.spent.counts["prompts"], context.spent.counts["reward_calls"]) == (6 * 4, 6 * 8 * 2)
    assert len(cast(Any, context.events[0]["candidates"])) == 3  # a round is one call
    base = load_base(task.model, device="cpu")
    bank = load_bank(base, list(adapters.values()))
    rows = task.splits["development"]
    weights = np.asarray(table["candidates"][1:2])  # measured once in the first round, and perhaps again
    policy = Policy(base, bank, task.prompt_format, 4, 2, np.full((1, 2), 0.5), ["combined"], weights)
    seed = stream_key(5, "search", 0) % 2**63
    made = policy.generate([str(row["prompt"]) for row in rows], [0] * 4, 2, seed=seed, reference=True)
    rewards = Scorer(task.objectives)([rows[number] for _, number, _ in made.row_ids], made.texts).rewards
    np.testing.assert_allclose(cast(Any, context.events[0]["scores"])[1], rewards.mean(axis=0), atol=1e-12)
    ratios = (made.log_probs.double() - made.reference_log_probs.double()).sum(dim=1)
    np.testing.assert_allclose(cast(Any, context.events[0]["kl"])[1], float(ratios.mean()), atol=1e-5)  # fp32 sums
    assert len(table["kl"]) == len(table["scores"])
    bank.unwrap()
    again = searched(task, adapters, tmp_path)
    assert json.loads((tmp_path / "search.json").read_text()) == table
    assert again.spent.counts == context.spent.counts


def test_without_memory_or_batches_a_search_chooses_the_same_for_more(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    plain = searched(task, adapters, tmp_path)
    table = json.loads((tmp_path / "search.json").read_text())
    for switches, times_measured in (({"batched": False}, 6), ({"memo": False}, 2 * 3 * 3 + 3)):
        other = searched(task, adapters, tmp_path, **switches)
        found = json.loads((tmp_path / "search.json").read_text())
        assert (found["candidates"], found["times"]) == (table["candidates"], table["times"])
        np.testing.assert_allclose(found["scores"], table["scores"], atol=1e-12)  # equal texts
        np.testing.assert_allclose(found["kl"], table["kl"], atol=1e-5)  # fp32 sums
        again = 0 if "batched" in switches else sum(table["times"]) - len(table["times"])
        assert other.spent.completions == 8 * (times_measured + again) <= other.stages[0].completions
        assert other.stages[0].key(task) != plain.stages[0].key(task)
    assert {
        len(cast(Any, event["candidates"])) for event in searched(task, adapters, tmp_path, batched=False).events
    } == {1}


def test_experts_are_mixed_at_the_level_and_charged_for_their_streams(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    """A round mixes both experts: in one pass, in two a token at the last block, one and a half at the first of two."""
    passes = {}
    for level, block in (("adapters", None), ("log_probs", None), ("hidden", None), ("hidden", 0)):
        context = searched(task, adapters, tmp_path, 3, level=level, block=block)
        base = load_base(task.model, device="cpu")
        read = 3 * sum(len(base.encode(str(row["prompt"]))) for row in task.splits["development"])
        bank = load_bank(base, list(adapters.values()))
        parameters = base.parameters + (2 if level == "adapters" else 1) * bank.parameters_each()
        bank.unwrap()
        each = 2 * (context.spent.counts["tokens"] + read)  # and once more under the base model, for the KL
        passes[level, block] = (context.spent.counts["flops"] - each * base.parameters) / (each * parameters)
    assert passes == {
        ("adapters", None): 1, ("log_probs", None): 2, ("hidden", None): 2, ("hidden", 0): 1.5,
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="level must be one of adapters, hidden, log_probs, probabilities, got"):
        searched(task, adapters, tmp_path, level="logits")


def test_a_search_of_ones_own_measures_what_its_mixer_serves(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    """As a library's own search at that level does, whose first round these candidates are."""
    candidates: Any = np.asarray([[0, 1], [0.5, 0.5], [1, 0]])
    measured = {}
    base = load_base(task.model, device="cpu")
    gate_file = tmp_path / GATE
    bank = load_bank(base, list(adapters.values()))
    gate = BlockGate(bank, 2, seed=0)
    gate.flat.add_(0.3)
    gate.save(gate_file)
    bank.unwrap()
    for mixer in (None, Mixer(), Mixer("log_probs"), Mixer("hidden", 0), Mixer(gate=gate_file)):
        context = searched(task, adapters, tmp_path, 3)
        own = Alone(task, context.stages, adapters, tmp_path, Ledger(3 * 8))
        scores, kl = measure(cast(StageContext, own), own.stages[0], candidates, 8, mixer=mixer)
        measured[mixer] = scores.tolist(), kl.tolist()
        assert not own.spent.seconds  # a stage of one's own that times nothing is given the time of all it does
    assert measured[None] == measured[Mixer()]
    for mixer in (Mixer("log_probs"), Mixer("hidden", 0)):
        asked = searched(task, adapters, tmp_path, 3, level=mixer.level, block=mixer.block).events[0]
        assert np.array_equal(cast(Any, asked["candidates"]), candidates)
        assert measured[mixer] == (asked["scores"], asked["kl"])
    assert len({str(scores) for scores in measured.values()}) == 4


def test_each_time_a_candidate_is_measured_has_noise_of_its_own_and_the_same_noise_when_repeated(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    """What settles a search are the means of several measurements, which equal numbers would not change."""
    stage, candidates = searched(task, adapters, tmp_path, 3).stages[0], np.asarray([[0.5, 0.5], [1, 0]])

    def measured(times: int) -> Any:
        own = Alone(task, (stage,), adapters, tmp_path, Ledger(2 * 8))
        scores, kl = measure(cast(StageContext, own), stage, candidates, 8, times)
        return np.column_stack([scores, kl])

    first, second = measured(0), measured(1)
    assert (first != second).any(axis=1).all()
    np.testing.assert_array_equal(measured(1), second)


def test_a_prior_beyond_the_simplex_is_searched_and_answers_there(
    task: Task, adapters: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are best at weights (1, .5) for one objective and (.5, 1) for the other, half-way for both alike."""

    def made_up(measured: Any, candidates: Any, times: int) -> Any:
        best = np.asarray([[1, 0.5], [0.5, 1]])
        return -np.square(candidates[:, None] - best).sum(axis=2), np.zeros(len(candidates))

    monkeypatch.setattr(searches._Measured, "__call__", made_up)
    prior, rule = SearchedPrior(rounds=2, simplex=False), np.eye(2)
    (stage,) = prior.stages(ExpertSettings(), task, EXPERTS, rule, 4000, 7)
    search_weights(cast(StageContext, Alone(task, (stage,), adapters, tmp_path)))
    candidates = np.asarray(json.loads((tmp_path / TABLE).read_text())["candidates"])
    # a first round has all of {0, .5, 1} squared; the cube that both like goes on from .5 to 1, with .75 in its middle
    assert {(0, 0), (1, 1), (0.75, 0.75)} <= {*map(tuple, candidates.tolist())}
    answer = prior.answer(task, rule, [StageResult(stage, "key", tmp_path, {TABLE: tmp_path / TABLE}, {}, Ledger(), 0)])
    weights, _ = answer.weights(np.asarray([[1, 0], [0, 1], [0.5, 0.5], [0.75, 0.25]]))
    np.testing.assert_allclose(weights, [[1, 0.5], [0.5, 1], [0.75, 0.75], [0.875, 0.625]])


def test_on_a_task_judged_on_j_a_search_goes_where_the_kl_is_paid_for(
    task: Task, adapters: dict[int, Path], tmp_path: Path
) -> None:
    """At a hundred a nat only the KL counts: all search the half whose end is nearer to the base."""
    dear = replace(task, beta=100.0, judged_on="J")
    context = searched(dear, adapters, tmp_path, judged_on="J")
    first, second = (cast(Any, each) for each in context.events[:2])
    assert first["candidates"] == [[0, 1], [0.5, 0.5], [1, 0]]
    nearer = 0.25 if first["kl"][0] < first["kl"][2] else 0.75
    assert second["candidates"] == [[nearer, 1 - nearer]]
    assert len(searched(task, adapters, tmp_path).events[1]["candidates"]) > 1  # by utility each goes its own way


def test_a_mixture_without_any_score_on_an_objective_stops_the_search(
    task: Task, adapters: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Scorer.__call__

    def second_missing(scorer: Scorer, rows: Any, texts: Any) -> Any:
        scores = score(scorer, rows, texts)
        scores.rewards[:, 1] = np.nan
        return scores

    monkeypatch.setattr(Scorer, "__call__", second_missing)
    with pytest.raises(
        RewardError, match=r"a measured score on every objective, got none on 'second'. Mend its reward"
    ):
        searched(task, adapters, tmp_path)


def test_missing_scores_are_left_out_and_told_to_the_ledger(
    task: Task, adapters: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Scorer.__call__

    def half_missing(scorer: Scorer, rows: Any, texts: Any) -> Any:
        gone = np.arange(len(rows)) % 2 == 0
        rewards, statuses = score(scorer, rows, texts)[:2]
        rewards[gone], rewards[~gone] = np.nan, 0.25
        statuses[gone, 1] = "raised"
        statuses[gone, 0] = "missing"
        return Scores(rewards, statuses, ("", "second raised"))

    monkeypatch.setattr(Scorer, "__call__", half_missing)
    spent = searched(task, adapters, tmp_path).spent
    assert np.unique(json.loads((tmp_path / "search.json").read_text())["scores"]).tolist() == [0.25]
    assert spent.scored == spent.missing == [6 * 8 // 2] * 2
    assert spent.counts["reward_calls"] == 6 * 8 * 2
    assert spent.fault_lines(task.objective_names) == ["first said None", "second raised"]


def test_a_search_answers_preferences_of_its_objectives_and_of_no_others() -> None:
    found = Searched([[1, 0, 0], [0, 0.5, 0.5]], [[0.1, 0.9], [0.8, 0.2]])  # as a file has it
    assert found.weights(np.asarray([[0.9, 0.1]]))[0].tolist() == [[0, 0.5, 0.5]]
    with pytest.raises(ShapeError, match=r"preferences must have one column per objective \(2\), got 3"):
        found.weights(np.full((1, 3), 1 / 3))
    with pytest.raises(ShapeError, match="scores must be of the candidates that were measured, 2, got 1"):
        Searched(np.eye(2), np.ones((1, 2)))
