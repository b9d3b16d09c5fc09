"""How objectives are weighed while a policy learns: one question an update, the answer `[K]` weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError, WeightingError
from paretune.core.imports import import_name
from paretune.core.preferences import FloatArray, centre
from paretune.core.user_calls import called, check_takes, shown
from paretune.rl.gradient_step import GradientStep

PARTS = ("needs", "measured", "weigh", "state", "load")
MADE_UP = 8  # updates before a weighting's state is handed over, and after


@dataclass(frozen=True, eq=False)
class Seen:
    """What a weighting may look at, of one expert, at one update.

    Attributes:
        update: Updates made before this one.
        preference: What the expert is trained for, `[K]`.
        returns: Mean reward of this update's completions, `[K]`; NaN where every reward of an objective is missing.
        kl: Mean KL of this update's completions, nats.
        gram: Inner products of the K objective gradients in the optimiser's metric, or plain ones where the weighting's
            `step_rule` says so, `[K, K]`; None unless `needs` names it.
        development: Rewards of completions of development prompts that were made just before this update, `[N, K]`,
            NaN where one is missing; None if none were made.
        generator: For draws; a function of the training seed and the update.
    """

    update: int
    preference: FloatArray
    returns: FloatArray
    kl: float
    gram: FloatArray | None
    development: FloatArray | None
    generator: np.random.Generator


class Weighting(Protocol):
    """Chooses the objective weights of one expert, update by update.

    Made as `Class(preference, settings, ranges)`: `[K]`, the stage's settings as a plain mapping, and the reward range
    of each objective `[K, 2]`. A run of N completions must be the prefix of a longer one: what `weigh` answers may
    depend on what it has seen, on nothing else.

    One that needs `gram` may have a `GradientStep` as its attribute `step_rule`: how its steps are taken, and in which
    metric the inner products are. Without one they are taken as `GradientStep()` says. All members have an equal one.

    Attributes:
        needs: What costs extra and is seen only if named here: `gram`.
    """

    needs: ClassVar[frozenset[str]]

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None: ...

    def measured(self, update: int) -> int:
        """Return how many completions of development prompts are wanted before an update, 0 for none.

        They are charged. A function of the number alone, so that a plan knows them. The last update of a run gets
        fewer or none where its budget has no room for all of them and a group to learn from.
        """
        ...

    def weigh(self, seen: Seen) -> FloatArray:
        """Return the objective weights of this update, `[K]`: not negative, and not all zero.

        One that needs `gram` is asked before every optimiser step of an update, each time with the inner products of
        that step; returns and development rewards are those of the update.
        """
        ...

    def state(self) -> dict[str, object]:
        """Return all that `load` needs to go on from here, as plain JSON data."""
        ...

    def load(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        ...


class Fixed:
    """The preference itself, at every update."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, preference: FloatArray, settings: Mapping[str, Any], ranges: FloatArray) -> None:
        self.preference = np.asarray(preference, dtype=np.float64)

    def measured(self, update: int) -> int:
        """Measure nothing."""
        return 0

    def weigh(self, seen: Seen) -> FloatArray:
        """Return the preference."""
        return self.preference

    def state(self) -> dict[str, object]:
        """Return nothing: there is no state."""
        return {}

    def load(self, state: Mapping[str, object]) -> None:
        """Take nothing over."""


def resolve_weighting(name: str) -> type[Weighting]:
    """Return the class of a weighting by `module:Class`, or `Fixed` for an empty name.

    Raises:
        ConfigError: If it cannot be imported, or is not a weighting, or its needs are no set.
    """
    if not name:
        return Fixed
    found = import_name("weighting", name, PARTS, "See Fixed in paretune/rl/weighting.py for the smallest one.")
    if not isinstance(found.needs, (frozenset, set)):  # a text, whose letters would be read as needs
        raise ConfigError(
            f"needs of weighting '{name}' must be a set of texts, got {shown(found.needs)}. Write "
            'frozenset({"gram"}), or frozenset() for none.'
        )
    weighting: type[Weighting] = found
    return weighting


def step_rule_of(weighting: Weighting) -> GradientStep:
    """Return how steps are taken under a weighting, as its attribute `step_rule` says, if it has one.

    Raises:
        ConfigError: If that is no `GradientStep`, or the weighting sees no inner products that it could be about, or it
            has a `GradientStep` by another name.
    """
    rule: object = getattr(weighting, "step_rule", None)
    name = type(weighting).__qualname__
    if rule is None:
        held = {**vars(type(weighting)), **getattr(weighting, "__dict__", {})}
        for attribute, value in held.items():
            if isinstance(value, GradientStep):
                raise ConfigError(
                    f"a GradientStep of {name} must be its attribute step_rule, got it as '{attribute}'. Rename it."
                )
        return GradientStep()
    if not isinstance(rule, GradientStep):
        raise ConfigError(
            f"step_rule of {name} must be a GradientStep, got {shown(rule)}. Take GradientStep(metric=..., "
            "optimiser=...) of paretune.rl.gradient_step, or leave it out."
        )
    if "gram" not in weighting.needs:
        raise ConfigError(
            f"step_rule of {name} must be left out where needs does not name gram, got {rule}: it says in which metric "
            "gradients are compared. Name gram, or leave it out."
        )
    return rule


def check_restores(kind: type[Weighting], settings: Mapping[str, Any], ranges: FloatArray) -> None:
    """Check that a weighting goes on from its state: a longer run needs it, and nobody else would notice.

    One that has made some updates with made-up returns hands its state over to a fresh one; from then on both must
    have the same state and the same answers.

    Args:
        kind: Its class.
        settings: Of its stage.
        ranges: `[K, 2]`.

    Raises:
        MethodError: If it cannot be made or asked at all.
        ConfigError: If its `step_rule` says nothing that can be done.
        WeightingError: If its state is no plain data, or does not restore it.
    """
    name, preference = kind.__qualname__, centre(len(ranges))  # at a corner nothing is left to weigh
    check_takes(f"weighting {name}", kind, ("preference", "settings", "ranges"))
    with called(f"weighting {name}"):
        one, other = (kind(preference, settings, ranges) for _ in range(2))
        step_rule_of(one)
        for update in range(MADE_UP):
            check_weights(one.weigh(_made_up(one, update, preference, ranges)), len(preference), kind)
        kept = _plain_state(one)
        other.load(json.loads(kept))
        before, after = json.loads(kept), json.loads(_plain_state(other))
        for entry in [*before, *after]:
            if before.get(entry) != after.get(entry):
                raise WeightingError(
                    f"load of weighting {name} must restore what state returned, got {shown(after.get(entry))} in "
                    f"place of {shown(before.get(entry))} for '{entry}'. Take every entry of the state over."
                )
        for update in range(MADE_UP, 2 * MADE_UP):
            said, restored = (
                check_weights(each.weigh(_made_up(each, update, preference, ranges)), len(preference), kind)
                for each in (one, other)
            )
            if not np.array_equal(said, restored):
                raise WeightingError(
                    f"state of weighting {name} must hold all that weigh depends on, got weights {restored.tolist()} "
                    f"from one that was restored in place of {said.tolist()}. Return from state, and take over in "
                    "load, whatever weigh changes."
                )


def _plain_state(weighting: Weighting) -> str:
    state: Any = weighting.state()
    try:
        if not isinstance(state, Mapping):
            raise TypeError(f"{shown(state)} is no mapping")
        return json.dumps(dict(state), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WeightingError(
            f"state of weighting {type(weighting).__qualname__} must be a mapping of plain data, got: {error}. Keep "
            "finite numbers, strings, lists and mappings in it; an array's tolist()."
        ) from error


def _made_up(weighting: Weighting, update: int, preference: FloatArray, ranges: FloatArray) -> Seen:
    """Return what a weighting might see: returns that rise unevenly, within their ranges."""
    draws = np.random.default_rng(update)
    count, low, width = len(preference), ranges[:, 0], ranges[:, 1] - ranges[:, 0]
    factors = draws.standard_normal((count, count + 1))
    wanted = weighting.measured(update)
    return Seen(
        update=update,
        preference=preference.copy(),
        returns=low + width * draws.uniform(0, (update + 1) / (2 * MADE_UP), count),
        kl=0.01 * update,
        gram=factors @ factors.T if "gram" in weighting.needs else None,
        development=low + width * draws.random((wanted, count)) if wanted else None,
        generator=np.random.default_rng(update),
    )


def check_weights(weights: ArrayLike, objectives: int, weighting: object = "a weighting") -> FloatArray:
    """Return what a weighting answered as an array `[K]`, if an update can be made with it.

    Args:
        weights: Its answer. The sum is free: it scales the update.
        objectives: Number of objectives K.
        weighting: The weighting, its class, or its name, for the message.

    Raises:
        ShapeError: If there is not one weight per objective.
        NonFiniteError: If a weight is NaN or infinite.
        WeightingError: If a weight is negative, or all are 0.
    """
    named = weighting if isinstance(weighting, (str, type)) else type(weighting)
    name = named if isinstance(named, str) else named.__qualname__
    row = np.asarray(weights, dtype=np.float64)
    if row.shape != (objectives,):
        raise ShapeError(
            f"objective_weights of {name} must be one per objective ({objectives}), got shape {list(row.shape)}. "
            "Correct what weigh returns."
        )
    if not np.isfinite(row).all():
        raise NonFiniteError(
            f"objective_weights of {name} must be finite, got {row.tolist()}. Look for a division by 0, or a reward "
            "that is missing (NaN), in weigh."
        )
    if (row < 0).any() or not row.any():
        raise WeightingError(
            f"objective_weights of {name} must not be negative, nor all 0, got {row.tolist()}. Give an objective that "
            "should not count 0, and another a weight."
        )
    return row
