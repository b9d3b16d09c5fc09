from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import CEILING, cell, evaluation, outcomes, study, task_info, truth
from paretune.metrics.judged import above_base, achieved, gain, judged_figure, noun_of, quality
from paretune.records.study import CellRecord, StudyRecords

TWO = ("reflection", "empathy")
POINTS = [[1.0, 0.0], [0.0, 1.0]]
INFO = task_info(preferences=POINTS, unseen=[False, False], objectives=TWO, audit=())
ON_J = replace(INFO, judged_on="J")  # beta .05
LISTED = replace(ON_J, listed=True)


def answering(first: float, second: float, kl: float = 2.0, **changes: object) -> CellRecord:
    """A policy for each preference, worth `first` and `second` to its user."""
    answers = [
        evaluation([rewards], point, TWO, kl=kl)
        for rewards, point in zip([[first, 0.1], [0.1, second]], POINTS, strict=True)
    ]
    return replace(cell(evaluations=answers), **changes)  # type: ignore[arg-type]


def of(*cells: CellRecord, info: object = INFO, base: float | None = 0.3, **known: object) -> StudyRecords:
    references = {} if base is None else {("counselling", 0): evaluation([[base] * 2], None, TWO)}
    return study(cells, [info], references, **known)  # type: ignore[arg-type, list-item]


def test_j_is_utility_less_the_price_of_kl_and_the_task_says_which_counts() -> None:
    made = answering(0.6, 0.8)
    assert achieved(of(made), made).values.tolist() == [0.6, 0.8]
    assert achieved(of(made), made, "J").values == pytest.approx([0.5, 0.7])  # .05 x 2 less
    assert achieved(of(made, info=ON_J), made).values == pytest.approx([0.5, 0.7])
    assert achieved(of(made, info=ON_J), made, "utility").values.tolist() == [0.6, 0.8]


def test_a_kl_that_is_not_known_matters_where_it_costs_something() -> None:
    made = answering(0.6, 0.8, kl=float("nan"))
    assert achieved(of(made), made).values.tolist() == [0.6, 0.8]
    assert achieved(of(made), made, "J").reasons == (
        "has no KL (its policy can only be sampled) for reflection",
        "has no KL (its policy can only be sampled) for empathy",
    )


def test_without_the_beta_of_its_instance_there_is_no_j() -> None:
    made, drawn = answering(0.6, 0.8), replace(ON_J, family_settings={"rho": 0.5})
    assert set(achieved(of(made, info=drawn), made).reasons) == {"has no record of its task instance's beta"}
    assert judged_figure(of(info=drawn), drawn, 0) == "has no record of its task instance's beta"
    assert achieved(of(made, info=drawn), made, "utility").values.tolist() == [0.6, 0.8]


def test_a_gain_is_over_a_base_model_that_pays_nothing() -> None:
    made = answering(0.6, 0.8)
    assert above_base(of(made), made, achieved(of(made), made)).values == pytest.approx([0.3, 0.5])
    assert gain(of(made, info=ON_J), ON_J)(made) == pytest.approx((0.2 + 0.4) / 2)
    assert gain(of(made, base=None), INFO)(made) == "has no evaluation of the base model"
    assert gain(of(made, base=np.nan), INFO)(made) == "has an objective without any reward of the base model"


def exact(value: float) -> dict[str, object]:
    """What a policy of reward `value` for either user has beside the best one's .8 and the base model's .2."""
    rewards = np.array([[[[value, 0.2]]], [[[0.2, value]]]])
    return {"outcomes": outcomes(rewards, np.zeros((2, 1, 1)), POINTS, scales=(1.0,))}


KNOWN = {("counselling", 0): truth([[0.2, 0.2]], [[[0.8, 0.2]], [[0.2, 0.8]]], np.zeros((2, 1)), POINTS)}


def test_where_the_optimum_is_known_seeds_are_compared_by_captured_share_which_is_a_gain_already() -> None:
    made = answering(0.5, 0.5, **exact(0.5))
    records = of(made, info=LISTED, truths=KNOWN)
    assert noun_of(records, LISTED) == "captured share"
    assert quality(records, LISTED)(made) == pytest.approx(0.5)  # .3 of .6
    assert gain(records, LISTED)(made) == pytest.approx(0.5)


def test_where_no_method_has_a_captured_share_they_are_compared_by_j() -> None:
    made, above = answering(0.5, 0.7), answering(0.5, 0.7, method=CEILING, family="ceiling", **exact(0.5))
    records = of(made, above, info=LISTED, truths=KNOWN)  # the ceiling's alone does not count
    assert noun_of(records, LISTED) == "achieved J"
    assert quality(records, LISTED)(made) == pytest.approx((0.4 + 0.6) / 2)
    assert gain(records, LISTED)(made) == pytest.approx((0.1 + 0.3) / 2)
    assert noun_of(records, INFO) == "achieved utility"
