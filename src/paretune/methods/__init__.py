"""The ways to get policies for preferences, by family. One method, one file, one word."""

from __future__ import annotations

from collections.abc import Callable

from paretune.core.checks import check_choice
from paretune.core.imports import import_name
from paretune.core.protocols import Method
from paretune.methods.asking import PAGE, check_method

METHODS = {
    "linear": "paretune.methods.single_policy.linear:Linear",
    "one_policy": "paretune.methods.single_policy.one_policy:OnePolicy",
    "schedule": "paretune.methods.single_policy.schedule:Schedule",
    "chebyshev": "paretune.methods.single_policy.chebyshev:Chebyshev",
    "thresholds": "paretune.methods.single_policy.thresholds:Thresholds",
    "reward_combination": "paretune.methods.single_policy.reward_combination:RewardCombination",
    "lagrangian": "paretune.methods.single_policy.lagrangian:Lagrangian",
    "dynaopt": "paretune.methods.single_policy.dynaopt:DynaOpt",
    "contextual_dynaopt": "paretune.methods.single_policy.contextual_dynaopt:ContextualDynaOpt",
    "dorb": "paretune.methods.single_policy.dorb:DORB",
    "q_weighting": "paretune.methods.single_policy.q_weighting:QWeighting",
    "mgda": "paretune.methods.single_policy.mgda:MGDA",
    "pcgrad": "paretune.methods.single_policy.pcgrad:PCGrad",
    "cagrad": "paretune.methods.single_policy.cagrad:CAGrad",
    "upgrad": "paretune.methods.single_policy.upgrad:UPGrad",
    "weight_grid": "paretune.methods.multi_policy.weight_grid:WeightGrid",
    "linear_support": "paretune.methods.multi_policy.linear_support:LinearSupport",
    "prediction_guided": "paretune.methods.multi_policy.prediction_guided:PredictionGuided",
    "evolution": "paretune.methods.multi_policy.evolution:Evolution",
    "rewarded_soups": "paretune.methods.meta_policy.rewarded_soups:RewardedSoups",
    "bone_soups": "paretune.methods.meta_policy.bone_soups:BoneSoups",
    "iterative_soups": "paretune.methods.meta_policy.iterative_soups:IterativeSoups",
    "merged_soups": "paretune.methods.meta_policy.merged_soups:MergedSoups",
    "mod": "paretune.methods.meta_policy.mod:MOD",
    "probability_mixture": "paretune.methods.meta_policy.probability_mixture:ProbabilityMixture",
    "hidden_mixing": "paretune.methods.meta_policy.hidden_mixing:HiddenMixing",
    "emorl": "paretune.methods.meta_policy.emorl:EMORL",
    "searched_soups": "paretune.methods.meta_policy.searched_soups:SearchedSoups",
    "preference_conditioned": "paretune.methods.meta_policy.preference_conditioned:PreferenceConditioned",
    "panacea": "paretune.methods.meta_policy.panacea:Panacea",
    "preference_in_prompt": "paretune.methods.meta_policy.preference_in_prompt:PreferenceInPrompt",
    "reptile": "paretune.methods.meta_policy.reptile:Reptile",
    "bilevel": "paretune.methods.meta_policy.bilevel:Bilevel",
    "tree": "paretune.methods.meta_policy.tree:Tree",
    "gated_experts": "paretune.methods.meta_policy.gated_experts:GatedExperts",
    "contextual_bandit": "paretune.methods.meta_policy.contextual_bandit:ContextualBandit",
    "mixture_of_experts": "paretune.methods.meta_policy.mixture_of_experts:MixtureOfExperts",
    "base": "paretune.methods.base:Base",
    "exact_gradient": "paretune.methods.exact_gradient:ExactGradient",
}
PARTS = ("name", "family", "version", "Settings", "stages", "assemble")


def check_method_name(name: str, path: str = "method", line: Callable[[str], str] | None = None) -> str:
    """Return the name of a method that is in the table, or `module:Class` of a user's own.

    Args:
        name: Of the method.
        path: Opens the message.
        line: From the closest name to the corrected line, where the message is to show it.

    Raises:
        UnknownNameError: If it is neither.
    """
    return name if ":" in name else check_choice(path, name, METHODS, "paretune ls methods", line)


def resolve_method(name: str) -> type[Method]:
    """Return a method's class by its name in the table, or a user's own by `module:Class`.

    Raises:
        UnknownNameError: If the name is not in the table.
        ConfigError: If `module:Class` cannot be imported, or is not a method.
    """
    found = import_name("method", METHODS.get(check_method_name(name), name), PARTS, PAGE)
    check_method(found, name)
    method: type[Method] = found
    return method
