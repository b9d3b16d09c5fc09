from __future__ import annotations

import numpy as np
import pytest

from builders import cell, evaluation, task_info
from paretune.metrics.by_preference import Figures, figures, mean_of, worst_of
from paretune.metrics.seeds import Group

TWO = ("reflection", "empathy")
INFO = task_info(preferences=[[1, 0], [0, 1], [0.5, 0.5]], objectives=TWO, audit=())
NAN = float("nan")


def group(seeds: int = 2) -> Group:
    return Group(INFO, "linear", 6000, tuple(cell(seed=seed) for seed in range(seeds)))


def whole(*values: float) -> Figures:
    return Figures(np.array(values), ("",) * len(values))


def test_figures_say_of_each_preference_what_it_lacks() -> None:
    answers = [evaluation([[0.6, 0.1]], [1, 0], TWO, kl=2.0), evaluation([[0.6, 0.1]], [0, 1], TWO, kl=NAN)]
    found = figures(cell(evaluations=answers), INFO, lambda record, _: "KL" if np.isnan(record.kl) else record.kl)
    assert found.values[0] == 2.0
    assert found.reasons == ("", "has no KL for empathy", "has no evaluation for reflection .50, empathy .50")
    assert found.mean(np.array([True, False, False])) == 2.0
    assert found.mean(np.array([True, True, True])) == "has no KL for empathy"


def test_worst_is_taken_in_each_seed_and_then_averaged() -> None:
    found = {0: whole(0.1, 0.5, 0.9), 1: whole(0.4, 0.3, 0.7)}
    lowest, highest = worst_of(group(), found), worst_of(group(), found, highest=True, note="in J")
    assert lowest.per_seed == {0: 0.1, 1: 0.3}  # of the means it would be .25, at reflection
    assert lowest.value == pytest.approx(0.2)
    assert lowest.reason == "at reflection (seed 0) and at empathy (seed 1)"
    assert highest.value == pytest.approx(0.8)
    assert highest.reason == "at reflection .50, empathy .50; in J"


def test_seeds_with_one_worst_preference_are_named_together() -> None:
    found = {0: whole(0.1, 0.5, 0.9), 1: whole(0.4, 0.3, 0.7), 2: whole(0.1, 0.2, 0.3)}
    assert worst_of(group(3), found).reason == "at reflection (seeds 0, 2) and at empathy (seed 1)"


def test_a_preference_for_which_the_figure_has_no_meaning_is_passed_over() -> None:
    assert worst_of(group(1), {0: whole(NAN, 0.5, 0.9)}).value == 0.5
    nothing = worst_of(group(1), {0: whole(NAN, NAN, NAN)})
    assert (nothing.value, nothing.reason) == (
        None,
        "0 of 1 seeds: seed 0 has no preference for which the figure has a meaning",
    )


def test_means_are_over_the_chosen_preferences() -> None:
    found = {0: whole(0.1, 0.5, 0.9), 1: Figures(np.array([0.3, NAN, 0.5]), ("", "has no KL for empathy", ""))}
    assert mean_of(group(), found, np.array([True, False, True])).per_seed == {0: 0.5, 1: 0.4}
    everything = mean_of(group(), found)
    assert everything.per_seed == {0: pytest.approx(0.5)}
    assert everything.reason.startswith("1 of 2 seeds: seed 1 has no KL for empathy")
