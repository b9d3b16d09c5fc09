from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "elicit"


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPE))


def lines(part: str, instance: int, regret: float) -> list[dict[str, Any]]:
    shared = {"part": part, "task": "two-competing", "instance": instance, "noise": 0.01, "possible": 0.1}
    values = {"regret": regret, "regret_to_offered": regret / 2, "worst": 3 * regret, "regret_of_sums": regret}
    return [
        {**shared, **values, "users": users, "strategy": strategy, "questions": asked, "inside_interval": 0.9}
        for users, strategy, asked in (("all", "nothing", None), ("noisy", "asked", 0), ("noisy", "asked", 10))
    ]


def test_users_see_large_gaps_and_say_when_they_see_none() -> None:
    from regret import User

    first, second = np.array([0.6, 0.0]), np.array([0.0, 0.4])  # worth .3 and .2 to equal weights
    weights = np.array([0.5, 0.5])

    def user(noise: float, unsure: float) -> Any:
        return User(weights, noise, unsure, np.random.default_rng(0))

    assert user(0.0, 0.0).reply(first, second) == "a"
    assert user(0.0, 0.0).reply(second, first) == "b"
    assert user(0.0, 0.1).reply(first, second) == "="
    assert user(0.0, 0.0).reply(first, first) == "="
    somebody = user(0.1, 0.0)  # a gap of one noise: 731 of 1,000, within three standard errors of .014
    assert [somebody.reply(first, second) for _ in range(1000)].count("a") == pytest.approx(731, abs=42)


def test_regret_is_a_share_of_what_can_be_gained() -> None:
    from regret import Ground, _line

    # the best policies of two users have .4 and .6 of what they want, the base .2 and .2; they get .3 and .2
    options = np.array([[0.4, 0.0], [0.0, 0.6]])
    ground = Ground(options, np.array([0.2, 0.2]), lambda each: options, lambda inferred: options[0], options[0])
    found = _line(ground, np.eye(2), np.array([0.2, 0.4]), np.array([[0.3, 0.3], [0.2, 0.2]]), "noisy", "asked", 3)
    assert found["regret"] == pytest.approx((0.1 / 0.2 + 0.4 / 0.4) / 2)
    assert found["regret_of_sums"] == pytest.approx(0.5 / 0.6)
    assert found["worst"] == pytest.approx(1.0)
    assert found["regret_to_offered"] == pytest.approx(0.75)  # here the best are offered
    assert found["possible"] == pytest.approx(0.3)


def test_means_and_intervals_are_over_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import draw_regret
    from csv_lines import write_lines

    for instance, regret in enumerate((0.1, 0.3)):
        for part in ("front", "trained"):
            write_lines(lines(part, instance, regret), tmp_path / f"{part}-two-competing-{instance}.csv")
    write_lines(lines("tune", 10_000, 0.2), tmp_path / "tune-two-competing-10000.csv")
    monkeypatch.setattr("sys.argv", ["draw_regret.py", str(tmp_path), str(tmp_path)])
    assert draw_regret.main() == 0
    with (tmp_path / "regret.csv").open() as file:
        found = [line for line in csv.DictReader(file) if line["questions"] == "10"]
    assert [line["part"] for line in found] == ["front", "trained"]
    half = 12.706 * 0.1  # t of one degree of freedom times sd .1414 / sqrt 2
    for line in found:
        assert float(line["regret"]) == pytest.approx(0.2)
        assert float(line["regret_low"]) == pytest.approx(0.2 - half, abs=1e-3)
        assert float(line["regret_to_offered"]) == pytest.approx(0.1)
        assert float(line["worst"]) == pytest.approx(0.9)
    with (tmp_path / "sweep.csv").open() as file:
        assert [line["after_10"] for line in csv.DictReader(file)] == ["0.1000"]
    assert (tmp_path / "elicitation.png").stat().st_size > 10_000


def test_a_folder_without_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import draw_regret

    monkeypatch.setattr("sys.argv", ["draw_regret.py", str(tmp_path), str(tmp_path)])
    assert draw_regret.main() == 2
    assert "folder must hold PART-TASK-INSTANCE.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_run_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import regret

    monkeypatch.setattr(regret, "TASKS", {"two-competing": regret.TASKS["two-competing"]})
    monkeypatch.setattr("sys.argv", ["regret.py", "-o", str(tmp_path), "--tiny"])
    assert regret.main() == 0
    for part in ("front", "trained"):
        with (tmp_path / f"{part}-two-competing-0.csv").open() as file:
            made = list(csv.DictReader(file))
        assert len(made) == 1 + 4 * 2 * 16
        assert all(float(line["regret"]) >= -1e-3 for line in made)  # nothing is better than the best, but for rounding
    capsys.readouterr()
    assert regret.main() == 0
    assert capsys.readouterr().out == ""
