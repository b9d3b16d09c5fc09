from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from paretune.core.errors import ConfigError, ModelError
from paretune.core.model_config import (
    SMALL_MODEL_PARAMETERS,
    block_count,
    check_block,
    check_block_of,
    check_gate_block_of,
    context_limit,
    is_small,
    parameter_count,
)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),  # GPT-2's older name
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": 77, "text_config": {"max_position_embeddings": 4096}}, 4096),  # the text's counts
        ({"max_position_embeddings": 2048, "text_config": None}, 2048),
        ({"text_config": {}}, None),
        ({}, None),  # as ALiBi models, which have none
    ],
)
def test_context_is_what_the_configuration_of_the_text_model_says(
    config: Mapping[str, object], limit: int | None
) -> None:
    assert context_limit(config) == limit


@pytest.mark.parametrize("limit", [True, False, 0, -5, "24", 24.5, [24]])
def test_a_context_that_is_no_number_of_tokens_is_refused(limit: object) -> None:
    for config in ({"max_position_embeddings": limit}, {"text_config": {"n_positions": limit}}):
        with pytest.raises(
            ModelError, match=r"_?positions?.* must be a whole number of tokens from 1 on, got .*config"
        ):
            context_limit(config)


def write_header(file: Path, *shapes: list[int]) -> None:
    entries = {str(index): {"dtype": "F16", "shape": shape} for index, shape in enumerate(shapes)}
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)  # no tensor data: they are not read


def test_parameters_are_counted_from_the_header_alone(tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", [3, 4], [])
    assert parameter_count(tmp_path / "model.safetensors") == 13


def test_a_model_is_small_by_the_parameters_of_all_its_files(tmp_path: Path) -> None:
    write_header(tmp_path / "model-00001-of-00002.safetensors", [SMALL_MODEL_PARAMETERS - 5])
    assert is_small(str(tmp_path))
    write_header(tmp_path / "model-00002-of-00002.safetensors", [5])
    assert not is_small(str(tmp_path))


@pytest.mark.parametrize("damage", [b"x", struct.pack("<Q", 4) + b"{{{{", struct.pack("<Q", 12) + b'{"a": {"b":1'])
def test_a_model_of_unknown_size_is_not_small(damage: bytes, tmp_path: Path) -> None:
    assert not is_small("owner/name")
    (tmp_path / "model.safetensors").write_bytes(damage)
    assert not is_small(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "block", "found"),
    [
        ({"model_type": "llama", "num_hidden_layers": 4}, None, 3),
        ({"model_type": "qwen2", "num_hidden_layers": 4}, 0, 0),
        ({"model_type": "gpt2", "n_layer": 12}, 11, 11),
        ({"model_type": "gpt2", "n_layer": 12}, -1, 11),
        ({"model_type": "gpt2", "n_layer": 12}, -12, 0),
    ],
)
def test_states_are_mixed_behind_the_block_that_is_named_or_the_last(
    config: Mapping[str, object], block: int | None, found: int
) -> None:
    assert check_block(config, "model", block) == found


@pytest.mark.parametrize(
    ("config", "block", "message"),
    [
        (
            {"model_type": "llama", "num_hidden_layers": 4},
            4,
            "one of the model's 4 blocks, 0 to 3 or, from the last, -1 to -4, got 4 for 'mine'",
        ),
        ({"model_type": "llama", "num_hidden_layers": 4}, -5, "got -5 for 'mine'. Name one of them"),
        (
            {"model_type": "t5", "num_hidden_layers": 4},
            0,
            r"mixed \(gpt2, llama, qwen2\), got model_type 't5' in 'mine'",
        ),
        ({"model_type": "gpt2"}, 0, "got model_type 'gpt2' in 'mine'. Mix adapters or log-probabilities"),
        ({}, None, "got model_type 'None'"),
    ],
)
def test_kinds_and_blocks_whose_states_cannot_be_mixed_are_refused(
    config: Mapping[str, object], block: int | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check_block(config, "mine", block)


def test_a_folder_is_checked_and_a_hub_id_waits_until_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "falcon", "num_hidden_layers": 2}')
    with pytest.raises(ModelError, match="got model_type 'falcon'"):
        check_block_of(str(tmp_path), None)
    check_block_of("some/model", None)


def test_blocks_are_counted_by_whatever_name_they_go() -> None:
    for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        assert block_count({name: 3}) == 3
    assert block_count({"num_hidden_layers": 9, "text_config": {"num_hidden_layers": 4}}) == 4  # the text's count
    assert block_count({"num_layers": "many"}) is None


def test_a_block_that_a_gate_cannot_read_is_refused_where_the_model_says_how_many_there_are(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"n_layer": 2}')
    for block in (0, 1):
        check_gate_block_of(str(tmp_path), block)
    for block in (-1, 2):
        with pytest.raises(ConfigError, match=rf"gate_block must be one of the model's 2 blocks, 0\.\.1, got {block}"):
            check_gate_block_of(str(tmp_path), block)
    config.write_text("{}")
    check_gate_block_of(str(tmp_path), 2)
    check_gate_block_of("some/model", 2)
