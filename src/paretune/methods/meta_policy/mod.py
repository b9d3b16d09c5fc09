"""MOD: one expert per objective, whose next-token log-probabilities are mixed with the preference as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from paretune.core.answers import Combined
from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, Divergence, Mixer, check_particles, method
from paretune.core.settings import check_read
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task
from paretune.methods.experts import LATER, adapters_of
from paretune.methods.feedback import FeedbackSettings
from paretune.methods.meta_policy.lower_level import CombiningSettings
from paretune.methods.meta_policy.upper_level.stretch import StretchSettings, stretched

Correction = Literal["none", "importance"]
ROUNDING = 1e-9  # of expert weights, where a kind finds them by an inverse
PARTICLES = 8  # with exact experts 95 % or more of what is lost token by token comes back, see docs/papers.md


@dataclass(frozen=True)
class MODSettings(CombiningSettings, StretchSettings, FeedbackSettings):
    """Settings of `MOD`, beside those of its experts, which are the same whatever all but `experts` say."""

    # what the experts are taken to have been kept near the base model by. They are trained under the reverse KL: with
    # another one it is a control, for weights of the simplex and their multiples below 1
    divergence: Divergence = field(default="reverse_kl", metadata=LATER)
    # towards the product over whole completions: "importance" samples several and draws one by its weight
    correction: Correction = field(default="none", metadata=LATER)
    particles: int | None = field(default=None, metadata=LATER)  # completions sampled for each one; None: 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("divergence", self.divergence, get_args(Divergence))
        check_choice("correction", self.correction, get_args(Correction))
        check_read(self, "correction", {"particles": ("importance",)})
        if self.correction != "none" and self.divergence != "reverse_kl":
            raise ConfigError(
                f"correction must be none but under the reverse KL, got '{self.correction}' with divergence "
                f"'{self.divergence}'. For no other is the optimum a product over whole completions."
            )
        if self.particles is not None:
            check_particles(self.particles, 2)

    @property
    def drawn_from(self) -> int:
        """Completions that are sampled for each one that is returned."""
        return 1 if self.correction == "none" else self.particles or PARTICLES


@method("mod", "meta-policy")
class MOD:
    """Train one expert per objective and multiply what they say: `log p = sum_k w_k log p_k - log Z` at every token.

    Experts are those of rewarded soups. Where they are exact and a completion has one token, this is the best policy
    for `w`; of longer completions it neglects what is to come. A token costs a pass for each expert with weight.

    The best policy for `w` is the product over whole completions. `correction: importance` samples `particles` of them
    for each one that is returned and draws one in proportion to `prod_t Z_t`, at as many times the cost of decoding.

    Source:
        Shi et al. 2024, Decoding-time language model alignment with multiple objectives (MOD).

    Departures:
        Completions are sampled from the mixture; published is greedy and beam search on sums that are not normalised.
        The forward KL has its normaliser, Jensen-Shannon its own formula: see docs/papers.md. Experts are trained under
        the reverse KL, so either is a control, and weights below 0 or of a sum above 1 are refused: they undo what
        experts lack, or what they were told of other objectives, under the reverse KL alone.
    """

    settings: MODSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the experts, by default one per objective; `preferences` play no part in training.

        Raises:
            ConfigError: If these experts cannot be weighed so under the divergence.
        """
        self._prior(len(task.objectives))
        return self.settings.expert_kind.stages(self.settings, task, budget, seed)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the experts' log-probabilities, weighed by the prior of their kind: by default the preference."""
        settings = self.settings
        mixer = Mixer("log_probs", divergence=settings.divergence, particles=settings.drawn_from)
        return Assembly(adapters_of(results.values()), Combined(self._prior(len(task.objectives))), mixer)

    def _prior(self, objectives: int) -> FloatArray:
        """Return the expert weights at each corner, `[K, E]`; all others lie between."""
        settings = self.settings
        prior = stretched(settings.expert_kind.prior(objectives), settings)
        beyond = (prior < -ROUNDING).any(axis=1) | (prior.sum(axis=1) > 1 + ROUNDING)
        if settings.divergence != "reverse_kl" and beyond.any():
            raise ConfigError(
                f"expert weights must not be negative or sum to more than 1 under divergence '{settings.divergence}', "
                f"got {prior[beyond.argmax()].round(3).tolist()}. Experts are trained under the reverse KL, and such "
                "weights undo what they lack only under it. Leave out divergence, or stretch and mixed rewards."
            )
        return prior
