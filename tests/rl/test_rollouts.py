"""What completions of an update are charged: what each token is read with, trained or not, and states of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import micro_task
from gated import OBJECTIVES, bank_of
from paretune.core.ledger import Ledger
from paretune.core.task import Task
from paretune.models.base import BaseModel
from paretune.models.gate import BlockGate
from paretune.models.prompt_gate import PromptGate
from paretune.objectives.scoring import Scorer
from paretune.rl.learner import Learner
from paretune.rl.rollout import Prompts
from paretune.rl.rollouts import Environment
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Conditioned

EPOCHS, GROUP, SIZE = 3, 4, 16
GATES = {
    "a gate of prompts": (PromptGate, {}),
    "one that is shown no prompt": (PromptGate, {"context": "blind"}),
    "a gate of tokens": (BlockGate, {}),
}


def learner_of(task: Task, base: BaseModel, gate: Any, trains: str) -> Learner:
    """Prepare a policy of two experts and a gate, of which a part learns."""
    train, development = (
        Prompts(task.splits[split], [tuple(base.encode(str(row["prompt"]))) for row in task.splits[split]])
        for split in ("train", "development")
    )
    ranges = np.asarray([objective.range for objective in task.objectives])
    environment = Environment(Scorer(task.objectives), train, task.beta, micro_task.LENGTH, ranges, development)
    settings = LearnerSettings(group_size=GROUP, completions_per_update=SIZE, epochs=EPOCHS)
    kind, own = gate
    bank = bank_of(base, 2)
    made = kind(bank, OBJECTIVES, 0, {"width": 5, **own})
    return Learner(Conditioned(bank, made, np.eye(2), 1, (64,), Ledger(64), trains=trains), environment, settings)


def read_with(learner: Learner, base: BaseModel) -> tuple[int, int]:
    """Return the parameters that a token is read with, and the passes over its prompt alone before it is weighed."""
    gate = learner.trainee.gate  # type: ignore[attr-defined]  # of a policy with one
    layers = learner.trainee.bank.layers.values()
    experts = 2 * 2 * sum(layer.in_features + layer.out_features for layer in layers)  # two of rank 2
    if isinstance(gate, PromptGate):  # of its network nothing is read with tokens
        return base.parameters + experts, int(gate.context == "own")
    # in two blocks 5 units over 16 hidden numbers and 2 objectives, and 2 experts over 5 units
    return base.parameters + experts + 2 * (5 * 18 + 5 + 2 * 5 + 2), 0


@pytest.mark.parametrize("trains", ["both", "gate"])
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_completions_are_charged_all_that_reads_them(task: Task, base: BaseModel, gate: Any, trains: str) -> None:
    learner = learner_of(task, base, gate, trains)
    counts = learner.members[0].ledger.counts
    parameters, before = read_with(learner, base)
    _, _, _, batch = learner.rollouts.sample([0], SIZE)
    completions = int(batch.lengths.sum())
    prompts = sum(len(ids) for ids in batch.prompt_ids[::GROUP])  # once for each group
    # sampling is a pass, an epoch goes there and back (a pass more), and the base model reads all once for the KL
    passes = (completions + prompts) * (parameters * (1 + 2 * EPOCHS) + base.parameters)
    assert counts["flops"] == 2 * (passes + prompts * base.parameters * before)
    assert (counts["tokens"], counts["completions"], counts["prompts"]) == (completions, SIZE, SIZE / GROUP)


def test_greedy_and_development_completions_are_charged_one_pass(task: Task, base: BaseModel) -> None:
    learner = learner_of(task, base, GATES["a gate of prompts"], "gate")
    counts = learner.members[0].ledger.counts
    parameters, before = read_with(learner, base)
    made, complete = [], learner.rollouts.sampler

    def keep(*given: Any, **named: Any) -> Any:
        made.append(complete(*given, **named))
        return made[-1]

    learner.rollouts.sampler = keep
    learner.rollouts.greedy([0], SIZE)  # one of each group's prompt
    learner.rollouts.measure([0], 3)
    assert [len(batch.rows) for batch in made] == [SIZE / GROUP, 3]
    completions = sum(int(batch.lengths.sum()) for batch in made)
    prompts = sum(len(ids) for batch in made for ids in batch.prompt_ids)
    assert counts["flops"] == 2 * ((completions + prompts) * parameters + prompts * base.parameters * before)
    assert (counts["tokens"], counts["completions"]) == (completions, SIZE / GROUP + 3)
