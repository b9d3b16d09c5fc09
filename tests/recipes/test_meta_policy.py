from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from builders import cell, outcomes, study, synthetic_study, task_info, truth
from paretune.core.errors import RecordError
from paretune.core.preferences import das_dennis, random_preferences
from paretune.records.per_prompt import PerPrompt, part_of, write_per_prompt
from paretune.records.study import CellRecord


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
@pytest.mark.parametrize(("name", "lines"), [("kinds", 10), ("split_gain", 1), ("new_objective", 7)])
def test_recipes_run(
    name: str, lines: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    monkeypatch.setattr("sys.argv", [name, "--tiny", "-o", str(tmp_path / "found.csv")])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(root / "recipes" / "meta_policy" / f"{name}.py"), run_name="__main__")
    with (tmp_path / "found.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == lines
    if name == "split_gain":
        assert float(found[0]["best_for_all"]) >= float(found[0]["prior"])  # where its search starts
    elif name == "kinds":
        assert [line["share_by_half"] != "" for line in found] == [False] * 9 + [True]
    else:
        changed = [line["way"] for line in found if line["old_after"] != line["old_before"]]
        assert changed == ["joint, no gate, trained again", "joint, trained again", "joint, trained again for less"]
        assert {line["experts"] for line in found} == {"3"}


def test_expert_weights_are_searched_for_all_prompts_or_for_each(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from split_gain import Mixture

    wanted = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.5, 0.0]])

    class Known(Mixture):
        def __init__(self) -> None:
            self.bank = SimpleNamespace(take_gradients=lambda: None)
            self.prompts, self.reference = [(), (), ()], torch.zeros(3)

        def value(self, expert_weights: torch.Tensor, preference: Any) -> torch.Tensor:
            return -(expert_weights - wanted).square().sum(dim=1)

    start = np.zeros((1, 2))
    one, reached = Known().best(start, np.ones(2), True, 60)
    assert_allclose(one, [[0.5, 0.5]], atol=0.01)
    assert_allclose(reached, -1 / 3, atol=0.001)  # squared distances of .5, .25 and .25 from the mean
    each, reached = Known().best(np.tile(start, (3, 1)), np.ones(2), False, 60)
    assert_allclose(each, wanted, atol=0.03)
    assert_allclose(reached, 0.0, atol=0.001)


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
    line = lines_of(found, "linear", 88)[0]
    assert line["captured_share"] == pytest.approx((2.7 / 4 + 2.9 / 4) / 2)
    assert line["worst_weight_share"] == pytest.approx(2.4 / 4)  # at the centre: 1.0 + 1.4 of 2 + 2
    assert line["kept"] == pytest.approx(5.6 / 6.9)  # without the weight off the grid
    assert line["unseen_off"] == pytest.approx((0.8 + 0.6) / 2 - 0.6)  # (0, 1) has .8, the centre .6; (.25, .75) .6
    # 2.7 and 2.9 are .0609 and .0594 off .8116 of 3.4 and 3.5: t(1) = 12.706 times .0601, over sqrt(2) and the mean
    ratio = 5.6 / 6.9
    off = np.asarray([2.7 - ratio * 3.4, 2.9 - ratio * 3.5]) / 3.45
    half = 12.7062 * np.sqrt((off**2).sum()) / np.sqrt(2)
    assert line["kept_high"] == pytest.approx(ratio + half, rel=1e-4)
    assert line["kept_low"] == pytest.approx(ratio - half, rel=1e-4)
    assert line["kept_instances"] == 2


def test_pairs_are_of_the_instances_of_both_and_how_much_more_the_one_row_has(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kept import Gains, pairs_of

    def row(share: float) -> Gains:
        return Gains(np.full(2, share), np.ones(2), {}, np.eye(2))

    found = {
        ("task", 8, "mixture"): {0: row(0.9), 1: row(0.8), 2: row(0.7), 3: row(0.1)},
        ("task", 8, "soups"): {0: row(0.6), 1: row(0.6), 2: row(0.6)},
        ("task", 8, "grid"): {7: row(0.6)},  # of no instance of the other
        ("task", 16, "soups"): {0: row(0.6)},  # of another budget
    }
    (line,) = pairs_of(found, "mixture")
    assert (line["row"], line["rival"], line["instances"]) == ("mixture", "soups", 3)
    half = 4.30265 * 0.1 / np.sqrt(3)  # t(2), of .3, .2 and .1
    assert_allclose([line["difference"], line["low"], line["high"]], [0.2, 0.2 - half, 0.2 + half], rtol=1e-4)


def test_what_is_captured_at_equal_kl_is_a_share_of_what_the_best_policies_gain(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from equal_kl import lines_of, shares

    points = [[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]]  # the last one is off the grid: it must not count
    info = task_info(preferences=points, objectives=("first", "second"), audit=())

    def policy(method: str, seed: int, kl: list[float], utilities: list[float]) -> CellRecord:
        rewards = np.tile(np.asarray(utilities)[None, :, None, None], (3, 1, 1, 2))
        rewards[2], kls = 9.0, np.tile(np.asarray(kl)[None, :, None], (3, 1, 1))
        return cell(method, seed=seed, outcomes=outcomes(rewards, kls, points, scales=np.linspace(0, 1, len(kl))))

    # the base has .3 and .5, the best policies .9 and .9 at 2 nats of .1 each: J* - J is .7 - .4
    best = truth([[0.3, 0.5]], [[[0.9, 0.4]], [[0.2, 0.9]], [[9, 9]]], [[2.0], [2.0], [9.0]], points, 0.1)
    cells = [
        policy("mod", 0, [0, 1, 2], [0.4, 0.6, 0.8]), policy("mod", 1, [0, 1, 2], [0.4, 0.7, 0.8]),
        policy("soups", 0, [0, 1, 2], [0.4, 0.5, 0.8]), policy("soups", 1, [0, 1, 1.2], [0.4, 0.5, 0.6]),
    ]  # fmt: skip
    records = study(cells, [info], truths={("counselling", seed): best for seed in (0, 1)})
    lines = {(str(line["method"]), line["kl_share"]): line for line in lines_of(shares(records), "mod")}
    assert lines["mod", 0.5]["captured_share"] == pytest.approx((0.1 + 0.2) / 2 / 0.3)  # .6 and .7 - .1 - .4
    assert lines["soups", 0.5]["captured_share"] == pytest.approx(0.0, abs=1e-9)  # .5 - .1 - .4
    assert lines["soups", 0.5]["row_minus"] == pytest.approx(0.5)
    assert "captured_share" not in lines["soups", 0.75]  # instance 1 ends at 1.2 nats, before 1.5
    assert lines["mod", 0.75]["captured_share"] == pytest.approx((0.7 - 0.15 - 0.4 + 0.75 - 0.15 - 0.4) / 2 / 0.3)
    with pytest.raises(RecordError, match="which is of a task whose best policies are not known"):
        shares(study(cells, [info]))


def test_where_the_preference_depends_on_the_prompt_gains_are_those_of_each_prompt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kept import gains

    def block(kind: Any, rewards: list[list[float]], kl: float, wanted: Any = None, asked: Any = None) -> PerPrompt:
        corners = np.full((1, 2), np.nan) if kind == "base" else np.eye(2) if asked is None else asked
        count = len(corners)
        return PerPrompt(
            kind=kind, task="task", seed=0, objectives=("first", "second"), audit=(), beta=0.1, preferences=corners,
            prompts=("a", "b"), rewards=np.tile(np.asarray(rewards)[None], (count, 1, 1)),
            audit_rewards=np.zeros((count, 2, 0)), made=np.ones((count, 2, 2), dtype=np.int64),
            kl=np.full((count, 2), kl), method="row", budget_completions=8, prompt_preferences=wanted,
        )  # fmt: skip

    # both users want the first objective of prompt a alone, and the second of prompt b alone
    wanted = np.tile(np.eye(2)[None], (2, 1, 1))
    blocks = [
        block("base", [[0.5, 0.5], [0.5, 0.5]], 0.0), block("optimum", [[0.9, 0.0], [0.0, 0.9]], 1.0),
        block("cell", [[0.8, 0.1], [0.2, 0.7]], 2.0, wanted),
    ]  # fmt: skip
    found = gains(blocks)["task", 8, "row"][0]
    assert_allclose(found.gained, [(0.3 + 0.2) / 2 - 0.2] * 2)
    assert_allclose(found.possible, [0.4 - 0.1] * 2)
    rounded = block("cell", [[0.8, 0.1], [0.2, 0.701]], 2.0, wanted)  # of another part: the first stays
    assert_allclose(gains([*blocks, rounded])["task", 8, "row"][0].gained, found.gained)
    with pytest.raises(
        RecordError, match=r"must be the same row, got 'row' of task, instance 0, with 0\.167 and 0\.333 "
    ):
        gains([*blocks, block("cell", [[0.8, 0.1], [0.2, 0.8]], 2.0, wanted)])
    unknown = block("cell", [[0.8, 0.1], [0.2, 0.7]], np.nan, wanted)
    for parts in ([*blocks, unknown], [*blocks[:2], unknown, blocks[2]]):
        with pytest.raises(RecordError, match=r"with (0\.167 and nan|nan and 0\.167) of the possible in two parts"):
            gains(parts)
    assert np.isnan(gains([*blocks[:2], unknown, unknown])["task", 8, "row"][0].gained).all()
    turned = block("cell", [[0.8, 0.1], [0.2, 0.7]], 2.0, wanted, np.eye(2)[::-1])
    with pytest.raises(
        RecordError, match=r"instance 0, for 2 and 2 preferences in two parts, not the same ones\. Keep"
    ):
        gains([*blocks, turned])


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_grid_is_the_finest_that_is_there_as_a_whole(
    objectives: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kept import on_grid

    grid = das_dennis(objectives, 4)
    others = random_preferences(objectives, 3, np.random.default_rng(0))
    assert on_grid(np.concatenate([grid, others])).tolist() == [True] * len(grid) + [False] * 3


def test_a_choice_is_the_best_on_average_over_tasks_and_needs_all_scores(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes"))
    import chosen_settings

    file = tmp_path / "study.yaml"
    file.write_text(
        "name: sweep\ntasks: [{controlled: {rho: 0.0, alphabet: 4, length: 2}}, "
        "{controlled: {rho: 0.5, alphabet: 4, length: 2}}]\nmethods: {linear: {replay: 64, epochs: 4}}\n"
        "budget: {completions: 64}\nseeds: [0]\ntune: {learning_rate: [0.1, 0.2, 0.3], instances: 1}\n"
    )
    scores = {"one": [0.9, 0.5, 1.0], "other": [0.1, 0.6, None]}  # means .5, .55, and none

    def swept(task: str, method: str) -> SimpleNamespace:
        points = tuple(
            SimpleNamespace(settings={"learning_rate": rate}, score=score)
            for rate, score in zip((0.1, 0.2, 0.3), scores[task], strict=True)
        )
        return SimpleNamespace(task=task, method=method, points=points)

    resolved = {"methods": {"linear": {"replay": 64, "epochs": 4}, "one_policy": {}, "base": {}}}
    tuning = tuple(swept(task, method) for task in scores for method in ("linear", "one_policy"))
    monkeypatch.setattr(chosen_settings, "read_study", lambda folder: SimpleNamespace(tuning=tuning, resolved=resolved))
    found = chosen_settings.choices(tmp_path)["linear"]
    assert found.score == pytest.approx(0.55)
    assert found.row == {"method": "linear", "replay": 64, "learning_rate": 0.2}  # four epochs are the default
    monkeypatch.setattr(
        chosen_settings, "read_study", lambda folder: SimpleNamespace(tuning=tuning[:2], resolved=resolved)
    )
    with pytest.raises(RecordError, match="the sweep of linear must be finished, got no choice"):
        chosen_settings.choices(tmp_path)


def test_choices_are_read_again_where_the_sweep_is_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes"))
    from chosen_settings import Choice, load_choices, save_choices

    chosen = {"linear": Choice({"method": "linear", "replay": 64}, 0.55), "mod": Choice({"method": "mod"}, 0.4)}
    save_choices(chosen, tmp_path / "new" / "chosen.json")
    assert load_choices(tmp_path / "new" / "chosen.json") == chosen
    (tmp_path / "wrong.json").write_text("[1]")
    for name in ("wrong.json", "missing.json"):
        with pytest.raises(RecordError, match=f"choices must come from a sweep's folder or a file.*{name}"):
            load_choices(tmp_path / name)


def test_the_studies_are_what_the_choices_make_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    import studies

    monkeypatch.setattr(studies, "HERE", tmp_path)
    monkeypatch.setattr(studies, "DATA", tmp_path)
    chosen = root / "docs/results/data/meta_policy/chosen.json"
    monkeypatch.setattr(sys, "argv", ["studies.py", str(chosen)])
    assert studies.main() == 0
    for name in studies.NAMES:
        assert (tmp_path / f"{name}.yaml").read_text() == (root / f"recipes/meta_policy/{name}.yaml").read_text()
    assert (tmp_path / "chosen.json").read_text() == chosen.read_text()
    rows = {"slow": {"method": "linear", "learning_rate": 0.01}, "fast": {"method": "mod", "learning_rate": 0.02}}
    halved = {"fast_slower": {"method": "mod", "learning_rate": 0.01}}
    assert list(studies.at_both_rates(rows).items()) == [*rows.items(), *halved.items()]


@pytest.mark.parametrize(
    ("name", "kept", "arguments", "picture"),
    [
        ("draw_kept", "two", (), "meta_policy_kept.png"),
        pytest.param("draw_weights", "two", ("9008",), "meta_policy_weights.png", marks=pytest.mark.slow),
        pytest.param("draw_context", "context", (), "meta_policy_context.png", marks=pytest.mark.slow),
    ],
)
def test_pictures_are_drawn_of_what_is_kept(
    name: str, kept: str, arguments: tuple[str, ...], picture: str, root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = str(root / "recipes" / "meta_policy" / f"{name}.py")
    for folder, status in ((root / "docs/results/data/meta_policy" / kept, 0), (tmp_path, 2)):
        monkeypatch.setattr("sys.argv", [name, str(folder), *arguments, str(tmp_path)])
        with pytest.raises(SystemExit, match=str(status)):
            runpy.run_path(recipe, run_name="__main__")
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert "folder must hold kept" in capsys.readouterr().err


def test_a_picture_of_weights_has_all_parts_of_a_task(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    import draw_weights
    import matplotlib.pyplot as plt
    from kept import Gains

    preferences = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])

    def row(*gained: float) -> Gains:
        return Gains(np.asarray(gained), np.asarray([1.0, 2.0, 1.0]), {}, preferences)

    figure, axes = plt.subplots()
    draw_weights.panel(
        axes, {"mod_slower": {0: row(0.4, 1.0, 0.8), 7: row(0.2, 0.2, 0.6)}, "unknown": {0: row(1, 1, 1)}}
    )
    (line,) = [each for each in axes.get_lines() if not str(each.get_label()).startswith("_")]
    assert line.get_label() == "mod"
    assert_allclose(line.get_xydata(), [[0.0, 0.7], [0.5, 0.3], [1.0, 0.3]])  # ratios of sums, by the first weight
    plt.close(figure)


def test_kept_parts_of_one_task_are_read_as_one(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from kept import read_gains

    with pytest.raises(RecordError, match="folder must hold kept parts"):
        read_gains(tmp_path)
    whole = synthetic_study(methods=("linear",), exact=True)
    (task,) = whole.tasks
    for name, seeds in (("first", (0, 1)), ("second", (2,))):
        (tmp_path / name).mkdir()
        part = part_of(whole, {(task, seed) for seed in seeds})
        write_per_prompt(part, tmp_path / name / "per_prompt.parquet")
    (found,) = read_gains(tmp_path).values()
    assert sorted(found) == [0, 1, 2]
    write_per_prompt(synthetic_study(methods=("linear",)), tmp_path / "second" / "per_prompt.parquet")
    with pytest.raises(RecordError, match=r"must be of tasks whose best policies are known, got 'counselling'\. For"):
        read_gains(tmp_path / "second")


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("controlled-rho-0.8-h0.5-c0.6", "rho -.8 (competing), h .5, context .6"),
        ("controlled-rho+0-h0", "rho 0 (independent), h 0"),
        ("controlled-rho+0.8-h0.5", "rho .8 (correlated), h .5"),
    ],
)
def test_pictures_name_tasks_as_the_page_does(
    task: str, shown: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    from draw_kept import title

    assert title(task) == shown
