from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from paretune.models.tensor_files import write_tensors

CODE = """
import sys, torch
from paretune.models.tensor_files import write_tensors
names = sys.argv[2].split()
tensors = {name: torch.arange(len(name), dtype=torch.float32) for name in names}
write_tensors(__import__("pathlib").Path(sys.argv[1]), tensors, {name: name * 2 for name in names})
"""


def test_equal_content_is_an_equal_file_in_any_process_and_order(tmp_path: Path) -> None:
    names = "alpha be gamma d epsilon zeta eta theta iota kappa".split()
    here, there = tmp_path / "here", tmp_path / "there"
    subprocess.run([sys.executable, "-c", CODE, str(there), " ".join(names)], check=True)
    tensors = {name: torch.arange(len(name), dtype=torch.float32) for name in reversed(names)}
    write_tensors(here, tensors, {name: name * 2 for name in reversed(names)})
    assert here.read_bytes() == there.read_bytes()


@settings(max_examples=20)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_what_was_written_is_read_by_the_library(tmp_path_factory: object, metadata: dict[str, str]) -> None:
    file = tmp_path_factory.mktemp("file") / "inner" / "x"  # type: ignore[attr-defined]
    tensors = {
        "a": torch.arange(3.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)[:, ::2], "ü": torch.zeros(0),
        "c": torch.tensor(1),
    }  # fmt: skip
    write_tensors(file, tensors, metadata)
    with safe_open(file, "pt") as found:
        assert found.metadata() == metadata
        assert list(found.metadata()) == list(found.metadata())
        assert all(found.get_tensor(name).equal(tensor) for name, tensor in tensors.items())
        assert set(found.keys()) == set(tensors)
