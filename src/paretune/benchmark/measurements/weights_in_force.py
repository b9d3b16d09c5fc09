"""How objectives were weighed while the experts of a policy were trained, from the logs of their stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.records.files import read_marker
from paretune.tracking.updates import updates_behind

NO_LOG = "the stages that its policy for equal weights is from left no log of their updates"
NO_GRADIENTS = "gradients of single objectives were not made in its training"


def weights_in_force(stages: Iterable[Path]) -> dict[str, object]:
    """Return how objectives shared the updates of some stages, and how often steps turned against them.

    Args:
        stages: Their folders.

    Returns:
        Plain data: `shares [K]`, each objective's part of the weights that were in force, given or chosen, mean over
        updates and then over the stages that have a log, or None with `shares_reason`; `conflicts`, the share of
        optimiser steps that turned against each objective, None for one that no stage is trained for, or None with
        `conflicts_reason`.
    """
    folders = sorted({*stages})
    shares = [row for row in map(_shares, folders) if row is not None]
    against = [np.asarray(row, dtype=np.float64) for row in map(_conflicts, folders) if row]  # None becomes NaN
    return {
        "shares": np.mean(shares, axis=0).tolist() if shares else None,
        "shares_reason": "" if shares else NO_LOG,
        "conflicts": _means(np.stack(against)) if against else None,
        "conflicts_reason": "" if against else NO_GRADIENTS,
    }


def _shares(stage: Path) -> FloatArray | None:
    """Return the mean of normalised weights over the updates of a stage, `[K]`; None where it has no log of any."""
    logged = [each.get("mean_weights") for each in updates_behind(stage)]
    weights: FloatArray = np.asarray([each for each in logged if each], dtype=np.float64)
    return (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0) if len(weights) else None


def _conflicts(stage: Path) -> list[float | None]:
    return list(read_marker(stage)["values"].get("conflicts", ()))


def _means(rows: FloatArray) -> list[float | None]:
    known = ~np.isnan(rows)
    return [float(column[there].mean()) if there.any() else None for column, there in zip(rows.T, known.T, strict=True)]
