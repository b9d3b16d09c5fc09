"""A mixture of experts, part by part: experts first or none, a prior, a gate, joint training, a polish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray, das_dennis
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.seeds import stream_key
from paretune.core.settings import check_unread
from paretune.core.stages import GATE, Stage, StageResult
from paretune.core.task import Task
from paretune.methods.banks import STARTS, DrawnBankSettings, GatedSettings, bank_stage, gate_path
from paretune.methods.experts import LATER, adapters_of, left_by, split_budget
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.lower_level import ExpertKind, check_started_here, make_kind, spelled
from paretune.methods.meta_policy.lower_level.trained_for import least_norm_prior
from paretune.methods.priors import RULE, Prior, Rule, make_prior, prior_from
from paretune.rl.settings import TRAINS

NONE, BY_PLACE = "none", "by_place"
MOST_DIVISIONS = 100  # of a grid of experts that is looked for by its size


@dataclass(frozen=True)
class MixtureOfExpertsSettings(DrawnBankSettings, GatedSettings):
    """Settings of `MixtureOfExperts`, beside those of its bank. All shares are of the budget."""

    gate: str = "block"  # or token, prompt, none, module:Class; docs/your_method.md shows one of your own
    width: int = 32  # hidden units of each of the gate's networks
    gate_learning_rate: float = 0.0  # 0: as the experts'
    # lower level: a kind of experts that are trained first, or a mapping with its settings; none: all at once
    experts: str | dict[str, Any] = field(default=NONE, metadata=LATER)
    experts_share: float = field(default=0.25, metadata=LATER)  # of a lower level; 1: nothing is trained behind it
    size: int = field(default=0, metadata=LATER)  # experts where there is no lower level; 0: one for each objective
    # of experts: independent, each a random A of its own, `own` in methods that average; shared; by_place: shared in a
    # lower level, as in soups
    start: str = field(default=BY_PLACE, metadata=LATER)
    prior: str | dict[str, Any] = field(
        default=RULE, metadata=LATER
    )  # or search, module:Class, a mapping with settings
    prior_share: float = field(default=0.1, metadata=LATER)  # at most, of a prior that is searched; untuned
    trains: str = field(default="both", metadata=LATER)  # behind a lower level: both, the gate, or the experts, alone
    polish_share: float = field(default=0.0, metadata=LATER)  # last, for the experts alone under the trained gate

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("trains", self.trains, TRAINS)
        check_choice("start", self.start, (*STARTS, BY_PLACE))
        prior = self.prior_kind  # so that what cannot be made is refused at once
        lower = self.expert_kind is not None
        object.__setattr__(self, "experts", spelled(self.experts))
        if self.size < 0 or (self.size and lower):
            raise ConfigError(
                f"size must be 0 behind a lower level, whose kind says how many experts there are, and not negative, "
                f"got {self.size}. Leave it out."
            )
        if not 0 < self.experts_share <= 1:
            raise ConfigError(f"experts_share must be above 0 and at most 1, got {self.experts_share}. Try 0.25.")
        if not lower:
            check_unread(self, ("experts_share",), "without a lower level", "Name its experts, or remove it.")
        if isinstance(prior, Rule):
            check_unread(self, ("prior_share",), "where the prior is a rule, which costs nothing")
        if self.experts_alone:
            check_unread(self, ("draw",), "where nothing is trained behind the experts")
        for name in ("prior_share", "polish_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}. Try 0.1.")
        taken = (self.experts_share if lower else 0) + self.polish_share
        taken += 0 if isinstance(prior, Rule) else self.prior_share
        if taken >= 1 and not self.experts_alone:
            raise ConfigError(
                f"experts_share, prior_share and polish_share must leave something to train with, got {taken:g} "
                "together. Lower them; for experts that nothing is trained behind write experts_share: 1."
            )
        self._check_parts(lower, bool(gate_path(self.gate)))

    def _check_parts(self, lower: bool, gate: bool) -> None:
        """Refuse parts that would train nothing, or stay untrained."""
        if self.trains == "gate" and not (lower and gate):
            raise ConfigError(
                "trains must be 'both' without experts of a lower level and a gate, got 'gate'. Name both, for example "
                "experts: single_objective and gate: block."
            )
        if self.trains == "experts" and gate:
            raise ConfigError(
                f"trains must not be 'experts' with a gate that nothing would train, got gate '{self.gate}'. Write "
                "gate: none, or polish_share for experts that learn on under a trained gate."
            )
        if self.polish_share and not gate:
            raise ConfigError(
                f"polish_share must be 0 without a gate to train on under, got {self.polish_share}. Name a gate, or "
                "leave it out."
            )
        if self.experts_alone and (gate or self.polish_share or self.trains == "gate"):
            raise ConfigError(
                f"experts_share must be below 1 with a gate, which has to be trained, got 1 and gate '{self.gate}'. "
                "Write gate: none, or a lower share."
            )

    @property
    def expert_kind(self) -> ExpertKind | None:
        """Which experts come first; None for no lower level."""
        return None if self.experts == NONE else make_kind(self.experts)

    @property
    def experts_alone(self) -> bool:
        """Whether nothing is trained behind a lower level."""
        return self.experts != NONE and self.experts_share == 1

    @property
    def prior_kind(self) -> Prior:
        """How a preference alone weighs the experts."""
        return make_prior(self.prior)

    def rule(self, objectives: int) -> FloatArray:
        """Return the expert weights at each corner by the rule of the experts, `[K, E]`.

        Raises:
            ConfigError: If there is no regular grid of so many experts.
        """
        kind = self.expert_kind
        if kind is not None:
            return kind.prior(objectives)
        if self.size in (0, objectives):
            return np.eye(objectives)
        sizes = [math.comb(each + objectives - 1, each) for each in range(1, MOST_DIVISIONS + 1)]  # points of a grid
        if self.size not in sizes:
            raise ConfigError(
                f"size must be that of a regular grid over {objectives} objectives, {', '.join(map(str, sizes[:5]))} "
                f"and so on, got {self.size}. Choose one of these."
            )
        return least_norm_prior(das_dennis(objectives, sizes.index(self.size) + 1))


@method("mixture_of_experts", "meta-policy")
class MixtureOfExperts:
    """Train experts and a gate as one policy, on prompts that each have a preference of their own.

    In every transformer block and for every token the gate turns the preference w and the block's own input into the
    experts' weights, `g = prior(w) + MLP([layernorm(input), w])`. The gate begins as the prior and may leave the
    simplex. One stream of hidden states serves all experts, so a token costs what it costs one policy, and the gate.

    By default there is one expert for each objective, the prior is w itself, and all is trained at once, from scratch.
    Every part is a setting: experts that are trained first (`experts`), a prior that a search on them found (`prior`),
    which gate if any (`gate`), what learns then (`trains`), and a last part for the experts alone (`polish_share`).

    Source:
        Kong et al. 2025 (Visionary Perspective), meta-policies as mixtures of experts; this form is ours.
    """

    settings: MixtureOfExpertsSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages of all parts, by default one; `preferences` play no part in training.

        A longer budget extends a shorter one where all is trained at once. Behind a first part, which is then longer
        too, what comes next is trained anew: a plan of several budgets counts it for each.

        Raises:
            BudgetError: If a part would get less than one group, or a search no completion for each candidate.
            ConfigError: If there is no grid of so many experts, the prior cannot be found for what is trained, or the
                model has no such block as the gate is to read.
        """
        own, rule, group = self.settings, self.settings.rule(len(task.objectives)), self.settings.group_size
        gate, searched = own.gate_for(task), int(own.prior_share * budget)
        experts = self._experts(task, max(len(rule.T) * group, int(own.experts_share * budget)), seed)
        found = own.prior_kind.stages(own, task, experts, rule, searched, seed)
        left = budget - sum(each.completions for each in found)
        if own.experts_alone:
            with left_by("prior_share", left, budget):
                experts = self._experts(task, left, seed)
            return (*experts, *own.prior_kind.stages(own, task, experts, rule, searched, seed))
        left -= sum(each.completions for each in experts)
        polish = max(group, int(own.polish_share * budget)) // group * group if own.polish_share else 0
        with left_by("experts_share, prior_share or polish_share", left - polish, budget):
            (length,) = split_budget(left - polish, 1, group)
        prior = None if np.array_equal(rule, np.eye(len(task.objectives))) else rule
        other = prior_from(own.prior_kind, found)
        trains = own.trains if gate else "both"  # the same where there is no gate to stay as it is
        start = own.start if own.start in STARTS and not experts else "independent"
        main = bank_stage(own, length, seed, gate, experts, prior, trains, start, other)
        if not polish:
            return (*experts, *found, main)
        begun = (*experts, main) if trains == "gate" else (main,)
        again = stream_key(seed, "polish") % 2**31  # prompts and noise of its own
        return (*experts, *found, main, bank_stage(own, polish, again, gate, begun, prior, "experts", prior_from=other))

    def _experts(self, task: Task, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages of the lower level: those of any method whose experts are as these."""
        own, kind = self.settings, self.settings.expert_kind
        if kind is None:
            return ()
        given = {each.name: getattr(own, each.name) for each in fields(FeedbackSettings)}
        stages = kind.stages(FeedbackSettings(**given), task, budget, seed)
        if own.start != "independent":
            return stages
        check_started_here(stages, own.start)
        starts = [stream_key(seed, "expert", place) for place in range(len(stages))]
        return tuple(
            replace(each, member={**each.member, "start": start}) for each, start in zip(stages, starts, strict=True)
        )

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts under prior and gate, if there is one."""
        own, finished = self.settings, list(results.values())
        last, gate = finished[-1], gate_path(own.gate)
        frozen = own.experts_alone or (own.trains == "gate" and not own.polish_share)
        trained = [each for each in finished if each.adapters] if frozen else [last]
        answer = own.prior_kind.answer(task, own.rule(len(task.objectives)), finished)
        return Assembly(adapters_of(trained), answer, Mixer(gate=last.artefacts[GATE]) if gate else Mixer())
