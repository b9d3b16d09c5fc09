from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import micro_task
from paretune.core.digests import model_digest
from paretune.core.errors import ModelError
from paretune.core.prompt_format import PromptFormat
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.loading import default_device, default_dtype, load_base, loaded_dtypes, unwrap
from paretune.models.policy import Policy
from paretune.tasks.controlled.model import save_model


@pytest.fixture
def gpt2_letters(tmp_path: Path) -> BaseModel:
    save_model(4, np.random.default_rng(0), tmp_path)
    return load_base(str(tmp_path), device="cpu")


def test_a_base_model_is_frozen_and_loaded_once(folders: dict[str, Path]) -> None:
    base = load_base(str(folders["llama"]), device="cpu")
    assert load_base(str(folders["llama"]), device="cpu").model is base.model
    assert loaded_dtypes(str(folders["llama"])) == ["float32"]
    assert loaded_dtypes(str(folders["llama"] / "nothing")) == []
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.digest == model_digest(base.name)


def test_loading_says_nothing_and_leaves_the_callers_progress_bars_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging

    folder = str(micro_task.save_model(tmp_path / "model"))
    monkeypatch.setattr(logging, "_tqdm_active", True)
    capfd.readouterr()  # what saving wrote
    load_base(folder, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


def test_a_model_that_changed_on_disk_is_loaded_again(tmp_path: Path) -> None:
    before = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    after = load_base(str(micro_task.save_model(tmp_path / "model", seed=1)), device="cpu")
    assert after.model is not before.model
    assert after.digest != before.digest


def test_a_base_model_knows_its_limits_and_tokens(llama: BaseModel, folders: dict[str, Path]) -> None:
    gpt2 = load_base(str(folders["gpt2"]), device="cpu")
    assert llama.context_tokens == gpt2.context_tokens == 32
    assert llama.end_ids == (micro_task.END,)
    assert llama.pad_id == micro_task.END
    assert llama.encode("a c") == [1, 3]
    assert llama.decode([1, 3, micro_task.END]) == "a c"
    # 8 x 16 embeddings and head, 2 blocks of 4 x 16^2 + 3 x 16 x 32 + 2 norms, and a last norm
    assert llama.parameters == 2 * 8 * 16 + 2 * (4 * 16**2 + 3 * 16 * 32 + 2 * 16) + 16


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be a folder or hub id of a causal language model"):
        load_base(str(tmp_path / "nothing"), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="must be a folder or hub id of a causal language model"):
        load_base(str(tmp_path), device="cpu")


def test_a_prompt_its_tokenizer_does_not_know_is_refused(gpt2_letters: BaseModel) -> None:
    message = (
        r"prompt must be text that the model's tokenizer can encode, got 'hello' in the task's template\. Write it "
        r"with the 4 tokens that it knows: a b c d$"
    )
    with pytest.raises(ModelError, match=message):
        gpt2_letters.encode("hello")
    assert gpt2_letters.encode("a d") == [0, 3]
    with pytest.raises(ValueError, match="text"):  # what is no text at all is another mistake, and told as one
        gpt2_letters.encode(None)  # type: ignore[arg-type]


def test_a_small_model_is_fp32_on_a_gpu_too(folders: dict[str, Path]) -> None:
    assert default_dtype("cuda", str(folders["llama"])) == torch.float32
    assert default_dtype("cuda:1", "owner/name") == torch.bfloat16  # of unknown size
    assert default_dtype("cpu", "owner/name") == torch.float32


def test_a_device_is_found() -> None:
    assert default_device() in ("cpu", "cuda")


ORDERS: dict[str, Callable[[BaseModel], object]] = {
    "untouched": lambda base: None,
    "under a bank": lambda base: ExpertBank(base, 1, rank=2),
    "under a larger one": lambda base: ExpertBank(base, 4, rank=3),
    "under a second one": lambda base: (ExpertBank(base, 1, rank=2), ExpertBank(base, 2, rank=2, targets=["q_proj"])),
    "after one": lambda base: ExpertBank(base, 2, rank=2).unwrap(),
    "under one put back": lambda base: put_back(ExpertBank(base, 2, rank=2), ExpertBank(base, 3, rank=2)),
}


def put_back(first: ExpertBank, second: ExpertBank) -> None:
    first.rewrap()
    assert first.base is second.base


@pytest.mark.parametrize("order", ORDERS)
def test_parameters_do_not_depend_on_when_they_are_first_counted(folders: dict[str, Path], order: str) -> None:
    """What a run is charged for is the base model's, not what happens to be wrapped around it."""
    from safetensors import safe_open

    base = load_base(str(folders["llama"]), device="cpu")
    unwrap(base)
    base = dataclasses.replace(base)  # nothing counted yet
    bank = ORDERS[order](base)
    counted = base.parameters
    del bank
    unwrap(base)
    with safe_open(folders["llama"] / "model.safetensors", "pt") as file:
        assert counted == sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - no mapping


def test_two_equal_trainings_are_charged_equally_whatever_came_before(folders: dict[str, Path]) -> None:
    charged = set()
    for before in ORDERS.values():
        base = dataclasses.replace(load_base(str(folders["llama"]), device="cpu"))
        unwrap(base)
        before(base)
        bank = ExpertBank(base, 2, rank=2)
        policy = Policy(base, bank, PromptFormat(), 4, 2, np.eye(2), ["exact"] * 2, np.eye(2))
        charged.add((policy.flops([0], 10, 1), policy.flops([0, 1], 10)))
        bank.unwrap()
    assert len(charged) == 1
