"""Means over the prompts on which everything that is compared has a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretune.attribution.shapley import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class PromptMeans:
    """Means and standard errors over the prompts that count in each of S columns.

    Attributes:
        there: Which do, `[P, S]`.
    """

    there: BoolArray

    @classmethod
    def of(cls, values: FloatArray) -> PromptMeans:
        """Count a prompt where every one of R rows has a score, `[R, P, S]`: NaN is none."""
        return cls(np.asarray(np.isfinite(values).all(axis=0), dtype=np.bool_))

    def over_prompts(self, values: FloatArray) -> FloatArray:
        """Return means of `[..., P, S]`, `[..., S]`; NaN where no prompt counts."""
        count = self.there.sum(axis=0)
        total = np.where(self.there, values, 0.0).sum(axis=-2)
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))

    def errors(self, values: FloatArray) -> FloatArray:
        """Return standard errors of those means; NaN where fewer than two prompts count."""
        count = self.there.sum(axis=0)
        far = np.where(self.there, values - self.over_prompts(values)[..., None, :], 0.0)
        variance = np.square(far).sum(axis=-2) / np.maximum(count - 1, 1) / np.maximum(count, 1)
        return np.asarray(np.where(count > 1, np.sqrt(variance), np.nan))
