"""What the estimator of advantages that a setting names asks for."""

from __future__ import annotations

from paretune.core.errors import ConfigError
from paretune.core.imports import import_name
from paretune.rl.settings import ADVANTAGES, WEIGHED

# what an estimator may ask for that not every training can give, and which words do
ASKING = {"objective_weights": WEIGHED, "greedy_rewards": ("self_critical",)}


def asked_for(advantages: str) -> frozenset[str]:
    """Return which of `ASKING` the estimator that a setting names asks for, whatever name the setting gives it.

    The library's own are known by word and by path, without importing torch.

    Raises:
        ConfigError: If it cannot be imported.
        MethodError: If it takes other arguments than an estimator is called with.
    """
    word = library_word(advantages)
    if word in ADVANTAGES:
        return frozenset(each for each, words in ASKING.items() if word in words)
    from paretune.rl.estimators import estimator_of

    return estimator_of(import_name("advantages", advantages), advantages).asks & ASKING.keys()


def check_without_greedy(advantages: str, where: str) -> None:
    """Refuse an estimator that asks for greedy completions where lengths are planned without them.

    Args:
        advantages: What a setting names.
        where: Where that is, for the message.

    Raises:
        ConfigError: If it asks for them, or cannot be imported.
    """
    if "greedy_rewards" in asked_for(advantages):
        raise ConfigError(
            f"advantages must be made without greedy completions {where}, got '{advantages}', which has a parameter "
            "greedy_rewards. Leave it out."
        )


def library_word(advantages: str) -> str:
    """Return the word of an estimator of the library that is named by its path, any other name as it is.

    Example:
        >>> library_word("paretune.rl.advantages:grpo"), library_word("mine:best_of_group")
        ('grpo', 'mine:best_of_group')
    """
    return next((word for word, path in ADVANTAGES.items() if path == advantages), advantages)
