"""Reward combinations: sum, product, or sum of logarithms of each completion's rewards, after DynaOpt and EMORL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paretune.core.checks import check_choice
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import PLANNING
from paretune.methods.per_preference import PerPreferenceSettings, nearest_trained, planned_experts

FORMS = {
    "sum": "paretune.rl.shaping:to_unit",
    "product": "paretune.rl.shaping:Product",
    "log_sum": "paretune.rl.shaping:log_clip",
}


@dataclass(frozen=True)
class RewardCombinationSettings(PerPreferenceSettings):
    """Settings of `RewardCombination`, beside those of one policy per preference."""

    form: str = field(default="log_sum", metadata=PLANNING)  # as DynaOpt and EMORL train by default; sum, product

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("form", self.form, FORMS)


@method("reward_combination", "single-policy")
class RewardCombination:
    """Train one policy per wanted preference for a combination of each completion's scores in [0, 1].

    `sum`: `sum_k w_k s_k`. `log_sum`: `sum_k w_k ln s_k`. `product`: `prod_k s_k^(w_k / max w)`, for equal weights the
    product of all, for a corner its objective alone. s is the reward mapped to [0, 1] by its objective's range.

    Source:
        Min et al. 2024 (DynaOpt) and Kong et al. 2025 (EMORL), the forms in their code.

    Departures:
        Published forms know no preference, or fixed equal weights. Scores of `log_sum` and `product` are clipped to
        [1e-4, .9999], as published for `log_sum`. The published sum is of K scores, this one a mean. Where a score that
        a product needs is missing, the product is.
    """

    settings: RewardCombinationSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return one expert per trained preference."""
        return planned_experts(self.settings, preferences, budget, seed, shaping=FORMS[self.settings.form])

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the policy trained for the nearest preference."""
        return nearest_trained(results)
