from __future__ import annotations

import pytest

from paretune.core.errors import NonFiniteError
from paretune.pareto.linear_program import solved


def test_the_lowest_cost_of_a_triangle_is_at_its_corner() -> None:
    """Of x + y <= 1, both from 0 on, -x - 2 y is lowest at (0, 1)."""
    found, lowest = solved([-1, -2], A_ub=[[1, 1]], b_ub=[1])
    assert found.tolist() == [0, 1]
    assert lowest == -2


@pytest.mark.parametrize(
    "constraints", [{"A_ub": [[1]], "b_ub": [-1]}, {"bounds": [(None, None)]}], ids=["nothing", "no end"]
)
def test_what_has_no_lowest_is_said(constraints) -> None:
    with pytest.raises(NonFiniteError, match=r"must have a solution, got none: .*[^.]\. Scale scores to the size of 1"):
        solved([1], **constraints)
