from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from paretune.core.errors import BudgetError, ConfigError, ModelError
from paretune.core.preferences import das_dennis
from paretune.core.protocols import Mixer
from paretune.core.seeds import generator
from paretune.core.task import Task
from paretune.methods.meta_policy.emorl import EMORL, EMORLSettings
from paretune.methods.meta_policy.searched_soups import SearchedSoups, SearchedSoupsSettings
from paretune.methods.meta_policy.upper_level import searching
from paretune.methods.meta_policy.upper_level.proposals import GROWTH
from paretune.methods.meta_policy.upper_level.searching import priced

WANTED = das_dennis(2, 2)


def stages(task: Task, budget: int = 4000, **settings: Any) -> Any:
    return SearchedSoups(SearchedSoupsSettings(**settings)).stages(task, WANTED, budget, 0)


def test_the_grid_is_the_search_of_emorl_stage_by_stage(task: Task) -> None:
    emorl = EMORL(EMORLSettings()).stages(task, WANTED, 4000, 0)
    assert [each.key(task) for each in stages(task)] == [each.key(task) for each in emorl]
    assert stages(task, beyond=0.5)[-1].key(task) != emorl[-1].key(task)


def test_a_search_costs_its_share_at_most_in_rounds_then_in_completions(task: Task) -> None:
    # three preferences; random: 3 + 5 * 4 measurements; mirror descent: 3 + 5 * 3 * (1 + 2); small changes: 3 + 5 * 12
    for search, evaluations, rounds in (("random", 23, 3), ("mirror_descent", 48, 1), ("gradient_free", 63, 1)):
        *experts, last = stages(task, 16_000, search=search)
        assert (last.kind, last.completions, last.settings["evaluations"]) == ("search", 32 * evaluations, evaluations)
        assert sum(each.completions for each in experts) == 16_000 - 32 * evaluations
        small = stages(task, 2_000, search=search)[-1]
        assert (small.settings["rounds"], small.settings["completions_each"]) == (rounds, 32)
        assert small.completions == 32 * (3 + rounds * (evaluations - 3) // 5) <= 500
    tiny = stages(task, 64, search="random")[-1]  # 16 for 7 measurements: 2 each
    assert (tiny.settings["rounds"], tiny.settings["completions_each"], tiny.completions) == (1, 2, 14)
    with pytest.raises(BudgetError, match="to measure each of 7 mixtures with, got 6 for the search"):
        stages(task, 24, search="random")


def test_a_search_has_the_settings_that_it_reads_and_no_others(task: Task) -> None:
    def key(**settings: Any) -> str:
        found: str = stages(task, **settings)[-1].key(task)
        return found

    assert set(stages(task, search="random")[-1].settings["read"]) == {"candidates"}
    assert key(search="random", candidates=5) != key(search="random")
    assert key(search="gradient_free", l1=0.0) != key(search="gradient_free")
    assert key(search="mirror_descent", rate=2.0) != key(search="mirror_descent")
    assert key(search="random", level="log_probs") != key(search="random")


def test_any_kind_of_experts_is_searched_from_its_own_prior(task: Task) -> None:
    *experts, last = stages(task, search="random", experts={"kind": "mgda", "divisions": 2})
    assert len(experts) == len(last.settings["first_candidates"][0]) == 3
    np.testing.assert_allclose(np.sum(last.settings["first_candidates"], axis=1), 1)


def test_the_price_of_weights_steers_the_answer_as_it_did_the_search(task: Task, finish: Any, tmp_path: Path) -> None:
    """Two candidates of utility .6 and .62: the second has .5 more of weights, .025 at the published price."""
    table = {"candidates": [[0.5, 0.5], [1.0, 0.5]], "scores": [[0.6, 0.6], [0.62, 0.62]], "kl": [0, 0]}
    (tmp_path / "search.json").write_text(json.dumps(table))
    chosen = {}
    for l1 in (0.05, 0.03):
        method = SearchedSoups(SearchedSoupsSettings(search="gradient_free", l1=l1, level="log_probs"))
        results = finish(method.stages(task, WANTED, 4000, 0))
        for key, result in results.items():
            if result.stage.kind == "search":
                results[key] = replace(result, artefacts={"search.json": tmp_path / "search.json"})
        assembly = method.assemble(task, WANTED, results)
        assert assembly.mixer == Mixer("log_probs")
        assert len(assembly.experts) == 2
        chosen[l1] = assembly.answer.weights(np.asarray([[0.3, 0.7]]))[0][0].tolist()
    assert chosen == {0.05: [0.5, 0.5], 0.03: [1.0, 0.5]}
    np.testing.assert_allclose(priced(np.asarray([[1.0, -0.5]]), np.asarray([[0.6, 0.2]]), 0.1), [[0.45, 0.05]])


def test_the_price_of_weights_steers_the_search(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all measure alike, a search at a price goes on from its cheapest candidate, and one without from its first.

    Children are their parent and normal changes of the step, within [0, 1]. A round in which the best known value rose,
    as it does at a price where a child's sum is below the parent's 1, makes steps half as long again; others shorter.
    """
    asked: dict[float, list[Any]] = {0.0: [], 0.5: []}
    for l1, calls in asked.items():
        method = SearchedSoups(SearchedSoupsSettings(search="gradient_free", l1=l1, candidates=3, rounds=2))
        *_, stage = method.stages(task, np.asarray([[0.5, 0.5]]), 4000, 7)

        def ask(context: Any, stage: Any, mixer: Any, each: int, find: Any, calls: list[Any] = calls) -> None:
            def alike(candidates: Any, times: int) -> Any:
                calls.append(candidates)
                return np.full((len(candidates), 2), 0.6)

            find(2, alike)

        monkeypatch.setattr(searching, "run_search", ask)
        searching.search_by_rounds(cast(Any, SimpleNamespace(stages=(stage,))))
    drawn = generator(7, "search", "gradient_free")
    changes = [drawn.normal(size=(1, 3, 2))[0] for _ in range(2)]
    children = (0.5 + 0.2 * changes[0]).clip(0, 1)
    cheapest = children[children.sum(axis=1).argmin()]
    assert cheapest.sum() < 1
    for own, again, step in ((asked[0.0], [0.5, 0.5], 0.2 * GROWTH**-0.25), (asked[0.5], cheapest, 0.2 * GROWTH)):
        np.testing.assert_allclose(own[0], [[0.5, 0.5]])
        np.testing.assert_allclose(own[1], children)
        np.testing.assert_allclose(own[2], (again + step * changes[1]).clip(0, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": "annealing"}, "search must be one of gradient_free, grid, mirror_descent, random, got 'annealing'"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"difference": 1.0}, r"difference must lie between 0 and 1, got 1\.0"),
        ({"rate": 0.0}, r"rate must lie between 0 and inf, got 0\.0"),
        ({"beyond": -0.1}, r"beyond must be finite and 0 or more, got -0\.1"),
        ({"block": 1}, "block must be left out where level is 'adapters', got 1. Remove it, or write level: hidden"),
        ({"level": "probabilities", "beyond": 0.5}, "level must not be 'probabilities' where weights that are no dist"),
        ({"level": "probabilities", "search": "gradient_free"}, "level must not be 'probabilities' where weights"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchedSoupsSettings(**settings)


def test_a_block_that_does_not_exist_is_refused_when_planned(task: Task) -> None:
    with pytest.raises(ModelError, match="block must be one of the model's 2 blocks"):
        stages(task, search="random", level="hidden", block=2)
