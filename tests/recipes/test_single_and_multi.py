from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from paretune.benchmark.study import load_study
from paretune.records.per_prompt import PerPrompt

RECIPE = Path(__file__).parents[2] / "recipes" / "single_and_multi"
WANTED = np.array([[1.0, 0.0], [0.5, 0.5]])


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPE))


def block(kind: str, rewards: list[list[float]], seed: int, method: str = "", kl: float = 0.0) -> PerPrompt:
    """Return what answered the preferences on two prompts that rewards do not tell apart."""
    count = len(rewards)
    return PerPrompt(
        kind=kind,  # type: ignore[arg-type]
        task="task", seed=seed, objectives=("first", "second"), audit=(), beta=0.1,
        preferences=WANTED if count == 2 else np.full((1, 2), np.nan), prompts=("a", "b"),
        rewards=np.repeat(np.array(rewards)[:, None], 2, axis=1), audit_rewards=np.zeros((count, 2, 0)),
        made=np.ones((count, 2, 2), dtype=np.int64), kl=np.full((count, 2), kl), method=method,
        budget_completions=100, costs={"completions": 96.0, "seconds": 1.0},
    )  # fmt: skip


def test_shares_are_ratios_of_sums_and_the_worst_is_over_all_instances() -> None:
    import summarise

    blocks = []
    for seed, (corner, centre) in enumerate([(0.9, 0.6), (0.7, 0.5)]):
        blocks += [
            block("base", [[0.5, 0.5]], seed),
            block("optimum", [[1.0, 0.2], [0.8, 0.8]], seed),
            block("cell", [[corner, 0.3], [centre, centre]], seed, "linear"),
            block("cell", [[corner, 0.3], [centre, centre]], seed, "dynaopt", kl=1.0),  # a tenth of J less everywhere
            block("cell", [[0.6, 0.3], [0.5, 0.5]], seed, "dynaopt_shuffled"),
        ]
    lines = {line["method"]: line for line in summarise.rows(summarise.gains(blocks))}
    assert lines["linear"]["captured_share"] == pytest.approx((0.5 / 0.8 + 0.2 / 0.8) / 2)
    assert lines["linear"]["worst_preference_share"] == pytest.approx(0.1 / 0.6)  # at the centre, both instances
    assert lines["dynaopt"]["captured_share"] == pytest.approx((0.3 / 0.8 + 0.0) / 2)
    assert lines["dynaopt"]["minus_linear"] == pytest.approx(-0.25)
    assert lines["dynaopt"]["minus_control"] == pytest.approx((0.3 / 0.8 + 0.0) / 2 - 0.1 / 0.8)
    assert "minus_linear" not in lines["linear"]
    # the worst shortfall: of the corner its first score, of the centre half of either
    gained, possible = (0.4 + 0.05) + (0.2 + 0.0), 2 * (0.5 + 0.15)
    assert lines["linear"]["chebyshev_share"] == pytest.approx(gained / possible)


def test_without_best_policies_rows_have_utilities() -> None:
    import summarise

    blocks = []
    for seed, centre in enumerate((0.6, 0.5)):
        blocks += [
            block("base", [[0.5, 0.5]], seed),
            block("cell", [[0.9, 0.3], [centre, centre]], seed, "linear", kl=2.0),
            block("cell", [[0.7, 0.3], [centre, centre]], seed, "dynaopt"),
        ]
    assert summarise.rows(summarise.gains(blocks)) == []
    linear, dynaopt = summarise.utility_rows(blocks)
    assert (linear["utility"], linear["kl"]) == (pytest.approx((0.9 + 0.55) / 2), 2.0)
    assert linear["worst_preference_utility"] == pytest.approx(0.55)
    assert dynaopt["minus_linear"] == pytest.approx(-0.1)


def test_the_studies_are_of_the_rows_and_budgets_that_were_asked_for() -> None:
    import chosen

    studies = {name: yaml.safe_load((RECIPE / f"{name}.yaml").read_text()) for name in ("main", "small", "large")}
    budgets = {name: study["budget"]["completions"] for name, study in studies.items()}
    assert budgets == {"main": 4 * chosen.R, "small": chosen.R, "large": 11 * chosen.R}
    methods = studies["main"]["methods"]
    for name in chosen.DYNAMIC:
        assert methods[f"{name}_shuffled"] == {**methods[name], "feedback": "shuffled"}
    swept = yaml.safe_load((RECIPE / "sweep.yaml").read_text())["methods"]
    assert set(methods) == {*swept, "one_policy", *(f"{name}_shuffled" for name in chosen.DYNAMIC)} - {"base"}
    for name in ("small", "large"):
        assert studies[name]["seeds"] == studies["main"]["seeds"] == 5
        for label, row in studies[name]["methods"].items():
            assert row == chosen.split(methods[label], budgets[name])


def test_another_budget_is_split_into_as_many_policies_and_the_largest_into_eleven() -> None:
    import chosen

    row = {"method": "linear", "completions_each": 5456}  # three policies of 4 R
    assert chosen.split(row, chosen.R)["completions_each"] == 1360  # a third of 4,096, in whole groups
    assert chosen.split(row, 11 * chosen.R)["completions_each"] == chosen.R
    assert chosen.split({"method": "evolution"}, chosen.R) == {"method": "evolution"}


@pytest.mark.slow
def test_the_studies_name_what_there_is() -> None:
    for name in ("sweep", "main", "small", "large", "counselling"):
        assert load_study(RECIPE / f"{name}.yaml").methods


@pytest.mark.slow
def test_pictures_are_drawn_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import draw

    table = RECIPE.parents[1] / "docs" / "results" / "data" / "single_and_multi" / "shares.csv"
    monkeypatch.setattr("sys.argv", ["draw.py", str(table), str(tmp_path)])
    draw.main()
    drawn = sorted(path.name for path in tmp_path.iterdir() if path.stat().st_size > 10_000)
    assert drawn == ["single_and_multi_budgets.png", "single_and_multi_rows.png"]
