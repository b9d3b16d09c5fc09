from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import micro_task
from paretune.benchmark import estimates, speed
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import Plan
from paretune.benchmark.speed import Probe, Range, known_speeds, measure_speeds
from paretune.benchmark.summary import plan_text
from paretune.cli.main import OK, execute
from paretune.core.task import Task
from paretune.executors.in_process import InProcess
from paretune.executors.jobs import Link

pytestmark = pytest.mark.usefixtures("only_what_is_named")

Make = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "speed"


def probes_of(planned: Plan) -> list[Probe]:
    return [each.probe for each in (*estimates._training(planned), *estimates._evaluation(planned))]


@pytest.fixture
def micro(tmp_path: Path) -> dict[str, Any]:
    """A study of a real, tiny model."""
    return {
        "name": "micro", "tasks": [str(micro_task.save_task(tmp_path / "task"))], "methods": {"linear": {}}, "seeds": 1,
        "budget": {"completions": 1500}, "preferences": {"grid": 1, "unseen": 0}, "workers": 1,
    }  # fmt: skip


def test_minutes_are_units_times_seconds_between_two_values(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(study(workers=2), tmp_path / "out")
    seconds = {"train": Range(1.0, 2.0), "sample": Range(0.1, 0.2)}
    monkeypatch.setattr(estimates, "known_speeds", lambda probes: {each.key: seconds[each.kind] for each in probes})
    low, high = (each * 60 for each in estimates.estimated(planned, measure=False).minutes)
    # 2 seeds of 2 experts of 32 completions; 4 preferences, of which 2 experts answer in 2 policies at least, on 3
    # prompts in 2 cells, and 2 base models; timing: 7 passes of 2 decoders over 1 row and 3 over 8, 182 rows,
    # while nothing else runs
    assert planned.completions_to_train == 2 * 64
    assert low == pytest.approx(8 + (128 * 1.0 + (2 * 4 * 3 + 6) * 0.1) / 1.25 / 2 + 182 * 0.1 / 1.25)
    # the longest group, 2 of the 4 experts, may come last
    tail = 64 * 2.0 * 1.25 / 2
    assert high == pytest.approx(40 + (128 * 2.0 + (2 * 4 * 3 + 6) * 0.2) * 1.25 / 2 + tail + 182 * 0.2 * 1.25)


def test_what_is_known_is_not_measured_and_what_is_done_takes_no_time(
    study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def measured(probes: list[Probe], workers: int) -> dict[str, Range]:
        asked.append([each.kind for each in probes])
        return {each.key: Range(1.0, 1.0) for each in probes}

    monkeypatch.setattr(estimates, "measure_speeds", measured)
    assert plan(study(), tmp_path / "out").speed == "assumed"
    assert asked == []
    assert plan(study(), tmp_path / "out", measure=True).speed == "measured"
    assert asked == [["sample", "train"]]
    known = {each.key: Range(1.0, 1.0) for each in probes_of(plan(study(), tmp_path / "out")) if each.kind != "train"}
    monkeypatch.setattr(estimates, "known_speeds", lambda probes: known)
    assert plan(study(), tmp_path / "out", measure=True).speed == "measured"
    assert asked[1:] == [["train"]]
    from paretune.benchmark.runner import run

    run(study(), tmp_path / "out", progress=False)
    done = plan(study(), tmp_path / "out", measure=True)
    assert (done.minutes, len(asked)) == ((0.0, 0.0), 2)
    assert "time:     nothing left to do" in plan_text(done)


def test_stages_that_cost_alike_are_probed_once(tmp_path: Path) -> None:
    tasks = [{"controlled": {"rho": rho, "alphabet": 4, "length": 3}} for rho in (0, 0.5)]
    longer = {"controlled": {"rho": 0, "alphabet": 4, "length": 4}}

    def keys(tasks: list[object], **settings: object) -> set[str]:
        made = {
            "name": "s", "tasks": tasks, "seeds": 2, "budget": {"completions": 640}, "methods": {"linear": settings},
            "preferences": {"grid": 1, "unseen": 0},
        }  # fmt: skip
        return {each.key for each in probes_of(plan(made, tmp_path / "out")) if each.kind == "train"}

    (one,) = keys([tasks[0]])
    assert keys(tasks) == keys([tasks[1]], learning_rate=0.1) == {one}
    assert keys([*tasks, longer]) > {one}
    assert keys(tasks, epochs=2) != {one}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", '{"low": 1}', '{"low": 0, "high": 1}', '{"low": 2, "high": 1}', '{"low": "x", "high": 1}'],
)
def test_a_damaged_file_of_the_cache_counts_as_none(
    micro: dict[str, Any], empty_cache: Path, tmp_path: Path, text: str
) -> None:
    probe = probes_of(plan(micro, tmp_path / "out"))[0]
    path = speed._path(probe)
    assert path.parent == empty_cache
    path.parent.mkdir(parents=True)
    path.write_text('{"low": 1, "high": 2.5}')
    assert known_speeds([probe]) == {probe.key: (1.0, 2.5)}
    path.write_text(text)
    assert known_speeds([probe]) == {}


@pytest.mark.parametrize("listed", [False, True])
def test_each_probe_measures_something(micro: dict[str, Any], tmp_path: Path, listed: bool) -> None:
    if listed:
        micro["tasks"] = [{"controlled": {"rho": 0, "alphabet": 4, "length": 3}}]
        micro["methods"] = {"linear": {}, "exact_gradient": {}}
    probes = probes_of(plan(micro, tmp_path / "out"))
    assert {each.kind for each in probes} == {"train", "sample", *(["list"] if listed else [])}
    for number, probe in enumerate(probes):
        job = speed._job(probe, tmp_path / str(number))
        low, high = speed.MEASURES[probe.kind](job, 1)
        speed.release_models()
        assert 0 < low <= high < 60, probe.kind
    assert not (tmp_path / "out").exists()  # a plan changes nothing


@pytest.mark.slow
def test_processes_measure_and_the_cache_keeps_it(micro: dict[str, Any], tmp_path: Path, empty_cache: Path) -> None:
    probe = next(each for each in probes_of(plan(micro, tmp_path / "out")) if each.kind == "sample")
    found = measure_speeds([probe, probe], workers=2)
    assert 0 < found[probe.key].low <= found[probe.key].high
    assert known_speeds([probe]) == found
    assert len(list(empty_cache.iterdir())) == 1


@pytest.mark.slow
def test_processes_find_what_lies_beside_the_study_file(micro: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own_task.py").write_text(
        f"from paretune.tasks import load_task\n\n\ndef task():\n    return load_task({micro['tasks'][0]!r})\n"
    )
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**micro, "tasks": ["own_task:task"]}))
    assert plan(path, tmp_path / "out", measure=True).speed == "measured"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["import os; os._exit(3)", "import time; time.sleep(600)"])
def test_a_reward_that_ends_or_hangs_leaves_a_plan_as_it_is(
    micro: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    rewards = Path(micro["tasks"][0]).parent / "rewards.py"
    rewards.write_text(f"def first(prompts, completions, **columns):\n    {fault}\n\n\nsecond = first\n")
    monkeypatch.setattr(speed, "PROBE_SECONDS", 0.5)
    probe = next(each for each in probes_of(plan(micro, tmp_path / "out")) if each.kind == "sample")
    started: list[Any] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
    assert measure_speeds([probe], workers=1) == {}
    assert [process.poll() is not None for process in started] == [True]


@pytest.mark.slow
def test_a_machine_that_starts_no_second_worker_leaves_a_plan_as_it_is(
    micro: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = next(each for each in probes_of(plan(micro, tmp_path / "out")) if each.kind == "sample")
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def second_fails(*given: Any, **options: Any) -> Any:
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(popen(*given, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", second_fails)
    assert measure_speeds([probe], workers=2) == {}
    assert [process.poll() is not None for process in started] == [True]


def test_an_interrupt_of_a_users_is_no_end_of_a_measured_training(
    micro: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupts(folder: Path, group: Path, task: Task, link: Link) -> None:
        for _ in range(8):
            link.stopped()
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "run_group", interrupts)
    probe = next(each for each in probes_of(plan(micro, tmp_path / "out")) if each.kind == "train")
    job = speed._job(probe, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        speed.measure_probe(job, Link(lambda message: None, lambda: False, 1))


def test_a_reward_that_fails_is_noted(
    micro: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rewards = Path(micro["tasks"][0]).parent / "rewards.py"
    rewards.write_text("def first(prompts, completions, **columns):\n    raise KeyError('x')\n\n\nsecond = first\n")
    monkeypatch.setattr(speed, "LocalProcesses", lambda *given: InProcess(1))
    probe = next(each for each in probes_of(plan(micro, tmp_path / "out")) if each.kind == "sample")
    assert measure_speeds([probe], workers=1) == {}
    (note,) = [each for each in caplog.messages if each.startswith("note: ")]
    assert "measuring it failed, as a run would: " in note
    assert "KeyError: 'x' (rewards.py, line 2)" in note


def test_a_command_measures_unless_it_is_told_not_to(
    micro: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(estimates, "measure_speeds", lambda probes, workers: asked.append(workers) or {})
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(micro))
    assert execute(["plan", str(path), "-o", str(tmp_path / "out")]) == OK  # the tests' environment says no
    monkeypatch.delenv("PARETUNE_NO_MEASURING")
    assert execute(["plan", str(path), "-o", str(tmp_path / "out"), "--no-measure"]) == OK
    assert asked == []
    capsys.readouterr()
    assert execute(["plan", str(path), "-o", str(tmp_path / "out"), "--json"]) == OK
    assert asked == [1]
    assert json.loads(capsys.readouterr().out)["speed"] == "assumed"


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        ((0.0, 0.0), "nothing left to do"),
        ((0.2, 0.8), "less than 1 minute"),
        ((0.4, 2.2), "less than 3 minutes"),
        ((4.2, 8.9), "4–9 minutes"),
        ((3.0, 3.0), "3 minutes"),
        ((119.0, 300.0), "119–300 minutes"),
        ((126.0, 500.0), "2.1–8.3 hours"),
        ((1200.0, 6000.0), "20–100 hours"),
    ],
)
def test_minutes_are_said_as_people_say_them(minutes: tuple[float, float], said: str) -> None:
    from paretune.benchmark.summary import _minutes

    assert _minutes(*minutes) == said
