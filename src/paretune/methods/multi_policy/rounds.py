"""One stage that trains a set of policies round by round: checkpoints, lengths, and what is handed over at each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from paretune.core.answers import Selected
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.estimators_asked import asked_for
from paretune.methods.experts import adapters_of, expert_settings, split_budget
from paretune.methods.multi_policy.individuals import Individual, from_state, to_state
from paretune.methods.multi_policy.members import Members
from paretune.methods.multi_policy.selection import MeasuredSet, selected
from paretune.methods.multi_policy.set_settings import SetSettings
from paretune.methods.training import trajectories
from paretune.methods.whole_rounds import grow

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.rl.checkpoints import State

FRONT = "front.json"  # the artefact that says who is left


@dataclass(frozen=True, eq=False)
class Found:
    """What some rounds have left.

    Attributes:
        living: Members of the set.
        lineage: A record of each that was ever born, in the order of their numbers.
    """

    living: tuple[Individual, ...] = ()
    lineage: tuple[Mapping[str, Any], ...] = ()


class Rounds(Protocol):
    """What a method trains in each round; every draw is a function of the seed, the round and what was found."""

    members: Members

    def whole(self, length: int) -> int:
        """Return how many whole rounds a length has room for."""
        ...

    def make(self, found: Found, number: int) -> Found:
        """Make round `number`, from 0 on: train, measure, keep."""
        ...

    def finish(self, found: Found, number: int, left: int) -> Found:
        """Return what a length ends with that has `left` completions beyond its whole rounds; all may stay unspent."""
        ...

    def starters(self) -> list[Individual]:
        """Return the untrained individuals that a length below one whole round trains, the most important first."""
        ...

    def position(self, number: int) -> int:
        """Return at which position of the order of development prompts a measurement after so many rounds starts."""
        ...

    def notes(self, found: Found) -> dict[str, object]:
        """Return plain data worth keeping beside the members."""
        ...


def set_stage(
    kind: str, run: str, settings: SetSettings, task: Task, budget: int, least: int, seed: int, version: int
) -> Stage:
    """Describe the one stage of a set that grows by rounds; survival depends on what the task is judged on.

    Args:
        kind: Of the stage.
        run: Its run function.
        settings: Of the method.
        task: What policies are judged on.
        budget: In completions; whole groups of it are spent.
        least: How many individuals must have a group to train on and one to be measured with.
        seed: Of the training.
        version: Of the run function: every method raises its own when what they share changes.

    Raises:
        BudgetError: If they cannot have them.
        ConfigError: If advantages are made with greedy completions, or cannot be imported.
        MethodError: If they take other arguments than an estimator is called with.
        TaskError: If there are no development prompts to measure on.
    """
    task.development_rows()
    group = settings.group_size
    if "greedy_rewards" in asked_for(settings.advantages):
        raise ConfigError(
            "advantages must be made without greedy completions where a set grows round by round, got "
            f"'{settings.advantages}', which has a parameter greedy_rewards: whole updates are planned, and none of "
            "their completions is to spare. Leave it out."
        )
    if budget < 2 * least * group:
        raise BudgetError(
            f"budget must give {least} individuals a group of {group} to train on and one to be measured with, "
            f"{2 * least * group} completions, got {budget}. Raise it."
        )
    known = {**expert_settings(settings), "judged_on": task.judged_on}
    return Stage(kind, run, known, completions=budget // group * group, seed=seed, version=version)


def run_rounds(context: StageContext, prepare: Callable[[StageContext, Stage], Rounds]) -> None:
    """Train a set for each trajectory, leaving `experts/000` and so on, and `front.json`, at every length.

    What a length has beyond whole rounds is spent as the method ends and on a last measurement of all that live; or,
    where not even one whole round fits, on a round of fewer or less trained individuals.
    """
    for stages in trajectories(context):
        grow(context, stages, _Set(prepare(context, stages[-1])))


class _Set:
    """A set as the `WholeRounds` that `grow` makes: who was found is what grows, and its method makes the rounds."""

    unreported_completions = 0  # members are reported as they train

    def __init__(self, rounds: Rounds) -> None:
        self.rounds, self.telling = rounds, rounds.members.telling

    def whole(self, length: int) -> int:
        """Return how many whole rounds a length has room for, as its method says."""
        return self.rounds.whole(length)

    def make(self, found: Found, number: int) -> Found:
        """Return whom a whole round of its method leaves."""
        return self.rounds.make(found, number)

    def fresh(self) -> Found:
        """Return an empty set."""
        return Found()

    def written(self, found: Found) -> State:
        """Return who lives, and who ever did."""
        tensors, plain = to_state(found.living)
        return tensors, {**plain, "lineage": list(found.lineage)}

    def read(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Found:
        """Return what was written."""
        return Found(tuple(from_state(tensors, plain)), tuple(plain["lineage"]))

    def hand_over(self, stage: Stage, found: Found, number: int) -> None:
        """Spend what is left of a length, write the front and seal."""
        members, rounds = self.rounds.members, self.rounds
        left = stage.completions - members.ledger.completions
        last = _finished(rounds, stage, found, number) if found.living else _short_round(rounds, left)
        front, notes = members.front(last.living), rounds.notes(last)
        _write(members, stage, front, last, notes)
        measured = {"measured": [each.as_record() for each in last.living], "living": [each.number for each in front]}
        members.log({**measured, **notes}, number)
        members.context.seal(stage, {"members": len(front), "rounds": number, **notes})


def _finished(rounds: Rounds, stage: Stage, found: Found, number: int) -> Found:
    """End a length: what its method does with the rest, then all that live are measured once more with what is left.

    The first ones have a group more where there is a remainder.
    """
    members, group = rounds.members, rounds.members.settings.group_size
    found = rounds.finish(found, number, stage.completions - members.ledger.completions)
    everyone, position = list(found.living), rounds.position(number)
    each, further = divmod((stage.completions - members.ledger.completions) // group, len(everyone))
    if each:
        everyone = members.measure(everyone, position, each * group)
    if further:
        everyone[:further] = members.measure(everyone[:further], position + each * group, group)
    return Found(tuple(everyone), found.lineage)


def _short_round(rounds: Rounds, left: int) -> Found:
    """Train as many as can have a group to train on and one to be measured with, at most a quarter for measuring."""
    members, settings, group = rounds.members, rounds.members.settings, rounds.members.settings.group_size
    untrained = rounds.starters()
    count = min(len(untrained), left // (2 * group))
    usual = rounds.position(1) or left
    measured = max(group, min(usual, left // (4 * count)) // group * group)
    trained = members.train(untrained[:count], split_budget(left - measured * count, count, settings.group_size))
    everyone = members.measure(trained, 0, measured)
    return Found(tuple(everyone), tuple(each.origin() for each in everyone))


def _write(
    members: Members, stage: Stage, front: Sequence[Individual], found: Found, notes: Mapping[str, object]
) -> None:
    from paretune.models.adapters import save_adapter

    context, bank = members.context, members.bank(front)
    try:
        for place in range(len(front)):
            save_adapter(bank, place, context.artefact(stage, f"experts/{place:03d}"))
    finally:
        bank.unwrap()
    kept = {
        "front": [each.as_record() for each in front],
        "measured": [each.with_folds() for each in members.known(found.living)],
        "lineage": list(found.lineage), **notes,
    }  # fmt: skip
    context.artefact(stage, FRONT).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def assemble_set(
    task: Task, settings: SetSettings, preferences: FloatArray, results: Mapping[str, StageResult]
) -> Assembly:
    """Answer each preference with the member of the front that measured best for it, by the utility of the settings."""
    (grown,) = results.values()
    kept = json.loads(grown.artefacts[FRONT].read_text(encoding="utf-8"))
    everyone = kept.pop("measured")
    folds = np.asarray([each["folds"] for each in everyone], dtype=np.float64)  # [N, F, K + 1], None becomes NaN
    counts = np.asarray(
        [each.get("fold_counts", np.ones_like(own)) for each, own in zip(everyone, folds, strict=True)], np.float64
    )
    measured = MeasuredSet(
        np.asarray([each["scores"] for each in everyone], dtype=np.float64),
        np.asarray([each["kl"] for each in everyone], dtype=np.float64), folds[:, :, :-1], folds[:, :, -1],
        counts[:, :, :-1],
    )  # fmt: skip
    numbers = [each["number"] for each in everyone]
    served = [numbers.index(each["number"]) for each in kept["front"]]
    answer: Selected
    answer, notes = selected(task, settings.select, settings.select_point, measured, served, preferences)
    return Assembly(adapters_of([grown]), answer, notes={**kept, **notes})
