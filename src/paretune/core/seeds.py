"""Counter-based randomness: a draw depends on what it is for, never on what was drawn before it or beside it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRST_TUNING_SEED = 10_000  # instances from here on are for choosing settings; results on them are never reported
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the increment of SplitMix64
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MASK = 2**64 - 1


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _MIX1
    state = (state ^ (state >> np.uint64(27))) * _MIX2
    return np.asarray(state ^ (state >> np.uint64(31)))


def stream_key(*parts: int | str | bytes) -> int:
    """Return a 64-bit key for a named stream, e.g. `stream_key(seed, step, "prompts")`."""
    text = b"\x1f".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(*parts: int | str | bytes) -> np.random.Generator:
    """Return a numpy generator for a named stream."""
    return np.random.Generator(np.random.Philox(key=stream_key(*parts)))


def prompt_key(prompt_ids: ArrayLike) -> int:
    """Return the 64-bit digest of a prompt's token ids."""
    return stream_key(np.asarray(prompt_ids, dtype=np.int64).tobytes())


def row_keys(seed: ArrayLike, step: ArrayLike, prompt: ArrayLike, sample: ArrayLike) -> NDArray[np.uint64]:
    """Combine the parts of a row's identity into one key per row, by broadcasting.

    Args:
        seed: Seeds, any integers.
        step: Training steps; 0 outside training.
        prompt: Values of `prompt_key`.
        sample: Index of the sample of its prompt.

    Returns:
        Keys `[B]`.
    """
    parts = [
        np.asarray([int(x) & _MASK for x in np.ravel(np.asarray(part, dtype=object))], dtype=np.uint64)
        for part in (seed, step, prompt, sample)
    ]
    seeds, steps, prompts, samples = np.broadcast_arrays(*parts)
    with np.errstate(over="ignore"):
        key = _mix(seeds + GOLDEN)
        for part in (steps, prompts, samples):
            key = _mix((key ^ part) + GOLDEN)
    return np.asarray(key)


def uniforms(keys: NDArray[np.uint64], first: int, count: int) -> NDArray[np.float64]:
    """Return draws in (0, 1) for tokens `first .. first + count - 1` of each row's stream, `[B, count]`.

    Equal keys give bit-equal draws in any batch, in any order, however the tokens are split over calls.

    Source:
        Steele, Lea and Flood 2014 (SplitMix64), which is a hash of a counter.
    """
    with np.errstate(over="ignore"):
        counters = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        bits = _mix(keys[:, None] + counters[None, :])
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # of 53 bits, the largest rounds up to 1
