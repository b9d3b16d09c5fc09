import pickle
import sys
import textwrap

import pytest

from paretune.core.errors import TaskError, UnknownNameError
from paretune.core.task import Objective, Task
from paretune.tasks import TASKS, load_task

MODULE = """
from paretune.core.task import Objective, Task

def make(size=1, name="made"):
    from words import WORD
    rows = tuple({"prompt": f"{WORD} {n}", "prompt_id": str(n)} for n in range(size))
    return Task(name=name, source="?", model="nobody/model", model_digest="0", template="{prompt}",
                splits={"train": rows, "development": rows, "test": rows},
                objectives=(Objective("brevity", "paretune.objectives.brevity:brevity"),), reference_point=(0.0,))

class Generated(Task):
    def __init__(self, size=2):
        vars(self).update(vars(make(size, "generated")))

    def instance(self, seed):
        return Generated(seed)

made = make()
number = 3
"""
DEFINITION = {
    "model": "nobody/model",
    "prompts": {"train": "train.jsonl", "development": "dev.jsonl", "test": "test.jsonl"},
    "objectives": {"brevity": {"reward": "brevity"}},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a module of the user's and prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_tasks", "words"):  # forgotten again afterwards
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    (tmp_path / "my_tasks.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "words.py").write_text("WORD = 'hello'\n")
    for index, name in enumerate(DEFINITION["prompts"].values()):
        (tmp_path / name).write_text(f'{{"prompt": "prompt {index}"}}\n')
    return tmp_path


def prompts(task):
    return [row["prompt"] for row in task.splits["train"]]


def test_a_task_is_returned_as_it_is(here):
    task = load_task("my_tasks:make")
    assert load_task(task) is task


@pytest.mark.parametrize("name", ["make", "made"])
def test_a_module_makes_a_task_that_its_source_loads_again(here, name):
    task = load_task(f"my_tasks:{name}")
    assert prompts(task) == ["hello 0"]
    assert task.source == f"my_tasks:{name}"
    assert load_task(task.source) == task


def test_arguments_reach_the_function_and_stay_in_the_source(here):
    task = load_task({"my_tasks:make": {"size": 3}})
    assert len(prompts(task)) == 3
    assert load_task(task.source) == task


def test_a_class_may_generate_its_instances(here):
    task = load_task("my_tasks:Generated")
    assert task.name == "generated"
    assert len(prompts(task)) == 2
    assert len(prompts(task.instance(4))) == 4
    assert type(pickle.loads(pickle.dumps(task))) is type(task)


def test_the_content_of_a_task_file_is_a_task(here, monkeypatch):
    task = load_task(DEFINITION)
    assert task.name == "task"
    assert prompts(task) == ["prompt 0"]
    monkeypatch.chdir("/")
    again = load_task(task.source)
    assert again == task
    assert again.training_key() == task.training_key()


def test_a_task_file_is_found_by_its_folder_and_from_anywhere(here, monkeypatch):
    import yaml

    (here / "task.yaml").write_text(yaml.safe_dump(DEFINITION))
    tasks = [load_task("."), load_task(here), load_task("task.yaml"), load_task(here / "task.yaml")]
    assert all(task == tasks[0] for task in tasks)
    monkeypatch.chdir("/")
    assert load_task(tasks[0].source) == tasks[0]


def test_a_task_survives_the_way_to_another_process(here):
    task = load_task(DEFINITION)
    assert pickle.loads(pickle.dumps(task)) == task


def test_an_unknown_name_gets_a_suggestion(here):
    message = (
        r"task must be one of controlled, counselling, the path of a task\.yaml, or module:name, got 'counseling'\. "
        r"Did you mean 'counselling'\?"
    )
    with pytest.raises(UnknownNameError, match=message):
        load_task("counseling")
    with pytest.raises(UnknownNameError, match=r"got 'zzz'\. Check the name or the path\."):
        load_task("zzz")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent/task.yaml", r"task file must exist, got 'absent/task\.yaml'\. Check the path, or write the file\."),
        (".", r"task file must exist, got a folder without task\.yaml, '\.'"),
        ("my_tasks:number", r"task 'my_tasks:number' must be a Task, got int\. Return a paretune\.Task\."),
        ({"my_tasks:make": {"sise": 3}}, r"task 'my_tasks:make' must accept its arguments, got TypeError.*'sise'"),
        ({"my_tasks:make": [3]}, r"arguments of task 'my_tasks:make' must be a mapping, got \[3\]"),
        ({"counselling": {"size": 3}}, r"task 'counselling' must have no arguments, got size\. Leave them out\."),
        ("no_tasks:make", r"module of 'no_tasks:make' must be importable"),
    ],
)
def test_what_is_no_task_is_refused(here, source, message):
    with pytest.raises(TaskError, match=message):
        load_task(source)


def test_objectives_of_one_name_are_refused_in_code_too():
    objective = Objective("a", "m:f")
    with pytest.raises(TaskError, match=r"must have different names, got 'a' twice\. Rename one\."):
        Task("t", "t", "m", "0", "{prompt}", {}, (objective,), audit=(objective,), reference_point=(0.0,))


def test_every_built_in_task_can_be_imported():
    from paretune.objectives.user_modules import check_reference

    for reference in TASKS.values():
        check_reference(reference)
