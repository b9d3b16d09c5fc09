"""A policy: the base model and, for each preference, a rule for weighing experts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from paretune.core.checks import check_texts
from paretune.core.digests import digest, file_digest
from paretune.core.errors import ConfigError, EnumerationError, ShapeError
from paretune.core.ledger import network_flops
from paretune.core.preference_text import PreferenceText
from paretune.core.preferences import FloatArray
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer
from paretune.core.seeds import prompt_key, row_keys
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.completions import Asked, Completions, gathered, per_prompt
from paretune.models.decoding import Rollout, sample
from paretune.models.gate import TrainedGate
from paretune.models.gate_sets import GateOfSets
from paretune.models.mixing import Mixing
from paretune.models.readers.inputs import left_pad
from paretune.models.readers.reader import Reader
from paretune.models.scoring import completion_log_probs
from paretune.models.tree import tree_log_probs

ROWS_AT_ONCE = 512  # rows decoded together; noise does not depend on it


class Policy:
    """A base model with expert weights for M preferences; one batch may hold rows of all of them.

    Attributes:
        base: The base model.
        bank: Its experts; None for the reference policy.
        prompt_format: How a prompt becomes the model's input.
        max_prompt_tokens: Longest formatted prompt.
        max_completion_tokens: Longest completion, unless a call says otherwise.
        preferences: `[M, K]`.
        answers: How each preference is answered: `exact`, `nearest`, `selected`, `combined`, `reference`, or a word of
            a method's own answer.
        expert_weights: `[M, E]`.
        mixer: Where the experts are mixed, and the gate, if there is one.
        gate: The loaded gate, or None.
        scales: What the weights of each preference are multiplied by where it is not in them already: behind a gate,
            and where hidden states are mixed, `[M]`.
        kept: Which experts a gate may mix for each preference, `[M, E]`: it weighs all, and the others' weights are
            dropped. All of them but in `keeping`.
        preference_text: How a preference is written in front of each prompt; None where it is not. The base
            model, which scale 0 leaves, and weights of 0 without a gate, reads the prompt alone.
    """

    resamples: ClassVar[bool] = False  # whether it draws completions by weight, as a mixer of several particles asks

    def __init__(
        self,
        base: BaseModel,
        bank: ExpertBank | None,
        prompt_format: PromptFormat,
        max_prompt_tokens: int,
        max_completion_tokens: int,
        preferences: FloatArray,
        answers: Sequence[str],
        expert_weights: FloatArray,
        mixer: Mixer | None = None,
        gate: TrainedGate | GateOfSets | None = None,
        preference_text: PreferenceText | None = None,
    ) -> None:
        self.base, self.bank, self.prompt_format = base, bank, prompt_format
        self.max_prompt_tokens, self.max_completion_tokens = max_prompt_tokens, max_completion_tokens
        self.preferences, self.answers, self.expert_weights = preferences, tuple(answers), expert_weights
        self.mixer, self.gate, self.preference_text = mixer or Mixer(), gate, preference_text
        self.scales: FloatArray = np.ones(len(preferences))
        self.kept: NDArray[np.bool_] = np.ones(expert_weights.shape, dtype=np.bool_)
        if self.mixer.particles > 1 and not self.resamples:
            raise ConfigError(
                f"a mixer of {self.mixer.particles} particles must be served by a policy that resamples, got "
                f"{type(self).__name__}. Make it with models.resampled.policy_class."
            )

    def __len__(self) -> int:
        return len(self.preferences)

    def scaled(self, scales: Sequence[float]) -> Policy:
        """Return the same policies with their expert weights multiplied by each scale: M blocks of S rows.

        Scale 0 is the base model; between 0 and 1 lie policies of less KL, without any training. The base model gets
        what the scale takes from mixed log-probabilities and hidden states. A subclass stays what it is; one that keeps
        more than expert weights for each preference scales them itself.

        Args:
            scales: S factors, such as 0.5.
        """
        factors = np.asarray(scales, dtype=np.float64)
        made = self._rows(np.repeat(np.arange(len(self)), len(factors)))
        made.scales = made.scales * np.tile(factors, len(self))
        if self.gate is None and self.mixer.level != "hidden":  # nothing lies between weights and what multiplies them
            made.expert_weights, made.scales = made.expert_weights * made.scales[:, None], np.ones(len(made.scales))
        return made

    def keeping(self, index: Sequence[int], kept: ArrayLike) -> Policy:
        """Return R policies: that of one preference each, with some of its experts alone; the others weigh 0.

        Nothing is renormalised. Deltas of the experts that stay are added to the base model, and of mixed
        log-probabilities, probabilities and hidden states it gets what the others leave, as in `scaled`: no expert is
        the base model, all are the policy itself. Weights of hidden states need not sum to one; there it is the
        others' part of `sum_e |g_e|`. A gate weighs all experts as before, and the weights of the others are dropped.

        Args:
            index: Which of the M preferences, R of them.
            kept: Which experts stay, `[R, E]`.

        Raises:
            ShapeError: If there is not one entry for each policy and expert.
        """
        chosen, wanted = np.asarray(kept, dtype=np.bool_), (len(index), self.expert_weights.shape[1])
        if chosen.shape != wanted:
            raise ShapeError(
                f"kept must have one entry per policy and expert {list(wanted)}, got {list(chosen.shape)}. Say of each "
                "expert whether it stays."
            )
        made = self._rows(np.asarray(index, dtype=np.int64))
        if self.gate is not None:
            made.kept = made.kept & chosen
            return made
        whole = np.abs(made.expert_weights).sum(axis=1)
        made.expert_weights = np.where(chosen, made.expert_weights, 0.0)
        if self.mixer.level == "hidden":  # weighed by `scale * g`, and the base model's own states by `1 - scale`
            parts = np.abs(made.expert_weights).sum(axis=1)
            shares = np.divide(parts, whole, out=np.ones(len(parts)), where=whole > 0)
            made.expert_weights = made.expert_weights / np.where(shares > 0, shares, 1.0)[:, None]
            made.scales = made.scales * shares
        return made

    def _rows(self, index: NDArray[np.int64]) -> Policy:
        """Return the policies of some preferences, in the order of `index` `[R]`."""
        made = copy.copy(self)
        made.preferences, made.answers = self.preferences[index], tuple(self.answers[place] for place in index)
        made.expert_weights, made.scales = self.expert_weights[index], self.scales[index]
        made.kept = self.kept[index]
        return made

    def identity(self, index: int) -> bytes:
        """Return what tells the policy of one preference from others: equal bytes, equal policy, scored once.

        A gate reads the preference, so that equal expert weights are not yet one policy. A subclass may keep more than
        expert weights, so no two of its preferences are taken for equal unless it overrides this.

        Args:
            index: Which of the M preferences.
        """
        own, read = (b"" if self._is_plain() else str(index).encode()), b""
        if self.mixer.gate is not None or self.mixer.level == "hidden":
            kept = self.kept[index]
            if self.scales[index] == 0 or not kept.any():  # the base model, whatever the gate says
                return own + bytes((self.expert_weights[index] * 0.0).tobytes())
            seen = self.preferences[index] + 0.0 if self.mixer.gate is not None else ()
            read = np.append(seen, self.scales[index]).tobytes() + (b"" if kept.all() else kept.tobytes())
        # -0.0 and 0.0 are one weight
        read += self.said(index).encode()
        return b"".join((own, self._mixed, read, (self.expert_weights[index] + 0.0).tobytes()))

    def _is_plain(self) -> bool:
        """Whether it keeps nothing for a preference that `identity` does not name."""
        return type(self) is Policy

    @cached_property
    def _mixed(self) -> bytes:
        """What tells the mixer from others; nothing for plain adapter deltas."""
        if self.mixer == Mixer():
            return b""
        gate = None if self.mixer.gate is None else file_digest(self.mixer.gate)
        plain = {**self.mixer.plain()}
        first = [plain.pop(name) for name in ("level", "block", "continued")]
        return digest([*first, gate, *([plain] if plain else [])]).encode()

    def said(self, index: int) -> str:
        """Return the text in front of prompts that the policy of one preference answers; empty where there is none."""
        weighed = self.kept[index] if self.mixer.gate is not None else self.expert_weights[index]
        mixed = self.scales[index] and weighed.any()
        if self.preference_text is None or not mixed:
            return ""
        return self.preference_text.of(self.preferences[index])

    def told(self, prompts: Sequence[str], policy_index: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the token ids of formatted prompts with what is said in front of each; see `encode`."""
        plain = self.encode(prompts)
        if self.preference_text is None:
            return plain
        said = [f"{self.said(index)}{prompt}" for index, prompt in zip(policy_index, prompts, strict=True)]
        return [self.base.encoder.ids(text, self.prompt_format) for text in said]

    def encode(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids of formatted prompts, without a preference in front of them.

        Raises:
            ShapeError: If it is no list of texts, or a prompt is longer than `max_prompt_tokens`; nothing is cut off
                silently.
            ModelError: If a prompt cannot be encoded.
        """
        prompts = check_texts("prompts", prompts)
        encoded = [self.base.encoder.ids(prompt, self.prompt_format) for prompt in prompts]
        for prompt, ids in zip(prompts, encoded, strict=True):
            if len(ids) > self.max_prompt_tokens:
                raise ShapeError(
                    f"prompt must have at most {self.max_prompt_tokens} tokens, got {len(ids)} ('{prompt[:40]}...'). "
                    "Shorten it, or raise max_prompt_tokens in the task."
                )
        return encoded

    def mixing(self, policy_index: Sequence[int], prompts: Sequence[Sequence[int]] | None = None) -> Mixing:
        """Return the mixing for rows answered by the given policies.

        Args:
            policy_index: Which of the M preferences each row is for.
            prompts: Token ids of each row's prompt; needed under a gate that reads them.

        Raises:
            ShapeError: If the gate reads prompts, and there is not one for each row.
            MixingError: If probabilities are mixed, and weights are negative or sum to more than one.
        """
        if self.bank is None:
            return Mixing.reference(len(policy_index))
        index, device = list(policy_index), self.base.device
        mixer = self.mixer
        weights = torch.tensor(self.expert_weights[index], dtype=torch.float32, device=device)
        preferences, scale = (
            torch.tensor(each[index], dtype=torch.float32, device=device) for each in (self.preferences, self.scales)
        )
        if self.gate is not None:
            if not (kept := self.kept[index]).all():
                scale = scale[:, None] * torch.tensor(kept, dtype=torch.float32, device=device)
            return self.gate.mixing(weights, preferences, prompts, scale)
        if mixer.level == "hidden":
            return Mixing.of_hidden_states(weights, mixer.block, mixer.continued, scale, mixer.norm)
        if mixer.level == "probabilities":
            return Mixing.of_probabilities(weights)
        if mixer.level == "log_probs":
            return Mixing.of_log_probs(weights, mixer.divergence)
        return Mixing.of_rows(weights)

    def draws(self, index: int) -> int:
        """Return how many completions are sampled for each one that a policy returns.

        Args:
            index: Which of the M preferences.
        """
        return 1

    def flops(
        self, policy_index: Sequence[int], tokens: int, reference_passes: int = 0, prompt_tokens: int = 0
    ) -> int:  # fmt: skip
        """Return the floating-point operations of reading tokens: passes through base model, experts and gate.

        A stream of its own is read under one expert; where adapters are mixed, a pass goes through all experts that
        any of the rows weighs, behind a gate through all of them. A gate at the level of prompts has them read once
        more, by the base model alone; its own network is run once a prompt, which is nothing beside that.

        Args:
            policy_index: Of the preferences whose rows share a batch.
            tokens: Of all their rows together.
            reference_passes: Passes of the base model alone over the same tokens.
            prompt_tokens: How many of them are the prompts'.
        """
        parameters, cost = self.base.parameters, 1.0
        more = network_flops(parameters, tokens, reference_passes)
        if self.bank is not None and self.gate is not None:
            more += network_flops(parameters, prompt_tokens, self.gate.prompt_passes)
            parameters += self.bank.experts * self.bank.parameters_each()
            parameters += 0 if self.gate.level == "prompt" else self.gate.flat.numel()
        elif self.bank is not None:
            mixing = self.mixing(policy_index)
            adapters = self.mixer.level == "adapters"
            experts = int((mixing.dense() != 0).any(dim=0).sum()) if adapters else 1
            parameters, cost = (
                parameters + experts * self.bank.parameters_each(),
                Reader(self.base, self.bank, mixing).cost,
            )
        return network_flops(parameters, tokens, cost) + more

    def generate(
        self,
        prompts: Sequence[str],
        policy_index: Sequence[int] | None = None,
        samples: int = 1,
        temperature: float | Sequence[float] = 1.0,
        top_p: float | Sequence[float] = 1.0,
        seed: int | Sequence[int] = 0,
        max_new_tokens: int | None = None,
        reference: bool = False,
        end_ids: Sequence[int] | None = None,
    ) -> Completions:
        """Sample completions; rows of different preferences share batches.

        A row's noise depends on its seed, prompt and sample number only: asking for more prompts, other preferences
        or other batch sizes leaves it as it is.

        Args:
            prompts: Raw prompts; the template is applied here.
            policy_index: Which of the M preferences answers each prompt; may be left out when M is 1.
            samples: Completions per prompt.
            temperature: One for all, or one per prompt.
            top_p: One for all, or one per prompt.
            seed: One for all, or one per prompt.
            max_new_tokens: Longest completion; by default the task's.
            reference: Also return log-probabilities under the base model.
            end_ids: Token ids that end a completion; by default the base model's, `()` runs every row to the limit.

        Returns:
            `len(prompts) * samples` rows, the samples of a prompt next to each other.

        Raises:
            ShapeError: If prompts are no list of texts, arguments disagree on their number, or a prompt is too long or
                empty.
        """
        count = len(prompts := check_texts("prompts", prompts))
        limit = self.max_completion_tokens if max_new_tokens is None else max_new_tokens
        return self.sampled(
            Asked(
                prompts, self._owners(policy_index, count), [int(each) for each in per_prompt("seed", seed, count)],
                per_prompt("temperature", temperature, count), per_prompt("top_p", top_p, count), samples, limit,
                reference, end_ids,
            )
        )  # fmt: skip

    def sampled(self, asked: Asked) -> Completions:
        """Sample what is asked for, see `generate`: what a policy overrides that samples in a way of its own."""
        plain, encoded = self.encode(asked.prompts), self.told(asked.prompts, asked.owners)
        row_ids, digests = asked.row_ids, [prompt_key(ids) for ids in plain]
        prompt_ids = tuple(encoded[row] for _, row, _ in row_ids)
        keys = row_keys(
            [asked.seeds[row] for _, row, _ in row_ids], 0, [digests[row] for _, row, _ in row_ids],
            [number for _, _, number in row_ids],
        )  # fmt: skip
        order = sorted(
            range(len(row_ids)), key=lambda row: len(prompt_ids[row])
        )  # equal lengths together: less padding
        parts: list[tuple[list[int], Rollout, Tensor | None]] = []
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            read, places = [prompt_ids[row] for row in rows], [row_ids[row][1] for row in rows]
            rollout = sample(
                self.base, self.bank, read, self.mixing([row_ids[row][0] for row in rows], read), keys[rows],
                asked.limit, torch.tensor([asked.temperatures[place] for place in places]),
                torch.tensor([asked.masses[place] for place in places]), end_ids=asked.end_ids,
            )  # fmt: skip
            scored = self._reference([plain[place] for place in places], rollout) if asked.reference else None
            parts.append((rows, rollout, scored))
        return gathered(self.base, parts, prompt_ids, row_ids)

    def _owners(self, policy_index: Sequence[int] | None, count: int) -> list[int]:
        if policy_index is None:
            if len(self) != 1:
                raise ShapeError(f"policy_index must say which of the {len(self)} preferences answers each prompt.")
            return [0] * count
        owners = [int(index) for index in policy_index]
        if len(owners) != count or any(not 0 <= index < len(self) for index in owners):
            raise ShapeError(
                f"policy_index must have one entry in 0..{len(self) - 1} per prompt ({count}), got {owners[:8]}."
            )
        return owners

    @torch.no_grad()
    def _reference(self, prompts: Sequence[tuple[int, ...]], made: Rollout | Completions) -> Tensor:
        ids, lengths = made.token_ids.to(self.base.device), made.lengths.to(self.base.device)
        return completion_log_probs(self.base, self.bank, Mixing.reference(len(prompts)), prompts, ids, lengths).cpu()

    @torch.no_grad()
    def log_probs(self, completions: Completions) -> Tensor:
        """Return the log-probability of every sampled token under the policy that answered its row, `[B, T]`."""
        mixing = self.mixing([owner for owner, _, _ in completions.row_ids], completions.prompt_ids)
        device = self.base.device
        return completion_log_probs(
            self.base, self.bank, mixing, completions.prompt_ids, completions.token_ids.to(device),
            completions.lengths.to(device),
        ).cpu()  # fmt: skip

    @torch.no_grad()
    def completion_table(
        self, prompts: Sequence[str], token_ids: Sequence[int], length: int, policy_index: Sequence[int] | None = None
    ) -> Tensor:
        """Return the log-probability of every completion of fixed length, all rows as one tree of prefixes.

        Args:
            prompts: Raw prompts, B of them.
            token_ids: Tokens a completion may be made of, A of them.
            length: Tokens of every completion.
            policy_index: Which preference answers each prompt.

        Returns:
            `[B, A^length]` in nats, in lexicographic order, the last token changing fastest.

        Raises:
            EnumerationError: If the policy can only be sampled. One of a subclass that samples in a way of its own, and
                does not override this, is.
            ModelError: If the base model cannot read a tree.
        """
        kind = type(self)
        own = (kind.generate, kind.sampled) != (Policy.generate, Policy.sampled)
        if own and kind.completion_table is Policy.completion_table:
            raise EnumerationError(
                f"{kind.__name__} must say with which probabilities it samples, got a generate of its own and no "
                "completion_table. Override that as well; until then it is scored from samples."
            )
        prompts = check_texts("prompts", prompts)
        owners = self._owners(policy_index, len(prompts))
        read = self.told(prompts, owners)
        return tree_log_probs(self.base, self.bank, self.mixing(owners, read), read, token_ids, length).cpu()

    @torch.no_grad()
    def next_token_log_probs(
        self, prompts: Sequence[str], prefixes: Sequence[Sequence[int]], policy_index: Sequence[int] | None = None
    ) -> Tensor:
        """Return the log-probabilities of every next token after a prompt and the first tokens of a completion.

        Args:
            prompts: Raw prompts, B of them.
            prefixes: Token ids of the completion so far, one list per prompt; may be empty.
            policy_index: Which preference answers each prompt.

        Returns:
            `[B, V]`, in nats.
        """
        prompts = check_texts("prompts", prompts)
        texts = [prefix for prefix in (prefixes, *prefixes) if isinstance(prefix, (str, bytes))]
        if texts:
            raise ShapeError(f"prefixes must be lists of token ids, got the text {ascii(texts[0])[:60]}. Encode it.")
        if len(prefixes) != len(prompts):
            raise ShapeError(f"prefixes must be one per prompt ({len(prompts)}), got {len(prefixes)}.")
        owners = self._owners(policy_index, len(prompts))
        read = self.told(prompts, owners)
        mixing = self.mixing(owners, read)
        rows = [[*ids, *prefix] for ids, prefix in zip(read, prefixes, strict=True)]
        ids, real = left_pad(self.base, rows)
        starts = [ids.shape[1] - len(prefix) - 1 for prefix in prefixes]  # the last prompt token of each row
        logits = Reader(self.base, self.bank, mixing).whole(ids, real, keep=1, gate_from=starts)
        return torch.log_softmax(logits[:, -1].float(), dim=-1).cpu()
