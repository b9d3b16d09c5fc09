"""Runs of bandits over expert weights: that stop, go on, and grow, and whose logs say what was pulled and paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import micro_task
from paretune.bandits import ridge
from paretune.bandits.arms import arms_of
from paretune.bandits.off_policy import Log, estimate
from paretune.bandits.policies import answers
from paretune.core.errors import NonFiniteError, RewardError, StopRequested
from paretune.core.ledger import Ledger, network_flops
from paretune.core.seeds import stream_key
from paretune.core.stages import GATE, Stage
from paretune.core.task import Task
from paretune.methods.meta_policy.contextual_bandit import ContextualBanditSettings
from paretune.methods.meta_policy.upper_level.bandit import PULLS, BanditSettings, bandit_stage
from paretune.methods.meta_policy.upper_level.bandit_log import Pulls
from paretune.methods.meta_policy.upper_level.bandit_run import run_bandit
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.gate import load_gate
from paretune.models.loading import load_base
from paretune.models.mixing import Mixing
from paretune.models.policy import Policy

SOMEWHERE = Stage("expert", "nobody:runs", {})  # two experts
BANDIT = ContextualBanditSettings(features=3, products=2, pulls_each_round=8, ridge=1.0).bandit(
    [[1.0, 0.0], [0.0, 1.0]]
)


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
    bank = micro_task.perturb(ExpertBank(load_base(task.model), 2, rank=2, alpha=4.0), seed=1)
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
    seed: int = 5,
    **also: Any,
) -> Context:
    stages = tuple(bandit_stage(settings, [SOMEWHERE], each, seed) for each in lengths)
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


def test_a_stop_behind_the_last_pulls_keeps_them(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    """A stop is noticed where pulls are reported: those beyond whole rounds are, once their length is finished."""
    whole = run(task, tmp_path / "whole", experts, (27,))
    stopped = run(task, tmp_path / "stopped", experts, (27,), stop_after=27)
    assert stopped.sealed == whole.sealed
    assert left(stopped, 27) == left(whole, 27)


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


def test_each_pass_pulls_every_prompt_once_in_an_order_of_its_own(
    task: Task, tmp_path: Path, experts: tuple[Path, ...]
) -> None:
    run(task, tmp_path, experts, (16,))
    asked = pq.read_table(tmp_path / "16" / PULLS).to_pydict()["prompt_id"]
    assert sorted(asked[:8]) == sorted(asked[8:]) == sorted(str(row["prompt_id"]) for row in task.splits["train"])
    assert asked[:8] != asked[8:]  # of 8! orders


def test_what_the_gate_is_said_to_earn_is_of_the_gate_that_is_handed_over(
    task: Task, tmp_path: Path, experts: tuple[Path, ...]
) -> None:
    """By inverse propensities from the log alone: the gate answers cautiously, and so does what is said of it."""
    context = run(task, tmp_path, experts, (64,))
    table = pq.read_table(tmp_path / "64" / PULLS).to_pydict()
    bank = load_bank(load_base(task.model), experts)
    gate = load_gate(bank, tmp_path / "64" / GATE)
    bank.unwrap()
    _, _, *learned = (each.detach().double().numpy() for each in gate.networks[0])
    wanted, arms = np.asarray(table["preference"]), np.asarray(table["arm"])
    outputs = np.column_stack([table[name] for name in ("reward_first", "reward_second", "kl")])
    weights = np.column_stack([wanted, np.full(64, -task.beta)])
    said = ridge.payoffs(ridge.Fitted(*learned), np.asarray(table["context"]), weights)
    earned = {}
    for caution in (0.0, BANDIT.caution):
        kept = answers(said.means, said.deviations, caution) == arms
        earned[caution] = float(np.mean(kept * (outputs * weights).sum(axis=1) / np.asarray(table["propensity"])))
    assert abs(earned[0.0] - earned[BANDIT.caution]) > 0.01
    sealed = context.sealed[64]
    # coefficients in fp32 move no answer here, and nothing else of the estimate
    assert sealed["off_policy"]["gate"]["ips"]["value"] == pytest.approx(earned[BANDIT.caution], rel=1e-9)
    rule = sealed["off_policy"]["rule"]["ips"]["value"]
    assert sealed["gain"]["gate"]["ips"]["value"] == pytest.approx(earned[BANDIT.caution] - rule, rel=1e-9)


def test_a_task_judged_on_utility_is_answered_by_it_and_explored_by_j(
    task: Task, tmp_path: Path, experts: tuple[Path, ...]
) -> None:
    """A nat costs 5 there: by J the best arm is the nearest to the reference, by utility another one."""
    dear = replace(task, beta=5.0)
    settings = replace(BANDIT, caution=0.0, floor=0.4, algorithm="squarecb")
    runs = {each: run(dear, tmp_path / each, experts, (64,), replace(settings, judged_on=each))
            for each in ("J", "utility")}  # fmt: skip
    logs = [(each.root / "64" / PULLS).read_bytes() for each in runs.values()]
    assert logs[0] == logs[1]
    assert runs["J"].events == runs["utility"].events
    table = pq.read_table(tmp_path / "J" / "64" / PULLS).to_pydict()
    wanted, arms = np.asarray(table["preference"]), np.asarray(table["arm"])
    outputs = np.column_stack([table[name] for name in ("reward_first", "reward_second", "kl")])
    bank, answered = load_bank(load_base(task.model), experts), {}
    for each, cost in (("J", 5.0), ("utility", 0.0)):
        gate = load_gate(bank, tmp_path / each / "64" / GATE)
        _, _, *learned = (part.detach().double().numpy() for part in gate.networks[0])
        weights = np.column_stack([wanted, np.full(64, -cost)])
        said = ridge.payoffs(ridge.Fitted(*learned), np.asarray(table["context"]), weights)
        answered[each] = answers(said.means, said.deviations, 0.0)
        prompts = {str(row["prompt_id"]): bank.base.encode(str(row["prompt"])) for row in task.splits["train"]}
        rows = torch.as_tensor(wanted, dtype=torch.float32)
        found = gate.mixing(rows, rows, [prompts[name] for name in table["prompt_id"]]).resolved().dense()
        expected = arms_of(2, BANDIT.divisions, BANDIT.step, BANDIT.stretch).weights(wanted)
        np.testing.assert_allclose(found, expected[np.arange(64), answered[each]], atol=1e-6)  # fp32
        paid = (outputs * weights).sum(axis=1) / np.asarray(table["propensity"])
        sealed = runs[each].sealed[64]["off_policy"]
        for name, chosen in (("gate", answered[each]), ("rule", 0 * arms)):
            assert sealed[name]["ips"]["value"] == pytest.approx(float(np.mean((chosen == arms) * paid)), rel=1e-9)
    bank.unwrap()
    assert (answered["J"] != answered["utility"]).mean() > 0.3


def test_reading_prompts_for_the_gate_is_charged(task: Task, tmp_path: Path, experts: tuple[Path, ...]) -> None:
    """One pass of the base model over the prompt of each pull; a first round is the same with and without."""
    spent = {
        kind: run(task, tmp_path / kind, experts, (8,), replace(BANDIT, context=kind)).spent[8]
        for kind in ("own", "blind", "shuffled")
    }
    base = load_base(task.model)
    read = sum(len(base.encode(str(row["prompt"]))) for row in task.splits["train"])
    for kind in ("own", "shuffled"):
        assert spent[kind]["flops"] - spent["blind"]["flops"] == network_flops(base.parameters, read, 1) > 0


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


@pytest.mark.parametrize("stretch", [1.0, 1e30])
def test_log_probabilities_that_overflow_are_no_missing_rewards(
    task: Task, tmp_path: Path, experts: tuple[Path, ...], stretch: float
) -> None:
    """Of one arm in two, or of all; left out, an arm would teach nothing and be explored to the end."""
    broken = experts if stretch > 1 else (experts[0], tmp_path / "broken")
    if stretch == 1:
        bank = micro_task.perturb(ExpertBank(load_base(task.model), 1, rank=2, alpha=4.0), seed=1)
        with torch.no_grad():
            for layer in bank.layers.values():
                layer.B.mul_(1e30)
        save_adapter(bank, 0, broken[1])
        bank.unwrap()
    with pytest.raises(
        NonFiniteError, match=r"log-probabilities must be finite, got NaN or infinity in [1-8] of 8 pulls\. Train the"
    ):
        run(task, tmp_path, broken, (64,), replace(BANDIT, stretch=stretch))
    log = Pulls.of({"prompts": np.zeros(2), "preferences": np.ones((2, 1)), "chances": np.ones((2, 1)),
                    "arms": np.zeros(2), "expert_weights": np.ones((2, 1)),
                    "outputs": np.asarray([[0.5, np.nan], [np.nan, 0.5]])})  # fmt: skip
    assert log.whole.tolist() == [True, False]


def test_pulls_are_sampled_under_the_weights_that_the_log_says(
    task: Task, tmp_path: Path, experts: tuple[Path, ...]
) -> None:
    """Each row replayed by a policy with its expert weights, under the pull's noise, is paid what the log says."""
    run(task, tmp_path, experts, (24,))
    table = pq.read_table(tmp_path / "24" / PULLS).to_pydict()
    assert len({*table["arm"]}) > 3
    bank = load_bank(load_base(task.model), experts)
    prompts = {str(row["prompt_id"]): str(row["prompt"]) for row in task.splits["train"]}
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    for pull in range(24):
        policy = Policy(
            bank.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            np.asarray(table["preference"])[[pull]], ["combined"], np.asarray(table["expert_weights"])[[pull]],
        )  # fmt: skip
        seed = stream_key(5, "noise", pull) % 2**63
        made = policy.generate([prompts[table["prompt_id"][pull]]], seed=seed, reference=True)
        paid = [table["reward_first"][pull], table["reward_second"][pull]]
        np.testing.assert_allclose(paid, values[made.texts[0]], rtol=1e-12)
        ratio = float((made.log_probs.double() - made.reference_log_probs.double()).sum())
        assert table["kl"][pull] == pytest.approx(ratio, abs=1e-5)  # fp32, in a batch of eight there
    bank.unwrap()


def log_probs(bank: ExpertBank, weights: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    """Return the log-probability of every completion of a prompt under N expert weights `[N, E]`, `[N, 57]`.

    As `micro_task.log_probs`, whose order it is in, with all of the weights in one batch.
    """
    letters = torch.arange(1, len(micro_task.TOKENS))
    rows = torch.cat([torch.tensor(ids).expand(len(letters), -1), letters[:, None]], dim=1).repeat(len(weights), 1)
    mixing = Mixing.of_rows(torch.as_tensor(weights, dtype=torch.float32).repeat_interleave(len(letters), dim=0))
    with torch.no_grad(), bank.using(mixing):
        table = bank.base.model(rows, use_cache=False).logits.double().log_softmax(dim=-1)
    first, second = table[:: len(letters), -2], table[:, -1].view(len(weights), len(letters), -1)  # [N, V], [N, 7, V]
    both = first[:, 1:, None] + second
    return torch.cat([first[:, :1], both[:, :, 0], both[:, :, 1:].flatten(1)], dim=1).numpy()


def exact_payoffs(task: Task, experts: tuple[Path, ...], table: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return what each arm is worth in each row of a log, `w . r - beta KL` over all completions, `[N, A]`."""
    wanted, asked = np.asarray(table["preference"]), np.asarray(table["prompt_id"])
    weights = arms_of(2, BANDIT.divisions, BANDIT.step, BANDIT.stretch).weights(wanted)  # [N, A, E]
    utilities, found = wanted @ micro_task.rewards().T, np.zeros(weights.shape[:2])
    bank = load_bank(load_base(task.model), experts)
    for row in task.splits["train"]:
        ids, own = list(bank.base.encode(str(row["prompt"]))), asked == row["prompt_id"]
        said = log_probs(bank, weights[own].reshape(-1, 2), ids)
        alone = micro_task.log_probs(bank.base, bank, weights[own][0, 1].tolist(), ids)
        np.testing.assert_allclose(said[1], alone.detach(), atol=1e-5)  # fp32
        ratios = said - log_probs(bank, np.zeros((1, 2)), ids)
        payoffs = np.exp(said) * (utilities[own].repeat(weights.shape[1], axis=0) - task.beta * ratios)
        found[own] = payoffs.sum(axis=1).reshape(-1, weights.shape[1])
    bank.unwrap()
    return found


def test_a_log_says_what_rule_and_gate_are_worth_over_all_completions(
    task: Task, tmp_path: Path, experts: tuple[Path, ...]
) -> None:
    """What was learned from one log is judged by another one: a gate looks too good by the pulls that chose it."""
    count = 1536
    settings = replace(BANDIT, pulls_each_round=512, floor=0.4)
    run(task, tmp_path / "first", experts, (count,), settings)
    context = run(task, tmp_path / "second", experts, (count,), settings, seed=6)
    table = pq.read_table(tmp_path / "second" / str(count) / PULLS).to_pydict()
    exact = exact_payoffs(task, experts, table)
    arms, rows, wanted = np.asarray(table["arm"]), np.arange(count), np.asarray(table["preference"])
    rewards = np.column_stack([table["reward_first"], table["reward_second"]])
    paid = (wanted * rewards).sum(axis=1) - task.beta * np.asarray(table["kl"])
    for arm in range(6):  # what an arm was paid has the mean of what it is worth, and it was drawn as its chances say
        left = (paid - exact[rows, arms])[arms == arm]
        assert abs(left.mean()) < 4 * left.std() / np.sqrt(len(left))
        often = (arms == arm) / np.asarray(table["propensities"])[:, arm]
        assert abs(often.mean() - 1) < 4 * often.std() / np.sqrt(count)
    bank = load_bank(load_base(task.model), experts)
    gate = load_gate(bank, tmp_path / "first" / str(count) / GATE)
    bank.unwrap()
    _, _, *learned = (each.detach().double().numpy() for each in gate.networks[0])
    weights = np.column_stack([wanted, np.full(count, -task.beta)])
    said = ridge.payoffs(ridge.Fitted(*learned), np.asarray(table["context"]), weights)
    chosen = answers(said.means, said.deviations, BANDIT.caution)
    log = Log(arms, np.asarray(table["propensity"]), paid, said.means)
    judged = {name: estimate(log, np.eye(6)[each]) for name, each in (("rule", 0 * rows), ("gate", chosen))}
    sealed = context.sealed[count]["off_policy"]["rule"]["doubly_robust"]
    rule, best = exact[:, 0].mean(), exact[rows, chosen].mean()
    assert judged["rule"].low <= rule <= judged["rule"].high
    assert sealed["low"] <= rule <= sealed["high"]
    assert judged["gate"].low <= best <= judged["gate"].high
    assert judged["gate"].low > rule  # else the log would say as much of any gate
