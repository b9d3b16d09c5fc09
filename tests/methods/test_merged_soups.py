from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import micro_task
from paretune.core.answers import Combined, answer_from_plain, answer_to_plain
from paretune.core.errors import ConfigError, ShapeError
from paretune.core.preferences import das_dennis
from paretune.core.task import Task
from paretune.methods.meta_policy.merged_soups import (
    MergedFor,
    MergedSoups,
    MergedSoupsSettings,
    Products,
    merge_by_signs,
    write_cross_experts,
)
from paretune.models.adapters import load_bank, save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.loading import load_base

WANTED = das_dennis(2, 2)
SCALES = (8.0, 2.0)  # of the two experts: where they differ, PEFT puts the root of each into either factor
Deltas = Mapping[str, Tensor]


class Merging:
    """A merge whose experts lie in folders."""

    def __init__(self, task: Task, stage: Any, experts: list[Path], folder: Path) -> None:
        self.task, self.stages, self.folder = task, (stage,), folder
        self.experts = dict(zip((each.key(task) for each in stage.needs), experts, strict=True))
        self.written: list[Path] = []
        self.sealed: Mapping[str, Any] = {}

    def result(self, stage: Any) -> Any:
        return SimpleNamespace(adapters=(self.experts[stage.key(self.task)],), stage=stage, artefacts={})

    def artefact(self, stage: Any, name: str) -> Path:
        self.written.append(self.folder / name)
        return self.written[-1]

    def seal(self, stage: Any, values: Mapping[str, Any]) -> None:
        self.sealed = values


@pytest.fixture
def experts(task: Task, tmp_path: Path) -> list[Path]:
    bank = micro_task.perturb(ExpertBank(load_base(task.model, device="cpu"), 2, rank=2))
    bank.alphas = torch.tensor(SCALES) * 2
    for expert in range(2):
        save_adapter(bank, expert, tmp_path / f"expert{expert}")
    bank.unwrap()
    return [tmp_path / "expert0", tmp_path / "expert1"]


def merged(task: Task, experts: list[Path], folder: Path, **settings: Any) -> tuple[Merging, Any]:
    method = MergedSoups(MergedSoupsSettings(**settings))
    *_, stage = method.stages(task, WANTED, 64, 0)
    assert (stage.kind, stage.completions) == ("merge", 0)
    context: Any = Merging(task, stage, experts, folder)
    (merge_by_signs if settings["merge"] == "ties" else write_cross_experts)(context)
    result: Any = SimpleNamespace(adapters=tuple(context.written), stage=stage, values=context.sealed)
    return context, method.assemble(task, WANTED, {"merge": result}).answer


def deltas_of(task: Task, folders: list[Path], weights: Any) -> Deltas:
    """Return the exact average of deltas of adapters, layer by layer."""
    bank = load_bank(load_base(task.model, device="cpu"), folders)
    scaled = torch.tensor(weights, dtype=torch.float32) * bank.scales
    found = {
        path: torch.einsum("e,eor,eri->oi", scaled, layer.B, layer.A).detach() for path, layer in bank.layers.items()
    }
    bank.unwrap()
    return found


def peft_linear(task: Task, experts: list[Path], weights: list[float]) -> Deltas:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(task.model), str(experts[0]), adapter_name="0"
    )
    model.load_adapter(str(experts[1]), adapter_name="1")
    model.add_weighted_adapter(["0", "1"], weights, "merged", combination_type="linear")
    layers = {path: each for path, each in model.base_model.model.named_modules() if hasattr(each, "get_delta_weight")}
    return {path: each.get_delta_weight("merged").detach() for path, each in layers.items()}


@pytest.mark.parametrize("weights", [[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]])
def test_cross_experts_are_pefts_linear_combination(
    weights: list[float], task: Task, experts: list[Path], tmp_path: Path
) -> None:
    context, answer = merged(task, experts, tmp_path, merge="peft_linear")
    got = deltas_of(task, context.written, answer.weights(np.asarray([weights]))[0][0])
    expected = peft_linear(task, experts, weights)
    assert got.keys() == expected.keys()
    for path, delta in expected.items():
        torch.testing.assert_close(got[path], delta, rtol=1e-4, atol=1e-5)  # of order 1, fp32


def test_a_subtracted_expert_has_the_sign_that_peft_gives_it(task: Task, experts: list[Path], tmp_path: Path) -> None:
    context, _ = merged(task, experts, tmp_path, merge="peft_linear")
    rule = Products(np.asarray([[1.5, -0.5], [-0.5, 1.5]]), "peft_linear")
    got = deltas_of(task, context.written, rule.weights(np.asarray([[1.0, 0.0]]))[0][0])
    for path, delta in peft_linear(task, experts, [1.5, -0.5]).items():
        torch.testing.assert_close(got[path], delta, rtol=1e-4, atol=1e-5)


def test_averaged_factors_are_the_exact_average_of_cross_experts(
    task: Task, experts: list[Path], tmp_path: Path
) -> None:
    context, answer = merged(task, experts, tmp_path, merge="factors")
    preference = np.asarray([0.3, 0.7])
    got = deltas_of(task, context.written, answer.weights(preference[None])[0][0])
    bank = load_bank(load_base(task.model, device="cpu"), experts)
    roots = bank.scales.sqrt()[:, None, None] * torch.tensor(preference, dtype=torch.float32)[:, None, None]
    by_hand = {path: (roots * each.B).sum(dim=0) @ (roots * each.A).sum(dim=0) for path, each in bank.layers.items()}
    bank.unwrap()
    for path, delta in by_hand.items():
        torch.testing.assert_close(got[path], delta.detach(), rtol=1e-4, atol=1e-5)


def test_the_defects_that_the_controls_show(task: Task, experts: list[Path], tmp_path: Path) -> None:
    """Of equal experts the exact average is one of them; PEFT's linear is twice that, factors are right there alone."""
    equal, half = [experts[0], experts[0]], np.asarray([[0.5, 0.5]])
    exact = deltas_of(task, equal, [0.5, 0.5])
    for merge, times in (("factors", 1.0), ("peft_linear", 2.0)):
        context, answer = merged(task, equal, tmp_path / merge, merge=merge)
        got = deltas_of(task, context.written, answer.weights(half)[0][0])
        for path, delta in exact.items():
            torch.testing.assert_close(got[path], times * delta, rtol=1e-4, atol=1e-5)
    assert Products(np.eye(2), "factors").weights(half)[0].tolist() == [[0.25] * 4]  # its own part shrinks to g^2
    np.testing.assert_allclose(Products(np.eye(2), "peft_linear").weights(half)[0], [[0.5] * 4])


def test_ties_writes_one_adapter_for_each_preference_exactly_where_layers_are_small(
    task: Task, experts: list[Path], tmp_path: Path
) -> None:
    from paretune.models.ties import merge_signs, trim_threshold

    context, answer = merged(task, experts, tmp_path, merge="ties", density=0.4)
    assert (len(context.written), context.sealed["rank"]) == (3, 16)  # of layers of 16 and 32
    assert max(context.sealed["discarded_energy"]) < 1e-12
    first, second = (deltas_of(task, [each], [1.0]) for each in experts)
    thresholds = torch.tensor([trim_threshold(list(each.values()), 0.4) for each in (first, second)])
    got = deltas_of(task, context.written, np.eye(3)[2])  # the centre, which is the last of the preferences
    for path, delta in got.items():
        expected = merge_signs(torch.stack([first[path], second[path]]), torch.tensor([0.5, 0.5]), thresholds)
        torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-4)
    weights, words = answer.weights(np.asarray([[0.5, 0.5], [0.9, 0.1]]))
    assert (weights.tolist(), words) == ([[0, 0, 1], [1, 0, 0]], ["combined", "nearest"])
    assert merged(task, experts, tmp_path / "low", merge="ties", merged_rank=2)[0].sealed["discarded_energy"][2] > 0.01


def test_answers_are_found_again_as_a_solution_keeps_them() -> None:
    for answer in (Products(np.eye(2), "factors"), MergedFor(WANTED)):
        found = answer_from_plain(answer_to_plain(answer))
        assert (type(found), found.experts, found.objectives) == (type(answer), answer.experts, 2)
        assert np.array_equal(found.weights(WANTED)[0], answer.weights(WANTED)[0])
    assert not isinstance(Products(np.eye(2), "factors"), Combined)  # which is linear in the preference


def test_controls_share_the_experts_of_rewarded_soups_and_their_cross_experts(task: Task) -> None:
    factors, linear, ties = (
        MergedSoups(MergedSoupsSettings(merge=merge)).stages(task, WANTED, 64, 0)
        for merge in ("factors", "peft_linear", "ties")  # type: ignore[arg-type]  # mypy widens the names
    )
    assert [each.key(task) for each in factors] == [each.key(task) for each in linear]
    assert [each.key(task) for each in factors[:-1]] == [each.key(task) for each in ties[:-1]]
    own = MergedSoups(MergedSoupsSettings(start="own")).stages(task, WANTED, 64, 0)
    assert own[1].key(task) != factors[1].key(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": "svd"}, "merge must be one of factors, peft_linear, ties, got 'svd'"),
        ({"density": 0.0}, r"density must be above 0 and at most 1, got 0\.0"),
        ({"merged_rank": 0}, "merged_rank must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MergedSoupsSettings(**settings)


def test_experts_that_are_subtracted_have_no_signs_to_elect(task: Task) -> None:
    with pytest.raises(ConfigError, match=r"to be merged by ties must have weights of 0 or more .*, got -0\.75"):
        MergedSoups(MergedSoupsSettings(merge="ties", experts="mixed_reward")).stages(task, WANTED, 64, 0)


def test_products_answer_preferences_of_their_objectives_and_of_no_others() -> None:
    rule = Products([[2.0, 0.0], [0.0, 1.0]], "factors")  # as a file has it
    assert rule.weights(np.asarray([[0.5, 0.5]]))[0].tolist() == [[1, 0.5, 0.5, 0.25]]
    with pytest.raises(ShapeError, match=r"preferences must have one column per objective \(2\), got 3"):
        rule.weights(np.full((1, 3), 1 / 3))
    with pytest.raises(ShapeError, match=r"prior must have two dimensions and an entry, got shape \[2\]"):
        Products(np.ones(2), "factors")
    with pytest.raises(ShapeError, match="prior must be finite, got NaN or infinity"):
        Products(np.full((2, 2), np.nan), "factors")
