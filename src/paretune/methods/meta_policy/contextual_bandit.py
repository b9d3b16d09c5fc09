"""Experts first, then a contextual bandit that learns which weights pay for which prompt and preference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from paretune.bandits.policies import EXPLORATION
from paretune.core.answers import Combined
from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Mixer, method
from paretune.core.settings import check_read, check_unread
from paretune.core.stages import GATE, Stage, StageResult
from paretune.core.task import JudgedOn, Task
from paretune.methods.experts import PLANNING, adapters_of, left_by
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.lower_level import CombiningSettings
from paretune.methods.meta_policy.upper_level.bandit import BanditSettings, bandit_stage, in_whole_rounds, rule_of


@dataclass(frozen=True)
class ContextualBanditSettings(CombiningSettings, FeedbackSettings):
    """Settings of `ContextualBandit`, beside those of its experts, which are the same whatever these say."""

    bandit_share: float = field(default=0.25, metadata=PLANNING)  # of the budget, for pulls; untuned
    algorithm: str = field(default="thompson", metadata=PLANNING)  # greedy, epsilon_greedy, linucb, thompson, squarecb
    exploration: float | None = field(default=None, metadata=PLANNING)  # None: as bandits/policies.py says
    floor: float = field(default=0.05, metadata=PLANNING)  # share of pulls of an arm at random, for off-policy values
    divisions: int = field(default=1, metadata=PLANNING)  # of the lattice that arms step towards; 1: the experts
    step: float = field(default=0.5, metadata=PLANNING)  # how far; 1: to the point itself; untuned
    stretch: float = field(default=1.5, metadata=PLANNING)  # what half of the arms are multiplied by; 1: none; untuned
    features: int = field(default=8, metadata=PLANNING)  # principal components of prompt states, at most 32; untuned
    products: int = field(default=4, metadata=PLANNING)  # of which so many are multiplied with the preference; untuned
    ridge: float = field(default=10.0, metadata=PLANNING)  # noise variance over that of what an arm adds; untuned
    caution: float = field(default=1.0, metadata=PLANNING)  # standard deviations that an arm must be above the rule by
    pulls_each_round: int = field(default=64, metadata=PLANNING)  # as many as the learner's update
    context: str = field(default="own", metadata=PLANNING)  # or, as controls, blind and shuffled

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.bandit_share < 1:
            raise ConfigError(
                f"bandit_share must be between 0 and 1, got {self.bandit_share}. For no bandit, take rewarded_soups."
            )
        self.bandit(rule=[[1.0]])
        check_read(self, "algorithm", {"exploration": [each for each in EXPLORATION if each != "greedy"]})
        if self.context == "blind":
            check_unread(self, ("features", "products"), "where context is 'blind', which says nothing of prompts")

    def bandit(self, rule: list[list[float]], judged_on: JudgedOn = "J") -> BanditSettings:
        """Return the settings of the stage around a rule `[K, E]`, for a task that is judged on J or utility."""
        own = {each.name for each in fields(BanditSettings)} - {"prior", "feedback", "judged_on"}
        named = {name: getattr(self, name) for name in own}
        return BanditSettings(prior=rule, feedback=self.feedback, judged_on=judged_on, **named)


@method("contextual_bandit", "meta-policy")
class ContextualBandit:
    """Train experts, then pull: one completion of a training prompt for a drawn preference under one arm.

    An arm is a set of expert weights relative to the rule that would weigh the experts without a bandit, and the rule
    is one of them. A ridge regression for each arm and objective, and for the KL, learns from prompt and preference
    what a completion gets; an arm is then worth `w . r - beta KL` to any preference, so that one log serves all. Each
    request is answered with the arm that is predicted to be worth most, by what the task is judged on: where that is
    the utility, `w . r`.

    Source:
        Kong et al. 2025 (Visionary Perspective), the meta-policy's upper level; Li, Chu, Langford and Schapire 2010
        (LinUCB).

    Departures:
        See docs/papers.md.
    """

    settings: ContextualBanditSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts and the bandit; `preferences` play no part in training.

        Raises:
            BudgetError: If there is no pull for the bandit, or an expert would get less than one group.
        """
        own, objectives = self.settings, len(task.objectives)
        pulls = in_whole_rounds(int(budget * own.bandit_share), own.pulls_each_round)
        if pulls < 1:
            raise BudgetError(f"budget must leave a completion for the bandit, got {budget}. Raise it.")
        with left_by("bandit_share", budget - pulls, budget):
            experts = own.expert_kind.stages(own, task, budget - pulls, seed)
        settings = own.bandit(rule_of(own.expert_kind.prior(objectives)), task.judged_on)
        return (*experts, bandit_stage(settings, experts, pulls, seed))

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts under the gate; the notes say what it earns by its own log."""
        bandit = next(result for result in results.values() if result.stage.kind == "bandit")
        experts = adapters_of(result for result in results.values() if result is not bandit)
        answer = Combined(self.settings.expert_kind.prior(len(task.objectives)))
        return Assembly(experts, answer, Mixer(gate=bandit.artefacts[GATE]), notes={"bandit": dict(bandit.values)})
