"""Terms of the loss that belong to tokens, and that all objectives have in common: KL in the loss, entropy bonus."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paretune.rl.losses import k3, log_ratios
from paretune.rl.settings import LearnerSettings

FAR = 1e-3  # nats of a token from the base model: below, the gradient of k3 is of the size of rounding errors


@dataclass(frozen=True, eq=False)
class TokenTerms:
    """What is added to the loss of some completions: `sum_bt (c_b k3_bt - h_b H_bt)`.

    Gradients of the entropy are those of each token's distribution, for the prefixes that were sampled: they do not
    count what a token does to the entropy of later ones.

    Attributes:
        kl: c, what a token's KL counts, `[B]`.
        entropy_bonus: h, what a token's entropy counts, `[B]`.
        reference: Log-probabilities of the tokens under the base model `[B, T]`.
        sampled: Under the policy that sampled them `[B, T]`.
        corrected: Whether k3 is multiplied by the ratio of its token, differentiated too.
        entropy: Whether there is an entropy bonus.
    """

    kl: Tensor
    entropy_bonus: Tensor
    reference: Tensor
    sampled: Tensor
    corrected: bool
    entropy: bool

    def of(self, rows: Tensor | slice, steps: int) -> TokenTerms:
        """Return the terms of some rows, up to a number of tokens."""
        return replace(
            self, kl=self.kl[rows], entropy_bonus=self.entropy_bonus[rows], reference=self.reference[rows, :steps],
            sampled=self.sampled[rows, :steps],
        )  # fmt: skip

    def loss(self, log_probs: Tensor, entropies: Tensor | None) -> Tensor:
        """Return what is added to a loss, from log-probabilities and entropies `[B, T]` with gradients."""
        apart = k3(log_probs, self.reference)
        if self.corrected:
            apart = apart * log_ratios(log_probs, self.sampled).exp()
        loss = (self.kl[:, None] * apart).sum()
        return loss if entropies is None else loss - (self.entropy_bonus[:, None] * entropies).sum()

    def moves(self, members: int) -> list[bool]:
        """Return which members the terms move, whatever their advantages are."""
        far = ((self.sampled - self.reference).abs() > FAR).any(dim=1) & (self.kl > 0)
        moved: list[bool] = (far | (self.entropy_bonus > 0)).view(members, -1).any(dim=1).tolist()
        return moved


def has_terms(settings: LearnerSettings) -> bool:
    """Return whether settings ask for terms of tokens."""
    return settings.kl_estimator != "k1" or settings.entropy_coef != 0


def token_terms(
    settings: LearnerSettings, betas: Tensor, factors: Tensor, lengths: Tensor, members: int, reference: Tensor,
    sampled: Tensor,
) -> TokenTerms | None:  # fmt: skip
    """Return the terms that settings ask for, None where they ask for none.

    Args:
        settings: `kl_estimator` and `entropy_coef`; the bonus is of the mean over a member's tokens, as in TRL.
        betas: KL coefficient of each completion `[B]`.
        factors: What a completion's tokens count, `completion_factors`, `[B]`.
        lengths: Tokens of each completion `[B]`.
        members: Whose completions they are, one block after the other.
        reference: Log-probabilities of the tokens under the base model `[B, T]`.
        sampled: Under the policy that sampled them `[B, T]`.
    """
    if not has_terms(settings):
        return None
    own = lengths.cpu().double().view(members, -1)
    bonus = (settings.entropy_coef / own.sum(dim=1, keepdim=True)).expand_as(own).flatten()
    kl = torch.zeros_like(betas) if settings.kl_estimator == "k1" else betas * factors / own.shape[1]
    steps = int(lengths.max())
    return TokenTerms(
        kl.to(sampled), bonus.to(sampled), reference[:, :steps], sampled[:, :steps],
        settings.kl_estimator == "k3_corrected", settings.entropy_coef > 0,
    )  # fmt: skip
