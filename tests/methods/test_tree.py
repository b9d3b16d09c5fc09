from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.answers import answered
from paretune.core.preferences import das_dennis
from paretune.core.stages import in_order
from paretune.core.task import Task
from paretune.methods.meta_policy.tree import Tree, tree_nodes
from paretune.methods.per_preference import PerPreferenceSettings
from paretune.training.train import train


def test_leaves_are_parted_until_each_is_alone() -> None:
    """0, .25, .5, .75, 1: the farthest two are 0 and 1, and .5 goes with the first; then 0 and .5 part, and so on."""
    nodes = tree_nodes(das_dennis(2, 4)[np.argsort(das_dennis(2, 4)[:, 1])])
    found = [(round(float(node.weights[1]), 3), node.parent, node.depth) for node in nodes]
    assert found == [
        (0.5, None, 0), (0.25, 0, 1), (0.875, 0, 1), (0.125, 1, 2), (0.5, 1, 2), (0.75, 2, 2), (1.0, 2, 2), (0.0, 3, 3),
        (0.25, 3, 3),
    ]  # fmt: skip


@given(count=st.integers(1, 12), objectives=st.integers(1, 4), seed=st.integers(0, 100))
def test_every_preference_is_a_leaf_below_its_parent(count: int, objectives: int, seed: int) -> None:
    leaves = np.random.default_rng(seed).dirichlet(np.ones(objectives), count)
    nodes = tree_nodes(leaves[:1] if objectives == 1 else leaves)
    parents = {node.parent for node in nodes}
    ends = [node.weights for number, node in enumerate(nodes) if number not in parents]
    assert len(ends) == (1 if objectives == 1 else count)
    for leaf in leaves:
        assert min(np.abs(leaf - end).max() for end in ends) <= 1e-9  # of means of one
    assert all(node.parent is None or node.parent < number for number, node in enumerate(nodes))


def test_leaves_that_are_one_end_the_tree() -> None:
    same = np.asarray([[0.7, 0.3], [0.7, 0.3]])
    assert [(node.weights.tolist(), node.parent) for node in tree_nodes(same)] == [([0.5, 0.5], None), ([0.7, 0.3], 0)]
    assert [node.weights.tolist() for node in tree_nodes(same[:1])] == [[0.7, 0.3]]


def test_one_policy_gets_the_whole_budget_whatever_it_is_for(task: Task) -> None:
    settings = PerPreferenceSettings(group_size=4, completions_per_update=16, completions_each=80)
    (only,) = Tree(settings).stages(task, np.asarray([[0.7, 0.3]]), 80, 0)
    assert (only.completions, only.member["objective_weights"]) == (80, [0.7, 0.3])


def test_of_nodes_with_the_same_weights_the_deepest_answers(task: Task, finish: Any) -> None:
    """Of five leaves .5 is one, and the root has these weights, too."""
    settings = PerPreferenceSettings(group_size=4, completions_per_update=16, completions_each=16)
    leaves = das_dennis(2, 4)
    method = Tree(settings)
    stages = method.stages(task, leaves, 9 * 16, 0)
    (root, leaf) = (each for each in stages if each.member["objective_weights"] == [0.5, 0.5])
    assert leaf.settings["start_from"] == "adapter"
    made = method.assemble(task, leaves, finish(stages, {"expert": {"scores": [0.5, 0.5], "kl": 0.0}}))
    weights, _ = answered(made.answer, np.asarray([[0.5, 0.5]]))
    assert leaf.key(task) in str(made.experts[int(weights[0].argmax())])
    assert root.key(task) != leaf.key(task)


def test_a_child_starts_from_its_parent_and_the_whole_tree_is_charged(task: Task) -> None:
    settings = PerPreferenceSettings(group_size=4, completions_per_update=16, completions_each=80)
    stages = Tree(settings).stages(task, das_dennis(2, 2), 402, 0)
    assert [stage.completions for stage in stages] == [80] * 5
    assert sum(stage.completions for stage in in_order(stages, task)) == 400
    assert stages[0].needs == ()
    for stage, node in zip(stages[1:], tree_nodes(das_dennis(2, 2))[1:], strict=True):
        assert node.parent is not None
        assert stage.needs == (stages[node.parent],)
        assert stage.settings["start_from"] == "adapter"


def test_a_budget_for_one_policy_trains_root_and_centre_alone(task: Task) -> None:
    settings = PerPreferenceSettings(group_size=4, completions_per_update=16, completions_each=80)
    (root,) = Tree(settings).stages(task, das_dennis(2, 2), 100, 0)
    assert root.member["objective_weights"] == [0.5, 0.5]
    assert root.needs == ()


@pytest.mark.usefixtures("base")
def test_a_trained_child_is_near_its_parent(task: Task) -> None:
    """Two updates of Adam at .001 move no parameter by much more than .002; a start of its own has another random A."""
    settings: dict[str, Any] = {
        "rank": 2, "group_size": 4, "completions_per_update": 16, "completions_each": 32, "epochs": 1,
        "learning_rate": 1e-3, "average_decay": 0.0,
    }  # fmt: skip
    solutions = train("tree", task, 96, settings=settings)
    assert solutions.bank is not None
    for layer in solutions.bank.layers.values():
        root, *children = layer.A.detach()
        assert len(children) == 2
        for child in children:
            assert 0 < float((child - root).abs().max()) < 0.01
