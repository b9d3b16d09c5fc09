"""What a model reads for the prompts of a task: one way to encode them, from the plan to a saved policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chat_tokenizer
import micro_task
from chat_tokenizer import BEGIN, TURN
from paretune.core.errors import TaskError
from paretune.core.prompt_format import PromptEncoder, PromptFormat
from paretune.core.task import Task
from paretune.tasks import load_task
from paretune.tasks.checks import check_prompts, first_input, input_line, plain_encoder

TASK = {
    "model": "./model", "template": chat_tokenizer.TEMPLATE, "max_prompt_tokens": 24, "max_completion_tokens": 2,
    "prompts": {"train": "train.jsonl", "development": "dev.jsonl", "test": "test.jsonl"},
    "objectives": {"brevity": {"reward": "brevity"}},
}  # fmt: skip
PROMPTS = {"train": ["hello", "a </s> b"], "dev": ["ho"], "test": ["hi", "hm"]}


def task_in(folder: Path, adds: str = "begin", **keys: Any) -> Task:
    chat_tokenizer.save_model(folder / "model", adds)
    for name, prompts in PROMPTS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
    (folder / "task.yaml").write_text(json.dumps({**TASK, **keys}))
    return load_task(str(folder / "task.yaml"))


def test_plan_training_evaluation_and_a_saved_policy_read_one_input(tmp_path: Path) -> None:
    from paretune.methods.training import one_by_one, prompts
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.rl.evaluation import reference_policy

    task = task_in(tmp_path)
    base = load_base(task.model, device="cpu")
    trained = prompts(base, task, "train").prompt_ids
    assert trained[0][:2] == (BEGIN, TURN)
    assert all(ids.count(BEGIN) == 1 and ids.count(TURN) == 2 and chat_tokenizer.END not in ids for ids in trained)
    alone = plain_encoder(task.model)
    assert isinstance(alone, PromptEncoder)
    assert [alone.ids(each, task.prompt_format) for each in PROMPTS["train"]] == trained
    bank = micro_task.perturb(ExpertBank(base, 1, rank=2))
    for policy in (reference_policy(base, task), one_by_one(bank, task)):
        assert policy.encode(PROMPTS["train"]) == trained
        made = policy.generate(PROMPTS["train"], reference=True)
        assert list(made.prompt_ids) == trained
        assert made.log_probs.allclose(policy.log_probs(made), atol=2e-5)


@pytest.mark.parametrize("says", [None, True, False])
@pytest.mark.parametrize("adds", ["nothing", "begin", "end"])
def test_a_task_says_whether_special_tokens_are_added(tmp_path: Path, says: bool | None, adds: str) -> None:
    task = task_in(tmp_path, adds, **({} if says is None else {"add_special_tokens": says}))
    found = first_input(task)
    assert found is not None
    assert ("<s>" in found["tokens"]) == (adds == "begin" and says is not False)
    assert ("</s>" in found["tokens"]) == (adds == "end" and says is True)
    assert task.prompt_format == PromptFormat(chat_tokenizer.TEMPLATE, says)


def test_keys_depend_on_what_is_added_and_on_what_prompts_may_hold(tmp_path: Path) -> None:
    from paretune.benchmark.measurements.reference import base_model

    tasks = [
        task_in(tmp_path, **keys)
        for keys in (
            {},
            {"add_special_tokens": True},
            {"add_special_tokens": False},
            {"special_tokens_in_prompts": True},
        )
    ]
    assert len({json.dumps(task.training_key()) for task in tasks}) == 4
    assert len({json.dumps(base_model(task)) for task in tasks}) == 4


def test_a_solution_set_keeps_how_its_prompts_are_read(tmp_path: Path) -> None:
    from paretune.core.answers import Combined
    from paretune.core.protocols import Assembly
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.models.solutions import SolutionSet, load_solutions

    task = task_in(tmp_path, add_special_tokens=False, special_tokens_in_prompts=True)
    bank = micro_task.perturb(ExpertBank(load_base(task.model, device="cpu"), 1, rank=2))
    save_adapter(bank, 0, tmp_path / "expert")
    made = SolutionSet.from_assembly(
        task, Assembly((tmp_path / "expert",), Combined(np.ones((1, 1)))), "mine", "meta-policy"
    )
    made.save(tmp_path / "out")
    policy = load_solutions(tmp_path / "out").policy_for([1.0])
    assert policy.prompt_format == task.prompt_format == PromptFormat(chat_tokenizer.TEMPLATE, False, True)
    assert policy.encode(["</s>"])[0].count(chat_tokenizer.END) == 1


def test_added_tokens_count_among_the_tokens_of_a_prompt(tmp_path: Path) -> None:
    longest = 2 + len("user a </s> b") + len("reply")  # bytes and the template's two special tokens
    task = task_in(tmp_path, "nothing", max_prompt_tokens=longest)
    check_prompts(task, encoder_of(task))
    task = task_in(tmp_path, "begin", max_prompt_tokens=longest)
    with pytest.raises(TaskError, match=f"must have at most {longest} tokens, template included, got {longest + 1}"):
        check_prompts(task, encoder_of(task))


def encoder_of(task: Task) -> Any:
    encoder = plain_encoder(task.model)
    assert isinstance(encoder, PromptEncoder)
    return encoder


def test_a_plan_shows_the_first_prompts_tokens_and_what_is_plain_text(tmp_path: Path, study: Path) -> None:
    from paretune.benchmark.plan import plan
    from paretune.benchmark.summary import plan_text

    planned = plan(study, tmp_path / "out")
    (line,) = (each for each in plan_text(planned).splitlines() if each.startswith("input:"))
    assert line.startswith("input:    first prompt of task, 18 tokens: 1 '<s>', 3 '<|turn|>', ")
    assert ascii(line) == repr(line)  # no escape of a terminal, no letter that it may not have
    assert (
        "; 1 of 2 prompts hold the text of a special token, read as plain text: set special_tokens_in_prompts" in line
    )
    (found,) = planned.plain()["inputs"]  # type: ignore[misc]
    assert found["token_ids"][:2] == [BEGIN, TURN]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    task_in(tmp_path / "task")
    (tmp_path / "study.yaml").write_text(
        json.dumps({"tasks": ["task/task.yaml"], "methods": {"linear": {}}, "budget": {"completions": 640}, "seeds": 1})
    )
    return tmp_path / "study.yaml"


def test_a_prompt_that_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    chat_tokenizer.save(tmp_path / "model", words=True)
    with pytest.raises(TaskError, match=r"train prompt 'train-1' of task '.*': prompt must hold no special token"):
        check_prompts(task, encoder_of(task))


def test_a_long_first_prompt_is_cut_in_the_middle_and_an_unknown_model_said(tmp_path: Path) -> None:
    from dataclasses import replace

    task = task_in(tmp_path, template="{prompt}" * 6, max_prompt_tokens=60)
    line = input_line(task)
    assert ", 31 tokens: 1 '<s>', 75 'h', " in line
    assert "... 7 more ..." in line
    hub = replace(task, model="nobody/some-model")
    unchecked = f"first prompt of {task.name}: prompts are checked only when the model is loaded, as"
    assert input_line(hub) == f"{unchecked} nobody/some-model is read from the hub"
    tokenizer = Path(task.model) / "tokenizer.json"
    tokenizer.write_text('{"version": "9.0",')
    (line,) = input_line(task).splitlines()
    assert line == f"{unchecked} its tokenizer cannot be read without the library that runs the model"
    tokenizer.unlink()
    assert input_line(task) == f"{unchecked} {task.model} holds no tokenizer.json"
