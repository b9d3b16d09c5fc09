from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import builders
from paretune.benchmark import candidates as module
from paretune.benchmark.candidates import candidates
from paretune.core.errors import ConfigError, StudyError, UnknownNameError
from paretune.core.preferences import centre, corners
from paretune.records.study import StudyRecords

TWO = ("reflection", "brevity")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Any:
    def read(study: StudyRecords) -> None:
        monkeypatch.setattr(module, "read_study", lambda folder: study)

    return read


def answers(*scores: tuple[float, float], weights: Any = None, kl: float = 0.0) -> list[Any]:
    """Return evaluations for the corners and the centre of two objectives, one completion a score."""
    points = [*corners(2), centre(2)]
    return [
        builders.evaluation([row], point, TWO, expert_weights=point if weights is None else weights, kl=kl)
        for point, row in zip(points, scores, strict=True)
    ]


def info(**options: Any) -> Any:
    return builders.task_info(
        preferences=[*corners(2), centre(2)], objectives=TWO, audit=(), test_prompts=1, samples=1, **options
    )


def test_policies_of_the_method_that_is_worth_most_are_offered(reads: Any) -> None:
    low, high = answers((0.5, 0.1), (0.1, 0.5), (0.3, 0.3)), answers((0.9, 0.1), (0.1, 0.9), (0.6, 0.6))
    alone = answers((0.95, 0.95), (0.95, 0.95), (0.95, 0.95), weights=[1.0])  # one policy: nothing to compare
    cells = [
        builders.cell("linear", 1, low), builders.cell("weight_grid", 1, high), builders.cell("weight_grid", 0, high),
        builders.cell("one_policy", 0, alone), builders.cell("weight_grid", 0, low, budget=600),
        builders.cell(builders.CEILING, 0, answers((1.0, 0.9), (0.9, 1.0), (1.0, 1.0))),
    ]  # fmt: skip
    reads(builders.study(cells, [info()]))
    offered = candidates("out")
    assert (offered.cell.method, offered.cell.seed, offered.cell.budget_completions) == ("weight_grid", 0, 6000)
    assert offered.worth.tolist() == [[0.9, 0.1], [0.1, 0.9], [0.6, 0.6]]
    assert offered.folder == Path("out/runs/counselling-weight_grid-6000-0")
    assert candidates("out", method="linear").cell.seed == 1
    assert candidates("out", method=builders.CEILING).worth.max() == 1.0
    with pytest.raises(
        StudyError, match=r"method 'one_policy' must have two policies, to compare them, got 1\. Name another with "
    ):
        candidates("out", method="one_policy")
    with pytest.raises(UnknownNameError, match=r"method must be one of .*, got 'wight_grid'. Did you mean"):
        candidates("out", method="wight_grid")


def test_equal_policies_are_offered_once_and_those_without_scores_not(reads: Any) -> None:
    found = answers((0.9, 0.1), (0.1, 0.9), (0.6, np.nan))
    found.append(replace(found[0], preference=np.array([0.8, 0.2])))  # the same policy answers another preference
    reads(builders.study([builders.cell("linear", 0, found)], [info()]))
    offered = candidates("out")
    assert [each.preference.tolist() for each in offered.evaluations] == [[1.0, 0.0], [0.0, 1.0]]
    assert offered.answering(np.array([0.8, 0.2])) == 0
    assert offered.answering(np.array([0.5, 0.5])) is None  # measured, but not offered
    assert offered.answering(np.array([0.3, 0.7])) is None


def test_worth_is_less_the_price_of_kl_where_the_task_is_judged_on_it(reads: Any) -> None:
    found = answers((0.9, 0.1), (0.1, 0.9), (0.6, 0.6), kl=2.0)
    reads(builders.study([builders.cell("linear", 0, found)], [info(judged_on="J")]))
    offered = candidates("out")  # beta .05 times 2 nats
    assert offered.worth == pytest.approx(np.array([[0.8, 0.0], [0.0, 0.8], [0.5, 0.5]]))


def test_what_keeps_policies_from_being_compared_is_said(reads: Any) -> None:
    def refused(found: list[Any], task: Any) -> str:
        reads(builders.study([builders.cell("linear", 0, found)], [task]))
        with pytest.raises(StudyError) as caught:
            candidates("out")
        return str(caught.value)

    scored = answers((0.9, 0.1), (0.1, 0.9), (0.6, 0.6))
    lost = answers((0.9, 0.1), (np.nan, 0.9), (0.6, np.nan))
    rest = "of 'counselling' must have two policies, to compare them, got "
    assert f"{rest}1; left out: 2 without a score of every objective. Run" in refused(lost, info())
    no_kl = answers((0.9, 0.1), (0.1, 0.9), (0.6, 0.6), kl=np.nan)
    assert f"{rest}0; left out: 3 without a known KL, which" in refused(no_kl, info(judged_on="J"))
    family = info(judged_on="J", family_settings={"rho": 0.0})  # beta is that of the instance, which is not on record
    assert f"{rest}0; left out: 3 without a record of what KL costs" in refused(scored, family)
    assert f"{rest}0. Run a method with several." in refused([], info())


def test_units_are_widths_of_ranges_or_how_far_policies_are_apart(reads: Any) -> None:
    task = info()
    first, second = task.objectives
    task = replace(task, objectives=(replace(first, range=(-1.0, 3.0)), replace(second, range=(0.0, np.inf))))
    reads(builders.study([builders.cell("linear", 0, answers((0.9, 0.1), (0.1, 0.8), (0.6, 0.6)))], [task]))
    assert candidates("out").units == pytest.approx([4.0, 0.7])


def test_prompts_that_are_answered_differently_are_shown_and_each_turn_others(reads: Any) -> None:
    def said(point: Any, texts: tuple[str, ...]) -> Any:
        made = builders.evaluation(np.full((4, 2), point), point, TWO, expert_weights=point)
        return replace(made, completions=texts)

    found = [said(np.array([1.0, 0.0]), ("a", "b", "c", "d")), said(np.array([0.0, 1.0]), ("a", "B", "C", "D"))]
    reads(builders.study([builders.cell("linear", 0, found)], [info()]))
    offered = candidates("out")
    prompts = builders.PROMPTS
    assert offered.samples(0, 1, 0, 2) == [(prompts[1], "b", "B"), (prompts[2], "c", "C")]
    assert offered.samples(1, 0, 1, 2) == [(prompts[3], "D", "d"), (prompts[1], "B", "b")]
    assert len(offered.samples(0, 1, 0, 9)) == 3
    assert offered.samples(0, 0, 0, 1) == [(prompts[0], "a", "a")]  # alike everywhere


def test_what_cannot_be_compared_is_refused_with_the_reason(reads: Any) -> None:
    cell = builders.cell("linear", 0, answers((0.9, 0.1), (0.1, 0.9), (0.6, 0.6)))
    reads(builders.study([cell], [info(), replace(info(), name="other")]))
    with pytest.raises(ConfigError, match=r"task must be one of counselling, other, got none. Name one with --task."):
        candidates("out")
    with pytest.raises(UnknownNameError, match="task must be one of counselling, other, got 'others'"):
        candidates("out", "others")
    with pytest.raises(StudyError, match="must have a finished cell of 'other', got none"):
        candidates("out", "other")
    assert len(candidates("out", "counselling").evaluations) == 3
    reads(builders.study([cell], [replace(info(), contextual=True)]))
    with pytest.raises(StudyError, match="must want the same of every prompt"):
        candidates("out")
