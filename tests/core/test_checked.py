from __future__ import annotations

from pathlib import Path

import pytest

from paretune.core.checked import note_checked, versions, was_checked


def test_what_was_noted_is_found_in_its_group_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    assert not was_checked("models", "a")
    note_checked("models", "a")
    assert was_checked("models", "a")
    assert not was_checked("models", "b")
    assert not was_checked("others", "a")


def test_a_cache_that_cannot_be_written_notes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    note_checked("models", "a")
    assert not was_checked("models", "a")


def test_versions_name_what_runs_models() -> None:
    import torch
    import transformers

    assert versions().split()[:2] == [torch.__version__, transformers.__version__]
