"""The main table: methods in tie groups, each anchored at its leader, with what they reach and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretune.core.protocols import CEILING, REFERENCE, MetricRow, MetricValue
from paretune.report.comparison import Comparison
from paretune.report.costs import Cost, costs
from paretune.report.findings import lead
from paretune.report.measured import achieved, judged, measured, rows_of
from paretune.report.tables import Table, Value
from paretune.report.wording import MISSING, interval, number
from paretune.statistics.intervals import BOOTSTRAP_FROM

TITLE = "Main results; methods of one rank cannot be told apart from its first"


def ranks(utilities: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """Return the rank of every method that has a value; a tie group shares its leader's.

    As `statistics.ties.tie_groups`, but each pair is compared on all seeds that both have, so that a seed lost by one
    method takes no seed from the others.

    Args:
        utilities: Method -> seed -> value.

    Returns:
        By rank; the leader of a group before the others.
    """
    found: dict[str, int] = {}
    rest = dict(utilities)
    while (first := lead(rest)) is not None:
        rank = len(found) + 1
        found |= dict.fromkeys((first.leader, *first.tied), rank)
        rest = {name: rest[name] for name in first.behind}
    return found


def ranking(comparison: Comparison, rows: Sequence[MetricRow]) -> list[tuple[str, str]]:
    """Return method and rank of a comparison in the order of the main table.

    By rank; then those without one, the base model, the ceiling.

    Args:
        comparison: The comparison.
        rows: All rows of the study's metrics.
    """
    _, means = judged(comparison, rows)
    found = ranks({method.name: means[method.name].per_seed for method in comparison.ranked})
    texts = {name: str(rank) for name, rank in found.items()}
    texts |= {method.name: MISSING for method in comparison.ranked if method.name not in found}
    apart = [(method.name, REFERENCE) for method in comparison.untrained]
    apart += [(method.name, CEILING) for method in comparison.methods if method.ceiling]
    return [*texts.items(), *apart]


def main_table(comparison: Comparison, rows: Sequence[MetricRow]) -> Table:
    """Return one line a method: rank, utility, its price in KL, share of the possible gain, hypervolume, cost.

    Ranks are by what the task is judged on. On a task judged on J these are by captured share, or by achieved J where
    the optimum is not known, with ranks by utility beside them; on others by utility, with ranks by captured share
    beside them where the optimum is known.
    """
    (first, means), mine = judged(comparison, rows), rows_of(comparison, rows)
    spent = {cost.method: cost for cost in costs(comparison, rows)}
    second, others = _second(comparison, rows)
    beside = ranks({method.name: others[method.name].per_seed for method in comparison.ranked} if second else {})
    lines: list[tuple[Value, ...]] = []
    for name, rank in ranking(comparison, rows):
        method = comparison.method(name)
        volumes = [measured(mine, name, "pareto_optimality", kind).value for kind in ("naive", "cross-fitted")]
        lines.append(
            (
                rank,
                name,
                interval(means[name]),
                *((interval(others[name]), str(beside.get(name, ""))) if second else ()),
                number(measured(mine, name, "performance", "kl: all").value),
                " / ".join(number(each) for each in volumes),
                _spent(rank, spent.get(name)),
                f"{len(method.done)}/{len(method.cells)}",
            )
        )
    columns = (
        "rank", "method", first, *((second, f"rank by {second.split()[-1]}") if second else ()), "KL, nats",
        "hypervolume, naive / cross-fitted", "completions", "seeds",
    )  # fmt: skip
    return Table("ranking", TITLE, columns, tuple(lines))


def _second(comparison: Comparison, rows: Sequence[MetricRow]) -> tuple[str, dict[str, MetricValue]]:
    """Return what stands beside the values that methods are ranked by; an empty name where nothing does."""
    if comparison.task.judged_on == "J":
        return "achieved utility", achieved(comparison, rows)
    mine = rows_of(comparison, rows)
    everyone = (*comparison.methods, *comparison.untrained)
    shares = {method.name: measured(mine, method.name, "captured_share") for method in everyone}
    return "captured share" if any(share.value is not None for share in shares.values()) else "", shares


def _spent(rank: str, cost: Cost | None) -> str:
    """Say how many completions a row was charged."""
    if rank == CEILING or cost is None:
        return "none" if rank == REFERENCE else "not charged"
    return number(cost.completions.value)


def interval_rule(values: Sequence[MetricValue]) -> str:
    """Name the rule of the intervals of achieved utility."""
    if any("bootstrap" in value.reason for value in values):
        return (
            f"From {BOOTSTRAP_FROM} seeds on, the intervals of achieved utility are those of a nested bootstrap, which "
            "draws seeds anew and prompts within each; all others are Student-t intervals over seeds."
        )
    return (
        f"All intervals are Student-t intervals over seeds; from {BOOTSTRAP_FROM} seeds on, those of achieved utility "
        "would be a nested bootstrap over seeds and prompts."
    )
