"""The run function of prediction-guided training: which policies learn on, and for which weights."""

from __future__ import annotations

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of
from paretune.methods.multi_policy.generations import Generations, starting_weights
from paretune.methods.multi_policy.individuals import Individual
from paretune.methods.multi_policy.members import Members
from paretune.methods.multi_policy.prediction_guided import PredictionGuidedSettings
from paretune.methods.multi_policy.rounds import Found, run_rounds
from paretune.pareto.predicted_gain import GainModel, choose_pairs, fit_gains

Pair = tuple[Individual, FloatArray]  # who learns on, and for which weights


def guide(context: StageContext) -> None:
    """Train a set for each trajectory; see `rounds.run_rounds` for what it leaves."""
    run_rounds(context, prepared)


def prepared(context: StageContext, stage: Stage) -> Generations:
    """Return the generations of the trajectory whose longest stage is given."""
    settings = settings_of(PredictionGuidedSettings, stage)
    members = Members(context, stage, settings)
    return Generations(members, settings, Guidance(members, settings).offspring)


class Guidance:
    """Chooses pairs of policy and weights; every draw is a function of seed and generation."""

    def __init__(self, members: Members, settings: PredictionGuidedSettings) -> None:
        self.members, self.settings = members, settings

    def offspring(self, found: Found, generation: int) -> list[Individual]:
        """Return who learns on, each for its weights, numbered behind all that were ever born."""
        model, known = self.model(found), self.members.known(found.living)
        pairs = (
            self.contributors(known) if model is None or not model.trusted else self.guided(model, known, generation)
        )
        said = {} if model is None else {
            "error": model.error, "unchanged_error": model.unchanged_error, "doubt": model.doubt
        }  # fmt: skip
        self.members.log({"trusted": model is not None and model.trusted, **said}, generation)
        first = len(found.lineage)
        return [
            parent.child(first + place, generation, "training", [parent.number], weights)
            for place, (parent, weights) in enumerate(pairs)
        ]

    def model(self, found: Found) -> GainModel | None:
        """Return what all steps so far say about gains; None before there is one."""
        steps = [each for each in found.lineage if "gain" in each and None not in [*each["before"], *each["gain"]]]
        if not steps:
            return None
        before, weights, gains, noise = (
            np.asarray([each[name] for each in steps], dtype=np.float64)
            for name in ("before", "objective_weights", "gain", "noise")
        )
        return fit_gains(before, weights, gains, noise)

    def contributors(self, known: list[Individual]) -> list[Pair]:
        """Return those that contribute most hypervolume, for their own weights; in turn where they are too few."""
        ordered = self.members.ordered(known)
        chosen = [ordered[place % len(ordered)] for place in range(self.settings.population)]
        return [(each, each.objective_weights) for each in chosen]

    def guided(self, model: GainModel, known: list[Individual], generation: int) -> list[Pair]:
        """Return the pairs that are expected to add most hypervolume together."""
        scores, objectives = self.members.scaled(known), len(self.members.task.objectives)
        rows = starting_weights(objectives, self.settings.directions)
        asked = np.repeat(scores, len(rows), axis=0), np.tile(rows, (len(known), 1))
        shape = (len(known), len(rows), objectives)
        means, deviations = (each.reshape(shape) for each in model.predict(*asked))
        source = generator(self.members.seed, "prediction", generation, "draws")
        draws = source.standard_normal((self.settings.draws, objectives))
        if not len(draws):
            draws = np.zeros((1, objectives))
        pairs = choose_pairs(scores, means, deviations, self.settings.population, draws)
        return [(known[member], rows[direction]) for member, direction in pairs]
