"""Which share of training steps turned against an objective, of methods that look at its gradient."""

from __future__ import annotations

import numpy as np

from paretune.report.comparison import Comparison, MethodResult
from paretune.report.wording import listing


def conflicts(comparison: Comparison) -> str:
    """Say it of each method in turn; nothing where it is known of none."""
    said = [(method.name, shares(method, len(comparison.objectives))) for method in comparison.ranked]
    parts = []
    for name, row in said:
        known = zip(comparison.objectives, row, strict=True)
        each = [f"{objective} {share:.0%}" for objective, share in known if share is not None]
        parts += [f"{name} {listing(each)}"] if each else []
    if not parts:
        return ""
    return (
        "Share of optimiser steps that turned against an objective of their policy's preference, by its gradient from "
        f"the same completions: {'; '.join(parts)}. It is known of methods that choose weights from gradients only."
    )


def shares(method: MethodResult, objectives: int) -> list[float | None]:
    """Return the mean share of each objective over a method's stages that know it, `[K]`."""
    known = [stage.conflicts for cell in method.done for stage in cell.stages if stage.conflicts]
    columns = [[share for row in known if (share := row[k]) is not None] for k in range(objectives)]
    return [float(np.mean(column)) if column else None for column in columns]
