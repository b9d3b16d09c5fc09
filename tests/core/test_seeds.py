from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paretune.core.seeds import GOLDEN, generator, prompt_key, row_keys, stream_key, uniforms

ROWS, TOKENS = 400, 50
MASK = 2**64 - 1


def keys_of(count: int, seed: int = 3) -> np.ndarray:
    return row_keys(seed, 0, prompt_key([1, 2, 3]), range(count))


@given(seed=st.integers(-(2**70), 2**70), first=st.integers(0, 40), split=st.integers(0, 10))
def test_draws_split_over_calls_are_the_draws_of_one_call(seed: int, first: int, split: int) -> None:
    keys = keys_of(5, seed)
    whole = uniforms(keys, first, 10)
    parts = np.hstack([uniforms(keys, first, split), uniforms(keys, first + split, 10 - split)])
    np.testing.assert_array_equal(whole, parts)


def test_draws_of_a_row_are_bit_equal_in_any_batch_and_order() -> None:
    keys = keys_of(20)
    order = np.random.default_rng(0).permutation(20)
    whole = uniforms(keys, 0, 7)
    np.testing.assert_array_equal(uniforms(keys[order], 0, 7), whole[order])
    np.testing.assert_array_equal(np.vstack([uniforms(keys[row : row + 1], 0, 7) for row in range(20)]), whole)


def test_draws_are_those_of_the_published_generator() -> None:
    # SplitMix64 from state 0: first outputs of the reference implementation (Vigna, splitmix64.c)
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    draws = uniforms(np.zeros(1, dtype=np.uint64), 0, 3)[0]
    # half of the step of 2^-52 by which draws are kept away from 0 and 1
    np.testing.assert_allclose(draws, [x / 2**64 for x in published], atol=2.0**-52)


def test_draws_are_uniform_across_rows_tokens_and_neighbouring_seeds() -> None:
    # p of a right generator is below 1e-4 in one of 10,000 tests; the seeds are fixed
    by_sample = uniforms(keys_of(ROWS), 0, TOKENS)
    by_seed = uniforms(row_keys(np.arange(ROWS), 0, 7, 0), 0, TOKENS)
    by_step = uniforms(row_keys(0, np.arange(ROWS), 7, 0), 0, TOKENS)
    for draws in (by_sample, by_seed, by_step):
        assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
        cells = np.histogram(draws.ravel(), bins=64, range=(0, 1))[0]
        assert stats.chisquare(cells).pvalue > 1e-4


def test_neighbouring_tokens_and_rows_are_independent() -> None:
    draws = uniforms(keys_of(ROWS), 0, TOKENS)
    for one, other in ((draws[:, :-1], draws[:, 1:]), (draws[:-1], draws[1:])):
        pairs = np.histogram2d(one.ravel(), other.ravel(), bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-4


def unmix(value: int) -> int:
    """Return the state that the generator's bijection turns into `value`."""

    def unshift(x: int, by: int) -> int:
        out = x
        for _ in range(64 // by):
            out = x ^ (out >> by)
        return out

    value = unshift(value, 31) * pow(0x94D049BB133111EB, -1, 2**64) & MASK
    value = unshift(value, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) & MASK
    return unshift(value, 30)


@pytest.mark.parametrize("bits", [0, MASK])
def test_even_the_most_extreme_draws_lie_strictly_between_0_and_1(bits: int) -> None:
    key = (unmix(bits) - int(GOLDEN)) & MASK  # its first draw has exactly these bits
    (draw,) = uniforms(np.asarray([key], dtype=np.uint64), 0, 1)[0]
    assert 0 < draw < 1
    assert draw == pytest.approx(round(bits / MASK), abs=1e-12)


def test_every_part_of_a_row_gives_another_stream() -> None:
    parts = {"seed": 1, "step": 2, "prompt": 3, "sample": 4}
    keys = {int(row_keys(**parts)[0])}
    keys |= {int(row_keys(**{**parts, name: value + 10})[0]) for name, value in parts.items()}
    swapped = {int(row_keys(2, 1, 3, 4)[0]), int(row_keys(1, 2, 4, 3)[0]), int(row_keys(3, 2, 1, 4)[0])}
    assert len(keys | swapped) == 8


def test_many_rows_have_many_keys() -> None:
    keys = row_keys(np.repeat(np.arange(50), 200), np.tile(np.repeat(np.arange(20), 10), 50), 5, list(range(10)) * 1000)
    assert len(np.unique(keys)) == 10_000


def test_parts_of_a_key_broadcast_and_may_be_negative_or_large() -> None:
    assert row_keys([0, 1], 0, 9, 0).shape == (2,)
    assert row_keys(-1, 0, 0, 0) == row_keys(MASK, 0, 0, 0)
    assert row_keys(0, 0, 2**63 + 1, 0) != row_keys(0, 0, 1, 0)


def test_a_prompt_key_depends_on_ids_and_order_not_on_their_container() -> None:
    assert prompt_key([1, 2]) == prompt_key((1, 2)) == prompt_key(np.asarray([1, 2], dtype=np.int32))
    assert prompt_key([1, 2]) != prompt_key([2, 1])
    assert prompt_key([1]) != prompt_key([1, 0])


def test_named_streams_repeat_and_differ() -> None:
    assert stream_key(1, "prompts") == stream_key(1, "prompts")
    assert stream_key(1, "prompts") != stream_key(11, "prompts")
    assert stream_key(1, 23) != stream_key(12, 3)
    np.testing.assert_array_equal(generator(1, "x").random(4), generator(1, "x").random(4))
    assert not np.array_equal(generator(1, "x").random(4), generator(2, "x").random(4))


def test_keys_are_the_same_on_every_machine_and_in_every_version() -> None:
    # a study that goes on after an upgrade must draw the same noise; a change here needs a new KEY_VERSION
    assert stream_key(0, "prompts") == STREAM
    assert prompt_key([1, 2, 3]) == PROMPT
    assert int(row_keys(1, 2, 3, 4)[0]) == ROW


STREAM, PROMPT, ROW = 8230570937312542537, 13041116711478803063, 15374388949593934587
