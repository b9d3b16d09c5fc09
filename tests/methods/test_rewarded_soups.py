from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.core.errors import BudgetError
from paretune.core.task import Task
from paretune.methods.meta_policy.rewarded_soups import RewardedSoups, RewardedSoupsSettings
from paretune.models.adapters import save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.loading import load_base
from paretune.models.solutions import SolutionSet

METHOD = RewardedSoups(RewardedSoupsSettings())
WANTED = np.asarray([[0.5, 0.5]])


def test_one_expert_is_trained_for_each_objective_whatever_is_wanted(task: Task) -> None:
    stages = METHOD.stages(task, WANTED, 1004, 3)
    assert [stage.member["objective_weights"] for stage in stages] == [[1, 0], [0, 1]]
    assert [stage.completions for stage in stages] == [504, 496]
    assert {stage.seed for stage in stages} == {3}  # equal starts, as averaging wants
    assert METHOD.stages(task, np.eye(2), 1004, 3) == stages


def test_the_answer_is_the_exact_average_of_the_deltas(task: Task, finish: Any, tmp_path: Path) -> None:
    base = load_base(task.model, device="cpu")
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2))
    preference = [0.3, 0.7]
    results = finish(METHOD.stages(task, WANTED, 64, 0))
    for expert, (key, result) in enumerate(results.items()):
        save_adapter(bank, expert, tmp_path / key)
        results[key] = replace(result, artefacts={"adapter": tmp_path / key})
    assembly = METHOD.assemble(task, WANTED, results)
    policy = SolutionSet.from_assembly(task, assembly, "soups", "meta-policy").policy_for(preference)
    assert policy.answers == ("combined",)
    deltas = {
        path: sum(w * 8 * (layer.B[e] @ layer.A[e]) for e, w in enumerate(preference))  # scale alpha / rank = 16 / 2
        for path, layer in bank.layers.items()
    }
    bank.unwrap()
    from transformers import AutoModelForCausalLM

    soup: Any = AutoModelForCausalLM.from_pretrained(task.model).eval()
    with torch.no_grad():
        for path, delta in deltas.items():
            soup.get_submodule(path).weight += delta
        expected = soup(torch.tensor([[1, 2]])).logits[0, -1].log_softmax(dim=-1)
    got = policy.next_token_log_probs(["a b"], [[]])[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # of deltas of order 1, fp32


def test_a_budget_below_a_group_for_each_objective_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="each of 2 experts at least one group of 8 completions, got 15"):
        METHOD.stages(task, WANTED, 15, 0)
