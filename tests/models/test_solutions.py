from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
from paretune.core.answers import Answer, Combined, Nearest
from paretune.core.errors import AdapterError, ConfigError, ModelError, PreferenceError, RecordError, ShapeError
from paretune.core.protocols import Assembly, Mixer
from paretune.core.task import Task
from paretune.models.adapters import save_adapter
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate
from paretune.models.loading import load_base
from paretune.models.solutions import SolutionSet, load_solutions
from paretune.records.files import mark_done
from paretune.rl.evaluation import reference_policy


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return micro_task.load(tmp_path / "task")


@pytest.fixture
def base(task: Task) -> BaseModel:
    return load_base(task.model, device="cpu")


def experts(base: BaseModel, folder: Path, count: int = 2) -> tuple[Path, ...]:
    bank = micro_task.perturb(ExpertBank(base, count, rank=2))
    adapters = tuple(folder / f"stage{expert}" / "adapter" for expert in range(count))
    for expert, adapter in enumerate(adapters):
        save_adapter(bank, expert, adapter)
    bank.unwrap()
    return adapters


def solutions_of(
    task: Task, base: BaseModel, folder: Path, answer: Answer | None = None, mixer: Mixer | None = None
) -> SolutionSet:
    assembly = Assembly(
        experts(base, folder), answer or Combined(np.eye(2)), mixer or Mixer(), notes={"scores": [1, 2]}
    )
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
    for name in (
        "method",
        "family",
        "objectives",
        "prompt_format",
        "max_prompt_tokens",
        "max_completion_tokens",
        "notes",
    ):
        assert getattr(loaded, name) == getattr(solutions, name)
    assert isinstance(loaded.answer, Combined)
    assert loaded.answer.corners.tolist() == [[1, 0], [0, 1]]
    assert loaded.mixer == Mixer()


def test_two_solution_sets_of_one_base_model_take_turns(task: Task, base: BaseModel, tmp_path: Path) -> None:
    one = solutions_of(task, base, tmp_path / "one")
    first = says(one)
    other = solutions_of(task, base, tmp_path / "other", Nearest(np.eye(2)))
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
        ("[" * 100_000, "readable solution.json, .*beyond what can be read"),
        (json.dumps({**data, "schema_version": 1}), "must have schema version 4, got 1"),
        *(
            (json.dumps({key: value for key, value in data.items() if key != name}), f"must hold '{name}', got nothing")
            for name in ("answer", "mixer", "experts")
        ),
        (
            json.dumps({**data, "answer": {"class": "subprocess:Popen", "args": ["true"]}}),
            "must be of a dataclass with",
        ),
        (json.dumps({**data, "mixer": {**data["mixer"], "level": "adapter"}}), "Did you mean 'adapters'"),
        (json.dumps({**data, "mixer": "adapters"}), "must be whole, got: "),
        (json.dumps({**data, "experts": [1]}), "must be whole, got: "),
    ]:
        (saved / "solution.json").write_text(text)
        mark_done(saved)
        with pytest.raises(RecordError, match=message):
            load_solutions(saved)
    (saved / "DONE.json").unlink()
    with pytest.raises(
        RecordError, match=r"solution\.json must lie in a finished folder, one with DONE\.json, got none"
    ):
        load_solutions(saved)


@pytest.mark.parametrize(
    "file", ["solution.json", "experts/000/adapter_model.safetensors", "experts/001/adapter_config.json", "DONE.json"]
)
def test_a_saved_solution_set_that_has_changed_since_is_refused(
    task: Task, base: BaseModel, tmp_path: Path, file: str
) -> None:
    saved = solutions_of(task, base, tmp_path).save(tmp_path / "out")
    load_solutions(saved)
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content.replace(b"l", b"m", 1) if file.endswith("json") else content[:-1] + b"x")
    with pytest.raises(RecordError, match=f"{file} must "):
        load_solutions(saved)


def test_an_assembly_that_does_not_fit_its_answer_or_its_task_is_refused(
    task: Task, base: BaseModel, tmp_path: Path
) -> None:
    found = experts(base, tmp_path, 3)
    for count in (1, 3):
        with pytest.raises(AdapterError, match=rf"one adapter for each of its answer's 2 experts, got {count}\. Corr"):
            SolutionSet.from_assembly(task, Assembly(found[:count], Combined(np.eye(2))), "mine", "meta-policy")
    with pytest.raises(AdapterError, match=r"must be to preferences of 2 objectives, got one to 3\. Correct"):
        SolutionSet.from_assembly(task, Assembly(found, Combined(np.eye(3))), "mine", "meta-policy")
    with pytest.raises(AdapterError, match=r"gate of method 'mine' must be a file, got '.*nothing'\. Take it from"):
        solutions_of(task, base, tmp_path, mixer=Mixer(gate=tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="answer must be an instance of a dataclass"):
        SolutionSet.from_assembly(task, Assembly(found, object()), "mine", "meta-policy")  # type: ignore[arg-type]


def test_an_answer_with_fewer_weights_than_experts_is_refused_when_asked(
    task: Task, base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solutions = solutions_of(task, base, tmp_path)
    monkeypatch.setattr(Combined, "weights", lambda answer, preferences: (preferences[:, :1], ["odd"]))
    with pytest.raises(ShapeError, match=r"one per preference and expert \[1, 2\], got shape \[1, 1\]"):
        solutions.policy_for([1, 0])


MIXERS = [
    Mixer("hidden", 0, continued="soup"), Mixer("hidden"), Mixer("hidden", -1, norm="after"), Mixer("log_probs"),
    Mixer("log_probs", divergence="forward_kl"), Mixer("probabilities"),
]  # fmt: skip


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_of_streams_is_saved_loaded_and_run(task: Task, base: BaseModel, tmp_path: Path, mixer: Mixer) -> None:
    solutions = solutions_of(task, base, tmp_path, mixer=mixer)
    loaded = load_solutions(solutions.save(tmp_path / "out"))
    assert loaded.mixer == mixer
    table = loaded.policy_for([0.3, 0.7]).next_token_log_probs(["a", "b"], [[], [3]], [0, 0])
    assert table.equal(solutions.policy_for([0.3, 0.7]).next_token_log_probs(["a", "b"], [[], [3]], [0, 0]))
    deltas = solutions_of(task, base, tmp_path / "deltas").policy_for([0.3, 0.7])
    assert (deltas.next_token_log_probs(["a", "b"], [[], [3]], [0, 0]) - table).abs().max() > 1e-3


def test_a_mixer_of_particles_is_saved_loaded_and_run(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path, mixer=Mixer("log_probs", particles=3))
    loaded = load_solutions(solutions.save(tmp_path / "out"))
    assert loaded.mixer == solutions.mixer
    policy = loaded.policy_for([0.3, 0.7])
    assert policy.draws(0) == 3
    assert (
        policy.generate(["a", "b"] * 4, [0] * 8).texts
        == solutions.policy_for([0.3, 0.7]).generate(["a", "b"] * 4, [0] * 8).texts
    )


def test_hidden_states_of_a_block_that_the_model_lacks_are_refused(task: Task, base: BaseModel, tmp_path: Path) -> None:
    solutions = solutions_of(task, base, tmp_path, mixer=Mixer("hidden", 2))
    with pytest.raises(ModelError, match=r"block must be one of the model's 2 blocks, 0 to 1 or, .* got 2 for"):
        solutions.policy_for([1, 0])


def test_a_gate_is_saved_with_its_experts_and_answers_as_before(task: Task, base: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "stage" / "gate.safetensors"
    plain = solutions_of(task, base, tmp_path)
    gate = BlockGate(plain.bank, 2, 0)
    gate.flat.add_(torch.randn(gate.flat.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    gate.save(path)
    solutions = replace(plain, mixer=Mixer(gate=path))
    saved = solutions.save(tmp_path / "out")
    loaded = load_solutions(shutil.move(saved, tmp_path / "moved"))
    assert loaded.mixer.gate == tmp_path / "moved" / "gate.safetensors"
    assert says(loaded) == says(solutions) != says(plain)
    policy = solutions.policies_for([[1, 0], [0, 1]])
    scaled = policy.scaled([0.0, 0.5, 1.0])
    identities = [scaled.identity(index) for index in range(6)]
    assert identities[0] == identities[3] == plain.policies_for([[1, 0]]).scaled([0.0]).identity(0)
    assert len(set(identities)) == 5
    assert [identities[2], identities[5]] == [policy.identity(index) for index in range(2)]
    rows = [str(row["prompt"]) for row in task.splits["test"]]
    base_says = reference_policy(base, task).next_token_log_probs(rows, [[]] * len(rows), [0] * len(rows))
    found = {place: scaled.next_token_log_probs(rows, [[]] * len(rows), [place] * len(rows)) for place in (0, 1, 2)}
    assert found[0].equal(base_says)
    assert not found[1].equal(found[2])
    prefixes = [[3] * (number % 3) for number in range(len(rows))]  # the last prompt token is at another place in each
    whole = policy.next_token_log_probs(rows, prefixes, [0] * len(rows))
    for number, (row, prefix) in enumerate(zip(rows, prefixes, strict=True)):
        alone = policy.next_token_log_probs([row], [prefix], [0])
        torch.testing.assert_close(whole[number], alone[0], rtol=0, atol=1e-5)


def test_experts_that_are_listed_twice_are_saved_once(task: Task, base: BaseModel, tmp_path: Path) -> None:
    one, other = experts(base, tmp_path)
    corners = np.asarray([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assembly = Assembly((one, one, other), Combined(corners))
    solutions = SolutionSet.from_assembly(task, assembly, "mine", "meta-policy")
    loaded = load_solutions(solutions.save(tmp_path / "out"))
    assert [expert.name for expert in loaded.experts] == ["000", "000", "001"]
    assert says(loaded) == says(solutions)


def test_a_study_in_place_of_one_of_its_cells_is_told_which_there_are(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "solution.json").write_text("{}")
    with pytest.raises(RecordError, match=r"one cell of a study, .* itself\. Name one of its 2 .*runs/a\.$"):
        load_solutions(tmp_path)
