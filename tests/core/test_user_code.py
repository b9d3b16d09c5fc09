from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paretune.core.stages import Stage
from paretune.core.task import Objective, Task
from paretune.core.user_code import code_files, files_digest, loaded_code, loaded_files, references_in

IDEA = """
import math
import sibling

def run(context):
    # what is learnt
    return sibling.RATE * 2
"""


def code_digest(reference: str, folder: Path | None = None) -> str:
    return files_digest(reference, code_files(reference, folder))


def write(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path; what a process has read is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    loaded_files.cache_clear()
    yield tmp_path
    loaded_files.cache_clear()


def test_our_own_code_and_pythons_is_nobodys() -> None:
    for reference in ("paretune.methods.experts:train_experts", "json:loads", "os.path:join", "sys:path", "nowhere:f"):
        assert code_files(reference) == {}
        assert code_digest(reference) == ""


def test_an_installed_module_counts_where_it_is_named_and_not_where_it_is_imported(here: Path) -> None:
    assert code_files("pluggy:PluginManager").keys() == {"pluggy/__init__.py"}
    write(here, idea="import pluggy, paretune, torch, json")
    assert code_files("idea:run").keys() == {"idea.py"}


def test_comments_blank_lines_and_layout_do_not_count_and_code_does(here: Path) -> None:
    write(here, idea=IDEA, sibling="RATE = 0.1")
    before = code_digest("idea:run")
    write(here, idea="# mine\n\n" + IDEA.replace("sibling.RATE * 2", "(\n        sibling.RATE\n        * 2)"))
    assert code_digest("idea:run") == before
    write(here, idea=IDEA.replace("* 2", "* 3"))
    assert code_digest("idea:run") != before


@pytest.mark.parametrize(
    ("one", "other"),
    [("x = 1", "x = True"), ("x = 1", "x = 1.0"), ("x = None", "x = 'None'"), ("f(a, b)", "f(a)(b)"),
     ("x = [[a], b]", "x = [[a, b]]"), ("return_ = 1", "return_: int = 1"), ("x = 'a>'", "x = 'a'"),
     ("def f(): return", "def f(): return None")],
)  # fmt: skip
def test_different_code_has_different_digests(here: Path, one: str, other: str) -> None:
    write(here, first=one)
    first = code_files("first:x")["first.py"]
    write(here, first=other)
    assert code_files("first:x")["first.py"] != first


def test_a_sum_of_thousands_of_parts_is_no_trouble(here: Path) -> None:
    write(here, idea="x = " + " + ".join(["'a'"] * 3000) if sys.version_info >= (3, 12) else "x = 1" + " + 1" * 900)
    assert code_digest("idea:x")


def test_a_digest_is_of_the_imported_siblings_and_nothing_else(here: Path) -> None:
    write(here, idea="import used\nfrom pack import part", used="A = 1", unused="B = 1")
    write(here / "pack", __init__="", part="C = 1", other="D = 1")
    before = code_files("idea:f")
    assert before.keys() == {"idea.py", "used.py", "pack/__init__.py", "pack/part.py"}
    write(here, unused="B = 2")
    write(here / "pack", other="D = 2")
    assert code_files("idea:f") == before
    write(here / "pack", part="C = 2")
    changed = code_files("idea:f")
    assert {file for file in before if before[file] != changed[file]} == {"pack/part.py"}


def test_what_siblings_import_counts_and_circles_end(here: Path) -> None:
    write(here, idea="import used", used="import deep", deep="import idea")
    before = code_digest("idea:f")
    write(here, deep="import idea, math")
    assert code_digest("idea:f") != before


@pytest.mark.parametrize(
    "text",
    ["if False:\n    import late", "def f():\n    from late import x", "try:\n    import late\nexcept ImportError: ...",
     "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from late import x",
     "import importlib\nlate = importlib.import_module('late')", "late = __import__('late')"],
)  # fmt: skip
def test_an_import_counts_wherever_it_stands(here: Path, text: str) -> None:
    write(here, idea=text, late="x = 1")
    assert code_files("idea:f").keys() == {"idea.py", "late.py"}


def test_relative_imports_packages_and_packages_without_init_are_followed(here: Path) -> None:
    write(here / "mine", __init__="raise SystemExit('ran')")
    write(here / "mine" / "inner", __init__="", idea="from . import beside\nfrom ..above import x\nfrom .. import top")
    write(here / "mine" / "inner", beside="")
    write(here / "mine", above="x = 1", top="", unused="")
    write(here / "plain" / "deep", part="import plain.deep.more", more="")
    assert code_files("mine.inner.idea:run").keys() == {
        "mine/__init__.py", "mine/inner/__init__.py", "mine/inner/idea.py", "mine/inner/beside.py", "mine/above.py",
        "mine/top.py",
    }  # fmt: skip
    assert code_files("plain.deep.part:run").keys() == {"plain/deep/part.py", "plain/deep/more.py"}
    assert not {"mine", "plain"} & set(sys.modules)  # nothing was imported, nothing ran


def test_a_file_that_is_not_parseable_counts_byte_by_byte(here: Path) -> None:
    write(here, idea="try:\n    import old\nexcept SyntaxError: ...", old="print 'a'")
    before = code_digest("idea:f")
    write(here, old="print 'b'")
    assert code_digest("idea:f") != before


def test_a_digest_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    digests = {code_digest("rewards:f", write(tmp_path / name, rewards="def f(): ...")) for name in ("one", "two")}
    assert len(digests) == 1


def test_a_folder_comes_before_the_import_path(here: Path) -> None:
    write(here, rewards="import sibling", sibling="A = 1")
    elsewhere = write(here / "task", rewards="import sibling", sibling="A = 2")
    assert code_digest("rewards:f", elsewhere) != code_digest("rewards:f")


def test_a_process_reads_what_it_has_loaded_once(here: Path) -> None:
    write(here, idea="x = 1")
    before = loaded_code(["idea:x", "json:loads"])
    assert before.keys() == {"idea:x"}
    write(here, idea="x = 2")
    assert loaded_code(["idea:x"]) == before
    code = "from paretune.core.user_code import loaded_code; print(loaded_code(['idea:x'])['idea:x'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    now = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert now.stdout.strip() == code_digest("idea:x") != before["idea:x"]


def test_only_what_reads_as_a_reference_is_one() -> None:
    data = {"a": "idea:Mine", "b": ["x", "a.b:c", 3, None], "c": {"d": "Client: {prompt}", "e": "a:b:c", "f": ":c"}}
    assert list(references_in(data)) == ["idea:Mine", "a.b:c"]


TASK = Task(
    "t", "t", "m", "d", "{prompt}", {"train": (), "development": (), "test": ()}, (Objective("x", "m:x"),),
    reference_point=(0.0,),
)  # fmt: skip


def keys(*stages: Stage) -> list[str]:
    """Ask as a new process does, which has read no code and knows no key."""

    def anew(stage: Stage) -> Stage:
        return replace(stage, needs=tuple(map(anew, stage.needs)))

    loaded_files.cache_clear()
    return [anew(stage).key(TASK) for stage in stages]


def test_a_stage_is_also_the_code_of_a_user_that_runs_it_or_that_its_settings_name(here: Path) -> None:
    write(here, idea=IDEA, sibling="RATE = 0.1", weights="class Mine: ...", gates="class Gate: ...")
    stages = [
        Stage("expert", "idea:run", {}),
        Stage("expert", "paretune.methods.experts:train_experts", {"weighting": "weights:Mine"}),
        Stage("expert", "paretune.methods.experts:train_experts", {"gate": {"class": "gates:Gate"}}),
        Stage("expert", "paretune.methods.experts:train_experts", {}, {"weighting": "weights:Mine"}),
        Stage("expert", "paretune.methods.experts:train_experts", {}),
    ]
    before = keys(*stages)
    for edited, changed in (("sibling", [0]), ("weights", [1, 3]), ("gates", [2])):
        text = (here / f"{edited}.py").read_text()
        write(here, **{edited: "# a comment\n" + text})
        assert keys(*stages) == before
        write(here, **{edited: text + "\nmore = 1\n"})
        now = keys(*stages)
        assert [index for index in range(5) if now[index] != before[index]] == changed
        write(here, **{edited: text})


def test_what_needs_an_edited_stage_is_another_stage(here: Path) -> None:
    write(here, idea=IDEA, sibling="RATE = 0.1")
    gate = Stage("gate", "paretune.methods.experts:measure_experts", {}, needs=(Stage("expert", "idea:run", {}),))
    before = keys(gate)
    write(here, sibling="RATE = 0.2")
    assert keys(gate) != before


def test_a_reward_that_a_task_made_by_code_names_is_known_by_its_code(here: Path) -> None:
    write(here, scores="import sibling\ndef f(**columns): ...", sibling="x = 1")
    before = Objective("x", "scores:f").key()
    assert Objective("x", "scores:f").key() == before != Objective("x", "scores:g").key()
    loaded_files.cache_clear()
    write(here, sibling="x = 2")
    assert Objective("x", "scores:f").key() != before


def test_a_kind_of_task_of_a_users_own_is_known_by_its_code(here: Path) -> None:
    text = "from paretune.core.task import Task\nclass Mine(Task):\n    def instance(self, seed): return {}"
    write(here, kinds=text.format("self"))
    import kinds

    made = kinds.Mine(**{name: getattr(TASK, name) for name in TASK.__dataclass_fields__})
    before = made.training_key()
    assert before.keys() - TASK.training_key().keys() == {"code"}
    loaded_files.cache_clear()
    write(here, kinds=text.format("self.__class__"))
    assert made.training_key() != before
    del sys.modules["kinds"]
