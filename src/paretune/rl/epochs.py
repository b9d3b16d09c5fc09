"""Learning from one batch: one or several optimiser steps, each from advantages under the policy as it is then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ModelError
from paretune.core.preferences import FloatArray
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs
from paretune.rl.advantages import reweighted, reweighted_kl, silenced
from paretune.rl.losses import clipped_loss, is_clipped, log_ratios, policy_gradient_loss, scalarise
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.objective_steps import ObjectiveSteps
from paretune.rl.parameter_groups import ParameterGroups
from paretune.rl.rollout import Batch
from paretune.rl.settings import LearnerSettings
from paretune.rl.trainees import Trainee

GAP_FP32, GAP_BF16 = 1e-3, 0.05  # nats a token by which sampling and update may differ on average


@dataclass(eq=False)
class UpdateReport:
    """What an update was, for R members.

    Attributes:
        norms: Gradient norm of the first epoch, before clipping.
        moved: Whether there was anything to learn from.
        gaps: Mean difference between the log-probabilities of sampling and of the first epoch, nats a token.
        ratios: Mean ratio of each later epoch.
        clipped: Share of completions (or tokens) held by the clip in each later epoch.
        objective_weights: `[K]` of each member where a weighting chose them.
        engine: How the gradients of objectives were made, where they were; see `objective_gradients`.
        conflicts: `[K]` of each member where gradients of objectives were made: the share of its steps that turned
            against each objective of its preference.
    """

    norms: list[float]
    moved: list[bool]
    gaps: list[float]
    ratios: list[list[float]] = field(default_factory=list)
    clipped: list[list[float]] = field(default_factory=list)
    objective_weights: list[list[float]] = field(default_factory=list)
    engine: str = ""
    conflicts: list[list[float | None]] = field(default_factory=list)

    def add_later(self, ratios: Tensor, clipped: Tensor) -> None:
        """Add a later epoch: ratio of each row `[B]`, and whether, or at which share, the clip holds it."""
        for epochs, rows in ((self.ratios, ratios), (self.clipped, clipped)):
            epochs.append(rows.double().view(len(self.norms), -1).mean(dim=1).tolist())

    def of(self, place: int) -> dict[str, object]:
        """Return what one member's event says."""
        event: dict[str, object] = {
            "grad_norm": self.norms[place], "moved": self.moved[place], "log_prob_gap": self.gaps[place],
        }  # fmt: skip
        if self.ratios:
            event["ratio"] = [epoch[place] for epoch in self.ratios]
            event["clipped"] = [epoch[place] for epoch in self.clipped]
        if self.objective_weights:
            event["objective_weights"] = self.objective_weights[place]
        if self.engine:
            event["engine"] = self.engine
        if self.conflicts:
            event["conflicts"] = self.conflicts[place]
        return event


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """One batch with its rewards, and all that the epochs need beside them.

    Attributes:
        batch: Completions, B rows: R members' blocks.
        mixing: Of the rows.
        shaped: Rewards after shaping `[B, K]`.
        made: Their advantages, without KL, `[B, K]`.
        first: Advantages of the first epoch with the KL folded in, `[B, K]`.
        reference: Log-probabilities of whole completions under the base model `[B]`.
        custom: Whether `made` is of an estimator of the method's own.
    """

    batch: Batch
    mixing: Mixing
    shaped: Tensor
    made: Tensor
    first: Tensor
    reference: Tensor
    custom: bool


class Epochs:
    """Takes the optimiser steps of an update."""

    def __init__(
        self, trainee: Trainee, beta: float, ranges: FloatArray, settings: LearnerSettings,
        parameter_groups: ParameterGroups, weightings: MemberWeightings,
    ) -> None:  # fmt: skip
        self.trainee, self.beta, self.settings = trainee, beta, settings
        self.parameter_groups, self.weightings = parameter_groups, weightings
        self.widths = torch.from_numpy(ranges[:, 1] - ranges[:, 0])
        self.by_objective = (
            ObjectiveSteps(trainee, settings, parameter_groups, weightings) if weightings.needs_gram else None
        )

    def learn(self, active: Sequence[int], scored: ScoredBatch, preferences: FloatArray) -> UpdateReport:
        """Take the steps of one update of some members.

        Raises:
            NonFiniteError: If a gradient is not finite.
            ModelError: If sampling and update disagree on the probability of what was sampled.
        """
        report = UpdateReport([], [], [])
        if self.by_objective is not None:
            self._learn_by_objective(self.by_objective, active, scored, report)
            return report
        weights = torch.from_numpy(self.weightings.rows(active, preferences)).to(scored.first.dtype)
        if self.weightings.each:
            report.objective_weights = weights[:: len(weights) // len(active)].tolist()
        for epoch in range(self.settings.epochs):
            self._epoch(epoch, active, scored, weights, report)
        return report

    def _learn_by_objective(
        self, steps: ObjectiveSteps, active: Sequence[int], scored: ScoredBatch, report: UpdateReport
    ) -> None:
        """Take the steps of one update where weights are chosen from gradients: anew for each of them."""
        size = len(scored.first) // len(active)
        with self._precision():
            made = steps.gradients(scored.batch, scored.mixing, scored.first, size)
        report.gaps = self._gaps(active, scored.batch, (made.log_probs - scored.batch.log_probs).abs().sum(dim=1))
        step = steps.take(active, made.gradients, scored.first)
        report.norms, report.moved, report.engine = step.norms, step.moved, made.engine
        report.objective_weights = step.objective_weights.tolist()
        against = [step.against]
        for _ in range(1, self.settings.epochs):
            weights = torch.from_numpy(step.objective_weights).repeat_interleave(size, dim=0).to(scored.first.dtype)
            now = torch.zeros(len(weights), device=self.trainee.bank.base.device)
            with torch.no_grad(), self._precision():
                for own, part, mixing in self._parts(scored, len(active)):
                    now[own] = self._log_probs(part, mixing).sum(dim=1)
            ratios, folded, held = self._advantages_now(now, scored.batch, scored, weights, slice(None))
            ratios = ratios.cpu().double()
            coefficients = folded * torch.where(held, 0.0, ratios)[:, None]
            with self._precision():
                made = steps.gradients(scored.batch, scored.mixing, coefficients, size)
            step = steps.take(active, made.gradients, coefficients)
            against.append(step.against)
            report.add_later(ratios, held)
        shares = np.mean(against, axis=0)
        report.conflicts = [steps.conflicts.shares_of(index, row) for index, row in zip(active, shares, strict=True)]

    def _epoch(
        self, epoch: int, active: Sequence[int], scored: ScoredBatch, weights: Tensor, report: UpdateReport
    ) -> None:
        count, size = len(active), len(weights) // len(active)
        scalar = scalarise(scored.first, weights)
        signal, gaps, ratios, clipped = torch.zeros(4, len(weights), dtype=torch.float64)
        for own, part, mixing in self._parts(scored, count):
            with self.trainee.bank.using(mixing), self._precision():
                log_probs = self._log_probs(part, mixing)
                if epoch == 0:
                    apart = (log_probs.detach() - part.log_probs[:, : log_probs.shape[1]]).abs().sum(dim=1)
                    gaps[own] = apart.cpu().double()
                    signal[own] = scalar[own].abs()
                    loss = policy_gradient_loss(log_probs, self._placed(scalar[own]), size)
                else:
                    loss, signal[own], ratios[own], clipped[own] = self._later(
                        log_probs, part, scored, scalar, weights, own, size
                    )
                loss.backward()
        if epoch == 0:
            report.gaps = self._gaps(active, scored.batch, gaps)
        moving = (signal.view(count, size) > 0).any(dim=1).tolist()
        norms = self.parameter_groups.step(self.trainee.take_gradients(active), active, moving)
        if epoch == 0:
            report.norms, report.moved = norms, moving
        else:
            report.add_later(ratios, clipped)

    def _later(
        self, log_probs: Tensor, part: Batch, scored: ScoredBatch, scalar: Tensor, weights: Tensor, own: slice | Tensor,
        size: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Return the loss of a part in a later epoch, and `[B']`: sizes of advantages, mean ratios, shares clipped."""
        clip = self.settings.clip
        if self.settings.ratio == "token":
            sampled = part.log_probs[:, : log_probs.shape[1]]
            ratios, advantages = log_ratios(log_probs, sampled).exp(), self._placed(scalar[own])[:, None]
            steps = part.lengths[:, None].cpu()
            inside = torch.arange(ratios.shape[1])[None] < steps
            mean = (ratios.detach().cpu() * inside).sum(dim=1) / steps[:, 0]
            held = (is_clipped(ratios.detach(), advantages, clip).cpu() & inside).sum(dim=1) / steps[:, 0]
            return clipped_loss(ratios, advantages, size, clip), scalar[own].abs(), mean.double(), held.double()
        ratios, folded, held = self._advantages_now(log_probs.sum(dim=1), part, scored, weights[own], own)
        signal = scalarise(folded, weights[own])
        loss = clipped_loss(ratios, self._placed(signal), size, clip)
        return loss, signal.abs(), ratios.detach().cpu().double(), held.double()

    def _advantages_now(
        self, log_probs: Tensor, part: Batch, scored: ScoredBatch, weights: Tensor, own: slice | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what completions of log-probabilities `[B']` are in a later epoch.

        Returns:
            Their ratios `[B']`, with the gradient of the log-probabilities; their advantages with the KL as it is now,
            `[B', K]`; and which of them the clip holds under objective weights `[B', K]`, `[B']`.
        """
        ratios = log_ratios(log_probs, part.log_probs.sum(dim=1)).exp()
        group, seen = self.settings.group_size, ratios.detach().cpu().double()
        kl = log_probs.detach().cpu().double() - scored.reference[own]
        if scored.custom:
            made = reweighted_kl(scored.made[own], kl, seen, self.beta, group)
        else:
            made = reweighted(scored.shaped[own], kl, seen, self.beta, group)
        folded = silenced(made, self.widths, group)
        return ratios, folded, is_clipped(seen, scalarise(folded, weights), self.settings.clip)

    def _parts(self, scored: ScoredBatch, members: int) -> Iterator[tuple[slice | Tensor, Batch, Mixing]]:
        """Yield what each pass is over, equally many rows of every member: which rows, their completions and mixing."""
        size = len(scored.first) // members
        micro = self.settings.micro_batch or size
        if micro >= size:
            yield slice(None), scored.batch, scored.mixing
            return
        for start in range(0, size, micro):
            width = min(micro, size - start)
            rows = torch.cat(
                [torch.arange(place * size + start, place * size + start + width) for place in range(members)]
            )
            yield rows, scored.batch.take(rows.to(scored.batch.token_ids.device)), scored.mixing.rows(rows)

    def _log_probs(self, part: Batch, mixing: Mixing) -> Tensor:
        """Return the log-probability of each token as the members are now, `[B', T]`, up to the longest completion."""
        bank, used = self.trainee.bank, int(part.lengths.max())
        return completion_log_probs(bank.base, bank, mixing, part.prompt_ids, part.token_ids[:, :used], part.lengths)

    def _placed(self, advantages: Tensor) -> Tensor:
        return advantages.to(self.trainee.bank.base.device, torch.float32)

    def _gaps(self, active: Sequence[int], batch: Batch, apart: Tensor) -> list[float]:
        """Return by how many nats a token each member's log-probabilities differ, of sums `[B]`; none by too many."""
        tokens = batch.lengths.view(len(active), -1).sum(dim=1).cpu()
        gaps: list[float] = (apart.cpu().double().view(len(active), -1).sum(dim=1) / tokens).tolist()
        half = self.trainee.bank.base.dtype != torch.float32 or self.settings.update_dtype == "bfloat16"
        limit, worst = GAP_BF16 if half else GAP_FP32, int(np.argmax(gaps))
        if gaps[worst] > limit:
            wanted = self.trainee.members[active[worst]].objective_weights.round(3).tolist()
            raise ModelError(
                f"log-probabilities of sampling and of the update must agree within {limit:g} nats a token, got "
                f"{gaps[worst]:.4f} on average from member {active[worst]}, trained for {wanted}. The model reads a "
                "cached prefix in another way than the whole text: check its attention and positions, or sample with "
                "another engine."
            )
        return gaps

    @contextmanager
    def _precision(self) -> Iterator[None]:
        if self.settings.update_dtype == "model":
            yield
            return
        with torch.autocast(self.trainee.bank.base.device.type, dtype=torch.bfloat16):
            yield
