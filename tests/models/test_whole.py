"""Models that transformers would load without a word, and must not: gaps filled at random, leftovers dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import micro_task
import model_folders
from paretune.core.errors import ModelError
from paretune.models.loading import load_base, look_at_base
from paretune.objectives.reward_models import RewardModel

Tensors = dict[str, Tensor]


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if not any(each in name for each in names)}


def extra(name: str, value: Tensor | None = None) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.zeros(3) if value is None else value}


def with_value(name: str, value: float) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensors[name].view(-1)[3] = value
        return tensors

    return change


def shorter(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: tensors[name][:-1].contiguous()}


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("lm_head"), r"must be a whole causal language model, got .* without lm_head\.weight\. Save it with"),
        (without("embed_tokens"), r"without model\.embed_tokens\.weight\."),
        (without("layers.1."), r"without model\.layers\.1\..* and \d+ more\."),
        (shorter(NORM), rf"shapes that its config.json asks for, got {NORM} of \[15\] in place of \[16\] in"),
        (extra("model.layers.0.attn.bias"), r"no others, got .* with model\.layers\.0\.attn\.bias\."),
        (extra("foo.attention.bias"), r"no others, got .* with foo\.attention\.bias\."),
        (extra("model.layers.0.attn.masked_bias"), r"no others, got .* with model\.layers\.0\.attn\.masked_bias\."),
        (extra("foo.inv_freq"), r"no others, got .* with foo\.inv_freq\."),
        (extra("score.weight"), r"\(LlamaForCausalLM\) and no others, got .* with score\.weight\."),
        (extra("model.layers.2.mlp.up_proj.weight"), r"no others, got .* with model\.layers\.2\.mlp"),
        (with_value(NORM, float("nan")), rf"must have finite parameters, got NaN or infinity in {NORM} of"),
        (with_value("lm_head.weight", float("-inf")), r"got NaN or infinity in lm_head\.weight of"),
    ],
)
def test_a_model_that_is_not_whole_is_refused(
    tmp_path: Path, change: Callable[[Tensors], Tensors], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    rewrite(folder, change)
    capfd.readouterr()
    with pytest.raises(ModelError, match=said):
        load_base(str(folder), device="cpu")
    assert capfd.readouterr() == ("", "")  # one sentence, and no table of transformers beside it


def test_tied_parameters_are_held_once_and_buffers_of_old_files_are_dropped(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    rewrite(folder, extra("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)))
    base = load_base(str(folder), device="cpu")
    assert base.model.lm_head.weight is base.model.model.embed_tokens.weight


def old_gpt2(folder: Path, name: str, value: Tensor) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    micro_task.save_model(folder)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=24, vocab_size=8, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    rewrite(folder, extra(name, value))
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transformer.h.0.attn.bias", torch.ones(1, 1, 24, 24, dtype=torch.bool).tril()),
        ("h.0.attn.bias", torch.ones(1, 1, 24, 24).tril()),
        ("transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
    ],
)
def test_masks_of_old_files_are_dropped_for_the_kinds_that_had_them(tmp_path: Path, name: str, value: Tensor) -> None:
    load_base(str(old_gpt2(tmp_path, name, value)), device="cpu")


@pytest.mark.parametrize("name", ["transformer.h.0.attn.bias", "foo.attn.bias", "transformer.h.0.mlp.inv_freq"])
def test_what_is_no_mask_is_not_dropped(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"and no others, got .* {name}"):
        load_base(str(old_gpt2(tmp_path, name, torch.ones(16))), device="cpu")


@pytest.mark.parametrize("kept", ["<end> a b c d e f", "<end>"])
def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path: Path, kept: str) -> None:
    rows = len(kept.split())
    folder = micro_task.save_model(tmp_path / "model", vocab_size=rows)
    with pytest.raises(ModelError, match=rf"an embedding for each id of its tokenizer, got {rows} for ids up to 7 in"):
        load_base(str(folder), device="cpu")


def test_a_padding_token_that_was_added_and_never_trained_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = micro_task.save_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="for each id of its tokenizer, got 8 for ids up to 8 in"):
        load_base(str(folder), device="cpu")


def test_a_length_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": "24"}))
    with pytest.raises(ModelError, match="must have a number as model_max_length, got '24'"):
        load_base(str(folder), device="cpu")


def test_an_end_token_that_is_no_id_is_refused(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    base = load_base(str(folder), device="cpu")
    base.model.generation_config.eos_token_id = {"a": 1}
    base.__dict__.pop("end_ids", None)
    with pytest.raises(ModelError, match=r"eos_token_id of model .* must be token ids, got \{'a': 1\}"):
        base.end_ids


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (999, r"must be ids of its 8 tokens, got 999\."),
        ([0, 8], r"must be ids of its 8 tokens, got 8\."),
        (-1, r"must be ids of its 8 tokens, got -1\."),
        ([], r"must name the token that ends a text, got \[\] beside the eos_token '<end>' of its tokenizer\."),
        ("x", "must be token ids, got 'x'"),
        (True, "must be token ids, got True"),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_end_token_that_cannot_occur_is_refused(tmp_path: Path, file: str, named: object, said: str) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    (folder / "generation_config.json").unlink()
    content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**content, "eos_token_id": named}))
    for load in (load_base, look_at_base):
        with pytest.raises(ModelError, match=f"{said}|must be a folder or hub id .*eos_token_id"):
            load(str(folder))


def test_a_model_says_where_its_texts_end_or_that_they_never_do(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model", eos_token_id=None)
    (folder / "generation_config.json").write_text("{}")
    assert load_base(str(folder), device="cpu").end_ids == (micro_task.END,)  # of the tokenizer
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "unheard-of"}))
    with pytest.raises(ModelError, match=r"must be ids of its 8 tokens, got 8\."):
        load_base(str(folder), device="cpu")
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": None}))
    with pytest.raises(ModelError, match=r"must name an end-of-text token, got none in .* or \[\] there if each"):
        load_base(str(folder), device="cpu")
    (folder / "generation_config.json").write_text('{"eos_token_id": []}')
    assert load_base(str(folder), device="cpu").end_ids == ()


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"^model must"):
        load_base(str(folder), device="cpu")


@pytest.mark.parametrize("change", [{"hidden_size": "wide"}, {"num_hidden_layers": 3}, {"model_type": "unheard-of"}])
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=r"^model must") as refused:
        load_base(str(folder), device="cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": "wide"}, r"\(\w+: .*'vocab_size'.*wide.*\)\. Check"),
        ({"hidden_act": "zzz"}, r"\(KeyError: .*'zzz'.*\)\. Check"),
        ({"num_attention_heads": 0}, r"\(ZeroDivisionError: integer .* zero\)\. Check"),
        ({"dtype": "b" * 900}, r"\(\w+: .* \.\.\.\)\. Check"),
    ],
)
def test_what_transformers_says_is_kept_with_its_kind(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said) as refused:
        load_base(str(folder), device="cpu")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 900


def test_names_and_shapes_alone_tell_what_lacks(tmp_path: Path) -> None:
    folder = micro_task.save_model(tmp_path / "model")
    look_at_base(str(folder))
    rewrite(folder, without("lm_head"))
    with pytest.raises(ModelError, match=r"without lm_head\.weight\."):
        look_at_base(str(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("score"), r"^reward model must be a whole sequence classifier, got .* without score\.weight\."),
        (without("layers.0.mlp"), r"^reward model must be a whole sequence classifier"),
        (extra("lm_head.weight"), r"no others, got .* with lm_head\.weight\."),
        (with_value("score.weight", float("nan")), r"^reward model must have finite parameters"),
    ],
)
def test_a_reward_model_is_whole_or_refused(tmp_path: Path, change: Callable[[Tensors], Tensors], said: str) -> None:
    rewrite(model_folders.save_classifier(tmp_path), change)
    with pytest.raises(ModelError, match=said):
        RewardModel(str(tmp_path))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast"])
def test_gelu_that_is_written_out_is_one_kernel_of_equal_values_and_slopes(activation: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.activations import ACT2FN

    from paretune.tasks.controlled.model import save_model

    save_model(4, np.random.default_rng(0), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "activation_function": activation}))
    model, theirs = load_base(str(tmp_path), device="cpu").model, AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs.transformer.h[0].mlp.act) is type(ACT2FN[activation])
    assert all(type(block.mlp.act) is torch.nn.GELU for block in model.transformer.h)
    x = torch.linspace(-12, 12, 481, requires_grad=True)
    own, written = model.transformer.h[0].mlp.act, ACT2FN[activation]
    torch.testing.assert_close(own(x), written(x), rtol=1e-6, atol=1e-6)
    slopes = [torch.autograd.grad(each(x).sum(), x)[0] for each in (own, written)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=3e-6)
    ids = torch.tensor([[0, 3, 1, 2]])
    torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
