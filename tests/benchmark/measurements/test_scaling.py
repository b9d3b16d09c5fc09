"""What one objective and one preference more take, on the micro-task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.plan import plan
from paretune.benchmark.runner import StudyResult
from paretune.metrics import measure_all

Make = Callable[..., dict[str, Any]]


def part(asked: StudyResult, method: str, change: str) -> Mapping[str, Any]:
    cell = next(each for each in asked.records.cells if each.method == method)
    found: Mapping[str, Any] = cell.measured["scaling"][change]
    return found


@pytest.mark.parametrize("method", ["rewarded_soups", "mod"])
def test_one_expert_more_leaves_the_users_of_the_old_objectives_as_they_were(asked: StudyResult, method: str) -> None:
    made = part(asked, method, "objective")
    assert (made["name"], made["how"]) == ("short", "modular")
    assert (made["experts"], made["kept"], made["trained"]) == (2, 2, 1)
    assert made["completions"] == 256  # a half of the budget, as each of two experts had
    for user in made["old"]:
        assert user["after"]["utility"] == pytest.approx(user["before"]["utility"], abs=1e-6)
    assert [user["before"]["preference"] for user in made["old"]] == [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]
    assert made["new"]["after"]["utility"] > made["new"]["base"]["utility"] + 0.02


@pytest.mark.parametrize("method", ["linear", "one_policy"])
def test_other_methods_train_all_again(asked: StudyResult, method: str) -> None:
    made = part(asked, method, "objective")
    assert made["how"] == "retrain"
    assert made["kept"] == 0
    assert 256 < made["completions"] <= 512
    assert made["parameters"] == made["trained"] * parameters(asked)


def parameters(asked: StudyResult) -> int:
    """Of one expert: that of soups, which trains one more."""
    return int(part(asked, "rewarded_soups", "objective")["parameters"])


def test_a_single_policy_method_trains_one_policy_more_for_a_preference(asked: StudyResult) -> None:
    made = part(asked, "linear", "preference")
    assert (made["trained"], made["completions"]) == (1, 172)  # 512 for three policies in groups of 4: 172, 172, 168
    assert made["parameters"] == parameters(asked)
    assert made["after"]["J"] != made["before"]["J"]


@pytest.mark.parametrize("method", ["one_policy", "rewarded_soups", "mod"])
def test_whatever_does_not_train_for_a_preference_answers_it_as_it_is(asked: StudyResult, method: str) -> None:
    made = part(asked, method, "preference")
    assert (made["trained"], made["completions"], made["parameters"]) == (0, 0, 0)
    assert made["after"] == made["before"]


def test_figures_and_grades_stand_in_the_rows(asked: StudyResult) -> None:
    rows = {(row.method, row.label): row.value for row in measure_all(asked.records, ["scalability"])}
    assert rows["rewarded_soups", "new objective: grade"].value == 4
    assert rows["linear", "new objective: experts kept"].value == 0
    assert rows["linear", "new preference: share of the budget"].value == 172 / 512
    for method in ("linear", "rewarded_soups"):
        assert rows[method, "new preference: grade"].value is not None
        assert rows[method, "new preference: loss without training, J"].value is not None


def test_the_first_seeds_are_measured(study: Make, tmp_path: Path) -> None:
    made = plan(study(seeds=5, measurements=["scaling"]), tmp_path / "out")
    assert {each.table.seed for each in made.tables if each.table.measurement == "scaling"} == {0, 1, 2}
