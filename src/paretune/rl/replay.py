"""Learning again from earlier completions: what each member has made so far, and the steps that some of it adds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ConfigError
from paretune.core.ledger import network_flops
from paretune.core.preferences import FloatArray
from paretune.core.seeds import generator
from paretune.models.readers.reader import Reader
from paretune.rl.advantages import MOST_RATIO, reweighted, silenced
from paretune.rl.kl_control import KlControl
from paretune.rl.losses import log_ratios, policy_gradient_loss, scalarise
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.rollout import Batch
from paretune.rl.rollouts import Rollouts
from paretune.rl.settings import LearnerSettings
from paretune.rl.step_rows import StepRows
from paretune.rl.trainees import Trainee

TENSORS = ("prompts", "token_ids", "lengths", "log_probs", "reference", "rewards", "widths", "preferences", "weights")


@dataclass(frozen=True, eq=False)
class History:
    """Completions of one member, oldest first, N of them: whole groups of G, one after the other.

    Attributes:
        prompts: Which training prompt each is of, `[N]`.
        token_ids: `[N, T]`, right-padded.
        lengths: Tokens of each, `[N]`.
        log_probs: Of each under the policy that sampled it, in nats, `[N]`.
        reference: The same under the base model, `[N]`.
        rewards: Shaped, NaN where missing, `[N, K]`.
        widths: How much advantages could differ, see `estimators.signal_widths`, `[N, K]`.
        preferences: What each was sampled for, `[N, K]`.
        weights: What its objectives were weighed by: the same, or what its user wanted of its prompt, `[N, K]`.
    """

    prompts: Tensor
    token_ids: Tensor
    lengths: Tensor
    log_probs: Tensor
    reference: Tensor
    rewards: Tensor
    widths: Tensor
    preferences: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @classmethod
    def none(cls, objectives: int) -> History:
        """Return that of a member that has no completion yet."""
        whole, each = torch.zeros(0, dtype=torch.int64), torch.zeros(0, objectives, dtype=torch.float64)
        number = torch.zeros(0, dtype=torch.float64)
        return cls(whole, torch.zeros(0, 0, dtype=torch.int64), whole, number, number, each, each, each, each)

    def followed_by(self, later: History, most: int) -> History:
        """Return it with later completions, and without the oldest where there are more than `most`; 0 keeps all."""
        longest = max(self.token_ids.shape[1], later.token_ids.shape[1])
        made = {}
        for name in TENSORS:
            parts = [getattr(self, name), getattr(later, name)]
            if name == "token_ids":
                parts = [torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts]
            made[name] = torch.cat(parts)[-most if most else 0 :]
        return History(**made)

    def take(self, rows: Tensor) -> History:
        """Return some completions."""
        return History(**{name: getattr(self, name)[rows] for name in TENSORS})

    def state(self) -> dict[str, Tensor]:
        """Return its tensors by name."""
        return {name: getattr(self, name) for name in TENSORS}


class Replay:
    """What all members of a trainee have made, and the gradient of some of it in each optimiser step.

    A step draws `replay / G` prompts, each as often as it was sampled for, and of each prompt G of its earlier
    completions, whenever and for whatever preference they were made. It learns from them as if they had been sampled
    now: a completion counts `min(rho, 2)`, rho how much more likely it is now than when it was sampled, and its
    advantage is that of a later epoch (`advantages.reweighted`), with the KL that it has now. What the policy no longer
    says has a rho near 0 and adds nothing.

    One policy for all preferences draws a new preference for each of these groups: of a completion all K rewards are
    known, so it teaches any of them. Where feedback is the utility, all that is known is what it was worth to its own
    user: then groups stay as they were sampled.

    Near the optimum of `E r - beta KL` the sum `r - beta log(pi / pi_ref)` is the same for all completions of a prompt,
    whoever sampled them. So advantages vanish there, and old completions go on saying what is still wrong.

    Source:
        Ours; truncated importance weights as in Espeholt et al. 2018 (V-trace), the argument about the optimum as in
        Richter et al. 2020 (VarGrad) and Bartoldson et al. 2025 (trajectory balance with asynchrony).
    """

    def __init__(
        self, trainee: Trainee, settings: LearnerSettings, rollouts: Rollouts, weightings: MemberWeightings,
        kl_control: KlControl,
    ) -> None:  # fmt: skip
        """Remember nothing yet.

        Raises:
            ConfigError: If advantages are made in a way that says nothing of earlier completions.
        """
        self.trainee, self.settings, self.rollouts = trainee, settings, rollouts
        self.train, self.scalar = rollouts.environment.train, rollouts.environment.feedback == "utility"
        self.weightings, self.kl_control = weightings, kl_control
        objectives = len(trainee.members[0].objective_weights)
        self.histories = [History.none(objectives) for _ in trainee.members]
        self._place = {ids: place for place, ids in reversed(list(enumerate(self.train.prompt_ids)))}
        if settings.replay and weightings.needs_gram:
            raise ConfigError(
                f"replay must be 0 where objective weights are chosen from gradients, got {settings.replay}: they are "
                "chosen for the completions of an update. Write replay: 0."
            )

    @property
    def on(self) -> bool:
        """Whether anything is learned again."""
        return self.settings.replay > 0

    def remembers(self, member: int) -> bool:
        """Whether a member has anything to learn again."""
        return self.on and len(self.histories[member]) > 0

    def remember(
        self, active: Sequence[int], batch: Batch, preferences: FloatArray, weights: FloatArray, shaped: Tensor,
        widths: Tensor, reference: Tensor,
    ) -> None:  # fmt: skip
        """Add an update's completions of the active members, once it has been learned from.

        Args:
            active: Members, in the order of their rows.
            batch: Their completions, B rows.
            preferences: What they were sampled for, `[B, K]`.
            weights: What their objectives were weighed by, `[B, K]`.
            shaped: Rewards, `[B, K]`.
            widths: See `History`, `[B, K]`.
            reference: Log-probability of each completion under the base model, `[B]`.
        """
        if not self.on:
            return
        made = History(
            torch.tensor([self._place[ids] for ids in batch.plain_ids or batch.prompt_ids]),
            batch.token_ids.cpu(),
            batch.lengths.cpu(), batch.log_probs.sum(dim=1).cpu().double(), reference.cpu().double(),
            shaped.cpu().double(), widths.cpu().double(), torch.from_numpy(preferences).double(),
            torch.from_numpy(weights).double(),
        )  # fmt: skip
        for place, own in enumerate(torch.arange(len(made)).chunk(len(active))):
            index = active[place]
            self.histories[index] = self.histories[index].followed_by(made.take(own), self.settings.replay_window)

    def draw(self, active: Sequence[int], updates: Sequence[int], epoch: int) -> History | None:
        """Draw for one step of some members, all with a history or all without; what is drawn depends on nobody else.

        Args:
            active: Members.
            updates: Updates made by each member of the trainee.
            epoch: Which step of the update.
        """
        if not self.remembers(active[0]):
            return None
        parts = [self._drawn(index, updates[index], epoch) for index in active]
        longest = max(int(part.lengths.max()) for part in parts)
        made = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS if name != "token_ids"}
        ids = [_to_width(part.token_ids, longest) for part in parts]
        return History(token_ids=torch.cat(ids), **made)

    def _drawn(self, index: int, updates: int, epoch: int) -> History:
        own, group, count = (
            self.histories[index],
            self.settings.group_size,
            self.settings.replay // self.settings.group_size,
        )
        random = generator(self.trainee.members[index].seed, "replay", updates, epoch)
        if self.scalar:
            groups = random.integers(len(own) // group, size=count)
            return own.take(torch.from_numpy((groups[:, None] * group + np.arange(group)).ravel()))
        prompts = own.prompts.numpy()
        order = prompts.argsort(kind="stable")
        chosen = prompts[random.integers(len(own), size=count)]
        first, last = (prompts[order].searchsorted(chosen, side) for side in ("left", "right"))
        rows = np.concatenate(
            [order[one + random.permutation(other - one)[:group]] for one, other in zip(first, last, strict=True)]
        )
        asked, worth = self.rollouts.asked(index, updates, chosen.tolist(), epoch + 1)
        preferences, weights = (torch.from_numpy(each.repeat(group, axis=0)).double() for each in (asked, worth))
        return replace(own.take(torch.from_numpy(rows)), preferences=preferences, weights=weights)

    def beside(self, active: Sequence[int], batch: Batch, asked: FloatArray, drawn: History) -> StepRows:
        """Return the rows of a step: of each member the completions of an update, then the drawn ones.

        Args:
            active: Members, in the order of their rows.
            batch: Completions of the update.
            asked: What they were sampled for, `[B, K]`.
            drawn: Earlier ones.
        """
        count, own, again = len(active), len(batch.prompt_ids) // len(active), len(drawn) // len(active)
        order = torch.cat(
            [torch.arange(count * own).view(count, own), count * own + torch.arange(count * again).view(count, again)],
            dim=1,
        ).flatten()
        device, width = batch.token_ids.device, max(batch.token_ids.shape[1], drawn.token_ids.shape[1])
        wanted = drawn.preferences.numpy()
        earlier = [self.train.prompt_ids[place] for place in drawn.prompts.tolist()]
        if self.train.told is not None:
            earlier = [self.train.told(*each) for each in zip(drawn.prompts.tolist(), wanted, strict=True)]
        prompts = [*batch.prompt_ids, *earlier]
        sorted_prompts = [prompts[row] for row in order.tolist()]
        mixing = self.trainee.mixing(active, np.concatenate([asked, wanted])[order.numpy()], sorted_prompts)
        token_ids = torch.cat([_to_width(batch.token_ids, width), _to_width(drawn.token_ids, width).to(device)])
        lengths = torch.cat([batch.lengths, drawn.lengths.to(device)])
        there = order.to(device)
        return StepRows(sorted_prompts, token_ids[there], lengths[there], mixing, count, own, again)

    def loss(
        self, active: Sequence[int], drawn: History, rows: Tensor, log_probs: Tensor, chosen: Tensor, completions: int
    ) -> tuple[Tensor, Tensor]:
        """Return what some drawn completions add to the loss, and how much each of them has to say, `[B']`.

        Args:
            active: Members, in the order of their rows.
            drawn: All drawn completions.
            rows: Which of them.
            log_probs: Of their tokens as the members are now, `[B', T]`, with gradient.
            chosen: Objective weights of each member in this update, `[R, K]`; where no weighting chooses them, those
                that a completion was first learned from with.
            completions: Completions of a member in the whole step, those of the update included.
        """
        each, part = len(drawn) // len(active), drawn.take(rows)
        weights = chosen.repeat_interleave(each, dim=0)[rows] if self.weightings.each else part.weights
        betas, group = self.kl_control.rows(active, each)[rows], self.settings.group_size
        now = log_probs.detach().sum(dim=1).cpu().double()
        ratios = log_ratios(now, part.log_probs).exp()
        made = silenced(reweighted(part.rewards, now - part.reference, ratios, betas, group), part.widths, group)
        advantages = scalarise(made, weights.to(made)) * ratios.clamp(max=MOST_RATIO)
        loss = policy_gradient_loss(log_probs, advantages.to(log_probs.device, torch.float32), completions)
        return loss, advantages.abs()

    def charge(self, active: Sequence[int], rows: StepRows) -> None:
        """Charge what it took to read the earlier completions of a step, there and back; nothing was sampled."""
        base, trainee = self.trainee.bank.base, self.trainee
        cost, parameters = Reader(base, trainee.bank, rows.mixing).cost, base.parameters + trainee.read_per_token
        for place, index in enumerate(active):
            earlier = slice(place * rows.each + rows.own, (place + 1) * rows.each)
            prompts = sum(len(ids) for ids in rows.prompt_ids[earlier][:: self.settings.group_size])
            flops = network_flops(parameters, int(rows.lengths[earlier].sum()) + prompts, 3 * cost)
            flops += network_flops(base.parameters, prompts, trainee.prompt_passes)
            trainee.members[index].ledger.charge(flops=flops)

    def state(self, member: int) -> dict[str, Tensor]:
        """Return what a member remembers; nothing where nothing is learned again."""
        return {f"replay.{name}": each for name, each in self.histories[member].state().items()} if self.on else {}

    def load(self, member: int, tensors: Mapping[str, Tensor]) -> None:
        """Take over `state`."""
        if self.on:
            self.histories[member] = History(**{name: tensors[f"replay.{name}"] for name in TENSORS})


def _to_width(token_ids: Tensor, width: int) -> Tensor:
    """Return ids `[N, T]` as `[N, width]`: padding is added or left away."""
    return torch.nn.functional.pad(token_ids, (0, max(0, width - token_ids.shape[1])))[:, :width]
