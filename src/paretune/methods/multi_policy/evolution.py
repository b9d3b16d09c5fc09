"""Evolution: generations of experts, varied by policy gradient and crossover, kept by what they add to the front."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from paretune.core.answers import Selected
from paretune.core.checks import check_choice
from paretune.core.errors import BudgetError, ConfigError, RewardError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Family
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.experts import ExpertSettings, adapters_of, expert_settings, settings_of, split_budget
from paretune.methods.multi_policy.generations import Generations
from paretune.methods.multi_policy.individuals import Individual, from_state, to_state
from paretune.pareto.survival import RULES, dominance

FRONT, STATE = "front.json", "state.safetensors"


@dataclass(frozen=True)
class EvolutionSettings(ExpertSettings):
    """Settings of `Evolution`, beside those of its experts. Untuned; docs/papers.md."""

    population: int = 5  # offspring of a generation, for: corners, centre, points between (two for two objectives)
    archive: int = 8  # most individuals that live on
    steps: int = 256  # completions that each offspring is trained with: four updates
    measured_each: int = 16  # development completions of each individual in each generation
    crossover: float = 0.2  # chance that an offspring has two parents
    weight_noise: float = 0.1  # standard deviation of what is added to objective weights, then put onto the simplex
    parameter_noise: float = 0.0  # standard deviation of what is added to parameters, in shares of their mean square
    survival: str = "hypervolume"  # or crowding
    doubt: float = 1.0  # standard errors that count as noise when individuals are compared; 0 believes every mean

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("survival", self.survival, RULES)
        if self.population < 2 or self.archive < 2:
            raise ConfigError(
                f"population and archive must be at least 2, got {self.population} and {self.archive}. Try 5 and 8."
            )
        if self.steps < 1 or self.steps % self.completions_per_update:
            raise ConfigError(
                f"steps must be a positive multiple of completions_per_update ({self.completions_per_update}), so that "
                f"offspring learn on where their parents stopped, got {self.steps}. Try "
                f"{2 * self.completions_per_update}."
            )
        if self.measured_each < 1 or self.measured_each % self.group_size:
            raise ConfigError(
                f"measured_each must be a positive multiple of group_size ({self.group_size}), so that budgets come "
                f"out even, got {self.measured_each}. Try {4 * self.group_size}."
            )
        if not 0 <= self.crossover <= 1:
            raise ConfigError(f"crossover must be a chance from 0 to 1, got {self.crossover}. Write 0 for none.")
        if not min(self.weight_noise, self.parameter_noise, self.doubt) >= 0:
            raise ConfigError(
                "weight_noise, parameter_noise and doubt must not be negative, got "
                f"{self.weight_noise}, {self.parameter_noise} and {self.doubt}. Write 0 for none."
            )


class Evolution:
    """Evolve a set of policies: each generation trains offspring a little, measures, and keeps what the front needs.

    Every individual has objective weights of its own: those of its place in the generation, moved a little. It starts
    as a copy of the elite that serves them best, which learns on, or as the average of what that elite and another one
    add to the model. Then it is trained, all offspring of a generation in one batch. All that live are measured on
    fresh development prompts, the old ones again, so that nobody stays for having been lucky once; scores are means of
    `r_k - beta KL`, which is what is trained for. Preferences select from what is left at the end.

    Source:
        Kong et al. 2025 [3], evolution-guided policy gradient; Khadka and Tumer 2018; Beume et al. 2007 (SMS-EMOA) and
        Deb et al. 2002 (NSGA-II) for survival.

    Departures:
        See docs/papers.md: policy gradient is the variation, not a member; low-rank experts; measuring is charged.
    """

    name: ClassVar[str] = "evolution"
    family: ClassVar[Family] = "multi-policy"
    version: ClassVar[int] = 1
    Settings: ClassVar[type] = EvolutionSettings

    def __init__(self, settings: EvolutionSettings) -> None:
        self.settings = settings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage of the whole evolution; `preferences` play no part in it.

        Raises:
            BudgetError: If not even two individuals could be trained and measured.
        """
        group = self.settings.group_size
        if budget < 4 * group:
            raise BudgetError(
                f"budget must give two individuals a group of {group} to train on and one to be measured with, "
                f"{4 * group} completions, got {budget}. Raise it."
            )
        run = f"{evolve.__module__}:{evolve.__qualname__}"
        return (
            Stage("evolution", run, expert_settings(self.settings), completions=budget // group * group, seed=seed),
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the member of the highest measured utility."""
        (evolved,) = results.values()
        told = json.loads(evolved.artefacts[FRONT].read_text(encoding="utf-8"))
        scores = np.asarray([each["scores"] for each in told["front"]], dtype=np.float64)
        return Assembly(adapters_of([evolved]), Selected(scores), notes=told)


def cost(settings: EvolutionSettings, generation: int) -> int:
    """Return the completions of a generation: offspring are trained, and measured like those that live already."""
    living = min(settings.archive, settings.population * generation)
    return settings.population * (settings.steps + settings.measured_each) + living * settings.measured_each


def whole_generations(settings: EvolutionSettings, length: int) -> int:
    """Return how many generations a length has room for, with a last measurement of all that live then."""
    count, spent = 0, cost(settings, 0)
    while spent + min(settings.archive, settings.population * (count + 1)) * settings.measured_each <= length:
        count += 1
        spent += cost(settings, count)
    return count


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
    steps.log({"measured": [each.told() for each in everyone], "living": [each.number for each in living]}, generation)
    return living, [each.born() for each in offspring]


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
        lineage = [each.born() for each in elites]
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
    steps.log({"measured": [each.told() for each in everyone], "living": [each.number for each in front]}, generation)
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
    told = {"front": [each.told() for each in front], "lineage": lineage}
    context.artefact(stage, FRONT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
