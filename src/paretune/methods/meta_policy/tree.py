"""A tree of weights: a policy for equal weights first, then finer and finer ones, each from its parent's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paretune.core.preferences import SAME_PREFERENCE, FloatArray, centre
from paretune.core.protocols import Assembly, method
from paretune.core.seeds import stream_key
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import expert_stage, split_budget
from paretune.methods.per_preference import PerPreferenceSettings, best_trained, trained_preferences


@dataclass(frozen=True, eq=False)
class Node:
    """One policy of a tree.

    Attributes:
        weights: What it is trained for, `[K]`.
        parent: Number of the node it goes on from; None for the root.
        depth: Below the root.
    """

    weights: FloatArray
    parent: int | None
    depth: int


@method("tree", "meta-policy")
class Tree:
    """Fine-tune along a tree of weights whose leaves are the wanted preferences.

    The root is trained for equal weights. Below each node its leaves are parted in two by the pair that is farthest
    apart; a child is trained for the mean of its own leaves, from its parent's parameters, until it is a leaf itself.
    All nodes get equal shares of the budget.

    Source:
        Hierarchical fine-tuning along a tree of weights, as Kong et al. 2025 describe it [4].

    Departures:
        - Only that description was at hand: how leaves are parted and budgets shared is ours.
        - Each node has an optimiser of its own, each level prompts and noise of its own.
    """

    settings: PerPreferenceSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per node, parents first; N leaves have at most N inner nodes.

        Raises:
            BudgetError: If a node would get less than one group.
        """
        affordable = max(1, (budget // self.settings.completions_each + 1) // 2)
        nodes = tree_nodes(trained_preferences(preferences, affordable))
        made: list[Stage] = []
        for node, length in zip(nodes, split_budget(budget, len(nodes), self.settings.group_size), strict=True):
            parent = None if node.parent is None else made[node.parent]
            own = stream_key(seed, "tree", node.depth) % 2**31 if node.depth else seed
            made.append(expert_stage(self.settings, node.weights, length, own, start_from=parent))
        return tuple(made)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer a node's weights with its policy, the deepest where several have them; others by estimate."""
        return best_trained(task, dict(reversed(list(results.items()))))


def tree_nodes(leaves: FloatArray) -> list[Node]:
    """Return the nodes of a tree with these leaves `[N, K]`, parents before their children, level by level.

    A single leaf is the root, and leaves that are the same are one.

    Example:
        >>> [(node.weights.tolist(), node.parent) for node in tree_nodes(np.eye(2))]
        [([0.5, 0.5], None), ([1.0, 0.0], 0), ([0.0, 1.0], 0)]
    """
    root = leaves[0] if len(leaves) == 1 else centre(leaves.shape[1])
    nodes = [Node(root, None, 0)]
    waiting = [(0, leaves)]
    while waiting:
        number, below = waiting.pop(0)
        same = np.abs(below - nodes[number].weights).max(axis=1) <= SAME_PREFERENCE
        if same.all():  # the node is its leaf
            continue
        for part in split_leaves(below):
            nodes.append(Node(part.mean(axis=0), number, nodes[number].depth + 1))
            waiting.append((len(nodes) - 1, part))
    return nodes


def split_leaves(leaves: FloatArray) -> list[FloatArray]:
    """Part preferences in two, by which of the two that are farthest apart is nearer; one alone stays one part.

    Example:
        >>> [part.tolist() for part in split_leaves(np.asarray([[1, 0], [0.9, 0.1], [0, 1]]))]
        [[[1.0, 0.0], [0.9, 0.1]], [[0.0, 1.0]]]
    """
    distances = np.linalg.norm(leaves[:, None] - leaves[None], axis=2).round(12)
    one, other = np.unravel_index(int(distances.argmax()), distances.shape)
    if one == other:
        return [leaves]
    nearer = distances[:, one] <= distances[:, other]
    return [leaves[nearer], leaves[~nearer]]
