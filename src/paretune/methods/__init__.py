"""The ways to get policies for preferences, by family. One method, one file, one word."""

from __future__ import annotations

import importlib

from paretune.core.checks import check_choice
from paretune.core.errors import ConfigError
from paretune.core.protocols import Method

METHODS = {
    "linear": "paretune.methods.single_policy.linear:Linear",
    "dynaopt": "paretune.methods.single_policy.dynaopt:DynaOpt",
    "mgda": "paretune.methods.single_policy.mgda:MGDA",
    "weight_grid": "paretune.methods.multi_policy.weight_grid:WeightGrid",
    "evolution": "paretune.methods.multi_policy.evolution:Evolution",
    "rewarded_soups": "paretune.methods.meta_policy.rewarded_soups:RewardedSoups",
    "preference_conditioned": "paretune.methods.meta_policy.preference_conditioned:PreferenceConditioned",
    "mixture_of_experts": "paretune.methods.meta_policy.mixture_of_experts:MixtureOfExperts",
    "exact_gradient": "paretune.methods.exact_gradient:ExactGradient",
}


def resolve_method(name: str) -> type[Method]:
    """Return a method's class by its name in the table, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not in the table.
        ConfigError: If `module:Class` cannot be imported, or is not a method.
    """
    path = name if ":" in name else METHODS[check_choice("method", name, METHODS)]
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: no module name
        raise ConfigError(
            f"method must be a name or an importable 'module:Class', got '{name}' ({error}). Check the spelling, and "
            "that the module's folder is on the import path."
        ) from error
    missing = [
        part for part in ("name", "family", "version", "Settings", "stages", "assemble") if not hasattr(found, part)
    ]
    if missing:
        raise ConfigError(
            f"method '{name}' must have name, family, version, Settings, stages and assemble, got none of "
            f"{', '.join(missing)}. See docs/your_method.md for a complete one."
        )
    method: type[Method] = found
    return method
