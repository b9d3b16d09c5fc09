"""Terms of the loss that keep a gate near its prior, balance what experts are used for, or keep it undecided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paretune.models.gate import FLOOR, TrainedGate

LEAST = 1e-6  # of a squared mean weight: one of 0 has no coefficient of variation


@dataclass(frozen=True)
class GateTerms:
    """What a gate's weights cost beside the loss of the policy; each coefficient 0 is no such term.

    In the softmax form weights are probabilities times a scale, and all terms are of the probabilities. Means are over
    completion tokens (or rows, of a gate of prompts) and networks, of the weights before `top_1` selects among them.

    Attributes:
        kl: Of the distance to the prior. In the softmax form `KL(p || q)`, q the prior with `FLOOR` added, to which an
            untrained gate is equal; in the free form, which is none of probabilities, the squared distance
            `sum_e (g_e - prior_e)^2`.
        balance: Of the squared coefficient of variation of what the experts get on average over a pass, as the
            importance loss of Shazeer et al. 2017: 0 where all get the same.
        entropy: Of minus the entropy of p, in the softmax form: a bonus for what is undecided.
    """

    kl: float = 0.0
    balance: float = 0.0
    entropy: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> GateTerms | None:
        """Return the terms that a stage's settings ask for, `gate_kl` and so on; None where they ask for none."""
        found = [float(str(settings.get(f"gate_{name}", 0.0))) for name in ("kl", "balance", "entropy")]
        return cls(*found) if any(found) else None


@dataclass(eq=False)
class Heard:
    """What was heard of a gate's weights in one pass over some rows, with gradients.

    Attributes:
        gate: The gate.
        terms: What is made of it.
    """

    gate: TrainedGate
    terms: GateTerms
    _sums: dict[int, list[Tensor]] = field(default_factory=dict)  # of g [E], of distances, of entropies, and how many

    def hear(self, weights: Tensor, prior: Tensor, inside: Tensor, block: int) -> None:
        """Take weights `[B, T, E]`, the prior of the rows `[B, E]`, and which tokens count `[B, T]`."""
        chosen, count = weights[inside], inside.sum()
        chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        own = prior[:, None].expand(weights.shape)[inside].to(chosen)
        entropies = torch.zeros((), device=chosen.device)
        if self.gate.form == "softmax":
            chosen = chosen / self.gate.scale
            floored = own.clamp(min=0) + FLOOR
            logs = chosen.clamp(min=torch.finfo(chosen.dtype).tiny).log()
            entropies = -(chosen * logs).sum()
            far = (chosen * (logs - (floored / floored.sum(dim=-1, keepdim=True)).log())).sum()
        else:
            far = (chosen - own).square().sum()
        new = [chosen.sum(dim=0), far, entropies, count]
        before = self._sums.get(block)
        self._sums[block] = new if before is None else [one + other for one, other in zip(before, new, strict=True)]

    def share(self, lengths: Tensor, every: Tensor) -> float:
        """Return the part that a pass has in the means of a step.

        Args:
            lengths: Tokens of each completion of the pass `[B']`.
            every: Of each completion of the step `[B]`.
        """
        if self.gate.level == "prompt":
            return len(lengths) / len(every)
        return int(lengths.sum()) / max(1, int(every.sum()))

    def penalty(self) -> Tensor:
        """Return what a pass adds to the mean loss, times its `share`."""
        total = torch.zeros((), device=self.gate.flat.device)
        for used, far, entropies, count in self._sums.values():
            share = used / count
            variation = share.var(unbiased=False) / (share.mean().square() + LEAST)
            total = total + self.terms.kl * far / count + self.terms.balance * variation
            total = total - self.terms.entropy * entropies / count
        return total / max(1, len(self._sums))
