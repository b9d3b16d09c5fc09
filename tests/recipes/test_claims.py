"""The paper's claims, decided from records: figures known on paper, and what each verdict takes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import builders
from paretune.core.errors import RecordError
from paretune.records.study import CellRecord, StudyRecords
from paretune.statistics.intervals import Interval

POINTS = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
NAMES = ("kind", "short")
FAMILY = {"linear": "single-policy", "weight_grid": "multi-policy", "rewarded_soups": "meta-policy"}


@pytest.fixture
def claims(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "recipes" / "relations"))
    import claims  # type: ignore[import-not-found]

    return claims  # type: ignore[no-any-return]


def cell(method: str, seed: int, scores: Sequence[Sequence[float]], task: str) -> CellRecord:
    answers = [
        builders.evaluation([row], point, NAMES, audit=()) for row, point in zip(scores, POINTS, strict=True)
    ]  # fmt: skip
    return replace(builders.cell(method, seed, answers, task=task), family=FAMILY[method])


def study(more: float = 0.0) -> StudyRecords:
    """Base .2 in both. Corners (.8, .2) and (.2, .8); in the middle .5 + .1 s and .5 + .1 s + more, by seed s."""
    tasks, cells, base, relations = [], [], {}, {}
    for task, correlation in (("apart", -0.6), ("alike", 0.6)):
        tasks.append(
            builders.task_info(
                name=task,
                preferences=POINTS,
                objectives=NAMES,
                audit=(),
                test_prompts=1,
                samples=1,
                judged_on="utility",
            )
        )
        for seed in range(3):
            base[task, seed] = builders.evaluation([[0.2, 0.2]], None, NAMES, audit=())
            middle = 0.5 + 0.1 * seed
            for method, lost in (("linear", 0.0), ("weight_grid", 0.0), ("rewarded_soups", 0.3 * (task == "apart"))):
                made = [[0.8 - lost, 0.2], [middle - lost, middle + more - lost], [0.2, 0.8 - lost]]
                cells.append(cell(method, seed, made, task))
        relations[task, 0] = {"rewards": {"values": [[1.0, correlation], [correlation, 1.0]]}}
    return replace(builders.study(cells, tasks, base), relations=relations)


def test_gains_are_shares_of_the_best_methods_mean(claims: ModuleType) -> None:
    # gains of linear: corners .6, middle .3 + .1 s: means (1.5 + .1 s) / 3, over seeds .5333
    found = claims.relative_gains(study())
    assert list(found["apart", "linear"].values()) == pytest.approx([0.9375, 1.0, 1.0625])
    assert np.mean(list(found["apart", "rewarded_soups"].values())) == pytest.approx(0.4375)  # .3 of .5333 lost


def test_scores_of_equal_weights_are_held_against_the_mean_over_corners(claims: ModuleType) -> None:
    (kind, short) = claims.bends(study(more=0.06), "apart")
    # the mean over corners is .5, and they lie .6 apart
    assert list(kind[1].values()) == pytest.approx([0.0, 1 / 6, 1 / 3])
    assert list(short[1].values()) == pytest.approx([0.1, 0.1 + 1 / 6, 0.1 + 1 / 3])
    assert kind[0] == "linear: kind with equal weights less the mean over corners"


def test_claims_are_written_and_judged(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claims, "read_study", lambda folder: study())
    assert claims.main(["results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "averaging: supported (2 comparisons)" in said
    assert "meta: supported (2 comparisons)" in said  # below on one task, as good on the other
    with (tmp_path / "claims.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    soups = next(each for each in lines if each["claim"] == "averaging" and each["task"] == "apart")
    assert (soups["correlation"], soups["mean"], soups["p_value"]) == ("-0.6000", "-0.5625", "0.0000")


def test_a_study_of_two_budgets_is_refused(claims: ModuleType) -> None:
    whole = study()
    more = replace(whole.cells[0], budget_completions=9)
    with pytest.raises(RecordError, match="study must have one budget, got 9, 6000"):
        claims.compare(replace(whole, cells=(*whole.cells, more)))


FAR = {"below": (-0.3, 0.001), "above": (0.3, 0.001), "level": (0.0, 1.0)}  # intervals of .02 around, but "unclear"


@pytest.mark.parametrize(
    ("claim", "found", "verdict"),
    [
        ("averaging", {0.5: "level", -0.5: "below"}, "supported"),
        ("averaging", {0.5: "level", -0.5: "level"}, "refuted"),  # as good where objectives compete
        ("averaging", {0.5: "below", -0.5: "below"}, "refuted"),
        ("averaging", {0.5: "level", -0.5: "unclear"}, "open"),
        ("averaging", {0.5: "level"}, "open"),
        ("level", {0.5: "above", -0.5: "level"}, "supported"),
        ("level", {0.5: "below", -0.5: "level"}, "refuted"),
        ("level", {0.5: "below", -0.5: "above"}, "open"),
        ("linear", {0.5: "above"}, "supported"),
        ("linear", {0.5: "level"}, "refuted"),
        ("linear", {0.5: "level", -0.5: "unclear"}, "open"),
        ("dynamic", {0.5: "above", -0.5: "level"}, "supported"),  # no gain on one task
        ("dynamic", {0.5: "above", -0.5: "above"}, "refuted"),
        ("dynamic", {0.5: "above", -0.5: "unclear"}, "open"),
        ("meta", {0.5: "below", -0.5: "level"}, "supported"),
        ("meta", {0.5: "above", -0.5: "level"}, "refuted"),
        ("meta", {0.5: "above", -0.5: "below"}, "open"),
    ],
)
def test_each_verdict_takes_what_the_rules_say(
    claims: ModuleType, claim: str, found: dict[float, str], verdict: str
) -> None:
    def comparison(correlation: float, kind: str) -> Any:
        mean, p_value = FAR.get(kind, (0.0, 0.5))
        reach = 0.3 if kind == "unclear" else 0.02
        interval = Interval(mean, mean - reach, mean + reach, 5)
        return claims.Comparison(claim, str(correlation), "a less b", correlation, interval, p_value)

    assert claims.RULES[claim]([comparison(*each) for each in found.items()]) == verdict
