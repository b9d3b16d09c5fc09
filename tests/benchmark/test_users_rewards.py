"""What a user's rewards and modules do wrong, from the command line: named failures, never silence."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import micro_task
from paretune.benchmark.plan import plan
from paretune.benchmark.runner import run
from paretune.cli.main import OK, USAGE, execute
from paretune.core.errors import ParetuneError
from paretune.core.user_code import loaded_files

pytestmark = pytest.mark.usefixtures("only_what_is_named", "in_one_process")

PHASE = """
import os

def phase():
    import sys
    frame, names = sys._getframe(1), []
    while frame is not None:
        names.append("/".join(frame.f_code.co_filename.split("/")[-2:]))
        frame = frame.f_back
    base = "measurements/reference.py" in names
    return "base" if base else "evaluation" if "measurements/evaluation.py" in names else "training"

def first(prompts, completions, **columns):
    return [0.5] * len(completions)

def second(prompts, completions, **columns):
    if phase() in WHEN:
        WHAT
    return [0.5] * len(completions)
"""
SETTINGS = ["--set", "epochs=1"]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that writes the micro-task with other rewards, and its folder."""
    folders = list(sys.meta_path)
    monkeypatch.chdir(tmp_path)
    loaded_files.cache_clear()
    file = micro_task.save_task(tmp_path / "task")

    def write(what: str, when: str = "training evaluation base", audit: bool = False) -> Path:
        text = PHASE.replace("WHEN", repr(when.split())).replace("WHAT", what)
        (file.parent / "rewards.py").write_text(text)
        if audit:
            lines = micro_task.TASK.replace("  second:", "audit:\n  second:")
            file.write_text(lines)
        return file

    yield write
    sys.meta_path[:] = folders
    loaded_files.cache_clear()


def study(folder: Path, **keys: Any) -> dict[str, object]:
    return {
        "tasks": [str(folder / "task")], "methods": {"linear": {"completions_each": 16, "epochs": 1}},
        "budget": {"completions": 16}, "seeds": 1, "preferences": {"grid": 2, "unseen": 0}, "workers": 1,
        "evaluation": {"samples": 1}, **keys,
    }  # fmt: skip


@pytest.mark.parametrize(
    "what",
    ["raise KeyError('label')", "return None", "return [None] * len(completions)", "return [7] * len(completions)"],
)
def test_an_objective_that_was_never_scored_fails_a_training_however_short(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    file = task(what)
    command = ["train", "linear", "-t", str(file), "--budget", "16", "-o", str(tmp_path / "out"), *SETTINGS]
    assert execute(command) == USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("paretune: ")
    assert "second" in error or "objective 1" in error
    assert not (tmp_path / "out" / "solution.json").exists()


TRAIN = ["train", "linear", "-t", "task/task.yaml", "--budget", "16", "-o", "out", *SETTINGS]
ENDS = {"os._exit(0)": "os._exit(0)", "os.execv('/bin/true', ['true'])": "os.execv('/bin/true')"}


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("at_import", [True, False])
@pytest.mark.parametrize("command", [TRAIN, ["probe", "task/task.yaml", "--samples", "256", "-o", "out"]])
def test_code_that_would_end_the_process_in_silence_is_named_with_its_line(
    task: Callable[..., Path], capsys: pytest.CaptureFixture[str], what: str, at_import: bool, command: list[str]
) -> None:
    file = task("pass" if at_import else what)
    if at_import:
        with (file.parent / "rewards.py").open("a") as rewards:
            rewards.write(what)
    assert execute(command) == USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"got SystemExit: {ENDS[what]} (rewards.py, line " in error
    assert "rewards:" in error


@pytest.mark.slow
def test_a_failed_measurement_of_experts_is_named_without_empty_parentheses(
    task: Callable[..., Path], tmp_path: Path
) -> None:
    file = task("raise KeyError('label')")
    text = (file.parent / "rewards.py").read_text()
    measuring = 'any(frame.function == "measure_experts" for frame in __import__("inspect").stack())'
    (file.parent / "rewards.py").write_text(text.replace("phase() in ['training', 'evaluation', 'base']", measuring))
    settings = {"completions_each": 64, "measured_each": 16, "epochs": 1}
    made = study(tmp_path, methods={"weight_grid": settings}, budget={"completions": 256})
    (cell,) = run(made, tmp_path / "study", progress=False).records.cells
    assert str(cell.message).startswith("measurement: ")


@pytest.mark.slow
@pytest.mark.parametrize("at_import", [True, False])
def test_a_child_that_code_forks_and_returns_in_ends_there(
    task: Callable[..., Path], tmp_path: Path, at_import: bool
) -> None:
    file = task("pass" if at_import else "os.fork()")
    if at_import:
        with (file.parent / "rewards.py").open("a") as rewards:
            rewards.write("os.fork()")
    code = f"import micro_task; from paretune.cli.main import execute; print(execute({TRAIN}))"
    path = os.pathsep.join(each for each in sys.path if each)
    given = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=given
    )
    assert ended.stdout.splitlines()[-1:] == ["0"]
    assert ended.stdout.count("saved to") == 1
    assert "Traceback" not in ended.stderr


def test_a_reward_that_fails_is_one_line_and_more_on_demand(
    task: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task("raise KeyError('label')")
    assert execute(TRAIN) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "second (rewards:second) raised KeyError: 'label' (rewards.py, line " in line
    monkeypatch.setenv("PARETUNE_TRACEBACK", "1")
    with pytest.raises(ParetuneError):
        execute([*TRAIN[:-3], "again", *SETTINGS])
    assert "Traceback" in capsys.readouterr().err


def test_what_a_reward_prints_controls_no_terminal_and_closes_nothing(
    task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    task("print('\\x1b[2J'); sys.stdout.close(); sys.stderr.close()".replace("sys", "__import__('sys')"))
    assert execute(TRAIN) == OK
    told = capsys.readouterr()
    assert "\\x1b[2J" in told.out
    assert "\x1b" not in told.out + told.err
    assert "saved to out" in told.out


def test_a_sum_too_deep_for_python_is_named_by_its_file(
    task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = task("pass")
    with (file.parent / "rewards.py").open("a") as rewards:
        rewards.write("x = " + "+".join(["1"] * 50_000))
    assert execute(TRAIN) == USAGE
    assert "rewards.py must be Python, got an error: RecursionError" in capsys.readouterr().err


def test_a_module_in_an_archive_counts_with_the_archive(
    task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = task("pass")
    archive, rewards = file.parent / "z.zip", file.parent / "rewards.py"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("zmod.py", "value = 1")
    rewards.write_text(f"import sys\nsys.path.insert(0, {str(archive)!r})\nimport zmod\n{rewards.read_text()}")
    assert execute(TRAIN) == OK
    assert archive.exists()


def test_a_third_of_the_rewards_missing_is_counted_and_said_at_the_end(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task("return [None if index % 3 == 0 else 0.5 for index, _ in enumerate(completions)]")
    command = ["train", "linear", "-t", str(file), "--budget", "24", "-o", str(tmp_path / "out"), *SETTINGS]
    assert execute(command) == OK
    said = "8 of 24 rewards of second are missing in training (33.3 %)."
    assert said in capsys.readouterr().err
    result = run(study(tmp_path), tmp_path / "study", progress=False)
    assert result.complete
    assert execute(["report", str(tmp_path / "study")]) == OK
    told = capsys.readouterr().out
    page = (tmp_path / "study" / "report" / "index.html").read_text()
    for text in (told, page):
        assert "6 of 16 rewards of second are missing in training (37.5 %)." in text  # 0, 3, .. 15 of one batch
        assert "rewards of second are missing in tests (" in text


@pytest.mark.parametrize(
    "what",
    ["raise KeyboardInterrupt", pytest.param("raise SystemExit(0)", marks=pytest.mark.slow), "raise KeyError('label')"],
)
@pytest.mark.parametrize(
    ("when", "audit"), [("training", False), ("evaluation", False), ("evaluation", True), ("base", True)]
)
def test_an_objective_or_audit_that_is_never_scored_fails_its_cell_by_name_in_every_phase(
    task: Callable[..., Path], tmp_path: Path, what: str, when: str, audit: bool
) -> None:
    task(what, when, audit)
    preferences = {"preferences": {"grid": 1, "unseen": 0}}
    result = run(study(tmp_path, **preferences), tmp_path / "study", progress=False)
    assert not result.complete
    (cell,) = result.records.cells
    if when == "base":
        assert cell.state == "done"
        (message,) = result.problems
        assert message.startswith("references/task-0 could not be measured (reward_error): ")
    else:
        assert (cell.state, cell.reason) == ("failed", "reward_error")
        message = cell.message
    assert "second (rewards:second)" in message
    assert what.partition(" ")[2].partition("(")[0] in message
    assert "(rewards.py, line 18)" in message


MODULE = """
from dataclasses import dataclass
{body}

def make():
    pass

class Mine:
    pass
"""


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "1 / 0",
        "import nothing_there",
        pytest.param("def f(): f()\nf()", marks=pytest.mark.slow),
    ],
)
def test_a_module_that_ends_or_fails_at_import_is_one_line_of_every_command(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    file = task("pass")
    (tmp_path / "broken.py").write_text(MODULE.format(body=body))
    (file.parent / "rewards.py").write_text(MODULE.format(body=body) + "\ndef first(**c): ...\ndef second(**c): ...\n")
    method, tasks = tmp_path / "method.yaml", tmp_path / "task.yaml"
    method.write_text(
        f"tasks: [{file}]\nmethods: {{mine: {{method: 'broken:Mine'}}}}\nbudget: {{completions: 16}}\nseeds: 1\n"
    )
    tasks.write_text("tasks: ['broken:make']\nmethods: {linear: {}}\nbudget: {completions: 16}\nseeds: 1\n")
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text(method.read_text() + "tune: {learning_rate: [0.1, 0.2], instances: 1}\n")
    out = ["-o", str(tmp_path / "out")]
    commands = [[name, str(each), *out] for name in ("plan", "run") for each in (method, tasks, tuned)]
    commands += [["train", "broken:Mine", "-t", str(file), *out], ["train", "linear", "-t", "broken:make", *out]]
    commands += [["train", "linear", "-t", str(file), "--budget", "16", *out], ["probe", "broken:make", *out]]
    commands += [["probe", str(file), *out]]
    for command in commands:
        sys.modules.pop("broken", None)
        assert execute(command) == USAGE, command
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("paretune: "), command
        assert "must be importable" in said[-1]
        assert not any("Traceback" in line for line in said)
    assert execute(["ls"]) == OK


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise KeyboardInterrupt", "1 / 0", "raise TypeError('x')"])
def test_a_task_function_that_ends_or_fails_is_one_line(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    (tmp_path / "making.py").write_text(f"def make():\n    {body}\n")
    assert execute(["train", "linear", "-t", "making:make", "-o", str(tmp_path / "out")]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "task 'making:make' must" in line
    sys.modules.pop("making")


INSTANCES = """
from dataclasses import fields
from paretune import load_task
from paretune.core.task import Task

class Mine(Task):
    def instance(self, seed):
        raise KeyboardInterrupt

def make():
    made = load_task("task")
    return Mine(**{each.name: getattr(made, each.name) for each in fields(Task)})
"""


def test_a_task_whose_instance_interrupts_is_one_line(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task("pass")
    (tmp_path / "instances.py").write_text(INSTANCES)
    assert execute(["train", "linear", "-t", "instances:make", "-o", str(tmp_path / "out")]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "instances:Mine.instance must not raise, got KeyboardInterrupt (instances.py, line 8)" in line
    sys.modules.pop("instances")


@pytest.mark.slow
def test_a_lexicon_that_changed_makes_its_results_anew_and_nothing_else(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task("pass")
    words = file.parent / "words.txt"
    words.write_text("a b")
    reward = "from pathlib import Path\nWORDS = Path(__file__).with_name('words.txt').read_text().split()\n"
    (file.parent / "rewards.py").write_text(
        reward + "def first(completions, **c): return [float(any(w in t for w in WORDS)) for t in completions]\n"
        "def second(completions, **c): return [0.5] * len(completions)\n"
    )
    assert run(study(tmp_path), tmp_path / "study", progress=False).complete
    done = sorted((tmp_path / "study" / "runs").iterdir())
    assert run(study(tmp_path), tmp_path / "study", progress=False).complete
    assert sorted((tmp_path / "study" / "runs").iterdir()) == done
    words.write_text("a c")
    assert run(study(tmp_path), tmp_path / "study", progress=False).complete
    assert sorted((tmp_path / "study" / "runs").iterdir()) != done


def test_an_undeclared_file_fails_a_run_with_the_line_that_declares_it(
    task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task("open(os.path.join(os.path.dirname(__file__), 'words' + '.txt')).close()")
    (file.parent / "words.txt").write_text("a")
    command = ["train", "linear", "-t", str(file), "--budget", "16", "-o", str(tmp_path / "out"), *SETTINGS]
    assert execute(command) == USAGE
    assert "Add depends: [words.txt] to the task file" in capsys.readouterr().err
    file.write_text("depends: [words.txt]\n" + file.read_text())
    assert execute(command) == OK
    assert os.getcwd() == str(tmp_path)


def test_a_study_beside_its_task_depends_on_all_of_their_folder_but_its_own_results(
    task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = task("pass").parent
    monkeypatch.chdir(folder)
    (folder / "task.yaml").write_text("depends: [.]\n" + (folder / "task.yaml").read_text())
    (folder / "words.txt").write_text("a")
    (folder / "study.yaml").write_text(yaml.safe_dump({**study(tmp_path), "tasks": ["task.yaml"], "name": "mine"}))

    def states() -> set[str]:
        return {cell.state for cell in plan("study.yaml", measure=False).cells}

    for _ in range(2):
        assert run("study.yaml", progress=False).complete
        assert (folder / "results" / "mine" / "report" / "index.html").is_file()
        assert states() == {"finished"}
    (folder / "words.txt").write_text("b")
    assert "finished" not in states()


def test_a_file_that_changes_while_a_study_runs_is_named(task: Callable[..., Path], tmp_path: Path) -> None:
    file = task("open(os.path.join(os.path.dirname(__file__), 'seen.txt'), 'w').close()")
    (file.parent / "seen.txt").write_text("a")
    file.write_text("depends: [seen.txt]\n" + file.read_text())
    result = run(study(tmp_path), tmp_path / "study", progress=False)
    assert not result.complete
    message = str(result.records.cells[0].message)
    assert "must not change while a study runs, got changes of seen.txt. Start the run again" in message
