"""A day of an author who edits a method, a reward and an audit, and gives the same command in the same folder."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from paretune.benchmark.pairing import Source, pair
from paretune.benchmark.plan import plan
from paretune.cli.main import OK, SOME_FAILED, USAGE, execute
from paretune.core.user_code import loaded_files
from paretune.records.compact import compact
from paretune.records.files import read_signed, write_signed
from paretune.records.reading import read_study

HERE = Path(__file__).parents[1]
COMMAND = (
    "import sys, fake_study; from paretune.benchmark import score; "
    "fake_study.stand_in(); score.write_report = fake_study.write_report; "
    "from paretune.cli.main import execute; sys.exit(execute(sys.argv[1:]))"
)
FILES = {
    "study.yaml": """
name: day
tasks: ["mytask:task"]
methods:
  fake: {method: "fake_study:Fake"}
  mine: {method: "idea:Mine"}
budget: {completions: 64}
seeds: 2
workers: 2
""",
    "mytask.py": """
from dataclasses import replace
from pathlib import Path
import fake_study
from paretune import Objective

HERE = str(Path(__file__).parent)

def task():
    made = fake_study.task()
    objectives = tuple(Objective(name, f"rewards:{name}", import_path=HERE) for name in ("warm", "brief"))
    return replace(made, objectives=objectives, audit=(Objective("fluent", "audits:fluent", import_path=HERE),))
""",
    "rewards.py": """
def warm(completions, **columns):
    return [0.5] * len(completions)

def brief(completions, **columns):
    return [0.25] * len(completions)
""",
    "audits.py": """
import words

def fluent(completions, **columns):
    return [words.SHARE] * len(completions)
""",
    "words.py": "SHARE = 0.125",
    "idea.py": """
from dataclasses import replace
from fake_study import Fake

class Mine(Fake):
    name = "mine"

    def stages(self, *arguments):
        return tuple(replace(stage, run="loop:train") for stage in super().stages(*arguments))
""",
    "loop.py": """
import fake_study

def train(context):
    fake_study.train(context)
""",
}


@dataclass
class Day:
    """The author's folder, the study's, and what was sampled in evaluation."""

    home: Path
    out: Path
    sampled: Path
    patch: pytest.MonkeyPatch

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.home / name).read_text()
        assert old in text
        (self.home / name).write_text(text.replace(old, new))

    def process(self, *arguments: str) -> tuple[str, str]:
        """Give a command in a process of its own; return what it printed."""
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "FAKE_TRACE": str(self.sampled)}
        self.sampled.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments], env=environment, cwd=self.out.parent, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == OK, done.stderr
        return done.stdout, done.stderr

    def command(self, *arguments: str, code: int = OK) -> tuple[str, str]:
        """Give a command here, as to a process that has read none of the author's code; return what it printed."""
        self.sampled.unlink(missing_ok=True)
        self.forget()
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
            ended = execute(arguments)
        assert ended == code, errors.getvalue()
        return output.getvalue(), errors.getvalue()

    def forget(self) -> None:
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)
        importlib.invalidate_caches()
        loaded_files.cache_clear()
        self.patch.setattr(sys, "path", [str(HERE), *(each for each in sys.path if not each.endswith("/home"))])

    def run(self, code: int = OK) -> str:
        """Run the study; return what it said on the way."""
        return self.command("run", str(self.home / "study.yaml"), "-o", str(self.out), code=code)[1]

    def plan(self) -> dict[str, Any]:
        """Return what `plan --json` prints."""
        self.forget()
        return json.loads(json.dumps(plan(self.home / "study.yaml", self.out).plain()))  # type: ignore[no-any-return]

    def states(self) -> dict[str, set[tuple[str, str]]]:
        """State and reason of the cells of each method."""
        found: dict[str, set[tuple[str, str]]] = {}
        for cell in self.plan()["cells"]:
            found.setdefault(cell["method"], set()).add((cell["state"], cell["reason"]))
        return found

    def sealed(self, *patterns: str) -> dict[str, int]:
        """Time of every marker of success."""
        markers = [path for pattern in patterns for path in self.out.glob(f"{pattern}/DONE.json")]
        return {path.parent.name: path.stat().st_mtime_ns for path in markers}

    def stages(self, cells: Sequence[str]) -> set[str]:
        return {
            key for cell in cells for key in json.loads((self.out / "runs" / cell / "cell.json").read_text())["stages"]
        }

    def chosen(self) -> dict[str, float]:
        """Reward that tuning chose for each method, as the lock has it."""
        found = read_study(self.out).tuning
        return {each.method: each.points[each.chosen].settings["reward"] for each in found if each.chosen is not None}  # type: ignore[misc]  # a float

    def scores(self) -> set[tuple[float, ...]]:
        """Objectives and audit of all evaluations, the base model's included."""
        study = read_study(self.out)
        records = [each for cell in study.cells for each in cell.evaluations] + list(study.references.values())
        assert len(records) == 2 * 2 * 4 + 2
        return {(*record.scores.tolist(), *record.audit_scores.tolist()) for record in records}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    (folder / "home").mkdir()
    for name, text in FILES.items():
        (folder / "home" / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        day = Day(folder / "home", folder / "out", folder / "sampled.txt", patch)
        day.process("run", str(day.home / "study.yaml"), "-o", str(day.out))
        return day


@pytest.fixture
def day(finished: Day, fakes_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """A finished study of two methods, one of them the author's."""
    import fake_study
    from paretune.benchmark import score

    monkeypatch.setattr(score, "write_report", fake_study.write_report)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit as long as what it replaces, in the same second
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "sampled.txt"))
    shutil.copytree(finished.home, tmp_path / "home")
    shutil.copytree(finished.out, tmp_path / "out")
    lock = tmp_path / "out" / "study.lock.json"
    text = json.dumps(read_signed(lock)).replace(str(finished.home), str(tmp_path / "home"))  # where its paths start
    write_signed(lock, json.loads(text))
    day = Day(tmp_path / "home", tmp_path / "out", tmp_path / "sampled.txt", monkeypatch)
    yield day
    day.forget()


DONE = {("finished", "")}


def test_a_comment_makes_nothing_stale(day: Day) -> None:
    for name in ("idea.py", "loop.py", "rewards.py", "words.py", "mytask.py"):
        day.edit(name, "\n", "\n\n# a thought\n") if name != "words.py" else day.edit(name, "SHARE", "# so\nSHARE")
    kept = day.sealed("stages/*", "runs/*")
    assert day.states() == {"fake": DONE, "mine": DONE}
    assert "stale" not in day.run()
    assert not day.sampled.exists()
    assert day.sealed("stages/*", "runs/*") == kept


def test_an_edited_sibling_of_a_method_has_the_cells_of_that_method_done_again_and_no_others(day: Day) -> None:
    before, old = day.sealed("stages/*", "runs/*"), set(day.sealed("runs/*-mine-*"))
    of_mine = day.stages(sorted(old))
    day.edit("loop.py", "    fake", "    more = 1\n    fake")
    assert day.states() == {"fake": DONE, "mine": {("stale", "loop.py changed")}}
    printed = json.loads(day.process("plan", str(day.home / "study.yaml"), "-o", str(day.out), "--json")[0])
    assert printed == day.plan()
    text = day.command("plan", str(day.home / "study.yaml"), "-o", str(day.out))[0]
    assert "stale: loop.py changed; 2 cells of mine on fake to do again" in text
    assert "cells:    4 (2 finished, 2 stale)" in text
    assert day.sealed("stages/*", "runs/*") == before  # planning changes nothing

    run = "run", str(day.home / "study.yaml"), "-o", str(day.out)
    assert "stale: loop.py changed; 2 cells of mine on fake to do again" in day.process(*run)[1]
    after = day.sealed("stages/*", "runs/*")
    assert day.states() == {"fake": DONE, "mine": DONE}
    others = before.keys() - old - of_mine
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert not (old | of_mine) & after.keys()  # what was replaced has gone
    assert not [path for path in day.out.glob("*/*") if path.name in old | of_mine]
    assert len(after) == len(before)


def test_an_edited_answer_is_assembled_again_from_the_stages_that_are_there(day: Day) -> None:
    stages = day.sealed("stages/*")
    day.edit("idea.py", 'name = "mine"', 'name = "mine"\n    note = "answers otherwise"')
    assert day.states() == {"fake": DONE, "mine": {("stale", "idea.py changed")}}
    assert day.plan()["completions_to_train"] == 0
    day.run()
    assert day.states() == {"fake": DONE, "mine": DONE}
    assert day.sealed("stages/*") == stages


def test_a_stale_cell_stays_until_its_replacement_is_finished_and_an_edit_can_be_taken_back(day: Day) -> None:
    before = day.sealed("stages/*", "runs/*")
    day.edit("loop.py", "    fake", "    raise ValueError('half-done')\n    fake")
    day.run(code=SOME_FAILED)
    assert {state for state, _ in day.states()["mine"]} == {"failed"}
    assert day.sealed("stages/*", "runs/*") == before
    assert len(list(day.out.glob("runs/*-mine-*"))) == 4
    day.edit("loop.py", "    raise ValueError('half-done')\n", "")
    assert day.states() == {"fake": DONE, "mine": DONE}
    day.run()
    assert day.sealed("stages/*", "runs/*") == before
    assert len(list(day.out.glob("runs/*-mine-*"))) == 2


def test_edited_settings_and_an_edited_task_have_their_cells_done_again(day: Day) -> None:
    day.edit("study.yaml", '"idea:Mine"', '"idea:Mine", per_preference: true')
    assert day.states() == {"fake": DONE, "mine": {("stale", "setting per_preference changed")}}
    day.edit("mytask.py", "return replace(made,", "return replace(made, beta=0.125,")
    reasons = {method: reason for method, ((_, reason),) in day.states().items()}
    assert reasons == {"fake": "beta changed", "mine": "beta changed, setting per_preference changed"}


def test_an_edited_reward_trains_again_what_used_it_and_is_not_for_score(day: Day) -> None:
    before = day.sealed("stages/*")
    day.edit("rewards.py", "0.25", "0.75")
    stale = {("stale", "objective 'brief' changed, objective 'warm' changed")}  # they share a file
    assert day.states() == {"fake": stale, "mine": stale}
    errors = day.command("score", str(day.out), code=USAGE)[1]
    assert "objectives of task 'fake' must be those that stages were trained with, got another 'brief'" in errors
    assert "paretune run" in errors
    assert day.sealed("stages/*") == before
    day.run()
    after = day.sealed("stages/*")
    assert not before.keys() & after.keys()
    assert len(after) == len(before)
    assert day.scores() == {(0.5, 0.75, 0.125)}
    assert len(day.sampled.read_text().splitlines()) == 2 * 2 * 4  # every cell; not the base model, which is the same


def test_an_edited_audit_is_scored_again_by_run_without_sampling(day: Day) -> None:
    assert day.scores() == {(0.5, 0.25, 0.125)}
    stages, solutions = (
        day.sealed("stages/*"),
        [path.read_bytes() for path in sorted(day.out.glob("runs/*/solution.json"))],
    )
    day.edit("words.py", "0.125", "0.625")
    plan = day.plan()
    assert {(cell["state"], cell["reason"]) for cell in plan["cells"]} == {("stale", "audit 'fluent' changed")}
    assert (plan["completions_to_train"], plan["completions_to_evaluate"]) == (0, 0)
    assert "stale: audit 'fluent' changed; 2 cells of fake on fake to score again from stored completions" in day.run()
    assert not day.sampled.exists()
    assert day.scores() == {(0.5, 0.25, 0.625)}
    assert day.states() == {"fake": DONE, "mine": DONE}
    assert day.sealed("stages/*") == stages
    assert [path.read_bytes() for path in sorted(day.out.glob("runs/*/solution.json"))] == solutions
    assert not list(day.out.glob("runs/.*"))


def test_score_scores_an_edited_audit_again_and_says_what_it_did(day: Day) -> None:
    stages = day.sealed("stages/*")
    day.edit("words.py", "0.125", "0.625")
    day.edit("loop.py", "    fake", "    more = 1\n    fake")  # a method half-way through an edit is no reason to wait
    printed = day.command("score", str(day.out))[0]
    assert "audit 'fluent' of fake: scored again in 4 cells and 2 base models\n" in printed
    assert day.scores() == {(0.5, 0.25, 0.625)}
    assert "nothing to score again" in day.command("score", str(day.out), "--study", str(day.home / "study.yaml"))[0]
    assert day.sealed("stages/*") == stages
    assert day.states() == {"fake": DONE, "mine": {("stale", "loop.py changed")}}


def test_audits_can_be_added_and_removed_and_new_preferences_alone_are_sampled(day: Day) -> None:
    day.edit(
        "audits.py",
        "def fluent",
        "def long(completions, **columns):\n    return [1.0] * len(completions)\n\ndef fluent",
    )
    fluent, long = (f'Objective("{name}", "audits:{name}", import_path=HERE),' for name in ("fluent", "long"))
    day.edit("mytask.py", fluent, f"{long} {fluent}")
    day.edit("study.yaml", "seeds: 2", "seeds: 2\npreferences: {grid: 2, unseen: 2}")
    day.run()
    assert len(day.sampled.read_text().splitlines()) == 2 * 2 * 1
    study = read_study(day.out)
    names = [[each.name for each in info.objectives] for info in study.tasks.values()]
    assert names == [["warm", "brief", "long", "fluent"]]
    records = [each for cell in study.cells for each in cell.evaluations]
    assert len(records) == 2 * 2 * 5
    assert {(*each.scores.tolist(), *each.audit_scores.tolist()) for each in records} == {(0.5, 0.25, 1.0, 0.125)}
    day.edit("mytask.py", long, "")
    day.run()
    assert not day.sampled.exists()
    assert {each.audit for cell in read_study(day.out).cells for each in cell.evaluations} == {("fluent",)}


def test_an_audit_that_fails_everywhere_leaves_the_study_as_it_was(day: Day) -> None:
    before = day.sealed("runs/*")
    day.edit("audits.py", "return [words.SHARE]", "raise ValueError('no')\n    return [words.SHARE]")
    errors = day.command("score", str(day.out), code=USAGE)[1]
    assert "rewards must give at least one score for a batch" in errors
    assert "could not be scored again (reward_error): rewards must give at least" in day.run(code=SOME_FAILED)
    assert not day.sampled.exists()
    assert day.sealed("runs/*") == before
    assert day.scores() == {(0.5, 0.25, 0.125)}
    day.edit("audits.py", "    raise ValueError('no')\n", "")
    assert day.states() == {"fake": DONE, "mine": DONE}


def test_completions_of_other_rules_are_left_to_run(day: Day) -> None:
    day.edit("words.py", "0.125", "0.625")
    day.edit("study.yaml", "seeds: 2", "seeds: 2\nevaluation: {samples: 2}")
    printed = day.command("score", str(day.out), "--study", str(day.home / "study.yaml"))[0]
    assert "nothing to score again" in printed
    assert (
        printed.count("left as it is, since other completions are asked for now; paretune run samples anew") == 6
    )  # 4 cells, 2 base models
    assert day.scores() == {(0.5, 0.25, 0.125)}


def test_a_changed_copy_of_the_study_file_is_not_scored_by(day: Day) -> None:
    copy = day.out / "study.yaml"
    copy.write_text(copy.read_text().replace("seeds: 2", "seeds: 2\nevaluation: {samples: 2}"))
    errors = day.command("score", str(day.out), code=USAGE)[1]
    assert f"'{copy}' must be as the run has written it, got changed content. Name the study file" in errors
    day.command("score", str(day.out), "--study", str(day.home / "study.yaml"))
    day.run()  # writes it anew
    day.command("score", str(day.out))


@pytest.mark.slow
def test_an_edit_of_a_tuned_method_has_its_trials_and_its_cells_done_again_with_what_is_chosen_anew(day: Day) -> None:
    day.edit("study.yaml", "seeds: 2", "seeds: 2\ntune: {reward: [0.25, 0.75], instances: 2}")
    day.edit("rewards.py", "[0.5] * len(completions)", "[float(each) for each in completions]")
    shutil.rmtree(day.out)
    day.run()
    assert day.chosen() == {"fake": 0.75, "mine": 0.75}
    everything = ("stages/*", "runs/*", "tuning/*")
    before = day.sealed(*everything)
    old = {name for name in before if "-mine-" in name}
    assert len(old) == 2 * 2 + 2  # 2 rewards on 2 instances, and 2 cells

    less = "replace(stage, settings={**stage.settings, 'reward': 0.875 - stage.settings['reward']}, run="
    day.edit("idea.py", "replace(stage, run=", less)
    trials = {(cell["cell"].split("-")[1], cell["state"], cell["reason"]) for cell in day.plan()["tuning"]["cells"]}
    assert trials == {("fake", *next(iter(DONE))), ("mine", "stale", "idea.py changed")}
    assert day.states() == {"fake": DONE, "mine": {("stale", "idea.py changed; after tuning")}}
    assert [each["method"] for each in day.plan()["tuning"]["chosen"]] == ["fake"]
    text = day.command("plan", str(day.home / "study.yaml"), "-o", str(day.out))[0]
    assert "stale: idea.py changed; 4 trials of mine on fake to do again" in text
    assert "stale: idea.py changed; after tuning; 2 cells of mine on fake to do again" in text
    assert day.sealed(*everything) == before

    said = day.run()
    assert "stale: idea.py changed; 4 trials of mine on fake to do again" in said
    assert "stale: idea.py changed, setting reward changed; 2 cells of mine on fake to do again" in said
    assert day.chosen() == {"fake": 0.75, "mine": 0.25}
    after = day.sealed(*everything)
    assert not old & after.keys()
    assert not [path for path in day.out.glob("*/*") if path.name in old]
    others = {name for name in before.keys() - old if name in after}
    assert {name for name in others if "-fake-" in name} == {name for name in before if "-fake-" in name}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert len(after) == len(before)  # stages that only the old trials and cells used have gone
    assert day.states() == {"fake": DONE, "mine": DONE}

    day.edit("words.py", "0.125", "0.625")
    assert "scored again in 4 cells and 2 base models" in day.command("score", str(day.out))[0]
    assert day.chosen() == {"fake": 0.75, "mine": 0.25}
    assert day.sealed("tuning/*") == {name: after[name] for name in day.sealed("tuning/*")}


def test_a_folder_that_is_no_study_is_not_scored(day: Day) -> None:
    assert "must be a study, got no study.lock.json" in day.command("score", str(day.home), code=USAGE)[1]


def apart(day: Day, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """Score the study by the rewards of today, apart from its folder; return what was said, and the records."""
    kept: list[Any] = []

    def write(folder: Path, records: Any) -> Path:
        kept.append(records)
        return folder / "report" / "index.html"

    monkeypatch.setattr("paretune.benchmark.score_apart.write_report", write)
    printed = day.command("score", str(day.out), "-o", str(day.out.with_name("apart")))[0]
    return printed, kept[0]


def test_a_changed_objective_is_scored_apart_and_the_folder_stays_as_it_is(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    day.edit("rewards.py", "[0.25]", "[0.75]")
    refused = day.command("score", str(day.out), code=USAGE)[1]
    files = {path: path.read_bytes() for path in day.out.rglob("*") if path.is_file()}
    assert "got another 'brief'. Let paretune run train again what used it, or add -o DIR" in refused
    printed, records = apart(day, monkeypatch)  # both lie in the edited file
    assert "fake: scored again on brief, warm; its policies were trained before the change\n4 cells scored" in printed
    evaluations = [each for cell in records.cells for each in cell.evaluations] + list(records.references.values())
    assert {(*each.scores.tolist(), *each.audit_scores.tolist()) for each in evaluations} == {(0.5, 0.75, 0.125)}
    assert "scored by changed rewards (fake: brief, warm); policies were trained before the change" in records.name
    assert not day.sampled.exists()
    assert {path: path.read_bytes() for path in day.out.rglob("*") if path.is_file()} == files
    day.edit("rewards.py", "[0.75]", "[0.25]")
    assert day.states() == {"fake": DONE, "mine": DONE}  # the edit can be taken back
    assert day.scores() == {(0.5, 0.25, 0.125)}


def test_what_was_scored_apart_is_not_compared_with_what_was_not(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.edit("rewards.py", "[0.25]", "[0.75]")
    _, records = apart(day, monkeypatch)
    sources = [Source("before", compact(read_study(day.out))), Source("after", compact(records))]
    made = pair(sources)
    assert {row.source.name for lineup in made.lineups for row in lineup.rows} == {"before"}
    assert any("after on fake" in line and "other reward that scored it" in line for line in made.unpaired)
    assert len(pair(sources[1:]).lineups[0].rows) == 2  # among themselves they are


def test_cells_that_do_not_say_what_they_were_trained_with_are_not_scored_apart(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = read_study(day.out)
    earlier = replace(records, cells=tuple(replace(cell, made_of={}) for cell in records.cells))
    monkeypatch.setattr("paretune.benchmark.score_apart.read_study", lambda folder: earlier)
    day.edit("rewards.py", "[0.25]", "[0.75]")
    errors = day.command("score", str(day.out), "-o", str(day.out.with_name("apart")), code=USAGE)[1]
    assert "must say which rewards it was trained with, got a record of an earlier version" in errors


def test_rewards_that_have_not_changed_or_are_others_are_not_scored_apart(day: Day) -> None:
    def refused() -> str:
        return day.command("score", str(day.out), "-o", str(day.out.with_name("apart")), code=USAGE)[1]

    assert "rewards must have changed since" in refused()
    day.edit("mytask.py", '("warm", "brief")', '("brief", "warm")')
    assert "must have the names they were trained under, warm, brief, got brief, warm" in refused()
    day.edit("mytask.py", '("brief", "warm")', '("warm", "brief")')
    errors = day.command("score", str(day.out), "-o", str(day.out), code=USAGE)[1]
    assert "output must be a folder of its own" in errors
