"""Linear programs, whose failure is said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from paretune.core.errors import NonFiniteError
from paretune.core.preferences import FloatArray


def solved(costs: ArrayLike, **constraints: Any) -> tuple[FloatArray, float]:
    """Return the variables `[V]` for which `costs . variables` is lowest, and how low that is.

    Args:
        costs: `[V]`.
        constraints: `A_ub`, `b_ub`, `A_eq`, `b_eq` and `bounds`, as `scipy.optimize.linprog` has them.

    Raises:
        NonFiniteError: If there is no lowest, or it is not found.
    """
    found = linprog(costs, **constraints, method="highs")
    if found.x is None:
        raise NonFiniteError(
            f"a linear program over scores must have a solution, got none: {found.message.rstrip('. ')}. Scale scores "
            "to the size of 1."
        )
    return np.asarray(found.x, dtype=np.float64), float(found.fun)
