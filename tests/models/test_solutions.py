from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import micro_task
from paretune.core.answers import AnswerRule
from paretune.core.errors import AdapterError, PreferenceError, RecordError
from paretune.core.ledger import Ledger
from paretune.core.protocols import Assembly
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.models.adapters import save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel, load_base
from paretune.models.solutions import SolutionSet, load_solutions


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return micro_task.load(tmp_path / "task")


@pytest.fixture
def base(task: Task) -> BaseModel:
    return load_base(task.model, device="cpu")


def experts(base: BaseModel, folder: Path, count: int = 2) -> list[StageResult]:
    bank = micro_task.perturb(ExpertBank(base, count, rank=2))
    results = []
    for expert in range(count):
        own = folder / f"stage{expert}" / "adapter"
        save_adapter(bank, expert, own)
        stage = Stage("expert", "m:run", {}, member={"objective_weights": np.eye(2)[expert % 2].tolist()})
        results.append(StageResult(stage, str(expert), own.parent, own, {}, Ledger(), 0.0))
    bank.unwrap()
    return results


def solutions_of(task: Task, base: BaseModel, folder: Path, kind: str = "combined") -> SolutionSet:
    assembly = Assembly(tuple(experts(base, folder)), AnswerRule(kind, np.eye(2)), {"scores": [1, 2]})  # type: ignore[arg-type]
    return SolutionSet.from_assembly(task, assembly, "mine", "meta-policy")


def says(solutions: SolutionSet) -> Any:
    policy = solutions.policies_for([[1, 0], [0.25, 0.75]])
    made = policy.generate(["a b", "c"] * 4, [0, 1] * 4, samples=4)
    return made.texts, made.log_probs.tolist()


def test_a_solution_set_says_the_same_after_save_and_load(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path)
    before = says(solutions)
    saved = solutions.save(tmp_path / "out")
    for result in tmp_path.glob("stage*"):
        shutil.rmtree(result)  # the folder needs nothing but the base model
    moved = shutil.move(saved, tmp_path / "moved")
    loaded = load_solutions(moved)
    assert says(loaded) == before
    for name in ("method", "family", "objectives", "template", "max_prompt_tokens", "max_completion_tokens", "notes"):
        assert getattr(loaded, name) == getattr(solutions, name)
    assert loaded.rule.kind == "combined"
    assert loaded.rule.table.tolist() == [[1, 0], [0, 1]]


def test_two_solution_sets_of_one_base_model_take_turns(task: Task, base: BaseModel, tmp_path: Path) -> None:
    one = solutions_of(task, base, tmp_path / "one")
    first = says(one)
    other = solutions_of(task, base, tmp_path / "other", "nearest")
    assert says(other) != first
    assert says(one) == first


def test_a_preference_is_a_point_or_names_of_objectives(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path)
    by_name = solutions.policy_for({"second": 0.75, "first": 0.25})
    by_point = solutions.policy_for([0.25, 0.75])
    assert by_name.preferences.tolist() == by_point.preferences.tolist() == [[0.25, 0.75]]
    assert by_name.expert_weights.tolist() == [[0.25, 0.75]]
    assert by_name.answers == ("combined",)
    assert solutions.policy_for({"first": 1}).expert_weights.tolist() == [[1, 0]]
    assert len(solutions.policies_for(np.eye(2))) == 2


def test_what_is_no_preference_of_this_task_is_refused(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path)
    with pytest.raises(PreferenceError, match="got 'frist'. Did you mean 'first'"):  # noqa: RUF043 - the full stop is one
        solutions.policy_for({"frist": 1.0})
    with pytest.raises(PreferenceError, match=r"one entry per objective \(2\)"):
        solutions.policy_for([1.0, 0.0, 0.0])


def test_another_base_model_in_the_same_place_is_refused(task: Task, base: BaseModel, tmp_path: Path) -> None:
    saved = solutions_of(task, base, tmp_path).save(tmp_path / "out")
    shutil.rmtree(task.model)
    micro_task.save_model(Path(task.model), seed=1)
    with pytest.raises(AdapterError, match=f"the one the experts were trained on \\({task.model_digest}\\), got"):
        load_solutions(saved).policy_for([1, 0])


def test_a_folder_with_a_solution_set_is_not_overwritten(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path)
    solutions.save(tmp_path / "out")
    before = (tmp_path / "out/solution.json").read_text()
    with pytest.raises(RecordError, match=r"must not hold a solution set yet, got '.*out'"):
        solutions.save(tmp_path / "out")
    assert (tmp_path / "out/solution.json").read_text() == before


def test_a_folder_without_a_readable_solution_is_refused(task: Task, base: BaseModel, tmp_path: Path) -> None:
    saved = solutions_of(task, base, tmp_path).save(tmp_path / "out")
    with pytest.raises(RecordError, match=r"a folder with a readable solution.json, got"):
        load_solutions(tmp_path)
    data = json.loads((saved / "solution.json").read_text())
    for text, message in [
        ("{", "readable solution.json"),
        ("[]", "readable solution.json"),
        (json.dumps({**data, "schema_version": 2}), "must have schema version 1, got 2"),
        (json.dumps({name: value for name, value in data.items() if name != "rule"}), "must hold 'rule', got nothing"),
    ]:
        (saved / "solution.json").write_text(text)
        with pytest.raises(RecordError, match=message):
            load_solutions(saved)


@pytest.mark.parametrize("broken", ["missing", "count"])
def test_an_assembly_without_one_trained_expert_for_each_of_its_rule_is_refused(
    task: Task, base: BaseModel, tmp_path: Path, broken: str
) -> None:
    found = experts(base, tmp_path, 3 if broken == "count" else 2)
    if broken == "missing":
        found[1] = StageResult(found[1].stage, "1", found[1].folder, None, {}, Ledger(), 0.0)
    with pytest.raises(AdapterError, match=r"one trained expert for each of its rule's 2, got [13]"):
        SolutionSet.from_assembly(
            task, Assembly(tuple(found), AnswerRule("combined", np.eye(2))), "mine", "meta-policy"
        )


def test_a_study_in_place_of_one_of_its_cells_is_told_which_there_are(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "solution.json").write_text("{}")
    with pytest.raises(RecordError, match=r"one cell of a study, .* itself\. Name one of its 2 .*runs/a\.$"):
        load_solutions(tmp_path)
