from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from paretune.core.digests import canonical_json, digest, file_digest, folder_digest, model_digest
from paretune.core.errors import ConfigError, ModelError


def test_equal_content_has_equal_text_whatever_its_order_and_kind() -> None:
    assert canonical_json({"b": (1, 2.0), "a": {3, 1}}) == canonical_json({"a": [1, 3], "b": [1.0, 2]})
    assert canonical_json({"b": [1, 2], "a": None}) == '{"a":null,"b":[1,2]}'
    assert canonical_json(Path("x/y")) == '"x/y"'


def test_numbers_are_exact() -> None:
    assert digest(0.1 + 0.2) != digest(0.3)
    assert digest(1e300) != digest(1.0000000000000002e300)
    assert digest(2**60) != digest(2**60 + 1)
    assert digest(True) != digest("true")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"rate": -math.inf}])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="finite numbers, got"):
        digest(value)


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="plain data, got object"):
        digest({"x": object()})


def test_a_digest_is_the_same_on_every_machine_and_in_every_version() -> None:
    # sha256 of '{"a":[1,2]}', computed by another program
    assert digest({"a": [1, 2]}, 64) == "01530d164d479cf08e26d3b1ad9bdba927120d97e2d057a6d792db778780d720"


def test_a_folder_digest_sees_names_and_content_of_the_files_that_count(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "note.md").write_text("x")
    before = folder_digest(tmp_path, [".json"])
    (tmp_path / "note.md").write_text("y")
    assert folder_digest(tmp_path, [".json"]) == before
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    renamed = folder_digest(tmp_path, [".json"])
    (tmp_path / "b.json").write_text("[]")
    assert len({before, renamed, folder_digest(tmp_path, [".json"])}) == 3
    assert file_digest(tmp_path / "note.md", 64) == (
        "a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa"  # sha256 of "y"
    )


def model_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"parameters")
    return folder


def test_a_model_is_known_by_its_files_wherever_it_lies(tmp_path: Path) -> None:
    one, other = model_folder(tmp_path / "one"), model_folder(tmp_path / "other")
    assert model_digest(str(one)) == model_digest(str(other))


def test_a_changed_model_has_another_digest_in_the_same_process(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    before = model_digest(str(folder))
    (folder / "model.safetensors").write_bytes(b"PARAMETERS")  # as many bytes as before
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert model_digest(str(folder)) != before


def test_a_hub_id_stands_for_itself() -> None:
    assert model_digest("owner/name") == model_digest("owner/name") != model_digest("owner/other")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder with a config.json, got"):
        model_digest(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"must hold safetensors files, got none"):
        model_digest(str(tmp_path))
