import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import ConfigError
from paretune.relations.labels import MARGIN, PairEstimate, each_pair, label

ends = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)
MIRROR = {"correlated": "competing", "competing": "correlated"}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.16, 0.9, "correlated"),
        (-0.9, -0.16, "competing"),
        (-0.15, 0.15, "independent"),
        (0.15, 0.9, "undetermined"),
        (-0.9, -0.15, "undetermined"),
        (-0.16, 0.0, "undetermined"),
        (0.0, 0.16, "undetermined"),
        (-0.9, 0.9, "undetermined"),
    ],
)
def test_label_says_where_the_interval_lies(low, high, expected):
    assert label(low, high) == expected


@pytest.mark.parametrize(("low", "high"), [(None, 0.1), (0.1, None), (math.nan, 0.1), (0.1, math.nan)])
def test_no_interval_has_no_label(low, high):
    assert label(low, high) is None


@given(ends)
def test_label_of_the_mirrored_interval_is_the_mirrored_label(interval):
    low, high = interval
    expected = label(low, high)
    assert label(-high, -low) == MIRROR.get(expected, expected)


@given(ends)
def test_a_wider_interval_never_says_something_else_than_undetermined(interval):
    low, high = interval
    assert label(low - 0.1, high + 0.1) in (label(low, high), "undetermined")


def test_labels_of_a_matrix_keep_its_places():
    pairs = each_pair(2, lambda i, j: PairEstimate(reason="nothing") if i == j else PairEstimate(i - j, i - j, i - j))
    assert pairs.labels() == ((None, "competing"), ("correlated", None))
    assert pairs.reasons == (("nothing", ""), ("", "nothing"))
    assert np.isnan(pairs.values).tolist() == [[True, False], [False, True]]


def test_margin_can_be_widened_and_must_be_positive():
    assert label(0.2, 0.3) == "correlated"
    assert label(0.2, 0.3, margin=0.4) == "independent"
    assert MARGIN == 0.15
    with pytest.raises(ConfigError, match=r"margin must be positive, got 0\."):
        label(0.2, 0.3, margin=0)


def test_ends_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"low must not lie above high, got 0\.3 and 0\.2\. Swap them"):
        label(0.3, 0.2)
