"""What an update is made from: completions of training prompts and of development prompts, charged to their members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paretune.core.ledger import Seconds, network_flops
from paretune.core.preferences import FloatArray
from paretune.core.scores import Score, Scores
from paretune.core.task import Row
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from paretune.rl.feedback import PromptPreferences, wanted_of
from paretune.rl.lengths import Lengths
from paretune.rl.rollout import BankSampler, Batch, Prompts, PromptStream, Sampler
from paretune.rl.settings import LearnerSettings
from paretune.rl.token_terms import has_terms
from paretune.rl.trainees import Trainee


@dataclass(frozen=True)
class Environment:
    """What completions are made for and scored by.

    Attributes:
        score: Scores completions on the K objectives.
        train: Training prompts.
        beta: KL coefficient, reward units per nat.
        max_completion_tokens: Longest completion.
        ranges: Lowest and highest possible reward of each objective, `[K, 2]`.
        development: Development prompts, for weightings that measure on them.
        feedback: What is known of what users want of prompts, one of `core.feedback.FEEDBACKS`.
        prompt_preferences: What they want, see `core.task.Task.prompt_preferences`; asked unless they are `told`.
    """

    score: Score
    train: Prompts
    beta: float
    max_completion_tokens: int
    ranges: FloatArray
    development: Prompts
    feedback: str = "told"
    prompt_preferences: PromptPreferences | None = None

    def wanted(self, rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
        """Return what the user of each preference `[N, K]` wants of the prompt beside it, `[N, K]`."""
        return preferences if self.prompt_preferences is None else wanted_of(self.prompt_preferences, rows, preferences)


class Rollouts:
    """Makes completions for members of a trainee; all that a member spends on them is in its ledger."""

    def __init__(
        self,
        trainee: Trainee,
        environment: Environment,
        settings: LearnerSettings,
        lengths: Sequence[Lengths],
        sampler: Sampler | None,
        gradients: int,
    ) -> None:
        """Prepare to sample.

        Args:
            trainee: Whose members sample.
            environment: Prompts and rewards.
            settings: How many completions, and how often each is learned from.
            lengths: How far each member is.
            sampler: Another engine for sampling; by default the bank's own loop.
            gradients: Gradients that each optimiser step takes: one, or one of each objective.
        """
        self.trainee, self.environment, self.settings, self.lengths = trainee, environment, settings, lengths
        self.sampler: Sampler = sampler or BankSampler(trainee.bank)
        self.streams = [PromptStream(environment.train, member.seed, member.prompts) for member in trainee.members]
        self.development = [PromptStream(environment.development, member.seed) for member in trainee.members]
        self.gradients = gradients

    def sample(self, active: Sequence[int], size: int) -> tuple[FloatArray, FloatArray, Mixing, Batch]:
        """Sample `size` completions of training prompts for each active member, whole groups.

        Returns:
            The preference that each row is asked for, and what its objectives are weighed by where nothing else says
            so, that or what its user wants of its prompt, `[B, K]` each; how rows are mixed; and their completions.
        """
        group = self.settings.group_size
        places, keys, preferences, worth = [], [], [], []
        for index in active:
            stream, updates = self.streams[index], self.lengths[index].updates
            self.trainee.members[index].ledger.charge(completions=size, prompts=size // group)
            chosen = stream.indices(updates * (self.settings.completions_per_update // group), size // group)
            keys.append(stream.keys(chosen, updates, group))
            places += [number for number in chosen for _ in range(group)]
            asked, weighed = self.asked(index, updates, chosen)
            preferences.append(asked.repeat(group, axis=0))
            worth.append(weighed.repeat(group, axis=0))
        wanted = np.concatenate(preferences)
        mixing, batch = self._complete(active, self.environment.train, places, np.concatenate(keys), wanted, "sampling")
        own, epochs = self._cost(mixing), self.settings.epochs
        again = epochs - 1 if self.gradients > 1 else 0  # later epochs read once more to know their ratios
        if self.gradients > 1 and has_terms(self.settings):
            again += 2 * epochs  # terms of tokens: there and back beside the objectives' own gradients
        passes, prompt_passes = (own * (1 + again + back * epochs) for back in (2, 1 + self.gradients))
        self._charge(active, batch, size, group, passes, prompt_passes, 1)  # sampling, epochs there and back
        return wanted, np.concatenate(worth), mixing, batch

    def asked(
        self, index: int, updates: int, chosen: Sequence[int], again: int = 0
    ) -> tuple[FloatArray, FloatArray]:  # fmt: skip
        """Return what a member is asked for on prompts of an update, and what their completions are worth by.

        Args:
            index: The member.
            updates: That it has made.
            chosen: Places of N training prompts.
            again: 0 for what is sampled, else which step learns again, see `Trainee.preferences`.

        Returns:
            `[N, K]` each. Both are the preferences that the trainee draws. Where feedback is the utility, what users
            want of the prompts decides what completions are worth; where it is the oracle's, a policy whose rows carry
            their own preferences is asked for that too. One that is trained for a single preference is told that one.
        """
        told, feedback = self.trainee.preferences(index, updates, len(chosen), again), self.environment.feedback
        if feedback == "told" or (feedback == "oracle" and not self.trainee.conditioned):
            return told, told
        wanted = self.environment.wanted([self.environment.train.rows[place] for place in chosen], told)
        return (told if feedback == "utility" else wanted), wanted

    def measure(self, active: Sequence[int], count: int) -> FloatArray | None:
        """Return rewards of `count` completions of development prompts for each active member, `[R, count, K]`."""
        if count == 0:
            return None
        prompts = self.environment.development
        places, keys, preferences = [], [], []
        for index in active:
            stream, lengths = self.development[index], self.lengths[index]
            self.trainee.members[index].ledger.charge(completions=count, prompts=count)
            chosen = stream.indices(lengths.measured_before, count)
            places += chosen
            keys.append(stream.keys(chosen, lengths.updates, 1))
            preferences.append(self.trainee.preferences(index, lengths.updates, count))
        wanted = np.concatenate(preferences)
        mixing, batch = self._complete(active, prompts, places, np.concatenate(keys), wanted, "measuring")
        own = self._cost(mixing)
        self._charge(active, batch, count, 1, own, own)
        return self.score(active, batch, count).rewards.reshape(len(active), count, -1)

    def greedy(self, active: Sequence[int], size: int) -> Tensor:
        """Return rewards of the greedy completion of each prompt of a coming `sample`, repeated for its rows `[B, K]`.

        Args:
            active: Members.
            size: Completions that each of them learns from.
        """
        group = self.settings.group_size
        places, keys, preferences = [], [], []
        for index in active:
            stream, updates, count = self.streams[index], self.lengths[index].updates, size // group
            self.trainee.members[index].ledger.charge(completions=count, prompts=count)
            chosen = stream.indices(updates * (self.settings.completions_per_update // group), count)
            places += chosen
            keys.append(stream.keys(chosen, updates, 1))
            preferences.append(self.asked(index, updates, chosen)[0])
        wanted = np.concatenate(preferences)
        mixing, batch = self._complete(
            active, self.environment.train, places, np.concatenate(keys), wanted, "sampling", greedy=True
        )
        own = self._cost(mixing)
        self._charge(active, batch, size // group, 1, own, own)
        rewards = torch.from_numpy(self.score(active, batch, size // group).rewards)
        return rewards.repeat_interleave(group, dim=0)

    def score(self, active: Sequence[int], batch: Batch, size: int) -> Scores:
        """Score completions, `size` of each active member."""
        with self.timed(active, "scoring"):
            scores = self.environment.score(batch.rows, batch.texts)
        for place, index in enumerate(active):
            own = scores.statuses[place * size : (place + 1) * size]
            self.trainee.members[index].ledger.count_rewards((own == "ok").sum(axis=0).tolist(), size, scores.faults)
        return scores

    @torch.no_grad()
    def reference(self, active: Sequence[int], batch: Batch) -> Tensor:
        """Return the log-probability of each token under the base model, `[B, T]`."""
        mixing, bank = Mixing.reference(len(batch.rows)), self.trainee.bank
        with self.timed(active, "reference"):
            ids = batch.plain_ids or batch.prompt_ids
            return completion_log_probs(bank.base, bank, mixing, ids, batch.token_ids, batch.lengths)

    @contextmanager
    def timed(self, active: Sequence[int], phase: str) -> Iterator[None]:
        """Charge each active member its share of the seconds that a phase takes."""
        began = Seconds.now()
        yield
        share = began.passed(len(active))
        for index in active:
            self.trainee.members[index].ledger.add_seconds(phase, *share)

    def _complete(
        self, active: Sequence[int], prompts: Prompts, places: Sequence[int], keys: np.typing.NDArray[np.uint64],
        preferences: FloatArray, phase: str, greedy: bool = False,
    ) -> tuple[Mixing, Batch]:  # fmt: skip
        rows, ids = [prompts.rows[place] for place in places], [prompts.prompt_ids[place] for place in places]
        with self.timed(active, phase):
            mixing = self.trainee.mixing(active, preferences, ids)
            asked = {"greedy": True} if greedy else {}  # another engine need not know of it where nobody asks
            limit, told = self.environment.max_completion_tokens, prompts.told
            if told is None:
                return mixing, self.sampler(mixing, rows, ids, keys, limit, **asked)
            read = [told(place, preference) for place, preference in zip(places, preferences, strict=True)]
            return mixing, replace(self.sampler(mixing, rows, read, keys, limit, **asked), plain_ids=tuple(ids))

    def _cost(self, mixing: Mixing) -> float:
        return Reader(self.trainee.bank.base, self.trainee.bank, mixing).cost

    def _charge(
        self, active: Sequence[int], batch: Batch, size: int, group: int, passes: float, prompt_passes: float,
        reference_passes: int = 0,
    ) -> None:  # fmt: skip
        base = self.trainee.bank.base.parameters
        parameters = base + self.trainee.read_per_token
        for place, index in enumerate(active):
            own = slice(place * size, (place + 1) * size)
            tokens = int(batch.lengths[own].sum())
            read = sum(len(ids) for ids in batch.prompt_ids[own][::group])
            flops = network_flops(parameters, tokens, passes) + network_flops(parameters, read, prompt_passes)
            flops += network_flops(base, tokens + read, reference_passes)
            flops += network_flops(base, read, self.trainee.prompt_passes)
            self.trainee.members[index].ledger.charge(tokens=tokens, flops=flops)
