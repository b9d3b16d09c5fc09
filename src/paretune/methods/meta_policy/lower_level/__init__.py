"""The lower level of a meta-policy: kinds of experts, and how a preference weighs each kind by a fixed rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from paretune.core.errors import ConfigError
from paretune.core.named import make_named
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage
from paretune.core.task import Task
from paretune.methods.experts import LATER, SINGLE_OBJECTIVE, ExpertSettings

TRAINING = "paretune.methods.training:train_experts"  # of experts whose start can be chosen

KINDS = {
    SINGLE_OBJECTIVE: "paretune.methods.meta_policy.lower_level.single_objective:SingleObjective",
    "mixed_reward": "paretune.methods.meta_policy.lower_level.mixed_reward:MixedReward",
    "mgda": "paretune.methods.meta_policy.lower_level.mgda:MGDAExperts",
    "cone": "paretune.methods.meta_policy.lower_level.cone:ConeExperts",
    "split_experts": "paretune.methods.meta_policy.lower_level.split_experts:SplitExperts",
}


class ExpertKind(Protocol):
    """A kind of experts: a frozen dataclass whose fields are its settings.

    Stages come in the order of the experts that `prior` weighs, and each leaves one adapter.
    """

    def stages(self, settings: ExpertSettings, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages of its E experts, which start alike.

        Args:
            settings: How each is shaped and trained; the fields that reach a stage are those of `expert_settings`.
            task: Its prompts and objectives; nothing is trained or sampled here.
            budget: Completions of all of them together.
            seed: Of the training.

        Raises:
            BudgetError: If an expert would get less than one group.
        """
        ...

    def prior(self, objectives: int) -> FloatArray:
        """Return the expert weights at each corner of the simplex, `[K, E]`.

        A preference w is answered by `w @ prior`, which may leave the simplex.
        """
        ...


def check_started_here(experts: Sequence[Stage], start: str) -> None:
    """Refuse to say where experts start that a run function of their own begins.

    Args:
        experts: Stages of a kind of experts.
        start: What the setting of that name asks for.

    Raises:
        ConfigError: If a stage has one.
    """
    others = [each.run for each in experts if each.run != TRAINING]
    if others:
        raise ConfigError(
            f"start must be left out for experts that have a run function of their own, got '{start}' and "
            f"{others[0]}. Let that choose where they start."
        )


@dataclass(frozen=True)
class CombiningSettings(ExpertSettings):
    """Settings of a method that combines experts, beside those of the experts themselves."""

    # which experts: the name of a kind, or a mapping with its settings, {kind: mixed_reward, beta: 0.7}
    experts: str | dict[str, Any] = field(default=SINGLE_OBJECTIVE, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        make_kind(self.experts)  # so that what cannot be made is refused at once
        object.__setattr__(self, "experts", spelled(self.experts))

    @property
    def expert_kind(self) -> ExpertKind:
        """Which experts are combined."""
        return make_kind(self.experts)


def spelled(experts: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return what names experts with infinity as the word `inf`: keys and files hold finite numbers.

    Example:
        >>> spelled({"kind": "cone", "eps": math.inf})
        {'kind': 'cone', 'eps': 'inf'}
    """
    if isinstance(experts, str):
        return experts
    return {name: "inf" if isinstance(value, float) and value == math.inf else value for name, value in experts.items()}


def make_kind(experts: str | Mapping[str, Any]) -> ExpertKind:
    """Make a kind of experts of what a study says of it.

    Args:
        experts: The name of a kind, `module:Class` of one's own, or a mapping with the name as `kind` beside its
            settings.

    Raises:
        ConfigError: If there is no such kind, or a setting breaks its rule.
    """
    kind: ExpertKind = make_named("experts", experts, KINDS, ("stages", "prior"), "{kind: mixed_reward, beta: 0.7}")
    return kind
