"""Settings that methods share whose set of policies grows round by round."""

from __future__ import annotations

from dataclasses import dataclass

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.methods.estimators_asked import library_word
from paretune.methods.multi_policy.selection import SelectSettings
from paretune.pareto.survival import RULES


@dataclass(frozen=True)
class SetSettings(SelectSettings):
    """How members are compared, beside how they are selected and the settings of their experts."""

    survival: str = "hypervolume"  # or crowding: what orders members that none dominates
    doubt: float = 1.0  # standard errors that count as noise when members are compared; 0 believes every mean

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_kl or library_word(self.advantages) == "self_critical":
            raise ConfigError(
                "target_kl must be 0 and advantages other than self_critical where a set grows round by round, got "
                f"{self.target_kl} and '{self.advantages}': a few groups leave no time to steer beta, and no "
                "completions to spare. Leave them out."
            )
        check_choice("survival", self.survival, RULES)
        if not self.doubt >= 0:
            raise ConfigError(f"doubt must not be negative, got {self.doubt}. Write 0 to believe every mean.")


@dataclass(frozen=True)
class GenerationSettings(SetSettings):
    """Settings of a set that grows by generations, which train and measure all that live. Untuned; docs/papers.md."""

    population: int = 5  # offspring of a generation, for: corners, centre, points between (two for two objectives)
    archive: int = 8  # most individuals that live on
    steps: int = 256  # completions that each offspring is trained with: four updates
    measured_each: int = 16  # development completions of each individual in each generation

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population < 2 or self.archive < 2:
            raise ConfigError(
                f"population and archive must be at least 2, got {self.population} and {self.archive}. Try 5 and 8."
            )
        if self.steps < 1 or self.steps % self.completions_per_update:
            raise ConfigError(
                f"steps must be a positive multiple of completions_per_update ({self.completions_per_update}), so that "
                f"offspring learn on where their parents stopped, got {self.steps}. Try "
                f"{2 * self.completions_per_update}."
            )
        if self.measured_each < 1 or self.measured_each % self.group_size:
            raise ConfigError(
                f"measured_each must be a positive multiple of group_size ({self.group_size}), so that budgets come "
                f"out even, got {self.measured_each}. Try {4 * self.group_size}."
            )


def cost(settings: GenerationSettings, generation: int) -> int:
    """Return the completions of a generation: offspring are trained, and measured like those that live already."""
    living = min(settings.archive, settings.population * generation)
    return settings.population * (settings.steps + settings.measured_each) + living * settings.measured_each


def whole_generations(settings: GenerationSettings, length: int) -> int:
    """Return how many generations a length has room for, with a last measurement of all that live then."""
    count, spent = 0, cost(settings, 0)
    while spent + min(settings.archive, settings.population * (count + 1)) * settings.measured_each <= length:
        count += 1
        spent += cost(settings, count)
    return count
