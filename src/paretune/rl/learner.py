"""The learner: prompts -> completions -> rewards [B, K] -> advantages [B, K] -> objective weights -> loss -> step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import NonFiniteError, RewardError
from paretune.core.preferences import FloatArray
from paretune.core.scores import KEPT_CONTRACT, Scores
from paretune.core.user_calls import where_found
from paretune.models.mixing import Mixing
from paretune.rl.advantages import fold_in_kl, leave_one_out, silenced
from paretune.rl.checkpoints import State
from paretune.rl.epochs import Epochs, ScoredBatch
from paretune.rl.estimators import signal_widths
from paretune.rl.feedback import check_scalar, seen
from paretune.rl.kl_control import KlControl
from paretune.rl.lengths import Lengths, Update
from paretune.rl.losses import completion_factors
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.parameter_groups import ParameterGroups
from paretune.rl.recent import Recent
from paretune.rl.replay import Replay
from paretune.rl.rollout import Batch, Sampler
from paretune.rl.rollouts import Environment, Rollouts
from paretune.rl.settings import LearnerSettings, check_unweighed
from paretune.rl.slots import Slots
from paretune.rl.token_terms import token_terms
from paretune.rl.trainees import Trainee
from paretune.rl.update_report import completions_event

FAILED_UPDATES = 3  # in a row without one reward of a weighted objective end training; an outage may last two

RECENT_ROWS = "recent"  # a tensor of the states

HandOver = Callable[[int, int], None]  # (member, length): the trainee holds the member as it is at that length


class Learner:
    """Trains a trainee on-policy with REINFORCE on vector rewards.

    Members of one population share every forward and backward pass. A member's way depends on its own weights and
    seed only (up to the last bits of the arithmetic). A run of N completions is the prefix of a longer one, bit for
    bit: see `rl.lengths`.

    Source:
        Williams 1992 (REINFORCE); Ahmadian et al. 2024 (RLOO); Schulman et al. 2017 for epochs after the first.
    """

    def __init__(
        self,
        trainee: Trainee,
        environment: Environment,
        settings: LearnerSettings,
        slots: Slots | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Prepare training; the trainee's bank is already initialised or loaded.

        Raises:
            BudgetError: If a planned length is below one group.
            ConfigError: If the slots ask for what the trainee cannot do, or for more than the feedback tells.
        """
        self.trainee, self.environment, self.settings = trainee, environment, settings
        self.slots = slots or Slots()
        self.members = list(trainee.members)
        objectives = len(self.members[0].objective_weights)
        self.weightings = MemberWeightings(trainee, self.slots.weightings)
        smoothed = self.weightings.needs_gram and self.weightings.step_rule.smoothed
        self.parameter_groups = ParameterGroups(trainee, settings, objectives if smoothed else 0)
        self.estimator = self.slots.estimator(settings)
        if environment.feedback == "utility":
            check_scalar(self.estimator, self.slots.weightings, self.slots.shapings or self.slots.shaping)
        if self.estimator is not None and self.weightings.needs_gram:
            check_unweighed(where_found(self.estimator.function), self.estimator.weighed)
        self.shaped_ranges = self.slots.shaped_ranges(environment.ranges, len(self.members))
        self.kl_control = KlControl(environment.beta, settings.target_kl, len(self.members))
        greedy = int(self.estimator is not None and self.estimator.greedy)
        self.lengths = [
            Lengths(
                member.lengths, settings.completions_per_update, settings.group_size, self.weightings.measured(index),
                greedy=greedy,
            )
            for index, member in enumerate(self.members)
        ]  # fmt: skip
        gradients = objectives if self.weightings.needs_gram else 1
        self.rollouts = Rollouts(trainee, environment, settings, self.lengths, sampler, gradients)
        self.replay = Replay(trainee, settings, self.rollouts, self.weightings, self.kl_control)
        self.epochs = Epochs(trainee, settings, self.parameter_groups, self.weightings, self.replay)
        self._failing = np.zeros((len(self.members), objectives), dtype=np.int64)  # updates in a row
        self._recent = [Recent.none(objectives) for _ in self.members]
        self._last_whole: dict[int, State] = {}  # of members that stand inside an update

    def train(
        self,
        hand_over: HandOver,
        on_update: Callable[[Mapping[str, object]], None] = lambda event: None,
        before_update: Callable[[], None] = lambda: None,
    ) -> None:
        """Train every member to its longest planned length.

        Args:
            hand_over: Called at each planned length of each member.
            on_update: Receives plain data about every update of every member, before its result is handed over.
            before_update: Called between updates, where the state is consistent: the place to save a checkpoint, and to
                stop.

        Raises:
            NonFiniteError: If a log-probability or gradient is not finite.
            RewardError: If the reward of an objective that has weight failed throughout several updates in a row.
            ModelError: If sampling and update disagree on the probability of what was sampled.
        """
        before_update()
        while self.update(hand_over, on_update):
            before_update()

    def update(self, hand_over: HandOver, on_update: Callable[[Mapping[str, object]], None]) -> bool:
        """Hand over what the coming update would pass by, then make it; return whether any length is left."""
        reached: dict[tuple[bool, Update, bool], list[tuple[int, int]]] = {}
        again = [self.replay.remembers(index) for index in range(len(self.members))]  # those take other steps
        for index, lengths in enumerate(self.lengths):
            for length, update in lengths.before_whole():
                reached.setdefault((length == max(lengths.planned), update, again[index]), []).append((index, length))
        for key in sorted(reached, key=lambda key: (key[0], key[1].size, key[2])):  # last what a member stays as
            self._reach(reached[key], key[1], key[0], hand_over, on_update)
        whole: dict[tuple[Update, bool], list[int]] = {}
        for index, lengths in enumerate(self.lengths):
            coming = lengths.whole()
            if coming is not None:
                whole.setdefault((coming, again[index]), []).append(index)
        for (update, _), active in whole.items():
            events = self._make(active, update)
            for index in active:
                self.lengths[index].updates += 1
            for event in events:
                on_update(event)
        return any(not lengths.handed_over.issuperset(lengths.planned) for lengths in self.lengths)

    def hands_over_next(self) -> bool:
        """Whether the coming update reaches a planned length of any member."""
        return any(lengths.near() for lengths in self.lengths)

    def _reach(
        self,
        due: Sequence[tuple[int, int]],
        update: Update,
        ends: bool,
        hand_over: HandOver,
        on_update: Callable[[Mapping[str, object]], None],
    ) -> None:
        """Hand members over at lengths (member, length) by the update that runs of those lengths would end with.

        Where these are not their last lengths, the members go back to where they stood.
        """
        active = sorted({index for index, _ in due})
        self._last_whole.update({index: self.member_state(index) for index in active})
        events = self._make(active, update) if update.size else []
        for event in events if ends else ():  # else these completions are yet to come in a longer run: nobody is told
            on_update(event)
        for index, length in due:
            with self.parameter_groups.averaged(index):
                hand_over(index, length)
            self.lengths[index].handed_over.add(length)
        if not ends:
            for index in active:
                self.load_member_state(index, *self._last_whole.pop(index))

    def _make(self, active: list[int], update: Update) -> list[dict[str, object]]:
        """Sample, score and learn from `update.size` completions of each active member; return what to tell of it."""
        started = time.perf_counter()
        size = update.size
        measured = self.rollouts.measure(active, update.measured)
        asked, preferences, mixing, batch = self.rollouts.sample(active, size)
        greedy = self.rollouts.greedy(active, size) if update.greedy else None
        scores = self.rollouts.score(active, batch, size)
        self._check_rewards(active, scores, size, preferences)
        statuses, rewards = scores.statuses, seen(self.environment.feedback, scores.rewards, preferences)
        reference = self.rollouts.reference(active, batch)
        kl = (batch.log_probs - reference).sum(dim=1).cpu().double()
        if not bool(torch.isfinite(kl).all()):
            gated = ", or correct what the gate returns" if "gate" in self.trainee.parameters else ""
            raise NonFiniteError(
                f"log-probabilities must be finite, got NaN or infinity in sampling. Lower the learning rate{gated}."
            )
        updates = [each.updates for each in self.lengths]
        self.weightings.see(active, updates, rewards, kl, measured)
        scored = self._scored(active, mixing, batch, asked, preferences, rewards, greedy, reference)
        with self.rollouts.timed(active, "update"):
            report = self.epochs.learn(active, scored, updates)
        self.replay.remember(active, batch, asked, preferences, scored.shaped, scored.widths, scored.reference)
        events = []
        for place, index in enumerate(active):
            own = slice(place * size, (place + 1) * size)
            self._recent[index] = self._recent[index].followed_by(scores.rewards[own], kl[own].numpy())
            in_force = scored.weights[own]
            if self.weightings.needs_gram:  # then those are the preference; the weights are chosen from gradients
                in_force = torch.tensor(report.objective_weights[place], dtype=in_force.dtype).expand(size, -1)
            described = completions_event(
                rewards[own], scored.shaped[own], in_force, statuses[own], kl[own], batch.lengths[own],
                self.settings.group_size,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            events.append({**self._event(index, update), **described, **report.of(place), "seconds": seconds})
            self.kl_control.observe(index, float(kl[own].mean()))
        return events

    def _scored(
        self, active: list[int], mixing: Mixing, batch: Batch, asked: FloatArray, preferences: FloatArray,
        rewards: Tensor, greedy: Tensor | None, reference: Tensor,
    ) -> ScoredBatch:  # fmt: skip
        """Return a batch with all that the epochs learn from."""
        settings, count, ranges = self.settings, len(active), self.environment.ranges
        chosen = preferences if self.weightings.needs_gram else self.weightings.rows(active, preferences)
        weights, shaped = torch.from_numpy(chosen).to(rewards.dtype), self.slots.shaped(rewards, ranges, active)
        said = None if self.shaped_ranges is None else self.shaped_ranges[active]
        bounds = np.stack([ranges] * count) if said is None else said
        if self.estimator is None:
            made = leave_one_out(shaped, settings.group_size)
        else:
            rows = {"objective_weights": weights}
            if greedy is not None:
                rows["greedy_rewards"] = self.slots.shaped(greedy, ranges, active)
            made = self.estimator.apply(shaped, settings.group_size, count, rows, bounds)
        betas = self.kl_control.rows(active, len(rewards) // count)
        folded = betas if settings.kl_estimator == "k1" else torch.zeros_like(betas)
        kl = (batch.log_probs - reference).sum(dim=1).cpu().double()
        known = said is not None
        widths = signal_widths(self.estimator, made, shaped if known else rewards, bounds, known)
        first = silenced(fold_in_kl(made, kl, folded, settings.group_size), widths, settings.group_size)
        factors = completion_factors(
            settings.loss_type, batch.lengths, count, self.environment.max_completion_tokens, settings.micro_batch
        )
        terms = token_terms(settings, betas, factors, batch.lengths, count, reference, batch.log_probs)
        return ScoredBatch(
            batch, mixing, asked, shaped, made, first, widths, weights, reference.sum(dim=1).cpu().double(), folded,
            factors, terms, self.estimator is not None,
        )  # fmt: skip

    def _check_rewards(self, active: list[int], scores: Scores, size: int, preferences: FloatArray) -> None:
        """Refuse to go on without an objective that a member is trained for, once it is no passing outage."""
        for place, index in enumerate(active):
            own = slice(place * size, (place + 1) * size)
            statuses = scores.statuses[own]  # [size, K]
            failed = ~(statuses == "ok").any(axis=0) & ~np.isin(statuses, KEPT_CONTRACT).all(axis=0)
            weighted = (preferences[own] > 0).any(axis=0)  # what users want of prompts may be more than is told
            self._failing[index] = np.where(failed, self._failing[index] + weighted, 0)
            if (lost := np.flatnonzero(self._failing[index] >= FAILED_UPDATES)).size:
                k = int(lost[0])
                fault = scores.faults[k] if scores.faults else f"objective {k} {statuses[0, k]}"
                raise RewardError(
                    f"reward of an objective with weight must give a score at least once in {FAILED_UPDATES} updates, "
                    f"got none: {fault}. Correct the reward, then run the same command again; nothing finished is lost."
                )

    def _event(self, index: int, update: Update) -> dict[str, object]:
        """Say which update of which member it is, and how many completions it is made of."""
        return {
            "member": index,
            "update": self.lengths[index].updates + 1,
            "completions": update.size,
            "measured": update.measured,
            **({"greedy": update.greedy} if update.greedy else {}),
            **({"beta": self.kl_control.betas[index]} if self.settings.target_kl else {}),
        }

    def estimate(self, index: int) -> Mapping[str, object]:
        """Return what a member's last training completions say of it, see `Recent.estimate`."""
        return self._recent[index].estimate()

    def state(self) -> State:
        """Return all that a resumed run needs: tensors, and plain data."""
        every = range(len(self.members))
        members = [{"handed_over": sorted(self.lengths[index].handed_over), **self._plain(index)} for index in every]
        kept = {f"{name}.{index}": each for index in every for name, each in self._remembered(index).items()}
        return {**self.parameter_groups.state(), **kept}, {"members": members}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue from `state()` of the same members."""
        self.parameter_groups.load(tensors)
        for index, saved in enumerate(plain["members"]):
            self.lengths[index].handed_over = set(saved["handed_over"])
            own = {name.removesuffix(f".{index}"): each for name, each in tensors.items() if name.endswith(f".{index}")}
            self._take_over(index, own, saved)

    def member_state(self, index: int) -> State:
        """Return one member's state at its last whole update, from which a longer run can go on."""
        if index in self._last_whole:
            return self._last_whole[index]
        return {**self.parameter_groups.row_state(index), **self._remembered(index)}, self._plain(index)

    def load_member_state(self, index: int, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Start one member where a shorter run of the same trajectory stood at its last whole update."""
        self.parameter_groups.load_row(index, tensors)
        self._take_over(index, tensors, plain)

    def conflicts(self, index: int) -> dict[str, object]:
        """Return the share of a member's steps that turned against each objective, `[K]`, if it is known."""
        steps = self.epochs.by_objective
        return {} if steps is None else {"conflicts": steps.conflicts.shares(index)}

    def _plain(self, index: int) -> dict[str, Any]:
        steps = self.epochs.by_objective
        return {
            "conflicts": {} if steps is None else steps.conflicts.state(index),
            "updates": self.lengths[index].updates,
            "ledger": self.members[index].ledger.state(),
            "weighting": self.weightings.state(index),
            "failing": self._failing[index].tolist(),
            "beta": self.kl_control.betas[index],
        }

    def _remembered(self, index: int) -> dict[str, Tensor]:
        return {RECENT_ROWS: torch.from_numpy(self._recent[index].rows), **self.replay.state(index)}

    def _take_over(self, index: int, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        self._recent[index] = Recent(tensors[RECENT_ROWS].numpy())
        self.replay.load(index, tensors)
        self.lengths[index].updates = saved["updates"]
        self.weightings.load(index, saved["weighting"])
        self._failing[index] = saved["failing"]
        if self.epochs.by_objective is not None:
            self.epochs.by_objective.conflicts.load(index, saved["conflicts"])
        self.kl_control.betas[index] = saved["beta"]
        self.members[index].ledger.resume(saved["ledger"])
