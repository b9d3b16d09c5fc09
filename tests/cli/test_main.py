from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import builders
import paretune
from paretune.cli.main import ENVIRONMENT, INTERRUPTED, OK, SOME_FAILED, USAGE, execute
from paretune.methods import METHODS
from paretune.records.writing import write_lock

COMMAND = (
    "import sys; from paretune.cli.main import execute; code = execute(sys.argv[1:]); "
    "print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr); sys.exit(code)"
)
LIBRARIES = "import cyclopts, numpy, psutil, pydantic, yaml"  # what the command line is built on
MOST = 2.5  # times what these take: ratios hold on a busy machine, seconds do not; torch alone takes five times as long


def spent(code: str, *arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run code in a process of its own; return its processor seconds and what it printed."""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system, done


@pytest.fixture(scope="module")
def of_libraries() -> float:
    """Seconds that the libraries of the command line take."""
    return min(spent(LIBRARIES)[0] for _ in range(3))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ls", "methods"],
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (["--version"], ["run", "--help"], ["probe", "--help"], ["ls"], ["ls", "methods", "mod"])
        ),
    ],
    ids=" ".join,
)
def test_help_and_lists_answer_at_once_without_torch(arguments: list[str], of_libraries: float) -> None:
    _, done = spent(COMMAND, *arguments)  # once, so that every module is compiled
    assert done.stdout
    assert done.stderr == "False False\n"
    assert min(spent(COMMAND, *arguments)[0] for _ in range(2)) < MOST * of_libraries


def test_lists_name_what_a_study_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["ls", "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"tasks", "methods", "objectives", "metrics", "studies"}
    assert {"linear", "weight_grid", "rewarded_soups"} <= {entry["name"] for entry in found["methods"]}
    assert "quick" in {entry["name"] for entry in found["studies"]}
    assert execute(["ls", "methods", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == found["methods"]
    assert execute(["ls"]) == OK
    assert "methods:\n  linear" in capsys.readouterr().out


def test_lists_describe_each_name_and_give_the_family_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    from paretune.methods import METHODS, resolve_method

    assert execute(["ls", "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    for entries in found.values():
        for entry in entries:
            assert entry["description"].endswith(".")
            assert "\n" not in entry["description"]
    assert {entry["name"]: entry["family"] for entry in found["methods"]} == {
        name: resolve_method(name).family for name in METHODS
    }
    assert execute(["ls", "methods"]) == OK
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("rewarded_soups"))
    assert line.split()[1] == "meta-policy"
    assert line.split(maxsplit=2)[2].startswith("Train one expert per objective and average their deltas")


def test_one_method_is_listed_with_the_settings_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["ls", "methods", "bone_soups"]) == OK
    first, *settings, last = capsys.readouterr().out.splitlines()
    assert first.startswith("bone_soups              meta-policy    Train each expert for a mixture")
    assert "  beta                  0.7  weight of an expert's own objective; published" in settings
    assert last.startswith("  and as other methods, docs/learning.md: learning_rate, group_size, ")
    assert execute(["ls", "methods", "bone_soups", "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "bone_soups"
    assert [each["name"] for each in found["settings"]] == [line.split()[0] for line in settings]
    assert execute(["ls", "methods", "two_experts:TwoExperts"]) == OK
    assert "  spread                0.3  standard deviation of every parameter" in capsys.readouterr().out
    assert execute(["ls", "methods", "base"]) == OK  # which has none
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_name_that_is_not_there_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["methods", "bone_soup"], "method must be one of .*, got 'bone_soup'. Did you mean 'bone_soups'"),
        (["studies", "quik"], "study must be one of .*, got 'quik'. Did you mean 'quick'"),
        (["methods", "json:JSONDecoder"], "must be a class with "),
    ):
        assert execute(["ls", *arguments]) != OK
        assert re.search(said, capsys.readouterr().err)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == OK
    assert capsys.readouterr().out.strip() == paretune.__version__


def test_a_plan_says_which_instances_it_draws_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "study.yaml").write_text(
        "name: s\ntasks: [{controlled: {rho: 0, alphabet: 4, length: 3}}]\nmethods: {linear: {}}\n"
        "budget: {completions: 200}\nseeds: 2\n"
    )
    for seeds in ([0, 1], []):  # the second time they are there
        assert execute(["plan", str(tmp_path / "study.yaml"), "-o", str(tmp_path / "out")]) == OK
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("drawing instance")]
        assert [int(line.split()[2]) for line in lines] == seeds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["plan", "quik"],
            "paretune: study must be one of controlled, counselling, full, quick, relations, got 'quik'. "
            "Did you mean 'quick'?\n",
        ),
        (["run", "gone.yaml"], "paretune: study must be a file that exists, got 'gone.yaml'. Check the path.\n"),
        (
            ["generate", "gone", "-p", "warm", "x"],
            "paretune: preference must read name=number,name=number, got 'warm'.",
        ),
        (
            ["generate", "gone", "-p", "a=1,a=0", "x"],
            "paretune: preference must name each objective once, got 'a' twice",
        ),
        (
            ["generate", "gone", "-p", "a=1", "--samples", "0", "x"],
            "paretune: --samples must be a whole number from 1 on, got 0.",
        ),
        (
            ["generate", "gone", "-p", "a=1", "--temperature", "0", "x"],
            "paretune: --temperature must be above 0, got 0.",
        ),
        (["generate", "gone", "-p", "a=1", "--top-p", "2", "x"], "paretune: --top-p must lie above 0 and at most at 1"),
        (
            ["generate", "gone", "a=0.7,b=0.3", "How are you?"],
            "paretune: preference must be given as --preference name=number,name=number, got 'a=0.7,b=0.3' without "
            '--preference. Write paretune generate gone --preference a=0.7,b=0.3 "PROMPT".\n',
        ),
        (["generate", "gone", "How are you?"], "paretune: preference must be given as --preference name=number"),
        (["generate", "gone"], "paretune: preference must be given as --preference name=number,name=number, got none."),
        (
            ["generate", "gone", "-p", "a=1"],
            'paretune: prompts must be one or more, got none. Write paretune generate gone --preference a=1 "PROMPT".',
        ),
        (
            ["train", "liner", "-t", "counselling", "-o", "out"],
            f"paretune: method must be one of {len(METHODS)} names, got 'liner'. Did you mean 'linear'? `paretune ls ",
        ),
        (
            ["train", "linear", "-t", "counselling", "-o", "out", "--set", "rank"],
            "paretune: --set must be given key=value",
        ),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], message: str, refused: Callable[[Sequence[str]], str]
) -> None:
    assert refused(arguments).startswith(message)


@pytest.mark.parametrize("arguments", [["rnu", "quick"], ["run"], ["run", "quick", "--wrokers", "2"], ["ls", "method"]])
def test_a_mistyped_command_line_is_explained_and_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == USAGE
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err


def test_a_traceback_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_TRACEBACK", "1")
    with pytest.raises(paretune.ParetuneError, match="quik"):
        execute(["plan", "quik"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), INTERRUPTED), (PermissionError(13, "Permission denied"), ENVIRONMENT)],
)
def test_other_endings_have_their_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from paretune.benchmark import plan

    code_of_ours = compile("lambda *a, **o: (_ for _ in ()).throw(error)", "<ours>", "eval")  # this file is a user's
    monkeypatch.setattr(plan, "plan", eval(code_of_ours, {"error": error}))
    assert execute(["plan", "quick"]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_failed_cells_are_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import builders
    from paretune.benchmark import runner

    records = builders.synthetic_study(failed={("linear", 1): "crash"})
    (cell,) = [cell for cell in records.cells if cell.state == "failed"]
    result = runner.StudyResult(Path("out"), Path("index.html"), records)
    monkeypatch.setattr(runner, "run", lambda *arguments, **options: result)
    assert execute(["run", "quick", "--quiet"]) == SOME_FAILED
    text = capsys.readouterr().out
    assert f"{cell.cell}: failed (crash): {cell.message}" in text
    assert "run the same command again" in text


def test_a_plan_is_printed_for_people_and_for_programs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "mine.yaml"
    study.write_text(
        "tasks: [fake_study:task]\nmethods: {fake: {method: 'fake_study:Fake'}}\nbudget: {completions: 64}\n"
    )
    assert execute(["plan", str(study), "-o", str(tmp_path / "out")]) == OK
    text = capsys.readouterr().out
    assert "cells:    9 (9 new)" in text
    assert "training: 384 completions to make" in text
    assert execute(["plan", str(study), "-o", str(tmp_path / "out"), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["completions_to_train"] == 384
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from paretune.cli.main import main; main(['ls'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    time.sleep(0.1)
    assert process.stderr is not None
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait()


LEFT = {
    "a thread": "import threading; threading.Thread(target=time.sleep, args=(600,)).start()",
    "a pool": "from concurrent.futures import ThreadPoolExecutor as P; P(1).submit(time.sleep, 600)",
    "an exit function": "import atexit; atexit.register(time.sleep, 600)",
    "a child": "import multiprocessing as m; m.get_context('fork').Process(target=time.sleep, args=(600,)).start()",
    "a deaf child": "import subprocess as s; s.Popen(['sh', '-c', 'trap \"\" TERM; sleep 600 & wait; sleep 600'])",
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize(("command", "status"), [("['ls', 'tasks']", OK), ("['plan', 'quik']", USAGE)])
def test_a_command_ends_with_its_status_whatever_a_users_code_has_left_running(
    left: str, command: str, status: int
) -> None:
    program = f"import time; {LEFT[left]}; from paretune.cli.main import main; main({command})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)  # pipes closed
    assert ended.returncode == status
    assert "counselling" in ended.stdout or ended.stderr.startswith("paretune: ")


def test_a_traceback_on_demand_is_a_failure() -> None:
    program = "from paretune.cli.main import main; main(['plan', 'quik'])"
    given = {**os.environ, "PARETUNE_TRACEBACK": "1"}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=given)
    assert (ended.returncode, ended.stderr.startswith("Traceback")) == (SOME_FAILED, True)


def test_several_folders_need_a_place_for_their_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["report", "a", "b"]) == USAGE
    assert "output must name a folder for the merged report, got none. Add -o DIR." in capsys.readouterr().err
    assert execute(["report", "a", "-o", str(tmp_path)]) == USAGE
    said = capsys.readouterr().err
    assert f"output must be left out for one folder, whose report goes into it, got '{tmp_path}'. Remove it." in said


def test_folders_of_parts_become_one_report(tmp_path: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import builders
    from paretune.records import reading

    records = builders.synthetic_study(seeds=(0, 1))
    monkeypatch.setattr(reading, "read_study", lambda folder: records)
    assert execute(["report", "a", "b", "-o", str(tmp_path / "whole")]) == OK
    assert (tmp_path / "whole" / "report" / "index.html").is_file()


@pytest.mark.slow
def test_a_merged_report_goes_into_a_folder_of_its_own_and_is_made_of_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builders
    from paretune.records import reading

    records = builders.synthetic_study(seeds=(0, 1))
    monkeypatch.setattr(reading, "read_study", lambda folder: records)
    monkeypatch.chdir(tmp_path)
    assert execute(["report", "a", "./a", "-o", "whole"]) == USAGE
    assert "folders must be different ones, got 'a' twice. Name it once." in capsys.readouterr().err
    Path("b").mkdir()
    Path("b/study.lock.json").write_text("{}")
    assert execute(["report", "a", "b", "-o", "b"]) == USAGE
    assert "output must be a folder of its own, got 'b', which holds a study" in capsys.readouterr().err
    assert not Path("b/report").exists()
    assert execute(["report", "a", "b", "-o", "whole"]) == OK
    said = capsys.readouterr().err
    assert f"finished in several folders, taken from the first of them: {len(records.cells)} cells" in said


def test_a_report_takes_no_library_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("jinja2", "kiwisolver", "PIL"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder')")
    write_lock(tmp_path / "out", builders.synthetic_study())
    command = [sys.executable, "-P", "-m", "paretune.cli.main", "report", "out"]  # as the installed command starts
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (OK, "")
    assert (tmp_path / "out" / "report" / "index.html").is_file()
