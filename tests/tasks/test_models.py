from __future__ import annotations

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import micro_task
import model_folders
import paretune
from paretune.core.cache import cache_folder
from paretune.core.errors import ModelError
from paretune.core.task import Task
from paretune.tasks import load_task, models
from paretune.tasks.models import check_models


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    return micro_task.load(tmp_path / "task")


def drop(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {each: value for each, value in tensors.items() if name not in each}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_is_looked_at_once_until_it_changes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    check_models([task, task])
    seen: list[object] = []
    monkeypatch.setattr(models, "_check", lambda roles: seen.extend(roles) or "")
    check_models([task])
    assert seen == []
    micro_task.save_model(Path(task.model), seed=1)
    check_models([task])
    assert seen == [(False, task.model)]


def test_models_of_the_package_and_hub_ids_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_check", lambda roles: pytest.fail("loaded"))
    controlled = load_task({"controlled": {"alphabet": 4, "length": 3}})
    check_models([load_task("counselling"), controlled.instance(0)])


def test_a_plan_refuses_a_base_model_without_its_head(task: Task, tmp_path: Path) -> None:
    drop(Path(task.model), "lm_head")
    study = {"tasks": [str(tmp_path / "task" / "task.yaml")], "methods": {"linear": {}}, "budget": {"completions": 64}}
    with pytest.raises(ModelError, match=r"must be a whole causal language model, got .* without lm_head\.weight"):
        paretune.plan(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("group", ["objectives", "audit"])
def test_a_plan_refuses_a_reward_model_without_its_head(task: Task, tmp_path: Path, group: str) -> None:
    file = tmp_path / "task" / "task.yaml"
    model_folders.save_classifier(tmp_path / "task" / "judge")
    drop(tmp_path / "task" / "judge", "score")
    if group == "audit":
        file.write_text(file.read_text() + "audit:\n")
    file.write_text(file.read_text() + "  judged: {reward: ./judge}\n")
    study = {"tasks": [str(file)], "methods": {"linear": {}}, "budget": {"completions": 64}}
    with pytest.raises(ModelError, match=r"reward model must be a whole sequence classifier, got .* without score"):
        paretune.plan(study, tmp_path / "out")


def test_without_torch_another_process_looks(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        check_models([task])
        assert "torch" not in sys.modules
    assert list(cache_folder("models").iterdir())


def test_a_process_that_dies_while_looking_is_one_error(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "__name__", "paretune.no_such_module")
    with pytest.raises(ModelError, match=r"models .*model must load in a process of their own, got exit code 1 \("):
        models._check_apart([(False, task.model)])
