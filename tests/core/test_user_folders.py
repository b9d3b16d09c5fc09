from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch  # noqa: F401  # its first import reads the source of whoever imports it

from paretune.core.errors import ConfigError, TaskError
from paretune.core.imports import import_name
from paretune.core.user_code import code_files
from paretune.core.user_folders import BUILT_ON, FolderFinder, look_in, looked_in
from paretune.objectives.user_modules import check_reference, imports_from, load_attribute


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder where users' modules are looked for; afterwards it is as if it had never been."""
    others = {
        name: sys.modules.pop(name) for name in ("idea", "rewards", "sibling") if name in sys.modules
    }  # of other tests
    finders, modules, path = list(sys.meta_path), set(sys.modules), list(sys.path)
    sys.meta_path[:] = [each for each in finders if not isinstance(each, FolderFinder)]  # of a folder this file lies in
    yield tmp_path
    assert sys.path == path
    sys.meta_path[:] = finders
    for name in set(sys.modules) - modules:
        if str(tmp_path) in f"{vars(sys.modules[name]).get('__file__')} {vars(sys.modules[name]).get('__path__')}":
            del sys.modules[name]
    sys.modules.update(others)


SHADOWS = ("random", "json", "torch", "secrets", "this", "yaml", "antigravity")  # loaded or not, of Python or installed


def test_a_file_named_like_a_librarys_module_takes_its_place_for_nobody(here: Path) -> None:
    for name in SHADOWS:
        (here / f"{name}.py").write_text("raise SystemExit('shadowed')")
    (here / "rewards.py").write_text(
        "import json, random, yaml\nimport secrets\nfrom sibling import VALUE\n"
        "def f(completions, **c):\n    import numpy.random, wsgiref.util\n"
        "    return [VALUE + len(yaml.safe_load('[]'))]\n"
    )
    (here / "sibling.py").write_text("import string, torch\nVALUE = 0.5 + len(torch.zeros(0))")
    function = load_attribute("rewards:f", here)
    with imports_from(here):
        assert function(completions=["a"]) == [0.5]  # type: ignore[operator]
    assert code_files("rewards:f", here).keys() == {"rewards.py", "sibling.py"}
    look_in(here)
    assert import_name("function", "rewards:f")(completions=["a"]) == [0.5]
    for name in SHADOWS:
        assert not str(getattr(sys.modules.get(name), "__file__", "")).startswith(str(here))


def test_a_module_that_is_named_like_a_library_is_refused_with_what_to_do(here: Path) -> None:
    (here / "random.py").write_text("def f(**c): ...\nclass Mine: ...")
    with pytest.raises(TaskError, match=r"'random:f' must not have the name of a library\. Rename .*random\.py: it "):
        check_reference("random:f", here)
    look_in(here)
    with pytest.raises(ConfigError, match=r"got 'random:Mine' \(AttributeError: .*\)\. Rename .*random\.py: it never"):
        import_name("method", "random:Mine")


def test_users_files_find_each_other_and_libraries_do_not_find_them(here: Path) -> None:
    look_in(here, here)
    assert looked_in().count(here) == 1
    (here / "optional_extra.py").write_text("VALUE = 1")
    (here / "data").mkdir()
    (here / "plain" / "deep").mkdir(parents=True)
    (here / "plain" / "deep" / "part.py").write_text("VALUE = 2")
    (here / "idea.py").write_text(
        "import importlib, importlib.util, optional_extra, plain.deep.part\n"
        "LATE = importlib.import_module('optional_extra')\n"
        "SPEC = importlib.util.find_spec('optional_extra')\nexec('import optional_extra as MADE')\n"
        "def made(): return [plain.deep.part.VALUE, optional_extra.VALUE, LATE.VALUE, MADE.VALUE, bool(SPEC)]\n"
    )
    assert import_name("function", "idea:made")() == [2, 1, 1, 1, True]
    del sys.modules["optional_extra"]
    with pytest.raises(ModuleNotFoundError):  # this file is none of that folder, as a library is none
        import optional_extra  # noqa: F401


def test_an_edit_within_a_second_is_seen_in_the_next_process_too(here: Path) -> None:
    file, code = here / "edited.py", "from paretune.core.imports import import_name, look_in\n"
    look = f"from paretune.core.user_folders import FolderFinder, look_in; look_in({str(here)!r})\n"
    command = [sys.executable, "-c", code.replace(", look_in", "") + look + "print(import_name('x', 'edited:f')())"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for value in (1, 2):
        file.write_text(f"def f(): return {value}\n")
        os.utime(file, (10**9, 10**9))  # as an archive or a copy may set it
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.split() == [str(value)]
    assert not (here / "__pycache__").exists()


def test_the_packages_that_paretune_is_built_on_are_those_of_its_project_file() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {each.lower().split(">")[0].split("=")[0].split("<")[0].split(".")[0] for each in project["dependencies"]}
    assert {name.replace("pyyaml", "yaml").replace("-", "_") for name in names} <= BUILT_ON
