from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders import synthetic_study, tuning
from paretune.core.errors import RecordError
from paretune.records.merging import finished_twice, merged
from paretune.records.study import StudyRecords

EVERYTHING = synthetic_study(seeds=(0, 1), exact=True)


def part(seed: int, folder: str) -> StudyRecords:
    """The study as the folder knows it in which only the cells of one seed were run."""
    cells = tuple(
        cell if cell.seed == seed else replace(cell, state="pending", evaluations=(), outcomes=None, stages=())
        for cell in EVERYTHING.cells
    )
    return replace(
        EVERYTHING,
        folder=Path(folder),
        cells=cells,
        references={key: value for key, value in EVERYTHING.references.items() if key[1] == seed},
        truths={key: value for key, value in EVERYTHING.truths.items() if key[1] == seed},
    )


def test_parts_of_a_study_are_the_study() -> None:
    whole = merged([part(0, "a"), part(1, "b")])
    assert whole.cells == EVERYTHING.cells
    assert set(whole.references) == set(EVERYTHING.references)
    assert set(whole.truths) == set(EVERYTHING.truths)
    assert whole.timings == EVERYTHING.timings
    assert whole.folder is None
    assert whole.merged_from == ("a", "b")


def test_each_folder_adds_the_timings_it_has() -> None:
    first, *others = EVERYTHING.timings
    parts = [replace(part(0, "a"), timings=(first,)), replace(part(1, "b"), timings=tuple(others))]
    found = {(timing.task, timing.method): timing for timing in merged(parts).timings}
    assert found == {(timing.task, timing.method): timing for timing in EVERYTHING.timings}


def test_a_finished_cell_counts_before_a_failed_one_and_a_failed_before_a_pending_one() -> None:
    failed = synthetic_study(seeds=(0, 1), exact=True, failed={("linear", 0): "crash"})
    assert merged([failed, part(0, "b")]).cells[0].state == "done"
    assert merged([part(1, "a"), failed]).cells[0].state == "failed"
    assert merged([failed, part(1, "a")]).cells[0].state == "failed"


def test_what_the_folders_ran_on_is_said_where_they_differ() -> None:
    second = part(1, "b")
    other = replace(second, environment={**second.environment, "cpu": "another", "gpu": "one", "threads": 1})
    whole = merged([part(0, "a"), other, second])
    assert whole.environment == {**second.environment, "cpu": "test | another", "gpu": "none | one"}


def test_a_task_or_method_that_changed_between_the_folders_is_named() -> None:
    digests = {"tasks": {"counselling": "1"}, "methods": {"linear": "1", "mine": "1"}}
    first = replace(part(0, "a"), resolved={**EVERYTHING.resolved, "digests": digests})
    changed = {**digests, "methods": {"linear": "1", "mine": "2"}}
    second = replace(part(1, "b"), resolved={**EVERYTHING.resolved, "digests": changed})
    with pytest.raises(RecordError, match=r"with another version of method 'mine'\. Run its cells again in one of"):
        merged([first, second])


def test_a_setting_that_differs_is_named_with_both_values() -> None:
    resolved = {**EVERYTHING.resolved, "methods": {"a": {"updates": 5}, "b": {}}}
    other = {**resolved, "methods": {"a": {"updates": 6}, "b": {}}}
    pair = [replace(part(0, "a"), resolved=resolved), replace(part(1, "b"), resolved=other)]
    with pytest.raises(RecordError, match=r"'b' with another methods.a.updates: 6 in place of 5\. Run all parts"):
        merged(pair)
    pair[1] = replace(pair[1], resolved={**resolved, "methods": {"a": {"updates": 5}}})
    with pytest.raises(RecordError, match=r"with another methods.b: none in place of {}\."):
        merged(pair)


def test_cells_that_several_folders_finished_are_counted() -> None:
    assert finished_twice([part(0, "a"), part(1, "b")]) == 0
    assert finished_twice([part(0, "a"), EVERYTHING]) == len(EVERYTHING.cells) // 2
    assert finished_twice([EVERYTHING] * 3) == len(EVERYTHING.cells)


def test_folders_of_different_studies_are_refused() -> None:
    first = part(0, "a")
    with pytest.raises(RecordError, match=r"must hold parts of one study, got 'a' of 'synthetic' and 'b' with 'other'"):
        merged([first, replace(part(1, "b"), name="other")])
    changed = {**first.resolved, "budget": {"completions": [12]}}
    with pytest.raises(
        RecordError,
        match=r"got 'a' of 'synthetic' and 'b' with another budget.completions: \[12\] in place of \[6000\]\.",
    ):
        merged([first, replace(part(1, "b"), resolved=changed)])


def test_a_folder_that_has_not_tuned_yet_takes_cells_and_choice_from_one_that_has() -> None:
    untuned = replace(part(1, "a"), tuning=())
    cells = tuple(replace(cell, cell=f"{cell.cell}-tuned") for cell in part(0, "b").cells)  # settings are in the name
    tuned = replace(part(0, "b"), cells=cells, tuning=(tuning(),))
    whole = merged([untuned, tuned])
    assert [each is tuned.tuning[0] for each in whole.tuning] == [True]
    assert {cell.state for cell in whole.cells} == {"done"}
    assert {cell.cell.endswith("-tuned") for cell in whole.cells if cell.seed == 0} == {True}


def test_folders_that_chose_different_settings_are_refused() -> None:
    parts = [replace(part(seed, f"f{seed}"), tuning=(tuning(chosen=seed),)) for seed in (0, 1)]
    message = (
        "tuned alike, got learning_rate=0.002 in place of learning_rate=0.001 for method 'linear' on 'counselling'"
    )
    with pytest.raises(RecordError, match=message):
        merged(parts)
    first, second = (replace(each, tuning=(tuning(),)) for each in parts)
    other = replace(second, resolved={**second.resolved, "tune": {"learning_rate": [1]}})
    with pytest.raises(RecordError, match="with another tune"):
        merged([first, other])
