"""The learner: a population of experts, each with its own objective weights, seed and length, in one batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paretune.core.errors import BudgetError, ConfigError, NonFiniteError, RecordError, RewardError, ShapeError
from paretune.core.ledger import Ledger, network_flops
from paretune.core.preferences import FloatArray
from paretune.core.scores import KEPT_CONTRACT, Score, Scores
from paretune.core.task import Row
from paretune.models.bank import ExpertBank
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.rl.advantages import fold_in_kl, leave_one_out
from paretune.rl.losses import policy_gradient_loss, scalarise
from paretune.rl.optimiser import RowAdamW, clip_rows
from paretune.rl.rollout import BankSampler, Batch, PromptStream, Sampler

FAILED_UPDATES = 3  # in a row without one reward of a weighted objective end training; an outage may last two


@dataclass(frozen=True)
class LearnerSettings:
    """How experts learn; the same for all members of a population."""

    learning_rate: float = 5e-3  # Adam; for models of about 1 M parameters, 1e-4 for 0.5 B
    group_size: int = 8  # completions per prompt G, TRL's num_generations
    completions_per_update: int = 64  # per expert
    warmup_updates: int = 0  # linear; constant afterwards, so that longer runs extend shorter ones
    max_grad_norm: float = 1.0  # per expert
    betas: tuple[float, float] = (0.9, 0.99)  # 0.999 remembers a thousand updates, more than a short run has
    weight_decay: float = 0.0
    micro_batch: int = 0  # completions of one expert per backward pass; 0: all at once
    update_dtype: Literal["model", "bfloat16"] = "model"  # bfloat16: autocast in the update, where it is faster

    def __post_init__(self) -> None:
        if self.group_size < 2 or self.completions_per_update % self.group_size:
            raise ConfigError(
                f"completions_per_update must be a multiple of group_size, at least 2, got "
                f"{self.completions_per_update} and {self.group_size}. Choose for example 64 and 8."
            )
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate}. Try 0.001.")
        if self.micro_batch % self.group_size:
            raise ConfigError(
                f"micro_batch must be a multiple of group_size ({self.group_size}), got {self.micro_batch}."
            )


@dataclass(eq=False)
class Member:
    """One expert of a population.

    Attributes:
        objective_weights: `[K]`; sum 1 for a preference.
        seed: Training seed: prompt order, noise and start of the expert.
        lengths: Planned lengths in completions at which it is handed over, ascending.
        ledger: What it spends.
        updates: Full updates done.
    """

    objective_weights: FloatArray
    seed: int
    lengths: tuple[int, ...]
    ledger: Ledger
    updates: int = 0
    handed_over: set[int] = field(default_factory=set)


HandOver = Callable[[int, int], None]  # (member, length): the bank holds the member as it is at that length


class Learner:
    """Trains the experts of a bank on-policy with REINFORCE on vector rewards.

    Members of one population share every forward and backward pass, adapter-major. A member's course depends on its
    own weights and seed only (up to the last bits of the arithmetic). A run of N completions is the prefix of a longer
    one: at a planned length inside an update, the update is made from the completions up to it on a copy, the copy is
    handed over, and the run goes on with the whole update.
    """

    def __init__(
        self,
        bank: ExpertBank,
        score: Score,
        rows: Sequence[Row],
        prompt_ids: Sequence[tuple[int, ...]],
        members: Sequence[Member],
        beta: float,
        max_completion_tokens: int,
        settings: LearnerSettings,
        sampler: Sampler | None = None,
    ) -> None:
        """Prepare a population.

        Args:
            bank: One expert per member, already initialised or loaded.
            score: Scores completions on the K objectives.
            rows: Training prompts with their columns.
            prompt_ids: Token ids of each formatted training prompt.
            members: The experts to train.
            beta: KL coefficient, reward units per nat.
            max_completion_tokens: Longest completion.
            settings: How to learn.
            sampler: Another engine for sampling; by default the bank's own loop.

        Raises:
            BudgetError: If a planned length is below one group.
            ShapeError: If the bank does not have one expert per member.
        """
        if bank.experts != len(members):
            raise ShapeError(f"bank must have one expert per member ({len(members)}), got {bank.experts}.")
        for member in members:
            if not member.lengths or min(member.lengths) < settings.group_size:
                raise BudgetError(
                    f"completions must be at least one group of {settings.group_size} for each expert, got "
                    f"{min(member.lengths, default=0)}. Raise the budget, or train fewer experts."
                )
        self.bank, self.score, self.members, self.settings = bank, score, list(members), settings
        self.beta, self.max_completion_tokens = beta, max_completion_tokens
        self.streams = [PromptStream(rows, prompt_ids, member.seed) for member in members]
        self.sampler: Sampler = sampler or BankSampler(bank)
        self.optimiser = RowAdamW.like(bank.flat, settings.learning_rate, settings.betas, settings.weight_decay)
        self._failing = np.zeros((len(members), len(members[0].objective_weights)), dtype=np.int64)  # updates in a row
        self._before: dict[int, dict[str, object]] = {}  # ledgers at the start of the current update
        self._last_full: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = {}  # of members inside an update

    def train(
        self,
        hand_over: HandOver,
        on_update: Callable[[Mapping[str, object]], None] = lambda event: None,
        before_update: Callable[[], None] = lambda: None,
    ) -> None:
        """Train every member to its longest planned length.

        Args:
            hand_over: Called at each planned length of each member.
            on_update: Receives plain data about every update of every member.
            before_update: Called between updates, where the state is consistent: the place to save a checkpoint.

        Raises:
            NonFiniteError: If a log-probability or gradient is not finite.
            RewardError: If the reward of an objective that has weight failed throughout several updates in a row.
        """
        before_update()
        while self.update(hand_over, on_update):
            before_update()

    def update(self, hand_over: HandOver, on_update: Callable[[Mapping[str, object]], None]) -> bool:
        """Make one update of every member that has completions left; return whether any had."""
        sizes = {index: self._next_size(member) for index, member in enumerate(self.members)}
        for index, member in enumerate(self.members):
            for length in member.lengths:
                if 0 <= length - self._done(member) < self.settings.group_size:  # no further group fits below it
                    self._hand_over(index, length, hand_over)
        for size in sorted({size for size in sizes.values() if size}, reverse=True):
            self._update([index for index, own in sizes.items() if own == size], size, hand_over, on_update)
        return any(sizes.values())

    def hands_over_next(self) -> bool:
        """Whether the coming update reaches a planned length of any member."""
        step = self.settings.completions_per_update
        return any(
            self._done(member) <= length <= self._done(member) + step and length not in member.handed_over
            for member in self.members
            for length in member.lengths
        )

    def _done(self, member: Member) -> int:
        return member.updates * self.settings.completions_per_update

    def _next_size(self, member: Member) -> int:
        """Return how many completions the member samples next: whole groups, never beyond its longest length."""
        if member.handed_over.issuperset(member.lengths):
            return 0
        left = max(member.lengths) - self._done(member)
        whole = left // self.settings.group_size * self.settings.group_size
        return max(0, min(self.settings.completions_per_update, whole))

    def _hand_over_rest(self, index: int, hand_over: HandOver) -> None:
        for length in self.members[index].lengths:
            self._hand_over(index, length, hand_over)

    def _hand_over(self, index: int, length: int, hand_over: HandOver) -> None:
        member = self.members[index]
        if length not in member.handed_over:
            hand_over(index, length)
            member.handed_over.add(length)

    def _update(
        self, active: list[int], size: int, hand_over: HandOver, on_update: Callable[[Mapping[str, object]], None]
    ) -> None:
        """Sample, score and update the members of `active` with `size` completions each."""
        started = time.perf_counter()
        group = self.settings.group_size
        self._before = {index: self.members[index].ledger.state() for index in active}
        cuts = self._cuts(active, size)
        if cuts or size < self.settings.completions_per_update:
            self._last_full = {**self._last_full, **{index: self.member_state(index) for index in active}}
        batch = self._sample(active, size)
        rewards, statuses = self._score(active, batch, size)
        reference = self._reference(active, batch)
        kl = (batch.log_probs - reference).sum(dim=1).cpu().double()
        if not bool(torch.isfinite(kl).all()):
            raise NonFiniteError(
                "log-probabilities must be finite, got NaN or infinity in sampling. Lower the learning rate."
            )
        advantages = fold_in_kl(leave_one_out(rewards, group), kl, self.beta, group)
        weights = np.stack([self.members[index].objective_weights for index in active])
        objective_weights = torch.tensor(weights, dtype=advantages.dtype).repeat_interleave(size, dim=0)
        scalar = scalarise(advantages, objective_weights)
        for cut in sorted(cuts):
            self._hand_over_inside(active, batch, scalar, size, cut, hand_over)
        with self._timed(active, "update"):
            norms = self._step(self.optimiser, active, batch, scalar, size)
        if size == self.settings.completions_per_update:
            for index in active:
                self.members[index].updates += 1
                self._last_full.pop(index, None)
        else:  # the members' last, partial update
            for index in active:
                self._hand_over_rest(index, hand_over)
        for place, index in enumerate(active):
            own = slice(place * size, (place + 1) * size)
            on_update(self._event(index, size, rewards[own], statuses[own], kl[own], batch.lengths[own], norms[place],
                                  time.perf_counter() - started))  # fmt: skip

    def _sample(self, active: list[int], size: int) -> Batch:
        prompts = size // self.settings.group_size
        rows: list[Row] = []
        prompt_ids: list[tuple[int, ...]] = []
        keys: list[np.typing.NDArray[np.uint64]] = []
        for index in active:
            member, stream = self.members[index], self.streams[index]
            member.ledger.charge(completions=size, prompts=prompts)
            first = member.updates * (self.settings.completions_per_update // self.settings.group_size)
            chosen = stream.indices(first, prompts)
            keys.append(stream.keys(chosen, member.updates, self.settings.group_size))
            for number in chosen:
                rows += [stream.rows[number]] * self.settings.group_size
                prompt_ids += [stream.prompt_ids[number]] * self.settings.group_size
        with self._timed(active, "sampling"):
            batch = self.sampler(active, rows, prompt_ids, np.concatenate(keys), self.max_completion_tokens)
        parameters = self.bank.base.parameters + self.bank.parameters_each()
        for place, index in enumerate(active):
            own = slice(place * size, (place + 1) * size)
            tokens = int(batch.lengths[own].sum())
            read = sum(len(ids) for ids in prompt_ids[own][:: self.settings.group_size])
            flops = network_flops(parameters, tokens + read, passes=4)  # sampling, reference, update and its gradient
            self.members[index].ledger.charge(tokens=tokens, flops=flops)
        return batch

    def _score(self, active: list[int], batch: Batch, size: int) -> tuple[Tensor, np.typing.NDArray[np.str_]]:
        with self._timed(active, "scoring"):
            scores = self.score(batch.rows, batch.texts)
        for index in active:
            self.members[index].ledger.charge(reward_calls=size * scores.rewards.shape[1])
        self._check_rewards(active, scores, size)
        return torch.from_numpy(scores.rewards), scores.statuses

    def _check_rewards(self, active: list[int], scores: Scores, size: int) -> None:
        """Refuse to go on without an objective that a member is trained for, once it is no passing outage."""
        for place, index in enumerate(active):
            statuses = scores.statuses[place * size : (place + 1) * size]  # [size, K]
            failed = ~(statuses == "ok").any(axis=0) & ~np.isin(statuses, KEPT_CONTRACT).all(axis=0)
            weighted = self.members[index].objective_weights > 0
            self._failing[index] = np.where(failed & weighted, self._failing[index] + 1, 0)
            lost = np.flatnonzero(self._failing[index] >= FAILED_UPDATES)
            if lost.size:
                k = int(lost[0])
                fault = scores.faults[k] if scores.faults else f"objective {k} {statuses[0, k]}"
                raise RewardError(
                    f"reward of an objective with weight must give a score at least once in {FAILED_UPDATES} updates, "
                    f"got none: {fault}. Correct the reward, then run the same command again; nothing finished is lost."
                )

    @torch.no_grad()
    def _reference(self, active: list[int], batch: Batch) -> Tensor:
        with self._timed(active, "reference"):
            mixing = Mixing.reference(len(batch.rows))
            return completion_log_probs(
                self.bank.base, self.bank, mixing, batch.prompt_ids, batch.token_ids, batch.lengths
            )

    def _cuts(self, active: list[int], size: int) -> set[int]:
        """Return the planned lengths of any active member that fall inside its coming update, as completions of it."""
        group = self.settings.group_size
        found = set()
        for index in active:
            member = self.members[index]
            for length in member.lengths:
                inside = (length - self._done(member)) // group * group
                if length not in member.handed_over and length - self._done(member) >= 0 and inside < size:
                    found.add(inside)
        return found

    def _hand_over_inside(
        self, active: list[int], batch: Batch, scalar: Tensor, size: int, cut: int, hand_over: HandOver
    ) -> None:
        """Hand members over at a length inside the coming update: step on a copy, hand over, go back."""
        group = self.settings.group_size
        due = [
            (place, index, length)
            for place, index in enumerate(active)
            for length in self.members[index].lengths
            if length not in self.members[index].handed_over
            and length - self._done(self.members[index]) >= 0
            and (length - self._done(self.members[index])) // group * group == cut
        ]
        before = self.bank.flat.clone()
        rows = torch.cat([torch.arange(place * size, place * size + cut) for place, _, _ in due])
        part = batch.take(rows.to(batch.token_ids.device))
        self._step(self.optimiser.copy(), [index for _, index, _ in due], part, scalar[rows], cut)
        for place, index, length in due:
            ledger = self.members[index].ledger
            spent = ledger.state()
            own = slice(place * size, place * size + cut)
            ledger.restore(_part_of(self._before[index], spent, cut / size, int(batch.lengths[own].sum())))
            self._hand_over(index, length, hand_over)
            ledger.restore(spent)
        with torch.no_grad():
            self.bank.flat.copy_(before)

    def _step(self, optimiser: RowAdamW, active: list[int], batch: Batch, scalar: Tensor, size: int) -> list[float]:
        """Backpropagate and take one optimiser step for the active members; return their gradient norms."""
        base = self.bank.base
        micro = self.settings.micro_batch or size
        for start in range(0, size, micro):
            width = min(micro, size - start)
            blocks = [torch.arange(place * size + start, place * size + start + width) for place in range(len(active))]
            rows = torch.cat(blocks)
            whole = width == size
            part = batch if whole else batch.take(rows.to(batch.token_ids.device))
            mixing = Mixing.population(self.bank.experts, width, tuple(active))
            used = int(part.lengths.max())
            with self.bank.using(mixing), self._precision():
                log_probs = completion_log_probs(
                    base, self.bank, mixing, part.prompt_ids, part.token_ids[:, :used], part.lengths
                )
                weights = (scalar if whole else scalar[rows]).to(base.device, torch.float32)
                policy_gradient_loss(log_probs, weights, size).backward()
        gradient = self.bank.take_gradients()[active]
        if not bool(torch.isfinite(gradient).all()):
            raise NonFiniteError("gradients must be finite, got NaN or infinity. Lower the learning rate.")
        norms: list[float] = gradient.norm(dim=1).tolist()
        clipped = clip_rows(gradient, self.settings.max_grad_norm)
        optimiser.step(self.bank.flat, clipped, active, self.settings.warmup_updates)
        return norms

    @contextmanager
    def _precision(self) -> Iterator[None]:
        if self.settings.update_dtype == "model":
            yield
            return
        with torch.autocast(self.bank.base.device.type, dtype=torch.bfloat16):
            yield

    @contextmanager
    def _timed(self, active: list[int], phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        for index in active:
            self.members[index].ledger.add_seconds(phase, (time.perf_counter() - start) / len(active))

    def _event(
        self, index: int, size: int, rewards: Tensor, statuses: np.typing.NDArray[np.str_], kl: Tensor,
        lengths: Tensor, norm: float, seconds: float,
    ) -> dict[str, object]:  # fmt: skip
        """Describe one update of one member in plain data."""
        present = ~rewards.isnan()
        means = [
            float(rewards[present[:, column], column].mean()) if bool(present[:, column].any()) else None
            for column in range(rewards.shape[1])
        ]
        return {
            "member": index,
            "update": self.members[index].updates,
            "completions": size,
            "reward_means": means,
            "missing": [int(count) for count in (statuses != "ok").sum(axis=0)],
            "kl": float(kl.mean()),
            "mean_length": float(lengths.float().mean()),
            "grad_norm": norm,
            "seconds": seconds,
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that a resumed run needs: tensors, and plain data."""
        tensors = {
            "flat": self.bank.flat, "mean": self.optimiser.mean, "square": self.optimiser.square,
            "steps": self.optimiser.steps,
        }  # fmt: skip
        members = [
            {"updates": member.updates, "handed_over": sorted(member.handed_over), "ledger": member.ledger.state()}
            for member in self.members
        ]
        return tensors, {"members": members}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue from `state()` of a population of the same members."""
        with torch.no_grad():
            self.bank.flat.copy_(tensors["flat"])
            for name in ("mean", "square", "steps"):
                getattr(self.optimiser, name).copy_(tensors[name])
        for member, saved in zip(self.members, plain["members"], strict=True):
            member.updates, member.handed_over = saved["updates"], set(saved["handed_over"])
            _restore_counts(member.ledger, saved["ledger"])

    def member_state(self, index: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return one member's state at its last full update, from which a longer run can go on.

        A length inside an update is reached by a step from part of it, which a longer run must not have made.
        """
        if index in self._last_full:
            return self._last_full[index]
        tensors, plain = self.state()
        return {name: tensor[index : index + 1].clone() for name, tensor in tensors.items()}, plain["members"][index]

    def load_member_state(self, index: int, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Start one member where a shorter run of the same trajectory stood at its last full update."""
        with torch.no_grad():
            self.bank.flat[index] = tensors["flat"][0].to(self.bank.flat.device)
            for name in ("mean", "square", "steps"):
                getattr(self.optimiser, name)[index] = tensors[name][0]
        self.members[index].updates = plain["updates"]
        _restore_counts(self.members[index].ledger, plain["ledger"])


def save_state(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write a state as one safetensors file, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(cpu, temporary, metadata={"state": json.dumps(plain, allow_nan=False)})
    temporary.replace(path)


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state.

    Raises:
        RecordError: If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise RecordError(f"checkpoint must be readable, got '{path}' ({error}). Delete it and run again.") from error


def _restore_counts(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    """Take over what was spent, but keep the budget and what this ledger already knows to be repeated work."""
    ledger.restore({**saved, "budget_completions": ledger.budget_completions, "repeated": ledger.repeated})


def _part_of(before: Mapping[str, Any], after: Mapping[str, Any], share: float, tokens: int) -> dict[str, Any]:
    """Return the ledger of a run that ends inside an update: all before it, and its share of the update."""
    part = dict(after)
    for kind in ("counts", "seconds"):
        part[kind] = {
            name: before[kind].get(name, 0) + (amount - before[kind].get(name, 0)) * share
            for name, amount in after[kind].items()
        }
    for name in ("prompts", "completions", "reward_calls"):
        part["counts"][name] = round(part["counts"][name])
    part["counts"]["tokens"] = before["counts"]["tokens"] + tokens
    return part
