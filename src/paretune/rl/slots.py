"""What a method may put in the place of the learner's defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.user_calls import called, where_found
from paretune.rl.advantages import check_made
from paretune.rl.estimators import Estimator, estimator_of, resolve_advantages
from paretune.rl.settings import LearnerSettings
from paretune.rl.shaping import MemberShaping, shaped_ranges_of
from paretune.rl.weighting import Weighting

Advantages = Callable[..., Tensor]  # rewards [B, K], G, and what it asks for by name -> [B, K]; see `Estimator`
Shaping = Callable[[Tensor, FloatArray], Tensor]  # rewards [B, K], ranges [K, 2] -> [B, K]


@dataclass(frozen=True)
class Slots:
    """What a method may put in the place of the defaults.

    Attributes:
        weightings: How each member weighs its objectives; by default as its rows' preferences say.
        advantages: How rewards become advantages; by default as the settings say.
        shaping: What is done to the rewards of each completion before that.
        shapings: The same for each member, where it depends on its preference or on settings.
    """

    weightings: Sequence[Weighting] = ()
    advantages: Advantages | None = None
    shaping: Shaping | None = None
    shapings: Sequence[MemberShaping] = ()

    def estimator(self, settings: LearnerSettings) -> Estimator | None:
        """Return what makes advantages of rewards; None for leave-one-out.

        Raises:
            ConfigError: If it cannot be imported, or says nothing of completions that are learned from again.
            MethodError: If it takes other arguments than an estimator is called with.
        """
        if self.advantages is not None and settings.replay:  # the settings refuse theirs themselves
            raise ConfigError(
                f"replay must be 0 with advantages {where_found(self.advantages)}, got {settings.replay}: advantages "
                "of earlier completions are made anew as for advantages 'leave_one_out'. Leave one of them out."
            )
        return resolve_advantages(settings.advantages) if self.advantages is None else estimator_of(self.advantages)

    def shaped(self, rewards: Tensor, ranges: FloatArray, active: Sequence[int]) -> Tensor:
        """Return shaped rewards `[B, K]` of the active members, in the order of their rows.

        Raises:
            ShapeError: If a method's own code returns something of another shape.
            NonFiniteError: If it returns NaN or infinity.
        """
        if self.shapings:
            parts = []
            for index, own in zip(active, rewards.chunk(len(active)), strict=True):
                name = f"shaping {where_found(type(self.shapings[index]))}"
                with called(name):
                    parts.append(self.shapings[index].shape(own.clone()))
                check_made(name, parts[-1], own, missing=True)
            return torch.cat(parts)
        if self.shaping is None:
            return rewards
        name = f"shaping {where_found(self.shaping)}"
        with called(name):
            shaped = self.shaping(rewards.clone(), ranges.copy())
        return check_made(name, shaped, rewards, missing=True)

    def shaped_ranges(self, ranges: FloatArray, members: int) -> FloatArray | None:
        """Return lowest and highest rewards of each member after shaping, `[R, K, 2]`; None where shaping is silent.

        Raises:
            ConfigError: If a shaping says what cannot be.
        """
        if self.shaping is None and not self.shapings:
            return np.stack([ranges] * members)
        shapings: Sequence[object] = self.shapings or [self.shaping] * members
        said = [shaped_ranges_of(each, len(ranges)) for each in shapings]
        known = [each for each in said if each is not None]
        return np.stack(known) if len(known) == members else None
