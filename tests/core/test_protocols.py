from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretune.core.errors import ConfigError, UnknownNameError
from paretune.core.protocols import Mixer

GATE = Path("gate.safetensors")


def test_mixers_are_equal_where_they_mix_alike() -> None:
    assert Mixer() == Mixer("adapters") != Mixer(gate=GATE)
    assert Mixer("hidden", 2) == Mixer("hidden", block=2) != Mixer("hidden")
    assert Mixer("hidden", continued="soup") != Mixer("hidden")
    assert len({Mixer(), Mixer("log_probs"), Mixer("adapters")}) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "log_probs", "block": 1}, "at level 'hidden' alone, got 1 at level 'log_probs'. Leave it out"),
        ({"block": 0}, "at level 'hidden' alone, got 0 at level 'adapters'"),
        (
            {"level": "log_probs", "continued": "soup"},
            "must be 'base' but at level 'hidden', got 'soup' at level 'log_",
        ),
        ({"level": "hidden", "gate": GATE}, "gate of a mixer must mix adapters, got one at level 'hidden'. Leave"),
        ({"level": "log_probs", "gate": GATE}, "gate of a mixer must mix adapters, got one at level 'log_probs'"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixer(**settings)


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"level of a mixer must be one of .*'logits'") as caught:
        Mixer("logits")  # type: ignore[arg-type]  # the point of the test
    assert "adapters, hidden, log_probs" in str(caught.value)
