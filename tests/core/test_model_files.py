from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from paretune.core.errors import ModelError
from paretune.core.model_files import INDEX, SINGLE, check_model_files

CONFIG = {"model_type": "llama"}


def folder_with(folder: Path, **changes: object) -> Path:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file({"a": np.zeros(3, np.float32)}, folder / SINGLE)
    return folder


def sharded(folder: Path) -> Path:
    folder_with(folder)
    (folder / SINGLE).unlink()
    for name in ("one", "two"):
        save_file({name: np.zeros(3, np.float32)}, folder / f"{name}.safetensors")
    shards = {name: f"{name}.safetensors" for name in ("one", "two")}
    (folder / INDEX).write_text(json.dumps({"weight_map": shards}))
    return folder


def test_whole_folders_and_hub_ids_pass(tmp_path: Path) -> None:
    check_model_files(str(folder_with(tmp_path)))
    check_model_files(str(sharded(tmp_path)))
    check_model_files("owner/name")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": None}, r"model must name its model_type, got None in .*config\.json"),
        ({"model_type": 3}, r"model must name its model_type, got 3"),
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, r"got code of its own \(auto_map\) in"),
        ({"quantization_config": {"quant_method": "foo"}}, r"must hold its parameters as they are, got .*'foo'"),
        ({"quantization_config": "foo"}, r"must hold its parameters as they are, got a quantization_config 'foo' in"),
        ({"text_config": {"quantization_config": {}}}, r"must hold its parameters as they are, got .* {} in"),
        ({"is_encoder_decoder": True}, r"model must be a decoder, got an encoder-decoder of model_type 'llama'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_model_files(str(folder_with(tmp_path, **change)))


@pytest.mark.parametrize("name", ["generation_config", "tokenizer_config", "special_tokens_map", "added_tokens"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe{", b"3"])
def test_a_damaged_file_beside_the_configuration_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder_with(tmp_path)
    (tmp_path / f"{name}.json").write_bytes(b"{}")
    check_model_files(str(tmp_path))
    (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^model must have (a readable|keys and values in) '.*{name}\.json'"):
        check_model_files(str(tmp_path))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_, np.int64, np.float64])
def test_parameters_that_are_no_floats_of_a_known_kind_are_refused(tmp_path: Path, dtype: type) -> None:
    folder_with(tmp_path)
    save_file({"a": np.zeros(3, np.float16), "model.norm.weight": np.ones(3, dtype)}, tmp_path / SINGLE)
    with pytest.raises(ModelError, match=r"^model must hold .* got \w+ in model\.norm\.weight of .*Save it"):
        check_model_files(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "name", "shape", "dtype"),
    [
        ("gpt2", "h.0.attn.bias", (1, 1, 4, 4), np.bool_),
        ("gpt2", "transformer.h.11.attn.bias", (1, 1, 4, 4), np.uint8),
        ("gpt_neo", "transformer.h.0.attn.attention.bias", (1, 1, 4, 4), np.uint8),
        ("gpt_neox", "gpt_neox.layers.3.attention.bias", (1, 1, 4, 4), np.bool_),
        ("bert", "bert.embeddings.position_ids", (1, 8), np.int64),
    ],
)
def test_masks_and_positions_of_old_files_are_no_parameters(
    tmp_path: Path, kind: str, name: str, shape: tuple[int, ...], dtype: type
) -> None:
    folder_with(tmp_path, model_type=kind)
    save_file({name: np.ones(shape, dtype)}, tmp_path / SINGLE)
    check_model_files(str(tmp_path))
    folder_with(tmp_path, model_type="llama" if kind != "bert" else "gpt2")
    save_file({name: np.ones(shape if kind != "bert" else 8, dtype)}, tmp_path / SINGLE)
    with pytest.raises(ModelError, match="must hold its parameters in"):
        check_model_files(str(tmp_path))


def test_a_reward_model_may_be_an_encoder_decoder(tmp_path: Path) -> None:
    check_model_files(str(folder_with(tmp_path, is_encoder_decoder=True)), "reward model")
    with pytest.raises(ModelError, match=r"^reward model must name its model_type"):
        check_model_files(str(folder_with(tmp_path, model_type=None)), "reward model")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\ud800"])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    folder_with(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match=r"^model must have (a readable|keys and values in) '.*config\.json'"):
        check_model_files(str(tmp_path))


def truncated(content: bytes) -> bytes:
    return content[:-1]


def longer(content: bytes) -> bytes:
    return content + b"\0"


def empty(content: bytes) -> bytes:
    return b""


def long_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2**62) + content[8:]


def no_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2) + b"[]" + content[8:]


def flipped(content: bytes) -> bytes:
    return content[:9] + b"\xff" + content[10:]


@pytest.mark.parametrize("damage", [truncated, longer, empty, long_header, no_header, flipped])
@pytest.mark.parametrize("kind", [folder_with, sharded])
def test_a_damaged_parameter_file_is_refused(
    tmp_path: Path, kind: Callable[[Path], Path], damage: Callable[[bytes], bytes]
) -> None:
    file = sorted(kind(tmp_path).glob("*.safetensors"))[-1]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=rf"^model must have whole parameter files, got .* in '.*{file.name}'\. Copy"):
        check_model_files(str(tmp_path))


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    (sharded(tmp_path) / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"must have all 2 files of its parameters, got .* without two\.safetensors"):
        check_model_files(str(tmp_path))


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {"a": 1}}])
def test_an_index_without_shards_is_refused(tmp_path: Path, index: object) -> None:
    (sharded(tmp_path) / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="must name its shards in weight_map"):
        check_model_files(str(tmp_path))


def test_an_adapter_folder_is_no_model(tmp_path: Path) -> None:
    (folder_with(tmp_path) / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"must be a whole model, got an adapter in .*Merge it"):
        check_model_files(str(tmp_path))
