from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import builders
from paretune.records.study import StudyRecords
from paretune.report.sections.across import data, interaction_of, measured_correlation, needs, places_of, relative_gains
from paretune.report.view import View

NAMES = ("kind", "short")


def study_of(tasks: dict[str, tuple[float, dict[str, float]]], seeds: int = 6) -> StudyRecords:
    """Tasks with a measured correlation and scores of methods, alike in both objectives; the base model has .5."""
    infos, cells, references, relations = [], [], {}, {}
    for task, (correlation, scores) in tasks.items():
        info = builders.task_info(task, [[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
        infos.append(info)
        relations[task, 0] = {"rewards": {"values": [[1.0, correlation], [correlation, 1.0]]}}
        for seed in range(seeds):
            references[task, seed] = builders.evaluation([[0.5] * 2], None, NAMES)
            for method, score in scores.items():
                rows = [[score + (seed - 1.5) * 0.001 * (len(method) % 3)] * 2]
                answers = [builders.evaluation(rows, point, NAMES) for point in info.preferences]
                cells.append(builders.cell(method, seed, answers, task=task))
    return replace(builders.study(cells, infos, references), relations=relations)


CROSSING = {"a": (-0.5, {"linear": 0.9, "weight_grid": 0.7}), "b": (0.5, {"linear": 0.6, "weight_grid": 0.7})}


def test_gains_are_shares_of_the_best_methods() -> None:
    gains = relative_gains(View(study_of(CROSSING), ()).comparisons[0])
    # (.9 - .5) / .4 and (.7 - .5) / .4, means over seeds
    assert np.mean(list(gains["linear"].values())) == pytest.approx(1.0)
    assert np.mean(list(gains["weight_grid"].values())) == pytest.approx(0.5, abs=0.01)  # seeds are not quite centred


def test_a_task_on_which_nothing_is_gained_has_no_shares() -> None:
    worse = {"a": (0.0, {"linear": 0.4, "weight_grid": 0.3})}
    assert relative_gains(View(study_of(worse), ()).comparisons[0]) == {}


def test_tasks_stand_by_their_measured_correlation_and_a_crossing_is_found() -> None:
    view = View(study_of(CROSSING), ())
    assert measured_correlation(view.parts[0]) == -0.5
    found = data(view)
    (sentence,) = found["sentences"]  # type: ignore[misc]
    assert "differences between methods depend on the task" in sentence
    assert "nothing shows" not in sentence
    assert sentence.endswith("On a linear leads, alone; on b weight_grid leads, alone.")
    (chart,) = found["charts"]  # type: ignore[misc]
    assert [trace["x"] for trace in chart.figure["data"]] == [[-0.5, 0.5]] * 2
    (table,) = found["tables"]  # type: ignore[misc]
    assert table.columns[1] == "a (correlation −0.500)"


def test_few_seeds_of_two_tasks_cannot_show_anything() -> None:
    (sentence,) = data(View(study_of(CROSSING, seeds=5), ()))["sentences"]  # type: ignore[misc]
    assert "cannot be tested (so few tasks and seeds give no p-value below 0.062)" in sentence  # 2 of 2^5 labels


def test_a_task_on_another_base_model_has_seeds_of_its_own_and_takes_no_part() -> None:
    records = study_of({**CROSSING, "c": (0.0, CROSSING["b"][1])})
    records = replace(records, tasks={**records.tasks, "c": replace(records.tasks["c"], model="another")})
    (sentence,) = data(View(records, ()))["sentences"]  # type: ignore[misc]
    assert sentence.endswith("Not tested, as no other task has its seeds: c.")


def test_generated_tasks_share_their_seeds_whatever_their_models_are_called() -> None:
    records = study_of(CROSSING)
    drawn = {
        name: replace(info, model=f"builtin:{name}", family_settings={"rho": 0.5})
        for name, info in records.tasks.items()
    }
    (places,) = places_of(View(replace(records, tasks=drawn), ())).values()
    assert interaction_of(places)[0].left_out == ()


def test_methods_that_a_task_lacks_take_no_part_in_the_test() -> None:
    more = {"a": (-0.5, {**CROSSING["a"][1], "rewarded_soups": 0.8}), "b": CROSSING["b"]}
    (places,) = places_of(View(study_of(more), ())).values()
    _, names = interaction_of(places)
    assert names == ["linear", "weight_grid"]


def test_it_needs_two_tasks_whose_relations_are_known() -> None:
    assert needs(View(study_of({"a": CROSSING["a"]}), ()))
    assert needs(View(replace(study_of(CROSSING), relations={}), ()))
    assert not needs(View(study_of(CROSSING), ()))
