from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from paretune.core.cache import cache_folder
from paretune.core.errors import ModelError, TaskError
from paretune.models.loading import load_base
from paretune.tasks.controlled import store
from paretune.tasks.controlled.settings import ControlledSettings
from paretune.tasks.controlled.store import FILES, draw_prompts, load_instance

SETTINGS = ControlledSettings(alphabet=4, length=3)


@pytest.fixture
def cache_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(folder: Path) -> Path:
        monkeypatch.setenv("PARETUNE_CACHE", str(folder))
        return folder / "controlled"

    return use


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_settings_are_drawn_bit_for_bit_alike(tmp_path: Path, cache_in: Any) -> None:
    drawn = []
    for name, noise in (("one", 1), ("two", 2)):
        cache_in(tmp_path / name)
        torch.manual_seed(noise)  # no global state takes part
        drawn.append(contents(load_instance(SETTINGS).folder))
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) >= set(FILES)


def test_drawing_leaves_the_callers_random_numbers_as_they_are(tmp_path: Path, cache_in: Any) -> None:
    cache_in(tmp_path)
    torch.manual_seed(0)
    load_instance(SETTINGS)  # cold
    first = torch.rand(3)
    torch.manual_seed(0)
    load_instance(SETTINGS)  # warm
    assert torch.equal(torch.rand(3), first)


def test_drawing_says_nothing_and_leaves_the_callers_progress_bars_on(
    tmp_path: Path, cache_in: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", True)
    cache_in(tmp_path)
    load_instance(SETTINGS)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


def test_drawing_is_noted_once_for_whoever_listens(
    tmp_path: Path, cache_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache_in(tmp_path)
    with caplog.at_level("INFO", logger="paretune"):
        load_instance(SETTINGS)
        load_instance(SETTINGS)  # found
    assert caplog.messages == [f"drawing instance 0 of {SETTINGS.name}, once: it is kept in {folder}"]


def test_an_instance_is_drawn_once_and_nothing_else_is_left(tmp_path: Path, cache_in: Any) -> None:
    folder = cache_in(tmp_path)
    made = load_instance(SETTINGS).folder
    stamps = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert load_instance(SETTINGS).folder == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == stamps
    assert [path.name for path in folder.iterdir()] == [made.name]
    load_instance(ControlledSettings(alphabet=4, length=3, seed=1))
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("missing", FILES)
def test_a_half_written_instance_is_drawn_again(missing: str, tmp_path: Path, cache_in: Any) -> None:
    cache_in(tmp_path)
    folder = load_instance(SETTINGS).folder
    whole = contents(folder)
    (folder / missing).unlink()
    store._read.cache_clear()
    assert load_instance(SETTINGS).folder == folder
    assert contents(folder) == whole
    assert load_base(str(folder / "model"), device="cpu").encode("a d") == [0, 3]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("instance.json", "{"),
        ("instance.json", "[]"),
        ("instance.json", '{"beta": 1.0}'),
        ("instance.json", '{"beta": null, "prompts": [[0]]}'),
        ("fields.safetensors", "nothing"),
        ("fields.safetensors", ""),
    ],
)
def test_a_damaged_instance_is_told_with_the_folder_to_remove(
    name: str, damage: str, tmp_path: Path, cache_in: Any
) -> None:
    cache_in(tmp_path)
    folder = load_instance(SETTINGS).folder
    (folder / name).write_text(damage)
    store._read.cache_clear()
    with pytest.raises(TaskError, match=rf"must be readable, got \w+: .* in {folder}\. Remove that folder"):
        load_instance(SETTINGS)
    shutil.rmtree(folder)
    assert load_instance(SETTINGS).beta > 0  # as advised


def test_a_damaged_model_is_told_with_its_folder(tmp_path: Path, cache_in: Any) -> None:
    cache_in(tmp_path)
    folder = load_instance(SETTINGS).folder
    (folder / "model" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=str(folder)):
        load_base(str(folder / "model"), device="cpu")


@pytest.mark.parametrize("inside", ["file", "file/deeper"])
def test_a_cache_folder_that_cannot_be_written_is_one_clear_error(inside: str, tmp_path: Path, cache_in: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    cache_in(tmp_path / inside)
    message = r"instances of controlled tasks must find room in .*file.*got .*name another folder.*PARETUNE_CACHE\."
    with pytest.raises(TaskError, match=message):
        load_instance(SETTINGS)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, cache_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache_in(tmp_path)

    def full(arrays: object, path: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(TaskError, match=r"must find room in .*No space left on device"):
        load_instance(SETTINGS)
    assert list(folder.iterdir()) == []


def test_the_slower_of_two_that_draw_at_once_takes_the_others(
    tmp_path: Path, cache_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache_in(tmp_path)
    draw, others = store._draw, []

    def drawn_while_another_draws(settings: ControlledSettings, made: Path) -> None:
        draw(settings, made)
        monkeypatch.setattr(store, "_draw", draw)
        others.append(load_instance(settings).folder)  # begins later and is faster
        (others[0] / "mark").touch()

    monkeypatch.setattr(store, "_draw", drawn_while_another_draws)
    assert load_instance(SETTINGS).folder == others[0]
    assert (others[0] / "mark").exists()
    assert list(folder.iterdir()) == others


@pytest.mark.slow
def test_processes_that_draw_at_once_get_one_instance(tmp_path: Path, cache_in: Any) -> None:
    folder = cache_in(tmp_path)
    code = (
        "from paretune.tasks import load_task; "
        "print(load_task({'controlled': {'alphabet': 4, 'length': 3}}).training_key())"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(3)]
    told = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(told) == 1
    assert len(list(folder.iterdir())) == 1


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for value in ("", None):
        monkeypatch.setenv("PARETUNE_CACHE", value) if value is not None else monkeypatch.delenv("PARETUNE_CACHE")
        assert cache_folder("controlled") == tmp_path / ".cache" / "paretune" / "controlled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("controlled") == tmp_path / "xdg" / "paretune" / "controlled"
    monkeypatch.setenv("PARETUNE_CACHE", "~/elsewhere")
    assert cache_folder("controlled") == tmp_path / "elsewhere" / "controlled"


def test_the_file_of_an_instance_says_what_it_is(tmp_path: Path, cache_in: Any) -> None:
    cache_in(tmp_path)
    made = load_instance(SETTINGS)
    plain = json.loads((made.folder / "instance.json").read_text())
    assert plain["settings"] == SETTINGS.plain()
    assert plain["beta"] == made.beta == made.fields.scale
    assert np.array_equal(plain["prompts"], made.prompts)


@pytest.mark.parametrize("alphabet", [3, 4, 8, 16])
def test_there_are_prompts_enough_for_every_alphabet(alphabet: int) -> None:
    settings = ControlledSettings(alphabet=alphabet, length=1)
    drawn = draw_prompts(settings, np.random.default_rng(0))
    assert drawn.shape == (48, settings.prompt_length)
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 48
    assert drawn.max() < alphabet
