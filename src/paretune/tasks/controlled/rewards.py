"""Reward functions of controlled tasks, with TRL's signature; the column `instance` says which fields to look up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from paretune.core.errors import RewardError
from paretune.tasks.controlled.settings import LETTERS, NAMES, ControlledSettings
from paretune.tasks.controlled.store import load_instance


def _reward(objective: int) -> Callable[..., list[float]]:
    """Return the reward function of one objective, by its index."""

    def reward(
        prompts: Sequence[str], completions: Sequence[str], instance: Sequence[str], **columns: object
    ) -> list[float]:
        rewards = []
        for prompt, completion, name in zip(prompts, completions, instance, strict=True):
            table = _table(name, prompt)
            if objective >= len(table[0]):
                raise RewardError(
                    f"reward function must be one of the task's: {', '.join(NAMES[: len(table[0])])}, got "
                    f"'{NAMES[objective]}'. Name one of them, or make the task with more objectives."
                )
            rewards.append(table[_place(name, completion)][objective])
        return rewards

    return reward


first, second, third, fourth, fifth = (_reward(objective) for objective in range(len(NAMES)))


def added(
    prompts: Sequence[str], completions: Sequence[str], instance: Sequence[str], **columns: object
) -> list[float]:
    """Score the objective that `ControlledTask.with_one_more` adds: the last of an instance of one more, at rho 0.

    That instance has the same model and prompts, and rewards that are drawn apart from those of the other.
    """
    drawn = [_with_one_more(name) for name in instance]
    last = ControlledSettings.from_text(drawn[0]).objectives - 1 if drawn else 0
    return _reward(last)(prompts, completions, drawn)


@lru_cache(maxsize=256)
def _with_one_more(name: str) -> str:
    settings = ControlledSettings.from_text(name)
    return replace(settings, rho=0.0, objectives=settings.objectives + 1).text()


@lru_cache(maxsize=256)  # prompts of a few instances, a few hundred kilobytes each at most
def _table(instance: str, prompt: str) -> list[list[float]]:
    """Return the rewards of all completions of a prompt, `[Y, K]`; plain lists are the fastest to look one up."""
    letters = [LETTERS.index(letter) for letter in prompt.split()]
    fields = load_instance(ControlledSettings.from_text(instance)).fields
    table: list[list[float]] = fields.rewards(np.asarray([letters], dtype=np.int64))[0].tolist()
    return table


@lru_cache(maxsize=65_536)  # twice the limit of completions
def _place(instance: str, completion: str) -> int:
    """Return the row of a completion in the table."""
    settings = ControlledSettings.from_text(instance)
    letters = completion.split()
    alphabet = LETTERS[: settings.alphabet]
    if len(letters) != settings.length or any(letter not in alphabet for letter in letters):
        raise RewardError(
            f"completion of a controlled task must be {settings.length} of the letters {alphabet}, got '{completion}'. "
            "Sample it with the task's own model and length."
        )
    place = 0
    for letter in letters:
        place = place * settings.alphabet + alphabet.index(letter)
    return place
