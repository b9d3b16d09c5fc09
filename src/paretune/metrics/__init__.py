"""The judge: the paper's measures, one file each. They read records and never run a model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError

if TYPE_CHECKING:
    from paretune.core.protocols import MetricRow
    from paretune.records.study import StudyRecords

METRICS = {
    "performance": "paretune.metrics.performance:Performance",
    "captured_share": "paretune.metrics.captured_share:CapturedShare",
    "pass_ratio": "paretune.metrics.pass_ratio:PassRatio",
    "pareto_optimality": "paretune.metrics.pareto_optimality:ParetoOptimality",
    "true_front": "paretune.metrics.true_front:TrueFront",
    "kl_matched": "paretune.metrics.kl_matched:KlMatched",
    "training_efficiency": "paretune.metrics.training_efficiency:TrainingEfficiency",
    "inference_efficiency": "paretune.metrics.inference_efficiency:InferenceEfficiency",
}


def load_metric(name: str) -> Any:
    """Return a metric by its name here, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not one of `METRICS`.
        ConfigError: If `module:Class` cannot be imported.
    """
    target = name if ":" in name else METRICS[check_choice("metric", name, METRICS)]
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"metric must name a class that can be imported, got '{name}' ({error}).") from error


def measure_all(study: StudyRecords, metrics: Sequence[str] | None = None) -> list[MetricRow]:
    """Measure a study, finished or not.

    Args:
        study: Its records.
        metrics: Names, or `module:Class` of a user's own; all of `METRICS` if None.

    Returns:
        Rows of every metric in turn. What could not be measured is a row without a value, with the reason.
    """
    return [row for name in (METRICS if metrics is None else metrics) for row in load_metric(name).measure(study)]
