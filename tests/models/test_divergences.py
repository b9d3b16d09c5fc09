from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from paretune.core.errors import ConfigError, NonFiniteError, ShapeError
from paretune.models import divergences
from paretune.models.divergences import (
    DIVERGENCES,
    alpha_divergence,
    forward_kl,
    jensen_shannon,
    reverse_kl,
)

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
MIXES: dict[str, Mix] = {
    **DIVERGENCES,
    "alpha .5": partial(alpha_divergence, alpha=0.5),
    "alpha 2": partial(alpha_divergence, alpha=2.0),
}
ALPHA = {"alpha .5": 0.5, "alpha 2": 2.0}


def f(name: str, x: Any) -> Any:
    """The divergence as it is defined, `sum_y q(y) f(p(y) / q(y))`."""
    if name == "reverse_kl":
        return x * np.log(x)
    if name == "forward_kl":
        return -np.log(x)
    if name == "jensen_shannon":
        return x * np.log(x) - (x + 1) * np.log((x + 1) / 2)
    a = ALPHA[name]
    return (x ** (1 - a) - (1 - a) * x - a) / (a * (a - 1))


def slope(name: str, x: Any) -> Any:
    """The derivative of `f`, by central differences: none of the formulas that are tested."""
    step = 1e-5 * x
    return (f(name, x + step) - f(name, x - step)) / (2 * step)


def brute_force(name: str, experts: Any, reference: Any, weights: Any) -> Any:
    """Maximise `E_p sum_e w_e r_e - D_f(p || ref)` over p, `r_e = f'(p_e / ref)` being what expert e is best for."""
    rewards = sum(w * slope(name, p / reference) for w, p in zip(weights, experts, strict=True))

    def loss(logits: Any) -> float:
        p = np.exp(logits - np.logaddexp.reduce(logits))
        return float(-(p @ rewards - reference @ f(name, p / reference)))

    found = minimize(loss, np.log(reference), method="BFGS", options={"gtol": 1e-9}).x
    return np.exp(found - np.logaddexp.reduce(found))


def drawn(tokens: int, experts: int, seed: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    return generator.dirichlet(np.ones(tokens), experts) * 0.9 + 0.1 / tokens, np.full(tokens, 1 / tokens) * 0.5 + (
        generator.dirichlet(np.ones(tokens)) * 0.5
    )


def logs(*arrays: Any) -> list[Tensor]:
    return [torch.tensor(np.log(each)) for each in arrays]


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("tokens", [3, 5])
@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.5, 0.2), (1.3, -0.3)])
def test_the_mixture_is_what_minimisation_finds(name: str, tokens: int, weights: tuple[float, ...]) -> None:
    experts, reference = drawn(tokens, 2, seed=tokens)
    made = MIXES[name](*logs(experts, reference), torch.tensor(weights)).exp().numpy()
    # differences of 1e-10 in a function are what float64 leaves: 1e-5 of the place of its minimum
    np.testing.assert_allclose(made, brute_force(name, experts, reference, weights), atol=2e-5)


def test_values_derived_on_paper() -> None:
    """Uniform reference over two tokens; expert 1 says (p, 1 - p), expert 2 says (1 - p, p), equal weights.

    By symmetry the answer is (1/2, 1/2) for every divergence. With expert 2 the reference itself and p = .8, .2:
    reverse KL: odds (.8 / .2)^{1/2} = 2, so 2/3. Forward KL: `1 / p1 = 2 z + (1 / .8 + 2) / 2 = 2 z + 1.625` and
    `1 / p2 = 2 z + (5 + 2) / 2 = 2 z + 3.5`; p1 + p2 = 1 asks `(1 / p1 - 1) (1 / p2 - 1) = 1`; with u = 2 z:
    `u^2 + 3.125 u + .5625 = 0`, u = -.19206 and p1 = .69786. Jensen-Shannon: `v = p / (p + .5)` of expert 1 is
    (8 / 13, 2 / 7), of the reference 1/2; v* = c (sqrt(4 / 13), sqrt(1 / 7)) and p* = .5 v / (1 - v).
    """
    experts, reference = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log(), torch.tensor([0.5, 0.5]).log()
    half = torch.tensor([0.5, 0.5])
    for mix in MIXES.values():
        torch.testing.assert_close(mix(experts, reference, half).exp(), half)
    beside = torch.stack([experts[0], reference])
    assert float(reverse_kl(beside, reference, half)[0].exp()) == pytest.approx(2 / 3, abs=1e-6)
    assert float(forward_kl(beside, reference, half)[0].exp()) == pytest.approx(
        1 / ((-3.125 + np.sqrt(3.125**2 - 4 * 0.5625)) / 2 + 1.625), abs=1e-6
    )
    made = jensen_shannon(beside, reference, half).exp().double()
    shares = made / (made + 0.5)
    assert float(shares[0] / shares[1]) == pytest.approx(np.sqrt(4 / 13 * 7), abs=1e-5)
    # what published code says in the place of the forward KL: the harmonic mean, normalised
    assert float(forward_kl(beside, reference, half)[0].exp()) != pytest.approx(3.5 / (3.5 + 1.625), abs=1e-3)


@pytest.mark.parametrize("name", MIXES)
def test_one_weight_is_that_expert_equal_experts_are_the_expert_and_none_the_reference(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    experts = (3 * torch.randn(3, 4, 50, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)
    reference = (3 * torch.randn(4, 50, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)
    mix, close = MIXES[name], {"atol": 1e-8, "rtol": 0.0}
    for expert, one_hot in enumerate(torch.eye(3)):
        torch.testing.assert_close(mix(experts, reference, one_hot), experts[expert], **close)
    same = experts[:1].expand(3, -1, -1)
    torch.testing.assert_close(mix(same, reference, torch.tensor([0.2, 0.3, 0.5])), experts[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mix(experts, reference, torch.zeros(3)), reference, **close)
    shared = torch.tensor([0.2, 0.3, 0.1])
    made = mix(experts, reference, shared)
    torch.testing.assert_close(made.logsumexp(dim=-1), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(mix(experts, reference, shared[:, None].expand(3, 4)), made)
    swapped = mix(experts.flip(0), reference, shared.flip(0))
    torch.testing.assert_close(swapped, made, **close)
    whole = torch.cat([experts, reference[None]])  # the reference has what weights leave, said or not
    torch.testing.assert_close(mix(whole, reference, torch.tensor([0.2, 0.3, 0.1, 0.4])), made, atol=1e-6, rtol=0)


def test_the_alpha_divergence_lies_between_both_kl() -> None:
    experts, reference = drawn(5, 2, seed=3)
    tables = logs(experts, reference)
    half = torch.tensor([0.4, 0.6])
    small = alpha_divergence(*tables, half, 1e-6)
    torch.testing.assert_close(small, reverse_kl(*tables, half), atol=1e-5, rtol=0)  # to first order in alpha
    torch.testing.assert_close(alpha_divergence(*tables, half, 1.0), forward_kl(*tables, half))


@pytest.mark.parametrize("name", MIXES)
def test_gradients_are_those_of_differences(name: str) -> None:
    experts, reference = drawn(4, 2, seed=1)
    logits = torch.tensor(np.log(experts), requires_grad=True)
    (own,) = logs(reference)

    def mixed(raw: Tensor) -> Tensor:
        return MIXES[name](raw.log_softmax(dim=-1), own, torch.tensor([0.3, 0.5]))

    assert torch.autograd.gradcheck(mixed, (logits,), atol=1e-6)


@pytest.mark.parametrize("name", MIXES)
def test_experts_that_all_but_exclude_a_token_are_mixed_without_overflow(name: str) -> None:
    logits = torch.tensor([[0.0, -900.0, 1.0], [0.0, 2.0, -2000.0]], dtype=torch.float64)
    made = MIXES[name](logits.log_softmax(dim=-1), torch.full((3,), 1 / 3).log(), torch.tensor([0.5, 0.5]))
    assert bool(torch.isfinite(made).all())
    assert float(made[0]) > -1e-6  # the only token that both may say


def solved(name: str, experts: Tensor, reference: Tensor, weights: Tensor) -> list[float]:
    """Return the mixture by halving, in decimal numbers, whose exponents have no bounds to speak of."""
    # 1 - e^x of x = e^-700 has 300 digits
    with localcontext(prec=400 if name == "jensen_shannon" else 60, Emin=-(10**9), Emax=10**9):
        own, w = [Decimal(float(log)).exp() for log in reference], [Decimal(float(each)) for each in weights]
        ratios = [[q / Decimal(float(log)).exp() for log, q in zip(expert, own, strict=True)] for expert in experts]
        if name == "jensen_shannon":
            powers = [[(1 / (1 + each)).ln() * by for each in row] for by, row in zip(w, ratios, strict=True)]
            sums = [-sum(column) for column in zip(*powers, strict=True)]
        else:
            powers = [[each ** {"alpha 3": 3}.get(name, 1) * by for each in row]
                      for by, row in zip(w, ratios, strict=True)]  # fmt: skip
            sums = [sum(column) for column in zip(*powers, strict=True)]
        least = min(sums)

        def mixed(log: Decimal) -> list[Decimal]:  # of t; of C / (1 - C), turned round
            if name == "jensen_shannon":
                left = 1 / (1 + (-log).exp())
                share = [(1 - left) * (least - each).exp() for each in sums]
                return [q * c / (left + (1 - left) * (1 - (least - each).exp()))
                        for q, c, each in zip(own, share, sums, strict=True)]  # fmt: skip
            root = Decimal(1) / {"alpha 3": 3}.get(name, 1)
            return [q / (each - least + log.exp()) ** root for q, each in zip(own, sums, strict=True)]

        low, high = Decimal(-10000), Decimal(0)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(mixed(middle)) > 1 else (low, middle)
        return [float(each.ln()) for each in mixed(high)]


# the Jensen-Shannon divergence takes seconds, which lie in the oracle: two unknowns, one nested in the other
@pytest.mark.parametrize(
    ("name", "spread", "weights"),
    [
        pytest.param(name, spread, weights, marks=[pytest.mark.slow] * (name == "jensen_shannon" and number > 0))
        for name, spread in (("forward_kl", 400), ("alpha 3", 100), ("jensen_shannon", 300))
        for number, weights in enumerate([(0.5, 0.2), (0.3, 0.7), (1.0, 0.0), (1.3, -0.3)])
    ],
)
def test_experts_that_are_hundreds_of_nats_apart_are_mixed_as_exactly(
    name: str, spread: float, weights: tuple[float, ...]
) -> None:
    """Tokens whose sums, or how far these are apart, no number of float64 could be: e^1000 and e^-1000."""
    generator, mix = torch.Generator().manual_seed(0), {**MIXES, "alpha 3": partial(alpha_divergence, alpha=3.0)}[name]
    logits = spread * torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    *experts, reference = logits.log_softmax(dim=-1)
    both, given = torch.stack(experts).requires_grad_(), torch.tensor(weights, dtype=torch.float64)
    made = mix(both, reference, given)
    rows = [solved(name, both[:, row].detach(), reference[row], given) for row in range(4)]
    expected = torch.tensor(rows, dtype=torch.float64)
    # sums of probabilities are right to 1e-10, and so are logarithms of 3e-7 to 3e-4
    torch.testing.assert_close(made.exp(), expected.exp(), atol=1e-9, rtol=0)
    likely = expected > -15
    torch.testing.assert_close(made[likely], expected[likely], atol=1e-3, rtol=0)
    made.exp().square().sum().backward()
    assert bool(torch.isfinite(both.grad).all())  # type: ignore[arg-type]  # there is one


@pytest.mark.parametrize("name", MIXES)
def test_tokens_that_are_equal_have_gradients(name: str) -> None:
    logits, own = torch.tensor([[1.0, -1.0, -3.0], [-1.0, 1.0, -3.0]]).double(), torch.full((3,), 1 / 3).double().log()

    def mixed(raw: Tensor) -> Tensor:
        return MIXES[name](raw.log_softmax(dim=-1), own, torch.tensor([0.5, 0.5]))

    assert torch.autograd.gradcheck(mixed, (logits.requires_grad_(),), atol=1e-6)


def test_nothing_times_the_largest_number_is_nothing_in_float32() -> None:
    log_sum, share = divergences._log_sum(torch.tensor([-200.0]), torch.zeros(1), torch.zeros(1))
    assert (log_sum.item(), share.item()) == (-200, 1)


@pytest.mark.parametrize("name", ["forward_kl", "jensen_shannon"])
def test_a_normaliser_that_is_not_found_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[0.0, -20.0, 5.0], [0.0, 9.0, -20.0]], dtype=torch.float64).log_softmax(dim=-1)
    reference, half = torch.tensor([0.9, 0.05, 0.05]).double().log(), torch.tensor([0.5, 0.5])
    assert MIXES[name](logits, reference, half).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    monkeypatch.setattr(divergences, "STEPS", 0)  # left in the middle between its bounds
    with pytest.raises(NonFiniteError, match=r"found in 0 steps, got probabilities whose sum is off by \d"):
        MIXES[name](logits, reference, half)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_only_in_float32_may_the_root_be_as_far_as_its_sums_are(dtype: torch.dtype) -> None:
    """Bounds that leave the root, 0, out: all steps end 1e-4 away, where the last softmax would hide it."""
    table, bound = torch.tensor([0.25, 0.75], dtype=dtype).log(), torch.tensor(1e-4, dtype=dtype)

    def terms(root: Tensor) -> tuple[Tensor, Tensor]:
        return table + root[..., None], torch.ones_like(table)

    if dtype == torch.float64:
        with pytest.raises(
            NonFiniteError, match=r"found in 100 steps, got probabilities whose sum is off by 0\.0001 in"
        ):
            divergences._normalised(terms, bound, bound, rises=True)
    else:
        torch.testing.assert_close(divergences._normalised(terms, bound, bound, rises=True), table)


def test_what_is_no_table_of_log_probabilities_is_refused() -> None:
    experts, reference, half = torch.full((2, 4), 0.25).log(), torch.full((4,), 0.25).log(), torch.tensor([0.5, 0.5])
    with pytest.raises(ShapeError, match=r"expert_log_probs must be \[E, \.\.\., V\] .* got shapes \[2, 4\] and \[3\]"):
        reverse_kl(experts, reference[:3], half)
    with pytest.raises(ShapeError, match=r"expert_weights must be \[2\], one for each expert, .* got shape \[3\]"):
        forward_kl(experts, reference, torch.ones(3))
    with pytest.raises(ShapeError, match="expert_log_probs must be normalised"):
        jensen_shannon(experts + 1, reference, half)
    with pytest.raises(ShapeError, match=r"reference_log_probs must be finite, got NaN or infinity\. Mask no"):
        jensen_shannon(experts, torch.tensor([0.5, 0.5, 0.0, 0.0]).log(), half)
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"alpha must be finite and above 0, got .*\. The limit 0 is reverse_kl"):
            alpha_divergence(experts, reference, half, alpha)
