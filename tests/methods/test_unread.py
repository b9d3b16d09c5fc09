"""Settings that the chosen way of a method does not read are refused where they are given."""

from __future__ import annotations

from typing import Any

import pytest

from paretune.core.errors import ConfigError
from paretune.methods.entries import method_entry

SOFTMAX = {"gate_scale": 1.5, "gate_temperature": 2.0}
UNREAD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # method, settings nobody reads, and what would read them
    ("searched_soups", {"candidates": 8}, {"search": "random"}),
    ("searched_soups", {"l1": 0.1}, {"search": "gradient_free"}),
    ("searched_soups", {"step": 0.1}, {"search": "gradient_free"}),
    ("searched_soups", {"rate": 0.5}, {"search": "mirror_descent"}),
    ("searched_soups", {"difference": 0.1}, {"search": "mirror_descent"}),
    ("searched_soups", {"block": 1}, {"level": "hidden"}),
    ("merged_soups", {"density": 0.5}, {"merge": "ties"}),
    ("merged_soups", {"merged_rank": 8}, {"merge": "ties"}),
    ("mod", {"particles": 4}, {"correction": "importance"}),
    ("bone_soups", {"pilot_measured_each": 8}, {"pilot_share": 0.4}),
    ("contextual_bandit", {"exploration": 0.2, "algorithm": "greedy"}, {"algorithm": "linucb"}),
    ("contextual_bandit", {"features": 4, "context": "blind"}, {"context": "own"}),
    ("contextual_bandit", {"products": 2, "context": "blind"}, {"context": "shuffled"}),
    ("rewarded_soups", {"stretch_from": "base"}, {"stretch": 1.2}),
    ("mod", {"stretch_from": "base"}, {"stretch": 1.2}),
    ("hidden_mixing", {"continued": "base", "block": -1}, {"block": -2}),
    ("gated_experts", {"gate_block": 1}, {"gate": "token"}),
    *[("mixture_of_experts", {name: value}, {"form": "softmax"}) for name, value in SOFTMAX.items()],
    ("mixture_of_experts", {"gate": "none", "width": 8}, {"gate": "block"}),
    ("mixture_of_experts", {"gate": "none", "context": "blind"}, {"gate": "prompt"}),
    ("mixture_of_experts", {"gate": "none", "gate_kl": 1.0}, {"gate": "token"}),
    ("mixture_of_experts", {"experts_share": 0.5}, {"experts": "single_objective"}),
    ("mixture_of_experts", {"prior_share": 0.2}, {"experts": "single_objective", "prior": "search"}),
    (
        "mixture_of_experts",
        {"draw": "corners", "experts": "single_objective", "experts_share": 1, "gate": "none"},
        {"experts_share": 0.5},
    ),
    ("gated_experts", {"gate": "none", "gate_share": 0.5}, {"gate": "prompt"}),
    ("chebyshev", {"smoothing": 0.1, "form": "plain"}, {"form": "smooth"}),
    ("chebyshev", {"augmentation": 0.2}, {"form": "augmented"}),
    ("chebyshev", {"unit": "share"}, {"ideal": {"first": 0.5}}),
    ("thresholds", {"memory": 0.5}, {"level": "expected"}),
    ("thresholds", {"unit": "share"}, {"thresholds": {"first": 0.5}}),
    ("lagrangian", {"unit": "share"}, {"thresholds": {"first": 0.5}}),
    ("schedule", {"block_updates": 2}, {"kind": "blocks"}),
    ("schedule", {"draws": "dirichlet"}, {"kind": "random"}),
    ("dynaopt", {"fading": 0.5, "mode": "faithful"}, {"mode": "repaired"}),
    (
        "rewarded_soups",
        {"experts": {"kind": "cone", "eps": "inf", "metric": "plain"}},
        {"experts": {"kind": "cone", "eps": 0.0, "metric": "plain"}},
    ),
]


@pytest.mark.parametrize(("name", "settings", "reading"), UNREAD)
def test_what_nobody_reads_is_refused_and_taken_where_it_is_read(
    name: str, settings: dict[str, Any], reading: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"must be left out (where|without|in mode) .*, got .*\. \w"):
        method_entry(name, settings, "methods.x")
    method_entry(name, {**settings, **reading}, "methods.x")


def test_a_gate_of_ones_own_may_read_what_it_likes() -> None:
    given = {"gate": "paretune.models.gate:BlockGate", "gate_block": 1, "gate_temperature": 2.0}
    assert method_entry("mixture_of_experts", given, "x").method.settings.gate_block == 1
