"""Policy gradients of each objective by itself: how the objectives pull at experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.core.preferences import FloatArray
from paretune.models.bank import ExpertBank
from paretune.models.capture import check_weighable
from paretune.models.mixing import Mixing
from paretune.models.scoring import completion_log_probs, log_probs_and_entropies
from paretune.models.weighed_gradients import weighed_gradients
from paretune.rl.losses import policy_gradient_loss
from paretune.rl.token_terms import TokenTerms

COLUMNS = 2**18  # of all gradients that are multiplied in double precision at a time
ENGINES = ("auto", "one_backward", "two_backward", "per_objective")

Engine = Literal["auto", "one_backward", "two_backward", "per_objective"]


@dataclass(frozen=True, eq=False)
class PopulationGradients:
    """Gradients of K losses in the parameters of each of M members.

    Attributes:
        gradients: `[K, M, P]`, columns as in `bank.flat`.
        log_probs: Of every completion token under the members as they are, `[B, T]`, 0 behind the end.
        engine: `one_backward`, `two_backward` or `per_objective`: how they were made.
        entropies: Of every completion token `[B, T]`, nats, where the losses have a bonus on them; else None.
    """

    gradients: Tensor
    log_probs: Tensor
    engine: str
    entropies: Tensor | None = None


def population_gradients(
    bank: ExpertBank,
    mixing: Mixing,
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
    advantages: Tensor,
    completions_each: int,
    engine: Engine = "auto",
    micro_batch: int = 0,
    token_factors: Tensor | None = None,
    terms: TokenTerms | None = None,
) -> PopulationGradients:
    """Return the gradients of the K losses `-(1/N) sum_b A_bk sum_t f_bt log pi(y_bt | ...)` of every member.

    For any objective weights, `sum_k weights_k gradient_k` is the gradient of `policy_gradient_loss` of the weighed
    advantages. What backward passes have left in the bank's parameters stays as it is.

    All engines are exact. In tokens read C of completions and D of distinct prompts, a pass back costing b of one
    forward, `one_backward` costs `(1 + b) C + (1 + K b) D` and `per_objective`, which goes back K times over all,
    `(1 + K b) (C + D)`. Terms of tokens, which all objectives have in common, are no sum of completions with weights
    of their own: they take one more pass there and back, `two_backward`. So `auto` takes the first of these that is
    exact where there is more than one objective.

    Args:
        bank: The experts.
        mixing: A population of M members.
        prompt_ids: Token ids of each completion's prompt, B of them, adapter-major.
        token_ids: Completion ids `[B, T]`, right-padded.
        lengths: Tokens of each completion `[B]`.
        advantages: `[B, K]`.
        completions_each: N, completions of one member in the whole update; gradients of its parts add up.
        engine: How to make them.
        micro_batch: Completions of one member in a pass; 0: all at once.
        token_factors: f `[B, T]`, the same for all objectives; all 1 when left out.
        terms: What is added to every loss.

    Raises:
        MixingError: If the mixing is no population.
        ShapeError: If there is not one row of advantages per completion.
        UnknownNameError: If there is no such engine.
        ConfigError: If the engine cannot make these gradients.
        NonFiniteError: If a gradient is not finite.

    Source:
        Williams 1992 (REINFORCE).
    """
    check_choice("engine", engine, ENGINES)
    check_weighable(mixing, advantages)
    device = bank.base.device
    token_ids, lengths = token_ids.to(device), lengths.to(device)
    advantages = advantages.to(device, torch.float32)
    objectives = advantages.shape[1]
    total = torch.zeros(objectives, mixing.blocks, bank.parameters_each(), device=device)
    log_probs = torch.zeros(token_ids.shape, device=device)
    entropies = torch.zeros_like(log_probs) if terms is not None and terms.entropy else None
    used = _engine(engine, objectives, terms)
    for part, rows in _parts(mixing, micro_batch):
        index, steps = rows.to(device), int(lengths[rows.to(device)].max())
        batch = _Batch(
            bank, part, [prompt_ids[row] for row in rows.tolist()], token_ids[index, :steps], lengths[index],
            advantages[index], completions_each, None if token_factors is None else token_factors[index, :steps],
        )  # fmt: skip
        own = None if terms is None else terms.of(index, steps)
        made, scored, spread = batch.per_objective(terms=own) if used == "per_objective" else batch.one_backward(own)
        total += made
        log_probs[index, :steps] = scored
        if entropies is not None and spread is not None:
            entropies[index, :steps] = spread
    return PopulationGradients(_finite(total), log_probs, used, entropies)


def _engine(engine: Engine, objectives: int, terms: TokenTerms | None) -> str:
    """Return the engine that makes the gradients, the one that is asked for if it can."""
    if engine == "auto":
        several = "one_backward" if terms is None else "two_backward"
        return several if objectives > 1 else "per_objective"
    if engine != "per_objective" and (engine == "two_backward") != (terms is not None):
        has = "terms of tokens" if terms is not None else "no terms of tokens"
        raise ConfigError(
            f"engine must be one that is exact for these losses, got '{engine}' for losses with {has}. Take 'auto'."
        )
    return engine


def up_projections(bank: ExpertBank) -> list[nn.Parameter]:
    """Return the factors B of all layers: in an expert that starts as the base model, only they have a gradient."""
    return [layer.B for layer in bank.layers.values()]


def objective_gradients(
    bank: ExpertBank,
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
    advantages: Tensor,
    parameters: Sequence[nn.Parameter],
) -> Tensor:
    """Return the policy gradient `mean_b A_bk grad log pi(y_b | x_b)` of every objective, `[K, P]`, on the CPU.

    It points to where the expected reward rises. One forward pass serves all objectives, which take a backward pass
    each.

    Args:
        bank: A bank of one expert.
        prompt_ids: Token ids of each completion's prompt, B of them.
        token_ids: Completions that the expert sampled, `[B, T]`, right-padded.
        lengths: Tokens of each completion `[B]`.
        advantages: `[B, K]`.
        parameters: Which of the bank's parameters; P numbers in all.

    Raises:
        ShapeError: If the bank has more than one expert, or there is not one row of advantages per completion.
        NonFiniteError: If a gradient is not finite.

    Source:
        Williams 1992 (REINFORCE).
    """
    count = len(prompt_ids)
    if bank.experts != 1:
        raise ShapeError(f"bank must have one expert, got {bank.experts}. Make one of its own.")
    if advantages.ndim != 2 or len(advantages) != count:
        raise ShapeError(
            f"advantages must have one row per completion ({count}), got shape {list(advantages.shape)}. Score each."
        )
    device, used = bank.base.device, int(lengths.max())
    batch = _Batch(
        bank, Mixing.population(1, count), prompt_ids, token_ids[:, :used].to(device), lengths.to(device),
        advantages.to(device, torch.float32), count,
    )  # fmt: skip
    gradients, _, _ = batch.per_objective(parameters)
    return -_finite(gradients[:, 0].cpu())


@dataclass(frozen=True, eq=False)
class _Batch:
    """Completions of a population that are scored together."""

    bank: ExpertBank
    mixing: Mixing
    prompt_ids: Sequence[Sequence[int]]
    token_ids: Tensor
    lengths: Tensor
    advantages: Tensor
    completions_each: int
    token_factors: Tensor | None = None

    def one_backward(self, terms: TokenTerms | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return gradients `[K, M, P]` and log-probabilities `[B, T]` by one backward pass over the completions.

        Terms take a second one; a bonus on entropies adds these, `[B, T]`.
        """
        made, log_probs = weighed_gradients(
            self.bank, self.mixing, self.prompt_ids, self.token_ids, self.lengths,
            -self.advantages / self.completions_each, self.token_factors,
        )  # fmt: skip
        if terms is None:
            return made, log_probs, None
        with self.bank.using(self.mixing), torch.enable_grad():
            again, entropies = self._scored(terms)
            parts = torch.autograd.grad(terms.loss(again, entropies), self.bank.expert_parameters())
        made = made + torch.cat([part.flatten(1) for part in parts], dim=1)[self._members()].float()
        return made, log_probs, None if entropies is None else entropies.detach()

    def _members(self) -> list[int]:
        return list(range(self.mixing.experts)) if self.mixing.members is None else list(self.mixing.members)

    def _scored(self, terms: TokenTerms | None) -> tuple[Tensor, Tensor | None]:
        given = self.bank.base, self.bank, self.mixing, self.prompt_ids, self.token_ids, self.lengths
        return log_probs_and_entropies(*given) if terms and terms.entropy else (completion_log_probs(*given), None)

    def per_objective(
        self, parameters: Sequence[nn.Parameter] | None = None, terms: TokenTerms | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same by K backward passes; columns are those of the given parameters, by default all."""
        chosen = self.bank.expert_parameters() if parameters is None else list(parameters)
        rows = []
        with self.bank.using(self.mixing), torch.enable_grad():
            log_probs, entropies = self._scored(terms)
            weighed = log_probs if self.token_factors is None else log_probs * self.token_factors
            columns = self.advantages.unbind(dim=1)
            for number, column in enumerate(columns, start=1):
                loss = policy_gradient_loss(weighed, column, self.completions_each)
                if terms is not None:
                    loss = loss + terms.loss(log_probs, entropies)
                parts = torch.autograd.grad(loss, chosen, retain_graph=number < len(columns))
                rows.append(torch.cat([part.flatten(1) for part in parts], dim=1)[self._members()].float())
        return torch.stack(rows), log_probs.detach(), None if entropies is None else entropies.detach()


def _parts(mixing: Mixing, micro_batch: int) -> Iterator[tuple[Mixing, Tensor]]:
    """Yield parts of a population, some rows of each member: their mixing, and which rows."""
    each = mixing.rows_each
    starts = torch.arange(mixing.blocks)[:, None] * each
    for first in range(0, each, micro_batch or each):
        own = torch.arange(first, min(first + (micro_batch or each), each))
        yield Mixing.population(mixing.experts, len(own), mixing.members), (starts + own).flatten()


def _finite(gradients: Tensor) -> Tensor:
    if not bool(torch.isfinite(gradients).all()):
        raise NonFiniteError(
            "gradients of objectives must be finite, got NaN or infinity. Check the base model in fp32."
        )
    return gradients


def gram_in_metric(gradients: Tensor, diagonal: Tensor) -> FloatArray:
    """Return the inner products `J P J'` of each member's K gradients, in double precision, `[M, K, K]`.

    P is what the optimiser multiplies a gradient by, as Adam does: a direction that improves all objectives under one
    metric need not do so under another. Some columns at a time, so that no second copy of all gradients is made.

    Args:
        gradients: `[K, M, P]`.
        diagonal: Of the metric P, `[M, P]`, non-negative.

    Raises:
        ShapeError: If the arguments disagree on members or parameters, or an entry of the diagonal is negative.
        NonFiniteError: If the result is not finite.
    """
    if gradients.ndim != 3 or diagonal.shape != gradients.shape[1:]:
        raise ShapeError(
            f"diagonal must be [M, P] for gradients [K, M, P], got {list(diagonal.shape)} and {list(gradients.shape)}. "
            "Take both of the same members."
        )
    if bool((diagonal < 0).any()):
        raise ShapeError(f"diagonal must be non-negative, got {float(diagonal.min())}. Take the root of a square.")
    objectives, members, parameters = gradients.shape
    total = torch.zeros(members, objectives, objectives, dtype=torch.float64, device=gradients.device)
    step = max(1, COLUMNS // max(1, objectives * members))
    for start in range(0, parameters, step):
        part = gradients[:, :, start : start + step].double().transpose(0, 1)  # [M, K, columns]
        total += torch.bmm(part * diagonal[:, None, start : start + step].double(), part.mT)
    if not bool(torch.isfinite(total).all()):
        raise NonFiniteError("inner products of gradients must be finite, got NaN or infinity. Check the metric.")
    return np.asarray(total.cpu().numpy())


def gram_of(gradients: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return the inner products of N batches' gradients `[K, P]`, in double precision, `[N, N, K, K]`.

    Some columns at a time, so that no second copy of all gradients is made.
    """
    batches, objectives = len(gradients), len(gradients[0])
    total = torch.zeros(batches * objectives, batches * objectives, dtype=torch.float64)
    step = max(1, COLUMNS // len(total))
    for start in range(0, gradients[0].shape[1], step):
        part = torch.cat([each[:, start : start + step] for each in gradients]).double()
        total += part @ part.T
    return np.asarray(total.view(batches, objectives, batches, objectives).permute(0, 2, 1, 3).numpy())
