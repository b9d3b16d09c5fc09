from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paretune.core.errors import TaskError
from paretune.core.task import Objective, Task

ROW = {"prompt": "a", "prompt_id": "0"}
X, Y = Objective("x", "rewards:x", source_digest="123"), Objective("y", "m:y")


def task(**changes: Any) -> Task:
    common: dict[str, Any] = {
        "name": "t", "source": "t", "model": "m", "model_digest": "d", "template": "Client: {prompt} {again}",
        "splits": {"train": (ROW,), "development": (ROW,), "test": (ROW,)},
        "objectives": (X, Y), "reference_point": (0.0, 0.0),
    }  # fmt: skip
    return Task(**{**common, **changes})


def test_a_prompt_replaces_its_place_and_nothing_else() -> None:
    assert task().prompt_format.text("I {prompt} {x}") == "Client: I {prompt} {x} {again}"


def test_objectives_are_named_in_order_and_audit_is_not_among_them() -> None:
    assert task(audit=(Objective("z", "m:z"),)).objective_names == ("x", "y")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": (X, X)}, "different names, got 'x' twice"),
        ({"audit": (Y,)}, "different names, got 'y' twice"),
        ({"objectives": (), "reference_point": ()}, "at least one objective, got none"),
        *(
            ({"name": name}, "name of task must be text of letters that can be seen, got")
            for name in ("", " ", "a\x1b]0;x\x07", "a\u202eb", "a\nb", "\x7f")
        ),
        ({"objectives": (X, Objective("y\x1b[2J", "m:y"))}, "name of objective must be text of letters"),
        ({"audit": (Objective("z\u202e", "m:z"),)}, "name of objective must be text of letters that can be seen"),
        ({"reference_point": (0.0,)}, r"one entry per objective \(2\), got 1"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task(**changes)


def test_a_task_of_fixed_files_is_its_own_instance_for_every_seed() -> None:
    made = task()
    assert made.instance(7) is made


def test_a_users_reward_is_known_by_its_file_and_name_not_by_where_it_lies() -> None:
    assert X.key() == replace(X, reward="elsewhere:x", import_path="/moved").key()
    assert X.key() != replace(X, reward="rewards:other").key()
    assert X.key() != replace(X, source_digest="456").key()


def test_a_built_in_reward_is_known_by_its_place_and_version() -> None:
    assert Y.key() != replace(Y, reward="n:y").key()
    assert Y.key() != replace(Y, version=2).key()
    assert Y.key() == replace(Y, pass_threshold=0.5).key()


def test_a_reward_model_is_known_by_its_files_and_how_it_reads_a_row() -> None:
    model = Objective("r", "/models/r", kind="model", source_digest="1", template="{prompt}{completion}")
    assert model.key() == replace(model, reward="/elsewhere/r").key()
    for change in ({"template": "{completion}"}, {"transform": "identity"}, {"source_digest": "2"}):
        assert model.key() != replace(model, **change).key()  # type: ignore[arg-type]  # one field each


def test_evaluation_depends_on_test_prompts_and_audit() -> None:
    key = task().evaluation_key()
    assert task(audit=(Objective("z", "m:z"),)).evaluation_key() != key
    assert task(splits={"train": (), "development": (), "test": ()}).evaluation_key() != key
    assert task(beta=1.0).evaluation_key() == key


def test_one_objective_more_is_the_first_audit_objective_that_has_a_finite_range() -> None:
    endless, found, later = (
        Objective(name, f"m:{name}", range=limits)
        for name, limits in (("u", (0.0, float("inf"))), ("v", (-1.0, 2.0)), ("w", (0.0, 1.0)))
    )
    more = task(audit=(endless, found, later)).with_one_more()
    assert more.objectives == (X, Y, found)
    assert more.audit == (endless, later)
    assert more.reference_point == (0.0, 0.0, -1.0)
    assert more.training_key()["model"] == task().training_key()["model"]


@pytest.mark.parametrize(("audit", "got"), [((), "got no audit objective"), (("u",), "got u")])
def test_a_task_without_such_an_audit_objective_has_no_more(audit: tuple[str, ...], got: str) -> None:
    made = task(audit=tuple(Objective(name, f"m:{name}", range=(0.0, float("inf"))) for name in audit))
    with pytest.raises(TaskError, match=f"must have an audit objective with a finite range .*{got}"):
        made.with_one_more()
