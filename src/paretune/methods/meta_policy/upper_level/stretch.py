"""Expert weights outside the simplex, by one number: for experts that are not trained to the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.settings import check_unread
from paretune.methods.experts import LATER, ExpertSettings

Origin = Literal["centre", "base"]


@dataclass(frozen=True)
class StretchSettings(ExpertSettings):
    """Settings of a method that may weigh experts beyond the preference, beside those of the experts themselves."""

    stretch: float = field(default=1.0, metadata=LATER)  # how far weights are moved away from the origin; 1: not at all
    stretch_from: Origin = field(default="centre", metadata=LATER)  # or base: all weights times `stretch`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("stretch_from", self.stretch_from, get_args(Origin))
        if not (self.stretch > 0 and np.isfinite(self.stretch)):
            raise ConfigError(
                f"stretch must be finite and above 0, got {self.stretch}. Write 1 to weigh experts as the preference "
                "says, or try 1.2."
            )
        if self.stretch == 1:
            check_unread(self, ("stretch_from",), "without a stretch", "Remove it, or give stretch.")


def stretched(prior: FloatArray, settings: StretchSettings) -> FloatArray:
    """Return expert weights at each corner that lie further from an origin by the factor `stretch`, `[K, E]`.

    An exact expert is `p_ref exp(r_i / beta)`. One that is not trained to the end is too near the base model; say it is
    `p_ref exp(c r_i / beta)`, c below 1. Then the best product for a preference w has the weights `w / c`:

    - `base`: `s w`, whose sum is s. With `s = 1 / c` it is that product. It moves every policy away from the base
      model, that of equal weights too.
    - `centre`: `m + s (w - m)`, m the weights of equal preferences; the sum stays what it was. With `s = 1 / c` it has
      the whole of what objectives differ in, and the share c of what they have in common: as much as `base` where their
      sum is the same for every completion, and less KL to pay where c was a guess.

    That is so for experts trained under the reverse KL, as all are, and mixed under it. Mixed by another divergence,
    weights `w / c` undo nothing, and one below 0 can give a single token nearly everything: `mod` refuses them there.

    Args:
        prior: Expert weights at each corner of the simplex, `[K, E]`.
        settings: How far, and from where.

    Source:
        Ours; `soups_stretched` in docs/results/meta_policy.md is `centre` by 1.5.

    Example:
        >>> stretched(np.eye(2), StretchSettings(stretch=1.5)).tolist()
        [[1.25, -0.25], [-0.25, 1.25]]
        >>> stretched(np.eye(2), StretchSettings(stretch=1.5, stretch_from="base")).tolist()
        [[1.5, 0.0], [0.0, 1.5]]
    """
    if settings.stretch == 1:
        return prior  # to the last bit
    middle = prior.mean(axis=0) if settings.stretch_from == "centre" else np.zeros(prior.shape[1])
    return np.asarray(middle + settings.stretch * (prior - middle))
