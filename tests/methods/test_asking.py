from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.core.answers import Nearest
from paretune.core.errors import BudgetError, ConfigError, MethodError
from paretune.core.imports import import_name
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.asking import asked_stages, assembled, check_method, made_method
from paretune.methods.entries import method_entry
from paretune.methods.estimators_asked import asked_for
from paretune.methods.experts import ExpertSettings
from paretune.methods.single_policy.linear import Linear, LinearSettings
from paretune.rl.estimators import estimator_of
from paretune.rl.settings import ADVANTAGES

WANTED = das_dennis(2, 2)
HERE = __name__
GRAM = "paretune.methods.single_policy.mgda:MGDAWeights"  # chooses weights from gradients
OURS = "paretune.rl.advantages"
LINE = rf" \({Path(__file__).name}, line \d+\)\. Correct it\."


def run(context: object) -> None:
    """What stages name here; nobody runs it."""


def no_context() -> None:
    """A run function that cannot be called with a context."""


def weighed(rewards: Any, group_size: int, objective_weights: Any) -> Any:
    """Advantages that nobody makes here, from objective weights."""


def against_greedy(rewards: Any, group_size: int, *, greedy_rewards: Any) -> Any:
    """Advantages that nobody makes here, against greedy completions."""


def stage(**parts: Any) -> Stage:
    return Stage(**{"kind": "search", "run": f"{HERE}:run", "settings": {}, **parts})


@method("mine", "meta-policy")
class Mine:
    settings: ExpertSettings


def mine(stages: Callable[..., Any] | None = None, assemble: Callable[..., Any] | None = None) -> Any:
    """A method with functions as its `stages` and `assemble`."""
    parts = {"stages": stages or (lambda self, task, preferences, budget, seed: ())}
    parts["assemble"] = assemble or (lambda self, task, preferences, results: None)
    return type("Mine", (Mine,), parts)(ExpertSettings())


def answering(value: object) -> Any:
    return mine(lambda self, task, preferences, budget, seed: value)


def ask(method: Any, task: Task) -> tuple[Stage, ...]:
    return asked_stages(method, task, WANTED, 250, 0)


def test_stages_come_as_a_tuple_whatever_holds_them(task: Task) -> None:
    one, two = stage(), stage(kind="gate", needs=(stage(),))

    def lazily(self: object, *arguments: object) -> Iterator[Stage]:
        yield from (one, two)

    assert ask(answering([one, two]), task) == (one, two)
    assert ask(mine(lazily), task) == (one, two)
    assert ask(answering(()), task) == ()
    assert ask(Linear(LinearSettings()), task) == Linear(LinearSettings()).stages(task, WANTED, 250, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"Mine\.stages must return Stage objects, got None\. Return a tuple of them, such as \(stage,\)\."),
        (stage(), r"Mine\.stages must return Stage objects, got search alone\. Return a tuple"),
        (7, r"Mine\.stages must return Stage objects, got 7\."),
        ("expert", r"Mine\.stages must return Stage objects, got 'e' among them\. Make each with Stage"),
        ([stage(), None], r"Mine\.stages must return Stage objects, got None among them\."),
        (
            [stage(run=run)],
            r"a stage of Mine\.stages must have .* 'module:function' as run, got 'search' and a function",
        ),
        ([stage(run="nowhere")], r"'module:function' as run, got 'search' and 'nowhere'\. Name the run function"),
        ([stage(kind=None)], r"a word as kind .*, got None and"),
        ([stage(completions=64.0)], r"completions of stage 'search' of Mine\.stages must be a whole .*, got 64\.0\."),
        ([stage(completions=np.int64(8))], r"completions of stage 'search' of .*, got np\.int64\(8\)\. Take int\("),
        ([stage(completions=-8)], r"completions of stage 'search' of .* from 0 on, got -8\."),
        ([stage(seed=None)], r"seed of stage 'search' of Mine\.stages must be a whole number from 0 on, got None\."),
        ([stage(settings=None)], r"settings of stage 'search' of Mine\.stages must be a mapping of plain data, got"),
        ([stage(settings={"rows": np.eye(2)})], r"settings of .* of plain data, got: .*ndarray.*tolist\(\)\."),
        ([stage(member={"x": float("nan")})], r"member of stage 'search' of Mine\.stages must be a mapping of plain"),
        ([stage(needs=stage())], r"needs of stage 'search' of Mine\.stages must be a tuple of Stage objects"),
        ([stage(needs=(None,))], r"needs of stage 'search' of Mine\.stages must return|needs .* got None among them"),
        (
            [stage(run=f"{HERE}:no_context")],
            rf"run function '{HERE}:no_context' of stage 'search' of Mine\.stages must take \(context\), got \(\)\.",
        ),
    ],
)
def test_what_is_no_stage_that_anybody_could_run_is_refused(task: Task, value: object, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        ask(answering(value), task)


@pytest.mark.parametrize("name", [f"{HERE}:searching", "nowhere_at_all:run"])
def test_a_run_function_that_cannot_be_imported_is_refused_before_anything_is_trained(task: Task, name: str) -> None:
    message = rf"run function of stage 'search' of Mine\.stages must be an importable 'module:name', got '{name}' \("
    with pytest.raises(ConfigError, match=message):
        ask(answering((stage(run=name),)), task)


BROKEN = """
class Half:
    needs = frozenset()

    def weigh(self, seen):
        return seen.preference


def short(rewards):
    return rewards
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "no_slots:Half"}, r"weighting must be an importable 'module:name', got 'no_slots:Half' \("),
        ({"weighting": "own_slots.Half"}, r"weighting must be an importable 'module:name', got 'own_slots\.Half' \("),
        ({"weighting": "own_slots:Hafl"}, r"weighting must be an importable 'module:name', got 'own_slots:Hafl' \("),
        ({"weighting": "own_slots:Half"}, r"weighting 'own_slots:Half' must be .* one without measured, state, load"),
        ({"weighting": "torn_slots:Half"}, r"module of weighting 'torn_slots:Half' must be .* SyntaxError: .*line 1\)"),
        (
            {"advantages": "own_slots:short"},
            r"advantages 'own_slots:short' must take \(rewards \[B, K\], group_size\), ",
        ),
        (
            {"shaping": "own_slots:short"},
            r"shaping 'own_slots:short' must take \(rewards \[B, K\], ranges \[K, 2\]\), ",
        ),
        ({"shaping": "own_slots:long"}, r"shaping must be an importable 'module:name', got 'own_slots:long'"),
        ({"gate": "own_slots:Half"}, r"gate must be a class that inherits TrainedGate, got 'own_slots:Half'"),
        ({"gate": "paretune.models.gate:BlokGate"}, r"gate must .*, got 'BlokGate'\. Did you mean 'BlockGate'\?"),
    ],
)
def test_code_that_training_would_refuse_is_refused_when_stages_are_planned(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    (tmp_path / "own_slots.py").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "torn_slots.py").write_text("class Half(\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = "paretune.methods.training:train_experts"
    try:
        with pytest.raises((ConfigError, MethodError), match=rf"^stage 'search' of Mine\.stages: {message}"):
            ask(answering([stage(run=run, settings=settings)]), task)
        other = stage(settings=settings)  # what another run function means by the same word is its own affair
        assert ask(answering([other]), task) == (other,)
    finally:
        sys.modules.pop("own_slots", None)


@pytest.mark.parametrize(
    ("settings", "completions", "error", "message"),
    [
        (
            {"advantages": "grpo", "weighting": GRAM},
            64,
            ConfigError,
            "advantages must be made without objective weights",
        ),
        (
            {"advantages": "gdpo", "weighting": GRAM},
            64,
            ConfigError,
            r"got 'gdpo', which needs them\. Use leave_one_out \(the default\), k_sample_mean or self_critical\.$",
        ),
        ({"advantages": "self_critical", "group_size": 8}, 8, BudgetError, "completions must be at least 9 for each"),
        # by any other name
        ({"advantages": f"{OURS}:grpo", "weighting": GRAM}, 64, ConfigError, "must be made without objective weights"),
        ({"advantages": f"{HERE}:weighed", "weighting": GRAM}, 64, ConfigError, "made without objective weights"),
        ({"advantages": f"{OURS}:self_critical", "group_size": 8}, 8, BudgetError, "completions must be at least 9"),
        ({"advantages": f"{HERE}:against_greedy", "group_size": 8}, 8, BudgetError, "completions must be at least 9"),
    ],
)
def test_settings_that_cannot_go_together_are_refused_when_stages_are_planned(
    task: Task, settings: dict[str, Any], completions: int, error: type[Exception], message: str
) -> None:
    run = "paretune.methods.training:train_experts"
    with pytest.raises(error, match=rf"^stage 'search' of Mine\.stages: .*{message}"):
        ask(answering([stage(run=run, settings=settings, completions=completions)]), task)
    fine = stage(run=run, settings={**settings, "advantages": "leave_one_out"}, completions=completions)
    assert ask(answering([fine]), task) == (fine,)


def test_what_estimators_ask_for_is_known_without_looking_at_them() -> None:
    """The table of words says what their signatures say."""
    for word, path in ADVANTAGES.items():
        asks = estimator_of(import_name("advantages", path)).asks
        assert asked_for(word) == asked_for(path) == asks - {"ranges"}
    assert asked_for(f"{HERE}:weighed") == {"objective_weights"}
    assert asked_for(f"{HERE}:against_greedy") == {"greedy_rewards"}


def test_a_beta_of_0_cannot_be_steered_and_that_is_told_when_stages_are_planned(task: Task) -> None:
    steered = stage(run="paretune.methods.training:train_experts", settings={"target_kl": 2.0})
    assert ask(answering([steered]), task) == (steered,)
    with pytest.raises(
        ConfigError, match=r"^stage 'search' of \w+\.stages: target_kl must be 0 where the task's beta is 0, got 2\.0"
    ):
        ask(answering([steered]), replace(task, beta=0.0))


@pytest.mark.parametrize(
    ("name", "settings", "budget", "message"),
    [
        ("mixture_of_experts", {"gate": "nowhere_at_all:Gate"}, 4096, "gate must be an importable 'module:name'"),
        ("mixture_of_experts", {"gate": "json:JSONDecoder"}, 4096, "gate must be a class that inherits TrainedGate"),
        ("gated_experts", {"gate": "nowhere_at_all:Gate"}, 4096, "gate must be an importable 'module:name'"),
        ("preference_conditioned", {"advantages": "nowhere_at_all:one"}, 4096, "advantages must be an importable"),
        ("mixture_of_experts", {"advantages": "self_critical"}, 8, "completions must be at least"),
        ("panacea", {"advantages": "self_critical"}, 8, "completions must be at least"),
        ("mixture_of_experts", {"target_kl": 3.0}, 4096, "target_kl must be 0 where the task's beta is 0"),
        ("gated_experts", {"target_kl": 3.0}, 4096, "target_kl must be 0 where the task's beta is 0"),
    ],
)
def test_stages_of_every_room_are_checked_when_they_are_planned(
    task: Task, name: str, settings: dict[str, Any], budget: int, message: str
) -> None:
    made = method_entry(name, settings, "methods.x").method
    with pytest.raises((BudgetError, ConfigError, MethodError), match=rf"^stage '\w+' of \w+\.stages: .*{message}"):
        asked_stages(made, replace(task, beta=0.0), WANTED, budget, 0)


def test_a_wrong_signature_is_told_with_what_is_wanted(task: Task) -> None:
    with pytest.raises(
        MethodError,
        match=r"^Mine\.stages must take \(self, task, preferences, budget, seed\), got \(self, task, budget\)\.",
    ):
        ask(mine(lambda self, task, budget: ()), task)
    with pytest.raises(MethodError, match=r"assemble must take \(self, task, preferences, results\), got \(results\)"):
        assembled(mine(assemble=lambda results: None), task, WANTED, {})


def test_what_a_method_raises_is_told_with_its_type_and_line(task: Task) -> None:
    def fails(self: object, *arguments: object) -> None:
        {}["rows"]

    def fails_late(self: object, *arguments: object) -> Iterator[Stage]:
        yield stage()
        raise ValueError("two\nlines")

    with pytest.raises(MethodError, match=r"^Mine\.stages must not raise, got KeyError: 'rows'" + LINE) as caught:
        ask(mine(fails), task)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(MethodError, match=r"^Mine\.stages must not raise, got ValueError: two lines" + LINE):
        ask(mine(fails_late), task)
    with pytest.raises(MethodError, match=r"^Mine\.assemble must not raise, got KeyError: 'rows'" + LINE):
        assembled(mine(assemble=fails), task, WANTED, {})


def test_errors_on_purpose_and_those_of_the_library_itself_stay_as_they_are(task: Task) -> None:
    def poor(self: object, *arguments: object) -> None:
        raise BudgetError("budget must be more.")

    with pytest.raises(BudgetError, match=r"^budget must be more\.$"):
        ask(mine(poor), task)
    method = Linear(LinearSettings())
    object.__setattr__(method.settings, "group_size", None)  # breaks paretune's code, and no user had part in it
    with pytest.raises(TypeError):
        ask(method, task)


def test_stages_that_differ_when_asked_again_are_told_apart(task: Task) -> None:
    counter = itertools.count(1)
    counting = mine(lambda self, *arguments: tuple(stage() for _ in range(next(counter))))
    with pytest.raises(MethodError, match=r"^Mine\.stages must return equal stages for .*, got 1 and 2 stages when"):
        ask(counting, task)
    draws = np.random.default_rng(0)
    drawn = mine(lambda self, *arguments: (stage(settings={"rate": float(draws.random())}),))
    with pytest.raises(MethodError, match=r"got stage 'search' with settings \{'rate': 0\.63.*\} and \{'rate': 0\.2"):
        ask(drawn, task)


def test_a_method_cannot_change_the_preferences_of_others(task: Task) -> None:
    def spoils(self: object, task: Task, preferences: Any, *arguments: object) -> Any:
        preferences[:] = 0
        return () if len(arguments) == 2 else Assembly((), Nearest(np.eye(2)))

    wanted = WANTED.copy()
    asked_stages(mine(spoils), task, wanted, 250, 0)
    assembled(mine(assemble=spoils), task, wanted, {})
    assert (wanted == WANTED).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"^Mine\.assemble must return an Assembly, got None\. Return Assembly\(experts, answer\)\."),
        (((), Nearest(np.eye(2))), r"^Mine\.assemble must return an Assembly, got "),
        (Assembly(("a",), Nearest(np.eye(2))), r"^experts of Mine\.assemble must be .* adapter folders, got \('a',\)"),  # type: ignore[arg-type]
        (Assembly((), Nearest(np.eye(2)), "adapters"), r"^mixer of Mine\.assemble must be a Mixer, got 'adapters'"),  # type: ignore[arg-type]
        (Assembly((), Nearest(np.eye(2)), notes=[1]), r"^notes of Mine\.assemble must be a mapping, got \[1\]"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_assembly_is_refused(task: Task, value: object, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        assembled(mine(assemble=lambda self, *arguments: value), task, WANTED, {})


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("Settings", None, "Settings of method 'm:Mine' must be a dataclass, got None"),
        ("Settings", dict, "Settings of method 'm:Mine' must be a dataclass, got a type"),
        ("Settings", ExpertSettings(), "Settings of method 'm:Mine' must be a dataclass, got a ExpertSettings"),
        ("family", "many-policy", "family of method 'm:Mine' must be one of .*multi-policy.*, got 'many-policy'"),
        ("family", None, "family of method 'm:Mine' must be text, got None"),
        ("version", "1", "version of method 'm:Mine' must be a whole number, got '1'"),
        ("name", 3, "name of method 'm:Mine' must be text, got 3"),
    ],
)
def test_a_class_whose_parts_are_none_is_refused(part: str, value: object, message: str) -> None:
    check_method(Mine, "m:Mine")
    with pytest.raises(ConfigError, match=message):
        check_method(type("Mine", (Mine,), {part: value}), "m:Mine")


def test_a_class_that_cannot_be_made_is_refused() -> None:
    def fails(self: object, settings: object) -> None:
        os.environ["NO_SUCH_VARIABLE"]

    assert made_method(Mine, 1).settings == 1
    with pytest.raises(MethodError, match=r"Mine\.__init__ must take \(settings\), got \(\)\. Correct its arguments"):
        made_method(type("Mine", (), {}), 1)
    with pytest.raises(MethodError, match=r"Mine\.__init__ must not raise, got KeyError: 'NO_SUCH_VARIABLE'" + LINE):
        made_method(type("Mine", (), {"__init__": fails}), 1)
