import itertools
import os
import re
import signal
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from paretune.core.errors import RewardError, ShapeError, StopRequested, TaskError
from paretune.core.task import Objective
from paretune.core.user_code import loaded_files
from paretune.objectives.scoring import Scorer, read_outcome
from paretune.objectives.user_modules import load_attribute

REWARDS = """
import asyncio

def good(prompts, completions, **columns): return [0.5] * len(completions)
def lengths(completions, **columns): return [len(text) / 10 for text in completions]
def answer(completions, answer, **columns): return [float(text == a) for text, a in zip(completions, answer)]
def batch_size(completions, **columns): return [len(completions) / 100] * len(completions)
def none_for_a(completions, **columns): return [None if text == "a" else 1.0 for text in completions]
def short(completions, **columns): return [0.5] * (len(completions) - 1)
def scalar(completions, **columns): return 0.5
def nothing(completions, **columns): pass
def odd(completions, **columns): return [float("nan"), float("inf"), 2.0, -0.1, "0.5", 1.0]
def raises(completions, **columns): raise KeyError("label")
async def raises_late(completions, **columns):
    await asyncio.sleep(0)
    raise OSError("server is down")
async def good_late(completions, **columns):
    await asyncio.sleep(0)
    return [0.25] * len(completions)
def interrupted(completions, **columns): raise KeyboardInterrupt
def leaves(completions, **columns): raise SystemExit(3)
async def interrupted_late(completions, **columns):
    raise KeyboardInterrupt
def is_interrupted(completions, **columns):
    import os, signal
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**6): pass
    except Exception:
        return [0.5]
class Awkward(Exception):
    def __str__(self): raise KeyError("no text")
def awkward(completions, **columns): raise Awkward
def deep(completions, **columns): return deep(completions)
def huge(completions, **columns): raise ValueError("x" * 10**7)
def leaves_generator(completions, **columns): raise GeneratorExit
class Odd:
    def __init__(self, name): self.name = name
    def __float__(self): return {"exit": exit, "text": lambda: "1", "stop": self.stop}[self.name]()
    def stop(self): raise KeyboardInterrupt
    def __repr__(self): raise ValueError("no repr")
class Sized(list):
    def __iter__(self): raise SystemExit
def unreadable(completions, **columns): return Sized([1.0] * len(completions))
"""


@pytest.fixture
def scorer(tmp_path):
    (tmp_path / "rewards.py").write_text(textwrap.dedent(REWARDS))

    def make(*names, **changes):
        return Scorer([Objective(name, f"rewards:{name}", import_path=str(tmp_path), **changes) for name in names])

    return make


def rows(count, **columns):
    return [{"prompt": f"p{index}", "prompt_id": str(index), **columns} for index in range(count)]


def problems(scorer):
    return {(problem.objective, problem.status): (problem.count, problem.example) for problem in scorer.problems}


def test_rewards_are_a_matrix_in_the_order_of_the_objectives(scorer):
    scores = scorer("lengths", "good_late", "good")(rows(2), ["ab", "abcd"])
    assert scores.rewards.tolist() == [[0.2, 0.25, 0.5], [0.4, 0.25, 0.5]]
    assert scores.statuses.tolist() == [["ok"] * 3] * 2


def test_columns_reach_the_function(scorer):
    scores = scorer("answer")([{"prompt": "p", "answer": "4"}, {"prompt": "p", "answer": "5"}], ["4", "4"])
    assert scores.rewards[:, 0].tolist() == [1.0, 0.0]


def test_none_is_missing_and_not_zero(scorer, caplog):
    score = scorer("none_for_a")
    scores = score(rows(2), ["a", "b"])
    assert caplog.messages == []  # a function may say None
    assert np.isnan(scores.rewards[0, 0])
    assert scores.rewards[1, 0] == 1.0
    assert scores.statuses[:, 0].tolist() == ["missing", "ok"]
    assert problems(score) == {("none_for_a", "missing"): (1, "returned None for completion 0 of 2")}


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("short", "returned 1 values for 2 completions"),
        ("scalar", "returned a float in place of a list for 2 completions"),
        ("nothing", "returned a NoneType in place of a list for 2 completions"),
    ],
)
def test_a_wrong_length_costs_the_whole_objective_and_no_other(scorer, name, example):
    score = scorer("good", name)
    scores = score(rows(2), ["a", "b"])
    assert scores.statuses.tolist() == [["ok", "wrong_length"]] * 2
    assert np.isnan(scores.rewards[:, 1]).all()
    assert scores.rewards[:, 0].tolist() == [0.5, 0.5]
    assert problems(score) == {(name, "wrong_length"): (2, example)}


def test_numbers_that_are_none_or_outside_the_range_are_not_clipped_to_it(scorer):
    score = scorer("odd")
    scores = score(rows(6), list("abcdef"))
    assert scores.statuses[:, 0].tolist() == ["not_finite"] * 2 + ["out_of_range"] * 2 + ["not_finite", "ok"]
    assert np.isnan(scores.rewards[:5, 0]).all()
    assert problems(score) == {
        ("odd", "not_finite"): (3, "returned nan for completion 0 of 6"),
        ("odd", "out_of_range"): (2, "returned 2, outside [0, 1], for completion 2 of 6"),
    }


def test_rounding_at_the_ends_of_a_range_is_no_error():
    rewards, statuses, found = read_outcome([1.0000000001, -1e-9, 0.1 + 0.2], 3, Objective("x", "m:f"))
    assert rewards.tolist() == [1.0, 0.0, 0.1 + 0.2]
    assert set(statuses) == {"ok"}
    assert found == []


def test_arrays_and_tensors_are_lists_too():
    torch = pytest.importorskip("torch")
    for outcome in (np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), (np.float32(0.5), torch.tensor(1.0)), [0.5, True]):
        assert read_outcome(outcome, 2, Objective("x", "m:f"))[0].tolist() == [0.5, 1.0]
    assert set(read_outcome(np.ones((2, 1)), 2, Objective("x", "m:f"))[1]) == {"wrong_length"}


@pytest.mark.parametrize(
    ("name", "example"), [("raises", "KeyError: 'label'"), ("raises_late", "OSError: server is down")]
)
def test_what_raises_is_missing_with_the_first_traceback_kept_and_logged(scorer, name, example, caplog):
    score = scorer("good", name)
    scores = score(rows(3), ["a", "b", "c"])
    score(rows(1), ["a"])
    (logged,) = caplog.messages  # the first time, not every time
    assert re.match(
        rf"no score: {name} \(rewards:{name}\) raised {example} \(rewards\.py, line \d+\)\. Its scores are left out",
        logged,
    )
    assert "run again.\nTraceback" in logged
    assert scores.statuses[:, 1].tolist() == ["raised"] * 3
    assert np.isnan(scores.rewards[:, 1]).all()
    (problem,) = score.problems
    assert (problem.status, problem.count) == ("raised", 4)
    assert problem.example.startswith(f"{example} (rewards.py, line ")
    assert "rewards.py" in problem.traceback


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("interrupted", r"KeyboardInterrupt \(rewards\.py, line 20\)"),
        ("leaves", r"SystemExit: 3 \(rewards\.py, line 21\)"),
        ("interrupted_late", r"KeyboardInterrupt \(rewards\.py, line 23\)"),
    ],
)
def test_a_reward_that_ends_the_program_is_a_named_failure_at_once(scorer, name, got):
    message = rf"{name} \(rewards:{name}\) must not end the program, got {got}\. Return None"
    with pytest.raises(RewardError, match=message):
        scorer("good", name)(rows(1), ["a"])


def test_a_real_interrupt_in_a_reward_stops_whatever_it_catches(scorer):
    with pytest.raises(StopRequested):
        scorer("good", "is_interrupted")(rows(1), ["a"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_batch_without_any_score_is_an_error_that_names_each_function(scorer):
    message = (
        r"rewards must give at least one score for a batch of 2 completions, got none: "
        r"raises \(rewards:raises\) raised KeyError: 'label' \(rewards\.py, line \d+\); "
        r"short \(rewards:short\) returned 1 values.*"
        r"Correct the reward functions"
    )
    with pytest.raises(RewardError, match=message) as caught:
        scorer("raises", "short")(rows(2), ["a", "b"])
    assert "The first traceback:\nTraceback" in str(caught.value)


def test_one_score_or_one_none_is_enough_to_go_on(scorer):
    scores = scorer("none_for_a", "raises")(rows(1), ["a"])
    assert scores.statuses.tolist() == [["missing", "raised"]]


def test_scores_say_what_each_objective_did_wrong_in_their_batch(scorer):
    score = scorer("good", "raises", "none_for_a")
    for _ in range(2):  # each time, not only the first
        before, told, after = score(rows(2), ["a", "b"]).faults
        assert (before, after) == ("", "")
        assert told.startswith("raises (rewards:raises) raised KeyError: 'label' (rewards.py, line ")


def test_an_empty_batch_calls_nobody(scorer):
    scores = scorer("raises", "good")([], [])
    assert scores.rewards.shape == scores.statuses.shape == (0, 2)


def test_built_in_objectives_score_equal_pairs_once(monkeypatch):
    from paretune.objectives import brevity

    seen = []
    original = brevity.brevity

    def counted(prompts, completions, **columns):
        seen.append(list(completions))
        return original(prompts, completions, **columns)

    monkeypatch.setattr(brevity, "brevity", counted)
    score = Scorer([Objective("brevity", "paretune.objectives.brevity:brevity")])
    row, other = rows(2)
    scores = score([row, row, other, row], ["I hear you.", "I hear you.", "I hear you.", "Hm."])
    assert seen == [["I hear you.", "I hear you.", "Hm."]]  # one pair of `row`, one of `other`, one of another reply
    assert scores.rewards[:, 0].tolist() == [1.0, 1.0, 1.0, pytest.approx(1 / 3)]


def test_a_users_function_sees_the_whole_batch(scorer):
    row = rows(1)[0]
    assert scorer("batch_size")([row] * 3, ["a"] * 3).rewards[:, 0].tolist() == [0.03] * 3


def test_rows_and_completions_of_different_number_are_refused(scorer):
    with pytest.raises(ShapeError, match=r"rows must be one per completion \(1\), got 2\. Repeat the rows\."):
        scorer("good")(rows(2), ["a"])


def test_a_reward_that_is_nowhere_is_refused_before_the_first_batch(tmp_path):
    with pytest.raises(TaskError, match=r"module of 'absent:f' must be importable"):
        Scorer([Objective("x", "absent:f", import_path=str(tmp_path))])


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("awkward", r"Awkward: \(its message raised KeyError\)"),
        ("deep", r"RecursionError: maximum recursion depth exceeded"),
        ("huge", r"ValueError: x{900,1000}\.\.\."),
        ("leaves_generator", r"GeneratorExit"),
        ("unreadable", r"SystemExit"),
    ],
)
def test_whatever_is_raised_costs_its_batch_and_is_told_in_a_line(scorer, name, example):
    score = scorer("good", name)
    assert score(rows(2), ["a", "b"]).statuses.tolist() == [["ok", "raised"]] * 2
    (problem,) = score.problems
    assert re.match(example, problem.example)
    assert len(problem.example) < 1100
    assert len(problem.traceback) < 10_000


def read(value):
    rewards, statuses, found = read_outcome([0.5, value], 2, Objective("x", "m:f"))
    assert (rewards[0], statuses[0]) == (0.5, "ok")  # that row alone
    return rewards[1] if statuses[1] == "ok" else statuses[1], found[0].example if found else ""


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(True, 1.0), (np.float16(0.5), 0.5), (np.bool_(True), 1.0), (np.array([0.25]), 0.25), (np.array(0.25), 0.25),
     (np.array([[0.25]]), 0.25), (Decimal("0.25"), 0.25), (Fraction(1, 4), 0.25), (np.ma.masked, "missing"),
     (None, "missing"), ("0.5", "not_finite"), (b"1", "not_finite"), (10**400, "not_finite"), (1j, "not_finite"),
     (np.complex128(1), "not_finite"), ([0.5], "not_finite"), ({}, "not_finite"), (np.array([0.1, 0.2]), "not_finite"),
     (np.array([]), "not_finite"), (Decimal("sNaN"), "not_finite"), (Fraction(10**400), "not_finite"),
     (object(), "not_finite"), (np.array(["1"]), "not_finite"), (float("nan"), "not_finite"),
     ("x" * 10**6, "not_finite"), (-10**300, "out_of_range")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_is_read_or_costs_its_row_alone(value, wanted):
    got, example = read(value)
    assert got == wanted
    assert len(example) < 1100


@pytest.mark.parametrize("name", ["exit", "text", "stop"])
def test_a_value_whose_float_raises_or_has_no_repr_costs_its_row_alone(scorer, name):
    scorer("good")
    odd = load_attribute("rewards:Odd", Path(scorer("good").objectives[0].import_path))
    got, example = read(odd(name))
    assert got == "not_finite"
    assert example.startswith("returned a Odd, which raised ")


def test_a_tensor_with_a_gradient_is_read_without_a_warning():
    torch = pytest.importorskip("torch")
    assert read(torch.tensor(0.25, requires_grad=True))[0] == 0.25
    assert read(torch.tensor([0.25], requires_grad=True))[0] == 0.25
    outcome = torch.tensor([0.5, 0.25], requires_grad=True)
    assert read_outcome(outcome, 2, Objective("x", "m:f"))[0].tolist() == [0.5, 0.25]


LIBRARIES = ("sys", "json", "numpy.linalg", "torch", "paretune.core.errors")
CHANGES = """
import builtins, os, sys, warnings

def changes(prompts, completions, meta, tags, **columns):
    import torch
    os.chdir("/")
    sys.path.insert(0, "/nowhere")
    sys.stdout = None
    warnings.filterwarnings("error", message="only mine")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    prompts.clear()
    completions.reverse()
    columns.clear()
    for each in meta:
        each["words"]["all"].pop()
        each["new"] = 1
    found = [len(each) / 10 for each in tags]
    for each in tags:
        each.pop()
    builtins.open = builtins.len = None
    sys.setrecursionlimit(sys.getrecursionlimit() - 100)
    sys.modules.clear()
    return found

def sees(prompts, completions, meta, tags, **columns):
    ok = prompts == ["p0", "p0"] and completions == ["a", "b"] and meta[0] == {"words": {"all": [1, 2]}}
    ok = ok and os.getcwd() != "/"
    return [float(ok and tags == [["x", "y"]] * 2 and columns["other"] == [(1,)] * 2)] * 2
"""


def test_a_reward_changes_neither_the_task_nor_what_others_see_nor_the_process(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "rewards.py").write_text(CHANGES)
    names = ("changes", "sees")
    score = Scorer([Objective(name, f"rewards:{name}", import_path=str(tmp_path)) for name in names])
    row = {"prompt": "p0", "meta": {"words": {"all": [1, 2]}}, "tags": ["x", "y"], "other": (1,)}
    before = os.getcwd(), list(sys.path), sys.stdout, torch.get_default_dtype(), torch.is_grad_enabled()
    python, modules = (open, sys.getrecursionlimit()), dict(sys.modules)
    completions = ["a", "b"]
    for _ in range(2):  # the second call sees what the first did
        scores = score([row, row], completions)
        assert scores.rewards.tolist() == [[0.2, 1.0]] * 2
    assert row == {"prompt": "p0", "meta": {"words": {"all": [1, 2]}}, "tags": ["x", "y"], "other": (1,)}
    assert completions == ["a", "b"]
    assert before == (os.getcwd(), list(sys.path), sys.stdout, torch.get_default_dtype(), torch.is_grad_enabled())
    assert python == (open, sys.getrecursionlimit())
    assert {name: sys.modules.get(name) for name in LIBRARIES} == {name: modules[name] for name in LIBRARIES}
    sys.modules.update(modules)  # those of tests are a user's
    assert "only mine" not in str(warnings.filters)


def test_a_folder_that_a_reward_puts_on_the_path_is_there_at_its_next_call(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "far_away_words.py").write_text("VALUE = 0.25")
    (tmp_path / "rewards.py").write_text(
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent / 'lib'))\n"
        "def f(completions, **columns):\n    import far_away_words\n"
        "    return [far_away_words.VALUE] * len(completions)\n"
    )
    score = Scorer([Objective("f", "rewards:f", import_path=str(tmp_path))])
    assert score(rows(1), ["a"]).rewards.tolist() == [[0.25]]
    assert str(tmp_path / "lib") not in sys.path
    sys.modules.pop("far_away_words", None)


@pytest.mark.parametrize(
    "reads",
    ["open(HERE / NAME).close()", "(HERE / NAME).read_text()", "os.close(os.open(HERE / NAME, os.O_RDONLY))",
     "exec((HERE / NAME).read_text())", "sqlite3.connect(HERE / NAME).close()",
     "linecache.getline(str(HERE / NAME), 1)"],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_no_key_covers_is_refused_when_it_is_read(tmp_path, reads, late):
    (tmp_path / "words.json").write_text("[]")
    lines = ["import linecache, os, sqlite3", "from pathlib import Path", "HERE = Path(__file__).parent"]
    lines += ["NAME = 'words' + '.json'", "def f(completions, **columns):", f"    {reads if late else 'pass'}"]
    lines += ["    return [1.0] * len(completions)", "" if late else reads]
    (tmp_path / "rewards.py").write_text("\n".join(lines))
    objective = Objective("f", "rewards:f", import_path=str(tmp_path))

    def scores(objective):
        return Scorer([objective])(rows(1), ["a"])

    message = (
        r"file 'words\.json' that rewards:f reads must be named in depends.*Add depends: \[words\.json\] to the task"
    )
    with pytest.raises(TaskError, match=message):
        scores(objective)
    declared = replace(objective, depends=("words.json",))
    assert scores(declared).rewards.tolist() == [[1.0]]
    before = declared.key()
    loaded_files.cache_clear()
    (tmp_path / "words.json").write_text("[1]")
    assert declared.key() != before


@pytest.mark.parametrize("text", ["HERE / '..' / 'words.json'", "Path('words.json')", "HERE / 'linked' / 'words.json'"])
def test_a_file_outside_the_task_is_refused_until_it_is_declared_and_then_part_of_the_key(tmp_path, monkeypatch, text):
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "words.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    (folder / "rewards.py").write_text(
        "from pathlib import Path\nHERE = Path(__file__).parent\n"
        f"def f(completions, **columns):\n    ({text}).read_text()\n    return [1.0] * len(completions)\n"
    )
    objective = Objective("f", "rewards:f", import_path=str(folder))
    with pytest.raises(
        TaskError, match=r"file '(\.\.|linked)/words\.json' that rewards:f reads must be named in"
    ) as found:
        Scorer([objective])(rows(1), ["a"])
    name = re.search(r"depends: \[(.*?)\]", str(found.value))[1]
    declared = replace(objective, depends=(name,))
    before = declared.key()
    assert Scorer([declared])(rows(1), ["a"]).rewards.tolist() == [[1.0]]
    loaded_files.cache_clear()
    (tmp_path / "words.json").write_text("[1]")
    assert declared.key() != before


@pytest.mark.parametrize(
    "text",
    [
        "open(HERE / 'WORDS.TXT'.lower(), 'a+').close()",
        "list(HERE.glob('lex/*'))",
        "os.listdir(HERE / 'lex')",
    ],
)
def test_what_is_opened_to_append_and_read_or_listed_is_read(tmp_path, text):
    (tmp_path / "words.txt").write_text("a")
    (tmp_path / "lex").mkdir()
    (tmp_path / "rewards.py").write_text(
        "import os\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        f"def f(completions, **columns):\n    {text}\n    return [1.0] * len(completions)\n"
    )
    objective = Objective("f", "rewards:f", import_path=str(tmp_path))
    with pytest.raises(
        TaskError, match=r"(file 'words\.txt'|folder 'lex') that rewards:f reads must be named in depends"
    ):
        Scorer([objective])(rows(1), ["a"])
    declared = replace(objective, depends=("words.txt", "lex"))
    assert Scorer([declared])(rows(1), ["a"]).rewards.tolist() == [[1.0]]


def test_what_a_reward_writes_or_keeps_elsewhere_or_hidden_is_no_file_it_depends_on(tmp_path):
    folder, elsewhere = tmp_path / "task", tmp_path / ".cache" / "answers.json"
    folder.mkdir()
    elsewhere.parent.mkdir()
    elsewhere.write_text("{}")
    (folder / ".env").write_text("KEY=1")
    (folder / "rewards.py").write_text(
        "from pathlib import Path\nHERE = Path(__file__).parent\n"
        "def f(completions, **columns):\n"
        f"    Path({str(elsewhere)!r}).read_text()\n    (HERE / '.env').read_text()\n"
        "    (HERE / 'log.txt').open('a').close()\n    (HERE / 'gone.txt').exists()\n"
        "    return [1.0] * len(completions)\n"
    )
    score = Scorer([Objective("f", "rewards:f", import_path=str(folder))])
    for _ in range(2):
        assert score(rows(1), ["a"]).rewards.tolist() == [[1.0]]


class Endless(list[float]):
    def __iter__(self) -> Iterator[float]:
        return itertools.repeat(0.5)


class Itself:
    def tolist(self) -> list[object]:
        return [knot]


class Ends:
    def __repr__(self) -> str:
        raise SystemExit


knot: list[object] = []
knot.append(knot)


@pytest.mark.parametrize("value", [knot, Itself(), Ends()], ids=["a knot", "itself", "ends"])
def test_a_value_without_a_number_costs_its_own_row_alone(value: object) -> None:
    objective = Objective("odd", "rewards:odd", range=(0.0, 1.0))
    rewards, statuses, _ = read_outcome([0.5, value], 2, objective)
    assert (rewards[0], list(statuses)) == (0.5, ["ok", "not_finite"])


def test_a_list_without_end_has_the_wrong_length() -> None:
    _, statuses, _ = read_outcome(Endless(), 2, Objective("odd", "rewards:odd", range=(0.0, 1.0)))
    assert list(statuses) == ["wrong_length"] * 2
