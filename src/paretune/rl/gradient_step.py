"""What a step is whose objective weights are chosen from gradients: settings without torch."""

from __future__ import annotations

from dataclasses import dataclass

from paretune.core.checks import check_choice

METRICS = ("optimiser", "plain")
OPTIMISERS = ("adamw", "sgd")


@dataclass(frozen=True)
class GradientStep:
    """How such a step is taken; a weighting that needs `gram` may have one as `step_rule`, see `Weighting`.

    Attributes:
        metric: Of the inner products. `optimiser`: of the smoothed gradients in the metric of the step, so what holds
            of the combined direction holds of what is applied. `plain`: of the gradients of this step as they are, as
            published; their sum is then handed to the optimiser, whose momentum and metric may turn it anywhere.
        optimiser: `adamw`, or `sgd`: the combined gradient itself times the learning rate, for which both metrics are
            one.
    """

    metric: str = "optimiser"
    optimiser: str = "adamw"

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        check_choice("optimiser", self.optimiser, OPTIMISERS)

    @property
    def smoothed(self) -> bool:
        """Whether the optimiser keeps a moment of each objective's gradient."""
        return self.metric == "optimiser" and self.optimiser == "adamw"
