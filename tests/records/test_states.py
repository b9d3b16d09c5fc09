"""A state holds its own digest: every byte of it counts."""

import json
import random

import numpy as np
import pytest
from safetensors.numpy import save_file

from paretune.core.errors import RecordError
from paretune.records.states import DIGEST, UNSEALED, seal_state, state_trouble


def sealed(path):
    save_file(
        {"a": np.arange(6.0), "b": np.ones(2)}, path, metadata={"state": json.dumps({"made": 8}), DIGEST: UNSEALED}
    )
    seal_state(path)
    return path


def test_a_sealed_state_is_whole_and_any_flipped_bit_shows(tmp_path):
    path = sealed(tmp_path / "state.safetensors")
    assert state_trouble(path) == ""
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        assert state_trouble(path) == "has changed since it was written"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff" * 40])
def test_what_was_never_a_state_shows(tmp_path, content):
    (tmp_path / "state.safetensors").write_bytes(content)
    assert state_trouble(tmp_path / "state.safetensors") == "has changed since it was written"


def test_a_missing_state_cannot_be_read(tmp_path):
    assert state_trouble(tmp_path / "none").startswith("cannot be read (No such file")


def test_a_file_without_room_for_its_digest_is_refused(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(RecordError, match="must have room for its digest"):
        seal_state(tmp_path / "plain.safetensors")
    sealed(tmp_path / "twice")
    with pytest.raises(RecordError, match="must have room for its digest"):
        seal_state(tmp_path / "twice")
