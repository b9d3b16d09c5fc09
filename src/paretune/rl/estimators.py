"""Which function makes advantages of rewards, and what it is given beside them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretune.core.imports import import_name
from paretune.core.preferences import FloatArray
from paretune.core.user_calls import called, check_takes, where_found
from paretune.rl.advantages import (
    check_made,
    gdpo,
    grpo,
    k_sample_mean,
    leave_one_out,
    self_critical,
    widths_made,
)
from paretune.rl.settings import ADVANTAGES

ARGUMENTS = ("rewards [B, K]", "group_size")  # what every estimator is called with
BY_NAME = ("objective_weights", "greedy_rewards", "ranges")  # what one gets beside that has a parameter of that name
IN_REWARDS = (leave_one_out, k_sample_mean, self_critical)  # whose advantages have the unit of what they are made of
IN_DEVIATIONS = (grpo, gdpo)  # whose have none: where nothing but rounding differs, they are 0


@dataclass(frozen=True)
class Estimator:
    """A function from rewards to advantages.

    Attributes:
        function: Called with the rewards of one member `[B, K]`, the completions of a prompt next to each other, their
            number for each prompt, and by name with what it asks for.
        asks: For which of `BY_NAME` it has a parameter: `objective_weights [B, K]` as they are in this update,
            `greedy_rewards [B, K]` of the greedy completion of each row's prompt, which is charged, and
            `ranges [K, 2]`.
    """

    function: Callable[..., Tensor]
    asks: frozenset[str]

    @property
    def greedy(self) -> bool:
        """Whether a greedy completion of each prompt is needed."""
        return "greedy_rewards" in self.asks

    @property
    def weighed(self) -> bool:
        """Whether objective weights must be known before gradients are."""
        return "objective_weights" in self.asks

    def apply(
        self, rewards: Tensor, group_size: int, members: int, rows: Mapping[str, Tensor], ranges: FloatArray
    ) -> Tensor:
        """Return the advantages of some members' rewards `[B, K]`, each member's from its own rows.

        Args:
            rewards: NaN where one is missing.
            group_size: Completions per prompt.
            members: How many.
            rows: What else there is, of each row `[B, K]`.
            ranges: Lowest and highest possible of these rewards, `[K, 2]`, or of each member `[R, K, 2]`.

        Raises:
            ShapeError: If a method's own code returns something of another shape.
            NonFiniteError: If it returns NaN or infinity.
        """
        name, size, made = f"advantages {where_found(self.function)}", len(rewards) // members, []
        bounds = np.broadcast_to(ranges, (members, *ranges.shape[-2:]))
        with called(name):
            for place in range(members):
                own = slice(place * size, (place + 1) * size)
                given: dict[str, object] = {each: rows[each][own].clone() for each in self.asks if each != "ranges"}
                if "ranges" in self.asks:
                    given["ranges"] = bounds[place].copy()
                made.append(self.function(rewards[own].clone(), group_size, **given))
        parts = rewards.split(size)
        return torch.cat([check_made(name, each, part) for each, part in zip(made, parts, strict=True)])


def signal_widths(
    estimator: Estimator | None, made: Tensor, rewards: Tensor, ranges: FloatArray, same_unit: bool
) -> Tensor:
    """Return how much advantages could differ in each row, `[B, K]`; `silenced` takes far smaller ones for rounding.

    Args:
        estimator: What made them; None for leave-one-out.
        made: Advantages of R members `[B, K]`, without KL.
        rewards: What they were made of, or what that was made of, `[B, K]`.
        ranges: Lowest and highest possible of these rewards, of each member, `[R, K, 2]`.
        same_unit: Whether the estimator got just these rewards.
    """
    widths = torch.from_numpy(ranges[:, :, 1] - ranges[:, :, 0])
    function, size = leave_one_out if estimator is None else estimator.function, len(made) // len(ranges)
    if function in IN_DEVIATIONS:
        widths = torch.ones_like(widths)
    elif not same_unit or function not in IN_REWARDS:
        widths = widths_made(made.unflatten(0, (-1, size)), rewards.unflatten(0, (-1, size)), widths)
    return widths.repeat_interleave(size, dim=0)


def estimator_of(function: Callable[..., Tensor], name: str = "") -> Estimator:
    """Return a function with what it asks for.

    Args:
        function: From rewards `[B, K]` and the group size.
        name: How a setting names it, for messages.

    Raises:
        MethodError: If it takes other arguments.
    """
    try:
        parameters: Mapping[str, object] = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of compiled code, which does not say
        parameters = {}
    asks = [each for each in BY_NAME if each in parameters]
    bound = functools.partial(function, **dict.fromkeys(asks)) if asks else function
    check_takes(f"advantages '{name or where_found(function)}'", bound, ARGUMENTS)
    return Estimator(function, frozenset(asks))


def resolve_advantages(name: str) -> Estimator | None:
    """Return the estimator that a setting names, None for the default, leave-one-out.

    Args:
        name: A word of `ADVANTAGES`, or `module:function`.

    Raises:
        ConfigError: If it cannot be imported.
        MethodError: If it takes other arguments than an estimator is called with.
    """
    if name == "leave_one_out":
        return None
    return estimator_of(import_name("advantages", ADVANTAGES.get(name, name)), name)
