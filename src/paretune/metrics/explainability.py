"""Explainability: what of a policy's scores each expert, each weight and each gate is answerable for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.protocols import REFERENCE, MetricRow, MetricValue
from paretune.metrics.seeds import ANYWHERE, Group, NoValueError, groups, names, not_measured, over_seeds
from paretune.records.study import CellRecord, StudyRecords
from paretune.statistics.rank_correlation import FEWEST, pooled_rank_correlation

FloatArray = NDArray[np.float64]
Table = Mapping[str, Any]  # what the measurement `attribution` leaves, see its docstring
Pairs = Iterable[tuple[Any, Any]]  # what an attribution says of some parts, and what taking them away does
EVEN = "equal weights"
SIZE_ERROR = "faithfulness: shapley, relative error (lower is better)"
ALONE = "the only expert"  # at a preference that one expert answers, whatever its name: so methods share a row
TWO_EXPERTS = f"has fewer than {FEWEST} experts at each preference"
FEW_PARTS = {  # why an attribution of so few parts has no rank correlation
    "shapley": f"{TWO_EXPERTS}: the Shapley values of two differ as their removals do, by construction",
    "mixing weights": f"{TWO_EXPERTS}: the order of two numbers is right by chance half the time",
    "gate use": f"{TWO_EXPERTS}: the order of two numbers is right by chance half the time",
    "sensitivity": f"has fewer than {FEWEST} objectives: the order of two numbers is right by chance half the time",
}
WITHOUT = {"sensitivity": "has no sensitivity ({})", "gate": "has no gate: {}"}  # parts of the table, and why
NO_RANKS = {
    "shapley": "has experts that all matter alike",
    "mixing weights": "weighs all experts alike, or has experts that all matter alike",
    "gate use": "has a gate that uses all experts alike, or experts that all matter alike",
    "sensitivity": "has the same scores wherever the preference moves",
}


class Explainability:
    """What each expert adds to a score, what another preference changes, where a gate uses which expert; and whether
    these attributions hold when what they name is taken away.

    Unit: Shapley values and sensitivities are in the unit of the score, the KL in nats; gate weights, entropy, shares
    and rank correlations have none. Direction: none, but for faithfulness, where higher is better. Interval: Student-t
    over seeds; a note gives the mean standard error over prompts of one seed where scores are sampled.

    No value: where the method has no gate, or one expert, or the measurement could not make the number; the reason says
    which. A ranking of parts that are all alike has no correlation.

    Rows by label:

    - `shapley: OBJECTIVE, EXPERT`: the expert's Shapley value for equal weights, likewise for `KL` and `utility`, the
      weighed sum; `..., at OBJECTIVE +.2` where that weight is .2 higher. They add up to the gain over the base model.
      An expert is named by what it is for, else by its number. Where one answers alone it is `the only expert`, and
      all of the gain is its own.
    - `sensitivity: +.1 OBJECTIVE on OBJECTIVE`: what the second score, or the `KL`, changes when the weight of the
      first rises by .1 from equal weights and all others shrink in proportion. `sensitivity: mean error at +.2`: how
      far twice these changes are from those that a step of .2 makes, mean over all pairs of objectives.
    - `gate: block N, EXPERT`, `gate: position 3-4, EXPERT`: mean weight in a block, from 0 on, and at some tokens of
      the completion, from 1 on; `gate: spread over prompts, EXPERT`: standard deviation of its mean weight over
      prompts; `gate: entropy`: 0 where each token uses one expert, 1 where all alike. All for equal weights.
    - `gradient: weight of OBJECTIVE`: with what share of all weights its gradient was summed in training, mean over
      updates;
      `gradient: steps against OBJECTIVE`: share of optimiser steps that turned against it.
    - `faithfulness: shapley`, `mixing weights`, `gate use`: rank correlation, over experts, of the attribution with
      what the score loses when that expert alone is taken out. The weights that the answer gives are the attribution
      that anyone would make first, and what others must beat; they are the same for every objective, so of specialists
      they tell who matters to the user (`..., utility`) and not for what. Ranks are within one objective at one
      preference, and correlations averaged over objectives and preferences; `faithfulness: shapley, OBJECTIVE` is of
      one objective. `faithfulness: sensitivity`: of changes at .1 with those at .2, over the weights raised. No ranks
      of fewer than three parts: of two experts, the difference of the Shapley values *is* that of the removals.
    - `faithfulness: shapley, relative error (lower is better)`: how far Shapley values are from what the score loses
      without the expert, `sum |shapley - removal| / sum |removal|` over experts, objectives and preferences. 0 where
      nothing that an expert adds depends on which others are there. Two experts can fail this one.

    Source:
        Kong et al. 2025, explainability; Shapley 1953. The checks by ablation follow Samek et al. 2017, who remove what
        an attribution names and watch the score.

    Departures:
        The objectives' part in the gradient is told by their weights: how long single gradients are is not logged.
    """

    name = "explainability"
    title = "Explainability"
    unit = "as labelled"
    higher_is_better = True
    needs = ("attribution",)

    def measure(self, study: StudyRecords) -> Sequence[MetricRow]:
        """Return the rows of every task, method and budget."""
        every, rows = list(groups(study)), []
        for group in every:
            tables = [table for other in every if other.task.name == group.task.name for table in _tables(other)]
            for label, value in _values(group, tables):
                rows.append(group.row(self.name, label, value))
        return rows


def _values(group: Group, tables: Sequence[Table]) -> Iterator[tuple[str, MetricValue]]:
    """Yield labels and values of a group; experts, blocks and positions are those of all methods of its task."""
    objectives = names(group.task)

    def value(read: Callable[[Table], float], note: str = "", within: tuple[float, float] = ANYWHERE) -> MetricValue:
        return over_seeds(group.cells, lambda cell: read(_table(cell)), note, within)

    for (at, expert), column in product(_experts(tables), (*objectives, "KL", "utility")):
        where = "" if at == EVEN else f", at {at}"
        note = _note(group, at, expert, column)
        yield f"shapley: {column}, {expert}{where}", value(partial(_shapley, at, expert, column), note)
    for raised, column in product(objectives, (*objectives, "KL")):
        place = objectives.index(raised), (*objectives, "KL").index(column)
        yield (
            f"sensitivity: +.1 {raised} on {column}",
            value(partial(_sensitivity, *place, column), _step_note(group, *place)),
        )
    yield "sensitivity: mean error at +.2", value(_step_error, within=(0, np.inf))
    for label, part, key, expert in _gate_parts(tables):
        yield f"gate: {label}, {expert}", value(partial(_gate, part, key, expert))
    yield "gate: entropy", value(partial(_gate, "entropy", None, ""), within=(0, 1))
    for k, each in enumerate(objectives):
        yield f"gradient: weight of {each}", value(partial(_training, "shares", k), within=(0, 1))
        yield f"gradient: steps against {each}", value(partial(_training, "conflicts", k), within=(0, 1))
    for kind in NO_RANKS:
        yield f"faithfulness: {kind}", value(partial(_faithfulness, kind, range(len(objectives))), within=(-1, 1))
        single = [*enumerate(objectives), *([] if kind == "sensitivity" else [(len(objectives) + 1, "utility")])]
        for k, each in single:
            yield f"faithfulness: {kind}, {each}", value(partial(_faithfulness, kind, [k]), within=(-1, 1))
    yield SIZE_ERROR, value(partial(_size_error, len(objectives)), within=(0, np.inf))


def _table(cell: CellRecord) -> Table:
    if cell.family == REFERENCE:
        raise NoValueError("has no experts: it is the base model")
    if "attribution" not in cell.measured:
        raise NoValueError(not_measured("attribution"))
    return cell.measured["attribution"]


def _known(found: float | None, why: str) -> float:
    if found is None:
        raise NoValueError(why)
    return float(found)


def _tables(group: Group) -> list[Table]:
    return [cell.measured["attribution"] for cell in group.cells if "attribution" in cell.measured]


def _names(point: Table) -> list[str]:
    """Return the names of the experts of a point as rows have them."""
    return [ALONE] if len(point["experts"]) == 1 else list(point["experts"])


def _point(points: Sequence[Table], at: str) -> Table | None:
    return next((point for point in points if point["at"] == at), None)


def _experts(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Return at which preferences which experts have Shapley values, by any method: equal weights first."""
    found = [(point["at"], each) for table in tables for point in table["points"] for each in _names(point)]
    order = list(dict.fromkeys(at for at, _ in found))
    return sorted(dict.fromkeys(found), key=lambda pair: (pair[0] != EVEN, order.index(pair[0])))


def _shapley(at: str, expert: str, column: str, table: Table) -> float:
    point = _point(table["points"], at)
    if point is None:
        raise NoValueError(f"was taken apart at equal weights alone, not at {at}: it has too many experts for more")
    if point["reason"]:
        raise NoValueError(f"has no Shapley values ({point['reason']})")
    if expert not in _names(point):
        raise NoValueError(f"weighs no expert of this name at {at}")
    found = point["shapley"][_names(point).index(expert)][table["columns"].index(column)]
    return _known(found, f"has no {column} of every coalition on any prompt")


def _note(group: Group, at: str, expert: str, column: str) -> str:
    """Say what a Shapley value is beside its interval: whose it is, and how far off sampling may leave it."""
    errors = []
    for table in _tables(group):
        point = _point(table["points"], at)
        if point is None or point["reason"] or expert not in _names(point):
            continue
        row, place = _names(point).index(expert), table["columns"].index(column)
        sampled = [point["standard_error"]] * (table["scores"] != "exact") + [point["order_error"]]
        found = [each[row][place] for each in sampled if each is not None and each[row][place] is not None]
        errors += [float(np.hypot.reduce(found))] if found else []
    parts = ["one expert answers, so all of the gain over the base model is its own"] * (expert == ALONE)
    return "; ".join([*parts, *_error_note(errors)])


def _error_note(errors: Sequence[float]) -> list[str]:
    return [f"standard error of a seed {np.mean(errors):.2g}"] if errors else []


def _part(table: Table, name: str) -> Table:
    """Return what was measured of steps of the preference, `sensitivity`, or of how the `gate` uses experts."""
    known: Table = table[name]
    if known["reason"]:
        raise NoValueError(WITHOUT[name].format(known["reason"]))
    return known


def _sensitivity(raised: int, place: int, column: str, table: Table) -> float:
    return _known(_part(table, "sensitivity")["changes"][0][raised][place], f"has no {column} on any prompt")


def _step_note(group: Group, raised: int, place: int) -> str:
    """Say of a change whether it is of one policy with itself, and how far off sampling may leave it."""
    known = [(table["scores"], table["sensitivity"]) for table in _tables(group) if not table["sensitivity"]["reason"]]
    same = [each["same_policy"][0][raised] for _, each in known]
    parts = ["the same policy answers both"] if same and all(same) else []
    sampled = [each["standard_error"][0][raised][place] for scores, each in known if scores != "exact"]
    return "; ".join(parts or _error_note([error for error in sampled if error is not None]))


def _step_error(table: Table) -> float:
    small, large = _array(_part(table, "sensitivity")["changes"])[..., :-1]
    error = float(np.abs(2 * small - large).mean())
    if not np.isfinite(error):
        raise NoValueError("has an objective without a score")
    return error


def _gate_parts(tables: Sequence[Table]) -> list[tuple[str, str, Any, str]]:
    """Return label, part of the table, key in it and expert of every mean weight that a gate of the task has."""
    points = [point for table in tables for point in table["gate"].get("points", ()) if point["at"] == EVEN]
    experts = list(dict.fromkeys(each for point in points for each in point["experts"]))
    blocks = sorted({block for point in points for block in point["blocks"]})
    bins = sorted({(low, high) for point in points for low, high in point["positions"]})
    parts: list[tuple[str, str, Any]] = [(f"block {block}", "by_block", block) for block in blocks]
    parts += [
        (f"position {low}" if low == high else f"position {low}-{high}", "by_position", [low, high])
        for low, high in bins
    ]
    parts += [("spread over prompts", "spread", None)] if points else []
    return [(*part, expert) for part, expert in product(parts, experts)]


def _gate(part: str, key: Any, expert: str, table: Table) -> float:
    point = _point(_part(table, "gate")["points"], EVEN)
    if point is None or (expert and expert not in point["experts"]):
        raise NoValueError("has a gate over other experts")
    found, places = point[part], {"by_block": "blocks", "by_position": "positions"}
    if part in places:
        if key not in point[places[part]]:
            raise NoValueError(f"has no {'block' if part == 'by_block' else 'completion'} that reaches there")
        found = found[point[places[part]].index(key)]
    found = found[point["experts"].index(expert)] if expert else found
    return _known(found, "has one prompt or one expert")


def _training(part: str, objective: int, table: Table) -> float:
    found = table["training"][part]
    if found is None:
        raise NoValueError(f"has none: {table['training'][f'{part}_reason']}")
    return _known(found[objective], "is not trained for it")


def _faithfulness(kind: str, columns: Sequence[int], table: Table) -> float:
    if kind == "gate use":
        _part(table, "gate")
    pairs = list(_pairs(table, kind, columns))
    if max((len(said) for said, _ in pairs), default=0) < FEWEST:
        raise NoValueError(FEW_PARTS[kind])
    found = pooled_rank_correlation(pairs)
    if isinstance(found, str):
        raise NoValueError(f"{NO_RANKS[kind]} ({found})")
    return found


def _size_error(objectives: int, table: Table) -> float:
    pairs = [pair for pair in _pairs(table, "shapley", range(objectives)) if len(pair[0]) > 1]
    if not pairs:
        raise NoValueError("has one expert at each preference, whose Shapley value is what is lost without it")
    shapley, removal = (np.concatenate(each) for each in zip(*pairs, strict=True))
    size = np.abs(removal).sum()
    error = float(np.abs(shapley - removal).sum() / size) if size > 0 else np.inf
    if not np.isfinite(error):
        raise NoValueError("has an objective without a score, or experts of which none is missed")
    return error


def _pairs(table: Table, kind: str, columns: Sequence[int]) -> Pairs:
    """Yield groups of parts, one a score and preference: what is attributed to each, and what ablation says."""
    if kind == "sensitivity":
        small, large = _array(_part(table, "sensitivity")["changes"])
        yield from ((small[:, k], large[:, k]) for k in columns)
        return
    for point in _taken_apart(table):
        removal, shapley = _array(point["removal"]), _array(point["shapley"])
        said: Any = point["expert_weights"]
        if kind == "gate use":
            use = _point(table["gate"]["points"], point["at"])
            if use is None:
                continue
            said = use["mean"]
        yield from ((shapley[:, k] if kind == "shapley" else said, removal[:, k]) for k in columns)


def _taken_apart(table: Table) -> list[Table]:
    """Return at which preferences experts were taken out."""
    points = [point for point in table["points"] if not point["reason"]]
    if table["points"] and not points:
        raise NoValueError(f"has no Shapley values ({table['points'][0]['reason']})")
    return points


def _array(values: Any) -> FloatArray:
    """Return nested lists as an array, None as NaN."""
    return np.array(values, dtype=np.float64)
