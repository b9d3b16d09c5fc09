"""Priors: how a preference alone weighs experts, by rule or by a search that is charged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from paretune.core.answers import Combined, answer_from_plain, answer_to_plain
from paretune.core.errors import BudgetError, ConfigError, ShapeError, UnknownNameError
from paretune.core.ledger import Ledger
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, corner_experts
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.hierarchical_grid import Space
from paretune.methods.priors import Interpolated, Rule, SearchedPrior, make_prior, prior_from
from paretune.methods.searches import TABLE

EYE = np.eye(2)


@dataclass(frozen=True)
class Halved:
    """A prior of a user's own."""

    factor: float = 0.5

    def stages(self, *given: Any) -> tuple[Stage, ...]:
        return ()

    def answer(self, task: Task, rule: Any, results: Any) -> Combined:
        return Combined(self.factor * rule)


def finished(stage: Stage, table: dict[str, Any], folder: Path) -> StageResult:
    (folder / TABLE).write_text(json.dumps(table), encoding="utf-8")
    return StageResult(stage, "key", folder, {TABLE: folder / TABLE}, {}, Ledger(), 0.0)


def test_weights_are_those_found_at_corners_and_centre_and_linear_between() -> None:
    prior = Interpolated(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.8, 0.2]))
    # w = (.75, .25): m = .25, so .5 parts of the first corner and .5 of the centre: (.5 + .4, .1)
    wanted = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.75, 0.25]])
    weights, words = prior.weights(wanted)
    assert_allclose(weights, [[1, 0], [0, 1], [0.8, 0.2], [0.9, 0.1]])
    assert words == ["combined"] * 4
    again = answer_from_plain(json.loads(json.dumps(answer_to_plain(prior))))
    np.testing.assert_array_equal(again.weights(wanted)[0], weights)
    assert (again.objectives, again.experts) == (2, 2)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_a_centre_that_is_the_mean_of_corners_makes_it_the_linear_rule(
    objectives: int, experts: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    corners = random.normal(size=(objectives, experts))
    wanted = random.dirichlet(np.ones(objectives), size=5)
    found = Interpolated(corners, corners.mean(axis=0)).weights(wanted)[0]
    assert_allclose(found, Combined(corners).weights(wanted)[0], atol=1e-12)


def test_a_search_is_planned_for_corners_and_centre_and_charged(task: Task) -> None:
    experts = corner_experts(ExpertSettings(), 2, 400, 0)
    (search,) = SearchedPrior().stages(ExpertSettings(), task, experts, EYE, 600, 7)
    assert (search.kind, search.needs, search.seed) == ("search", experts, 7)
    assert search.settings["utilities"] == [[1, 0], [0, 1], [0.5, 0.5]]
    # the micro-task has 8 development prompts: 32 completions are four each. The first round measures 3 mixtures, each
    # later one at most 3 - 2 = 1 for each of three preferences: 3 + 2 * 3 = 9, and 9 * 32 = 288 of 600
    assert search.completions == 288
    (less,) = SearchedPrior().stages(ExpertSettings(), task, experts, EYE, 200, 7)
    assert less.completions == 192  # two rounds: 6 * 32
    (least,) = SearchedPrior().stages(ExpertSettings(), task, experts, EYE, 50, 7)
    assert least.completions == 48  # one: 50 give each of 3 mixtures 16, two for each prompt
    with pytest.raises(BudgetError, match="a completion to measure each of 3 mixtures with, got 2 for the search"):
        SearchedPrior().stages(ExpertSettings(), task, experts, EYE, 2, 7)


def test_the_rule_itself_is_measured_in_the_first_round(task: Task) -> None:
    rule = np.array([[1.3, -0.3], [-0.3, 1.3]])
    experts = corner_experts(ExpertSettings(), 2, 400, 0)
    (search,) = SearchedPrior(rounds=1).stages(ExpertSettings(), task, experts, rule, 600, 0)
    assert search.settings["first_candidates"] == [[1.3, -0.3], [-0.3, 1.3], [0.5, 0.5]]


def test_the_best_of_what_was_measured_answers_corners_and_centre(task: Task, tmp_path: Path) -> None:
    (search,) = SearchedPrior().stages(ExpertSettings(), task, corner_experts(ExpertSettings(), 2, 400, 0), EYE, 600, 0)
    # judged by J or utility alike, as no candidate has any KL: (.9, .1) is best at (1, 0), (.2, .8) at (0, 1); at the
    # centre means of both objectives are .45, .40 and .55
    table = {
        "candidates": [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], "scores": [[0.8, 0.1], [0.1, 0.7], [0.6, 0.5]],
        "kl": [0, 0, 0], "times": [1, 1, 1],
    }  # fmt: skip
    answer = SearchedPrior().answer(task, EYE, [finished(search, table, tmp_path)])
    assert_allclose(answer.weights(np.array([[1, 0], [0, 1], [0.5, 0.5]]))[0], table["candidates"])


def test_a_prior_is_named_by_word_by_class_or_with_settings() -> None:
    assert make_prior("rule") == Rule()
    assert make_prior({"kind": "search", "rounds": 2, "simplex": False}) == SearchedPrior(2, simplex=False)
    mine = make_prior({"kind": f"{__name__}:Halved", "factor": 0.25})
    assert mine.answer(None, EYE, ()).weights(EYE)[0].tolist() == [[0.25, 0], [0, 0.25]]  # type: ignore[arg-type]
    told = prior_from(mine, ())
    assert told is not None
    assert make_prior(told.prior) == mine
    assert prior_from(Rule(), ()) is None


def test_what_cannot_be_a_prior_is_refused(task: Task) -> None:
    with pytest.raises(UnknownNameError, match="prior must be one of module:Class, rule, search, got 'bandit'"):
        make_prior("bandit")
    with pytest.raises(ConfigError, match=r"prior must name its kind, got {'rounds': 2}"):
        make_prior({"rounds": 2})
    with pytest.raises(ConfigError, match=r"must be a dataclass, whose fields are its settings, got a plain class"):
        make_prior(f"{__name__}:Plain")
    with pytest.raises(ConfigError, match="rounds of a prior must be at least 1, got 0"):
        SearchedPrior(rounds=0)
    with pytest.raises(ConfigError, match="prior must be 'rule' without a lower level, got 'search'"):
        SearchedPrior().stages(ExpertSettings(), task, (), EYE, 600, 0)
    experts = corner_experts(ExpertSettings(), 2, 400, 0)
    with pytest.raises(ConfigError, match="prior must be 'rule' where feedback is utility"):
        SearchedPrior().stages(FeedbackSettings(feedback="utility"), task, experts, EYE, 600, 0)
    with pytest.raises(ShapeError, match=r"centre must have a weight for each expert of corners \[K, E\], got \[3\]"):
        Interpolated(EYE, np.ones(3))
    with pytest.raises(ShapeError, match=r"one column per objective \(2\), got 3"):
        Interpolated(EYE, np.ones(2)).weights(np.ones((1, 3)) / 3)


class Plain:
    """No dataclass."""

    stages = answer = None


def test_a_search_that_is_afforded_is_never_dearer_than_that() -> None:
    for experts in (1, 2, 3):
        space = Space(experts, np.eye(2), simplex=True, first_candidates=np.zeros((0, experts)))
        for completions in (30, 100, 1000):
            rounds, evaluations, each = space.affordable(5, 32, completions, 16)
            assert evaluations == space.most(rounds)
            assert evaluations * each <= completions
