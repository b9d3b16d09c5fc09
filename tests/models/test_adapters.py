from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import micro_task
from paretune.core.errors import AdapterError
from paretune.models.adapters import CONFIG, TENSORS, load_bank, read_adapter, save_adapter, start_as
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing

CLOSE = 1e-5  # of logits of order 1 in fp32
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 1]])


@torch.no_grad()
def logits_of(bank: ExpertBank, expert: int) -> Tensor:
    weights = torch.eye(bank.experts)[[expert] * len(IDS)]
    with bank.using(Mixing.of_rows(weights)):
        logits: Tensor = bank.base.model(IDS).logits
    return logits


def plain_model(base: BaseModel) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base.name).eval()


@torch.no_grad()
def by_peft(base: BaseModel, folder: Path) -> Tensor:
    from peft import PeftModel

    logits: Tensor = PeftModel.from_pretrained(plain_model(base), folder).eval()(IDS).logits
    return logits


def saved_by_peft(base: BaseModel, folder: Path, **settings: Any) -> Tensor:
    """Let PEFT write an adapter with random factors, and return its logits."""
    from peft import LoraConfig, get_peft_model

    targets = ["c_attn", "c_fc"] if "gpt2" in base.name else ["q_proj", "down_proj"]
    config = LoraConfig(
        **{"r": 2, "lora_alpha": 6, "target_modules": targets, "fan_in_fan_out": "gpt2" in base.name, **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(plain_model(base), config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.3 * torch.randn_like(parameter))
            logits: Tensor = model(IDS).logits
    model.save_pretrained(folder)
    return logits


@pytest.mark.parametrize("targets", [None, ["q_proj", "c_attn"]])
def test_peft_loads_a_saved_expert_with_equal_logits(
    base: BaseModel, tmp_path: Path, targets: list[str] | None
) -> None:
    bank = micro_task.perturb(ExpertBank(base, 3, rank=2, alpha=4.0, targets=targets))
    save_adapter(bank, 1, tmp_path)
    expected = logits_of(bank, 1)
    assert (expected - logits_of(bank, 0)).abs().max() > 0.05
    torch.testing.assert_close(by_peft(base, tmp_path), expected, rtol=CLOSE, atol=CLOSE)


def test_saved_experts_come_back_bit_for_bit(base: BaseModel, tmp_path: Path) -> None:
    bank = micro_task.perturb(ExpertBank(base, 2, rank=2, alpha=4.0))
    for expert in range(2):
        save_adapter(bank, expert, tmp_path / str(expert))
    before, alphas = bank.flat.clone(), bank.alphas
    again = load_bank(base, [tmp_path / "0", tmp_path / "1"])
    for path, layer in bank.layers.items():
        assert again.layers[path].A.equal(layer.A)
        assert again.layers[path].B.equal(layer.B)
    assert again.alphas.equal(alphas)
    assert before.numel() == again.flat.numel()


@pytest.mark.parametrize("settings", [{}, {"r": 4, "use_rslora": True}, {"layers_to_transform": [1]}])
def test_an_adapter_of_peft_loads_here_with_equal_logits(
    base: BaseModel, tmp_path: Path, settings: dict[str, Any]
) -> None:
    expected = saved_by_peft(base, tmp_path, **settings)
    torch.testing.assert_close(logits_of(load_bank(base, [tmp_path]), 0), expected, rtol=CLOSE, atol=CLOSE)


def test_adapters_of_different_ranks_scales_and_layers_share_a_bank(llama: BaseModel, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {"r": 2}, {"r": 5, "lora_alpha": 1}, {"r": 4, "use_rslora": True, "target_modules": ["v_proj"]},
    ]  # fmt: skip
    folders = [tmp_path / str(number) for number in range(len(kinds))]
    expected = [saved_by_peft(llama, folder, **kind) for folder, kind in zip(folders, kinds, strict=True)]
    bank = load_bank(llama, folders)
    assert bank.rank == 5
    for expert, logits in enumerate(expected):
        torch.testing.assert_close(logits_of(bank, expert), logits, rtol=CLOSE, atol=CLOSE)


def test_a_widened_bank_saves_an_expert_that_peft_still_reads_the_same(llama: BaseModel, tmp_path: Path) -> None:
    expected = saved_by_peft(llama, tmp_path / "narrow", r=2, lora_alpha=3)
    saved_by_peft(llama, tmp_path / "wide", r=5)
    bank = load_bank(llama, [tmp_path / "narrow", tmp_path / "wide"])
    save_adapter(bank, 0, tmp_path / "again")
    torch.testing.assert_close(by_peft(llama, tmp_path / "again"), expected, rtol=CLOSE, atol=CLOSE)


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return edit


def edit_tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        save_file(change(load_file(folder / TENSORS)), folder / TENSORS, metadata={"format": "pt"})

    return edit


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name != sorted_first(tensors, part)}


def sorted_first(tensors: dict[str, Tensor], part: str) -> str:
    return next(name for name in sorted(tensors) if part in name)


def truncate(folder: Path) -> None:
    file = folder / TENSORS
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CONFIG).unlink(), f"got '.*' without {CONFIG}"),
        (lambda folder: (folder / TENSORS).unlink(), f"got '.*' without {TENSORS}"),
        (lambda folder: (folder / CONFIG).write_text("{"), "must be readable, got: Expecting property name"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "must be readable, got: .*keys and values"),
        (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe"), "must be readable, got: .*utf-8"),
        (truncate, "must be readable, got: .* Copy or train it again"),
        (edit_config(peft_type="IA3"), "peft_type of adapter .* must be LORA, got 'IA3'"),
        (edit_config(use_dora=True), r"use_dora of adapter .* must be off .*, got True"),
        (edit_config(bias="all"), r"bias of adapter .* must be none.*, got 'all'"),
        (edit_config(modules_to_save=["lm_head"]), r"modules_to_save of adapter .* must be off .*, got \['lm_head'\]"),
        (edit_config(rank_pattern={"q_proj": 4}), r"rank_pattern of adapter .* must be off .*, got"),
        (edit_config(alora_invocation_tokens=[1, 2]), r"alora_invocation_tokens of adapter .* must be off .*, got"),
        (edit_config(layer_replication=[[0, 2], [1, 2]]), r"layer_replication of adapter .* must be off .*, got"),
        (edit_config(r="two"), r"r of adapter .* must be a whole number from 1 on, got 'two'"),
        (edit_config(lora_alpha=None), r"lora_alpha of adapter .* must be a finite number, got None"),
        (edit_tensors(without("lora_B")), "must have A and B for each layer, got no .*lora_B.weight"),
        (edit_tensors(without("lora_A")), "must have A and B for each layer, got no .*lora_A.weight"),
        (edit_tensors(lambda tensors: {**tensors, "lm_head.weight": torch.zeros(2)}), "LoRA factors only, got 'lm_hea"),
        (edit_tensors(lambda tensors: {}), "at least one pair of LoRA factors, got none"),
    ],
)
def test_a_folder_that_is_no_whole_plain_adapter_is_refused(
    llama: BaseModel, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    bank = micro_task.perturb(ExpertBank(llama, 1, rank=2, alpha=4.0))
    save_adapter(bank, 0, tmp_path)
    damage(tmp_path)
    with pytest.raises(AdapterError, match=message):
        read_adapter(tmp_path)


def test_a_dora_adapter_of_peft_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    saved_by_peft(llama, tmp_path, use_dora=True)
    with pytest.raises(AdapterError, match=r"use_dora .*, got True\. Train it without"):
        load_bank(llama, [tmp_path])


def test_an_adapter_of_another_base_model_is_refused(llama: BaseModel, tmp_path: Path) -> None:
    from paretune.models.loading import load_base

    other = load_base(str(micro_task.save_model(tmp_path / "other", seed=1)), device="cpu")
    save_adapter(micro_task.perturb(ExpertBank(other, 1, rank=2)), 0, tmp_path / "adapter")
    with pytest.raises(AdapterError, match=f"must belong to base model '.*' \\({llama.digest}\\), got one trained on"):
        load_bank(llama, [tmp_path / "adapter"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"hidden_size": 32}, r"factors of \[r, 32\] and \[16, r\] for '.*down_proj', got \[2, 32\] and \[32, 2\]"),
        ({"num_hidden_layers": 3}, "got a layer 'model.layers.2.mlp.down_proj' that it does not have"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_and_leaves_the_model_alone(
    llama: BaseModel, tmp_path: Path, shape: dict[str, int], message: str
) -> None:
    from paretune.models.loading import load_base

    other = load_base(str(micro_task.save_model(tmp_path / "other", **shape)), device="cpu")
    targets = ["q_proj", "down_proj"]
    save_adapter(micro_task.perturb(ExpertBank(other, 1, rank=2, targets=targets)), 0, tmp_path / "adapter")
    edit_tensors(lambda tensors: tensors)(tmp_path / "adapter")  # drops the digest, as PEFT would not write one
    edit_config(base_model_name_or_path=None)(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=message):
        load_bank(llama, [tmp_path / "adapter"])
    assert llama.model(IDS).logits.isfinite().all()  # runs without a mixing: nothing is wrapped


def test_an_adapter_of_layers_the_model_does_not_have_is_refused(
    llama: BaseModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    from paretune.models.loading import load_base

    gpt2 = load_base(str(folders["gpt2"]), device="cpu")
    saved_by_peft(gpt2, tmp_path)
    with pytest.raises(AdapterError, match=f"must belong to base model .*, got one trained on {gpt2.digest} \\('"):
        load_bank(llama, [tmp_path])
    edit_config(base_model_name_or_path="/no/longer/there")(tmp_path)
    with pytest.raises(AdapterError, match=r"got a layer 'transformer\.h\.0\.attn\.c_attn' that it does not have"):
        load_bank(llama, [tmp_path])


def test_no_folder_at_all_is_refused(llama: BaseModel) -> None:
    with pytest.raises(AdapterError, match="at least one adapter folder, got none"):
        load_bank(llama, [])


def test_a_bank_starts_as_an_adapter_of_a_lower_rank_and_learns_with_the_rest(llama: BaseModel, tmp_path: Path) -> None:
    one = micro_task.perturb(ExpertBank(llama, 1, rank=1, alpha=3.0))
    wanted = logits_of(one, 0)
    save_adapter(one, 0, tmp_path / "one")
    bank = ExpertBank(llama, 2, rank=3, alpha=16.0)
    bank.initialise([0, 1])
    start_as(bank, read_adapter(tmp_path / "one"))
    for expert in range(2):
        torch.testing.assert_close(logits_of(bank, expert), wanted, atol=CLOSE, rtol=0)
    layer = next(iter(bank.layers.values()))
    assert bank.scales.tolist() == [3.0, 3.0]
    assert not layer.B[:, :, 1:].any()
    assert bool((layer.A[:, 1:] != 0).all())  # or no gradient would ever reach B, whose start is zero
    small = ExpertBank(llama, 1, rank=1)
    small.initialise([0])
    saved_by_peft(llama, tmp_path / "two")
    with pytest.raises(AdapterError, match=r"at most the rank of the bank that starts as it \(1\), got 2"):
        start_as(small, read_adapter(tmp_path / "two"))
