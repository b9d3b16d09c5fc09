"""Controlled tasks: tiny models over letters with random rewards, small enough that the best policy is known exactly.

Three settings: `rho`, the correlation of the objectives, `heterogeneity`, how much the rewards depend on the prompt,
and `context`, how much what a user wants depends on it. A seed names an instance. Instances are drawn on first use and
kept in a cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from paretune.core.digests import model_digest
from paretune.core.errors import TaskError
from paretune.core.preferences import FloatArray, onto_simplex
from paretune.core.task import SPLITS, Enumeration, Objective, Row, Split, Task
from paretune.tasks.controlled.settings import LETTERS, NAMES, PROMPTS_EACH, ControlledSettings

PASS = 0.6  # of a reward in [0, 1] whose mean under the base is about .5


@dataclass(frozen=True)
class ControlledTask(Task):
    """A task whose every completion can be listed. Make one with `load`.

    Attributes:
        settings: What names it.
    """

    settings: ControlledSettings = field(default_factory=ControlledSettings)

    def instance(self, seed: int) -> Task:
        """Return the instance that a seed names: another base model, other prompts and rewards, the same settings."""
        if seed == self.settings.seed:
            return self
        made = _make(replace(self.settings, seed=seed))
        object.__setattr__(made, "source", self.source)  # frozen; its source is that of the family
        return made.with_one_more() if len(self.objectives) > self.settings.objectives else made

    def with_one_more(self) -> Task:
        """Return this instance with one objective more, drawn by itself: only chance correlates it with the others.

        Model, prompts, beta and the rewards that there were stay. An instance of one objective more would not do: all
        its rewards are drawn anew.

        Raises:
            TaskError: If it has as many as there are names.
        """
        if len(self.objectives) > self.settings.objectives or self.settings.objectives == len(NAMES):
            raise TaskError(
                f"task '{self.name}' must have fewer than {len(NAMES)} objectives, and none that was added, to get one "
                f"more, got {', '.join(self.objective_names)}. Start from one of fewer."
            )
        name = NAMES[len(self.objectives)]
        new = Objective(name, "paretune.tasks.controlled.rewards:added", pass_threshold=PASS)
        return replace(self, objectives=(*self.objectives, new), reference_point=(*self.reference_point, 0.0))

    def prompt_preferences(self, rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
        """Return what the users of preferences `[M, K]` want of each prompt, `[M, P, K]`.

        `w(x)` is the point of the simplex nearest to `w + context * f(x) * (1, -1, 0, ...)`, f the prompt's feature:
        of two objectives, the first gets as much more weight as the second gets less, within 0 and 1.
        """
        if not self.settings.context:
            return super().prompt_preferences(rows, preferences)
        feature = self.split_feature(rows)
        away = np.zeros(preferences.shape[1])
        away[:2] = self.settings.context, -self.settings.context
        moved = preferences[:, None] + feature[:, None] * away
        return onto_simplex(moved.reshape(-1, moved.shape[2])).reshape(moved.shape)

    def context_key(self) -> object:
        """Return what `prompt_preferences` depends on beside the instance; None without context."""
        return {"context": float(self.settings.context)} if self.settings.context else None

    def split_feature(self, rows: Sequence[Row], column: str = "") -> NDArray[np.float64]:
        """Return the feature of each prompt that its rewards depend on, `[N]`, or a column where one is named.

        Over the training prompts its mean is 0 and its variance 1.
        """
        if column:
            return super().split_feature(rows, column)
        from paretune.tasks.controlled.fields import features
        from paretune.tasks.controlled.store import load_instance

        letters = np.asarray([[LETTERS.index(each) for each in str(row["prompt"]).split()] for row in rows])
        return np.asarray(features(load_instance(self.settings).fields.codes, letters)[:, 0])


def load(
    rho: float = ControlledSettings.rho,
    heterogeneity: float = ControlledSettings.heterogeneity,
    objectives: int = ControlledSettings.objectives,
    alphabet: int = ControlledSettings.alphabet,
    length: int = ControlledSettings.length,
    context: float = ControlledSettings.context,
) -> ControlledTask:
    """Return instance 0 of a controlled task; `instance(seed)` returns the others.

    Args:
        rho: Spearman's correlation of any two objectives under the base model, within prompts, -1/(K-1) to 1.
        heterogeneity: Share of the rewards' variance that depends on features of the prompt, 0 to 1.
        objectives: Number of objectives K, 2 to 5.
        alphabet: Number of letters.
        length: Letters of a completion.
        context: How much what a user wants depends on the feature of the prompt, 0 to 1.

    Raises:
        TaskError: If a setting is out of its range, or there would be too many completions to list.
    """
    return _make(ControlledSettings(rho, heterogeneity, objectives, alphabet, length, context=context))


def named(name: str) -> ControlledTask | None:
    """Return the controlled task of the name that studies and reports print, or None where it is no such name.

    Raises:
        TaskError: If a setting is out of its range.
    """
    settings = ControlledSettings.from_name(name)
    return None if settings is None else _make(settings)


def _make(settings: ControlledSettings) -> ControlledTask:
    from paretune.tasks.controlled.store import load_instance

    stored = load_instance(settings)
    rows: dict[Split, tuple[Row, ...]] = {}
    for number, split in enumerate(SPLITS):
        chosen = stored.prompts[number * PROMPTS_EACH : (number + 1) * PROMPTS_EACH]
        rows[split] = tuple(
            {
                "prompt": " ".join(LETTERS[letter] for letter in letters),
                "prompt_id": f"{split}-{index:02d}",
                "instance": settings.text(),
            }
            for index, letters in enumerate(chosen.tolist())
        )
    return ControlledTask(
        name=settings.name,
        source={"controlled": settings.family},
        model=str(stored.folder / "model"),
        model_digest=model_digest(str(stored.folder / "model")),
        template="{prompt} " + LETTERS[0],  # the same last letter: every prompt is left from the same place
        splits=rows,
        objectives=tuple(
            Objective(name, f"paretune.tasks.controlled.rewards:{name}", pass_threshold=PASS)
            for name in NAMES[: settings.objectives]
        ),
        reference_point=(0.0,) * settings.objectives,
        beta=stored.beta,
        judged_on="J",  # its optimum and front are known in J
        max_prompt_tokens=settings.prompt_length + 1,
        max_completion_tokens=settings.length,
        enumeration=Enumeration(tuple(range(settings.alphabet)), settings.length),
        family_settings={name: float(value) for name, value in settings.family.items()},
        learner={"learning_rate": 5e-3},  # best of three at four epochs, docs/results/learner.md
        settings=settings,
    )
