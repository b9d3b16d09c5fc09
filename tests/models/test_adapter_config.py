"""Every field of a PEFT configuration: computed as PEFT computes it, or refused by its name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from paretune.core.errors import AdapterError
from paretune.models.adapter_config import ALL_LINEAR, CONFIG, UNDERSTOOD, AdapterConfig, read_config
from paretune.models.adapters import TENSORS, load_bank
from paretune.models.base import BaseModel
from paretune.models.mixing import Mixing

CLOSE = 1e-5  # of logits of order 1 in fp32
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 1]])
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
RUNS_ON = "(([a-z_.0-9])+)+!"  # `re` tries every way to split a path
FIRST = "model.layers.0.self_attn.q_proj"

SAME: list[dict[str, Any]] = [  # settings of PEFT that are computed here as there
    {}, {"r": 1}, {"r": 7, "lora_alpha": 3}, {"r": 4, "use_rslora": True}, {"lora_alpha": 0}, {"lora_alpha": -2.5},
    {"lora_dropout": 0.5}, {"init_lora_weights": "gaussian"}, {"init_lora_weights": False}, {"fan_in_fan_out": True},
    {"init_lora_weights": "orthogonal"}, {"task_type": "CAUSAL_LM"}, {"inference_mode": True}, {"revision": "main"},
    {"target_modules": "all-linear"}, {"target_modules": r".*\.(q|v)_proj"}, {"target_modules": [FIRST]},
    {"target_modules": [FIRST, "up_proj"], "layers_to_transform": [1]},
    {"target_modules": ["q_proj", "mlp.down_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
    {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*\.1\..*"},
    {"layers_to_transform": 0}, {"layers_to_transform": [1]}, {"layers_to_transform": [0, 1]},
    {"layers_to_transform": []}, {"layers_to_transform": [1], "layers_pattern": "layers"},
    {"layers_to_transform": [0], "layers_pattern": ["blocks", "layers"]}, {"megatron_core": "other"},
    {"qalora_group_size": 8}, {"ensure_weight_tying": False}, {"use_dora": False}, {"rank_pattern": {}},
]  # fmt: skip

OTHER: list[dict[str, Any]] = [  # settings of PEFT that are computed there and refused here
    {"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"bias": "lora_only"}, {"rank_pattern": {"q_proj": 4}},
    {"alpha_pattern": {"q_proj": 32}}, {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_2"}, {"init_lora_weights": "olora"}, {"init_lora_weights": "mica"},
    {"trainable_token_indices": [1, 2]}, {"target_parameters": ["mlp.up_proj.weight"]},
    {"target_modules": ["q_proj", "embed_tokens"]}, {"target_modules": ["q_proj", "lm_head"]},
    {"layer_replication": [[0, 2], [1, 2]]}, {"alora_invocation_tokens": [1]}, {"task_type": "FEATURE_EXTRACTION"},
    {"revision": "v2"},
]  # fmt: skip


def plain_model(base: BaseModel) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base.name).eval()


def save(base: BaseModel, folder: Path, settings: dict[str, Any]) -> None:
    """Let PEFT write an adapter with random factors."""
    config = LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(plain_model(base), config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)


@torch.no_grad()
def by_peft(base: BaseModel, folder: Path) -> Tensor:
    logits: Tensor = PeftModel.from_pretrained(plain_model(base), folder).eval()(IDS).logits
    return logits


@torch.no_grad()
def by_the_bank(base: BaseModel, folder: Path) -> Tensor:
    bank = load_bank(base, [folder])
    try:
        with bank.using(Mixing.of_rows(torch.ones(len(IDS), 1))):
            logits: Tensor = base.model(IDS).logits
    finally:
        bank.unwrap()
    return logits


@pytest.mark.filterwarnings("ignore")  # PEFT warns of settings that contradict each other
@pytest.mark.parametrize("settings", SAME, ids=str)
def test_what_is_accepted_is_what_peft_computes(llama: BaseModel, tmp_path: Path, settings: dict[str, Any]) -> None:
    save(llama, tmp_path, settings)
    torch.testing.assert_close(by_the_bank(llama, tmp_path), by_peft(llama, tmp_path), rtol=CLOSE, atol=CLOSE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", OTHER, ids=str)
def test_what_peft_computes_in_another_way_is_refused(
    llama: BaseModel, tmp_path: Path, settings: dict[str, Any]
) -> None:
    save(llama, tmp_path, settings)
    before = llama.model(IDS).logits
    with pytest.raises(AdapterError, match="must "):
        load_bank(llama, [tmp_path])
    assert llama.model(IDS).logits.equal(before)  # and the model is left as it was


def test_every_field_of_the_installed_peft_is_read_or_must_be_off(tmp_path: Path) -> None:
    """Whatever PEFT may set, by default it passes, and what is not in our list is refused as soon as it is set."""
    fields = {field.name for field in dataclasses.fields(LoraConfig)} - {"runtime_config"}  # which PEFT does not save
    saved = {**LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"]).to_dict(), "peft_type": "LORA"}
    saved = {name: sorted(value) if isinstance(value, set) else value for name, value in saved.items()}
    write(tmp_path, json.loads(json.dumps(saved, default=lambda value: getattr(value, "value", None))))
    assert read_config(tmp_path).rank == 2
    for name in fields - set(UNDERSTOOD):
        for value in (True, 1, "x", [1], {"a": 1}):
            write(tmp_path, {**PLAIN, name: value})
            with pytest.raises(AdapterError, match=f"^{name} of adapter .* must be off"):
                read_config(tmp_path)


def write(folder: Path, config: object) -> None:
    (folder / CONFIG).write_text(config if isinstance(config, str) else json.dumps(config))


@pytest.mark.parametrize("value", [True, 1, 0, -1, 0.5, "x", ["x"], {"x": 1}])
def test_a_field_that_peft_may_invent_is_refused_by_its_name(tmp_path: Path, value: object) -> None:
    write(tmp_path, {**PLAIN, "use_tomorrows_lora": value})
    with pytest.raises(AdapterError, match=r"^use_tomorrows_lora of adapter '.*' must be off"):
        read_config(tmp_path)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_a_field_that_is_off_passes(tmp_path: Path, value: object) -> None:
    write(tmp_path, {**PLAIN, "use_tomorrows_lora": value, "use_dora": value, "loftq_config": value})
    assert read_config(tmp_path) == AdapterConfig(2, 3.0, None, ("q_proj", "down_proj"))


WRONG: dict[str, list[object]] = {
    "peft_type": ["IA3", "lora", None, 1, ["LORA"]],
    "task_type": ["SEQ_CLS", "SEQ_2_SEQ_LM", 1],
    "r": ["8", 0, -1, 8.0, True, None, [8], 2**40, float("nan")],
    "lora_alpha": ["16", None, True, float("nan"), float("inf"), -float("inf"), [16], 10**400, 1e40],
    "lora_dropout": ["0", -0.1, 1.5, True, float("nan")],
    "bias": ["all", "lora_only", None, True],
    "use_rslora": ["true", 1, "false"],
    "target_modules": [
        None,
        [],
        "",
        3,
        [3],
        ["q_proj", None],
        "(",
        {"q_proj": 1},
        [""],
        "x" * 5001,
        "(" * 2000 + ")" * 2000,
        r"(a)\1",
        "(?>a)",
        "a{99999999999}",
    ],
    "exclude_modules": [3, [3], "(", "a++"],
    "layers_to_transform": ["1", [1.5], [True], {"a": 1}, True],
    "layers_pattern": [3, [3], "(", ["("], ["layers", "(?P<number>x)"], ["(?i)x"], "a)|(b"],
    "init_lora_weights": ["pissa", "olora", "loftq", "corda", "eva", "lora_ga", "true", 1, None, [True]],
    "revision": ["refs/pr/1", 1],
    "base_model_name_or_path": [3, ["x"]],
    "fan_in_fan_out": ["true", 1],
    "auto_mapping": ["x", True],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
    ids=lambda each: str(each)[:20],
)
def test_a_value_that_is_not_understood_is_refused_in_one_sentence(tmp_path: Path, name: str, value: object) -> None:
    write(tmp_path, {**PLAIN, name: value})
    with pytest.raises(AdapterError, match=f"^{name} of adapter '.*' must be .*, got .*\\. Train it") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_a_field_that_is_needed_is_asked_for(tmp_path: Path, name: str) -> None:
    write(tmp_path, {key: value for key, value in PLAIN.items() if key != name})
    with pytest.raises(AdapterError, match=f"^{name} of adapter '.*' must be in its {CONFIG}, got nothing"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", '{"a": ' * 100_000, ""])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(AdapterError, match="must be readable, got: "):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"target_modules": ".*q_proj", "layers_to_transform": [0]}, {"layers_pattern": "layers"}],
)
def test_what_peft_refuses_is_refused(llama: BaseModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="layers_"):
        save(llama, tmp_path, changes)
    write(tmp_path, {**PLAIN, **changes})
    with pytest.raises(AdapterError, match=r"layers_to_transform of adapter .* must come with"):
        read_config(tmp_path)


@pytest.fixture
def saved(llama: BaseModel, tmp_path: Path) -> Path:
    save(llama, tmp_path / "saved", {})
    return tmp_path / "saved"


EDITS: list[dict[str, Any]] = [  # of a whole adapter's configuration: PEFT then adapts other layers or ranks
    {"target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "down_proj", "up_proj"]}, {"r": 4}, {"r": 1},
    {"layers_to_transform": [0]}, {"exclude_modules": ["q_proj"]}, {"target_modules": "all-linear"},
    {"target_modules": r".*\.q_proj"}, {"target_modules": ["mlp"]}, {"target_modules": ["nothing"]},
    {"layers_to_transform": 7}, {"layers_to_transform": [1], "layers_pattern": "blocks"},
]  # fmt: skip
KEPT: list[dict[str, Any]] = [
    {"lora_alpha": 1}, {"use_rslora": True}, {"lora_alpha": 0.25}, {"target_modules": r".*(q|down)_proj"},
    {"layers_to_transform": [1, 0]}, {"exclude_modules": ["lm_head"]}, {"base_model_name_or_path": "/gone"},
    {"base_model_name_or_path": None}, {"lora_dropout": 1}, {"inference_mode": None},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", EDITS, ids=str)
def test_tensors_that_are_not_what_the_configuration_names_are_refused(
    llama: BaseModel, saved: Path, changes: dict[str, Any]
) -> None:
    edited(saved, changes)
    with pytest.raises(AdapterError, match=r"must hold factors of just the layers|must be a matrix \[\d"):
        by_the_bank(llama, saved)


@pytest.mark.parametrize("changes", KEPT, ids=str)
def test_a_changed_configuration_is_computed_as_peft_computes_it(
    llama: BaseModel, saved: Path, changes: dict[str, Any]
) -> None:
    edited(saved, changes)
    torch.testing.assert_close(by_the_bank(llama, saved), by_peft(llama, saved), rtol=CLOSE, atol=CLOSE)


def edited(folder: Path, changes: dict[str, Any]) -> None:
    write(folder, {**json.loads((folder / CONFIG).read_text()), **changes})


@pytest.mark.parametrize("changes", [{"target_modules": RUNS_ON}, {"exclude_modules": RUNS_ON}], ids=str)
def test_a_pattern_that_would_run_without_end_is_answered(
    llama: BaseModel, saved: Path, changes: dict[str, Any]
) -> None:
    edited(saved, changes)
    if "target_modules" in changes:
        with pytest.raises(AdapterError, match="must hold factors of just the layers"):
            load_bank(llama, [saved])
    else:  # it excludes nothing
        load_bank(llama, [saved]).unwrap()


def test_a_pattern_of_too_much_work_is_refused_with_its_adapter(
    llama: BaseModel, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.models.path_patterns.MAX_PATTERN_STEPS", 100)
    edited(saved, {"target_modules": RUNS_ON})
    with pytest.raises(
        AdapterError, match=r"^adapter '.*saved': a pattern of layers must be matched in at most 100 st"
    ):
        load_bank(llama, [saved])


A = f"base_model.model.{FIRST}.lora_A.weight"
B = A.replace("lora_A", "lora_B")
TENSOR_EDITS: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "NaN": ({A: torch.full((2, 16), torch.nan)}, "must be finite, got NaN or infinity"),
    "infinity": ({B: torch.full((16, 2), torch.inf)}, "must be finite"),
    "one row more": ({A: torch.zeros(3, 16)}, r"must be a matrix \[2, in\] .*, got \[3, 16\] of float32"),
    "both of another rank": ({A: torch.zeros(3, 16), B: torch.zeros(16, 3)}, r"must be a matrix"),
    "another width": ({A: torch.zeros(2, 15)}, r"must have factors of \[r, 16\] and \[16, r\]"),
    "a vector": ({A: torch.zeros(2)}, r"must be a matrix"),
    "four dimensions": ({B: torch.zeros(16, 2, 1, 1)}, r"must be a matrix"),
    "whole numbers": ({A: torch.zeros(2, 16, dtype=torch.int64)}, r"of floating-point numbers, got .* of int64"),
    "no layer": ({A: None, B: None}, f"must hold factors of just the layers .*, got no factors of '{FIRST}'"),
    "no B": ({B: None}, "must have A and B for each layer"),
    "a layer more": (
        {A.replace("q_proj", "v_proj"): torch.zeros(2, 16), B.replace("q_proj", "v_proj"): torch.zeros(16, 2)},
        "must hold factors of just the layers .*, got factors of 'model.layers.0.self_attn.v_proj'",
    ),
    "without a prefix": ({A.removeprefix("base_model.model."): torch.zeros(2, 16)}, "must hold LoRA factors only"),
    "of another name": ({A.replace(".weight", ".default.weight"): torch.zeros(2, 16)}, "must hold LoRA factors only"),
    "an embedding": ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 8)}, "LoRA factors only"),
    "a head": (
        {A.replace(FIRST, "lm_head"): torch.zeros(2, 16), B.replace(FIRST, "lm_head"): torch.zeros(8, 2)},
        "a layer 'lm_head' that is its output head or no linear layer. Train it without",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TENSOR_EDITS)
def test_tensors_that_are_no_whole_factors_are_refused(llama: BaseModel, saved: Path, kind: str) -> None:
    changes, message = TENSOR_EDITS[kind]
    tensors = {**load_file(saved / TENSORS), **changes}
    save_file({name: each for name, each in tensors.items() if each is not None}, saved / TENSORS)
    with pytest.raises(AdapterError, match=message):
        by_the_bank(llama, saved)


def test_paths_that_are_adapted_are_those_of_peft(llama: BaseModel) -> None:
    """Path by path, for every rule at once, against PEFT's own function."""
    from peft.tuners.tuners_utils import check_target_module_exists

    modules = [path for path, _ in llama.model.named_modules()]
    targets = [
        ["q_proj"],
        ["self_attn.q_proj", FIRST],
        ["proj"],
        ["layers"],
        r".*",
        r"model\.layers\.\d+\.mlp\..*",
        ["1"],
    ]
    excluded = [[], ["q_proj"], [FIRST], r".*\.0\..*"]
    blocks = [None, [], 0, [1], [0, 5]]
    patterns: list[Any] = [None, "layers", ["h", "layers"], "mlp"]
    count = 0
    for target in targets:
        for without in excluded:
            for block in blocks if isinstance(target, list) else [None]:
                for pattern in patterns if block or block == 0 else [None]:
                    try:
                        config = LoraConfig(
                            target_modules=target, exclude_modules=without or None, layers_to_transform=block,
                            layers_pattern=pattern,
                        )  # fmt: skip
                    except ValueError:  # layers_pattern beside layer 0, which PEFT takes for none
                        continue
                    mine = AdapterConfig(
                        2, 1.0, None, target if isinstance(target, str) else tuple(target),
                        without if isinstance(without, str) else tuple(without),
                        () if block is None else tuple(block) if isinstance(block, list) else (block,),
                        () if pattern is None else (pattern,) if isinstance(pattern, str) else tuple(pattern),
                    )  # fmt: skip
                    wanted = {path for path in modules if _yes(check_target_module_exists(config, path))}
                    assert mine.adapted(modules, []) == wanted, (target, without, block, pattern)
                    count += 1
    assert count > 100


def _yes(found: object) -> bool:
    return found is True or isinstance(found, re.Match)


def test_every_linear_layer_is_adapted_where_the_configuration_says_so() -> None:
    config = AdapterConfig(2, 1.0, None, ALL_LINEAR, ("b",))
    assert config.adapted(["x", "x.a", "x.b", "head"], ["x.a", "x.b"]) == {"x.a"}
