from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.core.answers import Combined, answer_from_plain, answer_to_plain
from paretune.core.errors import BudgetError, ConfigError, ModelError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Mixer
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.meta_policy.emorl import EMORL, EMORLSettings
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings
from paretune.methods.meta_policy.searched_soups import SearchedSoups, SearchedSoupsSettings
from paretune.methods.searches import Searched

WANTED = das_dennis(2, 2)
FAITHFUL = EMORL(EMORLSettings(mode="faithful"))
TABLE = {"candidates": [[1, 0], [0.5, 0.5], [0.25, 1]], "scores": [[0.8, 0.1], [0.6, 0.6], [0.1, 0.9]], "kl": [4, 4, 4]}


def planned(method: EMORL, task: Task, budget: int = 4000, wanted: Any = WANTED) -> tuple[tuple[Stage, ...], Stage]:
    *experts, search = method.stages(task, wanted, budget, 0)
    assert [stage.kind for stage in (*experts, search)] == ["expert", "expert", "search"]
    assert search.needs == tuple(experts)
    return tuple(experts), search


def test_experts_are_those_of_rewarded_soups_and_the_search_costs_its_share_at_most(task: Task) -> None:
    experts, search = planned(EMORL(EMORLSettings()), task)
    soups = RewardedSoups(RewardedSoupsSettings()).stages(task, WANTED, 4000 - search.completions, 0)
    assert [stage.key(task) for stage in experts] == [stage.key(task) for stage in soups]
    # three preferences, a first round of three points and four of at most three, 32 completions each
    assert (search.completions, search.settings["evaluations"]) == (15 * 32, 15)
    _, small = planned(EMORL(EMORLSettings()), task, 1000)
    assert (small.settings["rounds"], small.completions) == (2, 6 * 32)  # three rounds would cost 288 of 250
    _, smaller = planned(EMORL(EMORLSettings()), task, 100)
    assert (smaller.settings["rounds"], smaller.settings["completions_each"]) == (1, 8)  # two for each of four prompts


def test_the_published_search_asks_for_the_plain_mean_in_a_cube_whatever_is_wanted(task: Task) -> None:
    _, search = planned(FAITHFUL, task)
    assert search.settings["utilities"] == [[0.5, 0.5]]
    assert (search.settings["simplex"], search.settings["first_candidates"]) == (False, [])
    assert search.settings["evaluations"] == 9 + 4 * 5
    assert (search.settings["level"], search.settings["block"]) == ("hidden", None)
    assert planned(FAITHFUL, task, wanted=np.eye(2))[1].key(task) == search.key(task)
    search = planned(EMORL(EMORLSettings()), task, wanted=np.eye(2))[1]
    assert search.key(task) != planned(EMORL(EMORLSettings()), task)[1].key(task)  # searched for other preferences


def assembled(method: EMORL, task: Task, finish: Any, tmp_path: Path, table: Any = TABLE) -> Any:
    results = finish(method.stages(task, WANTED, 4000, 0))
    (tmp_path / "search.json").write_text(json.dumps(table))
    for key, result in results.items():
        if result.stage.kind == "search":
            results[key] = replace(result, artefacts={"search.json": tmp_path / "search.json"})
    return method.assemble(task, WANTED, results)


def test_every_preference_gets_the_mixture_that_measured_best_for_it(task: Task, finish: Any, tmp_path: Path) -> None:
    assembly = assembled(EMORL(EMORLSettings()), task, finish, tmp_path)
    assert assembly.mixer == Mixer()
    assert len(assembly.experts) == 2
    assert assembly.notes["search"] == TABLE
    answer = answer_from_plain(answer_to_plain(assembly.answer))  # as solution.json keeps it
    assert isinstance(answer, Searched)
    assert (answer.objectives, answer.experts) == (2, 2)
    weights, words = answer.weights(np.asarray([[1, 0], [0.5, 0.5], [0.1, 0.9]]))
    assert weights.tolist() == TABLE["candidates"]
    assert words == ["combined"] * 3


def test_on_a_task_judged_on_j_the_mixture_pays_for_its_kl(task: Task, finish: Any, tmp_path: Path) -> None:
    dear = {**TABLE, "kl": [0.0, 9.0, 0.0]}  # 0.9 at beta 0.1: the compromise is worth less than either end
    judged = replace(task, judged_on="J")
    found = assembled(EMORL(EMORLSettings()), judged, finish, tmp_path, dear).answer
    assert found.weights(np.asarray([[0.6, 0.4]]))[0].tolist() == [[1, 0]]
    free = assembled(EMORL(EMORLSettings()), task, finish, tmp_path, dear).answer
    assert free.weights(np.asarray([[0.6, 0.4]]))[0].tolist() == [[0.5, 0.5]]
    keys = [planned(EMORL(EMORLSettings()), each)[1].key(each) for each in (task, judged)]
    assert keys[0] != keys[1]  # another search


def test_the_published_search_gives_every_preference_the_same_mixture(task: Task, finish: Any, tmp_path: Path) -> None:
    assembly = assembled(FAITHFUL, task, finish, tmp_path)
    assert assembly.mixer == Mixer("hidden")
    assert isinstance(assembly.answer, Combined)
    assert assembly.answer.weights(das_dennis(2, 4))[0].tolist() == [[0.5, 0.5]] * 5
    soup = EMORL(EMORLSettings(mode="faithful", level="adapters"))
    assert assembled(soup, task, finish, tmp_path).mixer == Mixer()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "exact"}, "mode must be one of"),
        ({"level": "logits"}, "level must be one of"),
        ({"block": 1}, "block must be named at level 'hidden' alone, got 1 at 'adapters'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"measured_each": 0}, "measured_each must be at least 1, got 0"),
        ({"search_share": 1.0}, "search_share must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EMORLSettings(**settings)


def test_what_cannot_be_searched_is_refused_when_planned(task: Task) -> None:
    with pytest.raises(BudgetError, match="a completion to measure each of 9 mixtures with, got 8 for the search"):
        FAITHFUL.stages(task, WANTED, 35, 0)
    with pytest.raises(ModelError, match="block must be one of the model's 2 blocks"):
        EMORL(EMORLSettings(mode="faithful", block=2)).stages(task, WANTED, 4000, 0)
    thirteen = EMORLSettings(experts={"kind": "mgda", "divisions": 12})
    with pytest.raises(ConfigError, match=r"experts of a grid search must be at most 11, got 13"):
        EMORL(thirteen).stages(task, WANTED, 6000, 0)


def test_probabilities_are_not_mixed_by_weights_that_are_no_distribution() -> None:
    with pytest.raises(ConfigError, match=r"level must not be 'probabilities' in mode 'faithful', which searches wei"):
        EMORLSettings(mode="faithful", level="probabilities")
    assert EMORLSettings(level="probabilities").mixed_at == "probabilities"


@pytest.mark.parametrize(
    ("experts", "got"),
    [
        ("mixed_reward", r"got \[1\.75, -0\.75\] \(sum 1\)"),  # [[.7, .3], [.3, .7]]^-1 = [[.7, -.3], [-.3, .7]] / .4
        ({"kind": "mixed_reward", "beta": 1.0, "extrapolation": 0.5}, r"got \[1\.5, 0\.0\] \(sum 1\.5\)"),
        ("mgda", r"got \[.*-.*\] \(sum 1\)"),
    ],
)
def test_probabilities_of_experts_whose_prior_is_no_distribution_are_refused_before_they_are_trained(
    task: Task, experts: Any, got: str
) -> None:
    def planned_at(level: Any, kind: Any) -> list[Any]:
        searched = [SearchedSoupsSettings(search=each, level=level, experts=kind) for each in ("grid", "random")]
        return [EMORL(EMORLSettings(level=level, experts=kind)), *map(SearchedSoups, searched)]

    for method in planned_at("probabilities", experts):
        with pytest.raises(
            ConfigError, match=f"whose probabilities are mixed must have weights of 0 or more .*, {got}"
        ):
            method.stages(task, WANTED, 4000, 0)
    for method in planned_at("log_probs", experts) + planned_at("probabilities", {"kind": "cone", "eps": 0.5}):
        assert method.stages(task, WANTED, 4000, 0)
    near = np.asarray([[0.6, 0.4]])  # 1.75 * .6 - .75 * .4 = .75: what is asked for lies between the experts
    assert EMORL(EMORLSettings(level="probabilities", experts="mixed_reward")).stages(task, near, 4000, 0)
