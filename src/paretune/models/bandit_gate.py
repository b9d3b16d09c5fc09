"""A gate at the level of prompts that answers with the arm of a bandit that is predicted to pay most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from paretune.bandits.arms import Arms, arms_of
from paretune.bandits.contexts import Compression, check_context, compressed, context_rows, context_size
from paretune.bandits.policies import answers
from paretune.bandits.ridge import Fitted, Ridge, fitted, payoffs
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.models.gate import GateLevel, TrainedGate

READS = ("divisions", "step", "stretch", "features", "products", "beta", "payoff", "caution")


class BanditGate(TrainedGate):
    """Predict what each arm would be paid, `w . r - beta KL`, and answer with the best, see `bandits.policies.answers`.

    Arms are expert weights relative to the prior, which is the first of them: a gate that has learned nothing is its
    prior exactly. Parameters are what `learn` was told: how a prompt's states are compressed, coefficients of each
    arm and output, and how well they are known. They are no network: no gradient reaches them. Its setting `beta` is
    the task's, or 0 where the task is judged on utility, as in other selections.

    Attributes:
        arms: What it chooses among.
    """

    level: ClassVar[GateLevel] = "prompt"
    reads: ClassVar[tuple[str, ...]] = READS

    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Return the shapes of the compression's mean and axes, coefficients, inverses, and covariance; see `learn`.

        Raises:
            ConfigError: If its settings do not say which arms and features there are.
        """
        left_out = [name for name in READS if name not in self.settings]
        if left_out:
            raise ConfigError(
                f"settings of BanditGate must have {', '.join(READS)}, got none of {', '.join(left_out)}. It learns in "
                "the method contextual_bandit, not by gradients."
            )
        self.arms: Arms = arms_of(
            self.experts, int(self._value("divisions")), float(self._value("step")), float(self._value("stretch"))
        )
        features, products = int(self._value("features")), int(self._value("products"))
        check_context(features, products)
        inputs = context_size(features, self.objectives, products)
        arms = len(self.arms.scales)
        return (
            (self.context_size,), (self.context_size, features), (arms, inputs, self.outputs), (arms, inputs, inputs),
            (self.outputs, self.outputs),
        )  # fmt: skip

    def _value(self, name: str) -> Any:
        return self.settings[name]

    @property
    def outputs(self) -> int:
        """Number of outputs O: rewards, or the one utility, and the KL."""
        return 2 if self._utility else self.objectives + 1

    def learn(self, how: Compression, model: Ridge) -> None:
        """Take over what was learned: a compression of states, and what the arms know."""
        with torch.no_grad():
            for parameter, values in zip(self.networks[0], (*how, *fitted(model)), strict=True):
                parameter.copy_(torch.from_numpy(values))

    def payoff_weights(self, preferences: FloatArray) -> FloatArray:
        """Return what outputs count for preferences `[N, K]`, `[N, O]`."""
        rewards = np.ones((len(preferences), 1)) if self._utility else preferences
        return np.column_stack([rewards, np.full(len(preferences), -float(self._value("beta")))])

    @property
    def _utility(self) -> bool:
        return bool(self._value("payoff") == "utility")

    def row_weights(self, context: Tensor, prior: Tensor, preferences: Tensor) -> Tensor:
        """Return g for rows, `[B, E]`: the weights of the best arm.

        Args:
            context: States of the rows' prompts, `[B, 2 H]`, see `prompt_states`.
            prior: Expert weights of the rows without the gate, `[B, E]`.
            preferences: Of the rows, `[B, K]`.

        Raises:
            MixingError: If the states are not of the size that the gate reads.
        """
        self.check_context(context)
        # fp64, so that the best of arms that nearly tie does not depend on the rows beside it
        mean, axes, *learned = (each.detach().double().cpu().numpy() for each in self.networks[0])
        states, wanted, rule = (each.detach().double().cpu().numpy() for each in (context, preferences, prior))
        rows = context_rows(compressed(Compression(mean, axes), states), wanted, int(self._value("products")))
        said = payoffs(Fitted(*learned), rows, self.payoff_weights(wanted))
        best = answers(said.means, said.deviations, float(self._value("caution")))
        chosen = self.arms.weights(rule)[np.arange(len(rows)), best]
        return torch.from_numpy(chosen).to(prior)
