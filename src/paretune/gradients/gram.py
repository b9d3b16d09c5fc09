"""What every gradient strategy needs of the objectives' gradients: their lengths and the angles between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray, check_preferences

ZERO = 1e-12  # squared norms of this share of the largest are rounding: an fp32 gradient has 24 bits
NORM_POWERS = (0, 1, 2)
PREFERENCE_POWERS = (-1, 0, 1)
SYMMETRIC = 1e-2  # of the product of two norms: room for a matrix that was made in bf16, none for a mistake


@dataclass(frozen=True, eq=False)
class Prepared:
    """The gradients of K objectives, rescaled, without those that vanish; k of them are left.

    Every combined gradient `d = sum_k weights_k g_k` has `<g_i, d> = (G weights)_i` and `|d|^2 = weights G weights`, so
    strategies that compare gradients by these need nothing of them but their Gram matrix G.

    Attributes:
        kept: Which objectives are left, `[K]`.
        factors: What each raw gradient is multiplied by, `[K]`; 0 for those left out.
        norms: Lengths of the rescaled gradients, `[k]`, positive.
        root: R `[k, k]`, whose columns of length 1 have the angles of the gradients: `root.T @ root` are their cosines.
    """

    kept: NDArray[np.bool_]
    factors: FloatArray
    norms: FloatArray
    root: FloatArray

    def on_raw_gradients(self, weights: FloatArray) -> FloatArray:
        """Return the weights `[K]` of the raw gradients that stand for `weights` `[k]` of the rescaled ones."""
        raw = np.zeros(len(self.kept))
        raw[self.kept] = weights * self.factors[self.kept]
        return raw


def prepare(
    gram: ArrayLike, norm_power: int = 0, preference: ArrayLike | None = None, preference_power: int = 1
) -> Prepared:
    """Mask gradients that vanish, rescale the others, and take the square root of their Gram matrix.

    A vanishing gradient is routine, such as where all completions of a prompt earn the same reward. It says nothing,
    and must not decide: the shortest vector of any set that holds 0 is 0.

    Args:
        gram: Inner products G `[K, K]` of the objectives' gradients, in any metric.
        norm_power: p of the factor `norm ** -p` of each gradient: 0 leaves them, 1 makes lengths equal, 2 inverts them.
        preference: `[K]`; None leaves it out. An objective of preference 0 is left out.
        preference_power: q of the factor `preference ** q` of each gradient: 1, -1, or 0, which only leaves out.

    Returns:
        The prepared gradients.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal.
        NonFiniteError: If an inner product is not finite.
        ConfigError: If `norm_power` is none of 0, 1, 2, or `preference_power` none of -1, 0, 1.
        PreferenceError: If the preference has no K weights, none negative and one above 0.

    Departures:
        The usual preparation divides G by its trace and takes the root of that. Here each column is divided by its
        length first, which keeps all digits of a gradient a million times shorter than another.
    """
    inner = _check_gram(gram)
    for name, power, choices in (
        ("norm_power", norm_power, NORM_POWERS), ("preference_power", preference_power, PREFERENCE_POWERS),
    ):  # fmt: skip
        if power not in choices:
            raise ConfigError(
                f"{name} must be one of {', '.join(map(str, choices))}, got {power!r}. Write one of them."
            )
    squares = np.diagonal(inner)
    wanted = np.ones(len(inner)) if preference is None else check_preferences(preference, len(inner))[0]
    kept = (squares > ZERO * squares.max(initial=0.0)) & (wanted > 0)
    norms = np.sqrt(squares[kept])
    factors = np.zeros(len(inner))
    factors[kept] = wanted[kept] ** float(preference_power) * norms ** -float(norm_power)
    cosines = inner[np.ix_(kept, kept)] / np.outer(norms, norms)
    values, vectors = np.linalg.eigh((cosines + cosines.T) / 2)
    root = np.sqrt(values.clip(min=0.0))[:, None] * vectors.T  # rounding makes values of 0 negative
    lengths = np.linalg.norm(root, axis=0)
    return Prepared(kept, factors, norms * factors[kept], root / lengths)


def mean_of_projections(
    gram: ArrayLike, preference: ArrayLike | None, project: Callable[[Prepared, int], FloatArray]
) -> FloatArray:
    """Return the objective weights of the mean of all gradients, each moved by a linear projection.

    Args:
        gram: See `prepare`.
        preference: `[K]`, weights of the mean; None weighs alike. As projections are linear in the length of what is
            projected, it is the same as losses scaled by their preference. An objective of preference 0 is left out.
        project: What a unit gradient becomes, by its place among those that are left: shares `[k]` of all of them.

    Returns:
        Weights `[K]` of the raw gradients, non-negative; 0 for an objective whose gradient vanishes. They are the
        preference itself where nothing conflicts, sum to more where something does, and are not rescaled: the step is
        that of the preference, less what conflicts. No combined gradient is longer than the mean length of the
        gradients. All are 0 where no gradient is left.

    Raises:
        ShapeError: If `gram` is not a symmetric square matrix with a non-negative diagonal.
        NonFiniteError: If an inner product is not finite.
        PreferenceError: If the preference is not a point on the simplex of K objectives.
    """
    prepared = prepare(gram, preference=preference)
    lengths = np.zeros(len(prepared.norms))  # along unit gradients
    for place, norm in enumerate(prepared.norms):
        lengths += norm * project(prepared, place)
    weights = prepared.on_raw_gradients(lengths / prepared.norms)
    return weights if preference is not None else weights / len(weights)


def _check_gram(gram: ArrayLike) -> FloatArray:
    inner = np.asarray(gram, dtype=np.float64)
    if inner.ndim != 2 or inner.shape[0] != inner.shape[1] or not len(inner):
        raise ShapeError(f"gram must be [K, K], got shape {list(inner.shape)}. Multiply all gradients with all.")
    if not np.isfinite(inner).all():
        raise NonFiniteError("gram must be finite, got NaN or infinity. Check the gradients it was made from.")
    squares = np.diagonal(inner)
    if (squares < 0).any():
        raise ShapeError(
            f"gram must have squared norms on its diagonal, got {float(squares.min())}. Check how it was made."
        )
    scale = np.sqrt(np.outer(squares, squares))
    gap = np.abs(inner - inner.T)
    if (gap > SYMMETRIC * scale).any():
        raise ShapeError(
            f"gram must be symmetric, got entries that differ by {float(gap.max())} from their mirror. Check how it "
            "was made."
        )
    return inner
