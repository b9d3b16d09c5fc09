"""Bandits over expert weights: what is planned, what a log teaches, and runs that stop, go on, and grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import micro_task
from paretune.bandits import ridge
from paretune.bandits.contexts import context_rows, context_size
from paretune.core.errors import BudgetError, ConfigError, RewardError, StopRequested
from paretune.core.ledger import Ledger
from paretune.core.preferences import das_dennis
from paretune.core.stages import GATE, Stage
from paretune.core.task import Task
from paretune.methods.meta_policy.contextual_bandit import ContextualBandit, ContextualBanditSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings
from paretune.methods.meta_policy.upper_level.bandit import PULLS, BanditSettings, bandit_stage
from paretune.methods.meta_policy.upper_level.bandit_log import Pulls, off_policy_values
from paretune.methods.meta_policy.upper_level.bandit_run import run_bandit
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.base import load_base
from paretune.models.gate import load_gate

WANTED = das_dennis(2, 2)
SOMEWHERE = Stage("expert", "nobody:runs", {})  # two experts
BANDIT = ContextualBanditSettings(features=3, products=2, pulls_each_round=8, ridge=1.0).bandit(
    [[1.0, 0.0], [0.0, 1.0]]
)


def test_experts_are_those_of_soups_and_the_bandit_gets_whole_rounds(task: Task) -> None:
    *experts, bandit = ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 6000, 3)
    # a quarter of 6,000 is 1,500, in whole rounds of 64 1,472; experts share the other 4,528
    assert (bandit.kind, bandit.completions) == ("bandit", 1472)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 4528, 3)
    assert [stage.key(task) for stage in experts] == [stage.key(task) for stage in soups]
    assert bandit.needs == tuple(experts)
    assert "feedback" not in bandit.settings
    assert bandit.settings["prior"] == [[1.0, 0.0], [0.0, 1.0]]
    *_, short = ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 100, 3)
    assert short.completions == 25  # less than one round


def test_kinds_of_experts_bring_their_prior_and_settings_reach_the_bandit_alone(task: Task) -> None:
    def stages(**changes: Any) -> tuple[Stage, ...]:
        return ContextualBandit(ContextualBanditSettings(**changes)).stages(task, WANTED, 6000, 0)

    *experts, bandit = stages(experts={"kind": "mgda", "divisions": 2})
    assert len(experts) == len(bandit.settings["prior"][0]) == 3  # type: ignore[index]  # [K, E]
    changed = {
        "algorithm": "squarecb", "exploration": 2.0, "floor": 0.1, "divisions": 2, "step": 1.0, "stretch": 1.0,
        "features": 4, "products": 0, "ridge": 1.0, "caution": 0.0, "context": "blind",
    }  # fmt: skip
    plain = [each.key(task) for each in stages()]
    others = [[each.key(task) for each in stages(**{name: value})] for name, value in changed.items()]
    assert all(each[:-1] == plain[:-1] for each in others)
    assert len({each[-1] for each in [plain, *others]}) == 1 + len(changed)
    told, utility = stages(), stages(feedback="utility")
    assert utility[-1].settings["feedback"] == "utility"
    assert told[0].key(task) != utility[0].key(task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bandit_share": 1.0}, "bandit_share must be between 0 and 1, got 1.0"),
        ({"algorithm": "ucb"}, "algorithm must be one of"),
        ({"floor": 0.0}, "floor must be positive, got 0.0: every arm must have a chance"),
        ({"exploration": -1.0}, "exploration must be finite, not negative"),
        ({"context": "other"}, "context must be one of blind, own, shuffled"),
        ({"features": 33}, "features must be between 1 and 32, got 33"),
        ({"products": -1}, "products must not be negative, got -1"),
        ({"pulls_each_round": 0}, "pulls_each_round must be at least 1, got 0"),
        ({"caution": -1.0}, "caution must be finite and not negative, got -1"),
        ({"ridge": 0.0}, "ridge must be positive, got 0"),
        ({"step": 0.0}, "step must be above 0 and at most 1"),
        ({"stretch": 0.0}, "stretch must be positive, got 0"),
        ({"divisions": 0}, "divisions must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContextualBanditSettings(**changes)


def test_a_budget_without_pulls_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="budget must leave a completion for the bandit, got 3"):
        ContextualBandit(ContextualBanditSettings()).stages(task, WANTED, 3, 0)


def simulated(read: bool) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return what a log says of a problem whose best arm is that of the prompt's sign, and which arms the gate takes.

    Arm 0, the rule, is always paid .5; arms 1 and 2 get .5 +- .3 by the sign; noise .2. The best earns .8.
    """
    generator = np.random.default_rng(0)
    prompts, preferences = np.arange(600) % 20, generator.dirichlet(np.ones(2), size=600)
    signs = np.where(np.arange(20) % 2 == 0, 1.0, -1.0)
    chances = np.full((600, 3), 1 / 3)
    arms = generator.integers(0, 3, 600)
    paid = 0.5 + 0.3 * np.asarray([0.0, 1.0, -1.0])[arms] * signs[prompts]
    outputs = np.column_stack([paid[:, None] + 0.2 * generator.normal(size=(600, 2)), generator.uniform(size=600)])
    pulls = Pulls(prompts, preferences, chances, arms, outputs)
    contexts = context_rows(signs[prompts][:, None] * read, preferences, 1)
    model = ridge.updated(ridge.fresh(3, context_size(1, 2, 1), 3, 1.0), arms, contexts, outputs)
    weights = np.column_stack([preferences, np.zeros(600)])
    values: dict[str, Any] = off_policy_values(pulls, contexts, weights, 0.0, model)
    outcomes = np.einsum("nao,no->na", ridge.predicted(ridge.coefficients(model), contexts), weights)
    return values, outcomes.argmax(axis=1) == np.where(signs[prompts] > 0, 1, 2)


def test_a_log_tells_what_context_is_worth_and_that_it_is_worth_nothing_unread() -> None:
    values, right = simulated(read=True)
    assert right.mean() > 0.95
    for name in ("gate", "cross_fitted"):
        for each, found in values["gain"][name].items():
            assert found["low"] <= 0.3 <= found["high"], (name, each)  # .8 by the best arm, .5 by the rule
    rule = values["off_policy"]["rule"]["doubly_robust"]
    assert rule["low"] <= 0.5 <= rule["high"]
    precise = values["gain"]["cross_fitted"]
    assert (
        precise["doubly_robust"]["high"] - precise["doubly_robust"]["low"]
        < precise["ips"]["high"] - precise["ips"]["low"]
    )
    values, _ = simulated(read=False)
    found = values["gain"]["cross_fitted"]["doubly_robust"]
    assert found["low"] <= 0 <= found["high"]
    # the gate was chosen by the log that judges it: what it says is not less than what held-out pulls say
    assert values["gain"]["gate"]["doubly_robust"]["value"] >= found["value"]


@dataclass
class Context:
    """The least a bandit needs, with two experts that nobody trained; stops when it is told to."""

    task: Task
    root: Path
    stages: tuple[Stage, ...]
    experts: tuple[Path, ...]
    given: Ledger
    start: Path | None = None
    stop_after: int = 10**6
    reported: int = 0
    sealed: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    spent: dict[int, dict[str, float]] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def result(self, stage: Stage) -> Any:
        return SimpleNamespace(adapters=self.experts, artefacts={}, stage=stage, key="experts")

    def ledger(self, stage: Stage) -> Ledger:
        return self.given

    def artefact(self, stage: Stage, name: str) -> Path:
        path = self.root / str(stage.completions) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def seal(self, stage: Stage, values: Mapping[str, Any]) -> None:
        self.sealed[stage.completions] = values
        self.spent[stage.completions] = dict(self.given.counts)

    def start_folder(self, stage: Stage) -> Path | None:
        return self.start

    def end_folder(self, stage: Stage) -> Path:
        return self.root / str(stage.completions) / "checkpoint"

    def checkpoint_folder(self) -> Path:
        return self.root

    def progress(self, completions: int, message: str = "") -> None:
        self.reported += completions
        if self.reported >= self.stop_after:
            raise StopRequested("enough")

    def log(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)


@pytest.fixture(scope="module")
def experts(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    root = tmp_path_factory.mktemp("experts")
    bank = micro_task.perturb(ExpertBank(load_base(task.model), 2, rank=2, alpha=4.0))
    for expert in range(2):
        save_adapter(bank, expert, root / str(expert))
    bank.unwrap()
    return root / "0", root / "1"


def run(
    task: Task,
    root: Path,
    experts: tuple[Path, ...],
    lengths: tuple[int, ...],
    settings: BanditSettings = BANDIT,
    **also: Any,
) -> Context:
    stages = tuple(bandit_stage(settings, [SOMEWHERE], each, 5) for each in lengths)
    context = Context(task, root, stages, experts, Ledger(max(lengths)), **also)
    try:
        run_bandit(context)  # type: ignore[arg-type]  # the least of it
    except StopRequested:
        assert context.reported >= context.stop_after
    return context


def left(context: Context, length: int) -> list[bytes]:
    folder = context.root / str(length)
    files = (GATE, PULLS, "checkpoint/state.safetensors")
    return [(folder / name).read_bytes() for name in files]


def test_a_run_that_is_killed_goes_on_to_the_same_gate(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    whole = run(task, tmp_path / "whole", experts, (27,))
    killed = run(task, tmp_path / "parts", experts, (27,), stop_after=16)
    again = run(task, tmp_path / "parts", experts, (27,))
    before, seconds = killed.given.seconds, again.given.seconds
    assert before.keys() == seconds.keys() == {"sampling", "scoring", "update"}
    assert all(0 < before[phase] < seconds[phase] for phase in seconds)  # of both attempts
    assert (again.reported, whole.reported) == (27 - 16, 27)  # both rounds that were made are kept
    assert left(again, 27) == left(whole, 27)
    assert again.spent == whole.spent
    assert again.sealed == whole.sealed


def test_lengths_of_one_run_are_those_of_runs_alone(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    both = run(task, tmp_path / "both", experts, (11, 27))
    assert both.reported == 27
    assert [event["pulls"] for event in both.events] == [8, 16, 24, 27]  # 9 to 11 are no part of the longer run
    for length in (11, 27):
        alone = run(task, tmp_path / f"alone{length}", experts, (length,))
        assert left(both, length) == left(alone, length)
        assert both.spent[length] == alone.spent[length]
        assert both.spent[length]["completions"] == length
    longer = run(task, tmp_path / "longer", experts, (27,), start=tmp_path / "alone11" / "11" / "checkpoint")
    assert longer.reported == 27 - 8  # one whole round stays
    assert left(longer, 27) == left(both, 27)


def test_a_log_holds_what_pulls_were_chosen_and_paid_by(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    context = run(task, tmp_path, experts, (27,), replace(BANDIT, algorithm="squarecb", floor=0.2))
    table = pq.read_table(tmp_path / "27" / PULLS).to_pydict()
    assert table["pull"] == list(range(27))
    assert table["round"] == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 3
    chances = np.asarray(table["propensities"])
    np.testing.assert_allclose(chances[:8], 1 / 6)  # nothing is known in a first round
    assert chances.min() >= 0.2 / 6 - 1e-12
    np.testing.assert_array_equal(chances[np.arange(27), table["arm"]], table["propensity"])
    assert np.ptp(chances[8:]) > 0.01
    assert sorted(table["prompt_id"][:8]) == sorted(str(row["prompt_id"]) for row in task.splits["train"])
    weights, wanted = np.asarray(table["expert_weights"]), np.asarray(table["preference"])
    rule = np.asarray(table["arm"]) == 0
    np.testing.assert_allclose(weights[rule], wanted[rule])
    values = context.sealed[27]
    assert sum(values["pulled"]) == 27
    assert len(values["arms"]) == 6
    # the gate is what the log teaches
    contexts, paid = (
        np.asarray(table["context"]),
        np.column_stack([table[f"reward_{name}"] for name in ("first", "second")]),
    )
    model = ridge.updated(
        ridge.fresh(6, contexts.shape[1], 3, 1.0),
        np.asarray(table["arm"]),
        contexts,
        np.column_stack([paid, table["kl"]]),
    )
    bank = load_bank(load_base(task.model), experts)
    gate = load_gate(bank, tmp_path / "27" / GATE)
    bank.unwrap()
    np.testing.assert_allclose(gate.networks[0][2].detach(), ridge.coefficients(model), atol=1e-6)  # fp32


class Contextual(Task):
    """The micro-task for users who want the other objective of prompts of one letter."""

    def prompt_preferences(self, rows: Any, preferences: Any) -> Any:
        made = super().prompt_preferences(rows, preferences)
        for place, row in enumerate(rows):
            if len(str(row["prompt"])) == 1:
                made[:, place] = preferences[:, ::-1]
        return made

    def context_key(self) -> object:
        return "letters"


def test_with_scalar_feedback_one_number_is_learned_from(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    contextual = Contextual(**{each.name: getattr(task, each.name) for each in fields(task) if each.init})
    settings = replace(BANDIT, feedback="utility")
    run(contextual, tmp_path / "utility", experts, (16,), settings)
    run(contextual, tmp_path / "told", experts, (16,))
    utility = pq.read_table(tmp_path / "utility" / "16" / PULLS).to_pydict()
    told = pq.read_table(tmp_path / "told" / "16" / PULLS).to_pydict()
    assert "reward_first" not in utility
    prompts = {str(row["prompt_id"]): str(row["prompt"]) for row in task.splits["train"]}
    for pull in range(8):  # the same pulls in a first round, which nothing was learned for
        wanted = np.asarray(told["preference"][pull])
        if len(prompts[told["prompt_id"][pull]]) == 1:
            wanted = wanted[::-1]
        rewards = [told["reward_first"][pull], told["reward_second"][pull]]
        assert utility["utility"][pull] == pytest.approx(wanted @ rewards)
    oracle = run(contextual, tmp_path / "oracle", experts, (8,), replace(BANDIT, feedback="oracle"))
    asked = pq.read_table(oracle.root / "8" / PULLS).to_pydict()
    for pull in range(8):
        flipped = len(prompts[told["prompt_id"][pull]]) == 1
        assert asked["preference"][pull] == (told["preference"][pull][::-1] if flipped else told["preference"][pull])


@pytest.mark.parametrize("kind", ["blind", "shuffled"])
def test_controls_do_not_read_the_prompt(task: Task, tmp_path: Path, experts: tuple[Path, ...], kind: str) -> None:
    own = run(task, tmp_path / "own", experts, (8,))
    control = run(task, tmp_path / kind, experts, (8,), replace(BANDIT, context=kind))
    tables = [pq.read_table(each.root / "8" / PULLS).to_pydict() for each in (own, control)]
    seen = [np.asarray(each["context"])[:, 1:4] for each in tables]
    assert seen[0].any()
    assert seen[1].any() == (kind == "shuffled")
    assert np.abs(seen[0] - seen[1]).max() > 0.1
    assert tables[0]["reward_first"] == tables[1]["reward_first"]  # a first round is the same


def test_pulls_without_rewards_teach_nothing(
    task: Task, tmp_path: Path, experts: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from paretune.objectives.scoring import Scorer

    scored = Scorer.__call__

    def partly(self: Scorer, rows: Any, texts: Any) -> Any:
        scores = scored(self, rows, texts)
        gone = scores.rewards.copy()
        gone[::2, 1] = np.nan
        return scores._replace(rewards=gone)

    monkeypatch.setattr(Scorer, "__call__", partly)
    context = run(task, tmp_path / "half", experts, (16,))
    assert context.sealed[16]["left_out"] == 8

    def none(self: Scorer, rows: Any, texts: Any) -> Any:
        scores = scored(self, rows, texts)
        return scores._replace(rewards=np.full_like(scores.rewards, np.nan))

    monkeypatch.setattr(Scorer, "__call__", none)
    with pytest.raises(
        RewardError, match="pulls of a bandit must have all of their rewards to teach anything, got none"
    ):
        run(task, tmp_path / "none", experts, (8,))
