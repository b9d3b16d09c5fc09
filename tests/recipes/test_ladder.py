from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretune.optimum.exact import log_optimum, outcome
from paretune.optimum.products import product_log_probs

RECIPE = Path(__file__).parents[2] / "recipes" / "meta_policy"
WANTED = np.asarray([[0.0, 1.0], [0.4, 0.6], [1.0, 0.0]])
BETA = 0.1


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPE))


def levels(strengths: Any) -> dict[str, Any]:
    """Return products of experts that went part of the way on 5 prompts, 12 completions, of two splits."""
    made = {}
    for seed, split in enumerate(("train", "test")):
        random = np.random.default_rng(seed)
        raw = random.normal(size=(5, 12))
        reference, rewards = raw - np.logaddexp.reduce(raw, axis=1, keepdims=True), random.uniform(size=(5, 12, 2))
        half = rewards * strengths[:, None]
        experts = np.stack([log_optimum(reference, half, corner, BETA) for corner in np.eye(2)])

        def level(weights: Any, reference: Any = reference, rewards: Any = rewards, experts: Any = experts) -> Any:
            return outcome(product_log_probs(experts, reference, weights), reference, rewards)

        made[split] = level
    return made


def test_each_rung_contains_the_one_below_and_takes_at_most_sixty_evaluations() -> None:
    import ladder

    strengths = np.random.default_rng(3).uniform(0.4, 1.3, size=(5, 2))
    climbed = ladder.climb(levels(strengths), WANTED, BETA, 5)
    assert list(climbed) == [
        "preference", "fixed_simplex_train", "fixed_free_train", "fixed_simplex_test", "fixed_free_test",
        "prompt_simplex_test", "prompt_free_test",
    ]  # fmt: skip
    order = ["preference", "fixed_simplex_test", "fixed_free_test", "prompt_free_test"]
    for below, above in itertools.pairwise(order):
        assert (climbed[above][1] >= climbed[below][1] - 1e-12).all()
    assert (climbed["prompt_simplex_test"][1] >= climbed["fixed_simplex_test"][1] - 1e-12).all()
    for space in ("simplex", "free"):  # what was fitted on other prompts is no better than what was fitted on these
        assert (climbed[f"fixed_{space}_train"][1] <= climbed[f"fixed_{space}_test"][1] + 1e-4).all()
    assert {rung: fit.evaluations for rung, (fit, _) in climbed.items()} == dict(
        zip(climbed, (0, 21, 58, 21, 58, 22, 60), strict=True)
    )
    on_simplex = climbed["prompt_simplex_test"][0].weights
    assert on_simplex.sum(axis=2) == pytest.approx(1.0)
    # w_e / s_e(x) is the best policy of each prompt, J* (docs/theory.md); the search comes near it where w_e > 0
    inner = climbed["prompt_free_test"][0].weights[1]
    assert inner == pytest.approx(WANTED[1] / strengths, abs=0.05)


def test_exact_experts_leave_no_rung_above_the_preference() -> None:
    import ladder

    climbed = ladder.climb(levels(np.ones((5, 2))), WANTED, BETA, 5)
    values = np.stack(
        [values for rung, (_, values) in climbed.items() if rung.endswith("test") or rung == "preference"]
    )
    np.testing.assert_allclose(values, np.repeat(values[:1], len(values), axis=0), atol=1e-12)


def lines(instance: int, possible: float) -> list[dict[str, object]]:
    shares = dict(zip(RUNGS_OF_ONE, (0.5, 0.6, 0.8, 0.65, 0.75, 0.7, 0.9), strict=True))
    return [
        {
            "part": "competing", "instance": instance, "experts": "trained", "level": "token", "rung": rung,
            "preference": preference, "J": 0.5 + each * possible, "base": 0.5, "optimum": 0.5 + possible,
            "g_first": 0.0, "g_second": 1.0, "evaluations": 58,
        }
        for rung, each in shares.items() for preference in (0.0, 1.0)
    ]  # fmt: skip


RUNGS_OF_ONE = (
    "preference fixed_simplex_train fixed_free_train fixed_simplex_test fixed_free_test prompt_simplex_test "
    "prompt_free_test"
).split()


def test_steps_are_signed_and_add_up_to_the_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import draw_ladder
    from csv_lines import write_lines

    for instance, possible in enumerate((0.1, 0.3)):
        write_lines(lines(instance, possible), tmp_path / f"competing-{instance}.csv", 6)
    monkeypatch.setattr("sys.argv", ["draw_ladder.py", str(tmp_path), str(tmp_path)])
    assert draw_ladder.main() == 0
    with (tmp_path / "split.csv").open() as file:
        (line,) = csv.DictReader(file)
    steps = {name: float(line[name]) for name in (*draw_ladder.STEPS, "beyond_weights")}
    assert steps == pytest.approx(
        {"fixed_on_simplex": 0.1, "leaving_simplex": 0.2, "test_for_training_prompts": -0.05, "each_prompt": 0.15,
         "beyond_weights": 0.1}
    )  # fmt: skip
    assert sum(steps.values()) == pytest.approx(float(line["gap"]))
    assert (tmp_path / "meta_policy_ladder.png").stat().st_size > 10_000


def test_a_folder_without_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import draw_ladder

    monkeypatch.setattr("sys.argv", ["draw_ladder.py", str(tmp_path), str(tmp_path)])
    assert draw_ladder.main() == 2
    assert "folder must hold PART-INSTANCE.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_ladder_runs_and_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import ladder

    monkeypatch.setattr("sys.argv", ["ladder.py", "-o", str(tmp_path), "--tiny", "--part", "competing"])
    assert ladder.main() == 0
    with (tmp_path / "competing-0.csv").open() as file:
        made = list(csv.DictReader(file))
    assert len(made) == 11 * 7 * ladder.WEIGHTS  # exact experts have two levels, the others three
    for line in made:
        if (line["experts"], line["level"], line["rung"]) == ("exact", "sequence", "preference"):
            assert line["J"] == line["optimum"]
        assert float(line["J"]) <= float(line["optimum"]) + 1e-6
    capsys.readouterr()
    assert ladder.main() == 0
    assert capsys.readouterr().out == ""
