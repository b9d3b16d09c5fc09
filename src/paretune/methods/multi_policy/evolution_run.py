"""The run function of an evolution: generations one after the other, and what is handed over at each length."""

from __future__ import annotations

import json

import numpy as np

from paretune.core.errors import RewardError
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of, split_budget
from paretune.methods.multi_policy.evolution import FRONT, EvolutionSettings, whole_generations
from paretune.methods.multi_policy.generations import Generations
from paretune.methods.multi_policy.individuals import Individual, from_state, to_state
from paretune.pareto.survival import dominance

STATE = "state.safetensors"


def evolve(context: StageContext) -> None:
    """Evolve a set of policies for each trajectory, leaving `experts/000` and so on, and `front.json`, at every length.

    Whole generations are made once and stay: a longer run goes on with the next one. What a length has beyond them is
    spent on a copy, on a last measurement of all that live; or, where not even one whole generation fits, on a
    generation of fewer or less trained individuals.
    """
    from paretune.methods.training import trajectories
    from paretune.rl.checkpoints import read_state, save_state

    for stages in trajectories(context):
        settings = settings_of(EvolutionSettings, stages[0])
        steps = Generations(context, stages[-1], settings)
        due = {stage.completions: whole_generations(settings, stage.completions) for stage in stages}
        checkpoint = context.checkpoint_folder() / f"{steps.trajectory}.safetensors"
        elites: list[Individual] = []
        lineage: list[dict[str, object]] = []  # of all that were ever born
        start = None if checkpoint.exists() else context.start_folder(stages[0])
        path = checkpoint if start is None else start / STATE
        if path.exists():
            tensors, plain = read_state(path)
            elites, lineage = from_state(tensors, plain), plain["lineage"]
            steps.ledger.resume(plain["ledger"])
        for generation in range(len(lineage) // settings.population, max(due.values()) + 1):
            tensors, plain = to_state(elites)
            plain = {**plain, "lineage": lineage, "ledger": steps.ledger.state()}
            save_state(checkpoint, tensors, plain)
            for stage in (each for each in stages if due[each.completions] == generation):
                save_state(context.end_folder(stage) / STATE, tensors, plain)
                _hand_over(steps, stage, elites, lineage, generation)
                if stage is not stages[-1]:
                    steps.ledger.resume(plain["ledger"])
            if generation < max(due.values()):
                elites, born = _generation(steps, elites, generation, len(lineage))
                lineage = [*lineage, *born]


def _generation(
    steps: Generations, elites: list[Individual], generation: int, first: int
) -> tuple[list[Individual], list[dict[str, object]]]:
    """Make a whole generation and return who lives on and who was born."""
    settings = steps.settings
    offspring = steps.offspring(elites, generation, first, settings.population)
    trained = steps.train(offspring, [settings.steps] * len(offspring))
    everyone = steps.measure([*elites, *trained], generation * settings.measured_each, settings.measured_each)
    living = steps.ordered(everyone)[: settings.archive]
    steps.log(
        {"measured": [each.as_record() for each in everyone], "living": [each.number for each in living]}, generation
    )
    return living, [each.origin() for each in offspring]


def _hand_over(
    steps: Generations, stage: Stage, elites: list[Individual], lineage: list[dict[str, object]], generation: int
) -> None:
    """Spend what is left of a length, write the front and seal."""
    settings, group = steps.settings, steps.settings.group_size
    left = stage.completions - steps.ledger.completions
    position = generation * settings.measured_each
    if not elites:
        count = min(settings.population, left // (2 * group))
        measured = max(group, min(settings.measured_each, left // (4 * count)) // group * group)
        elites = steps.offspring([], generation, 0, count)
        lineage = [each.origin() for each in elites]
        elites = steps.train(elites, split_budget(left - measured * count, count, group))
        everyone = steps.measure(elites, position, measured)
    else:
        most, others = split_budget(left, len(elites), group)[:: len(elites) - 1]
        everyone = steps.measure(elites, position, others)
        further = (left - others * len(elites)) // group  # of the first ones, which have a group more
        if further:
            everyone[:further] = steps.measure(everyone[:further], position + others, most - others)
    front = _front(steps, everyone)
    _write(steps, stage, front, lineage)
    steps.log(
        {"measured": [each.as_record() for each in everyone], "living": [each.number for each in front]}, generation
    )
    steps.context.seal(stage, {"members": len(front), "generations": generation})


def _front(steps: Generations, individuals: list[Individual]) -> list[Individual]:
    """Return those that no other one dominates beyond noise.

    Raises:
        RewardError: If nobody has a score on every objective.
    """
    scores = steps.scores(individuals)
    known = [each for each in steps.ordered(individuals) if not np.isnan(each.scores).any()]
    if not known:
        missing = steps.task.objective_names[int(np.isnan(scores).any(axis=0).argmax())]
        raise RewardError(
            f"an individual must have a measured score on every objective, got none on '{missing}'. Mend its reward "
            "function, then run the same command again; nothing finished is lost."
        )
    dominated = np.asarray(dominance(steps.scores(known), steps.errors(known), steps.settings.doubt).any(axis=0))
    return [each for each, worse in zip(known, dominated, strict=True) if not worse]


def _write(steps: Generations, stage: Stage, front: list[Individual], lineage: list[dict[str, object]]) -> None:
    from paretune.models.adapters import save_adapter

    context, bank = steps.context, steps.bank(front)
    try:
        for place in range(len(front)):
            save_adapter(bank, place, context.artefact(stage, f"experts/{place:03d}"))
    finally:
        bank.unwrap()
    kept = {"front": [each.as_record() for each in front], "lineage": lineage}
    context.artefact(stage, FRONT).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
