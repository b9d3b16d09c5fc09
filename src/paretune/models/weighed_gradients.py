"""Gradients of K weighed sums of completions' log-probabilities, from one backward pass over the completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paretune.models.bank import ExpertBank
from paretune.models.capture import check_weighable
from paretune.models.mixing import Mixing
from paretune.models.readers.reader import PromptHeads, Reader
from paretune.models.scoring import can_share_prompts, completion_log_probs, length_parts, token_log_probs


def weighed_gradients(
    bank: ExpertBank,
    mixing: Mixing,
    prompts: Sequence[Sequence[int]],
    token_ids: Tensor,
    lengths: Tensor,
    coefficients: Tensor,
    token_factors: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return gradients of `sum_b c_bk sum_t f_bt log pi(y_bt | ...)` in each member, and log-probabilities.

    Exact. Completions keep to themselves, so one backward pass over them serves all objectives. A prompt that is read
    once for several completions does not: what each completion asks of its keys and values is weighed and summed for
    each objective, and taken back through the prompts K times, which are few tokens.

    Args:
        bank: The experts.
        mixing: A population of M members.
        prompts: Token ids of each row's prompt, B of them.
        token_ids: Completion ids `[B, T]`, right-padded.
        lengths: Tokens of each completion `[B]`.
        coefficients: `[B, K]`, the same for all tokens of a completion.
        token_factors: f `[B, T]`, the same for all objectives; all 1 when left out.

    Returns:
        Gradients `[K, M, P]`, columns as in `bank.flat`, and log-probabilities `[B, T]`, 0 behind the end.

    Raises:
        MixingError: If the mixing is no population.
        ShapeError: If there is not one row of coefficients for each row of the mixing.
    """
    check_weighable(mixing, coefficients)
    coefficients = coefficients.to(bank.base.device)
    if not can_share_prompts(bank.base):
        with bank.capturing(mixing, coefficients) as captured, torch.enable_grad():
            log_probs = completion_log_probs(bank.base, bank, mixing, prompts, token_ids, lengths, share_prompts=False)
            (log_probs if token_factors is None else log_probs * token_factors).sum().backward()
        return captured.gradients, log_probs.detach()
    with bank.using(mixing), torch.enable_grad():
        heads = Reader(bank.base, bank, mixing).heads(prompts)
        log_probs = torch.zeros(token_ids.shape, device=bank.base.device)
        parts, pulls = [], _Pulls(heads, coefficients)
        for rows in length_parts(mixing, lengths.cpu()):
            index, part = rows.to(bank.base.device), mixing.rows(rows)
            ids = token_ids[index, : int(lengths[index].max())]
            states = [(keys.detach().requires_grad_(), values.detach().requires_grad_())
                      for keys, values in heads.states(rows)]  # fmt: skip
            with bank.capturing(part, coefficients[index]) as captured:
                logits = heads.completion_logits(rows, ids, part, states)
                scored = token_log_probs(logits, ids, lengths[index])
                (scored if token_factors is None else scored * token_factors[index, : ids.shape[1]]).sum().backward()
            log_probs[index, : ids.shape[1]] = scored.detach()
            parts.append(captured.gradients)
            pulls.add(rows, states)
        return sum(parts, pulls.gradients(bank, mixing)), log_probs


class _Pulls:
    """What completions ask of the keys and values of their prompts, summed for each objective."""

    def __init__(self, heads: PromptHeads, coefficients: Tensor) -> None:
        self.owner, self.coefficients = heads.owner.to(coefficients.device), coefficients.float()
        self.states = [state for layer in heads.cache.layers for state in (layer.keys, layer.values)]
        objectives = coefficients.shape[1]
        self.sums = [torch.zeros(objectives, *state.shape, device=state.device) for state in self.states]

    def add(self, rows: Tensor, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add the gradients of some rows' copies."""
        index = rows.to(self.owner.device)
        owner = self.owner[index]
        chosen = torch.zeros(self.coefficients.shape[1], len(self.states[0]), len(owner), device=owner.device)
        chosen[:, owner, torch.arange(len(owner), device=owner.device)] = self.coefficients[index].T  # [K, heads, B']
        copies = [state for pair in states for state in pair]
        for total, copy in zip(self.sums, copies, strict=True):
            if copy.grad is not None:
                total += (chosen @ copy.grad.flatten(1).float()).view(total.shape)

    def gradients(self, bank: ExpertBank, mixing: Mixing) -> Tensor:
        """Return what they come to in the experts, `[K, M, P]`."""
        parameters = bank.expert_parameters()
        members = list(range(mixing.experts)) if mixing.members is None else list(mixing.members)
        rows = []
        for number in range(self.coefficients.shape[1]):
            asked = [total[number].to(state.dtype) for total, state in zip(self.sums, self.states, strict=True)]
            parts = torch.autograd.grad(
                self.states, parameters, asked, retain_graph=number + 1 < self.coefficients.shape[1],
                materialize_grads=True,
            )  # fmt: skip
            rows.append(torch.cat([part.flatten(1) for part in parts], dim=1)[members].float())
        return torch.stack(rows)
