"""Cross-fitting: one half of the prompts chooses among candidates, the other says what the choice is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.core.seeds import generator as stream

FloatArray = NDArray[np.float64]
SPLITS = 16  # one alone depends much on which prompts happen to fall into which half


@dataclass(frozen=True)
class EstimatePair:
    """A figure that takes a maximum over candidates, with and without what noise adds to it.

    Publish both: on average the truth lies between them. The naive one rises with noise, since the luckiest candidate
    wins; the cross-fitted one leans low where candidates truly differ, since half of the prompts sometimes choose
    wrongly. More prompts bring the two together.

    Attributes:
        naive: From the means over all prompts.
        cross_fitted: Chosen on one half, valued on the other, and the other way round; None with a reason.
        evaluation_sd: How much noise a mean over these prompts carries, by objective, `[K]`; None with a reason. It is
            the standard error over prompts, as a root mean square over candidates. Hard prompts are hard for all
            candidates: that share of it is here, but misleads no choice.
        candidates: Number of candidates N. Compare methods at equal numbers.
        prompts: Number of prompts P.
        reason: Why something is None; empty when nothing is.
    """

    naive: float
    cross_fitted: float | None
    evaluation_sd: tuple[float, ...] | None
    candidates: int
    prompts: int
    reason: str = ""

    @property
    def gap(self) -> float | None:
        """The naive figure over the cross-fitted one, less 1; None where the latter is not positive."""
        if self.cross_fitted is None or self.cross_fitted <= 0:
            return None
        return self.naive / self.cross_fitted - 1


def prompt_halves(
    prompts: int, splits: int = SPLITS, generator: np.random.Generator | None = None
) -> NDArray[np.bool_]:
    """Split the prompts into two halves at random, several times.

    Args:
        prompts: Number of prompts P.
        splits: Number of splits R.
        generator: Source of randomness. None gives the same halves for the same P, so that all methods of a study share
            them.

    Returns:
        Mask `[R, P]`: in each row P // 2 prompts of the first half are true.

    Raises:
        ShapeError: If there are fewer than two prompts, or no split.

    Example:
        >>> prompt_halves(4, splits=2).sum(axis=1).tolist()
        [2, 2]
    """
    if prompts < 2 or splits < 1:
        raise ShapeError(
            f"halves must have at least two prompts and one split, got {prompts} and {splits}. "
            "Evaluate more prompts, or leave splits out."
        )
    source = stream("prompt halves", prompts) if generator is None else generator
    places = source.permuted(np.tile(np.arange(prompts), (splits, 1)), axis=1)
    return np.asarray(places < prompts // 2)


def half_means(prompt_scores: FloatArray, halves: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return the mean scores on each half of the prompts, twice `[R, N, K]`.

    Args:
        prompt_scores: `[N, P, K]`.
        halves: Which prompts are in the first half, `[R, P]`.
    """
    first = np.einsum("rp,npk->rnk", halves / halves.sum(axis=1, keepdims=True), prompt_scores)
    second = np.einsum("rp,npk->rnk", ~halves / (~halves).sum(axis=1, keepdims=True), prompt_scores)
    return first, second


def evaluation_sd(prompt_scores: FloatArray) -> tuple[float, ...]:
    """Return the standard error of a mean over prompts by objective, as a root mean square over candidates, `[K]`.

    Args:
        prompt_scores: `[N, P, K]`, at least one candidate and two prompts.
    """
    variances = prompt_scores.var(axis=1, ddof=1).mean(axis=0) / prompt_scores.shape[1]
    return tuple(float(sd) for sd in np.sqrt(variances))


def check_prompt_scores(prompt_scores: ArrayLike) -> FloatArray:
    """Return scores of single prompts as finite `[N, P, K]`.

    Raises:
        ShapeError: If there are not three dimensions, no prompt, or no objective.
        NonFiniteError: If a score is NaN or infinite.
    """
    scores = np.asarray(prompt_scores, dtype=np.float64)
    if scores.ndim != 3 or scores.shape[1] == 0 or scores.shape[2] == 0:
        raise ShapeError(
            f"prompt_scores must be candidates x prompts x objectives, got shape {list(scores.shape)}. "
            "Give every candidate a score on each of the same prompts."
        )
    if not np.isfinite(scores).all():
        candidate, prompt = (int(index) for index in np.argwhere(~np.isfinite(scores).all(axis=2))[0])
        raise NonFiniteError(
            f"prompt_scores must be finite, got {scores[candidate, prompt].tolist()} for candidate {candidate} on "
            f"prompt {prompt}. Leave that prompt out for every candidate."
        )
    return scores


def check_halves(halves: ArrayLike | None, prompts: int) -> NDArray[np.bool_]:
    """Return halves as a mask `[R, P]`, those of `prompt_halves` for None.

    Raises:
        ShapeError: If there is not one entry per prompt, no split, or a half without a prompt.
    """
    if halves is None:
        return prompt_halves(prompts)
    mask = np.asarray(halves, dtype=np.bool_)
    if (
        mask.ndim != 2
        or len(mask) == 0
        or mask.shape[1] != prompts
        or mask.all(axis=1).any()
        or not mask.any(axis=1).all()
    ):
        raise ShapeError(
            f"halves must have a row a split and a column a prompt ({prompts}), with prompts on both sides, got shape "
            f"{list(mask.shape)}. Take them from prompt_halves."
        )
    return mask
