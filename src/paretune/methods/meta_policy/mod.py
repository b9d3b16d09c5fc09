"""MOD: one expert per objective, whose next-token log-probabilities are mixed with the preference as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paretune.core.answers import Combined
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import adapters_of
from paretune.methods.meta_policy.lower_level import CombiningSettings


@dataclass(frozen=True)
class MODSettings(CombiningSettings):
    """Settings of `MOD`: which experts, and theirs."""


@method("mod", "meta-policy")
class MOD:
    """Train one expert per objective and multiply what they say: `log p = sum_k w_k log p_k - log Z` at every token.

    Experts are those of rewarded soups. Where they are exact and a completion has one token, this is the best policy
    for `w`; of longer completions it neglects what is to come. A token costs a pass for each expert with weight.

    Source:
        Shi et al. 2024, Decoding-time language model alignment with multiple objectives (MOD), reverse KL.

    Departures:
        Completions are sampled from the mixture; published is greedy and beam search on sums that are not normalised.
    """

    settings: MODSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, by default one per objective; `preferences` play no part in training."""
        return self.settings.expert_kind.stages(self.settings, task, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts' log-probabilities, weighed by the prior of their kind: by default the preference."""
        prior = self.settings.expert_kind.prior(len(task.objectives))
        return Assembly(adapters_of(results.values()), Combined(prior), Mixer("log_probs"))
