from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from paretune.core.errors import NonFiniteError, ShapeError
from paretune.optimum.products import (
    local_normalisers,
    prefix_conditionals,
    product_log_probs,
    token_product_log_probs,
)


def random_tables(experts: int = 2, prompts: int = 3, completions: int = 8, seed: int = 0) -> tuple[Any, Any]:
    """Return experts `[E, P, Y]` and a base `[P, Y]`."""
    raw = np.random.default_rng(seed).normal(size=(experts + 1, prompts, completions))
    whole = raw - np.logaddexp.reduce(raw, axis=-1, keepdims=True)
    return whole[1:], whole[0]


def test_a_product_of_two_coins_is_what_paper_says() -> None:
    """(4/5)^2 (1/5)^-1 : (1/5)^2 (4/5)^-1 = 16/5 : 1/20 = 64 : 1, with weights 2 and -1 for (4/5, 1/5), (1/5, 4/5)."""
    experts = np.log([[[0.8, 0.2]], [[0.2, 0.8]]])
    made = product_log_probs(experts, np.log([[0.5, 0.5]]), np.asarray([2.0, -1.0]))
    assert np.exp(made)[0].tolist() == pytest.approx([8 * 64 / (8 * 65), 8 / (8 * 65)])


def test_what_weights_leave_of_one_is_the_base_model() -> None:
    """(4/5)^(1/2) (1/2)^(1/2) : (1/5)^(1/2) (1/2)^(1/2) = 2 : 1."""
    made = product_log_probs(np.log([[[0.8, 0.2]]]), np.log([[0.5, 0.5]]), np.asarray([0.5]))
    assert np.exp(made)[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_token_by_token_two_letters_are_what_paper_says() -> None:
    """Experts over aa, ab, ba, bb: first letters (3/4, 1/4) and (1/4, 3/4), weighed equally (1/2, 1/2); second letters
    behind a (2/3, 1/3) and (1, 1) / 2, whose roots are as sqrt 2 : 1; behind b (1/2, 1/2) for both."""
    experts = np.log([[[0.5, 0.25, 0.125, 0.125]], [[0.125, 0.125, 0.375, 0.375]]])
    half = np.asarray([0.5, 0.5])
    made = np.exp(token_product_log_probs(experts, np.log(np.full((1, 4), 0.25)), half, alphabet=2))[0]
    after_a = math.sqrt(2) / (1 + math.sqrt(2))
    assert made.tolist() == pytest.approx([0.5 * after_a, 0.5 * (1 - after_a), 0.25, 0.25])
    first = math.log(2 * math.sqrt(3) / 4)  # Z of the first letter: twice the root of 3/16
    behind_a = math.log((math.sqrt(2) + 1) / math.sqrt(6))
    divided = local_normalisers(experts, np.log(np.full((1, 4), 0.25)), half, alphabet=2)[0]
    assert divided.tolist() == pytest.approx([first + behind_a, first + behind_a, first, first])


@pytest.mark.parametrize("product", [product_log_probs, lambda *each: token_product_log_probs(*each, alphabet=2)])
def test_products_sum_to_one_and_know_each_expert_and_the_base(product: Any) -> None:
    experts, base = random_tables()
    weights = np.random.default_rng(1).uniform(-1, 2, size=(4, 3, 2))
    made = product(experts, base, weights)
    assert made.shape == (4, 3, 8)
    assert np.exp(made).sum(axis=-1) == pytest.approx(1.0)
    np.testing.assert_allclose(product(experts, base, np.zeros(2)), base, atol=1e-12)
    for number, corner in enumerate(np.eye(2)):
        np.testing.assert_allclose(product(experts, base, corner), experts[number], atol=1e-12)
    for p in range(3):  # each prompt by itself
        alone = product(experts[:, p : p + 1], base[p : p + 1], weights[2, p])
        np.testing.assert_allclose(alone[0], made[2, p], atol=1e-12)
    fixed = product(experts, base, weights[:, :1])
    np.testing.assert_allclose(fixed[1], product(experts, base, weights[1, 0]), atol=1e-12)


def test_conditionals_of_a_table_add_up_to_it() -> None:
    (table,), _ = random_tables(experts=1, completions=27)
    parts = prefix_conditionals(table, 3)
    assert [each.shape for each in parts] == [(3, 1, 3), (3, 3, 3), (3, 9, 3)]
    for each in parts:
        assert np.exp(each).sum(axis=-1) == pytest.approx(1.0)
    total = parts[0][:, :, :, None, None] + parts[1].reshape(3, 1, 3, 3, 1) + parts[2].reshape(3, 1, 3, 3, 3)
    np.testing.assert_allclose(total.reshape(3, 27), table, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (4, 2), (3, 1), (2, 2, 2), ()])
def test_weights_of_other_experts_or_prompts_are_refused(shape: tuple[int, ...]) -> None:
    experts, base = random_tables()
    with pytest.raises(
        ShapeError, match=r"expert_weights must have shape \[E\], .* E = 2 and P = 3, got .*\[M, 1, E\]"
    ):
        product_log_probs(experts, base, np.ones(shape))


def test_tables_that_do_not_fit_are_refused() -> None:
    experts, base = random_tables()
    for wrong in (experts[0], experts[:, :2]):
        with pytest.raises(ShapeError, match=r"must have shapes \[E, P, Y\] and \[P, Y\], got .* List the same"):
            product_log_probs(wrong, base, np.ones(2))
    for alphabet in (1, 3, 16):
        with pytest.raises(ShapeError, match=rf"must be all A\^L sequences .* got 8 for A = {alphabet}\. Give the"):
            token_product_log_probs(experts, base, np.ones(2), alphabet)


def test_what_is_not_finite_is_refused() -> None:
    experts, base = random_tables()
    with pytest.raises(NonFiniteError, match="expert_weights must be finite"):
        product_log_probs(experts, base, np.asarray([np.nan, 1.0]))
    experts[0, 0, 0] = -np.inf  # times a weight of 0 this would be NaN
    with pytest.raises(NonFiniteError, match=r"expert_log_probs must be finite, got NaN or infinity\. Leave out"):
        product_log_probs(experts, base, np.asarray([0.0, 1.0]))
