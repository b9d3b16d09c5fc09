from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods import resolve_method
from paretune.methods.experts import ExpertSettings
from paretune.methods.meta_policy.lower_level.single_objective import SingleObjective
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


@dataclass(frozen=True)
class OwnRun(SingleObjective):
    """Experts of one objective each that a run function of their own trains."""

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        made = super().stages(settings, task, budget, seed)
        return tuple(replace(each, run="elsewhere:train") for each in made)


@pytest.mark.parametrize(
    ("name", "start"), [("rewarded_soups", "own"), ("merged_soups", "own"), ("mixture_of_experts", "independent")]
)
def test_experts_that_begin_by_a_function_of_their_own_cannot_be_told_where(task: Task, name: str, start: str) -> None:
    method = resolve_method(name)
    settings = method.Settings(experts=f"{__name__}:OwnRun", start=start)
    with pytest.raises(ConfigError, match="start must be left out for experts that have a run function of their own"):
        method(settings).stages(task, WANTED, 640, 0)


def test_a_budget_below_a_group_for_each_objective_is_refused(task: Task) -> None:
    with pytest.raises(BudgetError, match="each of 2 experts at least one group of 8 completions, got 15"):
        METHOD.stages(task, WANTED, 15, 0)
