"""The members of a set of policies that grows: trained in one batch, measured on development prompts, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paretune.core.errors import RewardError
from paretune.core.ledger import Seconds
from paretune.core.preferences import FloatArray
from paretune.core.seeds import stream_key
from paretune.core.stages import Stage, StageContext
from paretune.methods.experts import settings_of
from paretune.methods.folds import fold_numbers
from paretune.methods.judging import judged_scores
from paretune.methods.multi_policy.individuals import Individual
from paretune.methods.multi_policy.set_settings import SetSettings
from paretune.methods.telling import Telling
from paretune.pareto.archive import archive_order, undominated
from paretune.rl.settings import LearnerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bank import ExpertBank


class Members:
    """Trains and measures the individuals of one trajectory; all that they need is a function of its seed."""

    def __init__(self, context: StageContext, stage: Stage, settings: SetSettings) -> None:
        """Prepare prompts, rewards and the base model.

        Args:
            context: Of the run function.
            stage: The longest of the trajectory; its kind names the streams of randomness.
            settings: Of the stage.
        """
        from paretune.methods.training import prompts, ranges
        from paretune.models.loading import load_base
        from paretune.objectives.scoring import Scorer
        from paretune.rl.rollout import PromptStream
        from paretune.rl.rollouts import Environment

        task = context.task
        self.context, self.task, self.settings, self.telling = context, task, settings, Telling(context)
        self.seed, self.name = stage.seed, stage.kind
        self.trajectory, self.ledger = stage.trajectory_key(task), context.ledger(stage)
        self.learning, self.base = settings_of(LearnerSettings, stage), load_base(task.model)
        self.ranges = ranges(task)
        development = prompts(self.base, task, "development")
        self.environment = Environment(
            Scorer(task.objectives), prompts(self.base, task, "train"), task.beta, task.max_completion_tokens,
            self.ranges, development,
        )  # fmt: skip
        self.development = PromptStream(development, stream_key(stage.seed, self.name, "development"))

    def train(self, individuals: Sequence[Individual], lengths: Sequence[int]) -> list[Individual]:
        """Train individuals by policy gradient as one population, each for its weights and its completions.

        Those that hold what a learner goes on from, go on; the others start as they are, without optimiser state.
        """
        from paretune.rl.learner import Learner
        from paretune.rl.trainees import Member, Population

        members = [
            Member(
                each.objective_weights, stream_key(self.seed, self.name, "train", each.number), (length,), self.ledger
            )
            for each, length in zip(individuals, lengths, strict=True)
        ]
        bank = self.bank(individuals)
        try:
            learner = Learner(Population(bank, members), self.environment, self.learning)
            for index, each in enumerate(individuals):
                if each.failing:
                    tensors, fresh = learner.member_state(index)
                    start = {**fresh, "ledger": self.ledger.state(), "failing": each.failing}
                    learner.load_member_state(index, each.learner or tensors, start)
            trained: dict[int, Tensor] = {}

            def hand_over(index: int, length: int) -> None:
                trained[index] = bank.flat[index].detach().cpu().clone()

            def on_update(event: Mapping[str, Any]) -> None:
                one = individuals[event["member"]]
                self.log({**event, "individual": one.number}, one.generation)
                self.telling.progress(int(event["completions"]))

            learner.train(hand_over, on_update)
            states = [learner.member_state(index) for index in range(len(individuals))]
        finally:
            bank.unwrap()
        return [
            replace(
                each, parameters=trained[index], failing=tuple(plain["failing"]),
                learner={name: tensor.cpu() for name, tensor in tensors.items()},
            )
            for index, (each, (tensors, plain)) in enumerate(zip(individuals, states, strict=True))
        ]  # fmt: skip

    def measure(self, individuals: Sequence[Individual], first: int, count: int) -> list[Individual]:
        """Measure all on the same development prompts, at positions `first .. first + count - 1` of their order.

        Each time that prompts come round again they are sampled with other noise.
        """
        from paretune.methods.training import one_by_one
        from paretune.rl.evaluation import evaluate

        rows, found, began = self.task.development_rows(), list(individuals), Seconds.now()
        bank = self.bank(individuals)
        try:
            policies = one_by_one(bank, self.task)
            position = first
            while position < first + count:
                left, (turn, place) = first + count - position, divmod(position, len(rows))
                samples = max(1, left // len(rows)) if place == 0 else 1  # whole turns at once
                size = min(left, len(rows) - place)
                numbers = self.development.indices(position, size)
                records = evaluate(
                    policies, [rows[number] for number in numbers], self.environment.score, self.task.objective_names,
                    samples=samples, split="development", seed=stream_key(self.seed, self.name, "measure", turn),
                    ledger=self.ledger, progress=self.telling.progress,
                )  # fmt: skip
                folds = fold_numbers([number for number in numbers for _ in range(samples)])
                for index, record in enumerate(records):
                    kl = record.log_probs - record.reference_log_probs
                    found[index] = found[index].measured(judged_scores(self.task, record.rewards, kl), kl, folds)
                position += size * samples
        finally:
            bank.unwrap()
        self.ledger.add_seconds("measuring", *began.passed())
        return found

    def ordered(self, individuals: Sequence[Individual]) -> list[Individual]:
        """Return individuals in the order of survival: those without a score last, before them copies of others."""
        order = archive_order(
            self.scaled(individuals), self.scaled_errors(individuals),
            [each.trained.numpy().tobytes() for each in individuals], self.settings.survival, self.settings.doubt,
        )  # fmt: skip
        return [individuals[index] for index in order]

    def known(self, individuals: Sequence[Individual]) -> list[Individual]:
        """Return those with a score on every objective.

        Raises:
            RewardError: If there are none.
        """
        known = [each for each in individuals if not np.isnan(each.scores).any()]
        if not known:
            missing = self.task.objective_names[int(np.isnan(self.scores(individuals)).any(axis=0).argmax())]
            raise RewardError(
                f"an individual must have a measured score on every objective, got none on '{missing}'. Mend its "
                "reward function, then run the same command again; nothing finished is lost."
            )
        return known

    def front(self, individuals: Sequence[Individual]) -> list[Individual]:
        """Return those that no other one dominates beyond noise, in the order of survival.

        Raises:
            RewardError: If nobody has a score on every objective.
        """
        known = self.known(self.ordered(individuals))
        kept = undominated(self.scores(known), self.errors(known), self.settings.doubt)
        return [each for each, stays in zip(known, kept, strict=True) if stays]

    def scores(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return mean worth of their completions, `[N, K]`."""
        return np.asarray([each.scores for each in individuals]).reshape(-1, len(self.task.objectives))

    def errors(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return the standard errors of the scores, `[N, K]`."""
        widths = self.ranges[:, 1] - self.ranges[:, 0]
        return np.asarray([each.errors(widths) for each in individuals]).reshape(-1, len(self.task.objectives))

    def scaled(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return the scores with each objective's range of rewards as [0, 1], `[N, K]`."""
        return (self.scores(individuals) - self.ranges[:, 0]) / (self.ranges[:, 1] - self.ranges[:, 0])

    def scaled_errors(self, individuals: Sequence[Individual]) -> FloatArray:
        """Return the standard errors of the scaled scores, `[N, K]`."""
        return self.errors(individuals) / (self.ranges[:, 1] - self.ranges[:, 0])

    def log(self, event: Mapping[str, object], generation: int) -> None:
        """Append one line to the events."""
        self.telling.log({**event, "generation": generation, "trajectory": self.trajectory})

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
