"""Tiny models of the micro-task, loaded once; whatever a test wraps is unwrapped after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import micro_task

if TYPE_CHECKING:
    from paretune.models.base import BaseModel


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by kind."""
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": micro_task.save_model(root / "llama"),
        "gpt2": micro_task.save_model(root / "gpt2", "gpt2"),
        "qwen2": micro_task.save_model(root / "qwen2", "qwen2"),
        "falcon": micro_task.save_model(root / "falcon", "falcon"),
        "mistral": micro_task.save_model(root / "mistral", "mistral", sliding_window=4),
    }


def load(folder: Path) -> BaseModel:
    from paretune.models.loading import load_base

    return load_base(str(folder), device="cpu")


def released(base: BaseModel) -> Iterator[BaseModel]:
    from paretune.models.loading import unwrap

    yield base
    unwrap(base)


@pytest.fixture
def llama(folders: dict[str, Path]) -> Iterator[BaseModel]:
    yield from released(load(folders["llama"]))


@pytest.fixture(params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BaseModel]:
    """Models of `Linear` and of `Conv1D` layers."""
    yield from released(load(folders[request.param]))


@pytest.fixture(params=["llama", "gpt2", "qwen2"])
def blockwise(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BaseModel]:
    """The kinds of models whose hidden states can be mixed behind any block."""
    yield from released(load(folders[request.param]))


@pytest.fixture(params=["llama", "gpt2", "mistral", "falcon"])
def any_base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BaseModel]:
    """Also one whose layers attend to a window of four tokens, and one that tells positions by distance (alibi)."""
    yield from released(load(folders[request.param]))
