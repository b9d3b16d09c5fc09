from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from compared_studies import records
from paretune.benchmark.baselines import load_records
from paretune.core.errors import RecordError


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "keep_baseline.py"
    spec = importlib.util.spec_from_file_location("keep_baseline", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_whole_study_is_kept_and_read_again(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "read_study", lambda folder: records({"linear": (0.5, 0.6)}))
    assert recipe.main(["results/small", "small"], tmp_path) == 0
    assert "2 cells of small" in capsys.readouterr().out
    assert [cell.method for cell in load_records(tmp_path / "small.parquet").cells] == ["linear", "linear"]


def test_a_study_with_something_missing_is_not_kept(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = records({"linear": (0.5, 0.6)})
    pending = records({"linear": (0.5, float("nan"))})
    no_timing = replace(whole, missing={"timing/small-linear": "not measured yet"})
    unknown = replace(whole, cells=tuple(replace(cell, made_of={}) for cell in whole.cells))
    for study, why in ((pending, "pending"), (no_timing, "not measured yet"), (unknown, "what it is made of")):
        monkeypatch.setattr(recipe, "read_study", lambda folder, study=study: study)
        with pytest.raises(RecordError, match=f"must be whole.*{why}"):
            recipe.keep(Path("results/small"), tmp_path / "small.parquet")
    assert list(tmp_path.iterdir()) == []


def test_records_too_large_for_the_package_are_not_kept_and_the_former_are(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "read_study", lambda folder: records({"linear": (0.5, 0.6)}))
    monkeypatch.setattr(recipe, "MOST_BYTES", 1000)
    former = tmp_path / "small.parquet"
    former.write_bytes(b"good")
    with pytest.raises(RecordError, match="at most 1,000 bytes in the package"):
        recipe.keep(Path("results/small"), former)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]
