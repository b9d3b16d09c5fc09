from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError
from paretune.core.preference_text import PreferenceText, in_tenths


def test_a_preference_is_written_in_tenths() -> None:
    written = PreferenceText(("reflection", "brevity"))
    assert written.of(np.asarray([0.7, 0.3])) == "[reflection 0.7, brevity 0.3] "
    assert written.of(np.asarray([1.0, 0.0])) == "[reflection 1.0, brevity 0.0] "
    letters = PreferenceText(("x", "y"), "{preference} ", "{number}", " ", tuple("abcdefghijk"))
    assert letters.of(np.asarray([0.2, 0.8])) == "c i "
    assert PreferenceText(**letters.plain()) == letters  # type: ignore[arg-type]  # plain data of its own fields


def test_thirds_are_rounded_by_largest_remainders() -> None:
    """3.33 each: 3, 3 and 3, and the tenth that is left goes to the first of equal remainders."""
    np.testing.assert_allclose(in_tenths(np.full((1, 3), 1 / 3)), [[0.4, 0.3, 0.3]])


@given(seed=st.integers(0, 1000), objectives=st.integers(1, 6))
def test_tenths_stay_on_the_simplex_and_near(seed: int, objectives: int) -> None:
    given_ = np.random.default_rng(seed).dirichlet(np.ones(objectives), 5)
    found = in_tenths(given_)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - given_).max() < 0.1
    np.testing.assert_allclose(in_tenths(found), found)


def test_a_text_that_tells_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"text must hold \{preference\} and pair \{number\}"):
        PreferenceText(("x",), text="hello ")
    with pytest.raises(ConfigError, match="numerals must be 11 different words"):
        PreferenceText(("x",), numerals=("a",) * 11)
