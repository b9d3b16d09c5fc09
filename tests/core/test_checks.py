from __future__ import annotations

import numpy as np
import pytest

from paretune.core.checks import check_choice, check_seed, did_you_mean
from paretune.core.errors import ConfigError, UnknownNameError


def test_a_known_name_passes() -> None:
    assert check_choice("method", "linear", {"linear": 1, "mod": 2}) == "linear"


def test_an_unknown_name_is_refused_with_all_choices_and_the_closest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        check_choice("method", "emorl2", ["mod", "emorl", "fixed_weights"])
    assert str(caught.value) == ("method must be one of emorl, fixed_weights, mod, got 'emorl2'. Did you mean 'emorl'?")
    assert isinstance(caught.value, ConfigError)


def test_no_guess_is_made_when_nothing_is_close() -> None:
    assert did_you_mean("zzz", ["linear"]) == ""


@pytest.mark.parametrize("seed", [-1, 0.5, True, "3", None])
def test_a_seed_that_is_no_whole_number_from_0_on_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match=r"seed must be a whole number from 0 on, got .*\. Write 0, 1, 2, \.\.\.$"):
        check_seed(seed)


def test_a_seed_passes() -> None:
    assert check_seed(0) == 0
    assert type(check_seed(np.int64(3))) is int
