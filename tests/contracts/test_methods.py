from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import micro_task
import paretune
from blind import blindfolded
from paretune.benchmark.plan import plan
from paretune.benchmark.summary import plan_text
from paretune.core.answers import answer_to_plain
from paretune.core.errors import BudgetError
from paretune.core.ledger import Ledger
from paretune.core.preferences import check_preferences, das_dennis
from paretune.core.protocols import FAMILIES, Assembly, Method
from paretune.core.stages import GATE, Stage, StageContext, StageResult, in_order
from paretune.core.task import Task
from paretune.methods import METHODS, resolve_method
from paretune.methods.banks import BankSettings
from paretune.methods.gradient_weights import GradientSettings
from paretune.methods.meta_policy.iterative_soups import IterativeSoupsSettings
from paretune.methods.meta_policy.starts import StartSettings
from paretune.methods.multi_policy.set_settings import SetSettings
from paretune.methods.single_policy.reward_combination import RewardCombinationSettings
from paretune.models.loading import load_base, unwrap
from paretune.models.solutions import SolutionSet, load_solutions
from paretune.objectives.scoring import Scorer
from paretune.rl.evaluation import evaluate
from paretune.training.train import train as train_in_a_study

WANTED = das_dennis(2, 2)
BUDGET, GROUP, FEW = 250, 4, 100
SMALL = {
    "rank": 2, "group_size": GROUP, "completions_per_update": 16, "learning_rate": 3e-2,
    "epochs": 1, "average_decay": 0.0,
}  # fmt: skip
FAST = {  # where a method has such a setting
    "completions_each": 80, "measured_each": 8, "population": 3, "archive": 3, "steps": 96,
    "thresholds": {"first": 0.3}, "slack": 0.0, "preference_rank": 2, "merge_every": 8, "tasks": 2, "inner_updates": 2,
    "pulls_each_round": 16,
    "text": "{preference} ", "pair": "{number}", "between": " ",
    "numerals": [f"{first} {second}" for first in "abc" for second in "abcd"][:11],

}  # fmt: skip
SET = {"completions_each": 160}  # of members one after the other, which must differ
BANK = {  # a gate at .03 diverges; few updates with many completions are the quicker way
    "learning_rate": 2e-2, "completions_per_update": 48, "epochs": 2, "average_decay": 0.97,
}  # fmt: skip
SECOND = [  # another setting of a method that changes what it does, not only how much
    ("linear", {"ratio": "token"}),
    ("dynaopt", {"mode": "faithful"}),
    ("mgda", {"preference": "ignored"}),
    ("mgda", {"normalise": 0}),
    ("mgda", {"metric": "plain"}),
    ("pcgrad", {"optimiser": "sgd"}),
    ("cagrad", {"c": 0.8}),
    ("upgrad", {"metric": "plain"}),
    ("chebyshev", {"form": "plain"}),
    ("chebyshev", {"form": "augmented"}),
    ("chebyshev", {"ideal": {"first": 0.6}}),
    ("thresholds", {"level": "expected"}),
    ("thresholds", {"thresholds": {"second": 0.1}, "unit": "share"}),
    ("reward_combination", {"form": "sum"}),
    ("reward_combination", {"form": "product"}),
    ("schedule", {"kind": "round_robin"}),
    ("schedule", {"kind": "blocks"}),
    ("schedule", {"kind": "random"}),
    ("schedule", {"kind": "random", "draws": "dirichlet"}),
    ("contextual_dynaopt", {"step": 2.0}),
    ("q_weighting", {"divisions": 1}),
    ("lagrangian", {"thresholds": {"second": 0.9}}),
    ("hidden_mixing", {"continued": "base"}),
    ("hidden_mixing", {"block": -1, "norm": "after"}),
    ("mod", {"divergence": "forward_kl"}),
    ("probability_mixture", {"seeds_each": 2}),
    ("hidden_mixing", {"experts": {"kind": "mgda", "divisions": 2}}),
    ("rewarded_soups", {"experts": {"kind": "cone", "eps": 0.0}}),
    ("rewarded_soups", {"start": "own"}),
    ("merged_soups", {"merge": "peft_linear"}),
    ("merged_soups", {"merge": "ties"}),
    ("rewarded_soups", {"stretch": 1.5}),
    ("mod", {"stretch": 1.5, "stretch_from": "base"}),
    ("mod", {"experts": "mixed_reward"}),
    ("emorl", {"experts": {"kind": "mixed_reward", "beta": 0.8}}),
    ("searched_soups", {"search": "random", "beyond": 0.5}),
    ("searched_soups", {"search": "mirror_descent"}),
    ("searched_soups", {"search": "gradient_free", "beyond": 0.5}),
    ("bone_soups", {"beta": 0.9, "extrapolation": 0.2}),
    ("bone_soups", {"pilot_share": 0.6, "pilot_measured_each": 1}),
    ("iterative_soups", {"merge_every": 2}),
    ("panacea", {"preference_rank": 1}),
    ("mixture_of_experts", {"width": 4, "gate_learning_rate": 0.03}),
    ("mixture_of_experts", {"gate": "prompt"}),
    ("mixture_of_experts", {"experts": "single_objective", "start": "independent"}),
    ("mixture_of_experts", {"experts": "single_objective", "trains": "gate", "polish_share": 0.3}),
    ("mixture_of_experts", {"experts": "mixed_reward", "prior": {"kind": "search", "rounds": 1}}),
    ("mixture_of_experts", {"experts": "single_objective", "experts_share": 1, "gate": "none", "prior": "search"}),
    ("mixture_of_experts", {"polish_share": 0.5}),
    ("mixture_of_experts", {"size": 3}),
    ("mixture_of_experts", {"start": "shared", "gate": "none"}),
    ("mixture_of_experts", {"draw": "stratified"}),
    ("preference_conditioned", {"draw": "corners"}),
    ("gated_experts", {"gate": "block"}),
    ("gated_experts", {"gate": "token", "gate_block": 1}),
    ("gated_experts", {"context": "shuffled"}),
    ("gated_experts", {"context": "blind"}),
    ("gated_experts", {"gate": "block", "context": "shuffled"}),
    ("gated_experts", {"form": "softmax", "top_1": True}),
    ("gated_experts", {"gate_kl": 3.0, "gate_balance": 1.0}),
    ("mixture_of_experts", {"form": "softmax", "gate_entropy": 1.0}),
    ("gated_experts", {"gate": "none"}),
]
LATE = [  # settings whose effect so few completions do not show
    ("contextual_dynaopt", {"paid": "first"}),
    ("dorb", {"variant": "hierarchical"}),
    ("linear_support", {"reuse": "nearest"}),
    ("evolution", {"survival": "crowding"}),
]
LEAN: dict[str, Any] = {  # few completions are then enough for corners and centre, and end outer steps and rounds
    "completions_each": 32, "epochs": 2, "average_decay": 0.9, "population": 2, "steps": 16,
    "tasks": 1, "inner_updates": 1, "merge_every": 1,
}  # fmt: skip
ANSWERS = {
    "single-policy": {"exact", "estimated", "nearest"},
    "multi-policy": {"selected"},
    "meta-policy": {"combined"},
}
SEVERAL = "two_experts:TwoExperts"  # a user's method: its only stage leaves two adapters
ONE_FOR_ALL = {"one_policy", "schedule"}  # know no preference: one policy answers everybody
POLICIES = {"soup": 2}  # of a stage that trains more than one, of equal lengths
STARTING = {"reptile", "bilevel", "tree"}  # what they combine is training: policies of their own answer
# raises the sum for everybody first; tells preferences apart later: tests/methods/test_preference_in_prompt.py
LATE_TOLD = {"preference_in_prompt"}
NAMES = sorted(  # ceiling and base model are no methods: tests/methods/test_exact_gradient.py and test_base.py
    name for name in METHODS if resolve_method(name).family in FAMILIES
)

PATHS = {  # of training, each once: experts, weightings, gradients, searches, sets, banks, gates, bandits
    "linear", "dynaopt", "mgda", "weight_grid", "evolution", "rewarded_soups", "emorl", "contextual_bandit", "reptile",
    "mixture_of_experts",
}  # fmt: skip
ALIKE = {  # trained by what trains `linear`, `dynaopt`, `mgda` or `rewarded_soups`, and mixed as the latter
    "one_policy", "schedule", "thresholds", "reward_combination", "lagrangian", "contextual_dynaopt", "dorb", "pcgrad",
    "cagrad", "upgrad", "bone_soups", "merged_soups", "tree",
}  # fmt: skip
TRAINED = [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in NAMES]
TRAINED_TWICE = [name if name in PATHS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return micro_task.load(tmp_path_factory.mktemp("task"))


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")


@pytest.fixture(autouse=True)
def nothing_stays_wrapped(task: Task) -> Iterator[None]:
    yield
    unwrap(load_base(task.model))


def budget_of(name: str) -> int:
    """Return what a method is trained with: one that learns all preferences at once, or by and by, takes longer."""
    slow = issubclass(
        resolve_method(name).Settings,
        (BankSettings, SetSettings, RewardCombinationSettings, IterativeSoupsSettings, StartSettings),
    )  # the logarithm of a reward of 0 is -9.2: its mean is known less well
    return (2 if name == "linear_support" else 4) * BUDGET if slow else BUDGET


def make(name: str, **changes: object) -> Method:
    """Make a method with small settings, and with those changes that it knows."""
    found = resolve_method(name)
    known = vars(found.Settings())
    own = BANK if issubclass(found.Settings, BankSettings) else SET if issubclass(found.Settings, SetSettings) else {}
    small = {key: value for key, value in {**SMALL, **FAST, **own}.items() if key in known}
    return found(found.Settings(**{**small, **{key: value for key, value in changes.items() if key in known}}))


@dataclass
class InOneFolder:
    """The least a stage needs: folders, ledgers, and results of what was sealed."""

    root: Path
    task: Task
    stages: tuple[Stage, ...] = ()
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    results: dict[str, StageResult] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    events: list[Mapping[str, object]] = field(default_factory=list)
    reported: int = 0
    starts: dict[str, Path] = field(default_factory=dict)  # of longer runs, by trajectory

    def result(self, stage: Stage) -> StageResult:
        return self.results[stage.key(self.task)]

    def ledger(self, stage: Stage) -> Ledger:
        key = stage.trajectory_key(self.task)
        same = [each.completions for each in self.stages if each.trajectory_key(self.task) == key]
        return self.ledgers.setdefault(key, Ledger(max(same)))

    def artefact(self, stage: Stage, name: str) -> Path:
        self.asked.setdefault(stage.key(self.task), []).append(name)
        path = self.root / stage.key(self.task) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        key = stage.key(self.task)
        assert key not in self.results
        folder = self.root / key
        ledger = Ledger.from_state(self.ledger(stage).state())
        artefacts = {name: folder / name for name in self.asked.get(key, [])}
        assert all(path.exists() for path in artefacts.values())
        self.results[key] = StageResult(
            stage, key, folder, artefacts, dict(values), ledger, math.fsum(ledger.seconds.values())
        )

    def start_folder(self, stage: Stage) -> Path | None:
        return self.starts.get(stage.trajectory_key(self.task))

    def end_folder(self, stage: Stage) -> Path:
        return self.root / stage.key(self.task) / "checkpoint"

    def checkpoint_folder(self) -> Path:
        folder = self.root / "checkpoint" / self.stages[0].shape_key(self.task)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, completions: int, message: str = "") -> None:
        self.reported += completions

    def log(self, event: Mapping[str, object]) -> None:
        self.events.append(event)


def run_stages(stages: Sequence[Stage], context: InOneFolder) -> None:
    """Run stages in their order, those of one shape together."""
    task = context.task
    for stage in stages:
        if stage.key(task) not in context.results:
            context.stages = tuple(each for each in stages if each.shape_key(task) == stage.shape_key(task))
            module, _, function = stage.run.partition(":")
            run: Callable[[StageContext], None] = getattr(importlib.import_module(module), function)
            run(cast(StageContext, context))


def train(
    name: str, task: Task, folder: Path, budget: int | None = None, **changes: object
) -> tuple[SolutionSet, Assembly, InOneFolder]:
    """Plan a method, train its stages as populations of one shape, and assemble its answer."""
    task = blindfolded(task)  # whoever looks at listed completions or test prompts fails
    method = make(name, **changes) if name in METHODS else resolve_method(name)(resolve_method(name).Settings())
    stages = in_order(method.stages(task, WANTED, budget or budget_of(name), 0), task)
    context = InOneFolder(folder, task)
    run_stages(stages, context)
    results = {stage.key(task): context.results[stage.key(task)] for stage in stages}
    assembly = method.assemble(task, WANTED, results)
    return SolutionSet.from_assembly(task, assembly, name, method.family), assembly, context


@pytest.fixture(scope="module")
def trained(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return a method trained once, for all tests that look at it."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            known[name] = train(name, task, tmp_path_factory.mktemp(name))
        return known[name]

    return of


def says(solutions: SolutionSet) -> Any:
    made = solutions.policies_for([[1, 0], [0.3, 0.7]]).generate(["b b", "e"] * 4, [0, 1] * 4, samples=4)
    return made.texts


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name: str) -> None:
    method = make(name)
    assert method.name == name
    assert method.family in FAMILIES
    assert method.version >= 1
    assert is_dataclass(method.Settings)
    assert method.Settings.__dataclass_params__.frozen  # type: ignore[attr-defined]  # of every dataclass
    assert type(method).__doc__
    assert "Source:" in str(type(method).__doc__)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [100, BUDGET, 256, 999])
def test_plans_stay_within_the_budget_and_short_of_it_by_less_than_a_group_per_policy(
    name: str, budget: int, task: Task
) -> None:
    stages = in_order(make(name).stages(task, WANTED, budget, 0), task)
    policies = sum(
        POLICIES.get(
            stage.kind,
            stage.kind in ("expert", "bank", "gate", "evolution", "support", "prediction", "reptile", "bilevel"),
        )
        for stage in stages
    )
    assert policies >= 1
    assert 0 <= budget - sum(stage.completions for stage in stages) < GROUP * policies


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_that_trains_nothing_is_refused(name: str, task: Task) -> None:
    with pytest.raises(BudgetError, match="budget must"):
        make(name).stages(task, WANTED, GROUP - 1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_planning_is_pure_and_depends_on_the_seed(name: str, task: Task) -> None:
    def keys(seed: int) -> list[str]:
        return [stage.key(task) for stage in in_order(make(name).stages(task, WANTED, BUDGET, seed), task)]

    assert keys(0) == keys(0)
    assert not set(keys(0)) & set(keys(1))


def test_methods_that_train_the_same_expert_share_it(task: Task) -> None:
    """With as much for each policy, corners trained by `linear` are those of `rewarded_soups` and of the grid."""
    corner = {}
    for name, budget in (("linear", 240), ("rewarded_soups", 160)):
        for stage in make(name).stages(task, WANTED, budget, 0):
            corner[name, tuple(cast(Any, stage.member["objective_weights"]))] = stage.key(task)
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        assert corner["linear", weights] == corner["rewarded_soups", weights]
    grid = in_order(make("weight_grid").stages(task, WANTED, 240, 0), task)
    linear = in_order(make("linear").stages(task, WANTED, 240, 0), task)
    assert {stage.trajectory_key(task) for stage in linear} <= {stage.trajectory_key(task) for stage in grid}


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_trains_and_spends_what_it_planned(name: str, task: Task, trained: Callable[[str], Any]) -> None:
    _, _, context = trained(name)
    for result in context.results.values():
        assert result.ledger.completions == result.stage.completions
    assert context.reported == sum(result.stage.completions for result in context.results.values())
    learned = [result for result in context.results.values() if result.stage.completions]  # not what merges or sums
    for folder in {result.folder for result in learned if result.adapters}:
        assert (folder / "checkpoint" / "state.safetensors").is_file()  # where a longer run goes on
    assert any("reward_means" in event for event in context.events)
    by_gradients = issubclass(resolve_method(name).Settings, GradientSettings)
    for event in context.events:
        assert ("conflicts" in event) == by_gradients
    for result in context.results.values():  # a share of each objective that is wanted, or nothing is paid to know it
        wanted = result.stage.member.get("objective_weights", ())
        shares = result.values["conflicts"] if by_gradients else ()
        assert [share is not None and 0 <= share <= 1 for share in shares] == [w > 0 for w in wanted if by_gradients]


@pytest.mark.parametrize("name", TRAINED)
def test_training_raises_what_is_asked_for(name: str, task: Task, trained: Callable[[str], Any]) -> None:
    solutions, _, _ = trained(name)
    wanted = np.eye(2)
    policy = solutions.policies_for(wanted)
    values = dict(zip(map(micro_task.text_of, micro_task.completions()), micro_task.rewards(), strict=True))
    prompts = list(micro_task.PROMPTS["test"]) * 2
    means = []
    for index in range(2):
        made = policy.generate(prompts, [index] * len(prompts), samples=64, seed=list(range(len(prompts))))
        means.append(np.mean([values[text] for text in made.texts], axis=0))
    # 512 completions of rewards with a standard deviation below .35: a difference has a standard error below .022
    if name in ONE_FOR_ALL | LATE_TOLD:
        base = policy.scaled([0.0]).generate(prompts, [0] * len(prompts), samples=64, seed=list(range(len(prompts))))
        assert means[0].sum() > np.mean([values[text] for text in base.texts], axis=0).sum() + 0.1
        return
    assert means[0][0] > means[1][0] + 0.1
    assert means[1][1] > means[0][1] + 0.1


@pytest.mark.parametrize("name", TRAINED)
def test_a_method_survives_save_and_load(name: str, trained: Callable[[str], Any], tmp_path: Path) -> None:
    solutions, _, _ = trained(name)
    loaded = load_solutions(solutions.save(tmp_path / "out"))
    assert says(loaded) == says(solutions)
    for preference in WANTED:
        one, other = solutions.policy_for(preference), loaded.policy_for(preference)
        assert one.expert_weights.tolist() == other.expert_weights.tolist()
        assert one.answers == other.answers


@pytest.mark.parametrize("name", TRAINED)
def test_answers_are_of_the_kind_of_the_family_and_depend_on_the_preference(
    name: str, trained: Callable[[str], Any]
) -> None:
    solutions, _, _ = trained(name)
    policy = solutions.policies_for(check_preferences([[1, 0], [0, 1], [0.35, 0.65]], 2))
    assert set(policy.answers) <= (ANSWERS["single-policy"] if name in STARTING else ANSWERS[solutions.family])
    assert (policy.identity(0) != policy.identity(1)) == (name not in ONE_FOR_ALL)
    one_hot = (np.sort(policy.expert_weights, axis=1)[:, :-1] == 0).all()
    assert one_hot == (solutions.family != "meta-policy" or name in STARTING) or len(solutions.experts) == 1


@pytest.fixture(scope="module")
def first(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return what a method trains with few completions as it is set in all other tests."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            known[name] = train(name, task, tmp_path_factory.mktemp(name), FEW, **LEAN)
        return known[name]

    return of


def likely(solutions: SolutionSet) -> Any:
    return solutions.policies_for(WANTED).next_token_log_probs(["b b"] * 3, [[]] * 3, [0, 1, 2]).numpy()


@pytest.mark.parametrize(
    ("name", "changes"),
    [*SECOND[:2], *(pytest.param(*each, marks=pytest.mark.slow) for each in SECOND[2:])],
)
def test_another_setting_of_a_method_changes_what_it_does_and_keeps_its_promises(
    name: str, changes: dict[str, object], task: Task, first: Callable[[str], Any], tmp_path: Path
) -> None:
    solutions = check_promises(name, changes, task, tmp_path)
    assert np.abs(likely(solutions) - likely(first(name)[0])).max() > 1e-4  # fp32; equal policies are equal to 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), LATE)
def test_a_setting_that_needs_longer_runs_keeps_the_promises_of_its_method(
    name: str, changes: dict[str, object], task: Task, tmp_path: Path
) -> None:
    check_promises(name, changes, task, tmp_path)


def check_promises(name: str, changes: dict[str, object], task: Task, root: Path) -> SolutionSet:
    """Check that a method spends its budget, repeats, and is found again as it was saved; return what it trained."""
    solutions, assembly, context = train(name, task, root / "one", FEW, **{**LEAN, **changes})
    for result in context.results.values():
        assert result.ledger.completions == result.stage.completions
    assert sum(result.stage.completions for result in context.results.values()) <= FEW
    again, assembled, _ = train(name, task, root / "two", FEW, **{**LEAN, **changes})
    assert again.bank.flat.equal(solutions.bank.flat)
    assert answer_to_plain(assembled.answer) == answer_to_plain(assembly.answer)
    np.testing.assert_array_equal(likely(load_solutions(solutions.save(root / "out"))), likely(solutions))
    return solutions


@pytest.mark.parametrize("name", TRAINED_TWICE)
def test_a_method_repeats_under_its_seed_when_paretune_train_trains_it(
    name: str, task: Task, first: Callable[[str], Any], tmp_path: Path
) -> None:
    solutions, assembly, _ = first(name)
    again = train_in_a_study(name, task, FEW, 0, WANTED, vars(make(name, **LEAN).settings))
    np.testing.assert_array_equal(again.bank.flat.numpy(), solutions.bank.flat.numpy())
    assert (again.gate is None) == (solutions.gate is None)
    if again.gate is not None and solutions.gate is not None:
        assert again.gate.digest == solutions.gate.digest
    assert answer_to_plain(again.answer) == answer_to_plain(assembly.answer)
    assert says(again) == says(solutions)
    assert tensor_files(again.save(tmp_path / "again")) == tensor_files(solutions.save(tmp_path / "first"))


@pytest.mark.parametrize("name", TRAINED_TWICE)
def test_a_longer_run_extends_a_shorter_one(name: str, task: Task, first: Callable[[str], Any], tmp_path: Path) -> None:
    """Whatever is trained goes on from where a shorter run stood to what a run of that length makes at once."""
    _, _, shorter = first(name)
    learned = [result for result in shorter.results.values() if result.stage.completions]
    known = [result for result in learned if result.adapters or GATE in result.artefacts]
    longer = [
        replace(result.stage, completions=result.stage.completions + 3 * GROUP * POLICIES.get(result.stage.kind, 1))
        for result in known
    ]
    extended, alone = InOneFolder(tmp_path / "extended", task), InOneFolder(tmp_path / "alone", task)
    for context in (extended, alone):  # what they need is what it was
        context.results.update(shorter.results)
    extended.starts.update({each.stage.trajectory_key(task): each.folder / "checkpoint" for each in known})
    for context in (extended, alone):
        run_stages(longer, context)
    assert 0 < extended.reported < alone.reported  # what was made before is not made again
    for stage in longer:
        one, other = extended.result(stage), alone.result(stage)
        assert tensor_files(one.folder) == tensor_files(other.folder)
        assert len(tensor_files(one.folder)) > 1
        assert one.ledger.counts == other.ledger.counts
        assert one.ledger.completions == stage.completions


def tensor_files(folder: Path) -> dict[str, bytes]:
    """Return every file of tensors, byte by byte."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*.safetensors")}


def test_a_stage_that_leaves_several_adapters_is_planned_charged_and_keyed_as_one(
    task: Task, trained: Callable[[str], Any]
) -> None:
    _, assembly, context = trained(SEVERAL)
    method = resolve_method(SEVERAL)
    (stage,) = method(method.Settings()).stages(task, WANTED, BUDGET, 0)
    (result,) = context.results.values()
    assert result.key == stage.key(task)
    assert result.ledger.completions == stage.completions == 248 == context.reported  # whole groups for each of the two
    assert list(result.artefacts) == ["experts/001", "experts/000", "scores.json"]
    assert [adapter.name for adapter in result.adapters] == ["000", "001"]
    assert assembly.experts == result.adapters
    other = method(method.Settings(spread=0.5)).stages(task, WANTED, BUDGET, 0)[0]
    assert other.shape_key(task) != stage.shape_key(task)


def test_several_adapters_of_a_stage_are_told_apart_and_scaled(task: Task, trained: Callable[[str], Any]) -> None:
    solutions, assembly, _ = trained(SEVERAL)
    policy = solutions.policies_for(np.eye(2))
    np.testing.assert_array_equal(policy.expert_weights, assembly.answer.weights(np.eye(2))[0])
    assert policy.answers == ("weighed", "weighed")
    scaled = policy.scaled([0.0, 0.5, 1.0])
    identities = [scaled.identity(index) for index in range(6)]
    assert identities[0] == identities[3]  # the base model, whatever the expert
    assert len(set(identities)) == 5
    assert [identities[2], identities[5]] == [policy.identity(0), policy.identity(1)]
    rows = task.splits["test"]
    records = evaluate(policy, rows, Scorer(task.objectives), task.objective_names, samples=4)
    assert records[0].identity != records[1].identity
    assert [record.answer for record in records] == ["weighed", "weighed"]
    base = evaluate(scaled, rows, Scorer(task.objectives), task.objective_names, samples=4)
    assert base[0].kl == pytest.approx(0, abs=1e-5)  # two passes of one model, fp32
    assert base[2].completions == records[0].completions


def test_several_adapters_of_a_stage_survive_save_and_load(trained: Callable[[str], Any], tmp_path: Path) -> None:
    solutions, _, _ = trained(SEVERAL)
    saved = solutions.save(tmp_path / "out")
    assert sorted(path.name for path in (saved / "experts").iterdir()) == ["000", "001"]
    loaded = load_solutions(saved)
    assert says(loaded) == says(solutions)
    again = load_solutions(loaded.save(tmp_path / "again"))
    assert again.bank.flat.equal(solutions.bank.flat)
    assert answer_to_plain(again.answer) == answer_to_plain(solutions.answer)


@pytest.mark.usefixtures("in_one_process")
def test_a_study_leaves_several_adapters_of_a_stage_where_they_are(task: Task, tmp_path: Path) -> None:
    study = {
        "tasks": [task.source], "methods": {"two": {"method": SEVERAL}}, "budget": {"completions": 64}, "seeds": 1,
        "preferences": {"grid": 2}, "workers": 1,
    }  # fmt: skip
    planned = plan(study, tmp_path / "out")
    assert (planned.cells[0].charged, len(planned.cells[0].stages)) == (64, 1)
    assert "experts:  two as many as it finds (combined to a policy for each preference; " in plan_text(planned)
    result = paretune.run(study, tmp_path / "out", progress=False)
    assert result.complete
    cell, *_ = result.records.cells  # behind it the rows that stand in every study
    (stage,) = cell.stages
    assert (stage.adapters, stage.counts["completions"]) == (2, 64)
    assert {record.answer for record in cell.evaluations} == {"weighed"}
    assert len({record.identity for record in cell.evaluations}) == 4  # three given, one unseen
    assert ">weighed<" in result.page.read_text(encoding="utf-8")
    folder = tmp_path / "out" / "runs" / cell.cell
    names = json.loads((folder / "solution.json").read_text())["experts"]
    assert names == [f"../../stages/{stage.key}/experts/{number:03d}" for number in range(2)]
    solutions = load_solutions(folder)
    assert len(solutions.policies_for(WANTED)) == 3
    in_process = train_in_a_study(SEVERAL, task, 64, 0, WANTED)
    assert solutions.bank.flat.equal(in_process.bank.flat)
    (path := next((tmp_path / "out").glob("stages/*/experts/001/adapter_model.safetensors"))).write_bytes(b"torn")
    assert planned.folder == path.parents[4]
    states = [each.state for each in plan(study, tmp_path / "out").stages]
    assert states == ["new", "finished"]  # its digest is in the marker; the other is that of `one_policy`
