from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paretune.core.errors import ConfigError, MethodError, UnknownNameError
from paretune.core.protocols import Mixer, method

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
        ({"norm": "after"}, "norm of a mixer must be 'before' but at level 'hidden' behind the last block, -1, got"),
        ({"level": "hidden", "block": 0, "norm": "after"}, "got 'after' at level 'hidden', block 0. Name the last"),
        ({"level": "hidden", "divergence": "forward_kl"}, "divergence of a mixer must be named at level 'log_probs'"),
        ({"level": "probabilities", "particles": 2}, "must be 1 but at level 'log_probs' under 'reverse_kl', got 2"),
        ({"level": "log_probs", "particles": 2, "divergence": "forward_kl"}, "got 2 at level 'log_probs' under 'for"),
        ({"level": "log_probs", "particles": 0}, "particles must be a whole number from 1 on, got 0. Try 8"),
        ({"level": "log_probs", "particles": 2.0}, "particles must be a whole number from 1 on, got 2.0. Try 8"),
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


@dataclass(frozen=True)
class Own:
    rank: int = 8


@method("mine", "meta-policy", version=2)
class Mine:
    """Says what it is for."""

    settings: Own

    def rank(self) -> int:
        return self.settings.rank


def test_a_method_has_its_header_and_is_made_with_its_settings() -> None:
    assert (Mine.name, Mine.family, Mine.version, Mine.Settings) == ("mine", "meta-policy", 2, Own)
    assert Mine(Own(3)).rank() == 3
    assert Mine.__doc__ == "Says what it is for."
    assert Mine(Own()) != Mine(Own())  # a method is told from another by what a study calls it


def test_a_method_that_does_not_say_what_its_settings_are_is_refused() -> None:
    with pytest.raises(MethodError, match=r"Bare must annotate its settings, got no such line\. Write 'settings: E"):

        @method("bare", "meta-policy")
        class Bare:
            pass
