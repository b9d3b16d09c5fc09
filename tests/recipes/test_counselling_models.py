import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


def start(root: Path, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(root / "recipes" / "counselling_models" / script), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(root / "src"), **environment}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_recipe_runs_and_gives_the_same_files_twice(root: Path, tmp_path: Path) -> None:
    first = start(root, "train.py", "--tiny", "--output", str(tmp_path / "first"), PYTHONHASHSEED="1")
    second = start(root, "train.py", "--tiny", "--output", str(tmp_path / "second"), PYTHONHASHSEED="2")
    printed = finish(first)
    finish(second)
    written = digests(tmp_path / "first")
    assert written == digests(tmp_path / "second")
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(written) == {f"{folder}/{name}" for folder in ("base", "fluency_judge") for name in names}
    assert "reply loss" in printed
    assert "left" in printed


def test_the_measurement_prints_every_objective_and_the_kinds(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = root / "recipes" / "counselling_models" / "measure.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--tiny"])
    runpy.run_path(
        str(script), run_name="__main__"
    )  # here rather than in a process of its own: torch is loaded already
    printed = capsys.readouterr().out
    assert "8 replies to 4 development prompts" in printed
    assert all(f"  {name}" in printed for name in ("reflection", "empathy", "brevity", "fluency"))
    assert "kinds: " in printed


def test_the_validation_counts_pairs_that_are_ranked_as_rated(root: Path, tmp_path: Path) -> None:
    replies = [("You keep calling your sister.", 1), ("Stop calling your sister.", 0), ("Nice weather.", 0)]
    row = {
        "prompt": "I keep calling my sister.",
        "responses": [{"text": text, "level": level} for text, level in replies],
    }
    (tmp_path / "rated.jsonl").write_text(json.dumps(row))
    assert "level 1 above level 0: 1.000 of 2 pairs" in finish(start(root, "validate.py", "--data", str(tmp_path)))


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[str, Path]:
    package = root / "src" / "paretune"
    return {"base": package / "tasks/counselling/base", "judge": package / "objectives/fluency_judge"}


def test_the_shipped_models_fit_in_four_megabytes(folders: dict[str, Path]) -> None:
    assert sum(path.stat().st_size for folder in folders.values() for path in folder.iterdir()) < 4e6


@pytest.mark.parametrize("name", ["base", "judge"])
def test_a_shipped_model_loads_with_a_tokenizer_that_adds_nothing_and_encodes_everything(
    folders: dict[str, Path], name: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    for text in ("Client: I'm tired.\nCounselor:", "Zürich, 7 Uhr: 我很难过 🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert not set(tokenizer(text)["input_ids"]) & {tokenizer.pad_token_id, tokenizer.eos_token_id}
    assert tokenizer("")["input_ids"] == []
