"""The method in docs/your_method.md is complete: it trains, answers and reports as printed."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import micro_task
import paretune
from paretune.cli.main import OK, USAGE, execute
from paretune.core.protocols import Mixer
from paretune.metrics import measure_all
from paretune.records.reading import read_study


def blocks(root: Path) -> dict[str, str]:
    """Return the page's modules by file name."""
    page = (root / "docs" / "your_method.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    named = [re.match(r"# (\w+\.py)\n", code) for code in found]
    return {match.group(1) if match else "idea.py": code for match, code in zip(named, found, strict=True)}


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize(
    ("module", "entry", "budget"),
    [
        pytest.param(
            "lagging.py",
            "{method: linear, weighting: 'lagging:Lagging', completions_each: 64, learning_rate: 0.01}",
            192,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "slots.py",
            "{method: linear, shaping: 'slots:square_root', advantages: 'slots:best_of_group', completions_each: 64}",
            64,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mixed_words.py", "{method: 'mixed_words:MixedWords', learning_rate: 0.01}", 64, marks=pytest.mark.slow
        ),
        ("linear_gate.py", "{method: mixture_of_experts, gate: 'linear_gate:LinearGate', learning_rate: 0.01}", 256),
        pytest.param(
            "linear_prompt_gate.py",
            "{method: gated_experts, gate: 'linear_prompt_gate:LinearPromptGate', learning_rate: 0.01}",
            256,
            marks=pytest.mark.slow,
        ),
        (
            "pulled_prior.py",
            "{method: mixture_of_experts, experts: single_objective, "
            "prior: {kind: 'pulled_prior:PulledPrior', share: 0.3}}",
            128,
        ),
        pytest.param(
            "grid_search.py",
            "{method: 'grid_search:GridSearch', each: 8, divisions: 2, learning_rate: 0.01}",
            192,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_documented_code_of_ones_own_runs(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    entry: str,
    budget: int,
) -> None:
    (tmp_path / module).write_text(blocks(root)[module], encoding="utf-8")
    task = micro_task.save_task(tmp_path / "task")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"tasks: ['{task}']\nmethods:\n  mine: {entry}\nbudget: {{completions: {budget}}}\nseeds: 1\n"
        "preferences: {grid: 2}\nworkers: 1\n",
        encoding="utf-8",
    )
    result = paretune.run(study, tmp_path / "out", progress=False)
    assert result.complete, [cell.message for cell in result.records.cells]
    mine, *_ = result.records.cells  # behind it the rows that stand in every study
    assert sum(stage.counts["completions"] for stage in mine.stages) == budget
    events = [
        json.loads(line)
        for path in (tmp_path / "out").glob("stages/*/events.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    if module == "lagging.py":  # equal weights do not stay equal
        changed = [event["objective_weights"] for event in events if "objective_weights" in event]
        assert any(0 < weights[0] < 1 and weights[0] != weights[1] for weights in changed)
    loaded = paretune.load_solutions(tmp_path / "out" / "runs" / mine.cell)
    if module in ("linear_gate.py", "linear_prompt_gate.py"):
        assert type(loaded.gate).__name__ == {"linear_gate.py": "LinearGate"}.get(module, "LinearPromptGate")
        assert loaded.gate is not None
        assert bool(loaded.gate.flat.any())
    if module == "mixed_words.py":
        assert loaded.mixer == Mixer("log_probs")
    if module == "grid_search.py":
        assert {evaluation.answer for evaluation in mine.evaluations} == {"combined"}
        assert type(loaded.answer).__name__ == "BestMeasured"
    assert len(loaded.policy_for([0.5, 0.5]).generate(["b b"]).texts) == 1
    # a cell names the answer and the gate by their modules, which lie beside the study and nowhere else
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    monkeypatch.delitem(sys.modules, module.removesuffix(".py"), raising=False)
    cell = str(tmp_path / "out" / "runs" / mine.cell)
    capsys.readouterr()
    assert execute(["generate", cell, "--preference", "first=0.5,second=0.5", "b b"]) == OK, capsys.readouterr().err


def test_documented_slots_take_and_return_what_the_page_says(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: of three rewards one is missing; of the other two the better one is 1/2 above their share, one below."""
    (tmp_path / "slots.py").write_text(blocks(root)["slots.py"], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    slots = importlib.import_module("slots")
    monkeypatch.delitem(sys.modules, "slots")
    task = micro_task.save_task(tmp_path / "task")
    seen: list[tuple[object, ...]] = []

    def shaping(rewards: torch.Tensor, ranges: object) -> torch.Tensor:
        seen.append((rewards.dtype, type(ranges)))
        return rewards

    from paretune.rl import learner

    shaped = learner.Slots.shaped
    monkeypatch.setattr(learner.Slots, "shaped", lambda self, *rest: shaped(learner.Slots(shaping=shaping), *rest))
    paretune.train("linear", task, budget=16, settings={"group_size": 4})
    assert set(seen) == {(torch.float64, np.ndarray)}
    rewards = torch.tensor([[0.25], [torch.nan], [1.0]], dtype=torch.float64)
    assert slots.square_root(rewards, np.array([[0.0, 1.0]])).nan_to_num(-1).flatten().tolist() == [0.5, -1, 1]
    made = slots.best_of_group(rewards, 3)
    assert made.dtype == torch.float64
    assert made.flatten().tolist() == pytest.approx([-1 / 2, 0, 1 / 2])


@pytest.mark.usefixtures("in_one_process")
def test_the_documented_method_runs_beside_a_built_in_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "idea.py").write_text(blocks(root)["idea.py"], encoding="utf-8")
    task = micro_task.save_task(tmp_path / "task")
    study = tmp_path / "study.yaml"
    study.write_text(
        f"tasks: ['{task}']\n"
        "methods:\n"
        "  rewarded_soups: {}\n"
        "  weight_grid: {completions_each: 40, measured_each: 4}\n"
        "  mine: {method: 'idea:OneForAll', learning_rate: 0.01}\n"
        "budget: {completions: 128}\nseeds: 1\npreferences: {grid: 2}\nworkers: 1\n",
        encoding="utf-8",
    )
    result = paretune.run(study, tmp_path / "out", progress=False)
    assert result.complete
    mine = next(cell for cell in result.records.cells if cell.method == "mine")
    # every preference is answered by the one expert there is
    assert {tuple(evaluation.expert_weights) for evaluation in mine.evaluations} == {(1.0,)}
    assert sum(stage.counts["completions"] for stage in mine.stages) == 128
    # the grid's corners end inside an update of the soups' experts, whose trajectory they share; nothing was done twice
    stages = {stage.key: stage for cell in result.records.cells for stage in cell.stages}
    lengths = {stage.counts["completions"] for stage in stages.values() if stage.kind == "expert"}
    assert {64, 128} < lengths
    assert {stage.repeated["completions"] for stage in stages.values()} == {0}
    base = result.records.references[(mine.task, 0)]
    gain = np.mean([evaluation.scores.mean() for evaluation in mine.evaluations]) - base.scores.mean()
    assert gain > 0.05  # 128 completions at this rate raise the mean reward by more than .1 on the seeds tried


@pytest.mark.usefixtures("in_one_process")
def test_a_documented_measurement_is_run_for_the_metric_that_needs_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = tmp_path / "repeats.py"
    module.write_text(blocks(root)["repeats.py"], encoding="utf-8")
    task = micro_task.save_task(tmp_path / "task")
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text(
        f"tasks: ['{task}']\nmethods:\n  linear: {{completions_each: 64}}\nbudget: {{completions: 64}}\nseeds: 1\n"
        "preferences: {points: [[1, 0], [0, 1]], unseen: 0}\nworkers: 1\nmetrics: ['repeats:Variety']\n",
        encoding="utf-8",
    )
    result = paretune.run(study, out, progress=False)
    assert result.complete, result.problems
    cell, *_ = result.records.cells
    folder = out / "runs" / cell.cell / "repeats"
    assert cell.tables == {"repeats:Repeats": folder}
    shares = json.loads((folder / "repeats.json").read_text())
    assert len(shares) == 2
    assert all(0 <= share < 1 for share in shares)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/**/DONE.json")}
    assert sum(stage.counts["completions"] for stage in cell.stages) == 64  # it is charged to nobody

    def variety() -> Any:
        row, *_ = measure_all(read_study(out), ["repeats:Variety"])
        return row.value

    assert variety().value == pytest.approx(1 - sum(shares) / 2)
    assert "variety" in (out / "report" / "tables.csv").read_text()
    (folder / "repeats.json").write_text("[1, 2]")
    why = f"runs/{cell.cell}/repeats: repeats.json has changed since it was written"
    assert variety().value is None
    assert variety().reason == f"repeats:Repeats is missing ({why})"
    monkeypatch.delitem(sys.modules, "repeats")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    assert execute(["report", str(out)]) == OK, capsys.readouterr().err
    assert why in (out / "report" / "index.html").read_text()
    assert execute(["plan", str(study), "-o", str(out)]) == OK
    assert f"damaged: {why}. It is measured again." in capsys.readouterr().out
    assert paretune.run(study, out, progress=False).complete
    assert json.loads((folder / "repeats.json").read_text()) == shares
    assert [path for path, time in before.items() if path.stat().st_mtime_ns != time] == [folder / "DONE.json"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("metrics: ['repeats:Repeats']", "metrics.0: metric 'repeats:Repeats' must be a class with name, title"),
        (
            "measurements: ['repeats:Variety']",
            "measurements.0: measurement 'repeats:Variety' must be a class with name",
        ),
        ("measurements: ['repeats:Repeats2']", "measurements.0: measurement must be an importable 'module:name', got"),
        ("measurements: [tming]", "measurements.0: measurement must be one of"),
    ],
)
def test_what_is_no_measurement_or_metric_is_refused_with_its_place(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: str,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "repeats.py").write_text(blocks(root)["repeats.py"], encoding="utf-8")
    study = tmp_path / "study.yaml"
    study.write_text(f"tasks: [counselling]\nmethods: {{linear: {{}}}}\nbudget: {{completions: 640}}\n{named}\n")
    assert execute(["plan", str(study), "-o", str(tmp_path / "out")]) == USAGE
    assert said in capsys.readouterr().err
