"""How a generation of an evolution is made: offspring, their training, the measurement of all, survival."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.preferences import FloatArray, add_points, centre, corners, das_dennis, onto_simplex
from paretune.core.seeds import generator, stream_key
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of
from paretune.methods.multi_policy.evolution import EvolutionSettings
from paretune.methods.multi_policy.individuals import Individual
from paretune.pareto.survival import survival_order
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bank import ExpertBank
    from paretune.records.evaluation import EvaluationRecord

PARAMETERS = ("experts.parameters", "experts.average")  # in a learner's state


def starting_weights(objectives: int, count: int) -> FloatArray:
    """Return objective weights of the first generation, `[count, K]`: corners, centre, points of finer and finer grids.

    Example:
        >>> starting_weights(2, 5).round(2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.67, 0.33], [0.33, 0.67]]
    """
    points, divisions = add_points(corners(objectives), centre(objectives)), 2
    while len(points) < count and objectives > 1:
        points, divisions = add_points(points, das_dennis(objectives, divisions)), divisions + 1
    return np.asarray(points[np.arange(count) % len(points)])


class Generations:
    """The steps of a generation, for one trajectory; every draw is a function of seed, generation and place."""

    def __init__(self, context: StageContext, stage: Stage, settings: EvolutionSettings) -> None:
        """Prepare prompts, rewards and the base model.

        Args:
            context: Of the run function.
            stage: The longest of the trajectory.
            settings: Of the stage.
        """
        from paretune.methods.training import prompts, ranges
        from paretune.models.base import load_base
        from paretune.objectives.scoring import Scorer
        from paretune.rl.rollout import PromptStream
        from paretune.rl.rollouts import Environment

        task = context.task
        self.context, self.task, self.settings, self.seed = context, task, settings, stage.seed
        self.trajectory, self.ledger = stage.trajectory_key(task), context.ledger(stage)
        self.learning, self.base = settings_of(LearnerSettings, stage), load_base(task.model)
        self.ranges = ranges(task)
        development = prompts(self.base, task, "development")
        self.environment = Environment(
            Scorer(task.objectives), prompts(self.base, task, "train"), task.beta, task.max_completion_tokens,
            self.ranges, development,
        )  # fmt: skip
        self.development = PromptStream(development, stream_key(stage.seed, "evolution", "development"))

    def offspring(self, elites: Sequence[Individual], generation: int, first: int, count: int) -> list[Individual]:
        """Return untrained individuals, numbered from `first`; without elites, the base model for `count` weights.

        Each place of a generation has objective weights of its own, the same in all generations, moved a little for
        each individual. Its parent is the elite that would serve these weights best, with the benefit of the doubt.
        """
        rows = starting_weights(len(self.task.objectives), count)
        if not elites:
            return [Individual(first + place, generation, "start", (), row) for place, row in enumerate(rows)]
        return [self._child(elites, row, generation, place, first + place) for place, row in enumerate(rows)]

    def _child(
        self, elites: Sequence[Individual], weights: FloatArray, generation: int, place: int, number: int
    ) -> Individual:
        draws = generator(self.seed, "evolution", generation, "offspring", place)
        noise = self.settings.weight_noise * draws.standard_normal(len(weights))
        moved = onto_simplex((weights + noise)[None])[0]
        best = self._best(elites, moved)
        parents = [elites[best]]
        if len(elites) > 1 and draws.random() < self.settings.crossover:
            parents.append(elites[(best + 1 + int(draws.integers(len(elites) - 1))) % len(elites)])
        born = replace(
            parents[0], number=number, generation=generation, operation="training",
            parents=tuple(each.number for each in parents), objective_weights=moved,
            counts=np.zeros(0), sums=np.zeros(0), squares=np.zeros(0),
        )  # fmt: skip
        if len(parents) == 2:
            crossed = replace(born, operation="crossover", learner={})
            born = replace(crossed, parameters=self._average(parents, crossed))
        return self._shaken(born, draws) if self.settings.parameter_noise else born

    def _best(self, elites: Sequence[Individual], weights: FloatArray) -> int:
        """Return which elite has the highest measured utility, `doubt` standard errors added."""
        utility = self.scores(elites) @ weights
        hopeful = utility + self.settings.doubt * np.sqrt(self.errors(elites) ** 2 @ weights**2)
        return 0 if np.isnan(hopeful).all() else int(np.nanargmax(hopeful.round(12)))

    def _average(self, parents: Sequence[Individual], born: Individual) -> Tensor:
        """Return the exact average of what two individuals add to the model, in an expert of their rank."""
        import torch

        from paretune.models.low_rank import average_experts

        bank = self.bank(parents)
        layers = [(layer.in_features, layer.out_features) for layer in bank.layers.values()]
        bank.unwrap()
        rows = torch.stack([each.trained for each in parents])
        average, lost = average_experts(rows, layers, self.settings.rank)
        self.log({**born.origin(), "discarded_energy": lost}, born.generation)
        return average

    def _shaken(self, born: Individual, draws: np.random.Generator) -> Individual:
        """Add noise to its parameters, and to those that its learner goes on from."""
        import torch

        spread = self.settings.parameter_noise * float(born.trained.square().mean().sqrt())
        noise = torch.from_numpy(draws.standard_normal(len(born.trained)) * spread).to(born.trained.dtype)
        learner = {name: each + noise if name in PARAMETERS else each for name, each in born.learner.items()}
        return replace(born, parameters=born.trained + noise, learner=learner)

    def train(self, offspring: Sequence[Individual], lengths: Sequence[int]) -> list[Individual]:
        """Train offspring by policy gradient as one population, each for its weights and its completions."""
        from paretune.rl.learner import Learner
        from paretune.rl.trainees import Member, Population

        members = [
            Member(
                each.objective_weights, stream_key(self.seed, "evolution", "train", each.number), (length,), self.ledger
            )
            for each, length in zip(offspring, lengths, strict=True)
        ]
        bank = self.bank(offspring)
        try:
            learner = Learner(Population(bank, members), self.environment, self.learning)
            for index, each in enumerate(offspring):
                if each.failing:
                    start = {
                        "updates": 0, "ledger": self.ledger.state(), "weighting": {}, "failing": each.failing,
                        "beta": self.task.beta,
                    }  # fmt: skip
                    learner.load_member_state(index, each.learner or learner.member_state(index)[0], start)
            trained: dict[int, Tensor] = {}

            def hand_over(index: int, length: int) -> None:
                trained[index] = bank.flat[index].detach().cpu().clone()

            def on_update(event: Any) -> None:
                number = offspring[event["member"]].number
                self.log({**event, "individual": number}, offspring[0].generation)
                self.context.progress(int(event["completions"]))

            learner.train(hand_over, on_update)
            states = [learner.member_state(index) for index in range(len(offspring))]
        finally:
            bank.unwrap()
        return [
            replace(
                each, parameters=trained[index], failing=tuple(plain["failing"]),
                learner={name: tensor.cpu() for name, tensor in tensors.items()},
            )
            for index, (each, (tensors, plain)) in enumerate(zip(offspring, states, strict=True))
        ]  # fmt: skip

    def measure(self, individuals: Sequence[Individual], first: int, count: int) -> list[Individual]:
        """Measure all on the same development prompts, at positions `first .. first + count - 1` of their order.

        Each time that prompts come round again they are sampled with other noise.
        """
        from paretune.methods.training import one_by_one
        from paretune.rl.evaluation import evaluate

        rows, found, began = self.task.splits["development"], list(individuals), time.perf_counter()
        bank = self.bank(individuals)
        try:
            policies = one_by_one(bank, self.task)
            position = first
            while position < first + count:
                left, (turn, place) = first + count - position, divmod(position, len(rows))
                samples = max(1, left // len(rows)) if place == 0 else 1  # whole turns at once
                size = min(left, len(rows) - place)
                records = evaluate(
                    policies, [rows[number] for number in self.development.indices(position, size)],
                    self.environment.score, self.task.objective_names, samples=samples, split="development",
                    seed=stream_key(self.seed, "evolution", "measure", turn), ledger=self.ledger,
                    progress=self.context.progress,
                )  # fmt: skip
                found = [each.measured(self._penalised(record)) for each, record in zip(found, records, strict=True)]
                position += size * samples
        finally:
            bank.unwrap()
        self.ledger.add_seconds("measuring", time.perf_counter() - began)
        return found

    def _penalised(self, record: EvaluationRecord) -> FloatArray:
        """Return `r_k - beta KL` of each completion, `[N, K]`: what is trained for, and what a preference weighs."""
        kl = record.log_probs - record.reference_log_probs
        return np.asarray(record.rewards - self.task.beta * kl[:, None])

    def ordered(self, individuals: Sequence[Individual]) -> list[Individual]:
        """Return individuals in the order of survival: those without a score last, before them copies of others."""
        seen: set[bytes] = set()
        groups: tuple[list[Individual], list[Individual], list[Individual]] = [], [], []
        for each in individuals:
            known, policy = not np.isnan(each.scores).any(), each.trained.numpy().tobytes()
            groups[2 if not known else 1 if policy in seen else 0].append(each)
            if known:
                seen.add(policy)
        low, width = self.ranges[:, 0], self.ranges[:, 1] - self.ranges[:, 0]
        order = survival_order(
            (self.scores(groups[0]) - low) / width, self.errors(groups[0]) / width,
            self.settings.survival, self.settings.doubt,
        )  # fmt: skip
        return [*(groups[0][place] for place in order), *groups[1], *groups[2]]

    def scores(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return means of `r_k - beta KL`, `[N, K]`."""
        return np.asarray([each.scores for each in individuals]).reshape(-1, len(self.task.objectives))

    def errors(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return the standard errors of the scores, `[N, K]`."""
        widths = self.ranges[:, 1] - self.ranges[:, 0]
        return np.asarray([each.errors(widths) for each in individuals]).reshape(-1, len(self.task.objectives))

    def log(self, event: dict[str, object], generation: int) -> None:
        """Append one line to the events."""
        self.context.log({**event, "generation": generation, "trajectory": self.trajectory})

    def bank(self, individuals: Sequence[Individual]) -> ExpertBank:
        """Return a bank of individuals, in their order; those without parameters yet are the base model."""
        from paretune.models.bank import ExpertBank

        bank = ExpertBank(self.base, len(individuals), self.settings.rank, self.settings.alpha)
        if any(each.parameters is None for each in individuals):
            bank.initialise([self.seed] * len(individuals))  # one A for all, so that averages keep more of both parents
        for index, each in enumerate(individuals):
            if each.parameters is not None:
                bank.flat[index].copy_(each.parameters)
        return bank
