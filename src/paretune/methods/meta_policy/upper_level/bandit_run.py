"""Run function of a bandit's stage: rounds of pulls on training prompts, the gate that they teach, and the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paretune.bandits import policies, ridge
from paretune.bandits.arms import arms_of
from paretune.bandits.contexts import compressed, compression, context_rows, context_size
from paretune.core.errors import NonFiniteError, RewardError
from paretune.core.ledger import network_flops
from paretune.core.preferences import FloatArray, random_preferences
from paretune.core.seeds import generator, stream_key
from paretune.core.stages import GATE, Stage, StageContext
from paretune.methods.bank_training import context_prompts
from paretune.methods.experts import adapters_of, settings_of
from paretune.methods.meta_policy.upper_level.bandit import PULLS, BanditSettings
from paretune.methods.meta_policy.upper_level.bandit_log import Pulls, off_policy_values, write_pulls
from paretune.methods.telling import Telling
from paretune.methods.training import prompts, trajectories
from paretune.methods.whole_rounds import grow

if TYPE_CHECKING:
    from torch import Tensor

    from paretune.models.bandit_gate import BanditGate
    from paretune.rl.checkpoints import State

FITTED_ON = 512  # training prompts, the first ones, whose states the compression is fitted to


def run_bandit(context: StageContext) -> None:
    """Pull arms for each trajectory, leaving `gate.safetensors` and `pulls.parquet` at every length.

    What a length has beyond whole rounds is pulled by what was learned until then.
    """
    from paretune.models.loading import load_base, unwrap

    base = load_base(context.task.model)
    for stages in trajectories(context):
        try:
            grow(context, stages, _Bandit(context, stages[-1]))
        finally:
            unwrap(base)


class _Bandit:
    """Pulls arms of one trajectory; every draw is a function of its seed, the pull's number and the pulls before it."""

    def __init__(self, context: StageContext, stage: Stage) -> None:
        from paretune.models.adapters import load_bank
        from paretune.models.bandit_gate import BanditGate
        from paretune.models.loading import load_base
        from paretune.objectives.scoring import Scorer

        self.context, self.stage, self.task, self.telling = context, stage, context.task, Telling(context)
        self.own = settings_of(BanditSettings, stage)
        self.ledger, self.size = context.ledger(stage), self.own.pulls_each_round
        self.unreported_completions = self.size
        self.bank = load_bank(load_base(self.task.model), adapters_of(map(context.result, stage.needs)))
        made = prompts(self.bank.base, self.task, "train")
        self.rows, ids = made.rows, made.prompt_ids
        self.prior = np.asarray(self.own.prior, dtype=np.float64)
        own, objectives = self.own, len(self.task.objectives)
        settings: dict[str, object] = {
            "divisions": own.divisions, "step": own.step, "stretch": own.stretch, "features": own.features,
            "products": own.products, "caution": own.caution,
            "beta": self.task.beta if own.judged_on == "J" else 0.0,  # what a nat costs the answer
            "payoff": "utility" if own.feedback == "utility" else "rewards",
        }  # fmt: skip
        if own.context != "own":
            settings["context"] = own.context
        if own.context == "shuffled":
            settings["context_prompts"] = context_prompts(ids)
        self.gate: BanditGate = BanditGate(self.bank, objectives, stage.seed, settings)
        self.arms = arms_of(self.bank.experts, own.divisions, own.step, own.stretch)
        states = np.zeros((len(ids), self.gate.context_size))
        if self.gate.reads_prompts:
            states = self.gate.context_of(ids).double().cpu().numpy()
        self.how = compression(states[:FITTED_ON], own.features)
        self.prompts = compressed(self.how, states)  # [P, q]
        self.score = Scorer(self.task.objectives)
        inputs = context_size(own.features, objectives, own.products)
        empty = ridge.fresh(len(self.arms.scales), inputs, self.gate.outputs, own.ridge)
        self.known = 0, empty  # pulls of whole rounds, and what they taught

    def whole(self, length: int) -> int:
        """Return how many whole rounds a length has room for."""
        return length // self.size

    def fresh(self) -> Pulls:
        """Return a log without pulls."""
        arms, objectives = len(self.arms.scales), len(self.task.objectives)
        return Pulls(
            np.zeros(0, dtype=np.int64), np.zeros((0, objectives)), np.zeros((0, arms)), np.zeros(0, dtype=np.int64),
            np.zeros((0, self.bank.experts)), np.zeros((0, self.gate.outputs)),
        )  # fmt: skip

    def written(self, pulls: Pulls) -> State:
        """Return the pulls."""
        return pulls.tensors(), {}

    def read(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Pulls:
        """Return what was written."""
        del plain
        return Pulls.of({name: each.numpy() for name, each in tensors.items()})

    def make(self, pulls: Pulls, number: int) -> Pulls:
        """Return pulls with a whole round more."""
        del number
        return self.pulled(pulls, self.size)

    def weights(self, preferences: FloatArray, arms: NDArray[np.int64]) -> FloatArray:
        """Return the expert weights of arms `[N]` for preferences, `[N, E]`."""
        return np.asarray(self.arms.weights(preferences @ self.prior)[np.arange(len(arms)), arms])

    def contexts(self, pulls: Pulls) -> FloatArray:
        """Return the contexts of pulls, `[N, d]`."""
        return context_rows(self.prompts[pulls.prompts], pulls.preferences, self.own.products)

    def learned(self, pulls: Pulls) -> ridge.Ridge:
        """Return what pulls teach; those without all of their rewards teach nothing."""
        count, model = self.known
        new = pulls.whole & (np.arange(len(pulls.arms)) >= count)
        model = ridge.updated(model, pulls.arms[new], self.contexts(pulls)[new], pulls.outputs[new])
        if len(pulls.arms) % self.size == 0:  # what a length has beyond whole rounds belongs to it alone
            self.known = len(pulls.arms), model
        return model

    def counted(self, preferences: FloatArray) -> FloatArray:
        """Return what outputs count while it learns, `[N, O]`: J, whatever the task is judged on."""
        weights = self.gate.payoff_weights(preferences)
        weights[:, -1] = -self.task.beta
        return weights

    def chances(self, model: ridge.Ridge, contexts: FloatArray, preferences: FloatArray) -> FloatArray:
        """Return the chance of each arm for decisions in contexts `[N, d]`, `[N, A]`."""
        said = ridge.payoffs(ridge.fitted(model), contexts, self.counted(preferences))
        return policies.probabilities(
            self.own.algorithm, *said, int(model.counts.sum()), self.own.exploration, self.own.floor
        )

    def pulled(self, before: Pulls, count: int) -> Pulls:
        """Return pulls with so many more, all of them chosen by what was learned before, and made in one batch."""
        numbers = range(len(before.arms), len(before.arms) + count)
        draws = [generator(self.stage.seed, "pull", number) for number in numbers]
        chosen = np.asarray([self._prompt(number) for number in numbers])
        preferences = np.concatenate([random_preferences(self.prior.shape[0], 1, each) for each in draws])
        rows = [self.rows[place] for place in chosen]
        if self.own.feedback == "oracle":
            preferences = self._wanted(rows, preferences)
        contexts = context_rows(self.prompts[chosen], preferences, self.own.products)
        with self.ledger.timed("update"):
            chances = self.chances(self.learned(before), contexts, preferences)
        arms = policies.drawn(chances, np.asarray([each.random() for each in draws]))
        weights = self.weights(preferences, arms)
        made = Pulls(chosen, preferences, chances, arms, weights, self._paid(rows, preferences, weights, numbers))
        pulls = before.and_then(made)
        self.telling.log(
            {
                "pulls": len(pulls.arms), "arms": np.bincount(arms, minlength=chances.shape[1]).tolist(),
                "payoff": made.mean_payoff(self.counted(preferences)),
            }
        )  # fmt: skip
        return pulls

    def _prompt(self, number: int) -> int:
        """Return which training prompt a pull is of: all of them once in each pass, in an order of its own."""
        passes, place = divmod(number, len(self.rows))
        return int(generator(self.stage.seed, "order", passes).permutation(len(self.rows))[place])

    def _wanted(self, rows: list[Mapping[str, object]], preferences: FloatArray) -> FloatArray:
        from paretune.rl.feedback import wanted_of

        return wanted_of(self.task.prompt_preferences, rows, preferences)

    def _paid(
        self, rows: list[Mapping[str, object]], preferences: FloatArray, weights: FloatArray, numbers: range
    ) -> FloatArray:  # fmt: skip
        """Return what pulls are paid, `[N, O]`: rewards or the utility, and KL; NaN where a reward is missing.

        Raises:
            NonFiniteError: If a log-probability is not finite.
        """
        from paretune.models.policy import Policy
        from paretune.rl.scored_completions import scored_completions

        task, count = self.task, len(rows)
        policy = Policy(
            self.bank.base, self.bank, task.prompt_format, task.max_prompt_tokens, task.max_completion_tokens,
            preferences, ["combined"] * count, weights,
        )  # fmt: skip
        seeds = [stream_key(self.stage.seed, "noise", number) % 2**63 for number in numbers]
        made, scores = scored_completions(
            policy, rows, range(count), self.score, len(task.objectives), 1, seeds, self.ledger, timed=True
        )
        states = network_flops(self.bank.base.parameters, sum(map(len, made.prompt_ids)), self.gate.prompt_passes)
        self.ledger.charge(flops=states)  # of prompts, as in serving
        kl = (made.log_probs.double() - made.reference_log_probs.double()).sum(dim=1).numpy()
        if not np.isfinite(kl).all():
            raise NonFiniteError(
                f"log-probabilities must be finite, got NaN or infinity in {int((~np.isfinite(kl)).sum())} of {count} "
                "pulls. Train the experts at a lower learning rate, or write a smaller stretch."
            )
        rewards = scores.rewards
        if self.own.feedback == "utility":  # one number is all there is to know, or nothing
            wanted = self._wanted(rows, preferences)
            rewards = np.where(wanted > 0, wanted * rewards, 0.0).sum(axis=1, keepdims=True)
        return np.column_stack([rewards, kl])

    def hand_over(self, stage: Stage, pulls: Pulls, number: int) -> None:
        """Pull what a stage has left, write the gate that pulls teach, and the log, and seal it.

        Raises:
            RewardError: If no pull has all of its rewards.
        """
        del number
        left = stage.completions - self.ledger.completions
        if left:
            pulls = self.pulled(pulls, left)
        if not pulls.whole.any():
            raise RewardError(
                f"pulls of a bandit must have all of their rewards to teach anything, got none in {len(pulls.arms)}. "
                "Mend the reward functions; the log says why scores are missing."
            )
        model = self.learned(pulls)
        self.gate.learn(self.how, model)
        self.gate.save(self.context.artefact(stage, GATE))
        contexts = self.contexts(pulls)
        known = [row["prompt_id"] for row in self.rows]
        utility = self.own.feedback == "utility"
        write_pulls(
            self.context.artefact(stage, PULLS), pulls, [str(known[place]) for place in pulls.prompts], contexts,
            self.size, ["utility"] if utility else [f"reward_{name}" for name in self.task.objective_names],
        )  # fmt: skip
        payoff_weights = self.gate.payoff_weights(pulls.preferences)
        values = off_policy_values(pulls, contexts, payoff_weights, self.own.caution, model)
        self.context.seal(
            stage,
            {
                "arms": self.arms.names(), "pulled": np.bincount(pulls.arms, minlength=len(self.arms.scales)).tolist(),
                "left_out": int((~pulls.whole).sum()), **values,
            },
        )  # fmt: skip
        if left:
            self.telling.progress(left)  # where a stop is noticed: these pulls are kept
