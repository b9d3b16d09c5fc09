"""Whether a dynamic method learns from its feedback: does it beat the row that gets the same feedback shuffled?"""

from __future__ import annotations

from collections.abc import Mapping

from paretune.core.protocols import MetricValue
from paretune.report.estimates import LEVEL, difference, p_value
from paretune.report.wording import interval, listing
from paretune.statistics.ties import holm

FEEDBACK, SHUFFLED = "feedback", "shuffled"  # the setting, and its value for a control


def controls_of(methods: object) -> dict[str, str]:
    """Return the control of each method that has one: the row of the same settings but for its feedback.

    Args:
        methods: The study's, name -> settings.

    Example:
        >>> controls_of({"dorb": {"feedback": "measured"}, "control": {"feedback": "shuffled"}, "linear": {}})
        {'dorb': 'control'}
    """
    if not isinstance(methods, Mapping):
        return {}
    rows = {name: settings for name, settings in methods.items() if isinstance(settings, Mapping)}
    return {
        name: control
        for control, theirs in rows.items()
        for name, mine in rows.items()
        if theirs.get(FEEDBACK) == SHUFFLED and mine.get(FEEDBACK) not in (None, SHUFFLED)
        if {**mine, FEEDBACK: None} == {**theirs, FEEDBACK: None}
    }


def controls_sentence(controls: Mapping[str, str], score: str, values: Mapping[str, MetricValue]) -> str:
    """Say of each dynamic method whether it beats its control; nothing where no pair has values.

    Differences are paired by seed, their t-tests corrected after Holm for the number of methods.

    Args:
        controls: Method -> its control.
        score: Name of what is compared.
        values: Of each method.
    """
    empty = MetricValue(None)
    pairs = {
        name: (values.get(name, empty), values.get(control, empty))
        for name, control in controls.items()
        if set(values.get(name, empty).per_seed) & set(values.get(control, empty).per_seed)
    }
    if not pairs:
        return ""
    gaps = {name: difference(mine, theirs) for name, (mine, theirs) in pairs.items()}
    apart = holm([p_value(mine.per_seed, theirs.per_seed) for mine, theirs in pairs.values()], LEVEL)
    said = [f"{name} {interval(gap, signed=True)}" for name, gap in gaps.items()]
    better = [name for (name, gap), each in zip(gaps.items(), apart, strict=True) if each and (gap.value or 0.0) > 0]
    verdict = f"{listing(better)} {'beats' if len(better) == 1 else 'beat'} it" if better else ""
    alike = [name for name, pair in pairs.items() if _identical(*pair)]
    rest = [name for name in gaps if name not in (*better, *alike)]
    negative = f"{listing(rest)} {'does' if len(rest) == 1 else 'do'} not beat it" if rest else ""
    because = ": nothing shows that measuring helped" if rest else ""
    both = "; ".join(each for each in (verdict, negative + because) if each)  # a name keeps its case
    pair = listing([*alike, "its control" if len(alike) == 1 else "their controls"])
    same = f"{pair} are identical policies: there were too few pulls to tell them apart" if alike else ""
    judged = ". ".join(each for each in (both, same) if each)
    return (
        "A control gets the payoff of a random earlier choice in the place of its own, at the same cost. Difference in "
        f"{score} to the control, paired by seed: {'; '.join(said)}. {judged}."
    )


def _identical(mine: MetricValue, theirs: MetricValue) -> bool:
    """Whether a method scored exactly what its control did in each seed that both have: they made the same choices."""
    return all(mine.per_seed[seed] == theirs.per_seed[seed] for seed in {*mine.per_seed} & {*theirs.per_seed})
