"""Benchmarks: what they compute from what they measured, and that their smallest forms run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from paretune.core.errors import ConfigError, RecordError

pytest.importorskip("torch")


@pytest.fixture
def benchmark_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))

    def found(name: str) -> ModuleType:
        return __import__(name)

    return found


def run_tiny(root: Path, script: str, *arguments: str) -> str:
    """Run a script in a process of its own: what it calls warns of things that are not ours."""
    command = [sys.executable, str(root / script), "--tiny", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300)
    return made.stdout


def test_a_policy_of_twice_the_seconds_serves_half_as_fast(benchmark_of: Any) -> None:
    serving = benchmark_of("serving_cost")
    # least 1 of base and 2 of policy: .5; pairs 1/2, 2/8, 4/4: .5, .25, 1, median .5
    found = serving.ratios([1.0, 2.0, 4.0], [2.0, 8.0, 4.0])
    assert found == {"least": 0.5, "median": 0.5, "base_seconds": 1.0, "policy_seconds": 2.0}


def test_runs_agree_where_their_intervals_overlap(benchmark_of: Any) -> None:
    found = benchmark_of("timing_agreement").agreement(
        [{"ratio": (1.0, 0.9, 1.1)}, {"ratio": (1.2, 1.1, 1.3)}, {"ratio": (2.0, 1.5, 2.5)}]
    )["ratio"]
    # of three pairs the first two runs touch, at 1.1; the median 1.2 lies in the second interval alone; half widths as
    # a share of the value: .1, .1 / 1.2, .25; the values' sd is sqrt((.4^2 + .2^2 + .6^2) / 2) = .52915 about 1.4
    wanted = {"overlap": 1 / 3, "covers": 1 / 3, "half width": 0.1, "spread": 0.52915 / 1.2, "median": 1.2}
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_goal_is_met_on_distinct_prompts_alone(benchmark_of: Any) -> None:
    serving = benchmark_of("serving_cost")
    found = {"adapters": {"distinct": {"least": 0.74}, "shared": {"least": 0.9}}, "hidden": {}}
    assert serving.reached(found) == {"adapters": {"goal": 0.75, "least": 0.74, "met": False}}


@pytest.mark.parametrize("mode", ["faithful", "repaired"])
def test_a_search_without_memo_chooses_the_same_and_measures_every_grid(mode: str, benchmark_of: Any) -> None:
    from paretune.methods.hierarchical_grid import hierarchical_search

    costs = benchmark_of("search_cost")
    space = costs.space_of(mode, 3, 2)
    target = np.asarray([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])

    def measure(candidates: Any, times: int) -> Any:  # each objective likes mixtures near one of its own
        return -np.abs(candidates[:, None, :] - target).sum(axis=2)

    known, few = costs.search(space, 3, measure, memo=True)
    again, many = costs.search(space, 3, measure, memo=False)
    assert_array_equal(known.candidates, again.candidates)
    assert few == len(known.candidates)
    # three points on each of d axes, for every preference in every round
    assert many == 3 * len(space.utilities) * 3**space.dimensions
    # with as many measurements as its rounds take, the library's own search measures just these
    own = hierarchical_search(space, 3, few, measure)
    assert_array_equal(own.candidates, known.candidates)
    assert_allclose(own.scores, known.scores)


def test_completions_read_again_for_every_token_are_those_of_the_cache(benchmark_of: Any) -> None:
    costs = benchmark_of("search_cost")
    import torch

    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base
    from paretune.models.policy import Policy
    from paretune.tasks import load_task

    task = load_task({"controlled": {"alphabet": 4, "length": 2, "objectives": 3}})
    bank = ExpertBank(load_base(task.model), 3, 2)
    bank.initialise([0, 1, 2])
    with torch.no_grad():
        bank.flat.add_(torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    weights = np.asarray([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    policy = Policy(
        bank.base, bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
        np.full((2, 3), 1 / 3), ["combined"] * 2, weights, costs.MIXER,
    )  # fmt: skip
    texts = [str(row["prompt"]) for row in task.splits["development"][:4]] * 2
    owners = [0] * 4 + [1] * 4
    kept = policy.generate(texts, owners, 3, seed=5, reference=True)
    said, log_probs, reference, places = costs.without_cache(policy, texts, owners, 3, 5)
    bank.unwrap()
    assert said == list(kept.texts)
    assert places == [place for _, place, _ in kept.row_ids]
    assert_allclose(log_probs, kept.log_probs, atol=1e-5)  # fp32 sums in another order
    assert_allclose(reference, kept.reference_log_probs, atol=1e-5)


def test_the_first_budget_that_gains_as_much_counts(benchmark_of: Any) -> None:
    pytest.importorskip("trl")
    times = benchmark_of("time_to_policy")
    reached = [times.Reached(64, 0.5, 1.0), times.Reached(128, 1.0, 2.0), times.Reached(192, 0.9, 3.0)]
    found = times.compared(reached, 0.9, 30.0, 2.0)
    # the second is the first with .9 or more: 30 / 2 = 15 times sooner, at 1 of 2
    assert (found["cpu_seconds_ratio"], found["completions"], found["share"]) == (15.0, 128, 0.5)
    missed = times.compared(reached, 2.0, 30.0, 2.0)
    assert missed["cpu_seconds_ratio"] is None
    assert "0.500" in missed["reason"]


def test_seconds_of_a_budget_are_those_noted_when_it_was_made(benchmark_of: Any) -> None:
    pytest.importorskip("trl")
    clock = benchmark_of("time_to_policy").Clock()
    clock.notes = [(64, 1.0), (128, 2.5), (192, 4.0)]
    assert [clock.seconds_at(made) for made in (64, 128, 191, 192)] == [1.0, 2.5, 2.5, 4.0]


def test_the_rivals_coefficient_makes_its_objective_ours(benchmark_of: Any) -> None:
    rival = benchmark_of("trl_rival")
    task = rival.task_of("competing", 0, tiny=True)
    weights = np.asarray([0.3, 0.7])
    # a mean of eight that has the completion itself among them takes an eighth of the reward's gradient
    assert rival.beta_of(task, weights, rival.TrlSettings()) == pytest.approx(task.beta * 7 / 8)
    # values 0 and 1 at even odds deviate by .5; 0 alone by 0: .25 on average
    chances, values = np.asarray([[0.5, 0.5], [1.0, 0.0]]), np.asarray([[0.0, 1.0], [0.0, 1.0]])
    assert rival.mean_deviation(chances, values) == pytest.approx(0.25)
    scaled = rival.beta_of(task, weights, rival.TrlSettings(scale_rewards="group"))
    assert scaled > task.beta  # rewards in units of their deviation, which is below 7/8, are larger


def test_foreign_adapters_answer_their_own_preferences(benchmark_of: Any, tmp_path: Path) -> None:
    import torch

    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap

    rival = benchmark_of("trl_rival")
    task = rival.task_of("competing", 0, tiny=True)
    bank = ExpertBank(load_base(task.model), 2, 2)
    bank.initialise([0, 1])
    with torch.no_grad():
        bank.flat[1] += 0.05
    for expert in range(2):
        save_adapter(bank, expert, tmp_path / str(expert))
    bank.unwrap()
    trained = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    solutions = rival.as_solutions(task, [tmp_path / "0", tmp_path / "1"], trained)
    policy = solutions.policies_for(np.asarray([[1.0, 0.0], [0.2, 0.8]]))
    assert policy.answers == ("exact", "nearest")
    assert_array_equal(policy.expert_weights, [[0.0, 1.0], [1.0, 0.0]])
    gained, possible = rival.exact_gains(solutions, task, trained)
    unwrap(solutions.base)
    assert gained[0] == pytest.approx(0, abs=1e-6)  # an expert whose B is 0 is the base model
    assert gained[1] != pytest.approx(0, abs=1e-6)
    assert (possible > gained).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serving_cost", "search_cost", "time_to_policy", "timing_agreement"])
def test_benchmarks_run(name: str, root: Path, tmp_path: Path) -> None:
    if name == "time_to_policy":
        pytest.importorskip("trl")
    run_tiny(root, f"benchmarks/{name}.py", "--json", str(tmp_path / "out" / "found.json"))
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    if name == "serving_cost":
        assert all(each["least"] > 0 for policy in found["ratios"].values() for each in policy.values())
        assert {*found["goals"]} == {"adapters", "block_gate", "log_probs"}
    elif name == "search_cost":
        assert all(each["same_point"] for mode in found["modes"].values() for each in mode.values())
        assert all(mode["no_memo"]["measured"] > mode["no_memo"]["measured_by_all"] for mode in found["modes"].values())
    elif name == "timing_agreement":
        assert [each["company"] for each in found["runs"]] == [False, True]
        assert 0 < found["agreement"]["ratio to base, 1 row"]["median"] < 2
    else:
        gates = found["mixture_of_experts"]["gates"]
        assert found["trl"]["cpu_seconds"] > 0  # whether or not a gate gains as much as TRL in so few updates
        assert {*gates} == {"block", "none"}
        assert found["cpu_seconds_ratio"] == gates["block"]["cpu_seconds_ratio"]
        for each in (gate for gate in gates.values() if gate["cpu_seconds_ratio"]):
            assert each["cpu_seconds_ratio"] == pytest.approx(found["trl"]["cpu_seconds"] / each["cpu_seconds"])


def test_a_table_of_the_rival_is_of_one_way_to_train(benchmark_of: Any, root: Path) -> None:
    rival = benchmark_of("trl_rival")
    kept = root / "docs/results/data/meta_policy/trl/competing-0.csv"
    rival.check_same(kept, {"completions": 4096, "num_iterations": 4, "learning_rate": 5e-3, "scale_rewards": "none"})
    with pytest.raises(
        ConfigError, match=r"num_iterations must be 4, with which '.*competing-0\.csv' was made, got 1\."
    ):
        rival.check_same(kept, {"completions": 4096, "num_iterations": 1})


def test_every_kept_table_of_the_rival_is_one_that_the_same_command_goes_on_from(benchmark_of: Any, root: Path) -> None:
    rival = benchmark_of("trl_rival")
    data = root / "docs/results/data/meta_policy"
    for part in rival.PARTS:
        for instance in rival.INSTANCES:
            asked = {"completions": rival.COMPLETIONS, **asdict(rival.TrlSettings())}
            rival.check_same(data / f"trl/{part}-{instance}.csv", asked)
        for settings in rival.SWEPT:
            name = "-".join(map(str, asdict(settings).values()))
            asked = {"completions": rival.COMPLETIONS, **asdict(settings)}
            rival.check_same(data / f"trl_sweep/{part}-{rival.TUNING}-{name}.csv", asked)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"'.*table\.csv' must hold a line for each preference, got none\. Remove it"),
        ("completions,num_iterations\n", "must hold a line for each preference, got none"),
        ("completions,gained\n4096,0.1\n", "must have a column num_iterations, got completions, gained. Remove it, or"),
        ("completions,num_iterations\n4096\n", "must have a column num_iterations"),
    ],
)
def test_a_table_that_does_not_say_how_it_was_made_is_refused(
    table: str, message: str, benchmark_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(RecordError, match=message):
        benchmark_of("trl_rival").check_same(tmp_path / "table.csv", {"completions": 4096, "num_iterations": 4})


def test_a_table_keeps_settings_as_they_were_given_and_is_of_them_alone(
    benchmark_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rival, calls = benchmark_of("trl_rival"), []

    def trained(task: Any, preferences: Any, completions: int, seed: int, settings: Any) -> Any:
        calls.append(settings)
        numbers = np.full(len(preferences), 0.123456789)
        return rival.Trained(preferences, numbers, numbers, numbers)

    monkeypatch.setattr(rival, "trained", trained)
    monkeypatch.setattr(rival, "prepare", lambda: None)

    def run(*arguments: str) -> int:
        command = ["trl_rival.py", "--tiny", "-o", str(tmp_path), "--part", "competing", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        return int(rival.main())

    assert run("--learning-rate", "2e-7") == 0
    line = (tmp_path / "competing-0.csv").read_text().splitlines()[1]
    assert line == "competing,0,128,4,2e-07,grpo,none,1.000000,0.123457,0.123457,0.123000"
    assert (run("--learning-rate", "2e-7"), len(calls)) == (0, 1)  # what is there is not run again
    assert run("--learning-rate", "3e-7") == 2
    assert run("--learning-rate", "2e-7", "--num-iterations", "1") == 2
    said = capsys.readouterr().err
    assert "learning_rate must be 2e-07, with which" in said
    assert "num_iterations must be 4, with which" in said
    assert len(calls) == 1


@pytest.mark.slow
def test_the_rival_runs_and_what_is_there_is_not_run_again(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    arguments = ("-o", str(tmp_path), "--part", "competing")
    assert "competing-0.csv: share" in run_tiny(root, "recipes/meta_policy/trl_rival.py", *arguments)
    assert len((tmp_path / "competing-0.csv").read_text().splitlines()) == 4  # a header, corners and centre
    assert "share" not in run_tiny(root, "recipes/meta_policy/trl_rival.py", *arguments)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_tiny(root, "recipes/meta_policy/trl_rival.py", *arguments, "--num-iterations", "1")
    assert refused.value.returncode == 2
    assert "num_iterations must be 4, with which" in refused.value.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TRL and what it calls
def test_loss_types_of_the_rival_are_one_where_completions_are_equally_long(benchmark_of: Any, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from dataclasses import replace

    from paretune.models.adapters import read_adapter

    rival = benchmark_of("trl_rival")
    rival.prepare()
    task, weights = rival.task_of("competing", 0, tiny=True), np.asarray([0.3, 0.7])
    found = []
    for name in ("grpo", "bnpo", "dr_grpo", "dapo"):
        settings = replace(rival.TrlSettings(), loss_type=name, num_iterations=2)
        rival.train_one(task, weights, 2 * rival.BATCH, 0, settings, tmp_path / name)
        found.append(read_adapter(tmp_path / name).factors)
    for other in found[1:]:
        for path, pair in found[0].items():
            for mine, theirs in zip(pair, other[path], strict=True):
                # sums in another order, through Adam: below a fiftieth of one step of 5e-3
                assert_allclose(mine, theirs, atol=1e-4)
    assert max(float(up.abs().max()) for _, up in found[0].values()) > 1e-3  # it has learned something
