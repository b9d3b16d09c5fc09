"""Banks that start from experts and gates of other stages, and of which only a part learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.core.answers import Answer
from paretune.core.errors import AdapterError, ConfigError
from paretune.core.ledger import Ledger
from paretune.core.stages import GATE, Stage
from paretune.core.task import Task
from paretune.methods.bank_training import train_bank
from paretune.methods.banks import (
    GATES,
    BankSettings,
    DrawnBankSettings,
    GatedSettings,
    PriorFrom,
    bank_stage,
    gate_path,
)
from paretune.methods.experts import expert_settings
from paretune.methods.priors import Interpolated
from paretune.methods.training import prompts
from paretune.models import prompt_states
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.gate import BlockGate, TrainedGate, load_gate
from paretune.models.loading import load_base
from paretune.rl.trainees import Conditioned

SETTINGS = BankSettings(3e-2, group_size=4, completions_per_update=16, rank=2)
BLOCK, PROMPT = GATES["block"], GATES["prompt"]
SOMEWHERE = Stage("expert", "nobody:runs", {})  # three experts
GATED = Stage("gate", "nobody:runs", {"gate": BLOCK}, needs=(SOMEWHERE,))


@dataclass
class Context:
    """The least a stage needs, with results of stages that nobody trained."""

    task: Task
    root: Path
    stages: tuple[Stage, ...]
    known: dict[str, dict[str, Path]]
    left: dict[str, Path] = field(default_factory=dict)
    sealed: int = 0
    given: Ledger = field(default_factory=lambda: Ledger(1000))

    def result(self, stage: Stage) -> Any:
        artefacts = self.known[stage.kind]
        adapters = tuple(path for name, path in sorted(artefacts.items()) if name.startswith("experts/"))
        return SimpleNamespace(artefacts=artefacts, adapters=adapters, stage=stage, key=stage.kind)

    def ledger(self, stage: Stage) -> Ledger:
        return self.given

    def artefact(self, stage: Stage, name: str) -> Path:
        self.left[name] = self.root / name
        self.left[name].parent.mkdir(parents=True, exist_ok=True)
        return self.left[name]

    def seal(self, stage: Stage, values: Any) -> None:
        self.sealed += 1

    def start_folder(self, stage: Stage) -> None:
        return None

    def end_folder(self, stage: Stage) -> Path:
        return self.root / "checkpoint"

    def checkpoint_folder(self) -> Path:
        return self.root

    def progress(self, completions: int, message: str = "") -> None:
        pass

    def log(self, event: Any) -> None:
        pass


@pytest.fixture(scope="module")
def known(task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Return three experts and a gate for them, all far from where training starts."""
    root = tmp_path_factory.mktemp("known")
    base = load_base(task.model, device="cpu")
    bank = micro_task.perturb(ExpertBank(base, 3, rank=2, alpha=4.0))
    for expert in range(3):
        save_adapter(bank, expert, root / f"experts/{expert:03d}")
    gate = BlockGate(bank, 2, 7)
    gate.flat.add_(0.01)
    gate.save(root / GATE)
    bank.unwrap()
    return {
        "expert": {f"experts/{expert:03d}": root / f"experts/{expert:03d}" for expert in range(3)},
        "gate": {GATE: root / GATE},
        "search": {},
    }


Trained = Callable[..., tuple[Context, torch.Tensor, TrainedGate | None]]


@pytest.fixture
def trained(task: Task, known: dict[str, dict[str, Path]], tmp_path: Path) -> Trained:
    """Return a function that trains a stage and loads what it left."""

    def train(stage: Stage) -> tuple[Context, torch.Tensor, TrainedGate | None]:
        context = Context(task, tmp_path, (stage,), known)
        train_bank(context)  # type: ignore[arg-type]  # as much of a context as it needs
        assert context.sealed == 1
        assert context.given.completions == stage.completions
        base = load_base(task.model, device="cpu")
        assert getattr(base.model, "_paretune_bank", None) is None
        left = [path for name, path in sorted(context.left.items()) if name.startswith("experts/")]
        bank = load_bank(base, left or list(known["expert"].values()))
        gate = load_gate(bank, context.left[GATE]) if GATE in context.left else None
        bank.unwrap()
        return context, bank.flat, gate

    return train


def flat_of(task: Task, known: dict[str, dict[str, Path]]) -> torch.Tensor:
    bank = load_bank(load_base(task.model, device="cpu"), list(known["expert"].values()))
    bank.unwrap()
    return bank.flat


PRIOR = np.asarray([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])


@pytest.mark.parametrize("gate", [BLOCK, PROMPT])
def test_a_gate_learns_alone_on_frozen_experts(trained: Trained, gate: str) -> None:
    """What nobody trains is in no checkpoint either: neither in an optimiser nor in an average."""
    from safetensors.torch import load_file

    stage = bank_stage(SETTINGS, 32, 0, gate, (SOMEWHERE,), PRIOR, "gate")
    context, _, made = trained(stage)
    assert (stage.kind, list(context.left)) == ("gate", [GATE])
    assert made is not None
    assert made.experts == 3
    assert made.networks[0][-1].any()  # the last bias, which starts at zero
    state = load_file(context.root / "checkpoint" / "state.safetensors")
    assert {name.partition(".")[0] for name in state} == {"gate", "recent"}


def test_prompts_are_read_in_batches_that_do_not_depend_on_where_training_stands(
    trained: Trained, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two threads states of the embedded model differ in their last bit between batches of other sizes."""
    base, read, parts = load_base(task.model, device="cpu"), prompt_states._read, list[Any]()

    def noting(base: Any, part: Any) -> Any:
        parts.append(part)
        return read(base, part)

    monkeypatch.setattr(prompt_states, "_read", noting)
    prompt_states.forget_prompts(base)
    trained(bank_stage(SETTINGS, 16, 0, PROMPT, (SOMEWHERE,), PRIOR, "gate"))  # an update sees four prompts
    during = parts.copy()
    prompt_states.forget_prompts(base)
    parts.clear()
    for split in ("train", "development"):
        prompt_states.prompt_states(base, prompts(base, task, split).prompt_ids)
    assert during == parts


def test_experts_learn_alone_under_the_gate_that_was_given(
    trained: Trained, task: Task, known: dict[str, dict[str, Path]]
) -> None:
    stage = bank_stage(SETTINGS, 32, 0, BLOCK, (SOMEWHERE, GATED), PRIOR, "experts")
    context, flat, made = trained(stage)
    assert (stage.kind, sorted(context.left)) == ("bank", ["experts/000", "experts/001", "experts/002", GATE])
    assert made is not None
    assert context.left[GATE].read_bytes() == known["gate"][GATE].read_bytes()
    moved = (flat - flat_of(task, known)).abs().amax(dim=1)
    assert (moved > 0.01).all()


def test_both_learn_from_where_they_were(trained: Trained, task: Task, known: dict[str, dict[str, Path]]) -> None:
    _, flat, made = trained(bank_stage(SETTINGS, 32, 0, BLOCK, (SOMEWHERE, GATED), PRIOR))
    before = flat_of(task, known)
    assert (
        0.01 < float((flat - before).abs().max()) < 0.5 < float(before.abs().max())
    )  # two updates of two steps of .03
    assert made is not None
    bank = load_bank(load_base(task.model, device="cpu"), list(known["expert"].values()))
    start = load_gate(bank, known["gate"][GATE])
    bank.unwrap()
    assert 0 < float((made.flat - start.flat).abs().max()) < 0.2


def test_a_prior_says_how_many_new_experts_there_are(trained: Trained) -> None:
    context, flat, made = trained(bank_stage(SETTINGS, 16, 0, prior=PRIOR))
    assert sorted(context.left) == ["experts/000", "experts/001", "experts/002"]
    assert len(flat) == 3
    assert made is None


@dataclass(frozen=True)
class Bent:
    """A prior that is no linear rule: at the centre one expert alone."""

    alone: int = 2

    def stages(self, *given: Any) -> tuple[Stage, ...]:
        return ()

    def answer(self, task: Task, rule: Any, results: Any) -> Answer:
        return Interpolated(rule, np.eye(3)[self.alone])


FOUND = PriorFrom({"kind": f"{__name__}:Bent", "alone": 1}, (Stage("search", "nobody:runs", {}),))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, torch.Tensor]]:
    """Return the preferences that training asks for, with the experts' weights under the prior."""
    noted: list[tuple[Any, torch.Tensor]] = []
    mixing = Conditioned.mixing

    def noting(self: Conditioned, members: Any, preferences: Any, prompts: Any) -> Any:
        made = mixing(self, members, preferences, prompts)
        noted.append((preferences, made.expert_weights))
        return made

    monkeypatch.setattr(Conditioned, "mixing", noting)
    return noted


@pytest.mark.parametrize("experts", [(SOMEWHERE,), ()])
def test_a_bank_is_trained_under_the_prior_that_its_needs_found(
    trained: Trained, asked: list[Any], experts: tuple[Stage, ...]
) -> None:
    stage = bank_stage(SETTINGS, 16, 0, experts=experts, prior=PRIOR, prior_from=FOUND)
    assert stage.needs == (*experts, *FOUND.stages)
    assert stage.settings["prior_from"] == {"kind": f"{__name__}:Bent", "alone": 1}
    trained(stage)
    (preferences, weights), *_ = asked
    expected, _ = Interpolated(PRIOR, np.eye(3)[1]).weights(preferences)
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)  # fp32
    assert np.abs(expected - preferences @ PRIOR).max() > 0.1


def test_each_term_of_a_gate_that_settings_ask_for_moves_it(trained: Trained) -> None:
    """All else is alike: the form, the seed, the completions."""
    shape: dict[str, Any] = {
        "group_size": 4,
        "completions_per_update": 16,
        "rank": 2,
        "epochs": 2,
        "average_decay": 0.0,
    }
    made = {}
    for term in ("", "gate_kl", "gate_balance", "gate_entropy"):
        settings = GatedSettings(3e-2, form="softmax", **{**shape, **({term: 1.0} if term else {})})
        _, _, gate = trained(bank_stage(settings, 16, 0, BLOCK, (SOMEWHERE,), PRIOR, "gate"))
        assert gate is not None
        made[term] = gate.flat
    for first, second in combinations(made, 2):
        assert (made[first] - made[second]).abs().max() > 1e-2, (first, second)  # a step of Adam is of .03


def test_draws_of_the_settings_reach_training_and_the_stage_that_has_them(trained: Trained, asked: list[Any]) -> None:
    shape = {"learning_rate": 3e-2, "group_size": 4, "completions_per_update": 16, "rank": 2}
    stage = bank_stage(DrawnBankSettings(draw="stratified", **shape), 16, 0)
    assert stage.settings["draw"] == "stratified"
    assert "draw" not in bank_stage(DrawnBankSettings(), 16, 0).settings
    trained(stage)
    intervals = np.floor(asked[0][0][::4, 0] * 4).astype(int)  # four prompts of four completions
    assert sorted(intervals) == [0, 1, 2, 3]


def test_a_bank_for_one_preference_asks_for_no_other(trained: Trained, asked: list[Any]) -> None:
    """What it is for is what tells it from others of its kind: a member's, so that its settings stay as they were."""
    one = bank_stage(SETTINGS, 16, 0, experts=(SOMEWHERE,), prior=PRIOR, preference=np.asarray([0.25, 0.75]))
    assert one.member == {"objective_weights": [0.25, 0.75]}
    drawn = bank_stage(SETTINGS, 16, 0, experts=(SOMEWHERE,), prior=PRIOR)
    assert (drawn.settings, drawn.member) == (one.settings, {})
    trained(one)
    (preferences, weights), *_ = asked
    assert np.unique(preferences, axis=0).tolist() == [[0.25, 0.75]]
    assert weights.unique(dim=0).tolist() == [[0.25, 0.75, 0.5]]


@pytest.mark.parametrize(("start", "alike"), [("shared", True), ("independent", False)])
def test_new_experts_start_from_their_own_a_or_from_one_they_share(trained: Trained, start: str, alike: bool) -> None:
    """B is zero at first, so at this rate experts are still where they started but for some billionths."""
    _, flat, _ = trained(bank_stage(replace(SETTINGS, learning_rate=1e-9), 16, 0, start=start))
    assert (float((flat[0] - flat[1]).abs().max()) < 1e-6) == alike


def test_default_stages_say_nothing_of_what_they_do_not_change() -> None:
    stage = bank_stage(BankSettings(), 6000, 0, BLOCK)
    assert (stage.kind, stage.needs) == ("bank", ())
    assert stage.settings["gate"] == "paretune.models.gate:BlockGate"
    assert set(stage.settings) == {*expert_settings(BankSettings()), "gate", "gate_learning_rate"}
    other = bank_stage(BankSettings(), 6000, 0, BLOCK, prior=np.eye(2))
    assert other.settings["prior"] == [[1.0, 0.0], [0.0, 1.0]]
    assert bank_stage(BankSettings(), 8, 0, experts=(SOMEWHERE,), trains="experts").settings["trains"] == "experts"


def test_what_cannot_learn_is_refused_when_it_is_planned(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="must have a name and experts to weigh, got no experts"):
        bank_stage(SETTINGS, 8, 0, BLOCK, trains="gate")
    with pytest.raises(ConfigError, match="must have a name and experts to weigh, got no gate"):
        bank_stage(SETTINGS, 8, 0, "", (SOMEWHERE,), trains="gate")
    with pytest.raises(ConfigError, match="must start from a stage that trained it, got none"):
        bank_stage(SETTINGS, 8, 0, PROMPT, (SOMEWHERE, GATED), trains="experts")
    with pytest.raises(ConfigError, match="trains must be one of both, experts, gate, got 'gates'"):
        bank_stage(SETTINGS, 8, 0, BLOCK, (SOMEWHERE,), trains="gates")
    with pytest.raises(ConfigError, match=r"draw must be left out where all prompts .*, got 'corners'\. Remove it"):
        bank_stage(DrawnBankSettings(draw="corners"), 8, 0, preference=np.asarray([0.25, 0.75]))
    assert bank_stage(DrawnBankSettings(), 8, 0, preference=np.asarray([0.25, 0.75])).member
    with pytest.raises(ConfigError, match=r"gate must be one of block, .*, got 'bloc'\. Did you mean 'block'"):
        gate_path("bloc")


def test_what_does_not_fit_together_is_refused_and_the_base_left_as_it_was(
    trained: Trained, task: Task
) -> None:  # fmt: skip
    with pytest.raises(AdapterError, match="experts to start from must be as many as the prior weighs, 2, got 3"):
        trained(bank_stage(SETTINGS, 16, 0, BLOCK, (SOMEWHERE,), trains="gate"))
    stage = bank_stage(SETTINGS, 16, 0, BLOCK, (SOMEWHERE, GATED), PRIOR)
    other = replace(stage, settings={**stage.settings, "gate": PROMPT})
    with pytest.raises(ConfigError, match="as the stage says, got one of BlockGate to start from"):
        trained(other)
    assert getattr(load_base(task.model, device="cpu").model, "_paretune_bank", None) is None
