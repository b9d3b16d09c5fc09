"""The ways to get policies for preferences, by family. One method, one file, one word."""

from __future__ import annotations

from paretune.core.checks import check_choice
from paretune.core.imports import import_name
from paretune.core.protocols import Method
from paretune.methods.asking import PAGE, check_method

METHODS = {
    "linear": "paretune.methods.single_policy.linear:Linear",
    "dynaopt": "paretune.methods.single_policy.dynaopt:DynaOpt",
    "mgda": "paretune.methods.single_policy.mgda:MGDA",
    "weight_grid": "paretune.methods.multi_policy.weight_grid:WeightGrid",
    "evolution": "paretune.methods.multi_policy.evolution:Evolution",
    "linear_support": "paretune.methods.multi_policy.linear_support:LinearSupport",
    "prediction_guided": "paretune.methods.multi_policy.prediction_guided:PredictionGuided",
    "rewarded_soups": "paretune.methods.meta_policy.rewarded_soups:RewardedSoups",
    "mod": "paretune.methods.meta_policy.mod:MOD",
    "hidden_mixing": "paretune.methods.meta_policy.hidden_mixing:HiddenMixing",
    "emorl": "paretune.methods.meta_policy.emorl:EMORL",
    "preference_conditioned": "paretune.methods.meta_policy.preference_conditioned:PreferenceConditioned",
    "mixture_of_experts": "paretune.methods.meta_policy.mixture_of_experts:MixtureOfExperts",
    "exact_gradient": "paretune.methods.exact_gradient:ExactGradient",
}
PARTS = ("name", "family", "version", "Settings", "stages", "assemble")


def resolve_method(name: str) -> type[Method]:
    """Return a method's class by its name in the table, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not in the table.
        ConfigError: If `module:Class` cannot be imported, or is not a method.
    """
    path = name if ":" in name else METHODS[check_choice("method", name, METHODS)]
    found = import_name("method", path, PARTS, PAGE)
    check_method(found, name)
    method: type[Method] = found
    return method
