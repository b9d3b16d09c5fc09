"""The table of kinds of models: what is listed as working works, what is listed as refused is refused in a plan."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import micro_task
import tiny_models
from paretune.core.errors import ModelError
from paretune.core.model_config import TESTED_KINDS
from paretune.models.adapters import save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.loading import KIND, load_base
from paretune.models.mixing import Mixing
from paretune.models.soundness import check_sound
from paretune.models.whole import load_whole

CLOSE = 1e-5  # of logits of order 1: PEFT adds a delta in another order
IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [5, 6, 7, 1, 0, 2]])
OFTEN = ("falcon", "gemma3_text", "gpt_neo", "gpt2", "mixtral", "mpt", "olmo2", "opt", "qwen2_moe", "phi3")
RARELY = [pytest.param(kind, marks=pytest.mark.slow) for kind in tiny_models.WORKS if kind not in OFTEN]


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the micro-task, whose model is replaced."""
    folder = tmp_path_factory.mktemp("task")
    micro_task.save_task(folder)
    # transformers gives some kinds a tokenizer that writes letters side by side
    (folder / "rewards.py").write_text(
        "def first(completions, **columns):\n    return [min(text.count('a') / 2, 1.0) for text in completions]\n\n\n"
        "def second(completions, **columns):\n    return [min(text.count('d') / 2, 1.0) for text in completions]\n"
    )
    return folder


def task_with(folder: Path, kind: str, settings: dict[str, Any]) -> str:
    shutil.rmtree(folder / "model")
    tiny_models.save(kind, folder / "model", settings)
    return str(folder / "task.yaml")


@pytest.mark.parametrize("kind", [*OFTEN, *RARELY])
@pytest.mark.filterwarnings("ignore")  # some kinds warn of the day a part of theirs will go
def test_a_kind_that_works_trains_generates_and_is_what_peft_computes(kind: str, micro: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import paretune

    task = task_with(micro, kind, tiny_models.WORKS[kind])
    solutions = paretune.train("linear", task, budget=16, settings={"group_size": 8, "rank": 2})
    policy = solutions.policy_for([1, 0])
    assert len(policy.generate(["a b", "c"], samples=2).texts) == 4
    assert policy.bank is not None
    assert bool(policy.bank.flat.ne(0).all(dim=0).any())
    policy.bank.unwrap()

    untouched = AutoModelForCausalLM.from_pretrained(micro / "model").eval()
    again = load_whole(AutoModelForCausalLM, str(micro / "model"), torch.float32, "model", KIND)[0].eval()
    base = load_base(str(micro / "model"), device="cpu")
    check_sound(base)  # loading need not have done it: an equal configuration was checked before
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2, alpha=4.0))
    try:
        with torch.no_grad():
            with bank.using(Mixing.of_rows(torch.zeros(2, 2))):
                own, wanted = base.model(IDS).logits, untouched(IDS).logits
            assert own.equal(again(IDS).logits)
            torch.testing.assert_close(own, wanted, atol=CLOSE * float(wanted.abs().max()), rtol=0)  # GELU may round
            with bank.using(Mixing.of_rows(torch.eye(2))):
                mixed = base.model(IDS).logits
            for expert in range(2):
                save_adapter(bank, expert, tmp_path / str(expert))
    finally:
        bank.unwrap()
    with torch.no_grad():
        for expert in range(2):
            peft = PeftModel.from_pretrained(untouched, tmp_path / str(expert)).eval()
            wanted = peft(IDS).logits[expert]
            torch.testing.assert_close(mixed[expert], wanted, atol=CLOSE * float(wanted.abs().max()), rtol=0)
            untouched = peft.unload()


@pytest.mark.parametrize("kind", list(tiny_models.REFUSED))
@pytest.mark.filterwarnings("ignore")
def test_a_kind_that_does_not_work_is_refused_in_a_plan(kind: str, micro: Path, tmp_path: Path) -> None:
    from paretune.benchmark.plan import plan

    settings, said = tiny_models.REFUSED[kind]
    task = task_with(micro, kind, settings)
    study = {"tasks": [task], "methods": {"linear": {}}, "budget": {"completions": 64}, "seeds": 1}
    with pytest.raises(ModelError, match=said) as refused:
        plan(study, tmp_path / "out")
    assert f"'{kind}'" in str(refused.value)
    assert "gpt2" in str(refused.value)  # which kinds do work
    assert "\n" not in str(refused.value)


def test_the_documented_table_is_what_is_tested(root: Path) -> None:
    page = (root / "docs" / "models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\w+)", page, re.MULTILINE))
    works, refused = dict.fromkeys(tiny_models.WORKS, "works"), dict.fromkeys(tiny_models.REFUSED, "refused")
    assert rows == works | refused
    assert tuple(sorted(tiny_models.WORKS)) == TESTED_KINDS
