"""How objectives were weighed while the experts of a policy were trained, from the logs of their stages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from paretune.core.preferences import FloatArray
from paretune.records.files import read_json, read_marker

UNWEIGHED = "its objectives were weighed by the preference itself in every update, so that their shares are its weights"
NO_GRADIENTS = "gradients of single objectives were not made in its training"


def weights_in_force(stages: Iterable[Path]) -> dict[str, object]:
    """Return how objectives shared the updates of some stages, and how often steps turned against them.

    Args:
        stages: Their folders.

    Returns:
        Plain data: `shares [K]`, each objective's part of the weights that a weighting chose, mean over updates and
        then over the stages that log them, or None with `shares_reason`; `conflicts`, the share of optimiser steps that
        turned against each objective, None for one that no stage is trained for, or None with `conflicts_reason`.
    """
    folders = sorted({*stages})
    shares = [row for row in map(_shares, folders) if row is not None]
    against = [np.asarray(row, dtype=np.float64) for row in map(_conflicts, folders) if row]  # None becomes NaN
    return {
        "shares": np.mean(shares, axis=0).tolist() if shares else None,
        "shares_reason": "" if shares else UNWEIGHED,
        "conflicts": _means(np.stack(against)) if against else None,
        "conflicts_reason": "" if against else NO_GRADIENTS,
    }


def _shares(stage: Path) -> FloatArray | None:
    """Return the mean of normalised weights over the updates that log them, `[K]`; None where none does."""
    log = stage / "events.jsonl"
    if not log.is_file():
        return None
    own = read_json(stage / "stage.json").get("trajectory")
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # torn by a kill: the update was made, and logged, again
            continue
        if isinstance(event, Mapping) and event.get("trajectory") == own and event.get("objective_weights"):
            weights = np.asarray(event["objective_weights"], dtype=np.float64)
            rows.append(weights / weights.sum())
    return np.mean(rows, axis=0) if rows else None


def _conflicts(stage: Path) -> list[float | None]:
    return list(read_marker(stage)["values"].get("conflicts", ()))


def _means(rows: FloatArray) -> list[float | None]:
    known = ~np.isnan(rows)
    return [float(column[there].mean()) if there.any() else None for column, there in zip(rows.T, known.T, strict=True)]
