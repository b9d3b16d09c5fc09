import asyncio
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from paretune.core.errors import TaskError, UnknownNameError
from paretune.core.task import Objective
from paretune.objectives.functions import call_function, columns_of, copied, gather, load_function
from paretune.objectives.user_modules import (
    check_reference,
    imports_from,
    load_attribute,
    split_reference,
)


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def function(folder: Path, reference: str):
    return load_function(Objective("x", reward=reference, import_path=str(folder)))


def call(folder: Path, reference: str, completions=("a", "b"), **columns):
    reward = function(folder, reference)
    with imports_from(folder):
        return call_function(reward, ["p"] * len(completions), completions, columns)


def test_rewards_of_equal_names_in_two_folders_do_not_collide(tmp_path):
    text = "import sibling\ndef score(completions, **columns):\n    return [sibling.VALUE] * len(completions)\n"
    first = write(tmp_path / "one", rewards=text, sibling="VALUE = 1.0")
    second = write(tmp_path / "two", rewards=text, sibling="VALUE = 2.0")
    one, two = function(first, "rewards:score"), function(second, "rewards:score")
    assert one(completions=["a"]) == [1.0]
    assert two(completions=["a"]) == [2.0]
    assert one(completions=["a"]) == [1.0]


def test_a_sibling_imported_late_is_that_of_its_own_folder(tmp_path):
    text = "def score(completions, **columns):\n    import late\n    return [late.VALUE] * len(completions)\n"
    for name, value in (("one", 1.0), ("two", 2.0)):
        write(tmp_path / name, rewards=text, late=f"VALUE = {value}")
    assert call(tmp_path / "one", "rewards:score") == [1.0, 1.0]
    assert call(tmp_path / "two", "rewards:score") == [2.0, 2.0]


def test_a_module_of_elsewhere_with_a_siblings_name_is_back_afterwards(tmp_path, monkeypatch):
    elsewhere = type(sys)("sibling_of_elsewhere")
    monkeypatch.setitem(sys.modules, "sibling_of_elsewhere", elsewhere)
    monkeypatch.delitem(sys.modules, "rewards", raising=False)  # of other tests
    text = "import sibling_of_elsewhere as s\ndef score(completions, **columns):\n    return [s.VALUE]\n"
    folder = write(tmp_path, rewards=text, sibling_of_elsewhere="VALUE = 3.0")
    assert call(folder, "rewards:score") == [3.0]
    assert sys.modules["sibling_of_elsewhere"] is elsewhere
    assert "rewards" not in sys.modules
    assert str(folder) not in sys.path


def test_an_installed_module_imported_by_a_reward_stays_loaded(tmp_path, monkeypatch):
    installed = write(tmp_path / "task" / "venv", installed_far_away="")  # inside the task's folder, as a .venv may be
    monkeypatch.syspath_prepend(str(installed))
    folder = write(tmp_path / "task", rewards="import installed_far_away\ndef score(**columns): ...")
    function(folder, "rewards:score")
    assert "installed_far_away" in sys.modules
    del sys.modules["installed_far_away"]


def test_packages_and_relative_imports_work(tmp_path):
    write(
        tmp_path / "pack",
        __init__="",
        parts="VALUE = 4.0",
        rewards="from .parts import VALUE\ndef f(**c): return [VALUE]",
    )
    assert call(tmp_path, "pack.rewards:f") == [4.0]


def test_a_changed_file_is_imported_again(tmp_path):
    write(tmp_path, rewards="def f(**columns): return [1.0]")
    assert call(tmp_path, "rewards:f") == [1.0]
    write(tmp_path, rewards="def f(**columns): return [2.0]  # longer, so that Python, too, sees the change")
    assert call(tmp_path, "rewards:f") == [2.0]


def test_checking_a_reference_runs_no_code(tmp_path):
    write(tmp_path, rewards="raise SystemExit('ran')\ndef score(**columns): ...")
    check_reference("rewards:score", tmp_path)


def test_columns_arrive_as_lists_and_reserved_names_stay_out():
    rows = [{"prompt": "a", "prompt_id": "1", "answer": 4, "completions": "x"}, {"prompt": "b", "prompt_id": "2"}]
    assert columns_of(rows) == {"prompt_id": ["1", "2"], "answer": [4, None]}


def test_a_function_without_column_catcher_gets_only_what_it_names(tmp_path):
    write(tmp_path, rewards="def f(completions, answer): return [float(a) for a in answer]")
    assert call(tmp_path, "rewards:f", answer=[1, 2], topic=["x", "y"]) == [1.0, 2.0]


def test_a_function_cannot_change_the_lists_of_the_next():
    completions, columns = ["a"], {"answer": [[1, {"deep": [2]}]]}

    def changes(completions, answer):
        completions.append("b")
        answer[0][1]["deep"].clear()
        answer[0].pop()

    call_function(changes, ["p"], completions, columns)
    assert completions == ["a"]
    assert columns == {"answer": [[1, {"deep": [2]}]]}


def test_each_row_has_a_value_of_its_own_and_unchangeable_ones_are_shared():
    row = {"words": ["a"], "text": "t" * 1000}
    (first, second) = copied([row, row], {})
    assert first["words"] is not second["words"]
    assert first["text"] is row["text"]


def test_a_value_that_cannot_be_copied_is_refused_with_its_column():
    with pytest.raises(TaskError, match=r"column 'lock' must hold values that can be copied, got TypeError: cannot"):
        call_function(lambda lock: None, [], [], {"lock": [threading.Lock()]})


def test_words_that_an_import_read_are_read_again_after_a_change(tmp_path):
    (tmp_path / "words.txt").write_text("1.0")
    text = "from pathlib import Path\nVALUE = float((Path(__file__).parent / 'words.txt').read_text())\n"
    write(tmp_path, rewards=text + "def f(**columns): return [VALUE]")
    assert call(tmp_path, "rewards:f") == [1.0]
    (tmp_path / "words.txt").write_text("0.5")
    assert call(tmp_path, "rewards:f") == [0.5]


def test_async_functions_run_at_the_same_time():
    async def wait():
        await asyncio.sleep(0.2)
        return 1

    start = time.perf_counter()
    assert gather([wait() for _ in range(10)]) == [1] * 10
    assert time.perf_counter() - start < 1.0  # one after another they would take 2 s


def test_an_event_loop_is_kept_between_calls_and_inside_a_running_one():
    async def loop_id():
        return id(asyncio.get_running_loop())

    async def notebook():
        return gather([loop_id()])

    assert gather([loop_id()]) == gather([loop_id()]) == asyncio.run(notebook())


def test_what_an_async_function_raises_is_its_result():
    async def fail():
        raise ValueError("no")

    (result,) = gather([fail()])
    assert isinstance(result, ValueError)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_a_wish_to_stop_is_a_result_and_leaves_the_event_loop_alive(stop):
    async def fail():
        raise stop

    async def fine():
        return 1

    stopped, one = gather([fail(), fine()])
    assert isinstance(stopped, stop)
    assert one == 1
    assert gather([fine()]) == [1]
    assert gather([]) == []


@pytest.mark.parametrize("reference", ["rewards", "rewards:", ":f", "a b:f", "rewards:f:g", "./rewards.py:f"])
def test_a_reference_of_another_form_is_refused(reference):
    with pytest.raises(TaskError, match=r"reference must be written as module:name, got .*write rewards:brevity\."):
        split_reference(reference)


def test_a_missing_module_is_refused(tmp_path):
    message = r"module of 'no_such:f' must lie in the task's folder or be installed, .*Create no_such\.py there"
    with pytest.raises(TaskError, match=message):
        check_reference("no_such:f", tmp_path)
    with pytest.raises(TaskError, match=r"module of 'no_such:f' must be importable.*ModuleNotFoundError"):
        load_attribute("no_such:f", tmp_path)


def test_an_unknown_function_gets_a_suggestion_before_and_at_import(tmp_path):
    write(tmp_path, rewards="def reflection(**columns): ...")
    for look in (check_reference, load_attribute):
        with pytest.raises(UnknownNameError, match=r"got 'reflexion'\. Did you mean 'reflection'\?"):
            look("rewards:reflexion", tmp_path)


def test_a_module_that_raises_at_import_is_named(tmp_path):
    write(tmp_path, rewards="def f(**columns): ...\n1 / 0")
    with pytest.raises(
        TaskError,
        match=r"'rewards:f' must be importable in .*ZeroDivisionError: division by zero \(rewards\.py, line 2\)\.",
    ):
        load_attribute("rewards:f", tmp_path)


def test_a_file_that_is_not_python_is_named_with_its_line(tmp_path):
    write(tmp_path, rewards="x = 1\ndef f(:")
    with pytest.raises(TaskError, match=r"rewards\.py:2 must be Python, got an error"):
        check_reference("rewards:f", tmp_path)


@pytest.mark.parametrize("line", ["f = 3", "class f: ..."])
def test_what_is_no_function_is_refused(tmp_path, line):
    write(tmp_path, rewards=line)
    with pytest.raises(TaskError, match=r"reward of objective 'x' must be a function, got (int|type)"):
        function(tmp_path, "rewards:f")
