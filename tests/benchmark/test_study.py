from __future__ import annotations

import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.benchmark.built_in import built_in_studies
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import planned_records
from paretune.benchmark.study import COPY, load_study
from paretune.benchmark.wanted import Wanted
from paretune.core.errors import ConfigError, ParetuneError
from paretune.methods import METHODS
from paretune.methods.entries import has_setting, method_entry, with_settings
from paretune.records.reading import read_study
from paretune.records.writing import write_lock
from paretune.report import header
from paretune.tasks.strict_yaml import read_yaml

Make = Callable[..., dict[str, Any]]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


REFUSALS = {
    "unknown key": (
        {"task": ["x"]},
        r"study: task must be one of the keys budget, .*, got 'task'. Did you mean 'tasks'\?",
    ),
    "unknown nested key": (
        {"budget": {"completion": 3}},
        r"budget.completion must be one of the keys completions, got 'completion'. Did you mean 'completions'\? Write "
        r"`completions: 3`\.$",
    ),
    "no budget": ({"budget": None}, "budget must hold keys and values, got None"),
    "budget of nothing": ({"budget": {"completions": 0}}, "completions.* must be greater than or equal to 1, got 0"),
    "budget in words": ({"budget": {"completions": "6e3"}}, "completions.* must be a whole number, got '6e3'"),
    "budget twice": ({"budget": {"completions": [64, 64]}}, "budget.completions must not repeat a value, got 64 twice"),
    "no seed": ({"seeds": 0}, "seeds must be at least 1 and at most 200, or a list of seeds, got 0"),
    "seed of a tuning instance beside others": ({"seeds": [0, 10_000]}, "seeds must be below 10000, .* got 10000"),
    "seed of a tuning instance with tune": (
        {"seeds": [10_000], "tune": {"rank": [2, 4]}},
        "seeds must be below 10000, .* and no tune",
    ),
    "seed twice": ({"seeds": [1, 1]}, "seeds must not repeat a value, got 1 twice"),
    "grid of nothing": ({"preferences": {"grid": 0}}, "preferences.grid must be greater than or equal to 1, got 0"),
    "grid and points": (
        {"preferences": {"grid": 2, "points": [[1, 0]]}},
        "preferences must have either grid or points, got {'grid': 2, 'points': ",
    ),
    "no points": ({"preferences": {"points": []}}, "preferences.points must .*at least 1"),
    "a point that is no list": (
        {"preferences": {"points": [1, 1]}},
        "preferences.points must be a list of preferences, each a list of weights or a mapping",
    ),
    "a point of three objectives": (
        {"preferences": {"points": [[1, 1, 1]]}},
        r"preferences.points: task 'fake': preference must have one entry per objective \(2\)",
    ),
    "a point of nothing": (
        {"preferences": {"points": [[0, 0]]}},
        "preferences.points: task 'fake': preference must have a weight above 0",
    ),
    "a point in words": (
        {"tune": {"reward": [1], "preferences": {"points": [["high", 0]]}}},
        "tune.preferences.points: task 'fake': preference must be numbers",
    ),
    "a point twice": ({"preferences": {"points": [[1, 1], [2, 2]]}}, "must each be named once"),
    "a point of another task": ({"preferences": {"points": [{"frist": 1}]}}, "must name objectives of the task"),
    "no samples": ({"evaluation": {"samples": 0}}, "evaluation.samples must be greater than or equal to 1, got 0"),
    "no workers": ({"workers": 0}, "workers must be 'auto' or a whole number from 1 to 1,024, got 0"),
    "workers in words": ({"workers": "many"}, "workers must be 'auto' or a whole number from 1 to 1,024, got 'many'"),
    "name as a path": ({"name": "../a"}, "name must be at most 100 letters, digits"),
    "no methods": ({"methods": {}}, "methods must .*at least 1"),
    "no tasks": ({"tasks": []}, "tasks must .*at least 1"),
    "tuning of nothing": (
        {"tune": {"instances": 3}},
        "tune must name settings of the methods with their values, got none",
    ),
    "tuning of one value": ({"tune": {"reward": 0.1}}, "tune.reward must be a setting's list of values, got 0.1"),
    "tuning of no value": ({"tune": {"reward": []}}, r"tune.reward must be a setting's list of values, got \[\]"),
    "misspelt key of tuning": (
        {"tune": {"instanzes": 3, "reward": [1]}},
        r"tune.instanzes .*Did you mean 'instances'\? Write `instances: 3`\.",
    ),
    "no tuning instance": (
        {"tune": {"reward": [1], "instances": 0}},
        "tune.instances must be greater than or equal to 1",
    ),
    "tuning without budget": (
        {"tune": {"reward": [1], "completions": 0}},
        "tune.completions must be greater than or eq",
    ),
    "unknown preferences of tuning": (
        {"tune": {"reward": [1], "preferences": {"unseen": 1}}},
        "tune.preferences.unseen must be one of the keys grid, points, got 'unseen'",
    ),
    "empty preferences of tuning": (
        {"tune": {"reward": [1], "preferences": {}}},
        "tune.preferences must have grid or points; leave preferences out for those of the study",
    ),
    "tuning of what a method does not have": (
        {"tune": {"learning_rate": [1]}},
        "tune.learning_rate must be a setting of a method that is tuned, got 'learning_rate', which none of fake has",
    ),
    "tuning of a misspelt setting": (
        {"tune": {"rewards": [1]}},
        r"tune.rewards must be .*Did you mean 'reward'\? Write `reward: \[1\]`\.",
    ),
    "tuning of what is given": (
        {"tune": {"reward": [1]}, "methods": {"fake": {"method": "fake_study:Fake", "reward": 0.3}}},
        "tune.reward must be left to tuning, got it also under methods.fake",
    ),
    "tuning with a value of another type": (
        {"tune": {"reward": ["high"]}},
        "tune: methods.fake.reward must be a valid number, got 'high'",
    ),
    "tuning with a value out of range": (
        {"tune": {"updates_seconds": [0, -1]}},
        "tune: methods.fake.updates_seconds must be at least 0, got -1",
    ),
    "tuning with one value in two forms": (
        {"tune": {"reward": [1, 1.0]}},
        "tune must not repeat a value, got {'reward': 1.0} twice",
    ),
    "tuning of a ceiling alone": (
        {"tune": {"updates": [1]}, "methods": {"exact_gradient": {}}},
        "tune must have a method to tune, got none",
    ),
    "unknown method": (
        {"methods": {"liner": {}}},
        r"methods.liner must be one of .*got 'liner'. Did you mean 'linear'\? Write `linear: {}`\.",
    ),
    "unknown method under a label": (
        {"methods": {"mine": {"method": "liner"}}},
        r"methods.mine.method must be one of .*got 'liner'. Did you mean 'linear'\? Write `method: \"linear\"`\.",
    ),
    "unknown module": ({"methods": {"mine": {"method": "nowhere:It"}}}, "methods.mine: method must be .*'nowhere:It'"),
    "not a method": (
        {"methods": {"mine": {"method": "fake_study:FakeSettings"}}},
        r"methods.mine: method .*must be a class with name",
    ),
    "settings as a number": (
        {"methods": {"linear": 3}},
        r"methods.linear must hold settings, got 3. Write 'linear: \{\}'",
    ),
    "unknown task": ({"tasks": ["counseling"]}, r"tasks.0: task must be one of .*Did you mean 'counselling'\?"),
    "missing task file": ({"tasks": ["gone/task.yaml"]}, "tasks.0: task file must exist, got '.*gone/task.yaml'"),
    "task twice": (
        {"tasks": ["fake_study:task", "fake_study:task"]},
        "tasks.1 must have a name of its own, got 'fake'",
    ),
    "task as a number": ({"tasks": [3]}, "tasks.0 must be a name, a path, module:name or a mapping, got 3"),
}


@pytest.mark.parametrize(("change", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_study_that_breaks_a_rule_is_refused_with_its_place(
    study: Make, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParetuneError, match=message):
        load_study(study(**change))


TOO_MUCH = {
    "seeds beyond 64 bits": ("seeds: 9223372036854775808", r"mine.yaml:4:8: seeds must be at most 9223372036854775807"),
    "seeds of 64 bits": ("seeds: 9223372036854775807", r"mine.yaml:4:1: seeds must be at least 1 and at most 200"),
    "grid": (
        "preferences: {grid: 1000}",
        r":4:15: preferences.grid must make at most 2,000 preferences of 3 obj.*501,502",
    ),
    "huge grid": ("preferences: {grid: 9000000000}", r"preferences.grid must make at most 2,000 preferences"),
    "unseen": ("preferences: {unseen: 1000000000}", r"preferences.unseen must be less than or equal to 2000"),
    "budget as a float": ("budget: {completions: 1e18}", r"budget.completions.0 must be a whole number, got 1e\+18"),
    "budget": (
        "budget: {completions: 1000000000000000000}",
        r"budget.completions.0 must be less than or equal to 10000",
    ),
    "budgets": (f"budget: {{completions: {list(range(64, 6000))}}}", r"budget.completions must be .*at most 50 items"),
    "methods": (
        "methods:\n" + "".join(f"  m{n}: {{method: linear}}\n" for n in range(5000)),
        r"methods must .*200 items",
    ),
    "cells": (
        "seeds: 200\nmethods:\n" + "".join(f"  m{n}: {{method: linear}}\n" for n in range(100)),
        r"methods must make at most 5,000 cells with the tasks, budgets and seeds, got 20,400. Split the study",
    ),
    "trials": (
        "tune: {rank: [1, 2], instances: 1000000000}",
        r"tune must make at most 5,000 trials .*got 4,000,000,000",
    ),
    "grid of a sweep": (
        "tune: {rank: [1, 2], preferences: {grid: 1000}}",
        r"tune.preferences.grid must make at most 2,000",
    ),
    "samples": ("evaluation: {samples: 1000000000000}", r"evaluation.samples must be less than or equal to 100000"),
    "workers": ("workers: 100000000000000000", r"workers must be 'auto' or a whole number from 1 to 1,024"),
    "name": (f"name: {'x' * 5000}", r"name must be at most 100 letters"),
    "label": (f"methods: {{? {'x' * 5000} : {{method: linear}}}}", r"must be a name of at most 100 characters"),
    "label that clears the screen": (
        'methods: {"a\\e[2J": {method: linear}}',
        r"must be a name of at most 100 characters",
    ),
    "flag": ("evaluation: {kl_matched: 1}", r"evaluation.kl_matched must be a valid boolean, got 1"),
    "flag in words": (
        "evaluation: {kl_matched: on}",
        r"mine.yaml:4:26: evaluation.kl_matched must be true, false or text",
    ),
    "number as a flag": (
        "evaluation: {samples: true}",
        r"mine.yaml:4:14: evaluation.samples must be a whole number, got T",
    ),
    "setting as a flag": (
        "methods: {linear: {learning_rate: true}}",
        r"methods.linear.learning_rate must be a number, got T",
    ),
    "setting as text": ("methods: {linear: {rank: '8'}}", r"methods.linear.rank must be a number, got the text '8'"),
}


@pytest.mark.parametrize(("lines", "message"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_is_too_much_or_no_number_is_refused_at_once(tmp_path: Path, lines: str, message: str) -> None:
    keys = {"tasks": "tasks: [counselling]", "methods": "methods: {linear: {}}", "budget": "budget: {completions: 64}"}
    given = [line.partition(":")[0] for line in lines.splitlines()]
    path = write(tmp_path, "\n".join([*(keys[key] for key in keys if key not in given), lines]) + "\n")
    if not any(key in given for key in keys):
        assert path.read_text().count("\n", 0, path.read_text().index(lines)) == 3  # line 4 of the messages
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=message):
        load_study(path)
    assert time.perf_counter() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


SETTINGS_REFUSALS = {
    "unknown": (
        {"update_seconds": 1},
        r"fake.update_seconds must be one of the settings of .*'update_seconds'. "
        r"Did you mean 'updates_seconds'\? Write `updates_seconds: 1`\.",
    ),
    "wrong type": ({"updates_seconds": "slow"}, "fake.updates_seconds must be a valid number, got 'slow'"),
    "out of range": ({"updates_seconds": -1}, "fake.updates_seconds must be at least 0, got -1"),
}


@pytest.mark.parametrize(("settings", "message"), SETTINGS_REFUSALS.values(), ids=SETTINGS_REFUSALS.keys())
def test_a_setting_that_breaks_a_rule_is_refused(study: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(study(settings))


def test_messages_name_file_and_line(study: Make, tmp_path: Path) -> None:
    path = write(tmp_path, "tasks: [fake_study:task]\nmethods: {}\nbudget:\n  completion: 3\n")
    with pytest.raises(
        ConfigError, match=r"mine.yaml:2:1: methods must|mine.yaml:4:3: budget.completion must be one of the keys"
    ):
        load_study(path)


def test_a_setting_is_refused_at_its_own_line_with_the_line_to_write(tmp_path: Path) -> None:
    start = "tasks: [counselling]\nbudget: {completions: 64}\nmethods:\n  linear:\n    rank: 4\n"
    for line, message in (
        (
            "learning_rat: 0.001",
            "learning_rat must be one of the settings of linear, got 'learning_rat'. Did you mean ",
        ),
        ("learning_rate: fast", "learning_rate must be a valid number, got 'fast'"),
        ("learning_rate: -1", "learning_rate must be "),
    ):
        path = write(tmp_path, f"{start}    {line}\n")
        with pytest.raises(ConfigError) as refused:
            load_study(path)
        assert f"mine.yaml:6:5: methods.linear.{message}" in str(refused.value)
        assert ("Write `learning_rate: 0.001`." in str(refused.value)) == ("rat:" in line)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "seeds: 3\ntasks: []\nseeds: 4\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:3:1: seeds must be given once, got it again after line 1"):
        load_study(path)


def test_a_study_that_does_not_exist_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"one of controlled, counselling, full, quick, relations, got 'quik'. Did you mean 'quick'\?",
    ):
        load_study("quik")
    with pytest.raises(ConfigError, match=r"study must be a file that exists, got '.*gone.yaml'"):
        load_study(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="study must be a YAML file or a built-in name, got the folder"):
        load_study(tmp_path)


def test_defaults_are_written_out_and_the_file_names_the_study(study: Make, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "tasks: [fake_study:task]\nmethods:\n  a: {method: 'fake_study:Fake', updates_seconds: 1e-3}\n"
        "budget: {completions: 64}\n",
    )
    loaded = load_study(path)
    assert (loaded.name, loaded.budgets, loaded.seeds, loaded.wanted, loaded.unseen) == (
        "mine", (64,), (0, 1, 2), Wanted(2), 1
    )  # fmt: skip
    assert loaded.methods[0].settings["updates_seconds"] == 0.001  # YAML reads 1e-3 as text; a setting says number
    assert loaded.imports == (str(tmp_path),)
    assert loaded.resolved()["evaluation"] == {"samples": 1, "prompts": None, "kl_matched": False}


def test_more_unseen_preferences_keep_the_first_ones(study: Make) -> None:
    few, many = (load_study(study(preferences={"grid": 3, "unseen": count})) for count in (1, 4))
    points, unseen = many.preferences(many.tasks[0])
    # two objectives, grid 3: four points and the centre
    assert np.array_equal(few.preferences(few.tasks[0])[0], points[:6])
    assert points[4].tolist() == [0.5, 0.5]
    assert unseen.tolist() == [False] * 5 + [True] * 4
    assert np.allclose(points.sum(axis=1), 1)


def test_a_users_method_is_versioned_by_its_code(fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "fake_study.py").read_text()
    versions = []
    for name, content in (
        ("first_idea", text),
        ("second_idea", f"{text}\nmore = 1\n"),
        ("third_idea", f"# so\n{text}"),
    ):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        versions.append(method_entry("mine", {"method": f"{name}:Fake"}, "study").version)
    assert versions[0] == versions[2] != versions[1]


@dataclass(frozen=True)
class Gate:
    level: str = "block"
    width: int = 8


@dataclass(frozen=True)
class Nested:
    gate: Gate = Gate()
    rank: int = 8


def test_dots_tune_nested_settings_and_leave_those_beside_them(study: Make) -> None:
    entry = replace(load_study(study()).methods[0], settings=asdict(Nested(Gate(width=3))))
    assert has_setting(entry.settings, "gate.level")
    assert not has_setting(entry.settings, "gate.depth")
    assert not has_setting(entry.settings, "rank.level")

    class Method(type(entry.method)):  # type: ignore[misc]  # a class of the fake module, known to no checker
        Settings = Nested

    changed = with_settings(replace(entry, method=Method(Nested())), {"gate.level": "token", "rank": 4}, "tune")
    assert changed.settings == {"gate": {"level": "token", "width": 3}, "rank": 4}
    assert changed.method.settings == Nested(Gate("token", 3), 4)
    assert entry.settings == asdict(Nested(Gate(width=3)))


def test_a_class_of_feedback_is_no_choice_of_a_sweep(study: Make) -> None:
    with pytest.raises(ConfigError, match=r"feedback must be fixed under methods, got it in the sweep"):
        load_study(study(methods={"linear": {}}, tune={"feedback": ["told", "utility"]}))


def test_a_sweep_takes_what_it_is_not_given_from_the_study(study: Make) -> None:
    tune = load_study(study(budget={"completions": [96, 64]}, preferences={"grid": 3}, tune={"reward": [0.1]})).tune
    assert tune is not None
    assert (tune.instances, tune.seeds, tune.completions, tune.wanted) == (2, (10_000, 10_001), 96, Wanted(3))


def test_points_are_what_methods_are_given(study: Make) -> None:
    points = [[3, 1], {"brief": 1}]
    loaded = load_study(study(preferences={"points": points, "unseen": 1}, tune={"reward": [0.1]}))
    task = loaded.tasks[0]
    assert loaded.training_preferences(task).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert loaded.preferences(task)[1].tolist() == [False, False, True]
    assert loaded.resolved()["preferences"] == {"points": points, "unseen": 1}
    assert loaded.tune is not None
    assert loaded.tune.training_preferences(task).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert loaded.tune.plain()["preferences"] == {"points": points}
    own = load_study(study(tune={"reward": [0.1], "preferences": {"points": [[1, 1]]}})).tune
    assert own is not None
    assert own.training_preferences(task).tolist() == [[0.5, 0.5]]


def test_preferences_grow_and_never_shrink() -> None:
    named = Wanted(points=([1, 0], {"first": 1, "second": 1}))
    assert Wanted(3).lost(Wanted(2).plain()) == named.lost(named.plain()) == ""
    assert Wanted(1).lost(Wanted(2).plain()) == "preferences.grid 2, more than the 1 of the study"
    assert Wanted(points=(*named.points, [0, 1])).lost(named.plain()) == ""
    assert Wanted(points=([1, 0],)).lost(named.plain()).startswith("results of preference {'first': 1, 'second': 1}, ")
    assert named.lost(Wanted(2).plain()) == "preferences.grid, which the study does not have"
    assert Wanted(2).lost(named.plain()) == "preferences.points, which the study does not have"


@pytest.mark.parametrize("name", built_in_studies())
def test_built_in_studies_keep_to_known_keys(name: str) -> None:
    data, _ = read_yaml(built_in_studies()[name])
    assert data["name"] == name
    known = {
        "name",
        "tasks",
        "methods",
        "budget",
        "seeds",
        "preferences",
        "evaluation",
        "workers",
        "parts",
        "measurements",
    }
    assert set(data) <= known


def test_the_commands_of_the_report_find_a_relative_task_and_an_own_method_from_the_studys_folder(
    fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import real_task
    from paretune.cli.main import OK, execute

    project, folder = tmp_path / "project", tmp_path / "results" / "out"
    real_task.write(project / "own task")
    (project / "my_method_beside.py").write_text("from fake_study import Fake as Mine\n")
    text = (
        "tasks: [own task]\nmethods: {mine: {method: 'my_method_beside:Mine'}}\nbudget: {completions: 64}\nseeds: 1\n"
    )
    planned = plan(write(project, text), folder)  # its name is that of its file, `mine`
    write_lock(folder, planned_records(planned))
    (folder / COPY).write_text(planned.study.text)
    commands = header.commands(read_study(folder))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(project)])
    monkeypatch.delitem(sys.modules, "my_method_beside")
    monkeypatch.chdir(folder)
    for command in commands[:2]:
        _, verb, *arguments = shlex.split(command)
        assert verb == "run"
        assert execute(["plan", *arguments]) == OK
    monkeypatch.chdir(tmp_path)
    assert execute(["plan", "results/out/study.yaml", "-o", "results/out"]) == OK
    again = load_study(folder / COPY)
    assert (again.name, again.tasks[0].source) == ("mine", planned.study.tasks[0].source)


def test_the_copy_of_a_built_in_study_keeps_its_name(tmp_path: Path) -> None:
    planned = plan("quick", tmp_path)
    write_lock(tmp_path, planned_records(planned))
    (tmp_path / COPY).write_text(planned.study.text.replace("name: quick", ""))
    assert load_study(tmp_path / COPY).name == "quick"


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_trained_or_torch_is_loaded(
    fakes: None, tmp_path: Path
) -> None:
    import real_task

    real_task.write(tmp_path / "tiny")
    with (tmp_path / "tiny" / "test.jsonl").open("a") as file:
        file.write('{"prompt": "I feel alone . You keep my sister sad ."}\n')  # 10 tokens, 2 more in the template
    path = write(tmp_path, "tasks: [tiny]\nmethods: {linear: {}}\nbudget: {completions: 64}\n")
    assert len(load_study(path).tasks) == 1  # 12 tokens are allowed
    with (tmp_path / "tiny" / "test.jsonl").open("a") as file:
        file.write('{"prompt": "I feel alone . You keep my sister sad . a"}\n')
    code = "import sys; from paretune.cli.main import execute; print(execute(sys.argv[1:]), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "plan", str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert "tasks.0: test prompt 'test-5' of task 'tiny' must have at most 12 tokens, template included" in done.stderr


def test_a_task_whose_tokenizer_cannot_be_read_alone_is_left_to_training(fakes: None, tmp_path: Path) -> None:
    import real_task

    real_task.write(tmp_path / "tiny")
    path = write(tmp_path, "tasks: [tiny]\nmethods: {linear: {}}\nbudget: {completions: 64}\n")
    for damage in ("{}", None):
        file = tmp_path / "tiny" / "model" / "tokenizer.json"
        file.unlink() if damage is None else file.write_text(damage)
        assert len(load_study(path).tasks) == 1


def test_full_has_every_method_that_needs_no_setting_of_a_task() -> None:
    rows = read_yaml(built_in_studies()["full"])[0]["methods"]
    assert METHODS.keys() - rows == {"base", "one_policy", "exact_gradient", "lagrangian", "preference_in_prompt"}


@pytest.mark.slow
@pytest.mark.parametrize("name", built_in_studies())
def test_built_in_studies_can_be_planned(name: str, tmp_path: Path) -> None:
    """One seed, and one of the controlled tasks, which differ in a number alone."""
    data = read_yaml(built_in_studies()[name])[0]
    text = "counselling" in data["tasks"]
    controlled = [each for each in data["tasks"] if each != "counselling"][:1]
    data = {key: value for key, value in data.items() if key != "parts"}
    tasks = [*controlled, *(["counselling"] if text else [])]
    made = plan({**data, "seeds": 1, "tasks": tasks}, tmp_path)
    assert {cell.entry.label for cell in made.cells} >= set(data["methods"])
