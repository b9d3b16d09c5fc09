from __future__ import annotations

import pytest

from paretune.core.checks import check_choice, did_you_mean
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
