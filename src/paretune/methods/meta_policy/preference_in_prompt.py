"""One policy that is told the preference in words: it is written in front of every prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from paretune.core.answers import Combined
from paretune.core.errors import ConfigError, ModelError
from paretune.core.preference_text import DECIMALS, PreferenceText
from paretune.core.preferences import FloatArray
from paretune.core.protocols import Assembly, method
from paretune.core.stages import Stage, StageContext, StageResult
from paretune.core.task import Task
from paretune.methods.banks import BankSettings
from paretune.methods.experts import PLANNING, ExpertSettings, adapters_of, expert_settings, settings_of, split_budget
from paretune.tasks.checks import model_context, plain_encoder


@dataclass(frozen=True)
class PreferenceInPromptSettings(BankSettings):
    """Settings of `PreferenceInPrompt`: how the preference is written, and those of its one expert."""

    feedbacks: ClassVar[tuple[str, ...]] = ("told", "utility")
    limit: ClassVar[str] = "writes preferences in tenths"  # what is wanted of a prompt, for `oracle`, is of any number

    text: str = field(default="[{preference}] ", metadata=PLANNING)  # in front of the prompt
    pair: str = field(default="{name} {number}", metadata=PLANNING)  # of each objective
    between: str = field(default=", ", metadata=PLANNING)  # pairs
    numerals: list[str] = field(default_factory=lambda: list(DECIMALS), metadata=PLANNING)  # words for 0, 0.1, ..., 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.written(("any",))

    def written(self, objectives: tuple[str, ...]) -> PreferenceText:
        """Return how preferences for some objectives are written."""
        return PreferenceText(objectives, self.text, self.pair, self.between, tuple(self.numerals))


@method("preference_in_prompt", "meta-policy")
class PreferenceInPrompt:
    """Train one expert on prompts that begin with a preference, each with one of its own: `[reflection 0.7, ...] `.

    Preferences are drawn uniformly from the simplex and rounded to tenths; the rounded ones weigh the objectives too.
    The KL is to the base model on the prompt without that text, which is what every other method is held to.

    Source:
        Guo et al. 2024 (MO-ODPO) and Wang et al. 2024 (directional preference alignment): weights in the prompt.

    Departures:
        On-policy REINFORCE with the learner all methods share, where these learn from pairs and by rejection sampling.
    """

    settings: PreferenceInPromptSettings

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the one stage; `preferences` play no part in training.

        Raises:
            BudgetError: If the budget is less than one group.
            ConfigError: If the base model has no tokens for the text, or not enough context.
        """
        (length,) = split_budget(budget, 1, self.settings.group_size)
        written = self.settings.written(task.objective_names)
        check_readable(task, written)
        settings = {**expert_settings(self.settings), "preference_text": written.plain()}
        run = "paretune.methods.meta_policy.preference_in_prompt:train_told"
        return (Stage("bank", run, settings, completions=length, seed=seed),)

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the one expert, which reads the preference."""
        answer = Combined(np.ones((len(task.objectives), 1)))
        written = self.settings.written(task.objective_names)
        return Assembly(adapters_of(results.values()), answer, preference_text=written)


def check_readable(task: Task, written: PreferenceText) -> None:
    """Check that a task's base model can read a preference: as tokens that tell tenths apart, within its context.

    Raises:
        ConfigError: If it cannot.
    """
    encoder = plain_encoder(task.model)
    if isinstance(encoder, str):  # nothing is known before the model is loaded; encoding refuses what it cannot read
        return
    texts = written.all()
    try:
        ids = [tuple(encoder.ids(text, task.prompt_format)) for text in texts]
    except ModelError as error:
        raise ConfigError(
            f"text must be of tokens that the base model of task '{task.name}' has, got '{texts[0]}' ({error}). Write "
            "text, pair, between and numerals with its own tokens, or take preference_conditioned."
        ) from error
    if len(set(ids)) < len(texts):
        raise ConfigError(
            f"text must tell preferences apart in tokens of the base model of task '{task.name}', got equal tokens for "
            f"two of '{texts[0]}', '{texts[1]}' and so on. Write numerals with its own tokens."
        )
    limit = model_context(task.model)
    wanted = max(map(len, ids)) + task.max_prompt_tokens + task.max_completion_tokens
    if limit is not None and wanted > limit:
        raise ConfigError(
            f"text must leave the model's context of {limit} tokens room for prompt and completion, got {wanted} of "
            f"all three in task '{task.name}'. Shorten text or pair."
        )


def train_told(context: StageContext) -> None:
    """Train one expert as one policy on prompts that begin with a preference; it leaves `experts/000`."""
    from paretune.methods.training import Run, train, trajectories
    from paretune.models.adapters import save_adapter
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.rl.trainees import Told

    task = context.task
    base, shape = load_base(task.model), settings_of(ExpertSettings, context.stages[0])
    for stages in trajectories(context):
        seed, lengths = stages[0].seed, tuple(stage.completions for stage in stages)
        try:
            bank = ExpertBank(base, 1, shape.rank, shape.alpha)
            bank.initialise([seed])
            trainee = Told(bank, len(task.objectives), seed, lengths, context.ledger(stages[-1]))

            def save(stage: Stage, bank: ExpertBank = bank) -> None:
                save_adapter(bank, 0, context.artefact(stage, "experts/000"))

            train(context, trainee, [Run(stages, save)], name=stages[0].trajectory_key(task))
        finally:
            unwrap(base)
