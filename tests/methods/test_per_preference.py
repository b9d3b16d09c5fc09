from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.core.errors import BudgetError, ConfigError
from paretune.core.preferences import das_dennis
from paretune.methods.per_preference import PerPreferenceSettings, planned_policies, trained_preferences


@given(objectives=st.integers(1, 4), divisions=st.integers(1, 4), affordable=st.integers(1, 40))
def test_no_more_policies_than_affordable_and_never_one_twice(objectives: int, divisions: int, affordable: int) -> None:
    wanted = das_dennis(objectives, divisions)
    trained = trained_preferences(wanted, affordable)
    assert len(trained) == min(len(wanted), affordable)
    assert len({tuple(row.round(9)) for row in trained}) == len(trained)
    if len(wanted) <= affordable:
        assert trained.tolist() == wanted.tolist()
    else:
        assert trained[:objectives].tolist() == np.eye(objectives)[: len(trained)].tolist()


def test_a_policy_is_planned_with_its_preference_and_its_part_of_the_budget() -> None:
    settings = PerPreferenceSettings(completions_each=100)
    planned = planned_policies(settings, np.asarray([[0.9, 0.1], [0.3, 0.7], [0.0, 1.0]]), 250)  # two, a corner first
    assert [(row.tolist(), length) for row, length in planned] == [([0, 1], 128), ([0.9, 0.1], 120)]  # 31 groups of 8


def test_even_a_budget_for_none_trains_one_if_it_holds_a_group() -> None:
    settings = PerPreferenceSettings(completions_each=100)
    assert len(planned_policies(settings, das_dennis(2, 2), 8)) == 1
    with pytest.raises(BudgetError, match="at least one group of 8 completions, got 7"):
        planned_policies(settings, das_dennis(2, 2), 7)


def test_less_than_a_group_for_a_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="completions_each must be at least one group of 8, got 7"):
        PerPreferenceSettings(completions_each=7)
