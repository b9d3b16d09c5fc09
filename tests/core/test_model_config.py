from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from paretune.core.model_config import SMALL_MODEL_PARAMETERS, context_limit, is_small, parameter_count


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
