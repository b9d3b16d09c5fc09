"""The setting `feedback` of methods that can learn or answer from more than the preference a user tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.feedback import FEEDBACKS
from paretune.core.settings import OPTIONAL
from paretune.methods.experts import ExpertSettings
from paretune.rl.settings import ADVANTAGES, SCALAR

VECTORS = ("weighting", "shaping")  # settings that name code which reads rewards objective by objective


@dataclass(frozen=True)
class FeedbackSettings(ExpertSettings):
    """Settings of a method that has a class of feedback, beside those of its experts."""

    feedbacks: ClassVar[tuple[str, ...]] = FEEDBACKS  # that the method can be run with
    limit: ClassVar[str] = "reads the reward of each objective"  # what rules out the others, where not all are there

    # told: the preference; utility: one number a completion; oracle: what is wanted of each prompt; docs/studies.md
    feedback: str = field(default="told", metadata=OPTIONAL)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("feedback", self.feedback, FEEDBACKS)
        if self.feedback not in self.feedbacks:
            raise ConfigError(
                f"feedback must be one of {', '.join(self.feedbacks)} for a method that {self.limit}, got "
                f"'{self.feedback}'. Choose one of these, or another method."
            )
        if self.feedback != "utility":
            return
        if self.advantages not in (*SCALAR, *(ADVANTAGES[each] for each in SCALAR)):
            raise ConfigError(
                f"advantages must be one of {', '.join(SCALAR)} where feedback is utility, got '{self.advantages}', "
                "which may read the reward of each objective: one number a completion is all there is. Choose another."
            )
        for name in VECTORS:
            if getattr(self, name, ""):
                raise ConfigError(
                    f"{name} must be left out where feedback is utility, got '{getattr(self, name)}', which reads the "
                    "reward of each objective: one number a completion is all there is. Remove one of the two."
                )


def check_has_feedback(kind: type, given: Mapping[str, object], path: str) -> None:
    """Refuse a class of feedback where a method has none, in words that say why.

    Args:
        kind: Dataclass of the method's settings.
        given: What a study gives of them.
        path: Opens the message.

    Raises:
        ConfigError: If one is given that the method does not have.
    """
    own = next((each.default for each in fields(kind) if each.name == "feedback"), None)
    if own not in FEEDBACKS and given.get("feedback") in FEEDBACKS:
        raise ConfigError(
            f"{path}.feedback must be left out: the method reads the reward of each objective, for the preference that "
            f"it is told, got '{given['feedback']}'. Take linear, weight_grid (told and oracle), rewarded_soups, mod, "
            "hidden_mixing, preference_conditioned, panacea, preference_in_prompt (told and utility), "
            "contextual_bandit or mixture_of_experts."
        )
