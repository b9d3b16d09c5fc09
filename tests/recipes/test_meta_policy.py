from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose


def test_gains_and_losses_are_shares_of_what_each_objective_could_gain(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kinds import gains_and_losses

    # the base has (.5, .4, .2), the best (.7, .8, .6): an expert of the second at (.4, .7, .4) gains .3 of .4, loses
    # .1 of .2 on the first, and wins .2 of .4 on the third: 0 on average
    reference, best = np.asarray([0.5, 0.4, 0.2]), np.asarray([0.7, 0.8, 0.6])
    scores = np.asarray([[0.4, 0.7, 0.4], [0.7, 0.4, 0.1]])
    gain, loss = gains_and_losses(scores, reference, best, np.asarray([1, 0]))
    assert_allclose(gain, [0.75, 1.0])
    assert_allclose(loss, [0.0, 0.125], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), [("kinds", "split_experts"), ("split_gain", "-0.8   0.5")])
def test_recipes_run(
    name: str, row: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [name, "--tiny"])
    runpy.run_path(str(root / "recipes" / "meta_policy" / f"{name}.py"), run_name="__main__")
    (line,) = re.findall(rf"^.*{row}.*$", capsys.readouterr().out, re.MULTILINE)
    figures = [float(each) for each in re.findall(r" (-?\d\.\d{3})", line)]
    assert len(figures) == 5
    if name == "split_gain":
        assert figures[4] >= 0  # a g for each prompt starts from the best for all


def test_kept_gains_are_of_the_grid_and_other_weights_are_held_against_the_line_between_neighbours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kept import Gains, lines_of

    preferences = np.asarray([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])  # two divisions, one off the grid

    def row(*gained: float) -> Gains:
        return Gains(np.asarray(gained), np.asarray([1.0, 2.0, 1.0, 1.0]), {"seconds": 1.0}, preferences)

    found = {
        ("task", 8, "mixture"): {0: row(0.9, 1.0, 0.8, 0.6), 1: row(0.7, 1.4, 0.8, 0.6)},
        ("task", 88, "linear"): {0: row(1.0, 1.6, 0.8, 9.0), 1: row(0.8, 1.8, 0.9, 9.0)},
    }
    line = lines_of(found, "linear", 88, 2)[0]
    assert line["captured_share"] == pytest.approx((2.7 / 4 + 2.9 / 4) / 2)
    assert line["worst_weight_share"] == pytest.approx(2.4 / 4)  # at the centre: 1.0 + 1.4 of 2 + 2
    assert line["kept"] == pytest.approx(5.6 / 6.9)  # without the weight off the grid
    assert line["unseen_off"] == pytest.approx((0.8 + 0.6) / 2 - 0.6)  # (0, 1) has .8, the centre .6; (.25, .75) .6


def test_a_choice_is_the_best_on_average_over_tasks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes"))
    from chosen_settings import _mean

    assert _mean([0.2, 0.6]) == pytest.approx(0.4)
    assert _mean([0.9, None]) == -np.inf
