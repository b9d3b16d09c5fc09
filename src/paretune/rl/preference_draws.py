"""What one policy for all preferences is trained for: a preference for each prompt of an update."""

from __future__ import annotations

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator

UNIFORM = "uniform"  # where nothing else is said
DRAWS = (UNIFORM, "stratified", "corners")


def check_draw(draw: str, preference: FloatArray | None) -> None:
    """Refuse a way to draw preferences where there is none, or where nothing is drawn.

    Args:
        draw: One of `DRAWS`.
        preference: The one that all prompts are for, `[K]`, or None.

    Raises:
        ConfigError: If there is no such draw, or preferences are to be drawn in a way of their own beside that one.
    """
    check_choice("draw", draw, DRAWS)
    if preference is not None and draw != UNIFORM:
        raise ConfigError(
            f"draw must be left out where all prompts are for one preference, got '{draw}'. Remove it, or the "
            "preference."
        )


def drawn_preferences(draw: str, objectives: int, seed: int, update: int, groups: int) -> FloatArray:
    """Draw a preference for each prompt of an update.

    Args:
        draw: `uniform`: each alone, uniformly from the simplex. `stratified`: each is uniform on the simplex too, and
            those of an update lie evenly: for two objectives one in each of `groups` equal intervals; for more, one in
            each of `groups` slices of the simplex along the first weight, of equal content, and within these along a
            low-discrepancy sequence. `corners`: every other one is a corner, the corners in turn; the rest is uniform.
        objectives: Number of objectives K.
        seed: Of the training.
        update: Number of the update.
        groups: Prompts of the update.

    Returns:
        `[groups, K]`. Under `uniform` and `corners` fewer prompts see the first draws of more.

    Raises:
        ConfigError: If there is no such draw.

    Source:
        Hammersley 1960, one regular coordinate and a sequence for the others; Cranley and Patterson 1976, a random
        shift, which leaves each point uniform.
    """
    check_choice("draw", draw, DRAWS)
    if draw == "stratified":
        return _stratified(objectives, generator(seed, "preference", update, "stratified"), groups)
    alpha = np.ones(objectives)
    rows = np.stack([generator(seed, "preference", update, group).dirichlet(alpha) for group in range(groups)])
    if draw == "corners":
        for group in range(update % 2, groups, 2):  # an update of one prompt has a corner every other time
            rows[group] = np.eye(objectives)[(update + group) // 2 % objectives]
    return rows


def _stratified(objectives: int, generator: np.random.Generator, groups: int) -> FloatArray:
    if objectives == 1:
        return np.ones((groups, 1))
    order = generator.permutation(groups)  # prompts come in an order of their own
    first = (order + generator.random(groups)) / groups
    rest = (generator.random(objectives - 2) + regular_points(groups, objectives - 2)[order]) % 1
    return on_simplex(np.column_stack([first, rest]))


def on_simplex(points: FloatArray) -> FloatArray:
    """Map points of the unit cube `[N, K - 1]` to the simplex `[N, K]`, uniform ones to uniform ones.

    Each coordinate says what an objective takes of what those before it have left. Of what K - 1 equal breaks leave,
    the first part has the distribution function `1 - (1 - x)^(K - 1)`, which is inverted here.

    Example:
        >>> on_simplex(np.array([[0.25], [1.0]])).tolist(), on_simplex(np.array([[0.75, 0.5]])).tolist()
        ([[0.25, 0.75], [1.0, 0.0]], [[0.5, 0.25, 0.25]])
    """
    left, columns = np.ones(len(points)), []
    for place, column in enumerate(points.T):
        columns.append(left * (1 - (1 - column) ** (1 / (points.shape[1] - place))))
        left = left - columns[-1]
    return np.stack([*columns, left], axis=1)


def regular_points(count: int, dimensions: int) -> FloatArray:
    """Return the first points of an additive sequence in the unit cube, `[count, dimensions]`.

    Source:
        Roberts 2018, the generalised golden ratio: steps are powers of `1 / phi`, `phi^(dimensions + 1) = phi + 1`.
    """
    phi = 2.0
    for _ in range(64):  # a contraction: what is left after each step is less than half
        phi = (1 + phi) ** (1 / (dimensions + 1))
    steps = phi ** -np.arange(1.0, dimensions + 1)
    return np.asarray(np.arange(1, count + 1)[:, None] * steps % 1)
