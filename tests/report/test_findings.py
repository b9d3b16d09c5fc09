from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import builders
from paretune.core.protocols import MetricValue
from paretune.metrics import measure_all
from paretune.records.study import StudyRecords
from paretune.report.comparison import comparisons
from paretune.report.costs import spent_seconds
from paretune.report.findings import findings, lead, speed_sentence

NAMES = ("kind", "short")
NOISE = (0.00, 0.01, -0.01)


def study(utilities: Mapping[str, tuple[float, ...]], base: float = 0.3, references: bool = True) -> StudyRecords:
    """Every method reaches the given utility for each preference, one value per seed."""
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
    cells = [
        builders.cell(
            method,
            seed,
            [builders.evaluation([[value, value]], each, NAMES) for each in info.preferences],
            [builders.stage(f"{method}{seed}", 100)],
        )
        for method, values in utilities.items()
        for seed, value in enumerate(values)
    ]
    seeds = range(max(len(values) for values in utilities.values()))
    bases = {("counselling", seed): builders.evaluation([[base, base]], None, NAMES) for seed in seeds}
    return builders.study(cells, [info], bases if references else {})


def answers(records: StudyRecords) -> dict[str, str]:
    (part,) = comparisons(records)
    return {each.question: each.answer for each in findings(part, measure_all(records))}


def around(centre: float, noise: tuple[float, ...] = NOISE) -> tuple[float, ...]:
    return tuple(centre + each for each in noise)


def test_a_method_ahead_in_every_seed_leads_alone() -> None:
    said = answers(study({"linear": around(0.8), "weight_grid": around(0.5, (0.0, 0.012, -0.013))}))
    assert said["Who leads on average?"].startswith("linear has the highest achieved utility")
    assert "Every other method can be told apart from it." in said["Who leads on average?"]
    assert "cannot" not in said["Who leads on average?"]
    assert said["For which preferences?"] == "linear leads alone for 2 of 2 (kind; short)."


def test_methods_within_noise_are_called_inseparable() -> None:
    said = answers(study({"linear": (0.50, 0.56, 0.47), "weight_grid": (0.51, 0.50, 0.51)}))
    assert "linear has the highest" in said["Who leads on average?"]
    assert "cannot be told apart from weight_grid" in said["Who leads on average?"]
    assert "leads alone" not in said["For which preferences?"]
    assert "an observation, not a result" in said["For which preferences?"]


def test_equal_methods_share_the_lead() -> None:
    said = answers(study({"linear": around(0.5), "weight_grid": around(0.5)}))
    assert said["Who leads on average?"].startswith("linear and weight_grid share the highest")
    assert "cannot" not in said["Who leads on average?"]
    assert "The highest mean is that of linear and weight_grid for 2" in said["For which preferences?"]


def test_one_seed_separates_nothing() -> None:
    said = answers(study({"linear": (0.9,), "weight_grid": (0.1,)}))
    assert "fewer than two seeds" in said["Who leads on average?"]
    assert "behind" not in said["Who leads on average?"]
    assert "linear is higher in one seed, without an interval, for 2 of 2" in said["Better than the base model?"]
    assert "weight_grid is higher in one seed, without an interval, for 0 of 2" in said["Better than the base model?"]


def test_a_method_below_the_base_model_is_said_to_be_below() -> None:
    said = answers(study({"linear": around(0.1), "weight_grid": around(0.6)}))
    assert "linear is below it for 2 of 2; weight_grid is above it for 2 of 2" in said["Better than the base model?"]


def test_methods_of_one_verdict_are_named_together() -> None:
    said = answers(study({"linear": around(0.6), "weight_grid": around(0.6)}))
    assert (
        "Counting preferences: linear and weight_grid are above it for 2 of 2." in said["Better than the base model?"]
    )


def test_without_a_base_model_nothing_is_claimed_about_it() -> None:
    said = answers(study({"linear": around(0.5)}, references=False))
    assert said["Better than the base model?"] == "The base model was not evaluated, so this cannot be said."


def test_a_single_method_leads_nobody() -> None:
    said = answers(study({"linear": around(0.5)}))
    assert said["Who leads on average?"].startswith("linear is the only method with results")
    assert said["For which preferences?"] == "Fewer than two methods have results, so nobody leads anybody."


def test_methods_that_lost_seeds_are_named() -> None:
    said = answers(builders.synthetic_study(failed={("linear", 1): "crash"}))
    assert "Of 3 seeds planned, these rest on fewer: linear 2." in said["Who leads on average?"]


def test_a_study_without_a_finished_cell_says_so() -> None:
    pending = [(method, seed) for method in builders.METHODS for seed in range(3)]
    said = answers(builders.synthetic_study(pending=pending, timed=False))
    assert said["Who leads on average?"] == "No method has finished a cell yet, so there is nothing to compare."
    assert said["At what cost?"] == "No finished cell has a ledger yet."
    assert said["How fast does it decode?"] == "Decoding was not timed."


def test_cost_and_speed_are_those_of_the_records() -> None:
    said = answers(builders.synthetic_study())
    assert "linear 5,600 completions" in said["At what cost?"]  # four experts of 6000 / 4 - 100
    assert "linear 0.900 [0.900, 0.900], weight_grid 0.800" in said["How fast does it decode?"]
    assert "64 rows" in said["How fast does it decode?"]


def test_speeds_whose_intervals_overlap_are_not_told_apart_and_many_are_named_by_their_ends() -> None:
    apart = {f"m{n}": MetricValue(0.1 * n, 0.1 * n - 0.02, 0.1 * n + 0.02) for n in range(1, 7)}
    said = speed_sentence({**apart, "lost": MetricValue(None)}, "16 rows")
    assert "16 rows: m6 0.600 [0.580, 0.620] to m1 0.100 [0.080, 0.120]. Not timed: lost." in said
    alike = {name: MetricValue(0.8, 0.7, 0.9) for name in "ab"}
    assert "No difference between methods can be shown" in speed_sentence(alike, "1 row")
    assert "No difference" not in speed_sentence({"a": MetricValue(0.8, 0.7, 0.9)}, "1 row")


def test_seconds_beside_other_work_say_so() -> None:
    value = MetricValue(10.0, 8.0, 12.0, {0: 9.0, 1: 11.0}, "machine was busy: load 8.0 on 2 cores (seeds 0)")
    assert spent_seconds(value) == "10 s [8.0 s, 12 s] (the machine was busy)"
    assert spent_seconds(MetricValue(10.0, 10.0, 10.0)) == "10 s"


def test_a_noisy_method_below_a_separable_one_is_not_said_to_be_behind() -> None:
    found = lead({"a": {0: 0.9, 1: 0.9, 2: 0.9}, "b": {0: 0.8, 1: 0.8, 2: 0.8}, "c": {0: 1.2, 1: 0.1, 2: 0.9}})
    assert found is not None
    assert (found.leader, found.behind, found.tied) == ("a", ("b",), ("c",))


@pytest.mark.parametrize("draw", range(20))
def test_leaders_are_never_called_behind_whatever_the_outcome(draw: int) -> None:
    generator = np.random.default_rng(draw)
    values = {name: dict(enumerate(generator.normal(0.5, 0.1, 3))) for name in "abcd"}
    found = lead(values)
    assert found is not None
    means = {name: np.mean(list(each.values())) for name, each in values.items()}
    assert found.leader == max(means, key=lambda name: means[name])
    assert sorted([found.leader, *found.tied, *found.behind]) == list("abcd")
