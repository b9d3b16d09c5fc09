"""A stage that grows by whole rounds: its checkpoints, its lengths, and what belongs to one length alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paretune.core.stages import Stage, StageContext
from paretune.methods.telling import Telling
from paretune.methods.training import STATE

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.rl.checkpoints import State

Grown = TypeVar("Grown")


class WholeRounds(Protocol[Grown]):
    """What the rounds of one trajectory make; every draw is a function of its seed, the round and what was grown.

    Attributes:
        telling: What progress and events are passed on by.
        unreported_completions: Of a whole round, those that `make` reports to nobody: they are reported once the round
            is kept, so that a stop loses nothing.
    """

    telling: Telling
    unreported_completions: int

    def whole(self, length: int) -> int:
        """Return how many whole rounds a length has room for."""
        ...

    def fresh(self) -> Grown:
        """Return what there is before the first round."""
        ...

    def written(self, grown: Grown) -> State:
        """Return what was grown as tensors and plain data."""
        ...

    def read(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Grown:
        """Return what was written."""
        ...

    def make(self, grown: Grown, number: int) -> Grown:
        """Return what round `number`, from 0 on, makes of what was grown, which stays as it is."""
        ...

    def hand_over(self, stage: Stage, grown: Grown, number: int) -> None:
        """Spend what a stage has beyond `number` whole rounds, on a copy, write its artefacts and seal it."""
        ...


def grow(context: StageContext, stages: Sequence[Stage], rounds: WholeRounds[Grown]) -> None:
    """Grow one trajectory to all of its lengths, on from where a killed or a shorter run left it.

    Whole rounds are made once and stay: a longer run goes on with the next one. What a length has beyond them belongs
    to that length alone: a longer run makes those completions anew.

    Args:
        context: Of the run function.
        stages: Of the trajectory, shortest first.
        rounds: What its rounds make.
    """
    from paretune.rl.checkpoints import read_state, save_state

    unreported = rounds.unreported_completions  # read first: a class without it fails before anything is trained
    ledger, longest = context.ledger(stages[-1]), stages[-1]
    checkpoint = context.checkpoint_folder() / f"{longest.trajectory_key(context.task)}.safetensors"
    shorter = None if checkpoint.exists() else context.start_folder(stages[0])
    path = checkpoint if shorter is None else shorter / STATE
    grown, first = rounds.fresh(), 0
    if path.exists():
        tensors, kept = read_state(path)
        plain, first = _grown_and_rounds(kept)
        grown = rounds.read(tensors, plain)
        ledger.resume(kept["ledger"])
    due = {stage.completions: rounds.whole(stage.completions) for stage in stages}
    for number in range(first, max(due.values()) + 1):
        tensors, plain = rounds.written(grown)
        spent = {**ledger.state(), "budget_completions": None}  # the same state whatever comes behind it
        state = tensors, {"grown": plain, "rounds": number, "ledger": spent}
        save_state(checkpoint, *state)
        if number > first and unreported:
            rounds.telling.progress(unreported)
        for stage in (each for each in stages if due[each.completions] == number):
            save_state(context.end_folder(stage) / STATE, *state)
            with rounds.telling.only_if(stage is longest):
                rounds.hand_over(stage, grown, number)
            if stage is not longest:
                ledger.resume(spent)
        if number < max(due.values()):
            grown = rounds.make(grown, number)


def _grown_and_rounds(kept: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Return the plain data of what was grown, and its whole rounds, from a state.

    In states that were written before November 29, 2026, that data lay beside the rounds, which starts called steps.
    """
    if "grown" in kept:
        return kept["grown"], kept["rounds"]
    return kept, kept["rounds"] if "rounds" in kept else kept["steps"]
