"""What users want of each prompt of a controlled task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.core.errors import TaskError
from paretune.methods.entries import method_entry
from paretune.tasks import load_task
from paretune.tasks.controlled.fields import features
from paretune.tasks.controlled.settings import ControlledSettings
from paretune.tasks.controlled.store import load_instance

SMALL = {"alphabet": 6, "length": 3}
POINTS = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])


def load(**settings: Any) -> Any:
    return load_task({"controlled": {**SMALL, **settings}})


def feature(task: Any, split: str = "test") -> Any:
    start = {"train": 0, "development": 16, "test": 32}[split]
    stored = load_instance(task.settings)
    return features(stored.fields.codes, stored.prompts[start : start + 16])[:, 0]


def test_two_weights_move_against_each_other_with_the_feature_within_0_and_1() -> None:
    # w(x) = clip(w + c f) of two objectives: the projection takes the same number from both and cuts at 0
    task = load(context=0.4)
    wanted = task.prompt_preferences(task.splits["test"], POINTS)
    first = np.clip(POINTS[:, :1] + 0.4 * feature(task), 0.0, 1.0)
    np.testing.assert_allclose(wanted, np.stack([first, 1 - first], axis=2), atol=1e-12)
    assert first.std(axis=1).min() > 0.05  # the feature of a training prompt varies by 1


def test_of_three_objectives_wishes_stay_on_the_simplex_and_the_third_keeps_its_weight_inside() -> None:
    # (1, 1, 1) / 3 + .05 (f, -f, 0) is inside the simplex for |f| < 6.7: nothing is cut
    task = load(objectives=3, context=0.05, alphabet=6, length=4)
    (wanted,) = task.prompt_preferences(task.splits["train"], np.full((1, 3), 1 / 3))
    away = 0.05 * feature(task, "train")
    np.testing.assert_allclose(wanted, 1 / 3 + np.stack([away, -away, 0 * away], axis=1), atol=1e-12)


def test_model_prompts_rewards_and_training_are_those_of_context_0() -> None:
    one, other = load(rho=-0.8, context=0.3).instance(3), load(rho=-0.8).instance(3)
    assert (one.model, one.splits, one.beta, one.objectives) == (
        other.model,
        other.splits,
        other.beta,
        other.objectives,
    )
    assert one.training_key() == other.training_key()
    assert one.evaluation_key() == {**other.evaluation_key(), "context": {"context": 0.3}}


def test_context_0_changes_no_key_name_or_source() -> None:
    task, settings = load(rho=-0.8, context=0), ControlledSettings(-0.8, 0.1, 2, 6, 3)
    assert (task.name, task.contextual) == ("controlled-rho-0.8-a6-l3", False)
    assert settings.plain() == {
        "rho": -0.8, "heterogeneity": 0.1, "objectives": 2, "alphabet": 6, "length": 3, "seed": 0, "generator": 1,
    }  # fmt: skip
    named = load_task("controlled-rho-0.8-a6-l3")
    assert "context" not in {**dict(named.source)["controlled"], **task.family_settings, **task.evaluation_key()}
    np.testing.assert_array_equal(
        task.prompt_preferences(task.splits["test"][:2], POINTS), POINTS[:, None].repeat(2, 1)
    )


@pytest.mark.parametrize(
    "name", ["controlled-rho-0.8-h0.5-c0.3", "controlled-rho+0-l3-c1", "controlled-rho-0.4-k3-c0.25"]
)
def test_names_with_a_context_are_read_back(name: str) -> None:
    settings = ControlledSettings.from_name(name)
    assert settings is not None
    assert settings.name == name


def test_what_reports_print_and_what_a_worker_is_given_load_the_task_again() -> None:
    task = load(rho=-0.8, context=0.3)
    assert task.name == "controlled-rho-0.8-a6-l3-c0.3"
    for source in (task.name, task.source):
        assert load_task(source).context_key() == {"context": 0.3}
    assert task.instance(1).context_key() == {"context": 0.3}


@pytest.mark.parametrize("context", [-0.1, 1.5, "much", True, float("nan")])
def test_a_context_out_of_range_is_refused(context: Any) -> None:
    with pytest.raises(TaskError, match="context of a controlled task must be"):
        ControlledSettings(context=context)


@pytest.mark.parametrize("method", ["linear", "preference_conditioned"])
def test_only_stages_that_know_more_than_the_preference_depend_on_the_context(method: str) -> None:
    plain, near, far = load(rho=-0.8), load(rho=-0.8, context=0.3), load(rho=-0.8, context=0.6)
    keys = {}
    for feedback in ("told", "utility", "oracle"):
        made = method_entry(method, {"feedback": feedback}, "methods").method
        keys[feedback] = [made.stages(task, POINTS, 6000, 0)[0].key(task) for task in (plain, near, far)]
    assert len(set(keys["told"])) == 1
    assert len(set(keys["utility"])) == 3
    # an expert is trained for one request, whoever asks; a bank for requests drawn as they come
    assert (keys["oracle"] == keys["told"]) == (method == "linear")
    assert len({*keys["told"], *keys["utility"], *keys["oracle"]}) == (4 if method == "linear" else 7)
