"""Learning from one batch: one or several optimiser steps, each from advantages under the policy as it is then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretune.core.errors import ModelError
from paretune.core.preferences import FloatArray
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs, log_probs_and_entropies
from paretune.rl.advantages import reweighted, reweighted_kl, silenced
from paretune.rl.kl_control import distance
from paretune.rl.losses import clipped_loss, is_clipped, log_ratios, policy_gradient_loss, scalarise
from paretune.rl.member_weightings import MemberWeightings
from paretune.rl.objective_steps import ObjectiveSteps
from paretune.rl.parameter_groups import ParameterGroups
from paretune.rl.replay import History, Replay
from paretune.rl.rollout import Batch
from paretune.rl.settings import LearnerSettings
from paretune.rl.step_rows import Pass, StepRows
from paretune.rl.token_terms import TokenTerms
from paretune.rl.trainees import Trainee
from paretune.rl.update_report import UpdateReport

GAP_FP32, GAP_BF16 = 1e-3, 0.05  # nats a token by which sampling and update may differ on average


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """One batch with its rewards, and all that the epochs need beside them.

    Attributes:
        batch: Completions, B rows: R members' blocks.
        mixing: Of the rows.
        asked: What each was sampled for, `[B, K]`.
        shaped: Rewards after shaping `[B, K]`.
        made: Their advantages, without KL, `[B, K]`.
        first: Advantages of the first epoch with the KL folded in, `[B, K]`.
        widths: How much advantages could differ, see `signal_widths`, `[B, K]`.
        weights: Of the objectives in each row `[B, K]`; the preferences where they are chosen from gradients.
        reference: Log-probabilities of whole completions under the base model `[B]`.
        betas: KL coefficient of each row that is folded into advantages, `[B]`.
        factors: What a completion's tokens count in the loss, see `completion_factors`, `[B]`.
        terms: What else is in the loss.
        custom: Whether `made` is of another estimator than leave-one-out.
    """

    batch: Batch
    mixing: Mixing
    asked: FloatArray
    shaped: Tensor
    made: Tensor
    first: Tensor
    widths: Tensor
    weights: Tensor
    reference: Tensor
    betas: Tensor
    factors: Tensor
    terms: TokenTerms | None
    custom: bool


@dataclass(frozen=True, eq=False)
class Later:
    """What completions are in an epoch after the first.

    Attributes:
        ratios: Of completions or their roots by length `[B]`, or of tokens `[B, T]`, with gradient.
        folded: Advantages with the KL as it is now `[B, K]`.
        held: Which ratios the clip holds, of their shape.
        apart: Log-ratios of whole completions `[B]`.
        factors: What a completion's tokens count, see `completion_factors`, `[B]`.
        lengths: Tokens of each completion `[B]`.
        rooted: Whether ratios are roots by length.
    """

    ratios: Tensor
    folded: Tensor
    held: Tensor
    apart: Tensor
    factors: Tensor
    lengths: Tensor
    rooted: bool = False

    @property
    def counts(self) -> Tensor:
        """What a ratio counts beside its advantage, `[B]`: a root by length stands for each token of its completion."""
        return self.factors * self.lengths.cpu() if self.rooted else self.factors

    def described(self) -> tuple[Tensor, Tensor]:
        """Return the mean ratio of each completion, and whether, or at which share, the clip holds it, `[B]` each."""
        ratios, held = self.ratios.detach().cpu(), self.held.cpu()
        if ratios.ndim == 1:
            return ratios.double(), held.double()
        steps = self.lengths[:, None].cpu()
        inside = torch.arange(ratios.shape[1])[None] < steps
        mean, share = ((each * inside).sum(dim=1) / steps[:, 0] for each in (ratios, held))
        return mean.double(), share.double()

    def coefficients(self) -> tuple[Tensor, Tensor | None]:
        """Return what the log-probabilities count in the gradient of each objective `[B, K]`, and of each token.

        A completion has one number for all its tokens, or a token has one for all objectives, `[B, T]`.
        """
        moving = torch.where(self.held.to(self.ratios.device), 0.0, self.ratios.detach())
        if moving.ndim == 2:
            return self.folded * self.factors[:, None], moving
        return self.folded * (moving.cpu().double() * self.factors)[:, None], None


@dataclass(eq=False)
class Tally:
    """What the passes of a step say of each completion of the update, `[B]` each."""

    signal: Tensor  # how much it has to say
    gaps: Tensor  # between sampling and update, nats
    ratios: Tensor  # of later epochs
    clipped: Tensor  # whether the clip holds it
    apart: Tensor  # log-ratio of the whole completion
    entropy: Tensor  # of its tokens, summed

    @classmethod
    def of(cls, completions: int) -> Tally:
        """Return one of so many completions."""
        return cls(*torch.zeros(6, completions, dtype=torch.float64))


class Epochs:
    """Takes the optimiser steps of an update."""

    def __init__(
        self,
        trainee: Trainee,
        settings: LearnerSettings,
        parameter_groups: ParameterGroups,
        weightings: MemberWeightings,
        replay: Replay,
    ) -> None:
        self.trainee, self.settings, self.replay = trainee, settings, replay
        self.parameter_groups, self.weightings = parameter_groups, weightings
        self.by_objective = (
            ObjectiveSteps(trainee, settings, parameter_groups, weightings) if weightings.needs_gram else None
        )

    def learn(self, active: Sequence[int], scored: ScoredBatch, updates: Sequence[int]) -> UpdateReport:
        """Take the steps of one update of some members.

        Args:
            active: Members, all with something to learn again or all without.
            scored: Their completions.
            updates: Updates made by each member of the trainee.

        Raises:
            NonFiniteError: If a gradient is not finite.
            ModelError: If sampling and update disagree on the probability of what was sampled.
        """
        report = UpdateReport([], [], [])
        if self.settings.stop_kl:
            report.stopped = [False] * len(active)
        if self.by_objective is not None:
            self._learn_by_objective(self.by_objective, active, scored, report)
            return report
        if self.weightings.each:
            report.objective_weights = scored.weights[:: len(scored.weights) // len(active)].tolist()
        for epoch in range(self.settings.epochs):
            self._epoch(epoch, active, scored, report, self.replay.draw(active, updates, epoch))
        return report

    def _learn_by_objective(
        self, steps: ObjectiveSteps, active: Sequence[int], scored: ScoredBatch, report: UpdateReport
    ) -> None:
        """Take the steps of one update where weights are chosen from gradients: anew for each of them."""
        batch, size = scored.batch, len(scored.first) // len(active)
        first = scored.first * scored.factors[:, None]
        with self._precision():
            made = steps.gradients(batch, scored.mixing, first, size, terms=scored.terms)
        report.gaps = self._gaps(active, batch, (made.log_probs - batch.log_probs).abs().sum(dim=1))
        if made.entropies is not None:
            report.entropies = _by_token(made.entropies.sum(dim=1), batch.lengths, len(active))
        moving = self._moving(first.abs().sum(dim=1), scored.terms, report, len(active))
        step = steps.take(active, made.gradients, moving)
        report.norms, report.moved, report.engine = step.norms, step.moved, made.engine
        report.objective_weights = step.objective_weights.tolist()
        against = [step.against]
        for _ in range(1, self.settings.epochs):
            weights = torch.from_numpy(step.objective_weights).repeat_interleave(size, dim=0).to(scored.first.dtype)
            now = torch.zeros(batch.log_probs.shape, device=self.trainee.bank.base.device)
            with torch.no_grad(), self._precision():
                for part in StepRows.of(batch, scored.mixing, len(active)).passes(self.settings.micro_batch):
                    log_probs = self._log_probs(part, part.mixing)
                    now[part.own, : log_probs.shape[1]] = log_probs
            later = self._later(now, scored, weights, slice(None))
            coefficients, token_factors = later.coefficients()
            with self._precision():
                made = steps.gradients(batch, scored.mixing, coefficients, size, token_factors, scored.terms)
            self._stop(later.apart, report)
            moving = self._moving(coefficients.abs().sum(dim=1), scored.terms, report, len(active))
            step = steps.take(active, made.gradients, moving)
            against.append(step.against)
            report.add_later(*later.described())
        shares = np.mean(against, axis=0)
        report.conflicts = [steps.conflicts.shares_of(index, row) for index, row in zip(active, shares, strict=True)]

    def _epoch(
        self, epoch: int, active: Sequence[int], scored: ScoredBatch, report: UpdateReport, drawn: History | None
    ) -> None:
        count, size = len(active), len(scored.weights) // len(active)
        rows, again = StepRows.of(scored.batch, scored.mixing, count), torch.zeros(0, dtype=torch.float64)
        if drawn is not None:
            rows, again = self.replay.beside(active, scored.batch, scored.asked, drawn), again.new_zeros(len(drawn))
        tally = Tally.of(len(scored.weights))
        for part in rows.passes(self.settings.micro_batch):
            heard = self.trainee.hear() if self.trainee.gate_terms else None
            asked = part.mixing if heard is None else part.mixing.heard_by(heard, part.lengths)
            mixing = asked.resolved()  # a gate of rows weighs anew in every epoch
            with self.trainee.bank.using(mixing), self._precision():
                log_probs, entropies = self._scores(part, mixing, scored.terms)
                loss = log_probs.new_zeros(())
                if part.has_own:
                    loss = self._own_loss(epoch, part, log_probs, entropies, scored, tally, rows)
                if drawn is not None and len(part.again):
                    earlier, again[part.again] = self.replay.loss(
                        active, drawn, part.again, log_probs[part.again_at], scored.weights[::size], rows.each
                    )
                    loss = loss + earlier
                if heard is not None:
                    loss = loss + heard.penalty() * heard.share(part.lengths, rows.lengths) * count
                loss.backward()
        if drawn is not None:
            self.replay.charge(active, rows)
        signal = torch.cat([tally.signal.view(count, -1), again.view(count, -1)], dim=1)
        if epoch == 0:
            report.gaps = self._gaps(active, scored.batch, tally.gaps)
            if scored.terms is not None and scored.terms.entropy:
                report.entropies = _by_token(tally.entropy, scored.batch.lengths, count)
        else:
            self._stop(tally.apart, report)
        moving = self._moving(signal, scored.terms, report, count)
        norms = self.parameter_groups.step(self.trainee.take_gradients(active), active, moving)
        if epoch == 0:
            report.norms, report.moved = norms, moving
        else:
            report.add_later(tally.ratios, tally.clipped)

    def _own_loss(
        self, epoch: int, part: Pass, read: Tensor, entropies: Tensor | None, scored: ScoredBatch, tally: Tally,
        rows: StepRows,
    ) -> Tensor:  # fmt: skip
        """Return the loss of the update's completions in a pass, of log-probabilities of all its rows, `[B', T]`."""
        own, weights, width = part.own, scored.weights[part.own], scored.batch.log_probs.shape[1]
        log_probs, sampled = read[part.own_at][:, :width], scored.batch.log_probs[own][:, : read.shape[1]]
        if epoch == 0:
            advantages = scalarise(scored.first[own], weights) * scored.factors[own]
            tally.gaps[own] = (log_probs.detach() - sampled).abs().sum(dim=1).cpu().double()
            tally.signal[own] = advantages.abs()
            loss = policy_gradient_loss(log_probs, self._placed(advantages), rows.each)
        else:
            later = self._later(log_probs, scored, weights, own)
            loss = self._clipped(later, weights, rows.each)
            tally.signal[own] = scalarise(later.folded, weights).abs()
            tally.apart[own] = later.apart.cpu().double()
            tally.ratios[own], tally.clipped[own] = later.described()
        kept = None if entropies is None else entropies[part.own_at][:, :width]
        if scored.terms is not None:
            loss = loss + scored.terms.of(own, log_probs.shape[1]).loss(log_probs, kept)
        if kept is not None:
            tally.entropy[own] = kept.detach().sum(dim=1).cpu().double()
        return loss

    def _moving(self, signal: Tensor, terms: TokenTerms | None, report: UpdateReport, members: int) -> list[bool]:
        """Return which members take a step, by how much each completion has to say `[B]`."""
        heard: list[bool] = (signal.view(members, -1) > 0).any(dim=1).tolist()
        beside = [self.trainee.gate_terms is not None] * members
        if terms is not None:
            beside = [one or other for one, other in zip(beside, terms.moves(members), strict=True)]
        stopped = report.stopped or [False] * members
        return [(one or other) and not stop for one, other, stop in zip(heard, beside, stopped, strict=True)]

    def _stop(self, apart: Tensor, report: UpdateReport) -> None:
        """Note which members have moved far enough from the policy that sampled, by log-ratios `[B]`."""
        if report.stopped:
            far = distance(apart, len(report.stopped)) > self.settings.stop_kl
            report.stopped = [before or bool(now) for before, now in zip(report.stopped, far, strict=True)]

    def _clipped(self, later: Later, objective_weights: Tensor, size: int) -> Tensor:
        """Return the clipped loss of a later epoch under objective weights `[B', K]`."""
        advantages = self._placed(scalarise(later.folded, objective_weights) * later.counts)
        if later.ratios.ndim == 2:
            advantages = advantages[:, None]
        return clipped_loss(later.ratios, advantages, size, self.settings.clip)

    def _later(
        self, log_probs: Tensor, scored: ScoredBatch, objective_weights: Tensor, own: slice | Tensor
    ) -> Later:  # fmt: skip
        """Return what completions of log-probabilities `[B', T]` are in a later epoch, weighed by `[B', K]`."""
        clip, group, factors = self.settings.clip, self.settings.group_size, scored.factors[own]
        before, lengths = scored.batch.log_probs[own], scored.batch.lengths[own]
        whole = log_probs.sum(dim=1)
        apart = log_ratios(whole, before.sum(dim=1))
        seen = apart.detach().exp().cpu().double()
        if self.settings.ratio == "token":
            ratios, folded = log_ratios(log_probs, before[:, : log_probs.shape[1]]).exp(), scored.first[own]
            signs = self._placed(scalarise(folded, objective_weights) * factors)[:, None]
            return Later(ratios, folded, is_clipped(ratios.detach(), signs, clip), apart.detach(), factors, lengths)
        kl = whole.detach().cpu().double() - scored.reference[own]
        if scored.custom:
            made = reweighted_kl(scored.made[own], kl, seen, scored.betas[own], group)
        else:
            made = reweighted(scored.shaped[own], kl, seen, scored.betas[own], group)
        folded, rooted = silenced(made, scored.widths[own], group), self.settings.ratio == "sequence"
        ratios = (apart / lengths if rooted else apart).exp()
        held = is_clipped(ratios.detach().cpu().double(), scalarise(folded, objective_weights), clip)
        return Later(ratios, folded, held, apart.detach(), factors, lengths, rooted)

    def _log_probs(self, part: Pass, mixing: Mixing) -> Tensor:
        """Return the log-probability of each token as the members are now, `[B', T]`, up to the longest completion."""
        bank, used = self.trainee.bank, int(part.lengths.max())
        return completion_log_probs(bank.base, bank, mixing, part.prompt_ids, part.token_ids[:, :used], part.lengths)

    def _scores(self, part: Pass, mixing: Mixing, terms: TokenTerms | None) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities, and entropies where there is a bonus on them, `[B', T]` each."""
        if terms is None or not terms.entropy:
            return self._log_probs(part, mixing), None
        bank, used = self.trainee.bank, int(part.lengths.max())
        return log_probs_and_entropies(bank.base, bank, mixing, part.prompt_ids, part.token_ids[:, :used], part.lengths)

    def _placed(self, advantages: Tensor) -> Tensor:
        return advantages.to(self.trainee.bank.base.device, torch.float32)

    def _gaps(self, active: Sequence[int], batch: Batch, apart: Tensor) -> list[float]:
        """Return by how many nats a token each member's log-probabilities differ, of sums `[B]`; none by too many."""
        gaps = _by_token(apart, batch.lengths, len(active))
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


def _by_token(sums: Tensor, lengths: Tensor, members: int) -> list[float]:
    """Return the mean over each member's tokens, of sums over those of each completion `[B]`."""
    tokens = lengths.cpu().view(members, -1).sum(dim=1)
    means: list[float] = (sums.cpu().double().view(members, -1).sum(dim=1) / tokens).tolist()
    return means
