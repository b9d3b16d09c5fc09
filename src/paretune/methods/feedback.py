"""The setting `feedback` of methods that can learn or answer from more than the preference a user tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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

    # told: the preference; utility: one number a completion; oracle: what is wanted of each prompt; docs/learning.md
    feedback: str = field(default="told", metadata=OPTIONAL)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("feedback", self.feedback, FEEDBACKS)
        if self.feedback not in self.feedbacks:
            raise ConfigError(
                f"feedback must be one of {', '.join(self.feedbacks)} for a method that {self.limit}, got "
                f"'{self.feedback}'. Choose one of these, or another method."
            )
        check_one_number({name: getattr(self, name, "") for name in ("feedback", "advantages", *VECTORS)})


def check_one_number(settings: Mapping[str, object], where: str = "") -> None:
    """Refuse settings that read more than one number a completion where feedback is utility.

    Args:
        settings: Of a method, or of a stage that it plans: the code that they name is looked at.
        where: Opens the message: whose settings they are.

    Raises:
        ConfigError: If they do.
    """
    if settings.get("feedback") != "utility":
        return
    advantages = settings.get("advantages")
    if advantages and advantages not in (*SCALAR, *(ADVANTAGES[each] for each in SCALAR)):
        raise ConfigError(
            f"{where}advantages must be one of {', '.join(SCALAR)} where feedback is utility, got '{advantages}', "
            "which may read the reward of each objective: one number a completion is all there is. Choose another."
        )
    for name in VECTORS:
        if settings.get(name):
            raise ConfigError(
                f"{where}{name} must be left out where feedback is utility, got '{settings[name]}', which reads the "
                "reward of each objective: one number a completion is all there is. Remove one of the two; a kind of "
                "experts, such as mgda or cone, names such code too."
            )
