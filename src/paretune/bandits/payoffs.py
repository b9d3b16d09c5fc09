"""What comes back of a choice: gains mapped to [0, 1] by past ones, and a control whose feedback says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paretune.core.checks import check_choice

LOW, HIGH = 0.2, 0.8  # quantiles of past pay-offs that become 0 and 1, as published for DORB
FEEDBACK = ("measured", "shuffled")


def scaled(payoff: float, past: Sequence[float]) -> float:
    """Map a payoff to [0, 1] by quantiles of past ones; .5 where these do not tell low from high.

    Source:
        Pasunuru, Guo and Bansal 2020 (DORB).

    Example:
        >>> round(scaled(0.35, [0.0, 1.0]), 2), scaled(-3.0, [0.0, 1.0]), scaled(0.35, [])
        (0.25, 0.0, 0.5)
    """
    low, high = np.quantile(past, [LOW, HIGH]) if past else (0.0, 0.0)
    apart = high - low > 1e-9 * max(abs(low), abs(high))  # not by a last bit of equal ones
    return float(np.clip((payoff - low) / (high - low), 0, 1)) if apart else 0.5


def fed_back(payoff: float, past: Sequence[float], feedback: str, generator: np.random.Generator) -> float | None:
    """Return the payoff that a choice is told: its own, or, in the control, one of an earlier time whatever was chosen.

    A method that learns from its feedback must do better than the same method under `shuffled`, which costs the same.

    Args:
        payoff: Of the choice.
        past: Of earlier choices.
        feedback: `measured` or `shuffled`.
        generator: Asked for one number where shuffled.

    Returns:
        The payoff; None where shuffled and nothing is past.

    Raises:
        UnknownNameError: If there is no such feedback.
    """
    check_choice("feedback", feedback, FEEDBACK)
    if feedback == "measured":
        return payoff
    return past[int(generator.random() * len(past))] if past else None
