from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.core.errors import ConfigError, MethodError, NonFiniteError, ShapeError, WeightingError
from paretune.rl.gradient_step import GradientStep
from paretune.rl.weighting import Fixed, Seen, check_restores, check_weights, resolve_weighting, step_rule_of

PREFERENCE = np.asarray([0.25, 0.75])
RANGES = np.asarray([[0.0, 1.0], [-1.0, 1.0]])


def seen(update: int) -> Seen:
    returns = np.asarray([0.1, np.nan])
    return Seen(update, PREFERENCE, returns, 0.2, None, None, np.random.default_rng(update))


def test_fixed_weights_are_the_preference_at_every_update_and_need_nothing() -> None:
    fixed = Fixed(PREFERENCE, {}, RANGES)
    assert [fixed.weigh(seen(update)).tolist() for update in (0, 1, 700)] == [[0.25, 0.75]] * 3
    assert {fixed.measured(update) for update in range(100)} == {0}
    assert not fixed.needs
    assert fixed.state() == {}
    fixed.load({})


def test_no_name_is_the_fixed_weighting_and_a_class_is_found_by_its_module() -> None:
    assert resolve_weighting("") is Fixed
    assert resolve_weighting("paretune.rl.weighting:Fixed") is Fixed


def test_a_users_own_class_is_found_on_the_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_weights.py").write_text(
        "class Own:\n    needs = frozenset({'gram'})\n    def measured(self, update): return 0\n"
        "    def weigh(self, seen): return seen.preference\n    def state(self): return {}\n"
        "    def load(self, state): pass\n"
        "class Half:\n    needs = frozenset()\n    def weigh(self, seen): return seen.preference\n"
        "instance = Own()\nclass Letters(Own):\n    needs = 'gram'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert resolve_weighting("own_weights:Own").needs == {"gram"}
        with pytest.raises(ConfigError, match=r"'own_weights:Half' must be .* got one without measured, state, load"):
            resolve_weighting("own_weights:Half")
        with pytest.raises(
            ConfigError,
            match=r"^needs of weighting 'own_weights:Letters' must be a set of texts, got 'gram'\. Write fro",
        ):
            resolve_weighting("own_weights:Letters")
        with pytest.raises(ConfigError, match=r"'own_weights:instance' must be a class with .*, got a Own"):
            resolve_weighting("own_weights:instance")
    finally:
        sys.modules.pop("own_weights", None)


@pytest.mark.parametrize("name", ["no_such_module:Weights", "paretune.rl.weighting:NoSuchClass", ":Fixed", "json"])
def test_a_class_that_cannot_be_imported_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"weighting must be an importable 'module:name', got '{name}'"):
        resolve_weighting(name)


@pytest.mark.parametrize("weights", [[0.5, 0.5], [1, 0], [3.0, 2.0], (0.0, 1e-9)])
def test_weights_that_an_update_can_be_made_with_are_returned_as_they_are(weights: Any) -> None:
    checked = check_weights(weights, 2)
    assert checked.tolist() == list(weights)
    assert checked.dtype == np.float64


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([0.5, np.nan], NonFiniteError, r"must be finite, got \[0\.5, nan\]"),
        ([0.5, np.inf], NonFiniteError, r"must be finite, got \[0\.5, inf\]"),
        ([1.5, -0.5], WeightingError, r"must not be negative, nor all 0, got \[1\.5, -0\.5\]"),
        ([0.0, 0.0], WeightingError, r"must not be negative, nor all 0, got \[0\.0, 0\.0\]"),
        ([1.0], ShapeError, r"must be one per objective \(2\), got shape \[1\]"),
        ([[0.5, 0.5]], ShapeError, r"must be one per objective \(2\), got shape \[1, 2\]"),
        (1.0, ShapeError, r"must be one per objective \(2\), got shape \[\]"),
    ],
)
def test_weights_that_no_update_can_be_made_with_are_refused_by_the_name_of_their_class(
    weights: Any, error: type[Exception], message: str
) -> None:
    for weighting in (Fixed, Fixed(PREFERENCE, {}, RANGES)):
        with pytest.raises(error, match=f"objective_weights of Fixed {message}"):
            check_weights(weights, 2, weighting)
    with pytest.raises(error, match=f"objective_weights of ideas:Mine {message}"):
        check_weights(weights, 2, "ideas:Mine")


class Following(Fixed):
    """Weighs by the returns so far: complete, and what the next ones break."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.returns = np.zeros(2)

    def weigh(self, seen: Seen) -> Any:
        self.returns = 0.5 * self.returns + 0.5 * seen.returns
        return np.exp(self.returns)

    def state(self) -> dict[str, object]:
        return {"returns": self.returns.tolist()}

    def load(self, state: Any) -> None:
        self.returns = np.asarray(state["returns"])


class LoadsNothing(Following):
    def load(self, state: Any) -> None:
        pass


class LoadsHalf(Following):
    def load(self, state: Any) -> None:
        self.returns = np.asarray([state["returns"][0], 0.0])


class KeepsNothing(LoadsNothing):
    def state(self) -> dict[str, object]:
        return {}


class Rounds(Following):
    def state(self) -> dict[str, object]:
        return {"returns": self.returns.round(3).tolist()}


class KeepsAnArray(Following):
    def state(self) -> dict[str, object]:
        return {"returns": self.returns}


class KeepsNoMapping(Following):
    def state(self) -> Any:
        return self.returns.tolist()


class KeepsNaN(Following):
    def state(self) -> dict[str, object]:
        return {"returns": [float("nan")]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            LoadsNothing,
            r"load of weighting LoadsNothing must restore .*, got \[0\.0, 0\.0\] in place of .*'returns'",
        ),
        (LoadsHalf, r"load of weighting LoadsHalf must restore what state returned, got \[.*, 0\.0\] in place of \["),
        (KeepsNothing, r"state of weighting KeepsNothing must hold all that weigh depends on, got weights \["),
        (Rounds, r"state of weighting Rounds must hold all that weigh depends on, got weights \["),
        (KeepsAnArray, r"state of weighting KeepsAnArray must be a mapping of plain data, got: .*ndarray"),
        (KeepsNoMapping, r"state of weighting KeepsNoMapping must be a mapping of plain data, got: \[.*is no mapping"),
        (KeepsNaN, r"state of weighting KeepsNaN must be a mapping of plain data, got: .*\. Keep finite numbers"),
    ],
)
def test_a_state_that_does_not_restore_a_weighting_is_refused(kind: type[Fixed], message: str) -> None:
    with pytest.raises(WeightingError, match=message):
        check_restores(kind, {}, RANGES)


def test_a_weighting_that_goes_on_from_its_state_is_let_through_with_all_that_it_may_see() -> None:
    class Everything(Following):
        needs = frozenset({"gram"})

        def measured(self, update: int) -> int:
            return 3 if update % 2 else 0

        def weigh(self, seen: Seen) -> Any:
            asked.append(seen)
            assert seen.gram is not None
            return super().weigh(seen) + np.diag(seen.gram) + seen.generator.random(2)

    asked: list[Seen] = []
    for kind in (Fixed, Following, Everything):
        check_restores(kind, {}, RANGES)
    assert {None if each.development is None else each.development.shape for each in asked} == {None, (3, 2)}
    rows = np.concatenate([each.returns[None] for each in asked])
    assert (rows >= RANGES[:, 0]).all()
    assert (rows <= RANGES[:, 1]).all()


def test_a_weighting_that_raises_is_told_with_its_line() -> None:
    class Raises(Following):
        def weigh(self, seen: Seen) -> Any:
            return {}["weights"]

    class NoArguments(Following):
        def __init__(self) -> None:
            pass

    with pytest.raises(
        MethodError, match=r"weighting .*Raises must not raise, got KeyError: 'weights' \(test_weighting"
    ):
        check_restores(Raises, {}, RANGES)
    with pytest.raises(
        MethodError, match=r"weighting .*NoArguments must take \(preference, settings, ranges\), got \(\)"
    ):
        check_restores(NoArguments, {}, RANGES)


def test_a_rule_of_steps_is_the_default_where_a_weighting_has_none() -> None:
    class Ruled(Fixed):
        needs = frozenset({"gram"})
        step_rule = GradientStep("plain", "sgd")

    made = (kind(np.asarray([0.5, 0.5]), {}, RANGES) for kind in (Fixed, Ruled))
    assert [step_rule_of(each) for each in made] == [GradientStep(), GradientStep("plain", "sgd")]


@pytest.mark.parametrize(
    ("rule", "needs", "message"),
    [
        ("plain", {"gram"}, r"step_rule of .*Ruled must be a GradientStep, got 'plain'\. Take GradientStep\(metric"),
        ({"metric": "plain"}, {"gram"}, r"step_rule of .*Ruled must be a GradientStep, got \{'metric': 'plain'\}"),
        (GradientStep, {"gram"}, "step_rule of .*Ruled must be a GradientStep, got "),
        (GradientStep(), set(), "step_rule of .*Ruled must be left out where needs does not name gram, got Gradient"),
    ],
)
def test_a_rule_of_steps_that_says_nothing_is_refused_before_training(
    rule: object, needs: set[str], message: str
) -> None:
    named, said = frozenset(needs), rule

    class Ruled(Fixed):
        needs = named
        step_rule = said

    with pytest.raises(ConfigError, match=message):
        check_restores(Ruled, {}, RANGES)
    with pytest.raises(ConfigError, match=message):
        step_rule_of(Ruled(np.asarray([0.5, 0.5]), {}, RANGES))


def test_a_rule_of_steps_by_another_name_is_no_silent_default() -> None:
    class Misspelt(Fixed):
        needs = frozenset({"gram"})

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.step_rules = GradientStep("plain")

    with pytest.raises(
        ConfigError, match=r"a GradientStep of .*Misspelt must be its attribute step_rule, got it as 's"
    ):
        check_restores(Misspelt, {}, RANGES)
